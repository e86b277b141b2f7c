//! `ringfence audit`: judge what a cluster holds already, from wherever its API server can be reached.

use std::collections::BTreeSet;
use std::mem::ManuallyDrop;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use jiff::Timestamp;
use kube::Client;
use rayon::prelude::*;

use super::check::{self, FailOn};
use super::cluster::ClusterArgs;
use super::inputs::Demands;
use super::progress::Progress;
use super::recorded::Beside;
use super::{Exit, one_thread};
use crate::guard::access::Scope;
use crate::guard::audit::{self, Baselines, Templates};
use crate::guard::decide::{Context, Decision, State};
use crate::guard::engine::Budget;
use crate::guard::finding::FindingId;
use crate::guard::guardrail::Guardrails;
use crate::guard::mode::Mode;
use crate::guard::registry;
use crate::guard::review::Review;
use crate::k8s::list::{self, Cluster};
use crate::netpol::NamespaceName;
use crate::netpol::findings::Neighbourhood;
use crate::report::access::Access;
use crate::report::policy_report::{Form, RESULTS, Reports};
use crate::report::{self, Checked, Located, Location, Place, Problem, Report, yaml};

/// Arguments of `ringfence audit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence audit --kubeconfig ~/.kube/config\n  \
    ringfence audit --context prod --namespace shop --as enforce\n  \
    ringfence audit --context prod --guardrail guardrail.yaml --output json > audit.json\n  \
    ringfence audit --context prod --output policy-report\n  \
    ringfence audit --context prod --flows flows.jsonl      which flows that were seen the baselines to come would cut\n  \
    ringfence audit --context prod --access                 who may change what isolation rests on\n\n\
    Reads only; everything is listed once, in pages. What pods have from their template is said of the workload that \
    owns them. Recorded flows are in a format that `ringfence replay` reads.\n\
    Exit codes: 0 clean, 1 findings (see --fail-on), 2 something could not be read or judged.")]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    demands: Demands,
    #[command(flatten)]
    seen: Beside,
    /// Tell of these namespaces only. Without it: of all, and of what belongs to none.
    #[arg(long, short, value_name = "NAME")]
    namespace: Vec<String>,
    /// Judge as if every guardrail were in this mode; sections with a mode of their own keep it.
    #[arg(long = "as", value_name = "MODE", ignore_case = true)]
    mode: Option<AsMode>,
    /// Tell instead who may write network policies, namespace labels, Exemptions, Guardrails and the webhook's
    /// registration, or may get past them, by the roles and bindings of the cluster.
    #[arg(long, conflicts_with_all = ["mode", "guardrail", "policies", "flows"])]
    access: bool,
    /// With --access: the subjects of Kubernetes itself as well.
    #[arg(long, requires = "access")]
    all: bool,
    /// The form of the report.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// The mildest mode of a finding that makes the exit code 1.
    #[arg(long, value_name = "MODE", default_value = "enforce")]
    fail_on: FailOn,
}

/// The form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs: an object with `findings`, `problems` and `summary`.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// `JUnit` XML, for test reports.
    Junit,
    /// Annotations of GitHub Actions.
    Github,
    /// The `PolicyReport`s that the controller would write, as YAML.
    PolicyReport,
    /// The same as `Report`s of `OpenReports`.
    OpenReport,
    /// Tables in Markdown, of --access alone.
    Markdown,
}

/// What becomes of the findings.
enum Shape {
    /// They are told one by one.
    Findings(check::Output),
    /// They are put into a report for each namespace.
    Reports(Form),
}

/// A mode, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AsMode {
    /// Record.
    Audit,
    /// Warn.
    Warn,
    /// Refuse.
    Enforce,
}

/// One object with what was decided about it.
pub(super) struct Held<'r> {
    /// The object.
    pub(super) review: &'r Review,
    /// What was decided, less what was said of its owner.
    pub(super) decision: Decision,
    /// How many findings were said of its owner.
    pub(super) alike: usize,
}

