//! Kubernetes objects from where they are kept: folders of manifests, or an API server.
//!
//! `yaml` turns the text of one file into values and remembers where each field stands in it;
//! `manifests` walks folders and streams and gives Kubernetes objects; `folder` takes a folder of them for a cluster;
//! `changes` tells when files change. `client` reaches an API server, `list` reads a cluster there once (`enforcement`:
//! with the receipts of its nodes) and `live` follows it; `probe` tries it by pods of its own; `events` tells there what
//! happened. Nothing here judges an object.

pub mod access;
pub mod changes;
pub mod client;
pub mod enforcement;
pub mod events;
pub mod folder;
pub mod list;
pub mod live;
pub mod manifests;
pub mod one;
pub mod probe;
mod served;
pub(crate) mod trim;
pub mod yaml;
