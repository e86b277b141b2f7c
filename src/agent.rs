//! The node agent: keeps in the kernel of one node what [`crate::ruleset`] wants, and tells what became of packets there.
//!
//! `enforce` is the loop: changes of the cluster go into a plan, and what the plan says into the kernel through `nft`, which
//! also reads our table back and notices when others touch it. `cut` ends connections that have become forbidden, through
//! `conntrack`; `cni` holds a new pod back until its rules are in force and tells behind which interface it is (`ports`);
//! `nflog` reads what the rules tell of packets, which `told` explains, `flows` joins and keeps, and `notices` makes Events of;
//! `receipt` tells the API server what was read back. `beside` looks who else enforces here. `netlink` is how netfilter is
//! spoken to, without the `nft` program; `heard` reads what it says without a socket, for tests.
//! Nothing here decides about flows.

pub mod beside;
pub mod cni;
pub mod conntrack;
pub mod doctor;
pub mod enforce;
pub mod flows;
pub mod heard;
pub mod host;
pub mod nflog;
pub mod nft;
pub mod ports;
pub mod receipt;
pub mod told;

mod addresses;
mod counts;
mod cut;
mod kernel;
mod links;
mod netlink;
mod notices;
mod others;
mod overlay;

pub use kernel::{KernelError, has_table, remove, remove_bridge};
