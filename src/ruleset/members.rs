//! Who is in sets of peers that are made: the pods of the cluster are gone through once for all of them, since in a large cluster
//! to come to a pod takes longer than to ask who means it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::table::Element;
use super::terms::{Member, Occupant, PeerKey};
use crate::netpol::{Family, Labels, NamespaceState, Pod, Port, Snapshot};

/// An element as numbers, which are in order sooner: an address and a port.
type Numbers = (u128, Option<Port>);

/// A set whose elements are found.
struct Found<'k> {
    key: &'k PeerKey,
    family: Family,
    numbers: Vec<Numbers>,
}

/// The elements of sets, each of one family.
pub(super) fn elements(sets: &[(&PeerKey, Family)], snapshot: &Snapshot) -> Vec<BTreeSet<Element>> {
    let found = sets.iter().map(|(key, family)| Found {
        key,
        family: *family,
        numbers: Vec::new(),
    });
    let mut found: Vec<Found<'_>> = found.collect();
    let (mut of_one, mut of_any) = (BTreeMap::new(), false);
    for set in &mut found {
        match &set.key.member {
            Member::Nodes(_) => set.ask_nodes(snapshot),
            Member::PodsOf(namespace, _) => {
                let state = snapshot.namespace(namespace);
                of_one.extend(state.map(|state| (state.name(), state)));
            }
            Member::PodsIn { .. } | Member::PodsAt(_) | Member::Pods => of_any = true,
        }
    }
    if of_any {
        for namespace in snapshot.namespaces() {
            ask_pods(namespace, snapshot, &mut found);
        }
    } else {
        for namespace in of_one.into_values() {
            ask_pods(namespace, snapshot, &mut found);
        }
    }
    found.into_iter().map(Found::elements).collect()
}

/// Adds the pods of a namespace to the sets that mean them. Replicas follow each other and hold their labels together: of which sets
/// they are is asked once.
fn ask_pods(namespace: &NamespaceState, snapshot: &Snapshot, sets: &mut [Found<'_>]) {
    let members = sets.iter().map(|set| &set.key.member).enumerate();
    let members = members.filter(|(_, member)| member.may_mean_of(namespace));
    let members: Vec<(usize, &Member)> = members.collect();
    if members.is_empty() {
        return;
    }
    let mut last: Option<(&Labels, Vec<usize>)> = None;
    for pod in namespace.pods().filter(|pod| pod.is_held()) {
        let is_same = |(labels, _): &(&Labels, _)| pod.labels.is_held_with(labels);
        if !last.as_ref().is_some_and(is_same) {
            let them = members.iter();
            let them = them.filter(|(_, member)| member.may_mean_with(&pod.labels));
            last = Some((&pod.labels, them.map(|(number, _)| *number).collect()));
        }
        let numbers = last.as_ref().map_or(&[][..], |(_, numbers)| numbers);
        if numbers.is_empty() {
            continue;
        }
        // Another pod that claims it may be no member.
        for address in pod.ips.iter().filter(|it| snapshot.has(pod, **it)) {
            for number in numbers {
                if let Some(set) = sets.get_mut(*number) {
                    set.add(*address, Some(pod));
                }
            }
        }
    }
}

// === impl Found ===

impl Found<'_> {
    fn ask_nodes(&mut self, snapshot: &Snapshot) {
        for address in snapshot.nodes().flat_map(|node| &node.addresses) {
            let occupant = Occupant::of(*address, snapshot);
            if self.key.member.means(*address, &occupant) {
                self.add(*address, occupant.pod());
            }
        }
    }

    fn add(&mut self, address: IpAddr, pod: Option<&Pod>) {
        let number = match (self.family, address) {
            (Family::V4, IpAddr::V4(address)) => u128::from(address.to_bits()),
            (Family::V6, IpAddr::V6(address)) => address.to_bits(),
            (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => return,
        };
        if matches!(&self.key.member, Member::PodsAt(blocks) if !blocks.contains(address)) {
            return;
        }
        match &self.key.named {
            None => self.numbers.push((number, None)),
            Some((name, protocol)) => {
                let ports = pod.into_iter();
                let ports = ports.flat_map(|pod| pod.ports_named(name, *protocol));
                self.numbers.extend(ports.map(|port| (number, Some(port))));
            }
        }
    }

    fn elements(mut self) -> BTreeSet<Element> {
        self.numbers.sort_unstable();
        let numbers = self.numbers.into_iter();
        let elements = numbers.filter_map(|(number, port)| {
            let address = match self.family {
                Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).ok()?).into(),
                Family::V6 => Ipv6Addr::from_bits(number).into(),
            };
            Some(match port {
                None => Element::Address(address),
                Some(port) => Element::AddressPort(address, port),
            })
        });
        elements.collect()
    }
}
