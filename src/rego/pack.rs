//! The built-in policies: embedded, compiled once, asked a section at a time in the thread that asks.
//!
//! The evaluator has two ways to run a policy. Its virtual machine takes a third of the interpreter's time, but it keeps
//! errors to itself and cannot call us back. So the machine says whether there is anything to find, which is mostly
//! no, and the interpreter says what. What the two must agree on is tested over random objects. In
//! the built-in policies `=` stands where others write `:=`: the machine goes on after `x := y` with `y` undefined.
//!
//! Answers are remembered: of the same document the built-in policies say the same.
//!
//! Sections that the guardrail does not have, and kinds that a section says nothing about, are not asked at all.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::program::Program;
use regorus::rvm::vm::RegoVM;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{CompiledPolicy, Engine, Value};
use serde_json::Value as Json;

use super::load::{LoadError, Owner, Package, PolicyFile, Problem, check};
use super::trial::Trial;
use super::value::string;
use super::{answer, builtins, input};
use crate::guard::engine::{Question, Violation};
use crate::guard::guardrail::{LabelsSection, Section};
use crate::guard::review::Operation;
use crate::netpol::WorkloadKind;
use remembered::Remembered;

mod remembered;

/// The files of `policies/`, by their paths there.
const FILES: &[(&str, &str)] = &[
    (
        "bypasses/bypasses.rego",
        include_str!("../../policies/bypasses/bypasses.rego"),
    ),
    (
        "documentation/documentation.rego",
        include_str!("../../policies/documentation/documentation.rego"),
    ),
    (
        "labels/labels.rego",
        include_str!("../../policies/labels/labels.rego"),
    ),
];
/// The cases beside them.
const CASES: &[(&str, &str)] = &[
    (
        "bypasses/bypasses.cases.yaml",
        include_str!("../../policies/bypasses/bypasses.cases.yaml"),
    ),
    (
        "documentation/documentation.cases.yaml",
        include_str!("../../policies/documentation/documentation.cases.yaml"),
    ),
    (
        "labels/labels.cases.yaml",
        include_str!("../../policies/labels/labels.cases.yaml"),
    ),
];

/// The one builtin of ours that the built-in policies call, for hints in what they have found.
const NEAR_MISS: &str = "ringfence.near_miss";
/// How many calls of it the virtual machine has answers for. More than one finding needs: one is enough to know.
const HINTS: usize = 16;
/// Most instructions of one evaluation; the time limit is reached earlier.
const MAX_INSTRUCTIONS: usize = 50_000_000;

/// The built-in policies.
pub(super) struct Pack {
    policy: CompiledPolicy,
    program: Arc<Program>,
    sections: Vec<Asked>,
    remembered: Remembered,
}

/// One section and what to ask for it.
struct Asked {
    section: Section,
    package: Package,
    engine: Engine,
    rules: Vec<Rule>,
}

/// One rule of a section.
struct Rule {
    name: &'static str,
    path: String,
    /// Its entry point in the program.
    entry: usize,
}

/// The files of the built-in policies.
pub fn files() -> Vec<PolicyFile> {
    embedded(FILES)
}

/// The cases of the built-in policies.
pub(super) fn cases() -> Vec<PolicyFile> {
    embedded(CASES)
}

fn embedded(files: &[(&str, &str)]) -> Vec<PolicyFile> {
    files
        .iter()
        .map(|(path, text)| PolicyFile {
            path: format!("policies/{path}"),
            text: (*text).to_owned(),
        })
        .collect()
}

// === impl Pack ===

impl Pack {
    /// Compiles the embedded policies.
    pub(super) fn load() -> Result<Self, LoadError> {
        let files = files();
        let fail = |error: anyhow::Error| LoadError {
            problems: vec![Problem::of_evaluator(&error, &files)],
        };
        let mut sections = Vec::new();
        let mut entries = Vec::new();
        for package in check(&files, Owner::Ringfence, &Trial::None)?.packages {
            let section = package
                .policies
                .first()
                .map_or(Section::Policies, |policy| policy.info.section);
            let mut rules = Vec::new();
            for name in package
                .entries
                .iter()
                .filter(|rule| **rule != answer::MUTATE)
            {
                let path = format!("data.{}.{name}", package.path.join("."));
                rules.push(Rule {
                    name,
                    path: path.clone(),
                    entry: entries.len(),
                });
                entries.push(path);
            }
            let engine = compile(&package.files, rules.first().map_or("", |rule| &rule.path))
                .map_err(fail)?
                .0;
            sections.push(Asked {
                section,
                package,
                engine,
                rules,
            });
        }
        let (_, policy) =
            compile(&files, entries.first().map_or("", String::as_str)).map_err(fail)?;
        let names: Vec<&str> = entries.iter().map(String::as_str).collect();
        let program =
            Compiler::compile_from_policy_with_host_await(&policy, &names, &[(NEAR_MISS, 2)])
                .map_err(|error| {
                    LoadError::new(format!("the built-in policies do not compile: {error:?}"))
                })?;
        Ok(Self {
            policy,
            program,
            sections,
            remembered: Remembered::default(),
        })
    }

    /// The policies, in the order of their files.
    pub(super) fn policies(&self) -> impl Iterator<Item = &super::load::Policy> {
        self.sections
            .iter()
            .flat_map(|asked| &asked.package.policies)
    }

