//! Pods that may send something, and cannot resolve a name: their egress is isolated, and nothing lets them reach the cluster's DNS.
//!
//! What [`forgotten`](super::forgotten) asks of one policy by itself, asked of all that are there: each pod is counted with the
//! first policy that opens its egress to anything else. A pod that only policies without egress rules isolate is meant to
//! send nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Peers;
use crate::guard::guardrail::{BaselineSection, DnsAllow};
use crate::guard::mutate::{INJECT_ANNOTATION, INJECT_DISABLED};
use crate::guard::quarantine::Quarantine;
use crate::netpol::{
    ContainerPort, Direction, EndVerdict, Endpoint, Flow, Labels, NamespaceState, NetworkPolicy,
    Peer, Peers as RulePeers, Pod, Port, PortMatch, Ports, Protocol, Snapshot, WorkloadRef,
};

/// Pods that a policy opens the egress of, and that cannot reach the cluster's DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithoutDns {
    /// The pods, or the workloads that make them.
    pub workloads: BTreeSet<WorkloadRef>,
    /// The ports that are denied to some of them.
    pub denied: BTreeSet<(Protocol, Port)>,
}

/// The pods without DNS that count with a policy; none of a namespace that is not known whole, where an allow may be
/// elsewhere. Pods under quarantine are to have none.
pub fn without_dns(
    policy: &NetworkPolicy,
    section: &BaselineSection,
    quarantine: &Quarantine<'_>,
    snapshot: &Snapshot,
) -> Option<WithoutDns> {
    let dns = section.dns.as_ref()?;
    let namespace = snapshot.namespace(&policy.namespace)?;
    namespace.object()?;
    if !opens(policy) {
        return None;
    }
    let mut kinds: BTreeMap<(&Labels, &[ContainerPort]), Vec<&Pod>> = BTreeMap::new();
    let held = namespace.pods().filter(|pod| {
        pod.is_held() && policy.selector.matches(&pod.labels) && !quarantine.holds(&pod.labels)
    });
    for pod in held {
        let kind = kinds.entry((&pod.labels, &pod.ports)).or_default();
        kind.push(pod);
    }
    let servers = Peers::of(
        &dns.namespace_selector,
        Some(&dns.pod_selector),
        snapshot,
        &dns.ports,
    );
    let mut found = WithoutDns {
        workloads: BTreeSet::new(),
        denied: BTreeSet::new(),
    };
    for pods in kinds.values() {
        let Some(pod) = pods.first() else { continue };
        let isolating: Vec<&NetworkPolicy> = isolating(namespace, pod).collect();
        let counts = isolating.iter().find(|policy| opens(policy));
        if counts.is_none_or(|first| first.name != policy.name) {
            continue;
        }
        let denied = denied(pod, dns, &servers, &isolating);
        if !denied.is_empty() {
            found.denied.extend(denied);
            found
                .workloads
                .extend(pods.iter().map(|pod| pod.workload.clone()));
        }
    }
    (!found.workloads.is_empty()).then_some(found)
}

/// The policies that isolate the egress of a pod, by name.
fn isolating<'s>(
    namespace: &'s NamespaceState,
    pod: &'s Pod,
) -> impl Iterator<Item = &'s NetworkPolicy> {
    namespace
        .effective_policies()
        .filter(|policy| policy.isolates(Direction::Egress) && policy.selector.matches(&pod.labels))
}

/// Whether a policy is one to ask for the way to DNS: it allows some egress, and does not say that this is all.
fn opens(policy: &NetworkPolicy) -> bool {
    !policy.rules(Direction::Egress).is_empty()
        && policy.annotations.get(INJECT_ANNOTATION) != Some(INJECT_DISABLED)
}

/// The ports at which policies deny a pod the DNS pods or the cache of its node. What a tier of the whole cluster denies no
/// policy of the namespace can mend.
fn denied(
    pod: &Pod,
    dns: &DnsAllow,
    servers: &Peers,
    isolating: &[&NetworkPolicy],
) -> BTreeSet<(Protocol, Port)> {
    let others: Vec<Endpoint<'_>> = servers
        .pods
        .iter()
        .map(Endpoint::Pod)
        .chain(dns.node_local.iter().copied().map(Endpoint::External))
        .collect();
    let mut denied = BTreeSet::new();
    for port in dns.ports.iter().filter_map(|&port| Port::new(port)) {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let is_denied = others.iter().any(|to| {
                let flow = Flow::new(Endpoint::Pod(pod), *to, protocol, port);
                let verdict = servers.snapshot.verdict(&flow).egress;
                matches!(verdict, EndVerdict::Denied { .. })
                    && !may_be_in_a_block(to, protocol, port, isolating)
            });
            if is_denied {
                denied.insert((protocol, port));
            }
        }
    }
    denied
}

/// Whether a rule for addresses may mean a pod whose address is not known.
fn may_be_in_a_block(
    to: &Endpoint<'_>,
    protocol: Protocol,
    port: Port,
    isolating: &[&NetworkPolicy],
) -> bool {
    let is_unknown = matches!(to, Endpoint::Pod(server) if server.ips.is_empty());
    let is_meant = |entry: &PortMatch| {
        entry.protocol == protocol
            // A name may stand for any number.
            && entry.port.has_number(port).unwrap_or(true)
    };
    let rules = isolating
        .iter()
        .flat_map(|policy| policy.rules(Direction::Egress));
    let mut rules = rules.filter(|rule| match &rule.ports {
        Ports::Any => true,
        Ports::Only(ports) => ports.iter().any(is_meant),
    });
    is_unknown
        && rules.any(|rule| match &rule.peers {
            RulePeers::Any => true,
            RulePeers::Only(peers) => peers.iter().any(|peer| matches!(peer, Peer::Block { .. })),
        })
}
