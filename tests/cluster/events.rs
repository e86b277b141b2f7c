//! Events of the webhook and the controller on a real API server: what they are about, and that the same is counted.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use serde_json::Value;

use crate::access::definition;
use crate::installation::{Installation, fails_for, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::{GUARDRAIL, create, default_deny, namespace, pod, refused};

/// How often the same is tried.
const TRIES: i32 = 100;

/// The Events of a namespace that have this reason and are about an object of this name.
pub(crate) async fn events(
    cluster: &Kubernetes,
    namespace: &str,
    reason: &str,
    name: &str,
) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(cluster.client().await, namespace);
    let reason = ListParams::default().fields(&format!("reason={reason}"));
    let mut events = api.list(&reason).await.unwrap().items;
    let is_about = |event: &Event| event.regarding.as_ref()?.name.clone();
    events.retain(|event| is_about(event).as_deref() == Some(name));
    events
}

pub(crate) async fn one(cluster: &Kubernetes, namespace: &str, reason: &str, name: &str) -> Event {
    let what = format!("{reason} of {name}");
    let event = Kubernetes::eventually(&what, async || {
        events(cluster, namespace, reason, name).await.pop()
    });
    event.await
}

#[tokio::test]
async fn what_is_refused_or_would_be_is_an_event_and_the_same_again_a_count() {
    let cluster = Kubernetes::start().await;
    let _installation = Installation::start(&cluster, &[]).await;
    cluster.apply(&namespace("shop", "prod"));
    let audit = GUARDRAIL.replace("mode: Enforce", "mode: Audit");
    cluster.apply(&audit);
    registered(&cluster, "an entry", |c| c.webhooks.is_some()).await;

    // The API server takes the registration up within a moment.
    let would = Kubernetes::eventually("WouldRefuse of bare", async || {
        let _ = cluster.kubectl(&["delete", "pod", "bare", "-n", "shop", "--now"], "");
        create(&cluster, &pod("bare", "shop"), &[]).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        events(&cluster, "shop", "WouldRefuse", "bare").await.pop()
    })
    .await;
    let note = would.note.clone().unwrap();
    assert!(
        note.starts_with("RF201: ") && note.contains("Fix: "),
        "{note}"
    );
    assert_eq!(would.annotations()["ringfence.dev/check"], "RF201");
    assert_eq!(would.annotations()["ringfence.dev/mode"], "Audit");
    assert_eq!(would.annotations()["ringfence.dev/guardrails"], "prod");
    assert_eq!(
        would.reporting_controller.as_deref(),
        Some("ringfence.dev/webhook")
    );
    // What was let in is shown by whoever describes it.
    let described = cluster.kubectl(&["describe", "pod", "bare", "-n", "shop"], "");
    let described = String::from_utf8(described.stdout).unwrap();
    assert!(described.contains("WouldRefuse"), "{described}");

    cluster.apply(GUARDRAIL);
    registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;
    refused(&cluster, &pod("dry", "shop"), "RF201").await;
    for _ in 0..TRIES {
        create(&cluster, &pod("again", "shop"), &[]).unwrap_err();
    }
    let counted = async || {
        let found = events(&cluster, "shop", "Refused", "again").await;
        assert!(found.len() <= 1, "{found:?}");
        let event = found.into_iter().next()?;
        let count = event.series.as_ref().map(|series| series.count);
        (count == Some(TRIES)).then_some(event)
    };
    let refused = Kubernetes::eventually("a hundred in one", counted).await;
    assert_eq!(refused.regarding.unwrap().uid, None);
    assert_eq!(refused.type_.as_deref(), Some("Warning"));
    assert_eq!(events(&cluster, "shop", "Refused", "dry").await, []);
}

#[tokio::test]
async fn the_controller_tells_of_certificates_and_of_baselines_that_it_puts_back_or_cannot_make() {
    let cluster = Kubernetes::start().await;
    let reports = "openreports.io";
    cluster.apply(&definition(
        reports,
        "v1alpha1",
        "Report",
        "reports",
        "Namespaced",
    ));
    let _installation = Installation::start(&cluster, &["--reports", "open-report"]).await;
    let renewed = one(
        &cluster,
        "ringfence-system",
        "CertificateRenewed",
        "ringfence-certificates",
    );
    assert_eq!(renewed.await.type_.as_deref(), Some("Normal"));

    cluster.apply(&(namespace("shop", "prod") + &namespace("taken", "prod")));
    cluster.apply(&default_deny("taken").replace("default-deny", "ringfence-baseline"));
    // Not all that the baseline would be, so it would be made if its name were free.
    cluster.apply(&GUARDRAIL.replace("{mode: Audit}", "{}"));
    let held = one(&cluster, "taken", "BaselineHeld", "ringfence-baseline").await;
    assert_eq!(held.type_.as_deref(), Some("Warning"));
    let name = "ringfence-baseline";
    let delete = ["delete", "networkpolicy", name, "-n", "shop"];
    let deleted = async || cluster.kubectl(&delete, "").status.success().then_some(());
    Kubernetes::eventually("a baseline to delete", deleted).await;
    one(&cluster, "shop", "BaselineRepaired", name).await;

    // The reports are of the kind that was asked for.
    let get = [
        "get",
        "reports.openreports.io",
        "ringfence",
        "-n",
        "taken",
        "-o",
        "json",
    ];
    let reported = async || {
        let output = cluster.kubectl(&get, "");
        let report: Value = serde_json::from_slice(&output.stdout).ok()?;
        report["summary"]["pass"].as_u64()
    };
    Kubernetes::eventually("a Report", reported).await;
}
