//! The node agent: keeps in the kernel of one node what [`crate::ruleset`] wants, and tells what became of packets there.
//!
//! `netlink` talks to netfilter; `nft` puts transactions into the kernel, reads our table back and notices when others touch it; all of it by netlink,
//! without the `nft` program. Nothing here decides about flows.

mod netlink;
pub mod nft;
