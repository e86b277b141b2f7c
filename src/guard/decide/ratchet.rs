//! What was wrong before an update is known again in the old object, and not held against the update.

use serde_json::Value;

use super::Raw;
use crate::guard::breadth::Broad;
use crate::guard::review::Subject;
use crate::netpol::FieldPath;

/// What a finding in a policy opens, and for whom: the peer with the ports of its rule, or the whole rule, the pods, and the
/// addresses, which may come from other peers, too.
pub(super) fn opened(broad: &Broad, subject: &Subject) -> Value {
    let at = |steps: usize| -> FieldPath {
        broad
            .finding
            .field
            .segments()
            .iter()
            .take(steps)
            .cloned()
            .collect()
    };
    let part = |field: &FieldPath| field.lookup(&subject.value).cloned().unwrap_or_default();
    // `spec`, the direction, the position; then the list of peers and the position in it.
    let (rule, peer) = (at(3), at(5));
    let what = if peer == rule {
        part(&rule)
    } else {
        Value::Array(vec![part(&peer), part(&rule.key("ports"))])
    };
    let block = broad.block.map(|block| block.to_string());
    Value::Array(vec![
        what,
        part(&FieldPath::of(["spec", "podSelector"])),
        Value::from(block),
    ])
}

/// Removes what the old object had as well, one for one.
pub(super) fn leave_out(raw: &mut Vec<Raw>, mut before: Vec<Raw>) {
    raw.retain(|new| {
        let same = before
            .iter()
            .position(|old| old.finding.id == new.finding.id && old.about == new.about);
        match same {
            Some(index) => {
                before.swap_remove(index);
                false
            }
            None => true,
        }
    });
}
