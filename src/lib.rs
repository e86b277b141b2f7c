//! Ringfence: keeps the network of a Kubernetes cluster default-deny.
//!
//! One policy engine, used by an admission webhook, a controller, a node agent and a command line.
//! `netpol`, `guard`, `ruleset` and `report` are pure: values in, values out. The other folders touch the world and
//! use the pure ones, never the reverse.

pub mod agent;
pub mod certs;
pub mod cli;
pub mod controller;
pub mod flows;
pub mod guard;
pub mod k8s;
pub mod netpol;
pub mod rego;
pub mod report;
pub mod ruleset;
pub mod runtime;
pub mod telemetry;
pub mod webhook;