/// Reads the cluster, judges everything and prints the report.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.access {
        return access(args);
    }
    let form = match args.output {
        Output::Text => Shape::Findings(check::Output::Text),
        Output::Json => Shape::Findings(check::Output::Json),
        Output::Sarif => Shape::Findings(check::Output::Sarif),
        Output::Junit => Shape::Findings(check::Output::Junit),
        Output::Github => Shape::Findings(check::Output::Github),
        Output::PolicyReport => Shape::Reports(Form::PolicyReport),
        Output::OpenReport => Shape::Reports(Form::OpenReport),
        Output::Markdown => bail!("--output markdown is for --access"),
    };
    let recorded = args.seen.read()?;
    let started = Instant::now();
    // The process ends with the report: to take a large cluster apart before that is time for nothing.
    let cluster = ManuallyDrop::new(read(&args.cluster)?);
    let mut state = ManuallyDrop::new(args.demands.state_of(&cluster)?);
    if let Some(mode) = args.mode {
        state.guardrails = in_mode(&state.guardrails, mode.into())?;
    }
    let wanted: BTreeSet<NamespaceName> = args
        .namespace
        .iter()
        .map(|name| name.as_str().into())
        .collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|name| state.snapshot.namespace(name).is_none())
    {
        bail!("--namespace: the cluster has no namespace {unknown}");
    }
    let is_wanted = |review: &&Review| {
        wanted.is_empty()
            || review
                .namespace
                .as_ref()
                .is_some_and(|name| wanted.contains(name))
    };
    let reviews: Vec<&Review> = cluster.reviews.iter().filter(is_wanted).collect();
    let mut baselines = Baselines::of(&state.context());
    if let Some(recorded) = &recorded {
        let (flows, cluster) = (&recorded.observations, &args.seen.cluster_cidr);
        baselines = baselines.seen(flows, &state.context(), cluster);
    }
    let held = judge(&reviews, &state, &baselines, Timestamp::now());
    let mut report = report(&held);
    report.cuts = baselines.observed().map(|observed| {
        let mut observed = observed.clone();
        let is_wanted = |name: &NamespaceName| wanted.is_empty() || wanted.contains(name);
        observed.namespaces.retain(|name, _| is_wanted(name));
        observed
    });
    report.checks = check::checks(&state);
    report.elapsed = Some(started.elapsed());
    match form {
        Shape::Findings(form) => check::print(&report, form)?,
        Shape::Reports(form) => policy_reports(&held, form)?,
    }
    if Beside::warn_of_broken(recorded.as_ref()) {
        return Ok(Exit::Failed);
    }
    Ok(args.fail_on.exit(&report))
}

/// Reads roles and bindings and tells who may what.
fn access(args: &Args) -> anyhow::Result<Exit> {
    let runtime = one_thread()?;
    let (rbac, bad) = runtime.block_on(async {
        let client = args.cluster.connect_from_outside().await?;
        let read = crate::k8s::access::read(&client).await;
        read.context("cannot read the roles and bindings")
    })?;
    let is_wanted = |scope: &Scope| match scope {
        Scope::Cluster => true,
        Scope::Namespace(name) => args.namespace.is_empty() || args.namespace.contains(name),
    };
    let mut grants = rbac.grants();
    grants.retain(|grant| is_wanted(&grant.scope));
    let own = grants.iter().map(|grant| &grant.subject);
    let left_out = own
        .filter(|subject| subject.is_own() && !args.all)
        .collect::<BTreeSet<_>>()
        .len();
    grants.retain(|grant| args.all || !grant.subject.is_own());
    let access = Access { grants, left_out };
    match args.output {
        Output::Text => anstream::print!("{}", report::access::text(&access)),
        Output::Markdown => anstream::print!("{}", report::access::markdown(&access)),
        Output::Json => anstream::println!("{:#}", report::access::json(&access)),
        Output::Sarif
        | Output::Junit
        | Output::Github
        | Output::PolicyReport
        | Output::OpenReport => {
            bail!("--access is told as text, json or markdown");
        }
    }
    if bad > 0 {
        bail!("{bad} roles or bindings could not be understood and are not in it");
    }
    Ok(Exit::Clean)
}

