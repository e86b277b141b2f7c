//! Behind which interface of the node each address of its pods is, by the CNI's word.
//!
//! What pods send or answer themselves is no proof of that, so neither the table of neighbours nor that of a bridge is asked.
//! An agent that is started again has it from the table that the one before it left.
//!
//! A chain of plugins may name an interface behind which others are, too: they would be held to the pod's addresses. Nobody is
//! held to anything there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType};

use super::links::{Found, Links};
use crate::ruleset::Interface;

/// What is known, for whoever explains packets.
pub type Shared = Arc<ArcSwap<BTreeMap<IpAddr, Interface>>>;

/// What is known of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    behind: BTreeMap<IpAddr, Interface>,
    /// The interface that was named for each sandbox that there is, and its number.
    named: BTreeMap<String, (Interface, u32)>,
    /// Those of which it was said that nobody is held to anything there.
    said: BTreeSet<Interface>,
    /// Names that an interface had of which an agent before this one was told, and that another one has now.
    reused: BTreeSet<Interface>,
}

// === impl Ports ===

impl Ports {
    /// Adds what was known before this agent, as far as the interfaces are there and still a pod's, below what it knows already.
    pub(super) fn keep(&mut self, before: BTreeMap<IpAddr, Interface>, links: Option<&Links>) {
        let is_kept = |port: &Interface| match links {
            Some(links) => matches!(links.look(port), Found::Leaf(_)),
            // It cannot be seen what is there.
            None => true,
        };
        for (address, port) in before {
            let is_doubtful = self.said.contains(&port) || self.reused.contains(&port);
            if is_kept(&port) && !is_doubtful {
                self.behind.entry(address).or_insert(port);
            }
        }
        self.reused.clear();
    }

    /// The pod of a sandbox got these addresses, behind this interface where that is told and nobody else is there.
    pub(super) fn give(
        &mut self,
        sandbox: &str,
        addresses: &[IpAddr],
        port: Option<&str>,
        look: impl Fn(&Interface) -> Found,
    ) {
        let port = port.and_then(Interface::parse);
        let port = port.filter(|port| self.takes(sandbox, port, look(port)));
        for address in addresses {
            match &port {
                Some(port) => self.behind.insert(*address, port.clone()),
                None => self.behind.remove(address),
            };
        }
    }

    /// Whether the pod of a sandbox is alone behind an interface that was found to be this.
    fn takes(&mut self, sandbox: &str, port: &Interface, found: Found) -> bool {
        let why = match found {
            Found::Gone => return false,
            Found::Shared(why) => why,
            Found::Leaf(number) => {
                // One that had the name before is gone.
                self.named
                    .retain(|_, (name, at)| name != port || *at == number);
                let mut named = self.named.iter();
                let is_shared = named.any(|(other, (name, _))| other != sandbox && name == port);
                let name = (port.clone(), number);
                self.named.insert(sandbox.to_owned(), name);
                if !is_shared {
                    return true;
                }
                "two sandboxes name it"
            }
        };
        self.behind.retain(|_, other| other != port);
        if self.said.insert(port.clone()) {
            tracing::warn!(
                interface = port.as_str(), %why,
                "a pod is not held to its own addresses, since others may be behind the interface that the CNI named for it"
            );
        }
        false
    }

    /// A sandbox is gone, and with it its interface, before the kernel says so.
    pub(super) fn take(&mut self, sandbox: &str) {
        let Some((port, _)) = self.named.remove(sandbox) else {
            return;
        };
        if !self.named.values().any(|(other, _)| *other == port) {
            self.behind.retain(|_, other| *other != port);
        }
    }

    /// Forgets interfaces that are gone: whoever has their addresses now is behind another one. Gives whether somebody was
    /// behind one, and the sandboxes that had one.
    pub(super) fn forget_gone(
        &mut self,
        number: impl Fn(&Interface) -> Option<u32>,
    ) -> (bool, Vec<String>) {
        let before = self.behind.len();
        self.behind.retain(|_, port| number(port).is_some());
        let gone = self
            .named
            .extract_if(.., |_, (port, at)| number(port) != Some(*at));
        let gone = gone.map(|(sandbox, _)| sandbox).collect();
        self.said.retain(|port| number(port).is_some());
        (self.behind.len() != before, gone)
    }

    /// The interface that was named for a sandbox that is there, as an agent before this one was told. Nobody is held to
    /// anything for that.
    pub(super) fn name_again(&mut self, sandbox: String, port: Interface, number: u32) {
        self.named.entry(sandbox).or_insert((port, number));
    }

    /// The interface that was named for a sandbox is gone and another one has its name: what the table that was left says of this
    /// name is not kept.
    pub(super) fn reuse(&mut self, port: Interface) {
        self.reused.insert(port);
    }

    /// The sandboxes that there are, with the interface that was named for each, and its number.
    pub(super) fn sandboxes(&self) -> impl Iterator<Item = (&str, &Interface, u32)> {
        let named = self.named.iter();
        named.map(|(sandbox, (port, number))| (sandbox.as_str(), port, *number))
    }

    /// All of them.
    pub(super) fn all(&self) -> &BTreeMap<IpAddr, Interface> {
        &self.behind
    }
}

/// What an interface of the agent's network namespace is.
pub(super) fn look(port: &Interface) -> Found {
    match Links::read() {
        Ok(links) => links.look(port),
        Err(error) => {
            tracing::warn!(%error, "the node's interfaces cannot be read");
            Found::Shared("it cannot be seen what it is")
        }
    }
}

