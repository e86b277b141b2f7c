//! The admission webhook: HTTPS in, a decision of `guard`, HTTPS out.
//!
//! `tls` has the certificate and replaces it; `server` accepts and guards connections; `router` takes a request through its
//! limits and reads its `body`; `workers` place the computing; `judge` does it: `review` in, `guard`, `answer` out. `cluster` is
//! asked where a decision turns on what the state may not show yet; `metrics` counts.

pub mod answer;
pub mod body;
pub mod cluster;
pub mod deadline;
mod events;
mod judge;
pub mod metrics;
pub mod review;
pub mod router;
pub mod server;
pub mod tls;
pub mod workers;
