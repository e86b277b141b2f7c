//! Clocks of ours that jump, while the API server's is right: requests go on being judged, because certificates are made by
//! the API server's time and shown whatever the replica's own clock says.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use ringfence::certs::CertificateFacts;

use crate::installation::{fails_for, install_kinds, registered};
use crate::kubernetes::{Kubernetes, free_port};
use crate::load::Load;
use crate::process::Process;
use crate::registration::{GUARDRAIL, namespace, pod, refused};

/// A clock that the test moves, for the programs that are started with it.
struct Clock {
    library: PathBuf,
    ahead: PathBuf,
}

impl Clock {
    fn new(folder: &Path, name: &str) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/clock.c");
        let this = Self {
            library: folder.join(format!("{name}.so")),
            ahead: folder.join(format!("{name}.ahead")),
        };
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&this.library)
            .arg(source)
            .output()
            .unwrap();
        assert!(built.status.success(), "{built:?}");
        std::fs::write(&this.ahead, 0_i64.to_ne_bytes()).unwrap();
        this
    }

    /// Moves it to so far ahead of the right time. The file is changed in its place, since programs have it mapped.
    fn set(&self, ahead: SignedDuration) {
        let mut file = std::fs::File::options()
            .write(true)
            .open(&self.ahead)
            .unwrap();
        file.write_all(&ahead.as_secs().to_ne_bytes()).unwrap();
    }

    fn start(&self, cluster: &Kubernetes, subcommand: &str, arguments: &[&str]) -> Process {
        let mut command = cluster.command(subcommand, arguments);
        command
            .env("LD_PRELOAD", &self.library)
            .env("CLOCK_AHEAD", &self.ahead);
        Process::start(subcommand, cluster.folder(), &mut command)
    }
}

fn count(process: &Process, words: &str) -> usize {
    process.log().matches(words).count()
}

/// When a program says that it wrote its last line.
fn last_line(process: &Process) -> Timestamp {
    let log = process.log();
    let time = |line: &str| line.split(' ').next()?.parse().ok();
    log.lines().rev().find_map(time).unwrap()
}

/// What the leaf says that is kept.
async fn leaf(cluster: &Kubernetes) -> CertificateFacts {
    let secrets: Api<Secret> = Api::namespaced(cluster.client().await, "ringfence-system");
    let secret = secrets.get("ringfence-certificates").await.unwrap();
    CertificateFacts::from_pem(&secret.data.unwrap()["tls.crt"].0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_by_days_cost_no_request_and_no_certificate_its_times() {
    let cluster = Kubernetes::start().await;
    install_kinds(&cluster).await;
    let ours = Clock::new(cluster.folder(), "ours");
    let theirs = Clock::new(cluster.folder(), "theirs");
    let port = free_port();
    let (url, listen) = (
        format!("https://127.0.0.1:{port}"),
        format!("127.0.0.1:{port}"),
    );
    // A leaf each 6 seconds, an authority each 27.
    let terms = ["--leaf-validity=9s", "--ca-validity=40s", "--hold=2s"];
    let arguments = [&["--webhook-url", &url][..], &terms].concat();
    let controller = ours.start(&cluster, "controller", &arguments);
    let webhook = theirs.start(&cluster, "webhook", &["--listen", &listen]);
    webhook.line(&["listening"]).await;
    cluster.apply(&namespace("shop", "prod"));
    cluster.apply(GUARDRAIL);
    registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    refused(&cluster, &pod("web", "shop"), "default-deny").await;

    let wrong_clock = "the clock of this machine differs";
    assert_eq!(count(&controller, wrong_clock), 0, "it is right so far");

    // More than an authority is backdated by, and more than any of these certificates holds.
    let far = SignedDuration::from_hours(48);
    let right = SignedDuration::ZERO;
    let load = Load::start(&[cluster.client().await], 40, "shop");
    let mut wrong = Vec::new();
    for (of_controller, of_webhook) in [
        (far, far),
        (-far, -far),
        (right, far),
        (right, -far),
        (right, right),
    ] {
        ours.set(of_controller);
        theirs.set(of_webhook);
        let signed = count(&controller, "leaf signed");
        let replaced = count(&webhook, "certificate replaced");
        let (begun, requests) = (std::time::Instant::now(), load.done());
        let place = format!("controller {of_controller:#}, webhook {of_webhook:#}");
        Kubernetes::eventually(&place, async || {
            let renewed = count(&controller, "leaf signed") > signed + 1
                && count(&webhook, "certificate replaced") > replaced + 1;
            (renewed || begun.elapsed() > Duration::from_secs(40)).then_some(())
        })
        .await;
        load.reached(requests + 100, Duration::from_mins(1)).await;
        let leaf = leaf(&cluster).await;
        let left = Timestamp::now().duration_until(leaf.not_after());
        println!(
            "{place}: {} requests so far, a leaf of {left:#} more",
            load.done()
        );
        if left <= SignedDuration::ZERO || left > SignedDuration::from_secs(10) {
            wrong.push(format!("{place}: {left:#} left of the leaf"));
        }
        if count(&webhook, "certificate replaced") <= replaced + 1 {
            wrong.push(format!("{place}: an old leaf is shown"));
        }
        for (process, ahead) in [(&controller, of_controller), (&webhook, of_webhook)] {
            let off = Timestamp::now().duration_until(last_line(process)) - ahead;
            assert!(
                off.abs() < SignedDuration::from_mins(1),
                "{place}: {off:#} off"
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{} requests", load.unharmed().await);
    controller.line(&["WARN", wrong_clock]).await;
    refused(&cluster, &pod("web", "shop"), "default-deny").await;
}
