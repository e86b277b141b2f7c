//! The baseline allows: the way to the cluster's DNS and the scrapes of the monitoring, as rules of NetworkPolicy.
//!
//! [`forgotten`] says which of them a policy takes from its pods; the rules are the same whether they are appended
//! to the policy or stand in a policy of their own beside it ([`beside`]). The policies that a namespace has as a whole
//! are of `baseline/wanted.rs`, and what is to be done about them of [`plan`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::guard::guardrail::{BaselineSection, DnsAllow, Guardrail, MonitoringAllow, ScrapePort};
use crate::guard::quarantine::Quarantine;
use crate::netpol::{
    ContainerPort, Direction, Endpoint, FieldPath, Flow, Labels, Namespace, NamespaceName,
    NamespaceState, NetworkPolicy, Object, ObjectName, Operator, Pod, Port, PortName, Protocol,
    Selector, Snapshot, WorkloadKind, WorkloadRef,
};

mod missing;
mod observed;
pub mod plan;
mod wanted;

pub use missing::{WithoutDns, without_dns};
pub use observed::{Cut, Observed, observed};
pub use wanted::{NAME, PART_OF, Wanted, wanted};

/// The label of every policy that Ringfence makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The first part of the names of baseline policies.
pub const PREFIX: &str = "ringfence-baseline-";

/// One of the baseline allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allow {
    /// Egress to the cluster's DNS, UDP and TCP.
    Dns,
    /// Ingress from the monitoring.
    Monitoring,
}

// === impl Allow ===

impl Allow {
    /// Its name in annotations and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Monitoring => "monitoring",
        }
    }

    /// The direction of its rule.
    pub fn direction(self) -> Direction {
        match self {
            Self::Dns => Direction::Egress,
            Self::Monitoring => Direction::Ingress,
        }
    }

    /// Its rule, as it stands in a NetworkPolicy.
    pub fn rule(self, section: &BaselineSection) -> Option<Value> {
        match self {
            Self::Dns => section.dns.as_ref().map(dns_rule),
            Self::Monitoring => section.monitoring.as_ref().map(monitoring_rule),
        }
    }
}

impl std::fmt::Display for Allow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

fn dns_rule(dns: &DnsAllow) -> Value {
    let mut to =
        vec![json!({"namespaceSelector": dns.namespace_selector, "podSelector": dns.pod_selector})];
    to.extend(dns.node_local.iter().map(|address| {
        let length = if address.is_ipv4() { 32 } else { 128 };
        json!({"ipBlock": {"cidr": format!("{address}/{length}")}})
    }));
    let ports: Vec<Value> = dns
        .ports
        .iter()
        .flat_map(|port| {
            [
                json!({"protocol": "UDP", "port": port}),
                json!({"protocol": "TCP", "port": port}),
            ]
        })
        .collect();
    json!({"to": to, "ports": ports})
}

fn monitoring_rule(monitoring: &MonitoringAllow) -> Value {
    let mut peer = json!({"namespaceSelector": monitoring.namespace_selector});
    if let (Some(pods), Some(peer)) = (&monitoring.pod_selector, peer.as_object_mut()) {
        peer.insert("podSelector".to_owned(), json!(pods));
    }
    let ports: Vec<Value> = monitoring
        .ports
        .iter()
        .map(|port| json!({"protocol": "TCP", "port": port}))
        .collect();
    json!({"from": [peer], "ports": ports})
}

/// The allows that a policy takes from its pods and that no policy of the namespace gives back.
///
/// Judged on the pods that the policy selects, else on one that has just the labels it asks for. Pods under
/// quarantine do not count: they are to have none.
pub fn forgotten(
    policy: &NetworkPolicy,
    guardrail: &Guardrail,
    quarantine: &Quarantine<'_>,
    snapshot: &Snapshot,
    pods: usize,
) -> Vec<Allow> {
    let Some(section) = &guardrail.spec.baseline else {
        return Vec::new();
    };
    let imagined = imagined_pod(policy, section);
    let selected = snapshot.pods_in(&policy.namespace).filter(|pod| {
        policy.selector.matches(&pod.labels) && !quarantine.holds(&pod.labels) && pod.is_held()
    });
    // Pods of one template are alike to policies: one of them answers for all.
    let mut kinds: BTreeMap<(&Labels, &[ContainerPort]), &Pod> = BTreeMap::new();
    for pod in selected.take(pods) {
        kinds.entry((&pod.labels, &pod.ports)).or_insert(pod);
    }
    let selected: Vec<&Pod> = kinds.into_values().take(KINDS).collect();
    let judged: &[&Pod] = if selected.is_empty() {
        &[&imagined]
    } else {
        &selected
    };
    let mut forgotten = Vec::new();
    if let Some(dns) = section
        .dns
        .as_ref()
        .filter(|_| policy.isolates(Direction::Egress))
    {
        let peers = Peers::of(
            &dns.namespace_selector,
            Some(&dns.pod_selector),
            snapshot,
            &dns.ports,
        );
        if !judged.iter().all(|pod| may_resolve(pod, dns, &peers)) {
            forgotten.push(Allow::Dns);
        }
    }
    if let Some(monitoring) = section
        .monitoring
        .as_ref()
        .filter(|_| policy.isolates(Direction::Ingress))
    {
        let peers = Peers::of(
            &monitoring.namespace_selector,
            monitoring.pod_selector.as_ref(),
            snapshot,
            &[],
        );
        if !judged
            .iter()
            .all(|pod| may_be_scraped(pod, monitoring, &peers))
        {
            forgotten.push(Allow::Monitoring);
        }
    }
    forgotten
}

