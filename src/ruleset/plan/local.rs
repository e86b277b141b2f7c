//! What stands for local pods, and for the interfaces and bridges behind which they are, in the sets of the table.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Local, Moved, Plan};
use crate::netpol::Family;
use crate::ruleset::draft::Draft;
use crate::ruleset::frame::{dispatch, known_set, own_set};
use crate::ruleset::link;
use crate::ruleset::options::Options;
use crate::ruleset::sources;
use crate::ruleset::table::{Element, Interface, SetKind, SetName};

impl Plan {
    /// An interface counts from the first address that is known to be behind it to the last.
    pub(super) fn take_ports(&self, moved: &[Moved], draft: &mut Draft) {
        let of = |local: &Option<Local>| local.as_ref().and_then(|local| local.port.clone());
        let ports: BTreeSet<Interface> = moved
            .iter()
            .flat_map(|moved| [of(&moved.old), of(&moved.new)])
            .flatten()
            .collect();
        for port in ports {
            let is_behind = |local: &Local| local.port.as_ref() == Some(&port);
            let stays = |address| moved.iter().all(|moved| moved.address != address);
            let mut old = moved.iter().filter_map(|moved| moved.old.as_ref());
            let mut local = self.local.iter();
            let before = old.any(is_behind)
                || local.any(|(address, local)| is_behind(local) && stays(*address));
            let after = self.local.values().any(is_behind);
            let (set, kind, element) = sources::of_port(&port);
            match (before, after) {
                (false, true) => draft.come(&set, kind, [element]),
                (true, false) => draft.leave(&set, kind, element),
                _ => {}
            }
        }
    }

    /// What was told of bridges counts from now on.
    pub(super) fn take_bridges(&mut self, draft: &mut Draft) {
        let Some(told) = self.told_bridges.take() else {
            return;
        };
        let (set, kind) = (link::bridges_set(), SetKind::Interfaces);
        for gone in self.bridges.difference(&told) {
            draft.leave(&set, kind, Element::Interface(gone.clone()));
        }
        let new = told.difference(&self.bridges).cloned();
        draft.come(&set, kind, new.map(Element::Interface));
        self.bridges = told;
    }
}

impl Local {
    /// What stands for an address in the sets of local pods.
    pub(super) fn elements(
        &self,
        address: IpAddr,
        options: &Options,
    ) -> Vec<(SetName, SetKind, Element)> {
        let family = Family::of(address);
        let own = (
            own_set(family),
            SetKind::Pairs(family),
            Element::Pair(address, address),
        );
        let chains = self.chains.iter().map(|(way, chain)| {
            (
                dispatch(*way, family),
                SetKind::Dispatch(family),
                Element::Dispatch(address, chain.clone()),
            )
        });
        let known = options.asks_who_is_local().then(|| {
            (
                known_set(family),
                SetKind::Addresses(family),
                Element::Address(address),
            )
        });
        let port = self.port.iter();
        let source = port.map(|port| sources::of_address(port, address));
        chains.chain([own]).chain(known).chain(source).collect()
    }
}
