use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::guard::audit::{self, Baselines, Kind};
use crate::guard::decide::{Context, Decision};
use crate::guard::engine::{
    Answers, Budget, Mutations, NoPolicies, PolicyEngine, PolicyInfo, Question,
};
use crate::guard::exemption::Exemptions;
use crate::guard::guardrail::{GuardrailSpec, Guardrails};
use crate::guard::reachability::{ReachabilityRule, ReachabilityRules};
use crate::guard::review::Subject;
use crate::guard::testing::{guardrail, now};

/// What is demanded of a cluster.
#[derive(Clone)]
struct Demands {
    spec: GuardrailSpec,
    rules: Vec<Value>,
    exemptions: Vec<Value>,
    engine: Arc<dyn PolicyEngine>,
}

impl Demands {
    fn of(spec: &Value) -> Self {
        Self {
            spec: serde_json::from_value(spec.clone()).expect("a good specification"),
            rules: Vec::new(),
            exemptions: Vec::new(),
            engine: Arc::new(NoPolicies),
        }
    }

    fn state(&self, objects: &[Value]) -> State {
        let objects = objects.iter().map(|object| Subject::new(object.clone()));
        let model = |subject: Subject| match subject.model() {
            Some(crate::netpol::Object::Workload(_)) | None => None,
            Some(object) => Some(object.clone()),
        };
        let snapshot: Snapshot = objects.filter_map(model).collect();
        let rules = self.rules.iter();
        let rules = rules.map(|rule| ReachabilityRule::parse(rule).expect("a good rule"));
        let exemptions = self.exemptions.iter();
        let exemptions = exemptions.map(|it| Exemption::parse(it).expect("a good exemption"));
        State {
            guardrails: Guardrails::new(vec![guardrail("all", &self.spec)]).with_baselines_kept(),
            exemptions: Exemptions::new(exemptions.collect()),
            reachability: ReachabilityRules::new(rules.collect(), &snapshot),
            engine: Arc::clone(&self.engine),
            snapshot,
        }
    }

    /// What is touched by a change from some objects to others.
    fn touched(&self, before: &[Value], after: &[Value]) -> Touched {
        let (before, after) = (self.state(before), self.state(after));
        touched(at(&before), at(&after))
    }
}

fn at(state: &State) -> Moment<'_> {
    Moment { state, at: now() }
}

/// The namespaces that are touched, in order; none where everything is.
fn names(touched: &Touched) -> Option<Vec<&str>> {
    match touched {
        Touched::All => None,
        Touched::Some { namespaces, .. } => {
            Some(namespaces.iter().map(NamespaceName::as_str).collect())
        }
    }
}

fn namespace(name: &str, team: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}})
}

fn pod(place: &str, app: &str, address: &str) -> Value {
    let (namespace, name) = place.split_once('/').expect("a place");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "x", "ports": [{"name": app, "containerPort": 80}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]}
    })
}

fn deployment(place: &str, app: &str) -> Value {
    let (namespace, name) = place.split_once('/').expect("a place");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": app}}, "template": {
            "metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}}
    })
}

fn policy(place: &str, spec: &Value) -> Value {
    let (namespace, name) = place.split_once('/').expect("a place");
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec
    })
}

fn to_namespace(name: &str) -> Value {
    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}, "podSelector": {"matchLabels": {"app": "db"}}
    }]}]})
}

/// Namespaces `a` to `f`, a pod in each, and one of the system.
fn cluster() -> Vec<Value> {
    let mut objects = vec![
        namespace("kube-system", "system"),
        pod("kube-system/dns", "dns", "10.0.0.1"),
    ];
    for (number, name) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        objects.push(namespace(name, if number < 3 { "red" } else { "blue" }));
        let address = format!("10.0.1.{number}");
        objects.push(pod(&format!("{name}/web"), "web", &address));
    }
    objects
}

fn and(objects: &[Value], more: &[Value]) -> Vec<Value> {
    [objects, more].concat()
}

