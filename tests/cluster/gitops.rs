//! Ringfence beside tools that keep namespaces as git has them: whatever git comes to say, nobody writes against anybody.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::appliers::{Applier, Stages, Tracking};
use crate::events::one;
use crate::installation::{Installation, fails_for, registered};
use crate::kubernetes::Kubernetes;
use crate::registration::refused;

/// How many rounds of each tool have to pass without a write. The controller writes again what was undone after one, two and
/// four seconds, so that a fight shows in that time.
const QUIET: u64 = 10;
/// How long all of them may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(40);
const BASELINE: &str = "ringfence-baseline";

const GUARDRAIL: &str = "
apiVersion: ringfence.dev/v1alpha1
kind: Guardrail
metadata: {name: kept}
spec:
  mode: Enforce
  namespaceSelector: {matchLabels: {stage: prod}}
  coverage: {}
  baseline: {monitoring: {enabled: false}}
";

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec
    })
}

/// Out to the database and nowhere else, so that DNS is forgotten.
fn to_database(pods: &Value) -> Value {
    json!({
        "podSelector": pods, "policyTypes": ["Ingress", "Egress"],
        "egress": [{
            "to": [{"podSelector": {"matchLabels": {"app": "db"}}}],
            "ports": [{"protocol": "TCP", "port": 5432}]
        }]
    })
}

fn deny() -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
}

fn git(namespace: &str) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"stage": "prod"}}
        }),
        policy(
            namespace,
            "web",
            &to_database(&json!({"matchLabels": {"app": "web"}})),
        ),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "main", "image": "x"}]}
                }
            }
        }),
    ]
}

/// The writes that took effect, by who wrote what, and how often.
type Writes = BTreeMap<(String, String), u32>;

struct Beside<'c> {
    cluster: &'c Kubernetes,
    tools: Vec<Applier>,
    /// How much of the audit log is from before.
    seen: usize,
}

