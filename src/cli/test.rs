//! `ringfence test PATH…`: reachability rules as scenarios, tried on manifests; each failure with the flow that shows it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use super::{Exit, style, whole, why};
use crate::guard::reachability::{
    self, Expect, Failure, ReachabilityRule, Side, Sizes, Tried, Who,
};
use crate::guard::review::Kind;
use crate::k8s::folder::{self, Folder, Placed};
use crate::k8s::manifests::Input;
use crate::k8s::yaml::Limits;
use crate::netpol::groups::Group;
use crate::netpol::{FieldPath, Snapshot};

/// Arguments of `ringfence test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence test deploy/                                  the ReachabilityRules among the manifests\n  \
    ringfence test deploy/ --scenarios rules.yaml           and those of a file\n  \
    helm template . | ringfence test - --scenarios tests/   on what a chart renders\n  \
    ringfence test policies/ --assume-pods                  where no workload is deployed yet\n\n\
    A scenario is a ReachabilityRule; its mode does not matter here. It fails when one flow is not as expected, and when an \
    end of it selects no pod. With --assume-pods a template stands in for such an end, in each namespace that it means: \
    with the labels that the end asks for and no named ports.\n\n\
    JSON is an object with `scenarios`, each with `name`, `file`, `line`, `expect`, `passed`, `pods` (`from`, `to`) and \
    `failures`, each with `id`, `field`, `message`, `why`, `flow` (`from`, `to`, `protocol`, `port`) and `steps`; and `passed` \
    and `failed`, which count them.\n\n\
    Exit codes: 0 all passed, 1 some failed, 2 something could not be read, or there are no scenarios.")]
pub struct Args {
    /// Files or folders of manifests (YAML or JSON); `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A file or folder with more scenarios.
    #[arg(long, value_name = "FILE")]
    scenarios: Vec<PathBuf>,
    /// Let templates stand in for the pods that a scenario means and that are not there.
    #[arg(long)]
    assume_pods: bool,
    /// How to print the results.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Print failures and the summary only.
    #[arg(long, short)]
    quiet: bool,
}

/// How to print the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// An object with `scenarios`, `passed` and `failed`.
    Json,
    /// For CI systems.
    Junit,
}

/// A scenario with its place.
struct Scenario<'f> {
    rule: &'f ReachabilityRule,
    placed: &'f Placed,
    file: String,
    line: usize,
}

/// A scenario that was run.
#[derive(Serialize)]
struct Ran {
    name: String,
    file: String,
    line: usize,
    expect: Expect,
    passed: bool,
    pods: Sizes,
    failures: Vec<Told>,
    /// Who was asked for, in words.
    #[serde(skip)]
    ends: String,
    #[serde(skip)]
    time: Duration,
}

/// Why it failed.
#[derive(Serialize)]
struct Told {
    id: String,
    field: String,
    message: String,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<FlowTold>,
    /// What `ringfence why` says of that flow, a line each.
    steps: Vec<String>,
    /// The same with its colours.
    #[serde(skip)]
    explained: String,
}

#[derive(Serialize)]
struct FlowTold {
    from: String,
    to: String,
    protocol: String,
    port: u16,
}

/// All results.
#[derive(Serialize)]
struct Results<'r> {
    scenarios: &'r [Ran],
    passed: usize,
    failed: usize,
}

