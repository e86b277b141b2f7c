//! Events to one document: its value and its places, within the limits.
//!
//! Collections under construction are frames on a list, so depth costs memory and not the call stack. What an
//! anchor names is kept as a copy and put in again at each alias; both are paid for from the limits, by size.

mod entries;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use serde_json::map::Map;

use crate::netpol::FieldPath;

use super::fault::{Fault, FaultKind};
use super::places::{Child, NodeId, Places, Shape, Span, Tree, unquoted};
use super::text::Text;
use super::{Budget, Document, Limits};

/// A key that is written twice in one mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The field, from the root of the document.
    pub field: FieldPath,
    /// Where it is written first: this value is lost.
    pub first: Range<usize>,
    /// Where it is written again.
    pub second: Range<usize>,
}

/// How many values are taken from the budget at a time.
const CREDIT: usize = 256;

/// Bytes of text that count as one value more.
const BYTES_A_VALUE: usize = 64;

/// Makes one document of events.
pub(super) struct Builder<'a> {
    text: &'a Arc<Text>,
    limits: &'a Limits,
    budget: &'a Budget,
    /// Values that were taken from the budget and not used yet.
    credit: usize,
    /// Values that were used.
    used: usize,
    tree: Tree,
    frames: Vec<Frame>,
    /// The children of the open collections, outermost first.
    children: Vec<OpenChild>,
    anchors: HashMap<usize, Anchored>,
    /// The size of all copies made for anchors and aliases.
    copied: usize,
    duplicates: Vec<Duplicate>,
    root: Option<(Value, NodeId)>,
    /// The end of the last thing that is more than punctuation.
    end: usize,
}

/// A node's anchor and extent as its event gives them.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The anchor's number; 0 is none.
    pub(super) anchor: usize,
}

/// A collection under construction.
struct Frame {
    start: usize,
    anchor: usize,
    /// Where its children start in `Builder::children`.
    children: usize,
    size: Size,
    content: Content,
}

enum Content {
    Mapping {
        entries: Map<String, Value>,
        key: Option<Key>,
        has_merged: bool,
    },
    Sequence(Vec<Value>),
}

/// A key that waits for its value.
struct Key {
    name: String,
    span: Span,
    is_respelled: bool,
    is_merge: bool,
}

struct OpenChild {
    child: Child,
    respelled: Option<Box<str>>,
    /// Whether it came in by a merge key.
    is_merged: bool,
}

/// A finished node that aliases may repeat.
struct Anchored {
    value: Value,
    node: NodeId,
    size: Size,
}

/// How much a node is.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    /// Values, a long string counting more than once.
    weight: usize,
    /// Collections inside one another.
    height: usize,
}

// === impl Builder ===

impl<'a> Builder<'a> {
    pub(super) fn new(text: &'a Arc<Text>, limits: &'a Limits, budget: &'a Budget) -> Self {
        Self {
            text,
            limits,
            budget,
            credit: 0,
            used: 0,
            tree: Tree::default(),
            frames: Vec::new(),
            children: Vec::new(),
            anchors: HashMap::new(),
            copied: 0,
            duplicates: Vec::new(),
            root: None,
            end: 0,
        }
    }

    /// Whether a mapping waits for its next key.
    pub(super) fn wants_key(&self) -> bool {
        matches!(
            self.frames.last(),
            Some(Frame {
                content: Content::Mapping { key: None, .. },
                ..
            })
        )
    }

    /// Whether the innermost open collection is written in braces or brackets, or is about to be: `[a: b]`.
    pub(super) fn is_in_flow(&self) -> bool {
        let mut frames = self.frames.iter().rev().map(|frame| frame.start);
        let is_bracket = |start: usize| {
            let byte = self.text.as_str().as_bytes().get(start);
            matches!(byte, Some(b'{' | b'['))
        };
        // The mapping of `[a: b]` has no braces of its own.
        frames.next().is_some_and(is_bracket) || frames.next().is_some_and(is_bracket)
    }

    /// Whether the innermost open collection is a mapping; none if there is no open collection.
    pub(super) fn in_mapping(&self) -> Option<bool> {
        self.frames
            .last()
            .map(|frame| matches!(frame.content, Content::Mapping { .. }))
    }

    /// A scalar value.
    pub(super) fn value(&mut self, value: Value, at: At) -> Result<(), Fault> {
        self.end = at.end;
        let size = Size {
            weight: weight_of(&value),
            height: 0,
        };
        self.spend(size.weight, at)?;
        let node = self.tree.push(at.span(), Shape::Scalar);
        self.anchor(at, &value, node, size)?;
        self.complete(value, node, size, at)
    }

    /// The key of the next value; `is_merge` for one that says `<<`.
    pub(super) fn key(&mut self, name: String, is_merge: bool, at: At) {
        self.end = at.end;
        let source = self.text.as_str().get(at.start..at.end).unwrap_or_default();
        let is_respelled = unquoted(source) != name;
        if let Some(Frame {
            content: Content::Mapping { key, .. },
            ..
        }) = self.frames.last_mut()
        {
            *key = Some(Key {
                name,
                span: at.span(),
                is_respelled,
                is_merge,
            });
        }
    }

    /// The value that aliases of an anchored key repeat.
    pub(super) fn key_anchor(&mut self, value: &Value, at: At) -> Result<(), Fault> {
        let node = self.tree.push(at.span(), Shape::Scalar);
        self.anchor(
            at,
            value,
            node,
            Size {
                weight: weight_of(value),
                height: 0,
            },
        )
    }

