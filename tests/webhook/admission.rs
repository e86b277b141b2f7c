//! What a webhook without a cluster must get right about admission, asked over HTTPS as an API server asks.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::cluster::{
    Cluster, bytes, create, default_deny, delete, deployment, namespace, pod, policy, review,
    update,
};

fn denied_for(response: &Value, id: &str) -> bool {
    response["allowed"] == json!(false)
        && response["status"]["code"] == json!(403)
        && response["status"]["message"]
            .as_str()
            .unwrap()
            .contains(&format!("[{id}]"))
}

fn patch(response: &Value) -> json_patch::Patch {
    assert_eq!(response["patchType"], "JSONPatch");
    let json = base64::engine::general_purpose::STANDARD
        .decode(response["patch"].as_str().unwrap())
        .unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn privileged(mut pod: Value, kind: &str) -> Value {
    pod["spec"][kind] =
        json!([{"name": "debug", "image": "x", "securityContext": {"privileged": true}}]);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_in_an_uncovered_namespace_is_refused_by_enforce_and_recorded_by_audit() {
    let cluster = Cluster::start().await;
    let refused = cluster.validate(&create(&deployment("open"))).await;
    assert!(denied_for(&refused, "RF201"), "{refused:#}");
    let message = refused["status"]["message"].as_str().unwrap();
    for part in [
        "Deployment open/web",
        "why:",
        "fix:",
        "kind: NetworkPolicy",
        "ringfence explain RF201",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(refused["auditAnnotations"]["decision"], "denied");

    let recorded = cluster.validate(&create(&deployment("trial"))).await;
    assert_eq!(recorded["allowed"], true);
    assert_eq!(recorded["auditAnnotations"]["would-deny"], "RF201");
    assert_eq!(recorded["auditAnnotations"]["mode"], "Audit");
    assert!(recorded.get("warnings").is_none(), "audit is silent");

    assert!(cluster.allows(&create(&deployment("shop"))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_gets_the_true_answer() {
    let cluster = Cluster::start().await;
    for (namespace, allowed) in [("open", false), ("shop", true)] {
        let mut review = create(&deployment(namespace));
        review["request"]["dryRun"] = json!(true);
        assert_eq!(cluster.allows(&review).await, allowed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_name_is_told_by_its_prefix() {
    let cluster = Cluster::start().await;
    let mut generated = pod("open", "");
    generated["metadata"] = json!({"generateName": "web-5d9c-", "namespace": "open"});
    let refused = cluster.validate(&create(&generated)).await;
    assert!(denied_for(&refused, "RF201"));
    assert!(
        refused["status"]["message"]
            .as_str()
            .unwrap()
            .starts_with("Pod open/web-5d9c-*"),
        "{refused:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_is_judged_by_its_old_object_and_by_who_asks() {
    let cluster = Cluster::start().await;
    let refused = cluster.validate(&delete(&default_deny("shop"))).await;
    assert!(
        denied_for(&refused, "RF202"),
        "the last policy that covers a pod: {refused:#}"
    );
    assert!(cluster.allows(&delete(&pod("shop", "web-1"))).await);
    assert!(
        cluster.allows(&delete(&default_deny("leaving"))).await,
        "its namespace is on its way out"
    );

    let by = |username: &str, group: &str| {
        let mut review = delete(&default_deny("shop"));
        review["request"]["userInfo"] = json!({"username": username, "groups": [group]});
        review
    };
    let group = "system:serviceaccounts:kube-system";
    assert!(
        cluster
            .allows(&by(
                "system:serviceaccount:kube-system:namespace-controller",
                group
            ))
            .await
    );
    for look_alike in [
        "system:serviceaccount:kube-system-x:namespace-controller",
        "system:serviceaccount:kube-system:namespace-controller-2",
        "system:serviceaccount:shop:namespace-controller",
        "xsystem:serviceaccount:kube-system:namespace-controller",
    ] {
        assert!(
            !cluster.allows(&by(look_alike, group)).await,
            "{look_alike}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_a_controller_of_the_system_makes_is_judged_like_any_other() {
    let cluster = Cluster::start().await;
    let mut review = create(&pod("open", "web-5d9c-x7x2p"));
    review["request"]["userInfo"] = json!({
        "username": "system:serviceaccount:kube-system:replicaset-controller",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]
    });
    assert!(denied_for(&cluster.validate(&review).await, "RF201"));
    review["request"]["userInfo"] =
        json!({"username": "system:node:n1", "groups": ["system:nodes"]});
    assert!(cluster.allows(&review).await, "a node");
    review["request"]["userInfo"] =
        json!({"username": "system:node:n1", "groups": ["system:nodes-x"]});
    assert!(
        !cluster.allows(&review).await,
        "somebody who is called like a node"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_held_to_what_it_changes() {
    let cluster = Cluster::start().await;
    let old = deployment("open");
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"note": "harmless"});
    assert!(
        cluster.allows(&update(&old, &labelled)).await,
        "an old violation is not held against a harmless update"
    );

    let mut new = privileged(pod("shop", "web-1"), "initContainers");
    let refused = cluster.validate(&update(&pod("shop", "web-1"), &new)).await;
    assert!(denied_for(&refused, "RF403"), "a new one is");
    let leaving = |mut pod: Value| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        pod
    };
    new = leaving(new);
    let claimed = cluster.validate(&update(&pod("shop", "web-1"), &new)).await;
    assert!(
        denied_for(&claimed, "RF403"),
        "the server sets the time of an end, a new object only claims it"
    );
    let leaves = leaving(pod("shop", "web-1"));
    let kept = cluster.validate(&update(&leaves, &new)).await;
    assert!(
        denied_for(&kept, "RF403"),
        "what is on its way out runs for as long as somebody's finalizer stays"
    );
    let mut held = leaves.clone();
    held["metadata"]["finalizers"] = json!(["x"]);
    assert!(
        cluster.allows(&update(&held, &leaves)).await,
        "what is on its way out may go"
    );

    let mut finalized = deployment("open");
    finalized["metadata"]["finalizers"] = json!(["x"]);
    assert!(
        cluster
            .allows(&update(&finalized, &deployment("open")))
            .await,
        "removing a finalizer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_opens_the_last_policy_is_refused() {
    let cluster = Cluster::start().await;
    let shortened = policy(
        "shop",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    assert!(denied_for(
        &cluster
            .validate(&update(&default_deny("shop"), &shortened))
            .await,
        "RF202"
    ));
    let narrowed = policy(
        "shop",
        &json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"]}),
    );
    assert!(denied_for(
        &cluster
            .validate(&update(&default_deny("shop"), &narrowed))
            .await,
        "RF202"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources_that_change_the_pod_are_judged_and_others_are_not() {
    let cluster = Cluster::start().await;
    let bad = privileged(pod("shop", "web-1"), "ephemeralContainers");
    for (subresource, judged) in [
        ("ephemeralcontainers", true),
        ("resize", true),
        ("status", false),
        ("binding", false),
        ("eviction", false),
    ] {
        let mut review = update(&pod("shop", "web-1"), &bad);
        review["request"]["subResource"] = json!(subresource);
        review["request"]["requestSubResource"] = json!(subresource);
        let response = cluster.validate(&review).await;
        assert_eq!(
            denied_for(&response, "RF403"),
            judged,
            "{subresource}: {response:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_carries_a_scale_and_not_the_workload() {
    let cluster = Cluster::start().await;
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web", "namespace": "open"},
        "spec": {"replicas": 3}
    });
    let mut review = update(&scale, &scale);
    review["request"]["resource"] =
        json!({"group": "apps", "version": "v1", "resource": "deployments"});
    review["request"]["subResource"] = json!("scale");
    assert!(cluster.allows(&review).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_let_through() {
    let cluster = Cluster::start().await;
    let options = json!({"apiVersion": "v1", "kind": "PodExecOptions", "metadata": {}, "stdin": true, "command": ["sh"]});
    let mut review = review("CONNECT", &options, &Value::Null);
    review["request"]["resource"] = json!({"group": "", "version": "v1", "resource": "pods"});
    review["request"]["subResource"] = json!("exec");
    review["request"]["namespace"] = json!("open");
    review["request"]["name"] = json!("web-1");
    let response = cluster.validate(&review).await;
    assert_eq!(
        (
            &response["allowed"],
            &response["auditAnnotations"]["decision"]
        ),
        (&json!(true), &json!("skipped: connect"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_was_converted_is_judged_as_what_it_was_converted_to() {
    let cluster = Cluster::start().await;
    let mut review = create(&deployment("open"));
    review["request"]["requestKind"] =
        json!({"group": "extensions", "version": "v1beta1", "kind": "Deployment"});
    review["request"]["requestResource"] =
        json!({"group": "extensions", "version": "v1beta1", "resource": "deployments"});
    assert!(denied_for(&cluster.validate(&review).await, "RF201"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_is_let_through() {
    let cluster = Cluster::start().await;
    let widget = json!({"apiVersion": "acme.io/v7", "kind": "Widget", "metadata": {"name": "w", "namespace": "open"}});
    assert!(cluster.allows(&create(&widget)).await);
    assert!(
        cluster
            .mutate(&create(&widget))
            .await
            .get("patch")
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_namespace_is_judged_by_its_own_labels_and_may_be_made() {
    let cluster = Cluster::start().await;
    assert!(cluster.allows(&create(&namespace("fresh"))).await);
    assert!(
        cluster.allows(&delete(&namespace("shop"))).await,
        "a namespace can always be deleted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_pod_is_neither_changed_nor_refused() {
    let cluster = Cluster::start().await;
    let mut mirror = privileged(pod("open", "etcd-n1"), "initContainers");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0123"});
    let response = cluster.validate(&create(&mirror)).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(
        response["auditAnnotations"]["would-deny"], "RF403,RF201",
        "it is recorded"
    );
    assert!(
        cluster
            .mutate(&create(&mirror))
            .await
            .get("patch")
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_forgot_dns_and_monitoring_gets_them_once() {
    let cluster = Cluster::start().await;
    let mut object = default_deny("shop");
    object["metadata"]["name"] = json!("web");
    object["spec"]["podSelector"] = json!({"matchLabels": {"app": "web"}});
    let response = cluster.mutate(&create(&object)).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(response["auditAnnotations"]["injected"], "dns,monitoring");
    json_patch::patch(&mut object, &patch(&response)).unwrap();
    assert!(object["metadata"]["annotations"]["ringfence.dev/injected"].is_string());

    let again = cluster.mutate(&create(&object)).await;
    assert_eq!(
        (again.get("patch"), again.get("patchType")),
        (None, None),
        "twice changes nothing: {again:#}"
    );
    let judged = cluster.validate(&create(&object)).await;
    assert!(judged.get("patch").is_none(), "validating never patches");
    assert_eq!(judged["allowed"], true, "what was added passes: {judged:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_never_refuses_and_never_patches_a_delete() {
    let cluster = Cluster::start().await;
    for review in [
        create(&deployment("open")),
        delete(&default_deny("shop")),
        update(
            &pod("shop", "a"),
            &privileged(pod("shop", "a"), "containers"),
        ),
    ] {
        let response = cluster.mutate(&review).await;
        assert_eq!(
            (response["allowed"].as_bool(), response.get("patch")),
            (Some(true), None)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_in_words_and_the_server_goes_on() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    let good = create(&deployment("shop"));
    let change = |change: fn(&mut Value)| {
        let mut review = good.clone();
        change(&mut review);
        bytes(&review)
    };
    let answerable = [
        (
            change(|r| r["request"]["operation"] = json!("PATCH")),
            "unknown operation",
        ),
        (
            change(|r| r["request"]["object"] = Value::Null),
            "carries object",
        ),
        (
            change(|r| r["request"]["operation"] = json!("DELETE")),
            "carries oldObject",
        ),
        (
            change(|r| r["request"]["object"]["kind"] = json!("Secret")),
            "request.kind says",
        ),
        (change(|r| r["request"]["name"] = json!(7)), "request.name"),
        (
            change(|r| r["kind"] = json!("Review")),
            "expected kind AdmissionReview",
        ),
    ];
    for path in ["/validate", "/mutate"] {
        for (body, reason) in &answerable {
            let answer = client.post(path, body.clone()).await.unwrap();
            let response = crate::cluster::response(&answer);
            assert_eq!(
                (
                    response["allowed"].as_bool(),
                    response["status"]["code"].as_u64()
                ),
                (Some(false), Some(400))
            );
            assert!(
                response["status"]["message"]
                    .as_str()
                    .unwrap()
                    .contains(reason),
                "{response:#}"
            );
        }
        let beta = client
            .post(
                path,
                change(|r| r["apiVersion"] = json!("admission.k8s.io/v1beta1")),
            )
            .await
            .unwrap();
        assert_eq!(beta.status, 200);
        assert!(
            beta.text()
                .contains(r#""apiVersion":"admission.k8s.io/v1beta1""#)
                && beta.text().contains("admissionReviewVersions")
        );

        let whole = bytes(&good);
        for (body, reason) in [
            (whole.slice(..whole.len() / 2), "not JSON"),
            (bytes(&json!({})), "has no request"),
            (change(|r| r["request"]["uid"] = json!("")), "has no uid"),
            (vec![0xff; 100].into(), "not UTF-8"),
            (Vec::new().into(), "not JSON"),
            (
                "[".repeat(1 << 20).into(),
                "not as an AdmissionReview has it",
            ),
        ] {
            let answer = client.post(path, body).await.unwrap();
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert!(
                answer.text().contains(reason) && answer.text().lines().count() == 1,
                "{}",
                answer.text()
            );
        }
        assert_eq!(client.post(path, bytes(&good)).await.unwrap().status, 200);
    }
    assert_eq!(client.connections, 1, "bad input costs no connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_the_model_cannot_read_are_refused_with_the_field() {
    let cluster = Cluster::start().await;
    let bad = policy(
        "shop",
        &json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}),
    );
    let refused = cluster.validate(&create(&bad)).await;
    assert!(denied_for(&refused, "RF002"), "{refused:#}");
    assert_eq!(
        refused["status"]["details"]["causes"][0]["field"],
        "spec.ingress[0].from[0].ipBlock.cidr"
    );
    let selector = policy(
        "shop",
        &json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
    );
    assert!(denied_for(
        &cluster.validate(&create(&selector)).await,
        "RF002"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_can_be_replaced_between_two_requests() {
    let cluster = Cluster::start().await;
    let review = create(&deployment("open"));
    assert!(!cluster.allows(&review).await);
    let mut state = crate::cluster::state();
    let covering = ringfence::guard::review::Subject::new(default_deny("open"));
    state.snapshot = state.snapshot.with(covering.model().unwrap().clone());
    cluster.known.store(std::sync::Arc::new(state));
    assert!(cluster.allows(&review).await);
}
