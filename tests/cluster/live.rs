//! A cluster that is followed: what is made, changed and deleted shows in the state, whatever happens to the API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config, CustomResourceExt as _};
use ringfence::guard::decide::State;
use ringfence::guard::exemption::ExemptionManifest;
use ringfence::guard::guardrail::GuardrailManifest;
use ringfence::guard::mode::Mode;
use ringfence::guard::reachability::ReachabilityRuleManifest;
use ringfence::k8s::live::{self, Kind, Live, Options};
use ringfence::rego::{PolicySet, RegoEngine, Trial};
use ringfence::runtime::{Readiness, Tasks, Trigger};
use serde_json::{Value, json};

use crate::access::definition;
use crate::kubernetes::{Kubernetes, free_port};
use crate::lockout::number;
use crate::registration::namespace;
use crate::roles::{kubeconfig, used};

/// A cluster that is followed by the test itself.
pub(crate) struct Following {
    pub(crate) live: Live,
    pub(crate) readiness: Readiness,
    _tasks: Tasks,
    _trigger: Trigger,
}

pub(crate) fn follow(client: &Client) -> Following {
    let (trigger, shutdown) = Trigger::new();
    let readiness = Readiness::new(shutdown);
    let mut tasks = Tasks::new();
    let pack = PolicySet::load(&[], &Trial::None).unwrap();
    let options = Options::new(Arc::new(RegoEngine::new(pack)));
    let live = live::follow(client, options, readiness.clone(), &mut tasks);
    Following {
        live,
        readiness,
        _tasks: tasks,
        _trigger: trigger,
    }
}

impl Following {
    /// Waits until the state is as it should be.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&State) -> bool) {
        let mut changed = self.live.changed();
        let seen = async {
            while !is(&self.live.state.load()) {
                changed.changed().await.unwrap();
            }
        };
        let seen = tokio::time::timeout(Duration::from_mins(1), seen).await;
        assert!(seen.is_ok(), "not seen in the state: {what}");
    }

    pub(crate) async fn complete(&self) {
        self.until("complete", |_| self.live.is_complete()).await;
    }
}

/// Ringfence's own kinds, served.
pub(crate) async fn install(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let own = [
        GuardrailManifest::crd(),
        ReachabilityRuleManifest::crd(),
        ExemptionManifest::crd(),
    ];
    for definition in own {
        let name = definition.metadata.name.clone().unwrap();
        let force = PatchParams::apply("test").force();
        let patch = Patch::Apply(&definition);
        definitions.patch(&name, &force, &patch).await.unwrap();
        Kubernetes::eventually("the kind served", async || {
            let definition = definitions.get(&name).await.unwrap();
            let conditions = definition.status?.conditions?;
            let mut established = conditions.iter();
            let is = |it: &&_| {
                let it: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionCondition = it;
                it.type_ == "Established" && it.status == "True"
            };
            established.find(is).map(|_| ())
        })
        .await;
    }
}

pub(crate) fn guardrails(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("ringfence.dev", "v1alpha1", "Guardrail");
    let resource = ApiResource::from_gvk_with_plural(&kind, "guardrails");
    Api::all_with(client.clone(), &resource)
}

pub(crate) fn guardrail(name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": name}, "spec": spec
    }))
    .unwrap()
}

pub(crate) async fn make<K>(client: &Client, namespace: &str, object: Value)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

pub(crate) async fn make_namespace(client: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    namespaces
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
    // Without the controller manager nobody makes it.
    let account = json!({"metadata": {"name": "default"}});
    make::<k8s_openapi::api::core::v1::ServiceAccount>(client, name, account).await;
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "none"}]}
    })
}

