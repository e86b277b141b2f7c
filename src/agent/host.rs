//! What the agent needs of its node. Nothing is changed but switches, where that is allowed.

use std::env::set_current_dir;
use std::fs;
use std::io;
use std::os::unix::fs::chroot;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;

use super::links::Links;

/// Where the kernel says whether packets between the ports of a bridge meet the rules.
const BRIDGE: &str = "/proc/sys/net/bridge";
/// The module that has the switches.
const MODULE: &str = "br_netfilter";
/// Where a node has `modprobe`.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The switches for IPv4 and IPv6.
const SWITCHES: [&str; 2] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];
/// The switch for packets in frames with a tag, which a bridge with VLANs gives to all that it carries.
const TAGGED: &str = "bridge-nf-filter-vlan-tagged";
/// The interface that kube-proxy gives the addresses of all Services where the kernel is to send them on by IPVS.
pub(super) const IPVS: &str = "kube-ipvs0";

/// Whether packets between two pods on one bridge meet the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridged {
    /// They do.
    Judged,
    /// They do now: the switch was off.
    SwitchedOn,
    /// The kernel has no such switch: `br_netfilter` is not loaded, so they do not if there is a bridge.
    NoSwitch,
}

/// What stands in the agent's way.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The switch is off and cannot be turned on from here.
    #[error(
        "packets between pods on one bridge do not meet the rules of this node: {} is 0 and cannot be set from here; \
         set it on the node (sysctl -w net.bridge.{name}=1), or use the component deploy/agent/prepare",
        path.display()
    )]
    BridgeOff {
        /// The switch.
        path: PathBuf,
        /// Its name.
        name: &'static str,
        /// Why it cannot be set.
        source: io::Error,
    },
    /// The module with the switch cannot be loaded.
    #[error("{MODULE} cannot be loaded: {0}")]
    NotLoaded(String),
    /// The switch is not there.
    #[error(
        "packets between pods on one bridge do not meet the rules of this node: br_netfilter is not loaded. Load it on the node \
         (modprobe br_netfilter, and for each start a file in /etc/modules-load.d), or use the component deploy/agent/prepare"
    )]
    NoSwitch,
    /// What goes to Services is sent on as if the node sent it.
    #[error(
        "kube-proxy sends on by IPVS here ({IPVS} is there): what pods send to Services passes the rules by. \
         Use its mode nftables or iptables"
    )]
    Ipvs,
}

/// Makes packets between pods on one bridge meet the rules, or says why they do not.
///
/// # Errors
///
/// The switch is off, and this process may not turn it on.
pub fn bridged() -> Result<Bridged, HostError> {
    // Where the interfaces cannot be read, nothing is changed for tags.
    let links = Links::read().unwrap_or_default();
    bridged_among(&links)
}

/// Makes them so on any bridge that there may come to be. Where the kernel has no switch and the node's files are below
/// `root`, the node's own `modprobe` loads `br_netfilter`.
///
/// # Errors
///
/// As for [`bridged`], and where the module cannot be loaded.
pub fn prepare(root: Option<&Path>) -> Result<Bridged, HostError> {
    match (bridged_at(Path::new(BRIDGE), true)?, root) {
        (Bridged::NoSwitch, Some(root)) => {
            // The root of a thread of its own is changed, not that of this process.
            std::thread::scope(|scope| scope.spawn(|| load(root)).join())
                .unwrap_or_else(|_| Err(HostError::NotLoaded("the attempt failed".to_owned())))?;
            bridged_at(Path::new(BRIDGE), true)
        }
        (bridged, _) => Ok(bridged),
    }
}

/// Loads the module. From then on this thread sees the node's files alone: `modprobe` needs libraries and modules at their paths.
fn load(root: &Path) -> Result<(), HostError> {
    let failed = |what: &str, error: io::Error| HostError::NotLoaded(format!("{what}: {error}"));
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for flags that are not used here"
    )]
    rustix::thread::unshare(UnshareFlags::FS)
        .map_err(|errno| failed("a root of its own", errno.into()))?;
    chroot(root)
        .and_then(|()| set_current_dir("/"))
        .map_err(|error| failed(&root.display().to_string(), error))?;
    let mut modprobe = Command::new("modprobe");
    modprobe.arg(MODULE).env("PATH", PATH);
    // Whether there is a /dev/null is not known.
    let output = modprobe.stdin(Stdio::piped()).output();
    let output = output.map_err(|error| failed("modprobe", error))?;
    if output.status.success() {
        return Ok(());
    }
    // It begins with its own name.
    let said = String::from_utf8_lossy(&output.stderr);
    Err(HostError::NotLoaded(said.trim().to_owned()))
}

/// Whether what pods send to Services meets the rules: where kube-proxy has IPVS send it on, it is forwarded by nobody.
pub(super) fn services_among(links: &Links) -> Result<(), HostError> {
    if links.has(IPVS) {
        Err(HostError::Ipvs)
    } else {
        Ok(())
    }
}

/// Whether packets between pods meet the rules, where the interfaces are known, and whether bridges with pods are among these.
pub(super) fn judged_among(links: &Links, has_bridges: bool) -> Result<(), HostError> {
    judged(bridged_among(links)?, has_bridges)
}

fn judged(bridged: Bridged, has_bridges: bool) -> Result<(), HostError> {
    match bridged {
        Bridged::NoSwitch if has_bridges => Err(HostError::NoSwitch),
        Bridged::Judged | Bridged::SwitchedOn | Bridged::NoSwitch => Ok(()),
    }
}

fn bridged_among(links: &Links) -> Result<Bridged, HostError> {
    bridged_at(Path::new(BRIDGE), links.have_vlans())
}

fn bridged_at(folder: &Path, have_vlans: bool) -> Result<Bridged, HostError> {
    let mut outcome = Bridged::Judged;
    let tagged = have_vlans.then_some(TAGGED);
    for name in SWITCHES.into_iter().chain(tagged) {
        let path = folder.join(name);
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() != "0" => {}
            Ok(_) => match fs::write(&path, "1\n") {
                Ok(()) => outcome = Bridged::SwitchedOn,
                Err(source) => return Err(HostError::BridgeOff { path, name, source }),
            },
            Err(_) => return Ok(Bridged::NoSwitch),
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_turned_on_where_it_is_off() {
        let folder = tempfile::tempdir().unwrap();
        let bridged = |have_vlans| bridged_at(folder.path(), have_vlans).unwrap();
        assert_eq!(bridged(false), Bridged::NoSwitch);
        let judged = |has_bridges| judged(bridged(false), has_bridges);
        assert!(judged(false).is_ok());
        let text = judged(true).unwrap_err().to_string();
        assert!(text.contains("br_netfilter is not loaded"), "{text}");
        for name in SWITCHES.into_iter().chain([TAGGED]) {
            fs::write(folder.path().join(name), "0\n").unwrap();
        }
        assert_eq!(bridged(false), Bridged::SwitchedOn);
        assert_eq!(bridged(false), Bridged::Judged);
        assert_eq!(bridged(true), Bridged::SwitchedOn);
        assert_eq!(bridged(true), Bridged::Judged);
    }
}
