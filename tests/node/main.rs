//! A real node: containerd, kubelet, kube-proxy and a bridge as its network plugin, with real pods and what the manifests in
//! `deploy/agent` and `deploy/install` put on it.
//!
//! Needs root and what `tests/run --only node` installs and builds. The node is a network, mount and PID namespace of its own:
//! nothing outside is touched, and nothing of it is left.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::format_collect,
    clippy::format_push_string,
    reason = "nodes and pods are few, and so are the lines that make them"
)]

#[path = "../packets/capture.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod capture;
#[path = "../packets/cluster.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod cluster;
mod enforced;
mod groups;
mod image;
mod installed;
#[path = "../cluster/kubernetes.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod kubernetes;
mod lag;
mod load;
mod machine;
#[path = "../packets/namespace.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod namespace;
#[path = "../packets/probe.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod probe;
#[path = "../cluster/process.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod process;
#[path = "../packets/sctp.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod sctp;
#[path = "../packets/serve.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod serve;
mod shop;
