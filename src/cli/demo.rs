//! `ringfence demo`: the main job on an example shop, without a cluster.
//!
//! The real webhook listens on loopback with a certificate made for this run; each step sends it a real
//! AdmissionReview over real TLS, prints the answer as a person wants to read it, and holds it against what is
//! expected. `steps` says what is sent and expected, `client` sends it.

mod client;
mod steps;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Exit, style};
use crate::certs::{Authority, Names, Validity};
use crate::guard::decide::State;
use crate::guard::exemption::Exemptions;
use crate::guard::guardrail::{Guardrail, Guardrails};
use crate::guard::mode::Mode;
use crate::guard::reachability::ReachabilityRules;
use crate::k8s::folder::{self, Folder};
use crate::k8s::manifests::Input;
use crate::k8s::yaml::Limits;
use crate::runtime::{Phase, Readiness, Trigger};
use crate::webhook::router::{Webhook, WebhookOptions};
use crate::webhook::server::{self, ServerOptions};
use crate::webhook::tls::{CertificateSlot, Identity, TlsVersions, server_config};

use client::Client;
use steps::{SHOP, Step};

/// Arguments of `ringfence demo`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nothing outside of this process is touched: the webhook listens on a free port of 127.0.0.1.\n\
    The example lies in deploy/examples/ of the repository."
)]
pub struct Args {
    /// Print each review and each answer as JSON, too.
    #[arg(long)]
    json: bool,
}

/// Runs all steps; findings are answers that differ from what is expected.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(demo(args))
}

async fn demo(args: &Args) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let shop = shop()?;
    let known = Arc::new(ArcSwap::from_pointee(state(&shop, Mode::Enforce)?));
    let (address, authority, trigger, server) = serve(Arc::clone(&known))?;
    let mut out = anstream::stdout();
    introduce(&mut out, &shop, address)?;

    let mut client = Client::connect(address, authority.certificate_pem()).await?;
    let mut mode = Mode::Enforce;
    let mut differing = 0_usize;
    let steps = steps::all()?;
    for (number, step) in steps.iter().enumerate() {
        if step.mode != mode {
            mode = step.mode;
            known.store(Arc::new(state(&shop, mode)?));
            writeln!(
                out,
                "\n{}── the guardrail is now in mode {mode} ──{:#}",
                style::HEAD,
                style::HEAD
            )?;
        }
        let review = step.review();
        let answer = client.post(step.path(), &review).await?;
        let as_expected = print(&mut out, number + 1, step, &answer)?;
        if args.json {
            writeln!(out, "{}{review:#}\n{answer:#}{:#}", style::DIM, style::DIM)?;
        }
        differing += usize::from(!as_expected);
    }

    trigger.advance_to(Phase::Draining);
    server.await?;
    let took = started.elapsed().as_secs_f64();
    if differing == 0 {
        writeln!(
            out,
            "\n{}All {} decisions are as expected{:#}, in {took:.1} s. Next: ringfence check deploy/examples/violations",
            style::GOOD,
            steps.len(),
            style::GOOD
        )?;
        Ok(Exit::Clean)
    } else {
        writeln!(
            out,
            "\n{}{differing} of {} decisions differ from what is expected{:#}",
            style::ERROR,
            steps.len(),
            style::ERROR
        )?;
        Ok(Exit::Findings)
    }
}

/// The example shop as a cluster holds it.
fn shop() -> anyhow::Result<Folder> {
    let inputs = SHOP.iter().map(|(name, text)| Input::Bytes {
        name: format!("deploy/examples/shop/{name}"),
        bytes: text.as_bytes().to_vec(),
    });
    let folder = folder::read(inputs.collect(), &Limits::default());
    match folder.first_error() {
        Some(error) => Err(error.into()),
        None => Ok(folder),
    }
}

/// The shop under the built-in guardrail in a mode.
fn state(shop: &Folder, mode: Mode) -> anyhow::Result<State> {
    Ok(State {
        snapshot: shop.snapshot.clone(),
        guardrails: Guardrails::new(vec![Guardrail::built_in_as(mode)?]),
        exemptions: Exemptions::new(shop.exemptions.clone()),
        reachability: ReachabilityRules::new(shop.rules.clone(), &shop.snapshot),
        engine: super::inputs::engine(&[])?,
    })
}

