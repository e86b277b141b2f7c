//! More lockout drills: Ringfence is there and cannot judge, by a policy without end, by too many requests, or because its
//! own namespace is gone. What the cluster lives by is never refused, and there is a way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::drills::{HOLD, guarded, installed, open_policy, the_cluster_lives};
use crate::installation::{
    Installation, controller, fails_for, install_kinds, registered, webhook_with,
};
use crate::kubernetes::{Kubernetes, free_port};
use crate::process::Process;
use crate::registration::{GUARDRAIL, create, namespace, pod, refused};

/// A policy that, of what is called `boom`, compares two values that are alike for 2^60 steps: nothing stops it but the end of
/// the process. Another one loops, and is cut when its time is over.
fn endless() -> [(&'static str, String); 2] {
    use std::fmt::Write as _;
    let head = |name: &str| {
        format!(
            "# METADATA\n# title: {name}\n# custom:\n#   id: {name}\npackage {name}\n\n\
             deny contains \"found\" if {{\n\tinput.request.name == \"boom\"\n"
        )
    };
    let mut one_step = head("one_step") + "\ta60 == b60\n}\n\na0 := [1]\nb0 := [1]\n";
    for level in 1..=60 {
        let before = level - 1;
        for name in ["a", "b"] {
            let _ = writeln!(
                one_step,
                "{name}{level} := [{name}{before}, {name}{before}]"
            );
        }
    }
    let ranges = ["i", "j", "k"].map(|name| format!("\tsome {name} in numbers.range(1, 60000)\n"));
    let steps = head("steps") + &ranges.concat() + "\ti * j == 0 - k\n}\n";
    [("one_step.rego", one_step), ("steps.rego", steps)]
}

#[tokio::test]
async fn policies_without_end_are_answered_for_in_time_and_a_milder_guardrail_is_the_way_out() {
    let cluster = Kubernetes::start_with_manager().await;
    install_kinds(&cluster).await;
    let policies = cluster.folder().join("policies");
    std::fs::create_dir(&policies).unwrap();
    for (file, text) in endless() {
        std::fs::write(policies.join(file), text).unwrap();
    }
    let flags = ["--policies", policies.to_str().unwrap()];
    let port = free_port();
    let _controller = controller(&cluster, "controller", port, &[&HOLD[..], &flags].concat());
    let webhook = webhook_with(&cluster, "webhook", port, &flags);
    webhook.line(&["listening"]).await;
    let demanding = GUARDRAIL.to_owned() + "  policies: {}\n";
    guarded(&cluster, &demanding).await;

    // Refused by the webhook itself, long before the API server gives up.
    refused(&cluster, &pod("boom", "shop"), "RF901").await;
    for _ in 0..8 {
        let begun = Instant::now();
        let error = create(&cluster, &pod("boom", "shop"), &["--dry-run=server"]).unwrap_err();
        assert!(
            error.contains("RF901") && error.contains("could not be evaluated"),
            "{error}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
    }
    the_cluster_lives(&cluster, "endless").await;

    // The other direction, for who prefers it.
    cluster.apply(&(GUARDRAIL.to_owned() + "  policies: {onFailure: Allow}\n"));
    let passes = async || create(&cluster, &pod("boom", "shop"), &["--dry-run=server"]).ok();
    Kubernetes::eventually("a create passes with a warning", passes).await;
    refused(&cluster, open_policy(), "RF3").await;

    cluster.apply(&demanding);
    refused(&cluster, &pod("boom", "shop"), "RF901").await;
    cluster.apply(&demanding.replace("Enforce", "Audit"));
    Kubernetes::eventually("a create passes", passes).await;
    the_cluster_lives(&cluster, "audit").await;
}

/// Requests that go on and on: as one is answered, or given up, the next is made.
struct Slow {
    tasks: JoinSet<()>,
    open: Arc<AtomicUsize>,
}

impl Slow {
    /// So many at once after some seconds, each of which sends this much of a body that is announced as so long.
    fn start(
        config: &Arc<ClientConfig>,
        port: u16,
        count: usize,
        (body, length): (&str, usize),
    ) -> Self {
        let mut this = Self {
            tasks: JoinSet::new(),
            open: Arc::default(),
        };
        for number in 0..count {
            // One after the other, so that they do not all end at the same moment.
            let later = Duration::from_millis(15 * number as u64);
            let (config, open) = (Arc::clone(config), Arc::clone(&this.open));
            let request = format!(
                "POST /validate?timeout=10s HTTP/1.1\r\nhost: webhook\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            this.tasks.spawn(async move {
                tokio::time::sleep(later).await;
                loop {
                    // A connection that broke is followed by the next one, which leaves the machine some time.
                    let _ = Self::one(&config, port, &open, &request).await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
        }
        this
    }

    /// Asks again and again on one connection, for as long as that is there.
    async fn one(
        config: &Arc<ClientConfig>,
        port: u16,
        open: &AtomicUsize,
        request: &str,
    ) -> std::io::Result<()> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let mut stream = connector.connect(name, stream).await?;
        loop {
            stream.write_all(request.as_bytes()).await?;
            open.fetch_add(1, Ordering::Relaxed);
            let answered = Self::answered(&mut stream).await;
            open.fetch_sub(1, Ordering::Relaxed);
            answered?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads one answer.
    async fn answered(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut part).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if length.is_none_or(|length| body.len() >= length.parse().unwrap()) {
                return Ok(());
            }
        }
    }
}

/// What the API servers trust.
fn trusting(configuration: &ValidatingWebhookConfiguration) -> Arc<ClientConfig> {
    let entry = &configuration.webhooks.as_ref().unwrap()[0];
    let bundle = entry.client_config.ca_bundle.as_ref().unwrap();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bundle.0) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub(crate) fn number(admin: &str, series: &str) -> u64 {
    let page = std::process::Command::new("curl")
        .args(["-sf", &format!("http://{admin}/metrics")])
        .output()
        .unwrap();
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    let found = page.lines().find_map(|line| line.strip_prefix(series));
    found
        .unwrap_or_else(|| panic!("{series}: {page}"))
        .trim()
        .parse()
        .unwrap()
}

/// A cluster with a namespace in Enforce, and a webhook of which the numbers are known, with its port and theirs.
async fn measured() -> (Kubernetes, [Process; 2], u16, String) {
    let (cluster, installation) = installed().await;
    let Installation {
        controller,
        webhook,
        port,
    } = installation;
    drop(webhook);
    let admin = format!("127.0.0.1:{}", free_port());
    let webhook = webhook_with(&cluster, "measured", port, &["--admin", &admin]);
    webhook.line(&["listening"]).await;
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: trial}}");
    refused(&cluster, open_policy(), "RF3").await;
    (cluster, [controller, webhook], port, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_come_whole_keep_nobody_out() {
    let (cluster, _processes, port, admin) = measured().await;
    let configuration = registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    let slow = Slow::start(&trusting(&configuration), port, 560, ("{", 1000));
    // Each is sent away after some seconds and comes again: how many there are at once is a matter of how fast they come.
    Kubernetes::eventually("very many are on their way", async || {
        (slow.open.load(Ordering::Relaxed) >= 200).then_some(())
    })
    .await;
    for number in 0..20 {
        let begun = Instant::now();
        create(&cluster, &pod(&format!("web-{number}"), "shop"), &[]).unwrap();
        let error = create(&cluster, open_policy(), &["--dry-run=server"]).unwrap_err();
        assert!(error.contains("RF3"), "{error}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(number(&admin, "ringfence_webhook_shed_total "), 0);
    assert!(slow.open.load(Ordering::Relaxed) > 0);
    the_cluster_lives(&cluster, "slow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_turns_requests_away_and_the_cluster_lives() {
    let (cluster, [controller, _webhook], port, admin) = measured().await;
    let configuration = registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    // Pods that wait for a baseline, which nobody makes any more, have their places for some seconds and cost nothing.
    drop(controller);
    cluster.apply(
        &(GUARDRAIL.replace("{name: prod}", "{name: waits}"))
            .replace("{stage: prod}", "{stage: waits}")
            .replace("{mode: Audit}", "{}"),
    );
    cluster.apply(&namespace("waits", "waits"));
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": "CREATE", "name": "web", "namespace": "waits", "userInfo": {},
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "waits"},
                "spec": {"containers": [{"name": "main", "image": "x"}]}
            }
        }
    });
    let review = review.to_string();
    let whole = (review.as_str(), review.len());
    let slow = Slow::start(&trusting(&configuration), port, 640, whole);
    Kubernetes::eventually("all places taken", async || {
        (number(&admin, "ringfence_webhook_in_flight ") == 512).then_some(())
    })
    .await;
    let told = async || {
        let error = create(&cluster, open_policy(), &["--dry-run=server"]).err()?;
        error.contains("failed calling webhook").then_some(error)
    };
    let begun = Instant::now();
    let error = Kubernetes::eventually("turned away", told).await;
    println!("turned away after {:?}: {error}", begun.elapsed());
    the_cluster_lives(&cluster, "full").await;
    // Where nothing is enforced, a webhook that does not answer refuses nothing.
    let open = open_policy().replace("namespace: shop", "namespace: trial");
    create(&cluster, &open, &[]).unwrap();
    assert!(number(&admin, "ringfence_webhook_shed_total ") > 0);
    assert!(slow.open.load(Ordering::Relaxed) > 0);

    drop(slow);
    refused(&cluster, open_policy(), "RF3").await;
    create(&cluster, &pod("web", "shop"), &[]).unwrap();
    Kubernetes::eventually("all places free", async || {
        (number(&admin, "ringfence_webhook_in_flight ") == 0).then_some(())
    })
    .await;
}

/// Takes the installation's namespace away and gives it back, with the controller and a webhook running all along.
async fn the_namespace_goes_and_comes_back(cluster: &Kubernetes, webhook_answers: bool) {
    let client = cluster.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), "ringfence-system");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "ringfence-system");
    let first = namespaces.get("ringfence-system").await.unwrap();
    let deleted = cluster.kubectl(
        &["delete", "namespace", "ringfence-system", "--wait=false"],
        "",
    );
    assert!(deleted.status.success());
    cluster.gone("ringfence-system").await;
    the_cluster_lives(cluster, "gone").await;
    if webhook_answers {
        refused(cluster, open_policy(), "RF3").await;
    } else {
        let passes = async || create(cluster, open_policy(), &["--dry-run=server"]).ok();
        Kubernetes::eventually("nobody is asked", passes).await;
    }

    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: ringfence-system}}");
    let begun = Instant::now();
    let second = namespaces.get("ringfence-system").await.unwrap();
    assert_ne!(first.metadata.uid, second.metadata.uid);
    Kubernetes::eventually("the Lease is held again", async || {
        let lease = leases.get_opt("ringfence-controller").await.unwrap()?;
        lease
            .spec?
            .holder_identity
            .filter(|holder| !holder.is_empty())
    })
    .await;
    Kubernetes::eventually("the certificates are kept again", async || {
        secrets.get_opt("ringfence-certificates").await.unwrap()
    })
    .await;
    registered(cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    refused(cluster, open_policy(), "RF3").await;
    println!("back after {:?}", begun.elapsed());
    create(cluster, &pod("web", "shop"), &[]).unwrap();
    the_cluster_lives(cluster, "back").await;
}

#[tokio::test]
async fn the_own_namespace_deleted_takes_the_registration_along_and_all_comes_back_with_it() {
    let (cluster, installation) = installed().await;
    the_namespace_goes_and_comes_back(&cluster, false).await;
    let owner = async || {
        let owned = registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
        let client = cluster.client().await;
        let namespace = Api::<Namespace>::all(client).get("ringfence-system").await;
        let reference = owned.metadata.owner_references.unwrap().remove(0);
        (Some(reference.uid) == namespace.unwrap().metadata.uid).then_some(())
    };
    Kubernetes::eventually("the new namespace is the owner", owner).await;
    drop(installation);
}

#[tokio::test]
async fn a_registration_that_outlives_the_own_namespace_is_answered_for_meanwhile() {
    let cluster = Kubernetes::start_with_manager().await;
    cluster.apply("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: ringfence-controller}, rules: []}");
    let _installation = Installation::start(&cluster, &HOLD).await;
    guarded(&cluster, GUARDRAIL).await;
    refused(&cluster, open_policy(), "RF3").await;
    the_namespace_goes_and_comes_back(&cluster, true).await;
    // By the leaf that it had, which a controller that still leads puts back, or by a new one.
    refused(&cluster, open_policy(), "RF3").await;
}
