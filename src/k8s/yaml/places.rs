//! Where each field of a document stands.
//!
//! A document's nodes lie in one list and its children in another, as offsets into the text; keys are looked
//! up in the text itself. So reading pays for twelve bytes a field, and only a finding pays for line and column.
//!
//! What an alias repeats has the place of the anchor's text, for that is what has to be edited; the alias
//! itself has the place of the `*name`. Keys that come in by `<<` have the place where they are written.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::netpol::{FieldPath, Segment};
use crate::report::Location;

use super::text::{Place, Text};

/// Where each field of a document, or of an item of its list, stands.
#[derive(Clone, Debug)]
pub struct Places {
    text: Arc<Text>,
    tree: Arc<Tree>,
    root: NodeId,
}

/// A node's position in the tree.
pub(super) type NodeId = u32;

/// The nodes of a document.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    children: Vec<Child>,
    /// The keys that are not in the text as they are in the value: escaped, converted or aliased ones.
    respelled: HashMap<u32, Box<str>>,
}

/// A value's bytes, and what is inside it.
#[derive(Clone, Copy, Debug)]
struct Node {
    span: Span,
    shape: Shape,
}

/// What is inside a node; the ranges are positions among the tree's children.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Scalar,
    Mapping(Span),
    Sequence(Span),
    Alias(NodeId),
}

/// An entry of a mapping, or an item of a sequence with an empty key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    pub(super) key: Span,
    pub(super) node: NodeId,
}

/// A range in little space: files are smaller than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

// === impl Places ===

impl Places {
    pub(super) fn new(text: Arc<Text>, tree: Tree, root: NodeId) -> Self {
        Self {
            text,
            tree: Arc::new(tree),
            root,
        }
    }

    /// The text that the places are in.
    pub fn text(&self) -> &Arc<Text> {
        &self.text
    }

    /// The text of the document, or of the item of a list, as it stands in the file: with the indentation of its first line,
    /// where nothing else but the dash of a list comes before it.
    pub fn source(&self) -> &str {
        let text = self.text.as_str();
        let node = self.tree.target(self.root);
        let Some(node) = self.tree.nodes.get(node as usize) else {
            return "";
        };
        let Range { start, end } = node.span.range();
        let before = text.get(..start).unwrap_or_default();
        let line = before
            .rfind('\n')
            .map_or(0, |newline| newline.saturating_add(1));
        let is_indent = |letter: char| matches!(letter, ' ' | '-');
        let indent = before.get(line..).unwrap_or_default();
        let start = if indent.chars().all(is_indent) {
            line
        } else {
            start
        };
        text.get(start..end).unwrap_or_default().trim_end()
    }

    /// The place of a field.
    ///
    /// A value on one line is its own place. A longer one has the place of its key, or of its first line
    /// when it is an item of a list. A field that is not there has the place of the deepest key above it.
    pub fn place(&self, field: &FieldPath) -> Place {
        self.text.place(&self.range(field))
    }

    /// The place of a field for a report.
    pub fn location(&self, field: &FieldPath) -> Location {
        self.text.location(&self.place(field))
    }

    /// Whether the field is written in the text.
    pub fn has(&self, field: &FieldPath) -> bool {
        self.walk(field).2
    }

    /// The places of an item of one of the root's lists, as if the item were the whole document.
    pub fn item(&self, list: &str, index: usize) -> Option<Self> {
        let list = self.tree.find(
            self.root,
            &Segment::Key(list.to_owned()),
            self.text.as_str(),
        )?;
        let item = self
            .tree
            .find(list.node, &Segment::Index(index), self.text.as_str())?;
        Some(Self {
            root: item.node,
            ..self.clone()
        })
    }

    fn range(&self, field: &FieldPath) -> Range<usize> {
        let source = self.text.as_str();
        let (key, node, found) = self.walk(field);
        let key = key.filter(|key| !key.is_empty());
        let Some(node) = self.tree.nodes.get(node as usize) else {
            return 0..0;
        };
        match key {
            Some(key) if !found || node.span.is_empty() || !node.is_short(source) => key.range(),
            _ => node.span.range(),
        }
    }

