//! Who calls whom in a set of policies, looked at before anything is evaluated.
//!
//! Rego forbids recursion, but the evaluator overflows its stack on a recursive function instead of saying so. So
//! recursion is refused here: of functions and rules, direct and in a circle, through `with`, through references into
//! `data` and from within comprehensions. Where a reference is not known until it is evaluated (`data.teams[x]`),
//! everything that it could mean counts. Chains that are too long for a stack, calls of builtins that are
//! refused and calls of functions that do not exist are found on the way.

mod names;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Context as _;
use regorus::Engine;
use regorus::unstable::{Expr, Module, Ref, Span};

use super::load::Problem;

pub(super) use super::load::Place;

/// Most statements that may be under way inside one another, along the longest chain of calls.
const MAX_CHAIN: usize = 2_000;

/// A rule or function, all its definitions together, by its path: `["shop", "deny"]` for `data.shop.deny`.
pub(super) type Path = Vec<String>;

/// What is called, or could be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    /// A rule or function of a policy.
    Rule(Path),
    /// A builtin; only what replaces it by `with` makes it call anything.
    Builtin(String),
}

/// The calls of a set of policies.
#[derive(Debug, Default)]
pub(super) struct CallGraph {
    nodes: BTreeMap<Node, Calls>,
    problems: Vec<Problem>,
}

/// What one node calls, and where.
#[derive(Debug, Default)]
struct Calls {
    /// The largest number of statements of one body, those of its comprehensions included.
    statements: usize,
    /// What is called, each with the place of the first call.
    to: BTreeMap<Node, Place>,
    /// The files that it is defined in.
    files: BTreeSet<String>,
    /// Where it is first defined.
    at: Option<Place>,
    /// The number of arguments of a function.
    arguments: Option<usize>,
}

// === impl CallGraph ===

impl CallGraph {
    /// The calls of these modules.
    pub(super) fn of(modules: &[Ref<Module>]) -> Self {
        walk::graph(modules)
    }

    /// Everything that is wrong with the calls.
    pub(super) fn problems(mut self) -> Vec<Problem> {
        let (order, rest) = self.sorted();
        if let Some(problem) = self.circle(&rest) {
            self.problems.push(problem);
        } else if let Some(problem) = self.long_chain(&order) {
            self.problems.push(problem);
        }
        self.problems
    }

    /// Whether a rule of this path exists, and whether it is a function.
    pub(super) fn rule(&self, path: &[String]) -> Option<IsFunction> {
        let calls = self.nodes.get(&Node::Rule(path.to_vec()))?;
        Some(if calls.arguments.is_some() {
            IsFunction::Yes
        } else {
            IsFunction::No
        })
    }

    /// Where a rule is first defined.
    pub(super) fn place(&self, path: &[String]) -> Option<&Place> {
        self.nodes.get(&Node::Rule(path.to_vec()))?.at.as_ref()
    }

    /// The files that are needed to evaluate the rules of a package.
    pub(super) fn files_of(&self, package: &[String]) -> BTreeSet<String> {
        let mut open: Vec<&Node> = self
            .nodes
            .keys()
            .filter(|node| matches!(node, Node::Rule(path) if path.starts_with(package)))
            .collect();
        let mut seen: BTreeSet<&Node> = open.iter().copied().collect();
        let mut files = BTreeSet::new();
        while let Some(calls) = open.pop().and_then(|node| self.nodes.get(node)) {
            files.extend(calls.files.iter().cloned());
            open.extend(calls.to.keys().filter(|called| seen.insert(called)));
        }
        files
    }

    /// The nodes such that each comes after all that it calls, and those for which there is no such order.
    fn sorted(&self) -> (Vec<&Node>, BTreeSet<&Node>) {
        let mut callers: BTreeMap<&Node, Vec<&Node>> = BTreeMap::new();
        let mut open: BTreeMap<&Node, usize> = BTreeMap::new();
        for (node, calls) in &self.nodes {
            open.insert(node, calls.to.len());
            for called in calls.to.keys() {
                callers.entry(called).or_default().push(node);
            }
        }
        let mut ready: Vec<&Node> = open
            .iter()
            .filter(|(_, calls)| **calls == 0)
            .map(|(node, _)| *node)
            .collect();
        let mut order = Vec::new();
        while let Some(node) = ready.pop() {
            open.remove(node);
            order.push(node);
            for caller in callers.get(node).into_iter().flatten() {
                if let Some(calls) = open.get_mut(caller) {
                    *calls = calls.saturating_sub(1);
                    if *calls == 0 {
                        ready.push(caller);
                    }
                }
            }
        }
        (order, open.into_keys().collect())
    }

