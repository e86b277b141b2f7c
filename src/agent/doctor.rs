//! What a node is seen to have, for `ringfence doctor`. Nothing is changed: no table is made, no switch is set.

use std::fs;
use std::path::Path;

use super::links::Links;
use super::nft::{self, ApplyError, ReadError, Socket};
use super::{beside, host};
use crate::guard::enforcement::chains::Chain;
use crate::guard::enforcement::doctor::{Nftables, Node, SWITCHES};

/// Where the kernel shows its switches.
const KERNEL: &str = "/proc/sys";
/// Where it names the tables of iptables that are not nftables'.
const LEGACY: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// Looks at the configuration of the network plugins in a folder; with `kernel`, at the kernel as well, as it is in the
/// network namespace of this process.
pub fn look(configurations: &Path, kernel: bool) -> Node {
    let types = beside::types(configurations).into_iter().collect();
    let mut node = Node {
        types,
        ..Node::default()
    };
    if kernel {
        let switches = SWITCHES.into_iter();
        node.switches = switches
            .map(|name| (name, switch(Path::new(KERNEL), name)))
            .collect();
        let (answer, chains) = nftables();
        node.nftables = Some(answer);
        let (own, others): (Vec<_>, Vec<_>) = chains.into_iter().partition(nft::is_ours);
        node.has_own_table = !own.is_empty();
        node.chains = others;
        node.has_legacy_filter = LEGACY.into_iter().any(names_filter);
        let links = Links::read().ok();
        node.has_ipvs = links.map(|links| links.has(host::IPVS));
    }
    node
}

/// Whether a switch is on; `None` where it is not there.
fn switch(folder: &Path, name: &str) -> Option<bool> {
    let text = fs::read_to_string(folder.join(name.replace('.', "/"))).ok()?;
    Some(text.trim() != "0")
}

/// What nftables answers, and everybody's chains.
fn nftables() -> (Nftables, Vec<Chain>) {
    let mut socket = match Socket::open() {
        Ok(socket) => socket,
        Err(ApplyError::NotPermitted) => return (Nftables::NotPermitted, Vec::new()),
        Err(error) => return (Nftables::Fails(error.to_string()), Vec::new()),
    };
    match nft::all_chains(&mut socket) {
        Ok(chains) => (Nftables::Answers, chains),
        Err(ReadError::NotPermitted) => (Nftables::NotPermitted, Vec::new()),
        Err(error) => (Nftables::Fails(error.to_string()), Vec::new()),
    }
}

/// Whether a list of tables of iptables has the one that decides.
fn names_filter(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line == "filter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_on_off_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let ipv4 = folder.path().join("net/ipv4");
        fs::create_dir_all(&ipv4).unwrap();
        fs::write(ipv4.join("ip_forward"), "1\n").unwrap();
        fs::write(ipv4.join("tcp_sack"), "0\n").unwrap();
        let at = |name: &str| switch(folder.path(), name);
        assert_eq!(at("net.ipv4.ip_forward"), Some(true));
        assert_eq!(at("net.ipv4.tcp_sack"), Some(false));
        assert_eq!(at("net.bridge.bridge-nf-call-iptables"), None);
    }

    #[test]
    fn the_kernel_is_looked_at_only_when_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let plain = r#"{"plugins": [{"type": "flannel"}]}"#;
        fs::write(folder.path().join("10.conflist"), plain).unwrap();
        let node = look(folder.path(), false);
        assert_eq!(node.types, ["flannel"]);
        assert!(node.switches.is_empty() && node.nftables.is_none() && node.has_ipvs.is_none());
        let node = look(folder.path(), true);
        assert_eq!(node.switches.len(), SWITCHES.len());
        assert!(node.nftables.is_some() && node.has_ipvs.is_some());
    }
}
