//! `ringfence diff OLD NEW`: what opens and what closes between two sets of manifests.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};

use super::{Exit, whole};
use crate::k8s::folder::{self, Folder};
use crate::k8s::manifests::Input;
use crate::k8s::yaml::Limits;
use crate::netpol::reach::Diff;
use crate::netpol::{Reachability, Snapshot};
use crate::report::diff::{Comparison, Counts};

mod revision;

/// Arguments of `ringfence diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        ringfence diff main:deploy deploy              the work tree against a branch\n  \
        ringfence diff main:deploy HEAD:deploy         two revisions; the work tree is not touched\n  \
        ringfence diff rendered/before rendered/after --fail-on opened\n  \
        ringfence diff origin/main:deploy deploy --output markdown > comment.md\n  \
        helm template . | ringfence diff before.yaml -\n\n\
        REVISION:PATH is as in `git show`: a branch, tag or commit, and a path from the top of the repository\n\
        (`main:deploy`, all of it: `main:`) or from here (`main:./deploy`). A file or folder that is there goes first.\n\n\
        Connections are told for workloads that are in both; those that are new or gone are told by themselves, with how\n\
        much they have open. A workload's pods are one: a port is open where some pod of the one reaches some pod of the other.\n\n\
        JSON: an object with `opened` and `closed`, lists of `from` and `to` (`kind`, `namespace`, `name`; or `cidr`) and\n\
        `ports`, a list of `protocol` and `ports` (\"9000\", \"80-90\" or \"all\"); `added` and `removed` workloads; `isolation`;\n\
        `summary`.\n\n\
        Exit codes: 0 done, 1 there is what --fail-on asks for, 2 something could not be read.")]
pub struct Args {
    /// What was: a file or folder of manifests (YAML or JSON), REVISION:PATH of git, or `-` for standard input.
    #[arg(value_name = "OLD")]
    old: String,
    /// What is, in the same way.
    #[arg(value_name = "NEW")]
    new: String,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Make the exit code 1 where this is found. New workloads that have connections count as opened, gone ones that had
    /// some as closed.
    #[arg(long, value_name = "WHAT", value_enum)]
    fail_on: Option<FailOn>,
}

/// The forms of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For programs; stable, every connection by itself.
    Json,
    /// For a comment on a pull request; bounded.
    Markdown,
}

/// What makes the exit code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Something opens.
    Opened,
    /// Something closes.
    Closed,
    /// There is any difference, of isolation as well.
    Any,
}

/// Prints the differences.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.old == "-" && args.new == "-" {
        bail!("only one of OLD and NEW can be standard input");
    }
    let old = read(&args.old).context("OLD")?;
    let new = read(&args.new).context("NEW")?;
    if old.pods().next().is_none() && new.pods().next().is_none() {
        bail!("{}: give the workloads with the policies", whole::NOBODY);
    }
    let (old, new) = (Reachability::of(&old), Reachability::of(&new));
    let diff = Diff::of(&old, &new);
    let comparison = Comparison {
        old: &args.old,
        new: &args.new,
        diff: &diff,
    };
    let mut out = io::BufWriter::new(anstream::stdout().lock());
    let counts = match args.output {
        Form::Text => comparison.text(&mut out)?,
        Form::Json => comparison.json(&mut out)?,
        Form::Markdown => {
            let (text, counts) = comparison.markdown();
            out.write_all(text.as_bytes())?;
            counts
        }
    };
    out.flush()?;
    Ok(match args.fail_on {
        Some(what) if what.is_found(counts) => Exit::Findings,
        Some(_) | None => Exit::Clean,
    })
}

/// Reads one side, of which everything must be good.
fn read(side: &str) -> anyhow::Result<Snapshot> {
    let limits = Limits::default();
    let path = Path::new(side);
    let folder = if side == "-" {
        let input = Input::read("<stdin>", io::stdin().lock(), &limits);
        folder::read(vec![input.context("cannot read standard input")?], &limits)
    } else if path.exists() || !side.contains(':') {
        folder::read(vec![Input::Path(path.to_owned())], &limits)
    } else {
        revision::read(side, &limits)?
    };
    if let Some(hint) = hint(side, &folder) {
        bail!("{hint}");
    }
    let is_empty = folder.objects.is_empty();
    let snapshot = whole::snapshot(folder)?;
    if is_empty {
        bail!("{side}: no Kubernetes objects there");
    }
    Ok(snapshot)
}

/// What is to be said to whoever names a revision alone.
fn hint(side: &str, folder: &Folder) -> Option<String> {
    let is_there = side == "-" || side.contains(':') || Path::new(side).exists();
    (!is_there && folder.objects.is_empty()).then(|| {
        format!("{side}: there is no such file or folder; a revision of git is written with a path: {side}:PATH")
    })
}

// === impl FailOn ===

impl FailOn {
    fn is_found(self, counts: Counts) -> bool {
        match self {
            Self::Opened => counts.opens(),
            Self::Closed => counts.closes(),
            Self::Any => !counts.is_nothing(),
        }
    }
}