#[test]
fn what_does_not_differ_touches_nothing_and_a_change_its_namespace() {
    let demands = Demands::of(&json!({"mode": "Audit", "coverage": {}, "hygiene": {}}));
    let there = cluster();
    assert_eq!(
        demands.touched(&there, &there),
        Touched::Some {
            namespaces: BTreeSet::new(),
            kinds: Vec::new()
        }
    );
    let with = and(&there, &[pod("b/db", "db", "10.0.2.1")]);
    assert_eq!(names(&demands.touched(&there, &with)), Some(vec!["b"]));
    assert_eq!(names(&demands.touched(&with, &there)), Some(vec!["b"]));
    let without: Vec<Value> = there
        .iter()
        .filter(|object| {
            object["metadata"]["namespace"] != "f" && object["metadata"]["name"] != "f"
        })
        .cloned()
        .collect();
    assert_eq!(names(&demands.touched(&there, &without)), Some(vec!["f"]));
}

#[test]
fn a_policy_that_means_pods_of_another_namespace_is_touched_with_them_when_it_shows() {
    let demands = Demands::of(&json!({"mode": "Audit", "hygiene": {}}));
    let there = and(&cluster(), &[policy("a/out", &to_namespace("b"))]);
    // Nobody was meant, and now somebody is.
    let with = and(&there, &[pod("b/db", "db", "10.0.2.1")]);
    assert_eq!(names(&demands.touched(&there, &with)), Some(vec!["a", "b"]));
    // One more of those who are meant changes nothing that is said.
    let more = and(&with, &[pod("b/db-2", "db", "10.0.2.2")]);
    assert_eq!(names(&demands.touched(&with, &more)), Some(vec!["b"]));
    // The other end takes none of it.
    let deny = policy(
        "b/deny",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    let denied = and(&with, &[deny]);
    assert_eq!(
        names(&demands.touched(&with, &denied)),
        Some(vec!["a", "b"])
    );
}

#[test]
fn a_rule_touches_the_namespaces_that_it_speaks_of_with_the_changed_one() {
    let mut demands = Demands::of(&json!({"mode": "Audit", "coverage": {}}));
    demands.rules = vec![json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule", "metadata": {"name": "apart"},
        "spec": {"expect": "Deny", "from": [{"namespaces": ["a"]}], "to": [{"namespaces": ["b"]}]}
    })];
    let there = cluster();
    let changed = |name: &str| {
        let with = and(&there, &[pod(&format!("{name}/new"), "web", "10.0.2.1")]);
        demands.touched(&there, &with)
    };
    for name in ["a", "b"] {
        let touched = changed(name);
        assert_eq!(names(&touched), Some(vec!["a", "b"]));
        // The rule itself is held against the pods that are there.
        let Touched::Some { kinds, .. } = touched else {
            panic!("some")
        };
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.kind).collect();
        assert_eq!(kinds, ["ReachabilityRule"]);
    }
    assert_eq!(names(&changed("c")), Some(vec!["c"]));
}

#[test]
fn what_every_object_is_held_to_touches_everything() {
    let demands = Demands::of(&json!({"mode": "Audit", "coverage": {}}));
    let there = cluster();
    let before = demands.state(&there);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    let wide = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "wide"}, "spec": {"tier": "Baseline", "priority": 1, "subject": {"namespaces": {}},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}});
    for more in [node, wide] {
        let after = demands.state(&and(&there, &[more]));
        assert_eq!(touched(at(&before), at(&after)), Touched::All);
    }
    let mut ruled = demands.clone();
    ruled.rules = vec![json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule", "metadata": {"name": "apart"},
        "spec": {"expect": "Deny", "from": [{"namespaces": ["a"]}], "to": [{"namespaces": ["b"]}]}
    })];
    let mut other = demands.clone();
    other.engine = Arc::new(Curious);
    let stricter = Demands::of(&json!({"mode": "Enforce", "coverage": {}}));
    for demands in [ruled, other, stricter] {
        let after = demands.state(&there);
        assert_eq!(touched(at(&before), at(&after)), Touched::All);
    }
}

