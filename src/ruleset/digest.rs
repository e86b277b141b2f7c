//! Digests: names for content that no other content has, and what a receipt says of a whole table.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::render::{self, Reader};
use super::table::Ruleset;

impl Ruleset {
    /// The SHA-256 digest of the table as `nft` reads it, in hexadecimal: the same for what is wanted
    /// and for what the kernel keeps of it ([`Ruleset::as_kept`]), and without what only the node knows, so that who knows
    /// the cluster can tell it.
    pub fn digest(&self) -> String {
        let mut told = self.clone();
        told.bridge = None;
        for set in told.sets.values_mut().filter(|set| set.kind.is_of_node()) {
            set.elements.clear();
        }
        let text = render::table(&told, Reader::Nft);
        hex(text.as_bytes(), usize::MAX)
    }
}

/// The first 80 bits of the SHA-256 digest of some content: nobody can find another content to a name that is there.
pub(super) fn short(content: &str) -> String {
    hex(content.as_bytes(), 10)
}

fn hex(content: &[u8], bytes: usize) -> String {
    let digest = digest(&SHA256, content);
    let mut hex = String::with_capacity(64);
    for byte in digest.as_ref().iter().take(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
