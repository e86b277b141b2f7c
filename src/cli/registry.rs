//! `ringfence registry PATH…`: every policy with who answers for it, what it is for and what it opens.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::json;

use super::inputs::Inputs;
use super::{Exit, check, digest, outputs, whole};
use crate::guard::decide::State;
use crate::guard::register::{Register, Source};
use crate::guard::review::Subject;
use crate::k8s::folder::{Folder, Placed};
use crate::netpol::{FieldPath, Object, ObjectKey};
use crate::report::{self, counted, register};

/// Arguments of `ringfence registry`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence registry deploy/\n  \
    ringfence registry deploy/ --output html > registry.html\n  \
    ringfence registry deploy/ --evidence audit/\n\n\
    Owner, purpose and day of review are the annotations that the Guardrail's `documentation` names. The controls that a \
    policy serves are its annotation `ringfence.dev/controls`, separated by commas: \"PCI DSS 1.3.1, SOC 2 CC6.6\".\n\n\
    Evidence has the text of each policy as it was read, and SHA256SUMS of all files. Note the digest that is printed where nobody \
    who can alter the folder can alter it; `sha256sum --check SHA256SUMS` tells whether a file was altered.\n\n\
    JSON: an object with `at`, `policies`, `cluster` (policies of the whole cluster), `namespaces` (coverage) and `exemptions`.")]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// How to print it.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Form::Markdown)]
    output: Form,
    /// Export everything for an auditor into a folder of the day below this one: the register in all formats, and the
    /// results of `check`.
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    evidence: Option<PathBuf>,
    /// Write over evidence that is there already.
    #[arg(long, requires = "evidence")]
    force: bool,
    /// The moment of which it tells, such as `2027-01-31T12:00:00Z`. Without it: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Tables, a section for each namespace.
    Markdown,
    /// For programs; stable.
    Json,
    /// One page that needs nothing else, to be read and printed.
    Html,
}

/// Prints the register, or exports it.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let folder = args.inputs.read()?;
    if let Some(error) = folder.first_error() {
        return Err(error.into());
    }
    whole::tell_doubts(&folder)?;
    let snapshot = &folder.snapshot;
    if snapshot.policies().next().is_none() && snapshot.cluster_policies().next().is_none() {
        bail!(
            "there is no network policy (read: {})",
            counted(folder.files as u64, "file")
        );
    }
    let state = args.inputs.state(&folder)?;
    // To the second: nobody reads more of it.
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    let at = args.at.unwrap_or(now);
    let register = Register::of(
        &state.snapshot,
        &state.guardrails,
        &state.exemptions,
        &sources(&folder),
        at,
    );
    if let Some(below) = &args.evidence {
        return export(&register, &folder, &state, below, args.force);
    }
    let text = match args.output {
        Form::Markdown => register::markdown(&register),
        Form::Json => register::json(&register)?,
        Form::Html => register::html::page(&register),
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Clean)
}

/// The policies in the order in which they were read, with their texts; of two manifests of one name the later counts.
fn policies(folder: &Folder) -> BTreeMap<ObjectKey, &Placed> {
    let placed = folder.objects.iter().filter_map(|placed| {
        let object = placed.review.subject().and_then(Subject::model)?;
        let is_policy = matches!(
            object,
            Object::NetworkPolicy(_) | Object::ClusterNetworkPolicy(_)
        );
        is_policy.then(|| (object.key(), placed))
    });
    placed.collect()
}

/// Where each policy stands, and the digest of its text.
fn sources(folder: &Folder) -> BTreeMap<ObjectKey, Source> {
    let placed = policies(folder).into_iter().map(|(key, placed)| {
        let location = placed.location(&FieldPath::root());
        let source = Source {
            location: format!("{}:{}", location.file, location.line),
            digest: format!("sha256:{}", digest::sha256(placed.places.source())),
        };
        (key, source)
    });
    placed.collect()
}

/// The texts of all policies, as files of the evidence.
fn texts(folder: &Folder) -> Vec<(String, String)> {
    let placed = policies(folder).into_values().map(|placed| {
        let object = placed.review.object_ref();
        let name = match &object.namespace {
            Some(namespace) => format!("{namespace}.{}", object.name),
            None => object.name,
        };
        let file = format!("policies/{}.{name}.yaml", object.kind);
        (file, placed.places.source().to_owned())
    });
    placed.collect()
}

/// Writes what an auditor asks for.
fn export(
    register: &Register,
    folder: &Folder,
    state: &State,
    below: &Path,
    force: bool,
) -> anyhow::Result<Exit> {
    let mut findings = check::judge(folder, state, register.at);
    findings.checks = check::checks(state);
    let summary = findings.summary();
    let named = |name: &str, text: String| (name.to_owned(), text);
    let about = json!({
        "at": register.at,
        "program": format!("ringfence {}", env!("CARGO_PKG_VERSION")),
        "files": {
            "registry.html": "every policy: owner, purpose, what it opens, day of review, controls; to be read and printed",
            "registry.md": "the same as tables",
            "registry.json": "the same for programs, with coverage and exemptions",
            "findings.json": "what `ringfence check` finds in the same manifests",
            "policies/": "the text of each policy as it was read, whose digest is in the register",
            "SHA256SUMS": "the digest of each of these files, for `sha256sum --check`",
        },
        "policies": register.policies.len() + register.cluster.len(),
        "reviewsOverdue": register.overdue(),
        "withoutOwnerOrPurpose": register.undocumented(),
        "findings": summary,
        "guardrails": state.guardrails.into_iter().map(|guardrail| guardrail.name.as_str()).collect::<Vec<&str>>(),
    });
    let mut files = vec![
        named(
            "evidence.json",
            format!("{}\n", serde_json::to_string_pretty(&about)?),
        ),
        named("registry.html", register::html::page(register)),
        named("registry.md", register::markdown(register)),
        named("registry.json", register::json(register)?),
        named("findings.json", report::json::render(&findings)?),
    ];
    files.extend(texts(folder));
    let sums = digest::sums(&files);
    let whole = digest::sha256(&sums);
    files.push(named("SHA256SUMS", sums));
    let day = register.at.strftime("%Y-%m-%d").to_string();
    let into = below.join(format!("ringfence-evidence-{day}"));
    outputs::write(&into, &files, force).context("--evidence")?;
    writeln!(
        anstream::stderr().lock(),
        "{} written to {}; sha256 of SHA256SUMS, to be noted elsewhere: {whole}",
        counted(files.len() as u64, "file"),
        into.display()
    )?;
    Ok(if findings.problems.iter().any(|problem| problem.fatal) {
        Exit::Failed
    } else {
        Exit::Clean
    })
}
