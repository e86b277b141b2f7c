//! What the runtime tells a plugin on standard input: the network configuration, and what the plugins before have done.
//!
//! <https://www.cni.dev/docs/spec/>, of the versions 0.3.1 to 1.1.0.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::SOCKET;

/// The versions of the specification that the plugin speaks.
pub(super) const VERSIONS: [&str; 5] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.3.0"];

/// The most that is waited for the agent, in seconds; less than any runtime waits for a plugin.
const MOST_SECONDS: u64 = 60;

/// A network configuration.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    #[serde(default)]
    pub(super) cni_version: String,
    /// What the plugins before have done, to be handed on as it is.
    #[serde(default)]
    pub(super) prev_result: Option<Box<RawValue>>,
    #[serde(default = "socket")]
    pub(super) agent_socket: PathBuf,
    #[serde(default)]
    pub(super) when_agent_is_down: WhenDown,
    #[serde(default = "seconds")]
    pub(super) timeout_seconds: u64,
}

/// What becomes of a pod when the agent does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenDown {
    /// It does not start; the kubelet tries again.
    #[default]
    Fail,
    /// It starts without its rules.
    Pass,
}

/// The part of a result that tells who the pod is on the network.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Result {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    mac: Option<String>,
    #[serde(default)]
    sandbox: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Ip {
    address: String,
    #[serde(default)]
    interface: Option<i64>,
}

fn socket() -> PathBuf {
    PathBuf::from(SOCKET)
}

fn seconds() -> u64 {
    10
}

// === impl Config ===

impl Config {
    /// How long to wait for the agent, in seconds.
    pub(super) fn seconds(&self) -> u64 {
        self.timeout_seconds.clamp(1, MOST_SECONDS)
    }
}

// === impl Interface ===

impl Interface {
    fn inside(&self) -> bool {
        self.sandbox
            .as_deref()
            .is_some_and(|sandbox| !sandbox.is_empty())
    }
}

// === impl Result ===

impl Result {
    /// The addresses of the pod itself; an error for one that is none.
    pub(super) fn addresses(&self) -> std::result::Result<Vec<IpAddr>, String> {
        let of_pod = self.ips.iter().filter(|ip| {
            let index = ip.interface.and_then(|index| usize::try_from(index).ok());
            let interface = index.and_then(|index| self.interfaces.get(index));
            interface.is_none_or(Interface::inside)
        });
        of_pod
            .map(|ip| {
                let address = ip.address.split('/').next().unwrap_or_default();
                let read = address.parse::<IpAddr>();
                read.map_err(|_| format!("prevResult: {:?} is no address", ip.address))
            })
            .collect()
    }

    /// The node's end of the pod's interface: a bridge comes before it in the list, and behind the pod's own come others that
    /// plugins later in the chain have made.
    pub(super) fn host_interface(&self) -> Option<String> {
        let interfaces = self.interfaces.iter();
        let outside = interfaces.take_while(|interface| !interface.inside());
        outside.last().map(|interface| interface.name.clone())
    }

    /// The hardware address of an interface of the pod.
    pub(super) fn mac(&self, name: &str) -> Option<String> {
        let found = self
            .interfaces
            .iter()
            .find(|interface| interface.inside() && interface.name == name);
        found
            .and_then(|interface| interface.mac.clone())
            .filter(|mac| !mac.is_empty())
    }
}
