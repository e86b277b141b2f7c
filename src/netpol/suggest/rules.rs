//! What was seen, by workload and direction, and the policies that allow just that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::units::{Unit, Units};
use super::{Join, Options};
use crate::netpol::coverage::Direction;
use crate::netpol::labels::NAMESPACE_NAME_LABEL;
use crate::netpol::name::NamespaceName;
use crate::netpol::port::{Port, Protocol};
use crate::netpol::replay::{Observations, Resolved, Who};
use crate::netpol::selector::Selector;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Other {
    /// A unit, by number.
    Unit(usize),
    /// An address, or the block that it was joined to.
    Block(IpNet),
}

/// The ports at which something was seen.
pub(super) type PortList = BTreeSet<(Protocol, Port)>;

/// What each unit was seen to do, in each direction.
#[derive(Debug, Default)]
pub(super) struct Seen {
    edges: BTreeMap<(usize, Direction), BTreeMap<Other, PortList>>,
    /// The namespaces in which policies are written.
    pub(super) namespaces: BTreeSet<NamespaceName>,
}

impl Seen {
    pub(super) fn of(
        observations: &Observations,
        units: &Units,
        options: &Options,
        notes: &mut BTreeSet<String>,
    ) -> Self {
        let mut seen = Self {
            namespaces: options.namespaces.clone(),
            ..Self::default()
        };
        for (flow, _) in observations.iter().filter(|(_, tally)| tally.allowed() > 0) {
            let (Some(Resolved::Known(from)), Some(Resolved::Known(to))) =
                (units.end(flow.from), units.end(flow.to))
            else {
                continue;
            };
            for (direction, own, other) in [
                (Direction::Egress, from, to),
                (Direction::Ingress, to, from),
            ] {
                let own_unit = own
                    .pod()
                    .filter(|pod| pod.is_held())
                    .and_then(|_| units.of_who(&own.who));
                let Some(unit) = own_unit.and_then(|number| units.get(number)) else {
                    continue;
                };
                if options.wants(&unit.namespace) {
                    seen.namespaces.insert(unit.namespace.clone());
                }
                // Nothing can block it, wherever the pod runs.
                if matches!(other.who, Who::Node(_)) && own.shares_node(other) {
                    continue;
                }
                let other_unit = other
                    .pod()
                    .filter(|pod| pod.is_held())
                    .and_then(|_| units.of_who(&other.who));
                let other = match (other_unit, other.address()) {
                    (Some(number), _) => Other::Unit(number),
                    (None, Some(address)) => Other::Block(joined(address, options.join)),
                    (None, None) if own.shares_node(other) => continue,
                    (None, None) => {
                        notes.insert(format!(
                            "no policy can speak of {}: its address is not known",
                            other.who
                        ));
                        continue;
                    }
                };
                let edges = seen
                    .edges
                    .entry((own_unit.unwrap_or_default(), direction))
                    .or_default();
                edges
                    .entry(other)
                    .or_default()
                    .insert((flow.protocol, flow.port));
            }
        }
        seen
    }

    /// What a unit was seen to do in a direction.
    pub(super) fn edges(
        &self,
        unit: usize,
        direction: Direction,
    ) -> Option<&BTreeMap<Other, PortList>> {
        self.edges.get(&(unit, direction))
    }

    /// The policies, as manifests.
    pub(super) fn policies(&self, units: &Units, options: &Options) -> Vec<Value> {
        let mut policies = Vec::new();
        for namespace in &self.namespaces {
            let purpose = "nothing in or out unless another policy says so";
            policies.push(manifest(
                namespace,
                "default-deny",
                purpose,
                &Selector::everything(),
                options,
                Vec::new(),
            ));
            let mut names = BTreeSet::from(["default-deny".to_owned()]);
            let here = units
                .iter()
                .filter(|(_, unit)| unit.namespace == *namespace);
            for (number, unit) in here {
                let rules: Vec<(Direction, Vec<Value>)> = [Direction::Ingress, Direction::Egress]
                    .into_iter()
                    .filter_map(|direction| {
                        let edges = self.edges.get(&(number, direction))?;
                        Some((direction, rules(direction, edges, unit, units)))
                    })
                    .collect();
                if rules.is_empty() {
                    continue;
                }
                let name = free_name(unit.name(), &names);
                let purpose = purpose_of(unit);
                policies.push(manifest(
                    namespace,
                    &name,
                    &purpose,
                    &unit.selector,
                    options,
                    rules,
                ));
                names.insert(name);
            }
        }
        policies
    }
}

