//! What the plugin asks the agent and what the agent answers: one line of JSON each.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The version of these words. An agent answers a plugin of its own version only; both come from the same binary.
pub const VERSION: u32 = 1;

/// The longest line that is read, in bytes.
pub const LONGEST: u64 = 64 * 1024;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What happened to the pod.
    pub command: Command,
    /// The runtime's name for the sandbox.
    pub container_id: String,
    /// Which pod it is; none for a container that Kubernetes did not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The name of the interface inside the pod.
    pub interface: String,
    /// The pod's addresses, as the plugins before gave them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The node's end of the pod's interface, where the plugins before told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_interface: Option<String>,
    /// The hardware address of the pod's interface, where the plugins before told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// What happened to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// It is about to start.
    Add,
    /// It should be there as it was added.
    Check,
    /// It is gone.
    Del,
}

/// A pod's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity, where the runtime says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Answer {
    /// The pod may go on: its rules are in force.
    Ready,
    /// It may not.
    Refused {
        /// Why, for people.
        message: String,
    },
}