/// Runs every scenario and prints how each fared.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let folder = read(&args.paths)?;
    let extra = read(&args.scenarios).context("--scenarios")?;
    let scenarios: Vec<Scenario<'_>> = [&folder, &extra]
        .into_iter()
        .flat_map(Scenario::all)
        .collect();
    if scenarios.is_empty() {
        bail!("no ReachabilityRule among the manifests, and none by --scenarios");
    }
    let rules: Vec<ReachabilityRule> = scenarios.iter().map(|one| one.rule.clone()).collect();
    let snapshot = if args.assume_pods {
        reachability::assume(&rules, &folder.snapshot)
    } else {
        folder.snapshot.clone()
    };
    let groups: Vec<Group> = snapshot
        .namespaces()
        .flat_map(|state| Group::of_namespace(state, &snapshot))
        .collect();
    let mut out = anstream::stdout().lock();
    let mut results: Vec<Ran> = Vec::new();
    for scenario in &scenarios {
        let ran = scenario.run(&groups, &snapshot)?;
        if args.output == Output::Text && !(args.quiet && ran.passed) {
            let is_first = results.last().is_none_or(|last| last.file != ran.file);
            tell(&mut out, &ran, is_first)?;
        }
        results.push(ran);
    }
    let passed = results.iter().filter(|ran| ran.passed).count();
    let failed = results.len() - passed;
    match args.output {
        Output::Text => summary(&mut out, passed, failed, started.elapsed())?,
        Output::Json => {
            let results = Results {
                scenarios: &results,
                passed,
                failed,
            };
            writeln!(out, "{}", serde_json::to_string_pretty(&results)?)?;
        }
        Output::Junit => writeln!(out, "{}", junit(&results).to_string()?)?,
    }
    Ok(if failed == 0 {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

/// Reads manifests; an answer about only some of them would be wrong.
fn read(paths: &[PathBuf]) -> anyhow::Result<Folder> {
    let limits = Limits::default();
    let inputs = paths.iter().map(|path| match path.to_str() {
        Some("-") => Input::read("<stdin>", std::io::stdin().lock(), &limits)
            .context("cannot read standard input"),
        Some(_) | None => Ok(Input::Path(path.clone())),
    });
    let folder = folder::read(inputs.collect::<anyhow::Result<_>>()?, &limits);
    if let Some(error) = folder.first_error() {
        return Err(error.into());
    }
    whole::tell_doubts(&folder)?;
    Ok(folder)
}

/// Who was asked for: `1 pod → 3 pods`, `outside → 3 pods`.
fn ends(rule: &ReachabilityRule, sizes: Sizes) -> String {
    let end = |side: Side, pods: usize| {
        let ends = rule.end(side);
        let outside = ends.iter().any(|who| matches!(who, Who::Outside { .. }));
        let is_only = ends.iter().all(|who| matches!(who, Who::Outside { .. }));
        match (outside, pods) {
            (true, _) if is_only => "outside".to_owned(),
            (true, pods) => format!("{pods} pods and outside"),
            (false, 1) => "1 pod".to_owned(),
            (false, pods) => format!("{pods} pods"),
        }
    };
    format!(
        "{} → {}",
        end(Side::From, sizes.from),
        end(Side::To, sizes.to)
    )
}

/// One result, below the name of its file.
fn tell(out: &mut impl Write, ran: &Ran, is_first: bool) -> anyhow::Result<()> {
    if is_first {
        writeln!(out, "{}{}{:#}", style::HEAD, ran.file, style::HEAD)?;
    }
    let (word, colour) = if ran.passed {
        ("ok  ", style::GOOD)
    } else {
        ("FAIL", style::ERROR)
    };
    writeln!(
        out,
        "  {colour}{word}{colour:#} {} {}{:?}: {}, line {}{:#}",
        ran.name,
        style::DIM,
        ran.expect,
        ran.ends,
        ran.line,
        style::DIM
    )?;
    for told in &ran.failures {
        writeln!(out, "       {}: {}", told.id, told.message)?;
        for line in told.explained.lines() {
            writeln!(out, "{}", format!("         {line}").trim_end())?;
        }
    }
    out.flush()?;
    Ok(())
}

fn summary(
    out: &mut impl Write,
    passed: usize,
    failed: usize,
    took: Duration,
) -> anyhow::Result<()> {
    let colour = if failed == 0 {
        style::GOOD
    } else {
        style::ERROR
    };
    writeln!(
        out,
        "{colour}{passed} passed, {failed} failed{colour:#} in {:.2} s",
        took.as_secs_f64()
    )?;
    Ok(())
}

fn junit(results: &[Ran]) -> quick_junit::Report {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for ran in results {
        let mut status = TestCaseStatus::success();
        if let Some(first) = ran.failures.first() {
            status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type(first.id.as_str());
            let messages: Vec<String> = ran
                .failures
                .iter()
                .map(|told| told.message.clone())
                .collect();
            status.set_message(messages.join("; "));
            let steps = ran.failures.iter().flat_map(|told| &told.steps);
            status.set_description(steps.cloned().collect::<Vec<_>>().join("\n"));
        }
        let mut case = TestCase::new(ran.name.as_str(), status);
        case.set_time(ran.time);
        suites
            .entry(&ran.file)
            .or_insert_with(|| TestSuite::new(ran.file.as_str()))
            .add_test_case(case);
    }
    let mut report = quick_junit::Report::new("ringfence test");
    report.add_test_suites(suites.into_values());
    report
}

// === impl Scenario ===

impl<'f> Scenario<'f> {
    fn all(folder: &'f Folder) -> impl Iterator<Item = Self> {
        folder.objects.iter().filter_map(|placed| {
            let Kind::ReachabilityRule(rule) = &placed.review.object.as_ref()?.parsed else {
                return None;
            };
            let location = placed.location(&FieldPath::root());
            Some(Self {
                rule,
                placed,
                file: location.file.to_string(),
                line: location.line,
            })
        })
    }

    fn run(&self, groups: &[Group], snapshot: &Snapshot) -> anyhow::Result<Ran> {
        let started = Instant::now();
        let tried = Tried::of(
            self.rule,
            &self.placed.review.object_ref(),
            groups,
            snapshot,
        );
        let failures = tried
            .failures
            .iter()
            .map(|failure| Told::of(failure, snapshot));
        Ok(Ran {
            name: self.rule.name.clone(),
            file: self.file.clone(),
            line: self.line,
            expect: self.rule.spec.expect,
            passed: tried.passed(),
            pods: tried.sizes,
            ends: ends(self.rule, tried.sizes),
            failures: failures.collect::<anyhow::Result<_>>()?,
            time: started.elapsed(),
        })
    }
}

// === impl Told ===

impl Told {
    fn of(failure: &Failure, snapshot: &Snapshot) -> anyhow::Result<Self> {
        let finding = &failure.finding;
        let mut explained = Vec::new();
        let flow = failure.flow();
        if let Some(flow) = &flow {
            why::write(&mut explained, flow, &snapshot.explain(flow))?;
        }
        let explained = String::from_utf8_lossy(&explained).into_owned();
        let plain = anstream::adapter::strip_str(&explained).to_string();
        Ok(Self {
            id: finding.id.to_string(),
            field: finding.field.to_string(),
            message: finding.message.clone(),
            why: finding.why.clone(),
            flow: flow.map(|flow| FlowTold {
                from: flow.from.to_string(),
                to: flow.to.to_string(),
                protocol: flow.protocol.to_string(),
                port: flow.port.get(),
            }),
            steps: plain
                .lines()
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            explained,
        })
    }
}
