//! Ringfence against a real Kubernetes API server: etcd, kube-apiserver and, where a test asks for it, the controller
//! manager, as processes of the test. `tests/run --only kubernetes` builds them once into the cache.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says so by a panic"
)]

mod access;
mod admission;
mod appliers;
mod audit;
mod baselines;
mod clients;
mod clock;
mod cover;
mod definitions;
mod drills;
mod enforcement;
mod events;
mod files;
mod gitops;
mod helm;
mod install;
mod installation;
#[allow(dead_code, reason = "other tests need more of it")]
mod kubernetes;
mod live;
mod load;
mod lockout;
mod orders;
mod process;
mod promote;
mod races;
mod reading;
mod registration;
mod rights;
mod roles;
mod rotation;
mod service;
mod staged;
mod status;
mod support;
mod traces;
