//! What comes from a pod has the pod's own address as its sender: verdicts go by addresses, so who could send with another
//! pod's would have what that pod is allowed.
//!
//! Each interface behind which a local pod is known to be is held to the pod's addresses, before anything else is made of what
//! comes in there. On a bridge only a table of the family `bridge` sees by which port that is, and the sender that a message of
//! ARP names, too, so that nobody's neighbours send there what is for another pod. Both tables have the same elements: by an
//! interface that is no port of a bridge no frame comes to `bridge`, and a port gives frames to some groups (IEEE 802.1Q, table
//! 8-1) to the node itself before that table is asked. Interfaces of which it is not known who is behind them are let be.
//!
//! A frame that is neither IP nor ARP goes by a bridge to another of its ports without being asked anything in `inet`: two pods
//! could tell each other anything so, and who gets one with the tag of a VLAN takes a tag that names no VLAN off. What comes from
//! a pod on a bridge is IP or ARP, and has no tag.
//!
//! A pod is no router: who believed what it says of that would send it what is for others. Such messages are believed with an
//! address of the link as their sender only (RFC 4861, sections 6.1.2 and 8.1), so nothing else is asked about them.
//!
//! A pod may have no address yet: `0.0.0.0` and `::` are nobody's. Link-local addresses of IPv6 are no pod's in any policy, and
//! IPv6 does not work without them. So what has one of these as its sender is asked here whether it is for the overlay.
//!
//! Nearly all that comes from a pod has its own address, and is asked nothing else. Frames at ports of bridges are pods' nearly all;
//! of packets that come in elsewhere it is asked first whether a pod is there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::compile::digit;
use super::frame::add_told_drop;
use super::options::Options;
use super::table::{
    Carried, Chain, Element, End, Hook, Interface, Layer, Match, Rule, Ruleset, Set, SetKind,
    SetName, Verdict,
};
use super::{link, vxlan};
use crate::netpol::Family;

/// The chain that all packets meet.
const PREROUTING: &str = "prerouting";
/// What is asked of packets from pods.
const FROM_POD: &str = "from-pod";
/// What becomes of packets with a sender that is not theirs, and what counts them.
const SPOOFED: &str = "spoofed";
/// What becomes of frames that are neither IP nor ARP; they are counted with those.
const UNASKED: &str = "unasked";
/// What becomes of what only routers say; it is counted with those, too.
const ROUTING: &str = "routing";

/// Adds what asks for senders at a layer; the sets of who is behind interfaces are empty.
pub(super) fn add(options: &Options, layer: Layer, ruleset: &mut Ruleset) {
    let mut set = |name: SetName, kind, elements| {
        ruleset.sets.insert(name, Set { kind, elements });
    };
    set(ports_set(), SetKind::Interfaces, BTreeSet::new());
    set(link::bridges_set(), SetKind::Interfaces, BTreeSet::new());
    for family in Family::BOTH {
        let kind = SetKind::Sources(family);
        set(sources_set(family), kind, BTreeSet::new());
    }
    let unspecified = Element::Address(Ipv4Addr::UNSPECIFIED.into());
    set(
        nobody_set(Family::V4),
        SetKind::Addresses(Family::V4),
        BTreeSet::from([unspecified]),
    );
    set(
        nobody_set(Family::V6),
        SetKind::Blocks(Family::V6),
        link::addresses(),
    );
    if !options.vxlan_ports.is_empty() {
        vxlan::add(options, ruleset);
    }
    add_told_drop(
        options,
        ruleset,
        (SPOOFED, SPOOFED),
        "ringfence spoofed egress",
        "what has another sender than the pod that it comes from is counted and dropped",
    );
    add_told_drop(
        options,
        ruleset,
        (ROUTING, SPOOFED),
        "ringfence routing egress",
        "what a pod says in the name of a router is counted and dropped",
    );
    if layer == Layer::Bridge {
        let why = "what no policy is asked of is counted and dropped";
        let (names, told) = ((UNASKED, SPOOFED), "ringfence unasked egress");
        add_told_drop(options, ruleset, names, told, why);
    }
    ruleset.chain_mut(FROM_POD.into()).rules = from_pod(options, layer);
    let chain = Chain {
        hook: Some(Hook::Prerouting),
        rules: prerouting(layer),
    };
    ruleset.chains.insert(PREROUTING.into(), chain);
}

/// The table for the ports of bridges.
pub(super) fn bridge(options: &Options) -> Ruleset {
    let mut ruleset = Ruleset::default();
    add(options, Layer::Bridge, &mut ruleset);
    ruleset
}

/// The element of an interface, however many addresses are behind it.
pub(super) fn of_port(port: &Interface) -> (SetName, SetKind, Element) {
    let element = Element::Interface(port.clone());
    (ports_set(), SetKind::Interfaces, element)
}

/// The element of an address behind an interface.
pub(super) fn of_address(port: &Interface, address: IpAddr) -> (SetName, SetKind, Element) {
    let family = Family::of(address);
    (
        sources_set(family),
        SetKind::Sources(family),
        Element::Source(port.clone(), address),
    )
}