    /// A circle among nodes that have no order.
    fn circle(&self, rest: &BTreeSet<&Node>) -> Option<Problem> {
        // Some of the rest only call into a circle. Following calls that stay in the rest ends in one.
        let mut way: Vec<&Node> = vec![rest.first()?];
        let start = loop {
            let last = way.last()?;
            let next = self
                .nodes
                .get(*last)?
                .to
                .keys()
                .find(|called| rest.contains(called))?;
            if let Some(start) = way.iter().position(|node| *node == next) {
                break start;
            }
            way.push(next);
        };
        let circle = way.get(start..)?;
        let (first, second) = (circle.first()?, circle.get(1).or(circle.first())?);
        let place = self.nodes.get(*first)?.to.get(*second)?.clone();
        let mut reason = format!("{first} depends on itself");
        if circle.len() > 1 {
            reason.push_str(": ");
            for node in circle {
                let _ = write!(reason, "{node} -> ");
            }
            let _ = write!(reason, "{first}");
        }
        reason.push_str("; recursion is not allowed in Rego");
        Some(Problem::at(place, reason))
    }

    /// A chain of calls that is too long for a stack.
    fn long_chain(&self, order: &[&Node]) -> Option<Problem> {
        let mut lengths: BTreeMap<&Node, usize> = BTreeMap::new();
        for node in order {
            let calls = self.nodes.get(*node)?;
            let below = calls
                .to
                .keys()
                .filter_map(|called| lengths.get(called))
                .max()
                .copied()
                .unwrap_or(0);
            let length = below.saturating_add(calls.statements).saturating_add(1);
            if length > MAX_CHAIN {
                let place = calls.at.clone()?;
                return Some(Problem::at(
                    place,
                    format!(
                        "{node} is the start of a chain of calls with more than {MAX_CHAIN} statements"
                    ),
                ));
            }
            lengths.insert(node, length);
        }
        None
    }
}

/// Whether a rule takes arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsFunction {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule(path) => write!(f, "`data.{}`", path.join(".")),
            Self::Builtin(name) => write!(f, "`{name}`"),
        }
    }
}

/// The path of a module's package below `data`.
pub(super) fn package(module: &Module) -> Path {
    names::known_path(&module.package.refr)
}

/// The path of a rule's head in its package.
pub(super) fn path(head: &Ref<Expr>) -> Path {
    names::known_path(head)
}

/// A policy without its calls of `print`: `true` stands in their place, so that all places stay as they are.
pub(super) fn without_prints(file: &str, text: &str) -> anyhow::Result<String> {
    if !text.contains("print") {
        return Ok(text.to_owned());
    }
    let mut engine = Engine::new();
    engine.add_policy(file.to_owned(), text.to_owned())?;
    let module = engine
        .get_modules()
        .first()
        .context("the policy has no module")?;
    let mut silent = text.to_owned();
    for range in walk::prints(module) {
        let call = text
            .get(range.clone())
            .context("a call is outside of the text")?;
        let mut blank = String::from("true");
        blank.extend(
            call.chars()
                .skip(4)
                .map(|letter| if letter.is_whitespace() { letter } else { ' ' }),
        );
        // As many bytes as before, so that the places of other calls on the line stay.
        let spaces = call.len().saturating_sub(blank.len());
        blank.extend(std::iter::repeat_n(' ', spaces));
        silent.replace_range(range, &blank);
    }
    Ok(silent)
}

/// The place of a piece of a policy. The evaluator counts a tab as four columns; editors do not.
pub(super) fn place(span: &Span) -> Place {
    let before = usize::try_from(span.start)
        .ok()
        .and_then(|start| span.source.contents().get(..start));
    let column = before
        .map(|text| {
            text.chars()
                .rev()
                .take_while(|letter| *letter != '\n')
                .count()
        })
        .and_then(|column| u32::try_from(column).ok());
    Place {
        file: span.source.get_path().clone(),
        line: span.line,
        column: column.map_or(span.col, |column| column.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests;