/// The baseline policies that allow, beside a policy, what it forgot; see [`Quarantine::outside`] for why there may be
/// several. They select no pods that the policy does not, so they isolate none that are not isolated already.
pub fn beside(
    policy: &NetworkPolicy,
    guardrail: &Guardrail,
    quarantine: &Quarantine<'_>,
    allows: &[Allow],
) -> Vec<Value> {
    let Some(section) = &guardrail.spec.baseline else {
        return Vec::new();
    };
    // A policy without rules is none that allows: its `policyTypes` would isolate.
    if allows.is_empty() {
        return Vec::new();
    }
    let outside = quarantine.outside(&policy.selector);
    let selectors: Vec<LabelSelector> = outside.iter().map(Selector::to_label_selector).collect();
    let many = selectors.len() > 1;
    selectors
        .into_iter()
        .enumerate()
        .map(|(index, selector)| {
            let number = if many { format!("-{}", index.saturating_add(1)) } else { String::new() };
            let name = bounded_name(&format!("{PREFIX}{}", policy.name), &number);
            let mut spec = json!({"podSelector": selector, "policyTypes": []});
            for allow in allows {
                let Some(rule) = allow.rule(section) else { continue };
                if let Some(rules) = spec.get_mut("policyTypes").and_then(Value::as_array_mut) {
                    rules.push(json!(allow.direction().policy_type()));
                }
                if let Some(spec) = spec.as_object_mut() {
                    spec.insert(allow.direction().field().to_owned(), json!([rule]));
                }
            }
            json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {
                    "name": name,
                    "namespace": policy.namespace.as_str(),
                    "labels": {MANAGED_BY: "ringfence"},
                    "annotations": {
                        "ringfence.dev/owner": "ringfence",
                        "ringfence.dev/purpose": format!("baseline allows for policy {}", policy.name)
                    }
                },
                "spec": spec
            })
        })
        .collect()
}

/// A name of at most 253 bytes (RFC 1123 subdomain) that stays unique: a long one ends in a digest of itself.
fn bounded_name(name: &str, suffix: &str) -> String {
    const LONGEST: usize = 253;
    const DIGEST: usize = 17;
    if name.len().saturating_add(suffix.len()) <= LONGEST {
        return format!("{name}{suffix}");
    }
    // FNV-1a: small, stable between releases, and not a matter of security here.
    let digest = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let room = LONGEST.saturating_sub(DIGEST).saturating_sub(suffix.len());
    let start: String = name.chars().take(room).collect();
    format!(
        "{}-{digest:016x}{suffix}",
        start.trim_end_matches(['-', '.'])
    )
}

fn may_resolve(pod: &Pod, dns: &DnsAllow, servers: &Peers) -> bool {
    let ports = || dns.ports.iter().filter_map(|&port| Port::new(port));
    let reaches = |to: &Endpoint<'_>| {
        ports().all(|port| {
            [Protocol::Udp, Protocol::Tcp].into_iter().all(|protocol| {
                servers
                    .snapshot
                    .verdict(&Flow::new(Endpoint::Pod(pod), *to, protocol, port))
                    .egress
                    .passes()
            })
        })
    };
    servers
        .pods
        .iter()
        .all(|server| reaches(&Endpoint::Pod(server)))
        && dns
            .node_local
            .iter()
            .all(|&address: &IpAddr| reaches(&Endpoint::External(address)))
}

fn may_be_scraped(pod: &Pod, monitoring: &MonitoringAllow, scrapers: &Peers) -> bool {
    monitoring.ports.iter().all(|port| {
        let number = match port {
            ScrapePort::Number(number) => Port::new(*number),
            // A pod without a port of that name has nothing to scrape there.
            ScrapePort::Name(name) => pod
                .ports_named(&PortName::from(name.as_str()), Protocol::Tcp)
                .next(),
        };
        number.is_none_or(|port| {
            scrapers.pods.iter().all(|scraper| {
                let flow = Flow::new(
                    Endpoint::Pod(scraper),
                    Endpoint::Pod(pod),
                    Protocol::Tcp,
                    port,
                );
                scrapers.snapshot.verdict(&flow).ingress.passes()
            })
        })
    })
}