pub(crate) fn default_deny() -> Value {
    json!({
        "metadata": {"name": "default-deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    })
}

fn at_once() -> DeleteParams {
    DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    }
}

#[tokio::test]
async fn what_the_cluster_holds_shows_in_the_state_and_what_is_gone_does_not() {
    let cluster = Kubernetes::with_servers(2).await;
    let client = cluster.client_of(0).await;
    let following = follow(&client);
    let reasons = following.readiness.reasons();
    assert!(
        reasons.iter().any(|reason| reason.contains("first lists")),
        "{reasons:?}"
    );
    following.complete().await;
    assert_eq!(following.readiness.reasons(), Vec::<String>::new());

    objects_come_and_go(&client, &following).await;
    own_kinds_are_taken_up_when_they_are_served(&client, &following).await;
    policies_of_the_whole_cluster_are_known_by_kind(&cluster, &following).await;
    what_nobody_understands_changes_nothing(&client, &following).await;
    what_changes_while_the_api_server_is_gone(&cluster, &following).await;
}

async fn objects_come_and_go(client: &Client, following: &Following) {
    make_namespace(client, "shop").await;
    make::<Pod>(client, "shop", pod("web")).await;
    make::<Pod>(client, "shop", pod("db")).await;
    make::<NetworkPolicy>(client, "shop", default_deny()).await;
    following
        .until("all four", |state| {
            state.snapshot.pods_in(&"shop".into()).count() == 2
                && state.snapshot.policies_in(&"shop".into()).count() == 1
                && state
                    .snapshot
                    .namespace(&"shop".into())
                    .is_some_and(|it| it.object().is_some())
        })
        .await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    pods.delete("web", &at_once()).await.unwrap();
    following
        .until("one pod", |state| state.snapshot.pods().count() == 1)
        .await;
}

async fn own_kinds_are_taken_up_when_they_are_served(client: &Client, following: &Following) {
    assert_eq!(following.live.state.load().guardrails.iter().count(), 0);
    install(client).await;
    let spec = json!({"mode": "Enforce", "coverage": {}});
    let all = guardrails(client);
    all.create(&PostParams::default(), &guardrail("all", &spec))
        .await
        .unwrap();
    following
        .until("a guardrail", |state| state.guardrails.iter().count() == 1)
        .await;
}

/// Of one name, while the kind that replaced them is not served.
async fn policies_of_the_whole_cluster_are_known_by_kind(
    cluster: &Kubernetes,
    following: &Following,
) {
    let (group, version) = ("policy.networking.k8s.io", "v1alpha1");
    let kinds = [
        (
            "AdminNetworkPolicy",
            "adminnetworkpolicies",
            "priority: 1, ",
        ),
        (
            "BaselineAdminNetworkPolicy",
            "baselineadminnetworkpolicies",
            "",
        ),
    ];
    for (kind, plural, _) in kinds {
        cluster.apply(&definition(group, version, kind, plural, "Cluster"));
    }
    for (kind, _, priority) in kinds {
        let policy = format!(
            "{{apiVersion: {group}/{version}, kind: {kind}, metadata: {{name: default}}, spec: {{{priority}\
             subject: {{namespaces: {{}}}}, ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]}}]}}}}"
        );
        let taken = async || {
            let output = cluster.kubectl(&["apply", "-f", "-"], &policy);
            output.status.success().then_some(())
        };
        Kubernetes::eventually("the kind served", taken).await;
    }
    let has =
        |count: usize| move |state: &State| state.snapshot.cluster_policies().count() == count;
    following.until("both policies", has(2)).await;
    assert_eq!(following.live.count(Kind::AdminNetworkPolicy), 1);
    assert_eq!(following.live.count(Kind::ClusterNetworkPolicy), 0);
    let gone = cluster.kubectl(&["delete", "adminnetworkpolicy", "default"], "");
    assert!(gone.status.success());
    following.until("one policy", has(1)).await;
    assert_eq!(following.live.count(Kind::BaselineAdminNetworkPolicy), 1);
}

/// One that the API server takes: its last good version stays.
async fn what_nobody_understands_changes_nothing(client: &Client, following: &Following) {
    let all = guardrails(client);
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let loose = json!([{
        "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    }]);
    let loose: Patch<DynamicObject> = Patch::Json(serde_json::from_value(loose).unwrap());
    definitions
        .patch("guardrails.ringfence.dev", &PatchParams::default(), &loose)
        .await
        .unwrap();
    let bad = Patch::Merge(json!({"spec": {"mode": "Sometimes"}}));
    Kubernetes::eventually("the looser schema", async || {
        let patched = all.patch("all", &PatchParams::default(), &bad).await;
        patched.ok().map(|_| ())
    })
    .await;
    let told = Kubernetes::eventually("it told", async || {
        let told = following.live.undecodable();
        told.first().cloned()
    })
    .await;
    assert_eq!(
        (told.kind, told.key.name.as_str()),
        (Kind::Guardrail, "all")
    );
    assert!(
        told.earlier_in_force && told.reason.contains("mode"),
        "{told:?}"
    );
    let state = following.live.state.load_full();
    let mode = state.guardrails.iter().next().map(|it| it.spec.mode);
    assert_eq!(mode, Some(Mode::Enforce));
}

async fn what_changes_while_the_api_server_is_gone(cluster: &Kubernetes, following: &Following) {
    // The API server ends the watches of a kind whose definition has changed; they are begun again.
    Kubernetes::eventually("the state of now", async || {
        (following.live.age() == Duration::ZERO).then_some(())
    })
    .await;
    cluster.stop_server(0);
    let begun = Instant::now();
    Kubernetes::eventually("the state old", async || {
        (following.live.age() > Duration::from_secs(1)).then_some(())
    })
    .await;
    assert!(following.live.age() <= begun.elapsed() + Duration::from_secs(6));
    let other = cluster.client_of(1).await;
    Api::<Pod>::namespaced(other.clone(), "shop")
        .delete("db", &at_once())
        .await
        .unwrap();
    make::<Pod>(&other, "shop", pod("cache")).await;
    guardrails(&other)
        .delete("all", &DeleteParams::default())
        .await
        .unwrap();
    assert!(following.live.is_complete(), "it goes on with what it had");
    cluster.start_server(0).await;
    following
        .until("what changed meanwhile", |state| {
            let pods: Vec<_> = state
                .snapshot
                .pods()
                .map(|pod| pod.name().as_str())
                .collect();
            pods == ["cache"] && state.guardrails.iter().count() == 0
        })
        .await;
    Kubernetes::eventually("the state young", async || {
        (following.live.age() == Duration::ZERO).then_some(())
    })
    .await;
    assert!(following.live.undecodable().is_empty());
    let watches = following.live.watches();
    let pods = watches.iter().find(|(kind, _)| *kind == Kind::Pod).unwrap();
    assert!(pods.1.restarts > 0 && pods.1.changes > 0, "{pods:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_that_the_api_server_has_forgotten_is_read_anew() {
    let cluster = Kubernetes::with_servers(2).await;
    let client = cluster.client_of(0).await;
    install(&client).await;
    make_namespace(&client, "shop").await;
    make::<Pod>(&client, "shop", pod("db")).await;
    let admin = format!("127.0.0.1:{}", free_port());
    let authority = cluster.folder().join("ca.pem").display().to_string();
    let webhook = cluster.ringfence(
        "webhook",
        "webhook",
        &[
            "--listen=127.0.0.1:0",
            "--ca-out",
            &authority,
            "--admin",
            &admin,
        ],
    );
    webhook.line(&["listening"]).await;
    let of_pods = |series: &str| number(&admin, &format!("ringfence_{series}{{kind=\"Pod\"}} "));
    let has = async |count| {
        let seen = async || (of_pods("state_objects") == count).then_some(());
        Kubernetes::eventually("so many pods", seen).await;
    };
    has(1).await;
    assert_eq!(of_pods("watch_lists_total"), 1);
    // While it stands still its watches end, and the server that it comes back to knows nothing of what was before.
    webhook.signal("STOP");
    cluster.stop_server(0);
    let other = cluster.client_of(1).await;
    for name in ["web", "cache"] {
        make::<Pod>(&other, "shop", pod(name)).await;
    }
    cluster.start_server(0).await;
    webhook.signal("CONT");
    webhook
        .line(&[
            "kind=\"Pod\"",
            "the watch failed",
            "too old resource version",
        ])
        .await;
    has(3).await;
    assert_eq!(of_pods("watch_lists_total"), 2);
    assert!(of_pods("watch_restarts_total") > 0);
}

/// What the programs were granted before they knew of `AdminNetworkPolicy`.
const BEFORE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: before}
rules:
  - {apiGroups: ['', networking.k8s.io, ringfence.dev], resources: ['*'], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: before}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: before}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: before}]
";

#[tokio::test]
async fn a_kind_that_is_newer_than_the_role_is_missed_only_where_it_is_served() {
    let cluster = Kubernetes::start().await;
    cluster.apply(BEFORE);
    let client = cluster.client_as("before", &[]).await;
    let following = follow(&client);
    following.complete().await;

    let (group, plural) = ("policy.networking.k8s.io", "adminnetworkpolicies");
    let kind = definition(group, "v1alpha1", "AdminNetworkPolicy", plural, "Cluster");
    cluster.apply(&kind);
    let served = async || {
        let listed = cluster.kubectl(&["get", plural], "");
        listed.status.success().then_some(())
    };
    Kubernetes::eventually("the kind served", served).await;
    let another = follow(&client);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(
        !another.live.is_complete(),
        "policies may be there that are not seen"
    );
}

/// A reader whose reads the API server notes.
const READER: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: ringfence-system}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: reader, namespace: ringfence-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: before}
subjects: [{kind: ServiceAccount, name: reader, namespace: ringfence-system}]
---
";