/// The interface of a number in the agent's network namespace.
pub(super) fn name(number: u32) -> Option<Interface> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    Interface::parse(&index_to_name(socket, number).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(port: &str, found: Found) -> impl Fn(&Interface) -> Found {
        move |asked| {
            assert_eq!(asked.as_str(), port);
            found
        }
    }

    fn behind(ports: &Ports) -> Vec<(String, &str)> {
        let all = ports.all().iter();
        all.map(|(address, port)| (address.to_string(), port.as_str()))
            .collect()
    }

    #[test]
    fn an_address_is_behind_the_interface_that_was_told_last_and_is_there() {
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let mut ports = Ports::default();
        let leaf = |number| told("veth1", Found::Leaf(number));
        ports.give("a", &[address], Some("veth1"), leaf(4));
        assert_eq!(behind(&ports), [("10.0.0.7".to_owned(), "veth1")]);
        let gone = told("rf-nowhere", Found::Gone);
        ports.give("a", &[address], Some("rf-nowhere"), gone);
        assert_eq!(behind(&ports), []);
        ports.give("a", &[address], Some("veth1"), leaf(4));
        ports.give("a", &[address], None, leaf(4));
        assert_eq!(behind(&ports), []);
        ports.give("a", &[address], Some("veth1"), leaf(4));
        assert_eq!(ports.forget_gone(|_| Some(4)), (false, Vec::new()));
        let gone = vec!["a".to_owned()];
        assert_eq!(ports.forget_gone(|_| None), (true, gone.clone()));
        assert_eq!(ports, Ports::default());
        // Another one has its name.
        ports.give("a", &[address], Some("veth1"), leaf(4));
        assert_eq!(ports.forget_gone(|_| Some(9)), (false, gone));
        ports.give("a", &[address], Some("veth1"), leaf(4));
        ports.take("b");
        assert_eq!(behind(&ports), [("10.0.0.7".to_owned(), "veth1")]);
        ports.take("a");
        assert_eq!(ports, Ports::default());
    }

    #[test]
    fn what_was_known_before_stays_below_what_is_told() {
        let [one, two]: [IpAddr; 2] = ["10.0.0.7", "10.0.0.8"].map(|text| text.parse().unwrap());
        let mut ports = Ports::default();
        let leaf = told("veth1", Found::Leaf(4));
        ports.give("a", &[one], Some("veth1"), leaf);
        let lo = || Interface::parse("lo").unwrap();
        let before: BTreeMap<_, _> = [one, two].map(|address| (address, lo())).into();
        let mut unread = ports.clone();
        unread.keep(before.clone(), None);
        assert_eq!(behind(&unread)[1..], [("10.0.0.8".to_owned(), "lo")]);
        // It is no pod's.
        ports.keep(before, Some(&Links::read().unwrap()));
        assert_eq!(behind(&ports), [("10.0.0.7".to_owned(), "veth1")]);
    }

    #[test]
    fn nobody_is_held_to_anything_where_others_may_be() {
        let [one, two]: [IpAddr; 2] = ["10.0.0.7", "10.0.0.8"].map(|text| text.parse().unwrap());
        let mut ports = Ports::default();
        let bridge = told("cni0", Found::Shared("it has ports"));
        ports.give("a", &[one], Some("cni0"), bridge);
        assert_eq!(behind(&ports), []);

        let leaf = |number| told("veth1", Found::Leaf(number));
        ports.give("a", &[one], Some("veth1"), leaf(4));
        // It is told again of the same one.
        ports.give("a", &[one], Some("veth1"), leaf(4));
        assert_eq!(behind(&ports).len(), 1);
        ports.give("b", &[two], Some("veth1"), leaf(4));
        assert_eq!(behind(&ports), []);
        ports.take("a");
        ports.give("b", &[two], Some("veth1"), leaf(4));
        assert_eq!(behind(&ports), [("10.0.0.8".to_owned(), "veth1")]);
        // Another one has the name now, and nobody told that the sandbox before is gone.
        ports.give("c", &[one], Some("veth1"), leaf(9));
        assert_eq!(behind(&ports).len(), 2);
    }

    #[test]
    fn a_name_that_another_interface_got_while_no_agent_was_there_holds_nobody() {
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let port = Interface::parse("cali1").unwrap();
        let left = BTreeMap::from([(address, port.clone())]);
        let mut next = Ports::default();
        next.keep(left.clone(), None);
        assert_eq!(behind(&next), [("10.0.0.7".to_owned(), "cali1")]);
        let mut next = Ports::default();
        next.reuse(port);
        next.keep(left, None);
        assert_eq!(next, Ports::default());
    }

    #[test]
    fn two_sandboxes_that_name_one_interface_are_noticed_by_the_next_agent() {
        let [one, two]: [IpAddr; 2] = ["10.0.0.7", "10.0.0.8"].map(|text| text.parse().unwrap());
        let leaf = |number| told("veth1", Found::Leaf(number));
        let mut ports = Ports::default();
        ports.give("a", &[one], Some("veth1"), leaf(4));
        let mut next = Ports::default();
        for (sandbox, port, number) in ports.sandboxes() {
            next.name_again(sandbox.to_owned(), port.clone(), number);
        }
        next.keep(ports.all().clone(), None);
        assert_eq!(behind(&next), behind(&ports));
        next.give("b", &[two], Some("veth1"), leaf(4));
        assert_eq!(behind(&next), []);
        // Also where that is told before the table is read that the agent before has left.
        next.keep(ports.all().clone(), None);
        assert_eq!(behind(&next), []);
    }
}
