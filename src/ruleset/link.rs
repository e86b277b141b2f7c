//! Addresses of the link, which every interface of IPv6 has without anybody giving them (RFC 4291, section 2.5.6).
//!
//! They are no pod's in any policy, so no map leads from them to chains, and pods on one bridge could reach each other by them
//! whatever policies say. Routers pass nothing on that has them, so what is forwarded with them goes from one port of a bridge
//! to another: it is dropped where the bridge is one of pods, but for what IPv6 does not work without. What pods and their node
//! say to each other is not forwarded.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::frame::add_told_drop;
use super::options::Options;
use super::sources::nobody_set;
use super::table::{Element, End, Match, Rule, Ruleset, SetName, Verdict};
use crate::netpol::Family;

/// Counts what is dropped, and what becomes of it.
const LINK_LOCAL: &str = "link-local";

/// Adds what becomes of it.
pub(super) fn add(options: &Options, ruleset: &mut Ruleset) {
    add_told_drop(
        options,
        ruleset,
        (LINK_LOCAL, LINK_LOCAL),
        "ringfence link egress",
        "what pods send each other by addresses of the link is counted and dropped",
    );
}

/// The rules for forwarded packets of IPv6, behind that for neighbours.
pub(super) fn forwarded() -> [Rule; 2] {
    [End::Source, End::Destination].map(|end| {
        Rule::new(
            vec![
                Match::Interface(bridges_set()),
                Match::Address(Family::V6, end, nobody_set(Family::V6)),
            ],
            Verdict::Goto(LINK_LOCAL.into()),
            "no policy is asked of addresses of the link",
        )
    })
}

/// The set of the bridges behind which pods are: what goes from one port to another comes from the bridge, for who asks here.
pub(super) fn bridges_set() -> SetName {
    "pod-bridges".into()
}

/// These addresses, and that of who has none yet.
pub(super) fn addresses() -> BTreeSet<Element> {
    let none = Ipv6Addr::UNSPECIFIED;
    let first = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    let last = Ipv6Addr::new(0xfebf, !0, !0, !0, !0, !0, !0, !0);
    [(none, none), (first, last)]
        .map(|(first, last)| Element::Block(first.into(), last.into()))
        .into()
}