#[tokio::test]
async fn all_that_is_there_begins_a_watch_and_comes_in_pages_from_who_knows_no_such_beginning() {
    const NAMESPACES: usize = 250;
    let cluster = Kubernetes::start().await;
    let all = (0..NAMESPACES).map(|number| {
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: made-{number}}}}}\n---\n")
    });
    cluster.apply(&format!("{BEFORE}---{READER}{}", all.collect::<String>()));
    let reader = kubeconfig(&cluster, "ringfence-system", "reader");
    let reader = Kubeconfig::read_from(reader).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(reader, &options).await;
    let client = Client::try_from(config.unwrap()).unwrap();
    let made = |state: &State| {
        let names = state.snapshot.namespaces();
        let made = names.filter(|it| it.name().as_str().starts_with("made-"));
        made.count()
    };
    for (verbs, late) in [(vec!["watch"], "one"), (vec!["list", "watch"], "other")] {
        let following = follow(&client);
        following.complete().await;
        assert_eq!(made(&following.live.state.load()), NAMESPACES);
        // It goes on from there.
        cluster.apply(&namespace(late, "prod"));
        let has = |state: &State| state.snapshot.namespace(&late.into()).is_some();
        following.until(late, has).await;
        drop(following);
        let (done, _) = used(&cluster, "ringfence-system", "reader");
        let of_them = done.into_iter().filter(|(_, what, _)| what == "namespaces");
        let asked: Vec<String> = of_them.map(|(.., verb)| verb).collect();
        assert_eq!(asked, verbs);
        cluster.without_beginnings().await;
    }
}