/// Policies that may ask about any namespace.
struct Curious;

impl PolicyEngine for Curious {
    fn evaluate(&self, _: &Question<'_>) -> Answers {
        Answers::default()
    }

    fn mutate(&self, _: &Question<'_>) -> Mutations {
        Mutations::default()
    }

    fn registry(&self) -> Vec<PolicyInfo> {
        Vec::new()
    }

    fn looks_far(&self) -> bool {
        true
    }
}

#[test]
fn policies_in_rego_that_look_far_see_every_change_where_they_are_asked() {
    let there = cluster();
    let with = and(&there, &[pod("b/db", "db", "10.0.2.1")]);
    for (spec, all) in [
        (json!({"mode": "Audit", "coverage": {}}), false),
        (json!({"mode": "Audit", "policies": {}}), true),
    ] {
        let mut demands = Demands::of(&spec);
        demands.engine = Arc::new(Curious);
        assert_eq!(demands.touched(&there, &with) == Touched::All, all);
        assert_ne!(demands.touched(&there, &there), Touched::All);
    }
}

#[test]
fn an_exemption_touches_its_namespace_when_it_comes_and_when_it_ends() {
    let demands = Demands::of(&json!({"mode": "Audit", "coverage": {}}));
    let mut exempted = demands.clone();
    exempted.exemptions = vec![json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption", "metadata": {"name": "mine", "namespace": "c"},
        "spec": {"guardrail": "all", "checks": ["RF201"], "objects": [{"kind": "Pod", "name": "web"}], "reason": "r",
            "owner": "o", "expires": "2026-06-02T00:00:00Z"}
    })];
    let (before, after) = (demands.state(&cluster()), exempted.state(&cluster()));
    // The same engine is the same policies.
    assert_eq!(names(&touched(at(&before), at(&after))), Some(vec!["c"]));
    let later = Moment {
        state: &after,
        at: "2026-06-03T00:00:00Z".parse().expect("a time"),
    };
    assert_eq!(names(&touched(at(&after), later)), Some(vec!["c"]));
    assert_eq!(names(&touched(later, later)), Some(Vec::new()));
}

#[test]
fn many_namespaces_are_everything() {
    let demands = Demands::of(&json!({"mode": "Audit", "coverage": {}}));
    let there = cluster();
    let pods = ["a", "b", "c", "d"].map(|name| pod(&format!("{name}/new"), "web", "10.0.2.1"));
    assert_eq!(
        names(&demands.touched(&there, &and(&there, &pods[..3]))),
        Some(vec!["a", "b", "c"])
    );
    assert_eq!(demands.touched(&there, &and(&there, &pods)), Touched::All);
}

/// What the audit says of each object, by what it is.
fn decisions(state: &State, objects: &[Value]) -> BTreeMap<String, Option<Decision>> {
    let all = Neighbourhood::of(&state.snapshot);
    let context = Context {
        neighbourhood: Some(&all),
        ..state.context()
    };
    let baselines = Baselines::of(&context);
    let decided = objects.iter().map(|object| {
        let is_kind = |kind: &&Kind| object["kind"] == kind.kind;
        let kind = KINDS.iter().find(is_kind).expect("a kind that is audited");
        let review = audit::review(object.clone(), kind);
        let decision = audit::decide(&review, &baselines, &context, now(), Budget::UNHURRIED);
        (review.object_ref().to_string(), decision)
    });
    decided.collect()
}

