//! The wanted table of one node, kept up with the cluster.
//!
//! [`Plan::advance`] takes a new snapshot and what has changed in it, and gives the transaction that makes the old table
//! the new one. Its cost follows the change: of a pod each set that follows pods is asked whether it means it, a policy touches the local pods of its
//! namespace only. [`Plan::whole`] is the same table at once; going there step by step or in one leap comes to the same, but for
//! the chains that no pod uses any more or yet, which [`Plan::drop_idle`] takes away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::body::{Body, Holding, Standpoint, Way};
use super::compile::{self, Compiled, Follows, Telling};
use super::draft::Draft;
use super::frame;
use super::link;
use super::options::Options;
use super::sources;
use super::table::{ChainName, Element, Interface, Ruleset, Set, SetKind, SetName};
use super::terms::Occupant;
use super::transaction::{Change, Transaction};
use super::vxlan;
use crate::netpol::{Family, NamespaceName, ObjectKey, Pod, PolicyRef, Snapshot, WorkloadRef};
use chains::{Fixed, Idle, Shared};
use following::{Following, Occupied};

mod chains;
mod expected;
mod following;
mod local;

/// The wanted table and what it was made from.
#[derive(Clone, Debug)]
pub struct Plan {
    options: Options,
    snapshot: Snapshot,
    /// The addresses of local pods.
    local: BTreeMap<IpAddr, Local>,
    /// The interfaces behind which addresses are, and for which of them this was told since the last change.
    ports: BTreeMap<IpAddr, Interface>,
    retold: BTreeSet<IpAddr>,
    /// The bridges behind which pods are, and those that were told since the last change.
    bridges: BTreeSet<Interface>,
    told_bridges: Option<BTreeSet<Interface>>,
    chains: HashMap<ChainName, Shared>,
    idle: Idle,
    peers: BTreeMap<SetName, Following>,
    fixed: BTreeMap<SetName, Fixed>,
    /// The sets of peers that chains in use deny something to, with the number of these chains.
    denying: HashMap<SetName, usize>,
}

/// An address of a local pod and the chains that its packets are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Local {
    pod: WorkloadRef,
    chains: BTreeMap<Way, ChainName>,
    /// The interface behind which it is, where it is held to its addresses.
    port: Option<Interface>,
}

/// An address whose chains are others than before.
struct Moved {
    address: IpAddr,
    old: Option<Local>,
    new: Option<Local>,
}

/// Chains that were written for some policies; pods that differ in nothing that these ask share them.
type Written = HashMap<Asked, Option<Arc<Compiled>>>;

/// The policies in force, those that would be if what is on trial were promoted, cluster network policies, and ports.
type Asked = (
    Way,
    Family,
    Vec<PolicyRef>,
    Option<Vec<PolicyRef>>,
    Vec<String>,
    Vec<String>,
);

// === impl Plan ===

impl Plan {
    /// The table of a node in an empty cluster.
    pub fn new(options: Options) -> Self {
        let snapshot = Snapshot::default();
        let mut peers = BTreeMap::new();
        if !options.vxlan_ports.is_empty() {
            for family in Family::BOTH {
                let following = Following::new(vxlan::nodes(), family, BTreeSet::new());
                peers.insert(vxlan::nodes_set(family), following);
            }
        }
        Self {
            options,
            snapshot,
            local: BTreeMap::new(),
            ports: BTreeMap::new(),
            retold: BTreeSet::new(),
            bridges: BTreeSet::new(),
            told_bridges: None,
            chains: HashMap::new(),
            idle: Idle::default(),
            peers,
            fixed: BTreeMap::new(),
            denying: HashMap::new(),
        }
    }

    /// The table of a node in a cluster.
    pub fn of(options: Options, snapshot: &Snapshot) -> Self {
        let mut plan = Self::new(options);
        // Of pods elsewhere the sets are made with the chains that ask them.
        let pods = snapshot.pods();
        let pods = pods.filter(|pod| pod.is_on(&plan.options.node));
        let pods = pods.map(|pod| ObjectKey::Workload(pod.workload.clone()));
        let nodes = snapshot.nodes();
        let nodes = nodes.map(|node| ObjectKey::Node(node.name.clone()));
        let new: Vec<ObjectKey> = pods.chain(nodes).collect();
        plan.follow(snapshot.clone(), &new, &mut Draft::ignored());
        plan
    }