impl Beside<'_> {
    /// Has each tool's git changed, and gives what was written until all have come to rest.
    async fn after(&mut self, what: &str, change: impl Fn(&str, &mut Vec<Value>)) -> Writes {
        for tool in &self.tools {
            tool.commit(|git| change(&tool.namespace, git));
        }
        self.rest(what).await
    }

    /// Waits until nobody writes any more and every tool is content.
    async fn rest(&mut self, what: &str) -> Writes {
        let begun = Instant::now();
        let from = self.seen;
        loop {
            let rounds: Vec<u64> = self.tools.iter().map(Applier::rounds).collect();
            let before = self.writes(from).values().sum::<u32>();
            let passed = |quiet| {
                let mut tools = self.tools.iter().zip(&rounds);
                tools.all(|(tool, at)| tool.rounds() >= at + quiet)
            };
            // The round that is under way may have begun before the change.
            while !passed(QUIET + 1) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let failures: Vec<String> = self
                .tools
                .iter()
                .zip(&rounds)
                .flat_map(|(tool, at)| tool.failures_after(at + 1))
                .collect();
            let writes = self.writes(from);
            if failures.is_empty() && writes.values().sum::<u32>() == before {
                self.seen = self.lines().len();
                // Workloads have writers of their own: what Flux tries may be newer than what it has looked at.
                let again = |(object, times): &(&(String, String), &u32)| {
                    **times > 1 && !object.1.contains("deployments")
                };
                let twice: Vec<_> = writes.iter().filter(again).collect();
                assert!(twice.is_empty(), "{what}: written again: {twice:?}");
                return writes;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: no rest: {writes:?}, {failures:?}"
            );
        }
    }

    /// What the tools and Ringfence have written of namespaces, policies and workloads.
    fn writes(&self, from: usize) -> Writes {
        let mut writes = Writes::new();
        for line in self.lines().iter().skip(from) {
            // The last line may be half written.
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let text = |pointer| event.pointer(pointer).and_then(Value::as_str);
            let user = text("/impersonatedUser/username").unwrap_or_default();
            let agent = text("/userAgent").unwrap_or_default();
            let who = match self.tools.iter().find(|tool| tool.user == user) {
                Some(tool) => tool.namespace.clone(),
                None if agent.starts_with("ringfence/") => "ringfence".to_owned(),
                None => continue,
            };
            let resource = text("/objectRef/resource").unwrap_or_default();
            let is_asked = ["namespaces", "networkpolicies", "deployments"].contains(&resource);
            let is_dry = text("/requestURI").is_some_and(|uri| uri.contains("dryRun="));
            let is_done = event["responseStatus"]["code"]
                .as_u64()
                .is_some_and(|code| code < 300);
            if is_asked && is_done && !is_dry {
                let object = format!(
                    "{} {resource} {}/{}",
                    text("/verb").unwrap_or_default(),
                    text("/objectRef/namespace").unwrap_or_default(),
                    text("/objectRef/name").unwrap_or_default()
                );
                *writes.entry((who, object)).or_default() += 1;
            }
        }
        writes
    }

    fn lines(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.cluster.audit_log(0)).unwrap();
        log.lines().map(str::to_owned).collect()
    }

    async fn policy(&self, namespace: &str, name: &str) -> Option<NetworkPolicy> {
        let policies: Api<NetworkPolicy> = Api::namespaced(self.cluster.client().await, namespace);
        policies.get_opt(name).await.unwrap()
    }

    fn namespaces(&self) -> Vec<String> {
        let names = self.tools.iter().map(|tool| tool.namespace.clone());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// Who wrote policies of this name.
fn writers(writes: &Writes, name: &str) -> Vec<String> {
    let of_it = |object: &&(String, String)| {
        object.1.contains("networkpolicies") && object.1.ends_with(&format!("/{name}"))
    };
    let mut names: Vec<String> = writes
        .keys()
        .filter(of_it)
        .map(|key| key.0.clone())
        .collect();
    names.dedup();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_apply_from_git_and_the_controller_never_write_against_each_other() {
    let cluster = Kubernetes::start_with_manager().await;
    let _installation = Installation::start(&cluster, &[]).await;
    cluster.apply(GUARDRAIL);
    cluster
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: probe, labels: {stage: prod}}}");
    registered(&cluster, "probe in fail", |c| fails_for(c, "probe")).await;
    let tools = vec![
        Applier::flux(&cluster, "by-flux", Stages::Usual, git("by-flux")).await,
        Applier::argo(&cluster, "by-argo", Tracking::Annotation, git("by-argo")).await,
        Applier::argo(&cluster, "by-label", Tracking::Label, git("by-label")).await,
    ];
    let mut beside = Beside {
        cluster: &cluster,
        seen: 0,
        tools,
    };
    beside.seen = beside.lines().len();
    let namespaces = beside.namespaces();

    // Each namespace has what git has and the baseline, and git's policy is as git has it although it forgets DNS.
    let writes = beside.rest("all new").await;
    assert_eq!(writers(&writes, BASELINE), ["ringfence"]);
    assert_eq!(writers(&writes, "web"), namespaces);
    let mut good = None;
    for namespace in &namespaces {
        let made = beside.policy(namespace, BASELINE).await.unwrap();
        good = made.spec;
        let web = beside.policy(namespace, "web").await.unwrap();
        assert_eq!(web.spec.unwrap().egress.map(|rules| rules.len()), Some(1));
    }
    let good = good.unwrap();

    // git has a default-deny of its own.
    let writes = beside
        .after("a default-deny", |namespace, git| {
            git.push(policy(namespace, "default-deny", &deny()));
        })
        .await;
    assert_eq!(writers(&writes, "default-deny"), namespaces);
    assert_eq!(writers(&writes, BASELINE), Vec::<String>::new());

    // git has a policy of the very name: it is git's from then on, and that is told.
    let taken = to_database(&json!({}));
    let writes = beside
        .after("the name taken", |namespace, git| {
            git.push(policy(namespace, BASELINE, &taken));
        })
        .await;
    assert_eq!(writers(&writes, BASELINE), namespaces);
    for namespace in &namespaces {
        let spec = beside.policy(namespace, BASELINE).await.unwrap().spec;
        assert_eq!(serde_json::to_value(spec).unwrap(), taken);
        one(&cluster, namespace, "BaselineHeld", BASELINE).await;
    }

    // And no more: the baseline is back.
    let is_named = |object: &Value, name: &str| object["metadata"]["name"] == *name;
    let writes = beside
        .after("the name given back", |_, git| {
            git.retain(|object| !is_named(object, BASELINE));
        })
        .await;
    let mut all = namespaces.clone();
    all.push("ringfence".to_owned());
    assert_eq!(writers(&writes, BASELINE), all);
    for namespace in &namespaces {
        let spec = beside.policy(namespace, BASELINE).await.unwrap().spec;
        assert_eq!(spec.as_ref(), Some(&good));
    }

    namespaces_change(&cluster, &mut beside, &good).await;
}

