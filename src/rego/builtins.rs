//! What a policy may call: which builtins there are, which are bounded, which are refused and why.
//!
//! An evaluation is cut by a timer, but the timer is only read between two steps: one call of one builtin must
//! therefore be short by itself. Builtins whose answer or work can be much larger than their arguments are replaced
//! by ones of the same name that look at the size first; those that depend on anything but their arguments are
//! refused when a policy is loaded.

mod bounded;
mod cidr;
mod cluster;
mod original;

use anyhow::{Result, bail};
use regorus::{Engine, Value};

pub(super) use cluster::{FAR, coverage, labels_of};

/// A builtin that this crate supplies, in place of the evaluator's or beside it.
struct Supplied {
    name: &'static str,
    arguments: u8,
    call: fn(&[Value]) -> Result<Value>,
}

/// A call that would cost too much; unlike other errors of builtins it always ends the evaluation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct TooMuch(String);

/// How a name that is called fares when a policy is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// May be called with this many arguments.
    Allowed(u8),
    /// May not be called; the words say what to do instead.
    Refused(&'static str),
    /// There is no such builtin.
    Unknown,
}

/// The evaluator's own builtins whose work and answer are in proportion to their arguments.
const PLAIN: &[&str] = &[
    "abs",
    "array.reverse",
    "array.slice",
    "bits.and",
    "bits.negate",
    "bits.or",
    "bits.rsh",
    "bits.xor",
    "ceil",
    "contains",
    "count",
    "endswith",
    "floor",
    "format_int",
    "glob.quote_meta",
    "graph.reachable",
    "intersection",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
    "lower",
    "max",
    "min",
    "object.get",
    "object.keys",
    "product",
    "regex.is_valid",
    "regex.match",
    "regex.template_match",
    "round",
    "semver.compare",
    "semver.is_valid",
    "sort",
    "startswith",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
    "strings.reverse",
    "substring",
    "sum",
    "trace",
    "trim",
    "trim_left",
    "trim_prefix",
    "trim_right",
    "trim_space",
    "trim_suffix",
    "type_name",
    "union",
    "upper",
];

/// Builtins of the Open Policy Agent that a policy of an admission webhook must do without.
const REFUSED: &[(&str, &str)] = &[
    (
        "http.send",
        "a policy decides from its input alone; facts about the cluster are in `input` and `ringfence.*`",
    ),
    (
        "net.lookup_ip_addr",
        "a policy decides from its input alone; it may not ask the network",
    ),
    (
        "opa.runtime",
        "a policy decides from its input alone; it may not look at the process",
    ),
    (
        "rand.intn",
        "the same request must always get the same answer",
    ),
    (
        "uuid.rfc4122",
        "the same request must always get the same answer",
    ),
    (
        "graph.reachable_paths",
        "the number of paths grows without bound; use `graph.reachable`",
    ),
    (
        "json.match_schema",
        "schemas are not available; compare fields instead",
    ),
    (
        "json.patch",
        "return the patch operations in `fix.patch` or from `mutate` instead",
    ),
    ("yaml.unmarshal", "YAML is not available; use JSON"),
    ("yaml.marshal", "YAML is not available; use JSON"),
];

/// How a called name fares.
pub(super) fn access(name: &str) -> Access {
    if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Access::Refused(instead);
    }
    if let Some(supplied) = supplied().find(|supplied| supplied.name == name) {
        return Access::Allowed(supplied.arguments);
    }
    if PLAIN.contains(&name)
        && let Some(arguments) = original::arguments(name)
    {
        return Access::Allowed(arguments);
    }
    Access::Unknown
}

/// The allowed name that looks most like `name`, for a hint.
pub(super) fn similar(name: &str) -> Option<&'static str> {
    supplied()
        .map(|supplied| supplied.name)
        .chain(PLAIN.iter().copied())
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 6)
        .min()
        .map(|(_, known)| known)
}

/// Gives an engine the supplied builtins.
pub(super) fn install(engine: &mut Engine) -> Result<()> {
    supplied().try_for_each(|supplied| supplied.install(engine))
}

/// Gives an engine one of the supplied builtins.
pub(super) fn install_one(engine: &mut Engine, name: &str) -> Result<()> {
    supplied()
        .filter(|supplied| supplied.name == name)
        .try_for_each(|supplied| supplied.install(engine))
}

impl Supplied {
    fn install(&self, engine: &mut Engine) -> Result<()> {
        let Self {
            name,
            arguments,
            call,
        } = *self;
        engine.add_extension(
            name.to_owned(),
            arguments,
            Box::new(move |args: Vec<Value>| {
                // A call with an undefined argument is undefined, as everywhere in Rego.
                if args.contains(&Value::Undefined) {
                    return Ok(Value::Undefined);
                }
                match call(&args) {
                    // As the Open Policy Agent has it: a builtin that has no answer is undefined.
                    Err(error) if !error.is::<TooMuch>() => Ok(Value::Undefined),
                    answer => answer.map_err(|error| anyhow::anyhow!("`{name}`: {error}")),
                }
            }),
        )
    }
}

fn supplied() -> impl Iterator<Item = &'static Supplied> {
    CIDR.iter()
        .chain(bounded::ALL)
        .chain(bounded::REPLACED)
        .chain(cluster::ALL)
}

const CIDR: &[Supplied] = &[
    Supplied {
        name: "net.cidr_contains",
        arguments: 2,
        call: cidr::contains,
    },
    Supplied {
        name: "net.cidr_contains_matches",
        arguments: 2,
        call: cidr::contains_matches,
    },
    Supplied {
        name: "net.cidr_expand",
        arguments: 1,
        call: cidr::expand,
    },
    Supplied {
        name: "net.cidr_intersects",
        arguments: 2,
        call: cidr::intersects,
    },
    Supplied {
        name: "net.cidr_is_valid",
        arguments: 1,
        call: cidr::is_valid,
    },
    Supplied {
        name: "net.cidr_merge",
        arguments: 1,
        call: cidr::merge,
    },
    Supplied {
        name: "net.cidr_overlap",
        arguments: 2,
        call: cidr::overlap,
    },
];

fn text(value: &Value) -> Result<&str> {
    match value {
        Value::String(text) => Ok(text),
        _ => bail!("expects a string"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plain_builtin_exists_in_the_evaluator() {
        for name in PLAIN {
            assert!(original::arguments(name).is_some(), "{name}");
        }
    }

    #[test]
    fn no_builtin_is_listed_twice() {
        let mut names: Vec<_> = supplied()
            .map(|supplied| supplied.name)
            .chain(PLAIN.iter().copied())
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_supplied_builtin_takes_as_many_arguments_as_the_one_it_replaces() {
        for supplied in supplied() {
            if let Some(arguments) = original::arguments(supplied.name) {
                assert_eq!(supplied.arguments, arguments, "{}", supplied.name);
            }
        }
    }

    #[test]
    fn every_builtin_of_the_evaluator_is_allowed_or_refused_on_purpose() {
        for name in original::names() {
            // Internal ones that no policy can name.
            if !name.starts_with("__") {
                assert_ne!(access(name), Access::Unknown, "{name}");
            }
        }
    }

    #[test]
    fn a_misspelt_builtin_gets_a_hint() {
        assert_eq!(similar("startwith"), Some("startswith"));
        assert_eq!(similar("net.cidr_contain"), Some("net.cidr_contains"));
        assert_eq!(similar("frobnicate"), None);
    }
}