fn any_object() -> impl Strategy<Value = Value> {
    let places = ["a", "b", "c", "d", "e", "f"];
    let place = prop::sample::select(places.to_vec());
    let other = prop::sample::select(places.to_vec());
    let app = prop::sample::select(vec!["web", "db", "api"]);
    let team = prop::sample::select(vec!["red", "blue"]);
    (0..8, place, other, app, team, 0..4_u8, any::<bool>()).prop_map(
        |(kind, place, other, app, team, number, flag)| {
            let at = |name: &str| format!("{place}/{name}-{number}");
            match kind {
                0 => namespace(place, team),
                1 => deployment(&at("made"), app),
                2..4 => {
                    let net = if flag { "10.0" } else { "172.16" };
                    let octet = place.as_bytes().first().copied().unwrap_or_default();
                    let address = format!("{net}.{octet}.{number}");
                    pod(&at("pod"), app, &address)
                }
                _ => {
                    let peer = match (kind, flag) {
                        (4, true) => json!({"ipBlock": {"cidr": "10.0.0.0/8"}}),
                        (4, false) => json!({"ipBlock": {"cidr": "172.16.0.0/16"}}),
                        (5, _) => json!({"namespaceSelector": {"matchLabels": {"team": team}}, "podSelector": {"matchLabels": {"app": app}}}),
                        (7, true) => json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other, "team": team}}}),
                        (6, true) => json!({"podSelector": {"matchLabels": {"app": app}}}),
                        _ => json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other}}}),
                    };
                    let rule = json!({if flag { "from" } else { "to" }: [peer], "ports": [{"port": app}]});
                    let rules = if flag { "ingress" } else { "egress" };
                    let types = if flag { "Ingress" } else { "Egress" };
                    let selector = if number == 0 { json!({}) } else { json!({"matchLabels": {"app": app}}) };
                    policy(&at("policy"), &json!({"podSelector": selector, "policyTypes": [types], rules: [rule]}))
                }
            }
        },
    )
}

fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    format!(
        "{} {} {}",
        object["kind"], metadata["namespace"], metadata["name"]
    )
}

proptest! {
    /// What is not touched is decided as before, whatever has changed.
    #[test]
    fn what_is_decided_otherwise_is_touched(
        there in prop::collection::vec(any_object(), 0..30),
        changes in prop::collection::vec((any_object(), any::<bool>()), 1..3),
        is_ruled in any::<bool>(),
    ) {
        let mut demands = Demands::of(&serde_json::to_value(GuardrailSpec::built_in()).expect("it can be written"));
        if is_ruled {
            demands.rules = [("a", "db"), ("d", "web")].map(|(name, app)| json!({
                "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule", "metadata": {"name": name},
                "spec": {
                    "expect": if name == "a" { "Deny" } else { "Allow" }, "from": [{"namespaces": [name]}],
                    "to": [{"namespaces": ["b"], "podSelector": {"matchLabels": {"app": app}}}]
                }
            })).into();
        }
        let unique = |objects: &[Value]| -> BTreeMap<String, Value> {
            objects.iter().map(|object| (key(object), object.clone())).collect()
        };
        let before = unique(&and(&cluster(), &there));
        let mut after = before.clone();
        for (object, is_there) in changes {
            if is_there {
                after.insert(key(&object), object);
            } else {
                after.remove(&key(&object));
            }
        }
        let [old, new] = [&before, &after].map(|objects| objects.values().cloned().collect::<Vec<_>>());
        let (old_state, new_state) = (demands.state(&old), demands.state(&new));
        let found = touched(at(&old_state), at(&new_state));
        let Touched::Some { namespaces, .. } = &found else {
            return Ok(());
        };
        let same: Vec<Value> = new
            .iter()
            .filter(|object| before.get(&key(object)) == Some(object))
            .filter(|object| {
                let metadata = &object["metadata"];
                let name = if object["kind"] == "Namespace" { &metadata["name"] } else { &metadata["namespace"] };
                !namespaces.contains(&NamespaceName::from(name.as_str().expect("a name")))
            })
            .cloned()
            .collect();
        prop_assert_eq!(decisions(&old_state, &same), decisions(&new_state, &same));
    }
}
