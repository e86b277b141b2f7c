//! Reads the calls out of parsed policies.
//!
//! A name means, in this order: a variable of the rule, an import, a rule of the same package, a builtin. What a
//! reference may mean beyond that is taken as called: too many calls refuse a policy that could run, too few
//! overflow the stack.

use std::collections::BTreeSet;
use std::ops::Range;

use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleHead, Span};

use super::names::{Names, Step, declared, reference, variables, written};
use super::{CallGraph, Node, Path, place};
use crate::rego::builtins::{self, Access};
use crate::rego::load::Problem;

/// The one builtin that takes any number of arguments. It is for whoever writes a policy; in force it does nothing.
const PRINT: &str = "print";

/// The graph of these modules.
pub(super) fn graph(modules: &[Ref<Module>]) -> CallGraph {
    let mut graph = CallGraph::default();
    let modules: Vec<Names> = modules.iter().map(|module| Names::of(module)).collect();
    // First what there is, so that calls can be told apart from variables.
    for names in &modules {
        for rule in &names.module.policy {
            declare(&mut graph, names, rule);
        }
    }
    for names in &modules {
        for rule in &names.module.policy {
            Walker::of(&mut graph, names, rule).rule(rule);
        }
    }
    graph
}

/// Where a module calls `print`.
pub(super) fn prints(module: &Module) -> Vec<Range<usize>> {
    let mut graph = CallGraph::default();
    let names = Names::of(module);
    let mut prints = Vec::new();
    for rule in &module.policy {
        let mut walker = Walker::of(&mut graph, &names, rule);
        walker.rule(rule);
        prints.append(&mut walker.prints);
    }
    // A definition without a body of its own is walked once for each body.
    prints.sort_by_key(|range| range.start);
    prints.dedup();
    prints
}

struct Walker<'g, 'm> {
    graph: &'g mut CallGraph,
    names: &'g Names<'m>,
    from: Node,
    scopes: Vec<BTreeSet<String>>,
    statements: usize,
    prints: Vec<Range<usize>>,
}

fn declare(graph: &mut CallGraph, names: &Names<'_>, rule: &Rule) {
    let arguments = match rule {
        Rule::Spec {
            head: RuleHead::Func { args, .. },
            ..
        } => Some(args.len()),
        Rule::Default { args, .. } if !args.is_empty() => Some(args.len()),
        Rule::Spec { .. } | Rule::Default { .. } => None,
    };
    let calls = graph
        .nodes
        .entry(Node::Rule(names.path_of(rule)))
        .or_default();
    let at = place(rule.span());
    calls.files.insert(at.file.clone());
    calls.at.get_or_insert(at);
    calls.arguments = calls.arguments.or(arguments);
}

// === impl Walker ===

