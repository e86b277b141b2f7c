//! `ringfence check PATH…`: judge manifests as the webhook would, before anything reaches a cluster.

use std::io::Write;
use std::time::Instant;

use anstream::ColorChoice;
use anyhow::bail;
use clap::ValueEnum;
use jiff::Timestamp;
use rayon::prelude::*;

use super::inputs::Inputs;
use super::progress::Progress;
use super::{Exit, whole};
use crate::guard::decide::{self, Context, State};
use crate::guard::engine::{Budget, PolicyInfo};
use crate::guard::finding::FindingId;
use crate::guard::registry;
use crate::k8s::folder::{Folder, Placed};
use crate::k8s::manifests;
use crate::netpol::FieldPath;
use crate::netpol::findings::Neighbourhood;
use crate::report::text::{self, Colour};
use crate::report::{self, Checked, Located, Outcome, Problem, Report, counted};

/// Arguments of `ringfence check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence check deploy/\n  \
    helm template . | ringfence check -\n  \
    kustomize build overlays/prod | ringfence check - --guardrail guardrail.yaml\n  \
    ringfence check . --output sarif > ringfence.sarif\n\n\
    Give all that belongs together in one run: a workload is held to the policies that are in the same paths.\n\
    Exit codes: 0 clean, 1 findings (see --fail-on), 2 something could not be read or judged.")]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// The form of the report.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// The mildest mode of a finding that makes the exit code 1.
    #[arg(long, value_name = "MODE", default_value = "enforce")]
    fail_on: FailOn,
}

/// The form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people, with the lines of the source.
    Text,
    /// For programs: an object with `findings`, `problems` and `summary`.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// `JUnit` XML, for test reports.
    Junit,
    /// Annotations of GitHub Actions.
    Github,
}

/// The mildest mode of a finding that makes the exit code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FailOn {
    /// What would be refused.
    Enforce,
    /// That, and what would be warned of.
    Warn,
    /// That, and what would only be recorded.
    Audit,
    /// Nothing.
    Never,
}

/// Judges everything and prints the report.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let folder = args.inputs.read()?;
    let state = args.inputs.state(&folder)?;
    let mut report = judge(&folder, &state, Timestamp::now());
    if report.objects.is_empty() && report.problems.is_empty() {
        bail!(
            "no Kubernetes objects there (read: {})",
            counted(folder.files as u64, "file")
        );
    }
    report.checks = checks(&state);
    report.elapsed = Some(started.elapsed());
    print(&report, args.output)?;
    whole::tell_unjudged(&folder);
    // A chart is no failure beside what was judged; alone it is, or a gate would be open.
    if report.objects.is_empty() && folder.charts > 0 {
        bail!("nothing was judged: a chart has to be rendered first");
    }
    Ok(args.fail_on.exit(&report))
}

/// What is known of the checks, the built-in ones first.
pub(super) fn checks(state: &State) -> Vec<PolicyInfo> {
    let built_in = registry::CHECKS.iter().map(registry::Check::info);
    built_in.chain(state.engine.registry()).collect()
}

/// Judges each object against all of them together.
pub(super) fn judge(folder: &Folder, state: &State, now: Timestamp) -> Report {
    let progress = Progress::new(folder.objects.len(), "objects judged");
    let neighbourhood = Neighbourhood::of(&state.snapshot).with(&folder.gaps());
    let context = Context {
        neighbourhood: Some(&neighbourhood),
        ..state.context()
    };
    let judged: Vec<(Checked, Option<Problem>)> = folder
        .objects
        .par_iter()
        .map(|placed| {
            let judged = one(placed, &context, now);
            progress.advance();
            judged
        })
        .collect();
    progress.finish();
    let mut report = Report {
        problems: folder
            .problems
            .iter()
            .map(manifests::Problem::report)
            .collect(),
        files: folder.files,
        passed_over: folder.passed_over,
        ..Report::default()
    };
    for (checked, problem) in judged {
        report.objects.push(checked);
        report.problems.extend(problem);
    }
    report
}

fn one(placed: &Placed, context: &Context<'_>, now: Timestamp) -> (Checked, Option<Problem>) {
    let decision = decide::judge(&placed.review, context, now, Budget::UNHURRIED);
    let location = placed.location(&FieldPath::root());
    let problem = decision.cut.map(|cut| Problem {
        id: FindingId::from(registry::FAILED_POLICY.id),
        severity: registry::FAILED_POLICY.severity,
        location: location.clone(),
        message: format!("{} could not be judged: {cut}", placed.review.object_ref()),
        help: None,
        fatal: true,
    });
    let findings = decision.judged.into_iter().map(|judged| Located {
        location: placed.location(&judged.finding.field),
        judged,
    });
    let checked = Checked {
        object: placed.review.object_ref(),
        location,
        findings: findings.collect(),
    };
    (checked, problem)
}

pub(super) fn print(report: &Report, output: Output) -> anyhow::Result<()> {
    let rendered = match output {
        Output::Text => text::render(
            report,
            &text::Style {
                colour: colour(),
                ..text::Style::default()
            },
        ),
        Output::Json => report::json::render(report)?,
        Output::Sarif => report::sarif::render(report, env!("CARGO_PKG_VERSION"))?,
        Output::Junit => report::junit::render(report)?,
        Output::Github => report::github::render(report),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(rendered.as_bytes())?;
    if !rendered.ends_with('\n') && !rendered.is_empty() {
        out.write_all(b"\n")?;
    }
    if output == Output::Github {
        // The annotations are for the machine; whoever reads the log wants to know how it ended.
        writeln!(std::io::stderr(), "{}", text::summary(report))?;
    }
    Ok(())
}

/// Colours where a person looks, unless `NO_COLOR` or the like says otherwise.
fn colour() -> Colour {
    match anstream::AutoStream::choice(&std::io::stdout()) {
        ColorChoice::Never => Colour::Never,
        ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => Colour::Always,
    }
}

// === impl FailOn ===

impl FailOn {
    /// How a run with this report ends.
    pub(super) fn exit(self, report: &Report) -> Exit {
        if report.problems.iter().any(|problem| problem.fatal) {
            return Exit::Failed;
        }
        let mildest = match self {
            Self::Enforce => Outcome::Refused,
            Self::Warn => Outcome::Warned,
            Self::Audit => Outcome::Recorded,
            Self::Never => return Exit::Clean,
        };
        let findings = report.findings().map(|(_, located)| located.outcome());
        let mut outcomes = findings.chain(report.problems.iter().map(Problem::outcome));
        if outcomes.any(|outcome| outcome >= mildest) {
            Exit::Findings
        } else {
            Exit::Clean
        }
    }
}