    /// The deepest key and node on the way to the field, and whether that is the field.
    fn walk(&self, field: &FieldPath) -> (Option<Span>, NodeId, bool) {
        let mut at = Child {
            key: Span::default(),
            node: self.root,
        };
        for segment in field.segments() {
            match self.tree.find(at.node, segment, self.text.as_str()) {
                Some(child) => at = child,
                None => return (Some(at.key), at.node, false),
            }
        }
        (Some(at.key), at.node, true)
    }
}

// === impl Tree ===

impl Tree {
    /// Adds a node.
    pub(super) fn push(&mut self, span: Span, shape: Shape) -> NodeId {
        let id = to_u32(self.nodes.len());
        self.nodes.push(Node { span, shape });
        id
    }

    /// Adds the children of one node, each with its key where the text spells it otherwise.
    pub(super) fn push_children(
        &mut self,
        children: impl Iterator<Item = (Child, Option<Box<str>>)>,
    ) -> Span {
        let start = to_u32(self.children.len());
        for (child, respelled) in children {
            if let Some(key) = respelled {
                self.respelled.insert(to_u32(self.children.len()), key);
            }
            self.children.push(child);
        }
        Span {
            start,
            end: to_u32(self.children.len()),
        }
    }

    /// The node that an alias stands for; any other node itself.
    pub(super) fn target(&self, node: NodeId) -> NodeId {
        match self.nodes.get(node as usize).map(|node| node.shape) {
            // An alias of an alias does not exist: a node is either anchored or an alias.
            Some(Shape::Alias(target)) => target,
            _ => node,
        }
    }

    /// The children of a mapping, with their keys.
    pub(super) fn entries<'t>(
        &'t self,
        node: NodeId,
        source: &'t str,
    ) -> impl Iterator<Item = (Child, &'t str)> {
        let span = match self
            .nodes
            .get(self.target(node) as usize)
            .map(|node| node.shape)
        {
            Some(Shape::Mapping(span)) => span,
            _ => Span::default(),
        };
        let children = self.children.get(span.range()).unwrap_or_default();
        (span.start..)
            .zip(children)
            .map(|(position, child)| (*child, self.key(position, *child, source)))
    }

    /// The items of a sequence.
    pub(super) fn items(&self, node: NodeId) -> &[Child] {
        match self
            .nodes
            .get(self.target(node) as usize)
            .map(|node| node.shape)
        {
            Some(Shape::Sequence(span)) => self.children.get(span.range()).unwrap_or_default(),
            _ => &[],
        }
    }

    fn find(&self, node: NodeId, segment: &Segment, source: &str) -> Option<Child> {
        match segment {
            Segment::Index(index) => self.items(node).get(*index).copied(),
            // The last of several equal keys counts.
            Segment::Key(key) => self
                .entries(node, source)
                .filter_map(|(child, name)| (name == key).then_some(child))
                .last(),
        }
    }

    fn key<'t>(&'t self, position: u32, child: Child, source: &'t str) -> &'t str {
        match self.respelled.get(&position) {
            Some(key) => key,
            None => unquoted(source.get(child.key.range()).unwrap_or_default()),
        }
    }
}

impl Node {
    /// Whether the node can be pointed at as a whole.
    fn is_short(&self, source: &str) -> bool {
        let text = source.get(self.span.range()).unwrap_or_default();
        let is_block = match self.shape {
            Shape::Scalar | Shape::Alias(_) => false,
            Shape::Mapping(_) | Shape::Sequence(_) => !text.starts_with(['{', '[']),
        };
        !is_block && !text.trim_end().contains('\n')
    }
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        let start = to_u32(start);
        Self {
            start,
            end: to_u32(end).max(start),
        }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A key's text as it would be without escapes: with its quotes off.
pub(super) fn unquoted(text: &str) -> &str {
    let mut characters = text.chars();
    match (characters.next(), characters.next_back()) {
        (Some('"'), Some('"')) | (Some('\''), Some('\'')) => characters.as_str(),
        _ => text,
    }
}

/// Texts are limited to far less than 4 GiB, and so is what is counted in them.
fn to_u32(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