impl<'g, 'm> Walker<'g, 'm> {
    fn of(graph: &'g mut CallGraph, names: &'g Names<'m>, rule: &Rule) -> Self {
        let from = Node::Rule(names.path_of(rule));
        Self {
            graph,
            names,
            from,
            scopes: Vec::new(),
            statements: 0,
            prints: Vec::new(),
        }
    }

    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Default { value, args, .. } => {
                self.scopes.push(variables(args));
                self.expr(value);
                self.scopes.pop();
            }
            Rule::Spec { head, bodies, .. } => {
                let (args, refr, key, assign) = match head {
                    RuleHead::Compr { refr, assign, .. } => (&[][..], refr, None, assign.as_ref()),
                    RuleHead::Set { refr, key, .. } => (&[][..], refr, key.as_ref(), None),
                    RuleHead::Func {
                        refr, args, assign, ..
                    } => (&args[..], refr, None, assign.as_ref()),
                };
                self.scopes.push(variables(args));
                let value = assign.map(|assign| &assign.value);
                let head: Vec<&Ref<Expr>> = key.into_iter().chain(value).collect();
                if bodies.is_empty() {
                    self.head(refr, &head);
                }
                for body in bodies {
                    self.statements = 0;
                    self.within(&body.query, |walker| {
                        walker.head(refr, &head);
                        if let Some(assign) = &body.assign {
                            walker.expr(&assign.value);
                        }
                    });
                    let statements = self.statements;
                    if let Some(calls) = self.graph.nodes.get_mut(&self.from) {
                        calls.statements = calls.statements.max(statements);
                    }
                }
                self.scopes.pop();
            }
        }
    }

    /// The head of a rule: its value, its key, and what stands in the brackets of its name.
    fn head(&mut self, refr: &Ref<Expr>, values: &[&Ref<Expr>]) {
        for value in values {
            self.expr(value);
        }
        let mut refr = refr;
        loop {
            match &**refr {
                Expr::RefBrack {
                    refr: inner, index, ..
                } => {
                    self.expr(index);
                    refr = inner;
                }
                Expr::RefDot { refr: inner, .. } => refr = inner,
                _ => break,
            }
        }
    }

    /// A query, and then whatever sees its variables.
    fn within(&mut self, query: &Query, then: impl FnOnce(&mut Self)) {
        self.scopes
            .push(query.stmts.iter().flat_map(declared).collect());
        for statement in &query.stmts {
            self.statement(statement);
        }
        then(self);
        self.scopes.pop();
    }

    fn statement(&mut self, statement: &LiteralStmt) {
        self.statements = self.statements.saturating_add(1);
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn {
                key,
                value,
                collection,
                ..
            } => {
                for expr in key.iter().chain([value, collection]) {
                    self.expr(expr);
                }
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr),
            Literal::Every {
                key,
                value,
                domain,
                query,
                ..
            } => {
                self.expr(domain);
                let names = key.iter().chain([value]).map(|span| span.text().to_owned());
                self.scopes.push(names.collect());
                self.within(query, |_| {});
                self.scopes.pop();
            }
        }
        for modifier in &statement.with_mods {
            self.expr(&modifier.r#as);
            self.replacement(&modifier.span, &modifier.refr, &modifier.r#as);
        }
    }

    /// `with a as b`: where `a` is a function or builtin, whoever calls `a` may now call `b`.
    fn replacement(&mut self, span: &Span, replaced: &Ref<Expr>, by: &Ref<Expr>) {
        let Some((root, steps)) = reference(by) else {
            return;
        };
        let by_nodes = self.callees(&root, &steps);
        if let (true, Access::Refused(instead)) = (
            by_nodes.is_empty(),
            builtins::access(&written(&root, &steps)),
        ) {
            let reason = format!("`{}` may not be called: {instead}", written(&root, &steps));
            self.graph
                .problems
                .push(Problem::at(place(by.span()), reason));
        }
        let Some((root, steps)) = reference(replaced) else {
            return;
        };
        for replaced in self.callees(&root, &steps) {
            for by in &by_nodes {
                self.graph.nodes.entry(by.clone()).or_default();
                let calls = self.graph.nodes.entry(replaced.clone()).or_default();
                calls.to.entry(by.clone()).or_insert_with(|| place(span));
            }
        }
    }

    fn expr(&mut self, expr: &Ref<Expr>) {
        self.statements = self.statements.saturating_add(usize::from(matches!(
            **expr,
            Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. }
        )));
        match &**expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                for item in items {
                    self.expr(item);
                }
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expr(key);
                    self.expr(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.within(query, |walker| walker.expr(term));
            }
            Expr::ObjectCompr {
                key, value, query, ..
            } => self.within(query, |walker| {
                walker.expr(key);
                walker.expr(value);
            }),
            Expr::Call {
                span, fcn, params, ..
            } => {
                self.call(fcn, span, params.len());
                for parameter in params {
                    self.expr(parameter);
                }
            }
            Expr::UnaryExpr { expr, .. } => self.expr(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.expr(lhs);
                self.expr(rhs);
            }
            Expr::Membership {
                key,
                value,
                collection,
                ..
            } => {
                for expr in key.iter().chain([value, collection]) {
                    self.expr(expr);
                }
            }
        }
    }

    /// A reference to a value: whatever rule it may name is evaluated for it.
    fn reference(&mut self, expr: &Ref<Expr>) {
        let mut inner = expr;
        let root = loop {
            match &**inner {
                Expr::RefDot { refr, .. } => inner = refr,
                Expr::RefBrack { refr, index, .. } => {
                    self.expr(index);
                    inner = refr;
                }
                Expr::Var { .. } => break None,
                // Brackets on a value: `f(x).y`, `[1, 2][0]`.
                _ => break Some(inner),
            }
        };
        if let Some(value) = root {
            self.expr(value);
            return;
        }
        let Some((root, steps)) = reference(expr) else {
            return;
        };
        if self.is_variable(&root) {
            return;
        }
        for path in self.names.resolve(&root, &steps) {
            for called in self.matching(&path) {
                self.add(called, expr.span());
            }
        }
    }

    /// The rules that a path may name: those on the way to it and those below it.
    fn matching(&self, path: &[Step]) -> Vec<Node> {
        let known: Path = path.iter().cloned().map_while(Step::known).collect();
        let above = (1..known.len())
            .filter_map(|length| known.get(..length))
            .map(|path| Node::Rule(path.to_vec()))
            .filter(|node| self.graph.nodes.contains_key(node));
        let below = self
            .graph
            .nodes
            .range(Node::Rule(known.clone())..)
            .map(|(node, _)| node)
            .take_while(|node| matches!(node, Node::Rule(path) if path.starts_with(&known)))
            .cloned();
        above.chain(below).collect()
    }

    /// A call of a function or builtin.
    fn call(&mut self, function: &Ref<Expr>, arguments: &Span, given: usize) {
        let span = function.span();
        let Some((root, steps)) = reference(function) else {
            return;
        };
        let name = written(&root, &steps);
        let callees = self.callees(&root, &steps);
        if callees.is_empty() {
            let reason = match builtins::access(&name) {
                Access::Refused(instead) => format!("`{name}` may not be called: {instead}"),
                Access::Allowed(_) | Access::Unknown if name == PRINT => {
                    let ends = (usize::try_from(span.start), usize::try_from(arguments.end));
                    if let (Ok(start), Ok(end)) = ends {
                        self.prints.push(start..end);
                    }
                    return;
                }
                Access::Allowed(_) | Access::Unknown => match builtins::similar(&name) {
                    Some(similar) => format!(
                        "there is no function or builtin `{name}`; did you mean `{similar}`?"
                    ),
                    None => format!("there is no function or builtin `{name}`"),
                },
            };
            self.graph.problems.push(Problem::at(place(span), reason));
            return;
        }
        for callee in callees {
            let takes = match &callee {
                Node::Rule(_) => self
                    .graph
                    .nodes
                    .get(&callee)
                    .and_then(|calls| calls.arguments),
                Node::Builtin(name) => match builtins::access(name) {
                    Access::Allowed(arguments) => Some(usize::from(arguments)),
                    Access::Refused(_) | Access::Unknown => None,
                },
            };
            // One more than a function takes is where its answer goes.
            if let Some(takes) = takes
                && given != takes
                && given != takes.saturating_add(1)
            {
                let reason = format!("`{name}` takes {takes} arguments, not {given}");
                self.graph.problems.push(Problem::at(place(span), reason));
            }
            self.graph.nodes.entry(callee.clone()).or_default();
            self.add(callee, span);
        }
    }

    /// The functions or the builtin that a name in a call means.
    fn callees(&self, root: &str, steps: &[Step]) -> Vec<Node> {
        let known = |path: Vec<Step>| path.into_iter().map(Step::known).collect::<Option<Path>>();
        let rules: Vec<Node> = self
            .names
            .resolve(root, steps)
            .into_iter()
            .filter_map(known)
            .map(Node::Rule)
            .filter(|node| self.graph.nodes.contains_key(node))
            .collect();
        if !rules.is_empty() {
            return rules;
        }
        let name = written(root, steps);
        match builtins::access(&name) {
            Access::Allowed(_) => vec![Node::Builtin(name)],
            Access::Refused(_) | Access::Unknown => Vec::new(),
        }
    }

    fn add(&mut self, called: Node, span: &Span) {
        let calls = self.graph.nodes.entry(self.from.clone()).or_default();
        calls.to.entry(called).or_insert_with(|| place(span));
    }

    fn is_variable(&self, name: &str) -> bool {
        name == "_" || self.scopes.iter().any(|scope| scope.contains(name))
    }
}
