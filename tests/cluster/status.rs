//! What the controller says in the status of Ringfence's own kinds.

use crate::installation::Installation;
use crate::kubernetes::Kubernetes;
use crate::registration::refused;

const GUARDRAIL: &str = "
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: judged}
spec: {mode: Audit, coverage: {}}
";

/// The condition `Accepted`: its status, its message, and the generation that it is about.
fn accepted(cluster: &Kubernetes) -> Option<(String, String, String)> {
    let field = |field: &str| format!("{{.status.conditions[?(@.type==\"Accepted\")].{field}}}");
    let path = format!(
        "jsonpath={}|{}|{{.metadata.generation}}={{.status.observedGeneration}}",
        field("status"),
        field("message"),
    );
    let output = cluster.kubectl(&["get", "guardrail", "judged", "-o", &path], "");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts = text.split('|').map(str::to_owned);
    let told = (parts.next()?, parts.next()?, parts.next()?);
    (!told.0.is_empty()).then_some(told)
}

#[tokio::test]
async fn a_guardrail_says_whether_it_is_in_force_and_a_bad_one_that_the_last_good_one_is() {
    let cluster = Kubernetes::start().await;
    let installation = Installation::start(&cluster, &[]).await;
    cluster.apply(GUARDRAIL);
    let says = async |what: &str, status: &str, words: &[&str]| {
        let told = async || {
            let (is, message, _) = accepted(&cluster)?;
            let all = words.iter().all(|word| message.contains(word));
            (is == status && all).then_some(())
        };
        Kubernetes::eventually(what, told).await;
    };
    says("accepted", "True", &["in force"]).await;

    // A definition from a later or an earlier release may let pass what this one does not understand.
    let loose = r#"[{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    let crd = "guardrails.ringfence.dev";
    let patched = cluster.kubectl(&["patch", "crd", crd, "--type=json", "-p", loose], "");
    assert!(patched.status.success());
    let bad = GUARDRAIL.replace("Audit", "Sometimes");
    // The webhook refuses it as well, but while none is there these requests pass.
    refused(&cluster, &bad.replace("judged", "other"), "spec.mode").await;
    drop(installation.webhook);
    let taken = async || {
        let output = cluster.kubectl(&["apply", "-f", "-"], &bad);
        output.status.success().then_some(())
    };
    Kubernetes::eventually("the bad one taken by the API server", taken).await;
    says(
        "refused",
        "False",
        &["spec.mode", "the last good version stays in force"],
    )
    .await;

    cluster.apply(&GUARDRAIL.replace("Audit", "Warn"));
    says("accepted again", "True", &["in force"]).await;
    let (_, _, generations) = accepted(&cluster).unwrap();
    let (is, observed) = generations.split_once('=').unwrap();
    assert_eq!(is, observed);
}
