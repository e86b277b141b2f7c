//! What a name means in a module, and what a reference or a pattern is made of.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Module, Ref, Rule, RuleHead};

use super::Path;

/// What names mean in one module.
pub(super) struct Names<'m> {
    pub(super) module: &'m Module,
    package: Path,
    imports: BTreeMap<String, Option<Path>>,
}

/// One step of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Known(String),
    /// Any name: known only when it is evaluated.
    Any,
}

// === impl Names ===

impl<'m> Names<'m> {
    pub(super) fn of(module: &'m Module) -> Self {
        let imports = module
            .imports
            .iter()
            .filter_map(|import| {
                let (root, steps) = reference(&import.refr)?;
                let known: Path = std::iter::once(Step::Known(root))
                    .chain(steps)
                    .map_while(Step::known)
                    .collect();
                let alias = import
                    .r#as
                    .as_ref()
                    .map(|span| span.text().to_owned())
                    .or_else(|| known.last().cloned())?;
                let target = match known.split_first() {
                    Some((root, rest)) if root == "data" => Some(rest.to_vec()),
                    // `import input.x` and `import rego.v1` name no rule.
                    _ => None,
                };
                Some((alias, target))
            })
            .collect();
        Self {
            module,
            package: known_path(&module.package.refr),
            imports,
        }
    }

    /// The path of the rule that a definition belongs to.
    pub(super) fn path_of(&self, rule: &Rule) -> Path {
        let head = match rule {
            Rule::Spec { head, .. } => match head {
                RuleHead::Compr { refr, .. }
                | RuleHead::Set { refr, .. }
                | RuleHead::Func { refr, .. } => refr,
            },
            Rule::Default { refr, .. } => refr,
        };
        self.package
            .iter()
            .cloned()
            .chain(known_path(head))
            .collect()
    }

    /// What a reference means outside the rule that it is in: steps below `data`.
    pub(super) fn resolve(&self, root: &str, steps: &[Step]) -> Vec<Vec<Step>> {
        if root == "data" {
            return vec![steps.to_vec()];
        }
        if root == "input" {
            return Vec::new();
        }
        let below = |path: &Path| {
            path.iter()
                .cloned()
                .map(Step::Known)
                .chain(steps.iter().cloned())
                .collect()
        };
        let mut own = self.package.clone();
        own.push(root.to_owned());
        let import = self.imports.get(root).and_then(Option::as_ref);
        import
            .map(below)
            .into_iter()
            .chain(Some(below(&own)))
            .collect()
    }
}

impl Step {
    pub(super) fn known(self) -> Option<String> {
        match self {
            Self::Known(name) => Some(name),
            Self::Any => None,
        }
    }
}

/// The root and the steps of a reference; none where it does not start with a name.
pub(super) fn reference(expr: &Ref<Expr>) -> Option<(String, Vec<Step>)> {
    let mut steps = Vec::new();
    let mut inner = expr;
    loop {
        match &**inner {
            Expr::Var {
                value: Value::String(name),
                ..
            } => {
                steps.reverse();
                return Some((name.to_string(), steps));
            }
            Expr::RefDot {
                refr,
                field: (_, field),
                ..
            } => {
                steps.push(if let Value::String(name) = field {
                    Step::Known(name.to_string())
                } else {
                    Step::Any
                });
                inner = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                steps.push(match &**index {
                    Expr::String {
                        value: Value::String(name),
                        ..
                    }
                    | Expr::RawString {
                        value: Value::String(name),
                        ..
                    } => Step::Known(name.to_string()),
                    _ => Step::Any,
                });
                inner = refr;
            }
            _ => return None,
        }
    }
}

/// The path of a package or of a rule's head, up to the first step that is not known.
pub(super) fn known_path(expr: &Ref<Expr>) -> Path {
    let Some((root, steps)) = reference(expr) else {
        return Path::new();
    };
    std::iter::once(Step::Known(root))
        .chain(steps)
        .map_while(Step::known)
        .collect()
}

pub(super) fn written(root: &str, steps: &[Step]) -> String {
    let mut name = root.to_owned();
    for step in steps {
        name.push('.');
        name.push_str(if let Step::Known(step) = step {
            step
        } else {
            "_"
        });
    }
    name
}

/// The variables that a statement declares for its whole query.
pub(super) fn declared(statement: &LiteralStmt) -> Vec<String> {
    match &statement.literal {
        Literal::SomeVars { vars, .. } => vars.iter().map(|span| span.text().to_owned()).collect(),
        Literal::SomeIn { key, value, .. } => key.iter().chain([value]).flat_map(pattern).collect(),
        Literal::Expr { expr, .. } => match &**expr {
            Expr::AssignExpr {
                op: AssignOp::ColEq,
                lhs,
                ..
            } => pattern(lhs),
            _ => Vec::new(),
        },
        Literal::NotExpr { .. } | Literal::Every { .. } => Vec::new(),
    }
}

/// The variables of a pattern.
fn pattern(expr: &Ref<Expr>) -> Vec<String> {
    match &**expr {
        Expr::Var {
            value: Value::String(name),
            ..
        } => vec![name.to_string()],
        Expr::Array { items, .. } => items.iter().flat_map(pattern).collect(),
        Expr::Object { fields, .. } => fields
            .iter()
            .flat_map(|(_, _, value)| pattern(value))
            .collect(),
        _ => Vec::new(),
    }
}

pub(super) fn variables(patterns: &[Ref<Expr>]) -> BTreeSet<String> {
    patterns.iter().flat_map(pattern).collect()
}
