//! Who else enforces network policies on this node: by the configuration of the network plugins, and by the names of chains in
//! nftables, where those are that come with another plugin's configuration (kube-router, kindnet) or without any.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::nft::{self, Socket};
use crate::guard::enforcement::chains::{self, Chain};
use crate::guard::enforcement::plugins::{self, Enforces, Plugin};

/// How much of a configuration is read, in bytes.
const MOST: u64 = 1024 * 1024;
/// How often it is looked whether somebody has come.
const OFTEN: Duration = Duration::from_mins(1);

/// Somebody else who enforces policies, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Another {
    /// Its name.
    name: &'static str,
    /// The chain that it is known by; none where by its configuration.
    chain: Option<String>,
}

/// Somebody else enforces here.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} and enforces network policies itself: two that enforce deny what either denies. Have one of them enforce, or say \
     --beside-another; where it is gone, take its configuration or its chains away, or start the node again"
)]
pub struct NotAlone(Another);

impl fmt::Display for Another {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.chain {
            None => write!(f, "{} is configured on this node", self.name),
            Some(chain) => write!(
                f,
                "{} has rules in the kernel of this node (the chain {chain})",
                self.name
            ),
        }
    }
}

/// Makes sure that nobody else enforces policies where an agent is to begin with it. One that has begun already goes on, or its
/// rules would stay as they are and no pod would start: [`watch`] tells of the other.
///
/// # Errors
///
/// Somebody does.
pub fn nobody(configurations: &Path) -> Result<(), NotAlone> {
    let chains = chains().unwrap_or_default();
    if chains.iter().any(nft::is_ours) {
        return Ok(());
    }
    enforcing(configurations, &chains).map_or(Ok(()), |another| Err(NotAlone(another)))
}

/// Tells who enforces beside this agent, each time that the first one is another, for as long as it is polled.
pub async fn watch(configurations: PathBuf) -> Result<(), Infallible> {
    let mut ticks = interval(OFTEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = None;
    loop {
        ticks.tick().await;
        // What cannot be read now will be.
        let Some(chains) = tokio::task::block_in_place(chains) else {
            continue;
        };
        let found = enforcing(&configurations, &chains);
        let name = found.as_ref().map(|another| another.name);
        if name != known
            && let Some(another) = &found
        {
            tracing::warn!(
                "{another} and enforces network policies, too: what either denies is denied"
            );
        }
        known = name;
    }
}

/// Who enforces policies by itself, or may.
fn enforcing(configurations: &Path, chains: &[Chain]) -> Option<Another> {
    let configured = configured(configurations).map(|name| Another { name, chain: None });
    configured.or_else(|| {
        let (plugin, chain) = chains::enforcing(chains)?;
        Some(Another {
            name: plugin.name,
            chain: Some(chain.path()),
        })
    })
}

/// Everybody's chains. Where they cannot be read, none can be made, which is told elsewhere.
fn chains() -> Option<Vec<Chain>> {
    nft::all_chains(&mut Socket::open().ok()?).ok()
}

/// Which network plugin does, of those configured in a folder (`/etc/cni/net.d`).
fn configured(folder: &Path) -> Option<&'static str> {
    let known = plugins::of_types(&types(folder));
    let enforces = |plugin: &Plugin| matches!(plugin.enforces, Enforces::Yes | Enforces::If(_));
    known.into_iter().find(enforces).map(|plugin| plugin.name)
}

/// The types of the plugins in the configuration that a container runtime takes: the first file by name.
pub fn types(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    let is_configuration = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| matches!(extension, "conf" | "conflist" | "json"))
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_configuration)
        .collect();
    paths.sort();
    let read = paths.iter().find_map(|path| {
        let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MOST);
        let text = is_small.then(|| fs::read(path).ok()).flatten()?;
        serde_json::from_slice::<Value>(&text).ok()
    });
    let Some(configuration) = read else {
        return BTreeSet::new();
    };
    let plugins = configuration["plugins"].as_array();
    let plugins = plugins.map_or(std::slice::from_ref(&configuration), Vec::as_slice);
    let types = plugins.iter().filter_map(|plugin| plugin["type"].as_str());
    types.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_configuration_says_who_enforces() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(configured(folder.path()), None);
        write("20-other.conf", r#"{"type": "calico"}"#);
        assert_eq!(configured(folder.path()), Some("Calico"));
        write(
            "10-flannel.conflist",
            r#"{"plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#,
        );
        assert_eq!(configured(folder.path()), None);
        assert_eq!(
            types(folder.path()),
            BTreeSet::from(["flannel".to_owned(), "portmap".to_owned()])
        );
        // What is no configuration is passed over, as the runtime does.
        write("00-README", "calico");
        write("01-broken.conf", "{");
        assert_eq!(configured(folder.path()), None);
        write("02-canal.conflist", r#"{"plugins": [{"type": "calico"}]}"#);
        assert_eq!(configured(folder.path()), Some("Calico"));
    }
}
