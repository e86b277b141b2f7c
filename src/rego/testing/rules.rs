//! Rules whose names begin with `test_`, as `opa test` runs them: true passes, anything else does not.

use std::time::{Duration, Instant};

use regorus::unstable::{Rule, RuleHead};
use regorus::{Engine, Value};

use super::TestResult;
use crate::rego::callgraph::{self, CallGraph};
use crate::rego::context::{self, Context};
use crate::rego::load::{LoadError, PolicyFile, Problem};
use crate::rego::pack::timer;
use crate::rego::{builtins, samples};

/// How long one test may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Runs the rules of these files.
pub(super) fn run(files: &[PolicyFile], tell: &mut dyn FnMut(TestResult)) -> Result<(), LoadError> {
    let fail = |error: anyhow::Error| LoadError {
        problems: vec![Problem::of_evaluator(&error, files)],
    };
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(false);
    engine.set_gather_prints(true);
    builtins::install(&mut engine).map_err(fail)?;
    for file in files {
        engine
            .add_policy(file.path.clone(), file.text.clone())
            .map_err(fail)?;
    }
    let tests = tests(&mut engine);
    let Some((first, _)) = tests.first() else {
        return Ok(());
    };
    LoadError::if_any(CallGraph::of(engine.get_modules()).problems())?;
    engine
        .compile_with_entrypoint(&rule_path(first).into())
        .map_err(fail)?;
    engine.set_execution_timer_config(timer(LIMIT));

    // The builtins `ringfence.*` know a small cluster; other answers come by `with` or in a file of cases.
    let samples = samples::Samples::new().map_err(|error| LoadError::new(error.to_string()))?;
    let Some((_, question)) = samples.questions().next() else {
        return Ok(());
    };
    let _entered = context::enter(Context {
        snapshot: question.snapshot.clone(),
        now: question.now,
    });
    for (path, place) in tests {
        let mut engine = engine.clone();
        let start = Instant::now();
        let answer = engine.eval_rule(rule_path(&path));
        let time = start.elapsed();
        let failures = match answer {
            Ok(Value::Bool(true)) => Vec::new(),
            Ok(Value::Undefined) => {
                vec!["the rule is undefined: one of its conditions does not hold".to_owned()]
            }
            Ok(other) => vec![format!("the rule is {other}, not true")],
            Err(error) => vec![Problem::of_evaluator(&error, files).to_string()],
        };
        tell(TestResult {
            file: place.file,
            line: place.line,
            name: path.join("."),
            failures,
            prints: engine.take_prints().unwrap_or_default(),
            time,
        });
    }
    Ok(())
}

/// The paths of the tests and where they are, each once however many definitions it has.
fn tests(engine: &mut Engine) -> Vec<(Vec<String>, callgraph::Place)> {
    let mut tests: Vec<(Vec<String>, callgraph::Place)> = Vec::new();
    for module in engine.get_modules() {
        for rule in &module.policy {
            let Rule::Spec {
                span,
                head: RuleHead::Compr { refr, .. },
                ..
            } = &**rule
            else {
                continue;
            };
            let mut path = callgraph::package(module);
            path.extend(callgraph::path(refr));
            let is_test = path.last().is_some_and(|name| name.starts_with("test_"));
            if is_test && !tests.iter().any(|(known, _)| *known == path) {
                tests.push((path, callgraph::place(span)));
            }
        }
    }
    tests
}

fn rule_path(path: &[String]) -> String {
    path.iter().fold(String::from("data"), |text, step| {
        text + "[" + &serde_json::Value::from(step.as_str()).to_string() + "]"
    })
}