    /// The sections that have something to say about a question.
    pub(super) fn sections(&self, question: &Question<'_>) -> Vec<Section> {
        if question.review.operation == Operation::Delete {
            return Vec::new();
        }
        // By the words of the object itself: one that does not parse is looked at all the same.
        let value = &question.subject.value;
        let text = |field: &str| value.get(field).and_then(Json::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let makes_pods = WorkloadKind::from_api(version, kind).is_some();
        let named = |labels: &LabelsSection| {
            labels
                .rules
                .iter()
                .any(|rule| rule.kinds.iter().any(|named| named == kind))
        };
        let concerned = |section| match section {
            Section::Bypasses => makes_pods,
            Section::Documentation => match kind {
                "NetworkPolicy" => version.starts_with("networking.k8s.io/"),
                "ClusterNetworkPolicy" | "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => {
                    version.starts_with("policy.networking.k8s.io/")
                }
                _ => false,
            },
            // Other kinds are meant where a rule names them.
            Section::Labels => {
                makes_pods || question.guardrail.spec.labels.as_ref().is_some_and(named)
            }
            _ => false,
        };
        self.sections
            .iter()
            .map(|asked| asked.section)
            .filter(|section| question.guardrail.mode_of(*section).is_some() && concerned(*section))
            .collect()
    }

    /// Asks one section.
    pub(super) fn ask(
        &self,
        section: Section,
        input: &Value,
        question: &Question<'_>,
        limit: Duration,
    ) -> Result<Vec<Violation>, String> {
        let answers = self.answers(section, input, limit)?;
        let mut violations = Vec::new();
        for ((asked, rule), answer) in self.rules(section).zip(answers.iter()) {
            let (found, wrong) =
                answer::violations(&asked.package, rule.name, answer, &question.subject.value);
            if let Some(wrong) = wrong.first() {
                return Err(wrong.to_string());
            }
            violations.extend(found);
        }
        Ok(violations)
    }

    fn rules(&self, section: Section) -> impl Iterator<Item = (&Asked, &Rule)> {
        let asked = self.sections.iter();
        let asked = asked.filter(move |asked| asked.section == section);
        asked.flat_map(|asked| asked.rules.iter().map(move |rule| (asked, rule)))
    }

    /// What each rule of a section answers.
    fn answers(
        &self,
        section: Section,
        input: &Value,
        limit: Duration,
    ) -> Result<Arc<[Value]>, String> {
        let key = remembered::Key::of(section, input);
        if let Some(answers) = key.as_ref().and_then(|key| self.remembered.answer(key)) {
            return Ok(answers);
        }
        // Here what is found depends on a builtin, not only how it is told.
        let needs_hints = section == Section::Labels && input::has_selected_labels(input);
        let answers = self.rules(section).map(|(asked, rule)| {
            let answer = catch_unwind(AssertUnwindSafe(|| {
                if !needs_hints && self.finds_nothing(rule, input, limit)? {
                    return Ok(Value::Undefined);
                }
                asked.interpret(rule, input, limit)
            }));
            answer.unwrap_or_else(|_| Err("the evaluator panicked".to_owned()))
        });
        let answers: Arc<[Value]> = answers.collect::<Result<_, String>>()?;
        if let Some(key) = key {
            self.remembered.keep(key, Arc::clone(&answers));
        }
        Ok(answers)
    }

    /// Whether the virtual machine finds nothing.
    fn finds_nothing(&self, rule: &Rule, input: &Value, limit: Duration) -> Result<bool, String> {
        let mut machine = RegoVM::new_with_policy(self.policy.clone());
        machine.load_program(self.program.clone());
        machine.set_max_instructions(MAX_INSTRUCTIONS);
        machine.set_execution_timer_config(Some(timer(limit)));
        let hints = std::iter::repeat_n(Value::Null, HINTS);
        machine.set_host_await_responses([(string(NEAR_MISS), hints)]);
        machine.set_input(input.clone());
        machine
            .set_data(Value::new_object())
            .map_err(|error| error.to_string())?;
        match machine
            .execute_entry_point_by_index(rule.entry)
            .map_err(|error| error.to_string())?
        {
            Value::Set(found) => Ok(found.is_empty()),
            // Whatever else it is, the interpreter knows better.
            _ => Ok(false),
        }
    }
}

impl Asked {
    /// What the interpreter finds.
    fn interpret(&self, rule: &Rule, input: &Value, limit: Duration) -> Result<Value, String> {
        let mut engine = self.engine.clone();
        engine.set_execution_timer_config(timer(limit));
        engine.set_input(input.clone());
        engine
            .eval_rule(rule.path.clone())
            .map_err(|error| format!("{error:#}"))
    }
}

/// An engine that is ready to be asked, and what it made of the files.
fn compile(files: &[PolicyFile], entry: &str) -> anyhow::Result<(Engine, CompiledPolicy)> {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(false);
    builtins::install_one(&mut engine, NEAR_MISS)?;
    for file in files {
        engine.add_policy(file.path.clone(), file.text.clone())?;
    }
    let policy = engine.compile_with_entrypoint(&entry.into())?;
    Ok((engine, policy))
}

/// A limit, looked at after every few steps.
pub(super) fn timer(limit: Duration) -> ExecutionTimerConfig {
    ExecutionTimerConfig {
        limit,
        check_interval: NonZeroU32::MIN.saturating_add(63),
    }
}

#[cfg(test)]
mod tests;
