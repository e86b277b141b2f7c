//! Real packets: nodes and pods as network namespaces, probes between them, and what must and must not get through.
//!
//! Needs root and the programs `ip` and `nft`. Nothing outside the namespaces is touched.
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

mod agent;
mod capture;
mod churn;
mod cluster;
#[path = "../netpol_oracle/clusters.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod clusters;
mod cni;
mod connection;
mod corpus;
mod frame;
mod harness;
mod kept;
#[path = "../cluster/kubernetes.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod kubernetes;
mod lag;
mod namespace;
mod news;
mod nflog;
#[path = "../cyclonus/oracle.rs"]
mod oracle;
#[path = "../cyclonus/output.rs"]
mod output;
mod peers;
mod policies;
mod probe;
#[path = "../cluster/process.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod process;
#[path = "../cyclonus/replay.rs"]
#[allow(dead_code, reason = "here packets are compared, not the model")]
mod replay;
#[path = "../cluster/roles.rs"]
mod roles;
mod sctp;
mod serve;
mod service;
mod site;
mod spoof;
mod staged;
#[path = "../cyclonus/table.rs"]
mod table;
mod timeline;
mod traffic;
#[path = "../netpol_oracle/trials.rs"]
mod trials;