    /// The cluster as it is planned for.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What it was made for.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The local pods, each with its addresses.
    pub fn local_pods(&self) -> BTreeMap<&WorkloadRef, Vec<IpAddr>> {
        let mut pods: BTreeMap<&WorkloadRef, Vec<IpAddr>> = BTreeMap::new();
        for (address, local) in &self.local {
            pods.entry(&local.pod).or_default().push(*address);
        }
        pods
    }

    /// The local pods of which some address is held to no interface.
    pub fn unchecked_pods(&self) -> BTreeSet<&WorkloadRef> {
        let pods = self.local.values();
        pods.filter(|local| local.port.is_none())
            .map(|local| &local.pod)
            .collect()
    }

    /// The addresses of local pods.
    pub fn local_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.local.keys().copied()
    }

    /// The local pods whose chains do not follow their policies to the letter, and whether these are more strict: where not, what
    /// is on trial is not asked. Too many policies of one priority, each with rules that go before stricter ones, take more chains
    /// than a kernel follows.
    pub fn cut_short(&self) -> BTreeMap<&WorkloadRef, bool> {
        let mut pods = BTreeMap::new();
        for local in self.local.values() {
            let chains = local.chains.values().filter_map(|it| self.chains.get(it));
            let follows = chains.map(|shared| shared.compiled.follows).max();
            if let Some(follows @ (Follows::WithoutTrial | Follows::MoreStrictly)) = follows {
                let is_stricter = pods.entry(&local.pod).or_default();
                *is_stricter |= follows == Follows::MoreStrictly;
            }
        }
        pods
    }

    /// Takes notice of the interfaces behind which addresses are, for the next change.
    pub fn behind(&mut self, ports: BTreeMap<IpAddr, Interface>) {
        let all = self.ports.keys().chain(ports.keys()).copied();
        let differ = all.filter(|address| self.ports.get(address) != ports.get(address));
        self.retold.extend(differ);
        self.ports = ports;
    }

    /// Takes notice of the bridges behind which pods are, for the next change. Whether they are others than before.
    pub fn bridged_by(&mut self, bridges: BTreeSet<Interface>) -> bool {
        let is_other = self.options.own_sources && bridges != self.bridges;
        self.told_bridges = is_other.then_some(bridges);
        is_other
    }

    /// Whether an address is a local pod's.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains_key(&address)
    }

    /// Goes on to a snapshot that differs from the last one in some objects, and gives what that changes in the table.
    pub fn advance(&mut self, snapshot: Snapshot, changed: &[ObjectKey]) -> Transaction {
        let mut draft = Draft::default();
        let old = self.follow(snapshot, changed, &mut draft);
        self.prepare(&old, changed, &mut draft);
        draft.finish()
    }

    /// Makes the table that of a snapshot; gives the one before.
    fn follow(&mut self, snapshot: Snapshot, changed: &[ObjectKey], draft: &mut Draft) -> Snapshot {
        let old = std::mem::replace(&mut self.snapshot, snapshot);
        let mut addresses = self.addresses(&old, changed);
        addresses.append(&mut self.retold);
        let moved = self.relocate(&addresses, changed, draft);
        self.take_ports(&moved, draft);
        self.take_bridges(draft);
        let occupied = |address: &IpAddr| Occupied {
            address: *address,
            before: Occupant::of(*address, &old),
            after: Occupant::of(*address, &self.snapshot),
        };
        let occupied: Vec<_> = addresses.iter().map(occupied).collect();
        for (name, following) in &mut self.peers {
            following.follow(name, &occupied, draft);
        }
        let used = moved.iter().flat_map(|Moved { address, new, .. }| {
            let family = Family::of(*address);
            chains_of(new.as_ref()).map(move |chain| (chain, family))
        });
        self.use_chains(&used.collect::<Vec<_>>(), draft);
        for Moved { old, .. } in &moved {
            for chain in chains_of(old.as_ref()) {
                self.leave_chain(chain, draft);
            }
        }
        old
    }

    /// Whether a step of this plan may forbid what was allowed.
    pub fn is_stricter(&self, step: &Transaction) -> bool {
        step.is_stricter()
            || step.all().any(|(_, change)| match change {
                Change::AddElements(set, ..) => self.denying.contains_key(set),
                _ => false,
            })
    }

    /// The whole table.
    pub fn whole(&self) -> Ruleset {
        let mut ruleset = frame::frame(&self.options);
        for shared in self.chains.values() {
            for (name, rules) in &shared.compiled.chains {
                ruleset.chain_mut(name.clone()).rules.clone_from(rules);
            }
        }
        for (name, following) in &self.peers {
            let set = Set {
                kind: following.kind,
                elements: following.elements.clone(),
            };
            ruleset.sets.insert(name.clone(), set);
        }
        for (name, fixed) in &self.fixed {
            let set = Set {
                kind: fixed.kind,
                elements: fixed.elements.clone(),
            };
            ruleset.sets.insert(name.clone(), set);
        }
        for (address, local) in &self.local {
            for (set, kind, element) in local.elements(*address, &self.options) {
                let set = ruleset.sets.entry(set).or_insert_with(|| Set {
                    kind,
                    elements: BTreeSet::new(),
                });
                set.elements.insert(element);
            }
            let of_port = local.port.iter().map(sources::of_port);
            for (set, _, element) in of_port {
                if let Some(set) = ruleset.sets.get_mut(&set) {
                    set.elements.insert(element);
                }
            }
        }
        if self.options.own_sources {
            let bridges = self.bridges.iter().cloned().map(Element::Interface);
            if let Some(set) = ruleset.sets.get_mut(&link::bridges_set()) {
                set.elements.extend(bridges);
            }
            let mut bridge = sources::bridge(&self.options);
            for (name, set) in &mut bridge.sets {
                if let (true, Some(same)) = (set.kind.is_of_node(), ruleset.sets.get(name)) {
                    set.elements.clone_from(&same.elements);
                }
            }
            ruleset.bridge = Some(Box::new(bridge));
        }
        ruleset
    }

    /// The addresses whose meaning may have changed.
    fn addresses(&self, old: &Snapshot, changed: &[ObjectKey]) -> BTreeSet<IpAddr> {
        let mut addresses = BTreeSet::new();
        for key in changed {
            for snapshot in [old, &self.snapshot] {
                match key {
                    ObjectKey::Workload(workload) => {
                        addresses
                            .extend(snapshot.pod(workload).into_iter().flat_map(|pod| &pod.ips));
                    }
                    ObjectKey::Namespace(name) => {
                        addresses.extend(snapshot.pods_in(name).flat_map(|pod| &pod.ips));
                    }
                    ObjectKey::Node(name) => {
                        addresses.extend(
                            snapshot
                                .node(name)
                                .into_iter()
                                .flat_map(|node| &node.addresses),
                        );
                    }
                    ObjectKey::NetworkPolicy(_)
                    | ObjectKey::StagedNetworkPolicy(_)
                    | ObjectKey::ClusterNetworkPolicy(_)
                    | ObjectKey::Service { .. } => {}
                }
            }
        }
        addresses
    }

    /// Finds out which addresses are local, and which chains are for them.
    fn relocate(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        changed: &[ObjectKey],
        draft: &mut Draft,
    ) -> Vec<Moved> {
        let namespaces: BTreeSet<&NamespaceName> = changed
            .iter()
            .filter_map(|key| match key {
                ObjectKey::NetworkPolicy(policy) | ObjectKey::StagedNetworkPolicy(policy) => {
                    Some(&policy.namespace)
                }
                ObjectKey::Namespace(name) => Some(name),
                _ => None,
            })
            .collect();
        let everywhere = changed.iter().any(|key| match key {
            ObjectKey::ClusterNetworkPolicy(_) => true,
            // What is for nodes with some labels may be for the pods' own.
            ObjectKey::Node(name) => *name == self.options.node,
            _ => false,
        });
        let concerned = self
            .local
            .iter()
            .filter(|(_, local)| everywhere || namespaces.contains(&local.pod.namespace));
        let mut concerned: BTreeSet<IpAddr> = concerned.map(|(address, _)| *address).collect();
        concerned.extend(addresses);
        let (mut written, mut moved) = (Written::new(), Vec::new());
        for address in concerned {
            let snapshot = self.snapshot.clone();
            let pod = snapshot
                .pod_at(address)
                .filter(|pod| pod.is_on(&self.options.node));
            let new = pod.map(|pod| self.place(pod, address, &mut written));
            let old = self.local.get(&address);
            if old == new.as_ref() {
                continue;
            }
            let elements = |local: Option<&Local>| -> BTreeSet<(SetName, SetKind, Element)> {
                let elements = local.map(|local| local.elements(address, &self.options));
                elements.into_iter().flatten().collect()
            };
            let (before, after) = (elements(old), elements(new.as_ref()));
            for (set, kind, element) in before.difference(&after) {
                draft.leave(set, *kind, element.clone());
            }
            for (set, kind, element) in after.difference(&before) {
                draft.come(set, *kind, [element.clone()]);
            }
            let old = match &new {
                Some(local) => self.local.insert(address, local.clone()),
                None => self.local.remove(&address),
            };
            moved.push(Moved { address, old, new });
        }
        moved
    }

    /// One address of a local pod.
    fn place(&mut self, pod: &Pod, address: IpAddr, written: &mut Written) -> Local {
        let port = self.ports.get(&address);
        let port = port.filter(|_| self.options.own_sources).cloned();
        Local {
            pod: pod.workload.clone(),
            chains: self.chains_for(pod, Family::of(address), written),
            port,
        }
    }

    /// The chains for the addresses of a family of a local pod; those that are new are not in the table yet.
    fn chains_for(
        &mut self,
        pod: &Pod,
        family: Family,
        written: &mut Written,
    ) -> BTreeMap<Way, ChainName> {
        let telling = Telling {
            group: self.options.log_group,
            rate: self.options.log_rate,
        };
        let mut chains = BTreeMap::new();
        for way in Way::ALL {
            let holding = Holding::of(&self.snapshot, pod, way.direction());
            let promoted = holding.if_promoted(&self.snapshot, pod, way.direction());
            let (policies, wide) = holding.names();
            let tried = promoted.as_ref().map(|promoted| promoted.names().0);
            let ports = if way == Way::Ingress {
                pod.ports.iter().map(|port| format!("{port:?}")).collect()
            } else {
                Vec::new()
            };
            let compiled = written
                .entry((way, family, policies, tried, wide, ports))
                .or_insert_with(|| {
                    let node = self.snapshot.node(&self.options.node);
                    let from = Standpoint { way, pod, node };
                    let body = holding.body(from);
                    let tried = promoted.map(|promoted| promoted.body(from));
                    let tried = tried.filter(|tried| *tried != body);
                    let tried = tried.map(|tried| tried.unwrap_or_else(Body::silent));
                    if body.is_none() && tried.is_none() {
                        return None;
                    }
                    let body = body.unwrap_or_else(Body::silent);
                    let compiled = compile::compile(body, tried, way, family, telling);
                    Some(Arc::new(compiled))
                });
            let Some((compiled, (name, _))) = compiled
                .as_ref()
                .and_then(|it| Some((it, it.chains.first()?)))
            else {
                continue;
            };
            chains.insert(way, name.clone());
            let shared = || Shared::new(Arc::clone(compiled));
            self.chains.entry(name.clone()).or_insert_with(shared);
        }
        chains
    }
}

fn chains_of(local: Option<&Local>) -> impl Iterator<Item = &ChainName> {
    local.into_iter().flat_map(|local| local.chains.values())
}
