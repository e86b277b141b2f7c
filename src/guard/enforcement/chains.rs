//! Who else has rules in a node's nftables, as the names of chains tell. Those of iptables are among them where it is
//! nftables' own (`iptables-nft`).

use super::plugins::Plugin;

/// A chain of somebody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The family of its table, as nft names it.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// What becomes of packets that none of its rules decides, where those that a node forwards come into it by the kernel; `None`
    /// where they come in by other chains only, or not at all.
    pub on_the_way: Option<Policy>,
}

/// What becomes of a packet that no rule of a chain decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It passes.
    Accept,
    /// It is dropped.
    Drop,
}

/// The firewalls for hosts that decide about forwarded packets whatever the policy of their chains, and what their tables or
/// chains are called, or how that begins.
const FIREWALLS: [(&str, &[&str]); 2] =
    [("firewalld", &["firewalld"]), ("ufw", &["ufw-", "ufw6-"])];

/// Who has rules for policies here, with a chain that tells.
pub fn enforcing(chains: &[Chain]) -> Option<(Plugin, &Chain)> {
    let plugin = |chain| Plugin::of_chain(chain).map(|plugin| (plugin, chain));
    chains.iter().find_map(plugin)
}

/// The first firewall among them.
pub(super) fn firewall(chains: &[Chain]) -> Option<&'static str> {
    let is_here = |names: &[&str]| {
        let mut names = names.iter();
        names.any(|name| chains.iter().any(|chain| chain.is_called(name)))
    };
    let mut known = FIREWALLS.into_iter();
    known.find_map(|(firewall, names)| is_here(names).then_some(firewall))
}

/// Those of others that drop forwarded packets which none of their rules lets pass.
pub(super) fn dropping(chains: &[Chain]) -> impl Iterator<Item = &Chain> {
    let drops = |chain: &&Chain| chain.on_the_way == Some(Policy::Drop);
    chains.iter().filter(drops)
}

// === impl Chain ===

impl Chain {
    /// Whether its table or itself is called so, or its name begins so.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.table.starts_with(name) || self.name.starts_with(name)
    }

    /// Its family, table and name, as nft has them.
    pub fn path(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}
