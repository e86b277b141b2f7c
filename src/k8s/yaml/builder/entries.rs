//! Finished nodes into the collections they belong to: items, entries, merge keys and keys that stand twice.

use serde_json::Value;
use serde_json::map::{Entry, Map};

use crate::k8s::yaml::fault::{Fault, FaultKind};
use crate::k8s::yaml::places::{Child, NodeId, Span, unquoted};
use crate::netpol::Segment;

use super::{At, Builder, Content, Duplicate, Frame, OpenChild, Size};

/// What is to be said about duplicate keys of one document at most.
const MOST_DUPLICATES: usize = 100;

impl Builder<'_> {
    /// Puts a finished node where it belongs.
    pub(super) fn complete(
        &mut self,
        value: Value,
        node: NodeId,
        size: Size,
        at: At,
    ) -> Result<(), Fault> {
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some((value, node));
            return Ok(());
        };
        frame.size.weight = frame.size.weight.saturating_add(size.weight);
        frame.size.height = frame.size.height.max(size.height);
        let (entries, key, has_merged) = match &mut frame.content {
            Content::Sequence(items) => {
                items.push(value);
                let child = Child {
                    key: Span::default(),
                    node,
                };
                self.children.push(OpenChild {
                    child,
                    respelled: None,
                    is_merged: false,
                });
                return Ok(());
            }
            Content::Mapping {
                entries,
                key,
                has_merged,
            } => (entries, key, has_merged),
        };
        let Some(key) = key.take() else { return Ok(()) };
        if key.is_merge {
            *has_merged = true;
            return self.merge(value, node, at);
        }
        let respelled = key.is_respelled.then(|| Box::from(key.name.as_str()));
        match entries.entry(key.name) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(mut entry) => {
                entry.insert(value);
                if self.duplicates.len() < MOST_DUPLICATES {
                    let (name, from) = (entry.key().clone(), frame.children);
                    self.note_duplicate(&name, from, key.span);
                }
            }
        }
        let child = Child {
            key: key.span,
            node,
        };
        self.children.push(OpenChild {
            child,
            respelled,
            is_merged: false,
        });
        Ok(())
    }

    /// Puts the entries of `<<` into the innermost mapping: as `kubectl` does, over those written before it.
    fn merge(&mut self, value: Value, node: NodeId, at: At) -> Result<(), Fault> {
        let wrong = || at.fault(FaultKind::MergeOfNoMapping);
        let mut merged: Vec<(NodeId, Map<String, Value>)> = Vec::new();
        match value {
            Value::Object(entries) => merged.push((node, entries)),
            Value::Array(items) if self.tree.target(node) == node => {
                for (item, child) in items.into_iter().zip(self.tree.items(node)) {
                    let Value::Object(entries) = item else {
                        return Err(wrong());
                    };
                    merged.push((child.node, entries));
                }
            }
            _ => return Err(wrong()),
        }
        let source = self.text.as_str();
        let Some(Frame {
            content: Content::Mapping { entries, .. },
            ..
        }) = self.frames.last_mut()
        else {
            return Ok(());
        };
        // Backwards, for the first of a list of mappings counts.
        for (node, more) in merged.into_iter().rev() {
            for (child, name) in self.tree.entries(node, source) {
                let written = source.get(child.key.range()).unwrap_or_default();
                let respelled = (unquoted(written) != name).then(|| Box::from(name));
                self.children.push(OpenChild {
                    child,
                    respelled,
                    is_merged: true,
                });
            }
            entries.extend(more);
        }
        Ok(())
    }

    /// Notes that a key of the innermost mapping is there already, unless it came in by a merge key.
    fn note_duplicate(&mut self, name: &str, from: usize, second: Span) {
        let source = self.text.as_str();
        let first = self
            .children
            .get(from..)
            .unwrap_or_default()
            .iter()
            .rev()
            .find(|open| {
                let key = open.respelled.as_deref();
                let written = || unquoted(source.get(open.child.key.range()).unwrap_or_default());
                !open.is_merged && key.unwrap_or_else(written) == name
            });
        let Some(first) = first.map(|open| open.child.key) else {
            return;
        };
        let above =
            self.frames
                .iter()
                .rev()
                .skip(1)
                .rev()
                .filter_map(|frame| match &frame.content {
                    Content::Mapping { key, .. } => {
                        key.as_ref().map(|key| Segment::Key(key.name.clone()))
                    }
                    Content::Sequence(items) => Some(Segment::Index(items.len())),
                });
        let field = above.chain([Segment::Key(name.to_owned())]).collect();
        self.duplicates.push(Duplicate {
            field,
            first: first.range(),
            second: second.range(),
        });
    }
}