type Serving = (
    SocketAddr,
    Authority,
    Trigger,
    tokio::task::JoinHandle<server::Ending>,
);

/// Starts the webhook on a free port of loopback with a certificate of its own.
fn serve(known: Arc<ArcSwap<State>>) -> anyhow::Result<Serving> {
    let now = Timestamp::now();
    let names = Names::parse(["127.0.0.1"])?;
    let validity = Validity::starting(now, SignedDuration::from_hours(1))?;
    let authority = Authority::generate("ringfence demo", names.clone(), validity)?;
    let identity = Identity::from_issued(&authority.issue(&names, validity)?, now)?;
    let tls = server_config(CertificateSlot::new(identity), TlsVersions::default(), None)?;
    let listener = server::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr()?;
    let (trigger, shutdown) = Trigger::new();
    let router = Webhook::new(
        known,
        Readiness::new(shutdown.clone()),
        WebhookOptions::default(),
    )
    .router();
    let options = ServerOptions {
        drain_delay: Duration::ZERO,
        ..ServerOptions::default()
    };
    let server = tokio::spawn(server::run(listener, tls, router, options, shutdown));
    Ok((address, authority, trigger, server))
}

fn introduce(out: &mut impl Write, shop: &Folder, address: SocketAddr) -> anyhow::Result<()> {
    writeln!(
        out,
        "{}Ringfence guards an example shop.{:#}\n",
        style::HEAD,
        style::HEAD
    )?;
    writeln!(
        out,
        "  internet ──▶ ingress-controller ──▶ frontend ──▶ backend ──▶ admin-db"
    )?;
    writeln!(
        out,
        "                                         ▲           ▲           ▲"
    )?;
    writeln!(
        out,
        "                             monitoring ─┴───────────┴───────────┘ scrapes\n"
    )?;
    writeln!(
        out,
        "{} manifests in {} namespaces, each default-deny. The webhook listens on https://{address} (TLS 1.3).",
        shop.objects.len(),
        shop.snapshot.namespaces().count(),
    )?;
    Ok(())
}

/// Prints one answer and says whether it is as expected.
fn print(out: &mut impl Write, number: usize, step: &Step, answer: &Value) -> anyhow::Result<bool> {
    let response = answer
        .get("response")
        .ok_or_else(|| anyhow!("an answer without a response: {answer}"))?;
    writeln!(
        out,
        "\n{}{number:2}. {}{:#}",
        style::HEAD,
        step.title,
        style::HEAD
    )?;
    writeln!(out, "    {}{}{:#}", style::DIM, step.command(), style::DIM)?;
    let allowed = response
        .get("allowed")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    let patch = client::patch_of(response).context("the patch of an answer")?;
    match (&patch, allowed) {
        (Some(_), _) => writeln!(out, "    {}changed{:#}", style::GOOD, style::GOOD)?,
        (None, true) => writeln!(out, "    {}allowed{:#}", style::GOOD, style::GOOD)?,
        (None, false) => writeln!(out, "    {}refused{:#}", style::ERROR, style::ERROR)?,
    }
    if let Some(message) = response.pointer("/status/message").and_then(Value::as_str) {
        for line in message.lines() {
            writeln!(out, "      {line}")?;
        }
    }
    for operation in patch.iter().flatten() {
        let text = |field: &str| {
            operation
                .get(field)
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        writeln!(
            out,
            "      {} {} {}",
            text("op").trim_matches('"'),
            text("path").trim_matches('"'),
            text("value")
        )?;
    }
    let lines = |field: &str| {
        response
            .get(field)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    for warning in lines("warnings") {
        writeln!(
            out,
            "      {}Warning:{:#} {}",
            style::WARN,
            style::WARN,
            warning.as_str().unwrap_or_default()
        )?;
    }
    if let (Mode::Audit, Some(notes)) = (
        step.mode,
        response.get("auditAnnotations").and_then(Value::as_object),
    ) {
        for (key, value) in notes {
            writeln!(
                out,
                "      {}audit:{:#} {key}={}",
                style::DIM,
                style::DIM,
                value.as_str().unwrap_or_default()
            )?;
        }
    }
    let difference = step.expected.difference(response, patch.as_deref());
    if let Some(difference) = &difference {
        writeln!(
            out,
            "    {}not as expected: {difference}{:#}",
            style::ERROR,
            style::ERROR
        )?;
    }
    Ok(difference.is_none())
}