/// The address itself, or the block that it is joined to.
fn joined(address: IpAddr, join: Option<Join>) -> IpNet {
    let block = join.and_then(|join| match address {
        IpAddr::V4(address) => Ipv4Net::new(address, join.v4)
            .ok()
            .map(|net| IpNet::V4(net.trunc())),
        IpAddr::V6(address) => Ipv6Net::new(address, join.v6)
            .ok()
            .map(|net| IpNet::V6(net.trunc())),
    });
    block.unwrap_or_else(|| IpNet::from(address))
}

/// Peers with the same ports are one rule; neighbouring blocks that are complete are one block.
fn rules(
    direction: Direction,
    edges: &BTreeMap<Other, PortList>,
    own: &Unit,
    units: &Units,
) -> Vec<Value> {
    let mut by_ports: BTreeMap<&PortList, (Vec<Value>, Vec<IpNet>)> = BTreeMap::new();
    for (other, ports) in edges {
        let (peers, blocks) = by_ports.entry(ports).or_default();
        match other {
            Other::Unit(number) => peers.extend(units.get(*number).map(|unit| peer(unit, own))),
            Other::Block(block) => blocks.push(*block),
        }
    }
    let side = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let rules = by_ports.into_iter().map(|(ports, (mut peers, blocks))| {
        let blocks = IpNet::aggregate(&blocks);
        peers.extend(
            blocks
                .iter()
                .map(|block| json!({"ipBlock": {"cidr": block.to_string()}})),
        );
        let ports: Vec<Value> = ports
            .iter()
            .map(|(protocol, port)| json!({"protocol": protocol, "port": port}))
            .collect();
        json!({side: peers, "ports": ports})
    });
    rules.collect()
}

fn peer(unit: &Unit, own: &Unit) -> Value {
    let pods = unit.selector.to_label_selector();
    if unit.namespace == own.namespace {
        return json!({"podSelector": pods});
    }
    let namespace = json!({"matchLabels": {NAMESPACE_NAME_LABEL: unit.namespace}});
    json!({"namespaceSelector": namespace, "podSelector": pods})
}

fn purpose_of(unit: &Unit) -> String {
    let whos: Vec<String> = unit.whos.iter().map(Who::to_string).collect();
    format!("what {} was seen to need", whos.join(" and "))
}

fn free_name(wanted: &str, taken: &BTreeSet<String>) -> String {
    let wanted = if wanted.is_empty() || wanted.contains('=') {
        "workload"
    } else {
        wanted
    };
    let mut numbered = (2..).map(|number: u64| format!("{wanted}-{number}"));
    if !taken.contains(wanted) {
        return wanted.to_owned();
    }
    let free = numbered.find(|name| !taken.contains(name));
    free.unwrap_or_else(|| wanted.to_owned())
}

fn manifest(
    namespace: &NamespaceName,
    name: &str,
    purpose: &str,
    pods: &Selector,
    options: &Options,
    rules: Vec<(Direction, Vec<Value>)>,
) -> Value {
    let purpose = options.purpose.as_deref().unwrap_or(purpose);
    let mut spec = json!({
        "podSelector": pods.to_label_selector(),
        "policyTypes": [Direction::Ingress.policy_type(), Direction::Egress.policy_type()],
    });
    if let Some(spec) = spec.as_object_mut() {
        for (direction, rules) in rules {
            spec.insert(direction.field().to_owned(), json!(rules));
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {
                "ringfence.dev/owner": options.owner,
                "ringfence.dev/purpose": purpose,
            },
        },
        "spec": spec,
    })
}
