//! The evaluator's own builtins, called from the ones that stand before them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use anyhow::{Context as _, Result, anyhow};
use regorus::Value;
use regorus::unstable::{BUILTINS, Expr, Ref, Source, Span};

/// A call's place in the policy is added by the evaluator; until then errors point here.
struct Nowhere {
    span: Span,
    parameters: Vec<Ref<Expr>>,
}

/// More than any builtin has.
const MOST_ARGUMENTS: usize = 5;

static NOWHERE: LazyLock<Option<Nowhere>> = LazyLock::new(|| {
    let source = Source::from_contents(String::new(), String::from(" ")).ok()?;
    let span = Span {
        source,
        line: 1,
        col: 1,
        start: 0,
        end: 1,
    };
    let parameter = || {
        Ref::new(Expr::Null {
            span: span.clone(),
            value: Value::Null,
            eidx: 0,
        })
    };
    Some(Nowhere {
        parameters: std::iter::repeat_with(parameter)
            .take(MOST_ARGUMENTS)
            .collect(),
        span,
    })
});

/// How many arguments a builtin of the evaluator takes.
pub(super) fn arguments(name: &str) -> Option<u8> {
    BUILTINS.get(name).map(|(_, arguments)| *arguments)
}

/// The names of all builtins of the evaluator.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    BUILTINS.keys().copied()
}

/// Calls a builtin of the evaluator.
pub(super) fn call(name: &str, args: &[Value]) -> Result<Value> {
    let (function, _) = BUILTINS.get(name).context("no such builtin")?;
    let nowhere = NOWHERE.as_ref().context("no place to call from")?;
    // Some panic at arguments that nobody thought of; such a call has no answer.
    let answer = catch_unwind(AssertUnwindSafe(|| {
        function(&nowhere.span, &nowhere.parameters, args, true)
    }));
    let answer = answer.unwrap_or_else(|_| Err(anyhow!("it cannot answer")));
    answer.map_err(|error| {
        let text = error.to_string();
        match text.rsplit_once("error: ") {
            Some((_, reason)) => anyhow!("{}", reason.trim()),
            None => error,
        }
    })
}
