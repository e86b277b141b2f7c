//! A user's own policies: compiled once each, evaluated each by itself, within a time of its own.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use json_patch::Patch;
use regorus::{Engine, Value};
use serde_json::Value as Json;

use super::answer::Misshapen;
use super::breaker::Breaker;
use super::load::{LoadError, Owner, Package, PolicyFile, Problem, check};
use super::pack::timer;
use super::trial::Trial;
use super::{MODULE, answer, builtins};
use crate::guard::engine::Violation;

/// One package of a user's policies, ready to be asked.
pub(super) struct UserPolicy {
    pub(super) package: Package,
    pub(super) breaker: Breaker,
    engine: Engine,
}

/// What is asked of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// `deny` and `warn`.
    Violations,
    /// `mutate`.
    Mutation,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// It took too long.
    #[error("it took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// It met an error.
    #[error("{0}")]
    Failed(String),
}

/// Checks and compiles a user's policies.
pub(super) fn load(files: &[PolicyFile], trial: &Trial) -> Result<Vec<UserPolicy>, LoadError> {
    let checked = check(files, Owner::User, trial)?;
    let mut problems = Vec::new();
    let mut policies = Vec::new();
    for package in checked.packages {
        match compile(&package) {
            Ok(engine) => policies.push(UserPolicy {
                package,
                breaker: Breaker::default(),
                engine,
            }),
            Err(error) => problems.push(Problem::of_evaluator(&error, files)),
        }
    }
    LoadError::if_any(problems)?;
    Ok(policies)
}

fn compile(package: &Package) -> anyhow::Result<Engine> {
    let mut engine = engine(&package.files)?;
    engine.add_policy(format!("{MODULE}.rego"), questions(package))?;
    // Analyses everything now, so that errors are told at load and clones share the result.
    engine.compile_with_entrypoint(&format!("data.{MODULE}.{}", rule(Asked::Violations)).into())?;
    Ok(engine)
}

/// An engine with our builtins and these files, and without the calls of `print`, which nobody would read.
fn engine(files: &[PolicyFile]) -> anyhow::Result<Engine> {
    let mut engine = Engine::new();
    // As the Open Policy Agent does: a builtin that cannot answer is undefined. Limits are errors all the same.
    engine.set_strict_builtin_errors(false);
    builtins::install(&mut engine)?;
    for file in files {
        let text = super::callgraph::without_prints(&file.path, &file.text)?;
        engine.add_policy(file.path.clone(), text)?;
    }
    Ok(engine)
}

/// A module that asks the rules of a package, so that one evaluation shares what they have in common.
fn questions(package: &Package) -> String {
    let mut path = String::from("data");
    for step in &package.path {
        let _ = write!(path, "[{}]", serde_json::Value::from(step.as_str()));
    }
    let mut module = format!("package {MODULE}\n");
    for entry in &package.entries {
        let asked = if *entry == answer::MUTATE {
            Asked::Mutation
        } else {
            Asked::Violations
        };
        // A set: an undefined answer leaves it as it is.
        let _ = writeln!(
            module,
            "{} contains [\"{entry}\", {path}.{entry}]",
            rule(asked)
        );
    }
    for asked in [Asked::Violations, Asked::Mutation] {
        let _ = writeln!(module, "{} contains null if false", rule(asked));
    }
    module
}

fn rule(asked: Asked) -> &'static str {
    match asked {
        Asked::Violations => "violations",
        Asked::Mutation => "mutation",
    }
}

// === impl UserPolicy ===

impl UserPolicy {
    /// What to call it where no policy of it is meant in particular.
    pub(super) fn name(&self) -> String {
        match &self.package.policies[..] {
            [policy] => policy.info.id.to_string(),
            _ => self.package.path.join("."),
        }
    }

    /// Whether it has anything to say.
    pub(super) fn answers(&self, asked: Asked) -> bool {
        let entries = &self.package.entries;
        match asked {
            Asked::Violations => entries.contains(answer::DENY) || entries.contains(answer::WARN),
            Asked::Mutation => entries.contains(answer::MUTATE),
        }
    }

    /// What it finds, and what is wrong with the rest of its answers.
    pub(super) fn find(
        &self,
        input: Value,
        object: &Json,
        limit: Duration,
    ) -> Result<(Vec<Violation>, Vec<Misshapen>), NoAnswer> {
        let (mut violations, mut misshapen) = (Vec::new(), Vec::new());
        for (rule, answer) in self.ask(Asked::Violations, input, limit)? {
            let (found, wrong) = answer::violations(&self.package, &rule, &answer, object);
            violations.extend(found);
            misshapen.extend(wrong);
        }
        Ok((violations, misshapen))
    }

    /// What it changes about an object; none where it leaves it as it is.
    pub(super) fn change(
        &self,
        input: Value,
        object: &Json,
        limit: Duration,
    ) -> Result<Option<Patch>, NoAnswer> {
        let answers = self.ask(Asked::Mutation, input, limit)?;
        let Some((_, answer)) = answers.first() else {
            return Ok(None);
        };
        answer::mutation(answer, object).map_err(|wrong| NoAnswer::Failed(wrong.to_string()))
    }

    /// Evaluates it: the answers by rule.
    fn ask(
        &self,
        asked: Asked,
        input: Value,
        limit: Duration,
    ) -> Result<Vec<(String, Value)>, NoAnswer> {
        let mut engine = self.engine.clone();
        engine.set_execution_timer_config(timer(limit));
        engine.set_input(input);
        let rule = format!("data.{MODULE}.{}", rule(asked));
        let answer = catch_unwind(AssertUnwindSafe(|| engine.eval_rule(rule)))
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the evaluator panicked")));
        answer.map(|answers| by_rule(&answers)).map_err(|error| {
            let problem = Problem::of_evaluator(&error, &self.package.files);
            if problem.reason.contains("execution exceeded time limit") {
                NoAnswer::TimedOut(limit)
            } else {
                NoAnswer::Failed(problem.to_string())
            }
        })
    }
}

/// The answers of the module that asks: a set of pairs.
fn by_rule(answers: &Value) -> Vec<(String, Value)> {
    let Value::Set(pairs) = answers else {
        return Vec::new();
    };
    let pair = |pair: &Value| match pair {
        Value::Array(pair) => match (pair.first(), pair.get(1)) {
            (Some(Value::String(rule)), Some(answer)) => Some((rule.to_string(), answer.clone())),
            _ => None,
        },
        _ => None,
    };
    pairs.iter().filter_map(pair).collect()
}