/// The label that the control plane gives every namespace: its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// How many kinds of a policy's pods are looked at.
const KINDS: usize = 64;
/// How many of the peers are looked at: they are alike, and a policy that tells them apart shows early.
const PEERS: usize = 16;

/// The other end of an allow, and the cluster in which it is there.
struct Peers {
    pods: Vec<Pod>,
    snapshot: Snapshot,
}

// === impl Peers ===

impl Peers {
    /// The pods that are there for two selectors, else one that is imagined with just the labels that they ask for, in
    /// a namespace that is there, else in one that is imagined as well.
    fn of(
        namespaces: &LabelSelector,
        pods: Option<&LabelSelector>,
        snapshot: &Snapshot,
        ports: &[u16],
    ) -> Self {
        let parse = |selector: &LabelSelector| {
            Selector::parse(selector, &FieldPath::root()).unwrap_or_else(|_| Selector::everything())
        };
        let namespaces = parse(namespaces);
        let pods = pods.map_or_else(Selector::everything, parse);
        let matching: Vec<&NamespaceState> = named(&namespaces, snapshot)
            .unwrap_or_else(|| snapshot.namespaces().collect())
            .into_iter()
            .filter(|namespace| namespaces.matches(namespace.labels()))
            .collect();
        let there = matching.iter().flat_map(|namespace| namespace.pods());
        let there = there.filter(|pod| pods.matches(&pod.labels) && pod.is_held());
        let there: Vec<Pod> = there.take(PEERS).cloned().collect();
        if !there.is_empty() {
            return Self {
                pods: there,
                snapshot: snapshot.clone(),
            };
        }
        let (name, snapshot) = if let Some(namespace) = matching.first() {
            (namespace.name().clone(), snapshot.clone())
        } else {
            let labels = namespaces.example();
            let name =
                NamespaceName::from(labels.get(NAMESPACE_NAME).unwrap_or("ringfence-imagined"));
            let namespace = Namespace::new(name.clone(), &labels);
            (name, snapshot.with(Object::Namespace(namespace)))
        };
        // The names that CoreDNS gives its ports, for policies that speak of them by name.
        let ports = ports.first().into_iter().flat_map(|&port| {
            [
                ("dns", Protocol::Udp, port),
                ("dns-tcp", Protocol::Tcp, port),
            ]
        });
        Self {
            pods: vec![imagined(name, pods.example(), ports)],
            snapshot,
        }
    }
}

/// The namespaces that a selector names one by one. Mostly it does, and the others need not be looked at.
fn named<'s>(selector: &Selector, snapshot: &'s Snapshot) -> Option<Vec<&'s NamespaceState>> {
    selector.requirements().iter().find_map(|term| {
        let Operator::In(names) = term.operator() else {
            return None;
        };
        let known = names
            .iter()
            .filter_map(|name| snapshot.namespace(&NamespaceName::from(&**name)));
        (term.key() == NAMESPACE_NAME).then(|| known.collect())
    })
}

/// A pod that has just the labels that a policy asks for, and a port for each name that is scraped.
fn imagined_pod(policy: &NetworkPolicy, section: &BaselineSection) -> Pod {
    let names = section
        .monitoring
        .iter()
        .flat_map(|monitoring| &monitoring.ports)
        .filter_map(|port| match port {
            ScrapePort::Name(name) => Some(name.as_str()),
            ScrapePort::Number(_) => None,
        });
    // Any number serves: only the name is asked for. Distinct ones keep the names apart.
    let ports = names
        .zip(61_000_u16..)
        .map(|(name, number)| (name, Protocol::Tcp, number));
    imagined(policy.namespace.clone(), policy.selector.example(), ports)
}

fn imagined<'n>(
    namespace: NamespaceName,
    labels: Labels,
    ports: impl IntoIterator<Item = (&'n str, Protocol, u16)>,
) -> Pod {
    let workload = WorkloadRef {
        kind: WorkloadKind::Pod,
        namespace,
        name: ObjectName::from("imagined"),
    };
    let ports = ports.into_iter().filter_map(|(name, protocol, port)| {
        Some(ContainerPort {
            name: Some(PortName::from(name)),
            port: Port::new(port)?,
            protocol,
        })
    });
    Pod {
        labels,
        ports: ports.collect(),
        ..Pod::new(workload)
    }
}