/// Reads a cluster with a bar that grows with what is known to come.
pub(super) fn read(cluster: &ClusterArgs) -> anyhow::Result<Cluster> {
    one_thread()?.block_on(async {
        let client = cluster.connect_from_outside().await?;
        read_by(&client).await
    })
}

/// The same by a client.
pub(super) async fn read_by(client: &Client) -> anyhow::Result<Cluster> {
    let progress = Progress::new(0, "objects read");
    let told = progress.clone();
    let read = list::read(client, move |here, remaining| told.came(here, remaining)).await;
    progress.finish();
    read.context("cannot read the cluster")
}

/// The same guardrails in another mode.
pub(super) fn in_mode(guardrails: &Guardrails, mode: Mode) -> anyhow::Result<Guardrails> {
    let changed = guardrails.iter().map(|guardrail| guardrail.in_mode(mode));
    let changed = Guardrails::new(changed.collect::<Result<_, _>>()?);
    Ok(changed.with_confirmations(guardrails.confirmations().cloned()))
}

/// Judges what is there, each object against all of them together.
pub(super) fn judge<'r>(
    reviews: &[&'r Review],
    state: &State,
    baselines: &Baselines,
    now: Timestamp,
) -> Vec<Held<'r>> {
    let progress = Progress::new(reviews.len(), "objects judged");
    let neighbourhood = Neighbourhood::of(&state.snapshot);
    let context = Context {
        neighbourhood: Some(&neighbourhood),
        ..state.context()
    };
    let judged: Vec<Option<Decision>> = reviews
        .par_iter()
        .map(|review| {
            let decision = audit::decide(review, baselines, &context, now, Budget::UNHURRIED);
            progress.advance();
            decision
        })
        .collect();
    progress.finish();
    let mut templates = Templates::default();
    let held = reviews.iter().zip(judged).filter_map(|(review, decision)| {
        let mut decision = decision?;
        let alike = templates.leave_out(review, &mut decision);
        Some(Held {
            review,
            decision,
            alike,
        })
    });
    held.collect()
}

/// The report of `check`, with namespaces for files.
fn report(held: &[Held<'_>]) -> Report {
    let mut report = Report {
        place: Place::Cluster,
        ..Report::default()
    };
    for Held {
        review, decision, ..
    } in held
    {
        let location = Location::of_cluster(review.namespace.as_ref().map(NamespaceName::as_str));
        report.problems.extend(decision.cut.map(|cut| Problem {
            id: FindingId::from(registry::FAILED_POLICY.id),
            severity: registry::FAILED_POLICY.severity,
            location: location.clone(),
            message: format!("{} could not be judged: {cut}", review.object_ref()),
            help: None,
            fatal: true,
        }));
        let findings = decision.judged.iter().map(|judged| Located {
            judged: judged.clone(),
            location: location.clone(),
        });
        report.objects.push(Checked {
            object: review.object_ref(),
            findings: findings.collect(),
            location,
        });
    }
    report
}

fn policy_reports(held: &[Held<'_>], form: Form) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut reports = Reports::new(form, RESULTS);
    for held in held {
        let namespace = held.review.namespace.as_ref().map(NamespaceName::as_str);
        reports.add(
            namespace,
            &held.review.object_ref(),
            &held.decision,
            held.alike,
        );
    }
    let mut out = std::io::stdout().lock();
    for report in reports.finish() {
        let manifest = serde_json::to_value(report)?;
        write!(out, "---\n{}", yaml::manifest(&manifest, 0))?;
    }
    Ok(())
}

// === impl AsMode ===

impl From<AsMode> for Mode {
    fn from(mode: AsMode) -> Self {
        match mode {
            AsMode::Audit => Self::Audit,
            AsMode::Warn => Self::Warn,
            AsMode::Enforce => Self::Enforce,
        }
    }
}