/// git has the namespaces otherwise, so that a Guardrail selects them no more, and then again.
async fn namespaces_change(
    cluster: &Kubernetes,
    beside: &mut Beside<'_>,
    good: &NetworkPolicySpec,
) {
    let namespaces = beside.namespaces();
    let label = |git: &mut Vec<Value>, key: &str, value: &str| {
        let namespace = git.iter_mut().find(|object| object["kind"] == "Namespace");
        namespace.unwrap()["metadata"]["labels"][key] = json!(value);
    };
    let writes = beside
        .after("a label more", |_, git| label(git, "team", "shop"))
        .await;
    assert_eq!(writes.len(), namespaces.len(), "{writes:?}");
    let writes = beside
        .after("another stage", |_, git| label(git, "stage", "trial"))
        .await;
    assert_eq!(writers(&writes, BASELINE), ["ringfence"]);
    for namespace in &namespaces {
        assert!(beside.policy(namespace, BASELINE).await.is_none());
    }

    // git does all that the baseline would: nothing is made beside it.
    let own = serde_json::to_value(good).unwrap();
    beside
        .after("all by git", |namespace, git| {
            git.push(policy(namespace, "own", &own));
        })
        .await;
    let writes = beside
        .after("the stage of before", |_, git| label(git, "stage", "prod"))
        .await;
    assert_eq!(writers(&writes, BASELINE), Vec::<String>::new());

    // The tools see what is not as git has it, or all of this says nothing.
    let edit = [
        "label",
        "namespace",
        "by-flux",
        "by-argo",
        "by-label",
        "team=odd",
        "--overwrite",
    ];
    assert!(cluster.kubectl(&edit, "").status.success());
    let writes = beside.rest("a label edited").await;
    assert_eq!(writes.len(), namespaces.len(), "{writes:?}");
    for namespace in &namespaces {
        let of_it: Api<Namespace> = Api::all(cluster.client().await);
        assert_eq!(of_it.get(namespace).await.unwrap().labels()["team"], "shop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_baseline_flux_is_to_bring_policies_first_and_a_policy_without_dns_stays_as_git_has_it()
 {
    let cluster = Kubernetes::start_with_manager().await;
    let _installation = Installation::start(&cluster, &[]).await;
    // The baseline's allows are asked for, and no policy of its own.
    cluster.apply(&GUARDRAIL.replace("baseline: {", "baseline: {defaultDeny: [], "));
    cluster
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: probe, labels: {stage: prod}}}");
    registered(&cluster, "probe in fail", |c| fails_for(c, "probe")).await;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "probe"}, "spec": git("probe")[2]["spec"]
    });
    refused(&cluster, &deployment.to_string(), "default-deny").await;

    let own = |namespace: &str| {
        let mut git = git(namespace);
        git.push(policy(namespace, "default-deny", &deny()));
        git
    };
    let usual = Applier::flux(&cluster, "usual", Stages::Usual, own("usual")).await;
    let early = Stages::PoliciesFirst;
    let tools = vec![
        Applier::flux(&cluster, "early", early, own("early")).await,
        Applier::argo(&cluster, "by-argo", Tracking::Annotation, own("by-argo")).await,
        Applier::argo(&cluster, "by-label", Tracking::Label, own("by-label")).await,
    ];
    let mut beside = Beside {
        cluster: &cluster,
        seen: 0,
        tools,
    };
    beside.rest("all new").await;
    for namespace in beside.namespaces() {
        let web = beside.policy(&namespace, "web").await.unwrap();
        assert_eq!(web.spec.unwrap().egress.map(|rules| rules.len()), Some(1));
    }
    // What is tried before the policy is there is refused, and so the policy never comes.
    let failed = async || usual.failures_after(0).pop();
    let refusal = Kubernetes::eventually("a round of `usual` that fails", failed).await;
    assert!(refusal.contains("default-deny"), "{refusal}");
    assert!(beside.policy("usual", "web").await.is_none());
    // Somebody else's policy is given what it forgot, or all of this says nothing.
    let forgets = policy("probe", "web", &to_database(&json!({})));
    cluster.apply(&forgets.to_string());
    let web = beside.policy("probe", "web").await.unwrap();
    assert_eq!(web.spec.unwrap().egress.map(|rules| rules.len()), Some(2));
}