/// The set of the interfaces behind which it is known who is.
pub fn ports_set() -> SetName {
    "pod-ports".into()
}

/// The set of these interfaces with the addresses that are behind them.
pub fn sources_set(family: Family) -> SetName {
    format!("sources{}", digit(family)).into()
}

/// The set of the addresses that no pod has to itself, and that it may send with all the same.
pub(super) fn nobody_set(family: Family) -> SetName {
    match family {
        Family::V4 => "nobody4",
        Family::V6 => "link6",
    }
    .into()
}

/// What carries the address of a sender at a layer.
fn carried(layer: Layer) -> impl Iterator<Item = Carried> {
    let is_there = move |carried: &Carried| layer == Layer::Bridge || *carried != Carried::Arp;
    Carried::ALL.into_iter().filter(is_there)
}

fn prerouting(layer: Layer) -> Vec<Rule> {
    let mut rules = match layer {
        Layer::Inet => Vec::new(),
        Layer::Bridge => own(layer),
    };
    rules.push(Rule::new(
        vec![Match::Interface(ports_set())],
        Verdict::Goto(FROM_POD.into()),
        "what comes from a pod is asked about",
    ));
    rules
}

/// Lets go on what has its own sender. What is behind a tag is not seen.
fn own(layer: Layer) -> Vec<Rule> {
    let own = |carried: Carried| {
        let (set, why) = match carried {
            Carried::Ip(family) => (
                sources_set(family),
                "what comes from a pod has an address of the pod as its sender",
            ),
            Carried::Arp => (
                sources_set(Family::V4),
                "a pod answers for its own addresses",
            ),
        };
        Rule::new(vec![Match::Own(carried, set)], Verdict::Accept, why)
    };
    carried(layer).map(own).collect()
}

fn from_pod(options: &Options, layer: Layer) -> Vec<Rule> {
    let mut rules = match layer {
        Layer::Inet => own(layer),
        Layer::Bridge => Vec::new(),
    };
    if !options.vxlan_ports.is_empty() {
        rules.extend(Family::BOTH.map(vxlan::from_nobody));
    }
    let nobody = Match::Address(Family::V6, End::Source, nobody_set(Family::V6));
    rules.push(Rule::new(
        vec![nobody, Match::Routing],
        Verdict::Goto(ROUTING.into()),
        "a pod is no router (RFC 4861)",
    ));
    for carried in carried(layer) {
        let (matches, why) = match carried {
            Carried::Ip(family) => (
                Match::Address(family, End::Source, nobody_set(family)),
                match family {
                    Family::V4 => "a pod may have no address yet",
                    Family::V6 => {
                        "IPv6 does not work without addresses of the link, and without none yet"
                    }
                },
            ),
            Carried::Arp => (
                Match::ArpSender(nobody_set(Family::V4)),
                "a pod may ask whether somebody has its address",
            ),
        };
        rules.push(Rule::new(vec![matches], Verdict::Accept, why));
    }
    rules.extend(carried(layer).map(|carried| {
        Rule::new(
            vec![Match::Carries(carried)],
            Verdict::Goto(SPOOFED.into()),
            "it speaks for somebody else",
        )
    }));
    if layer == Layer::Bridge {
        rules.push(Rule::new(
            Vec::new(),
            Verdict::Goto(UNASKED.into()),
            "no policy is asked of what is neither IP nor ARP, or has the tag of a VLAN",
        ));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::render::{self, Reader};

    #[test]
    fn what_asks_for_senders_for_people() {
        let options = Options::new("n");
        let mut made = Ruleset::default();
        add(&options, Layer::Inet, &mut made);
        made.bridge = Some(Box::new(bridge(&options)));
        let port = Interface::parse("veth1").unwrap();
        let pod = ["10.0.0.7", "fd00::7"].map(|it| of_address(&port, it.parse().unwrap()));
        let both = [made.bridge.clone().map(|it| *it), Some(made.clone())];
        let [bridge, inet] = both.map(|table| {
            let mut table = table.unwrap();
            for (set, _, element) in pod.clone().into_iter().chain([of_port(&port)]) {
                table.sets.get_mut(&set).unwrap().elements.insert(element);
            }
            table
        });
        made = Ruleset {
            bridge: Some(Box::new(bridge)),
            ..inet
        };
        insta::assert_snapshot!(render::table(&made, Reader::People));
    }

    #[test]
    fn an_interface_has_a_name_that_is_read_as_it_is() {
        for name in ["eth0", "veth1234abcd", "vethwepl@if2", "a.b:c_d-e"] {
            assert!(Interface::parse(name).is_some(), "{name}");
        }
        for name in [
            "",
            "..",
            "a b",
            "veth*",
            "a\"b",
            "a/b",
            "0123456789abcdef",
            "\u{e9}",
        ] {
            assert_eq!(Interface::parse(name), None, "{name}");
        }
    }
}