    /// The start of a mapping.
    pub(super) fn open_mapping(&mut self, at: At) -> Result<(), Fault> {
        self.open(
            at,
            Content::Mapping {
                entries: Map::new(),
                key: None,
                has_merged: false,
            },
        )
    }

    /// The start of a sequence.
    pub(super) fn open_sequence(&mut self, at: At) -> Result<(), Fault> {
        self.open(at, Content::Sequence(Vec::new()))
    }

    /// The end of the innermost collection; `at` is empty where nothing in the text closes it.
    pub(super) fn close(&mut self, at: At) -> Result<(), Fault> {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        if at.end > at.start {
            self.end = at.end;
        }
        let span = Span::new(frame.start, self.end);
        let first = frame.children.min(self.children.len());
        let children = self.tree.push_children(
            self.children
                .drain(first..)
                .map(|open| (open.child, open.respelled)),
        );
        let (value, shape) = match frame.content {
            Content::Mapping { entries, .. } => (Value::Object(entries), Shape::Mapping(children)),
            Content::Sequence(items) => (Value::Array(items), Shape::Sequence(children)),
        };
        let node = self.tree.push(span, shape);
        let at = At {
            start: frame.start,
            end: self.end,
            anchor: frame.anchor,
        };
        let size = Size {
            height: frame.size.height + 1,
            ..frame.size
        };
        self.anchor(at, &value, node, size)?;
        self.complete(value, node, size, at)
    }

    /// A repetition of an anchored node.
    pub(super) fn alias(&mut self, anchor: usize, at: At) -> Result<(), Fault> {
        self.end = at.end;
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(at.fault(FaultKind::AliasInsideItself));
        };
        let (size, target) = (anchored.size, anchored.node);
        if self.frames.len() + size.height > self.limits.depth {
            return Err(at.fault(FaultKind::TooDeep {
                limit: self.limits.depth,
            }));
        }
        self.copy(size, at)?;
        // Borrowed again: the copy must not be made before it is paid for.
        let Some(value) = self
            .anchors
            .get(&anchor)
            .map(|anchored| anchored.value.clone())
        else {
            return Ok(());
        };
        if self.wants_key() {
            let name = match value {
                Value::Null => return Err(at.fault(FaultKind::KeyIsNull)),
                Value::Array(_) | Value::Object(_) => {
                    return Err(at.fault(FaultKind::KeyIsCollection));
                }
                Value::String(text) => text,
                other => other.to_string(),
            };
            self.key(name, false, at);
            return Ok(());
        }
        let node = self.tree.push(at.span(), Shape::Alias(target));
        self.complete(value, node, size, at)
    }

    /// The document, if there was one that is not null. The builder is as new then.
    pub(super) fn finish(&mut self) -> Option<Document> {
        let root = self.root.take();
        let document = root
            .filter(|(value, _)| !value.is_null())
            .map(|(value, root)| Document {
                value,
                places: Places::new(Arc::clone(self.text), std::mem::take(&mut self.tree), root),
                duplicates: std::mem::take(&mut self.duplicates),
            });
        self.reset();
        document
    }

    /// Forgets a document that could not be finished.
    pub(super) fn reset(&mut self) {
        self.tree = Tree::default();
        self.frames.clear();
        self.children.clear();
        self.anchors.clear();
        self.copied = 0;
        self.duplicates.clear();
        self.root = None;
    }

    fn open(&mut self, at: At, content: Content) -> Result<(), Fault> {
        if self.wants_key() {
            return Err(at.fault(FaultKind::KeyIsCollection));
        }
        if self.frames.len() >= self.limits.depth {
            return Err(at.fault(FaultKind::TooDeep {
                limit: self.limits.depth,
            }));
        }
        self.spend(1, at)?;
        let size = Size {
            weight: 1,
            height: 0,
        };
        let children = self.children.len();
        self.end = at.end;
        self.frames.push(Frame {
            start: at.start,
            anchor: at.anchor,
            children,
            size,
            content,
        });
        Ok(())
    }

    fn anchor(&mut self, at: At, value: &Value, node: NodeId, size: Size) -> Result<(), Fault> {
        if at.anchor != 0 {
            self.copy(size, at)?;
            self.anchors.insert(
                at.anchor,
                Anchored {
                    value: value.clone(),
                    node,
                    size,
                },
            );
        }
        Ok(())
    }

    /// Pays for a copy of a node.
    fn copy(&mut self, size: Size, at: At) -> Result<(), Fault> {
        self.copied = self.copied.saturating_add(size.weight);
        if self.copied > self.limits.aliased {
            return Err(at.fault(FaultKind::TooMuchAliased {
                limit: self.limits.aliased,
            }));
        }
        self.spend(size.weight, at)
    }

    fn spend(&mut self, count: usize, at: At) -> Result<(), Fault> {
        if count > self.credit {
            let more = count.max(CREDIT);
            if self.budget.take(more) {
                self.credit += more;
            } else if self.budget.take(count) {
                self.credit += count;
            } else {
                return Err(at.fault(FaultKind::TooManyValues {
                    limit: self.limits.values,
                }));
            }
        }
        self.credit -= count;
        self.used += count;
        Ok(())
    }

    /// Gives back what was used of the budget, for what is read again.
    pub(super) fn give_back(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.used));
    }
}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.credit);
    }
}

// === impl At ===

impl At {
    pub(super) fn span(self) -> Span {
        Span::new(self.start, self.end)
    }

    pub(super) fn fault(self, kind: FaultKind) -> Fault {
        Fault::new(kind, self.start..self.end.max(self.start))
    }
}

fn weight_of(value: &Value) -> usize {
    1 + value.as_str().map_or(0, |text| text.len() / BYTES_A_VALUE)
}
