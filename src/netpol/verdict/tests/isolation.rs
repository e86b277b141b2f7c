//! Which pods are isolated, and how policies add up.

use serde_json::json;

use crate::netpol::testing::{
    Cluster, namespace, network_policy, patched, pod, policy, problem_fields,
};
use crate::netpol::{Direction, EndVerdict, Isolates, Isolation, PolicyRef};

const NEITHER: [bool; 2] = [false, false];

/// The directions in which the policy of a spec isolates: ingress, egress.
fn isolates(spec: serde_json::Value) -> [bool; 2] {
    let policy = network_policy(&policy("a/p", spec));
    Direction::BOTH.map(|direction| policy.isolates(direction))
}

/// Two pods in one namespace, and these policies.
fn two_pods<const N: usize>(policies: [serde_json::Value; N]) -> Cluster {
    let pods = [
        pod("a/web", "app=web", ["10.0.0.1"]),
        pod("a/db", "app=db", ["10.0.0.2"]),
    ];
    Cluster::of(pods.into_iter().chain(policies))
}

/// Line 1: empty `policyTypes` means Ingress always, and Egress if and only if there is an egress rule.
#[test]
fn s1_01_policy_types_default_by_the_presence_of_egress_rules() {
    assert_eq!(isolates(json!({})), [true, false]);
    assert_eq!(isolates(json!({"policyTypes": []})), [true, false]);
    assert_eq!(
        isolates(json!({"policyTypes": null, "ingress": [{}]})),
        [true, false]
    );
    assert_eq!(isolates(json!({"egress": [{}]})), [true, true]);
    assert_eq!(
        isolates(json!({"policyTypes": [], "egress": [{}]})),
        [true, true]
    );
    assert_eq!(
        Isolation::by_rules(0),
        Isolation {
            ingress: Isolates::Yes,
            egress: Isolates::No
        }
    );
}

/// Line 2: an empty egress list without `policyTypes` isolates ingress only; to deny egress one must say so.
#[test]
fn s1_02_an_empty_egress_list_does_not_isolate_egress() {
    assert_eq!(isolates(json!({"egress": []})), [true, false]);
    assert_eq!(
        isolates(json!({"egress": [], "policyTypes": ["Egress"]})),
        [false, true]
    );
    let cluster = two_pods([policy("a/p", json!({"podSelector": {}, "egress": []}))]);
    assert_eq!(
        cluster.verdict("a/web", "192.0.2.1", "TCP 80").egress,
        EndVerdict::NotIsolated
    );
}

/// Line 3: with `policyTypes: [Ingress]` egress rules are ignored; duplicates pass, unknown types and more than two do not.
#[test]
fn s1_03_rules_of_a_direction_that_is_not_listed_are_ignored() {
    let spec = json!({"policyTypes": ["Ingress"], "egress": [{"ports": [{"port": 53}]}]});
    assert_eq!(isolates(spec.clone()), [true, false]);
    assert_eq!(
        isolates(json!({"policyTypes": ["Ingress", "Ingress"]})),
        [true, false]
    );
    assert_eq!(
        isolates(json!({"policyTypes": ["Egress", "Ingress"]})),
        [true, true]
    );

    let ignored = network_policy(&policy("a/p", spec.clone()));
    assert_eq!(ignored.egress.len(), 1);
    assert_eq!(ignored.rules(Direction::Egress), []);

    // The ignored rules allow nothing either, when another policy isolates egress.
    let deny = policy("a/deny", json!({"policyTypes": ["Egress"]}));
    let cluster = two_pods([deny, policy("a/p", spec)]);
    assert!(!cluster.allows("a/web", "192.0.2.1", "TCP 53"));

    let types =
        |types: serde_json::Value| problem_fields(&policy("a/p", json!({"policyTypes": types})));
    assert_eq!(
        types(json!(["Ingress", "ingress"])),
        ["spec.policyTypes[1]"]
    );
    assert_eq!(
        types(json!(["Ingress", "Egress", "Ingress"])),
        ["spec.policyTypes"]
    );
}

/// Line 4: a policy for egress only does not isolate ingress, and the other way round; the two are independent.
#[test]
fn s1_04_the_two_isolations_are_independent() {
    let select_db = json!({"matchLabels": {"app": "db"}});
    let egress = policy(
        "a/p",
        json!({"podSelector": select_db, "policyTypes": ["Egress"]}),
    );
    let ingress = policy(
        "a/p",
        json!({"podSelector": select_db, "policyTypes": ["Ingress"]}),
    );
    let both_ways = |cluster: &Cluster| {
        [("a/web", "a/db"), ("a/db", "a/web")].map(|(from, to)| cluster.allows(from, to, "TCP 80"))
    };
    assert_eq!(both_ways(&two_pods([egress])), [true, false]);
    assert_eq!(both_ways(&two_pods([ingress])), [false, true]);
}

/// Line 5: an empty podSelector and an absent one both mean all pods of the policy's namespace.
#[test]
fn s1_05_an_absent_pod_selector_selects_every_pod_of_the_namespace() {
    for spec in [
        json!({}),
        json!({"podSelector": {}}),
        json!({"podSelector": null}),
        json!(null),
    ] {
        let elsewhere = pod("b/web", "app=web", ["10.0.1.1"]);
        let cluster = two_pods([policy("a/p", spec)]).with(&elsewhere);
        assert_eq!(
            ["a/web", "a/db"].map(|to| cluster.allows("b/web", to, "TCP 80")),
            NEITHER
        );
        assert!(cluster.allows("a/web", "b/web", "TCP 80"));
        let policies: Vec<_> = cluster.0.policies().collect();
        assert!(policies[0].selects(cluster.pod("a/web")));
        assert!(!policies[0].selects(cluster.pod("b/web")));
    }
}

/// Line 6: absent rules and an empty list of rules allow nothing; one empty rule allows everything.
#[test]
fn s1_06_no_rules_allow_nothing_and_an_empty_rule_allows_everything() {
    let from = ["a/db", "192.0.2.1"];
    for spec in [json!({}), json!({"ingress": []}), json!({"ingress": null})] {
        assert_eq!(
            two_pods([policy("a/p", spec)]).allows_from(from, "a/web"),
            NEITHER
        );
    }
    let open = json!({"ingress": [{}]});
    assert_eq!(
        two_pods([policy("a/p", open)]).allows_from(from, "a/web"),
        [true, true]
    );
    let egress = |rules: serde_json::Value| {
        let spec = json!({"policyTypes": ["Egress"], "egress": rules});
        two_pods([policy("a/p", spec)]).allows("a/web", "192.0.2.1", "UDP 53")
    };
    assert!(!egress(json!([])) && egress(json!([{}])));
}

/// Line 14: a changed label of a namespace or of a running pod takes effect without any other change.
#[test]
fn s1_14_changed_labels_of_namespaces_and_pods_take_effect() {
    let peer = json!({"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": {"matchLabels": {"app": "web"}}});
    let allow = policy("a/p", json!({"ingress": [{"from": [peer]}]}));
    let unlabelled = pod("b/web", "", ["10.0.1.1"]);
    let before = two_pods([allow, namespace("b", json!({})), unlabelled]);
    assert!(!before.allows("b/web", "a/db", "TCP 80"));

    let relabelled = before.with(&namespace("b", json!({"team": "x"})));
    assert!(!relabelled.allows("b/web", "a/db", "TCP 80"));
    let relabelled = relabelled.with(&pod("b/web", "app=web", ["10.0.1.1"]));
    assert!(relabelled.allows("b/web", "a/db", "TCP 80"));
    assert!(
        !before.allows("b/web", "a/db", "TCP 80"),
        "the earlier snapshot stays as it was"
    );
}

/// Line 15: policies add up, their order never matters, and none can take away what another allows.
#[test]
fn s1_15_policies_are_a_union_whatever_their_order() {
    let allow = |name: &str, app: &str| {
        let peer = json!({"podSelector": {"matchLabels": {"app": app}}});
        policy(&format!("a/{name}"), json!({"ingress": [{"from": [peer]}]}))
    };
    let deny = policy("a/deny", json!({}));
    let orders = [["z", "m"], ["m", "z"]]
        .map(|[web, db]| two_pods([allow(web, "web"), deny.clone(), allow(db, "db")]));
    for cluster in orders {
        assert_eq!(
            cluster.allows_from(["a/web", "a/db", "192.0.2.1"], "a/web"),
            [true, true, false]
        );
    }
}

/// Line 16: a connection needs the egress of its source and the ingress of its destination.
#[test]
fn s1_16_both_ends_must_allow_a_flow() {
    let web = json!({"matchLabels": {"app": "web"}});
    let db = json!({"matchLabels": {"app": "db"}});
    let egress = json!({"podSelector": web, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": db}]}]});
    let ingress = json!({"podSelector": db, "ingress": [{"from": [{"podSelector": web}]}]});
    let deny = || policy("a/deny", json!({"policyTypes": ["Ingress", "Egress"]}));
    let (egress, ingress) = (policy("a/out", egress), policy("a/in", ingress));
    let flows = |cluster: Cluster| cluster.allows("a/web", "a/db", "TCP 80");
    assert!(!flows(two_pods([deny()])));
    assert!(!flows(two_pods([deny(), egress.clone()])));
    assert!(!flows(two_pods([deny(), ingress.clone()])));
    assert!(flows(two_pods([deny(), ingress, egress])));
}

/// Line 17: policies are about connections: who may be called need not be allowed to call back.
#[test]
fn s1_17_replies_belong_to_the_connection() {
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "db"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [web]}],
    });
    let cluster = two_pods([policy("a/p", spec)]);
    assert!(cluster.allows("a/web", "a/db", "TCP 80"));
    assert!(!cluster.allows("a/db", "a/web", "TCP 80"));
}

/// Line 41: without its last policy a pod is not isolated any more.
#[test]
fn s1_41_a_pod_is_open_again_without_its_last_policy() {
    let cluster = two_pods([policy("a/one", json!({})), policy("a/two", json!({}))]);
    let one = cluster.without_policy("a", "one");
    assert!(!one.allows("a/web", "a/db", "TCP 80"));
    let none = one.without_policy("a", "two");
    assert_eq!(
        none.verdict("a/web", "a/db", "TCP 80").ingress,
        EndVerdict::NotIsolated
    );
}

/// Line 42: policies in a terminating namespace, policies that select no pod and policies in another namespace than the pods
/// that their author meant have no effect.
#[test]
fn s1_42_policies_of_terminating_or_other_namespaces_have_no_effect() {
    let allows = |cluster: &Cluster| cluster.allows("a/web", "a/db", "TCP 80");
    let nothing = json!({"podSelector": {"matchLabels": {"app": "nothing"}}});
    assert!(allows(&two_pods([policy("a/p", nothing)])));
    assert!(allows(&two_pods([policy("b/p", json!({}))])));

    let denied = two_pods([policy("a/p", json!({})), namespace("a", json!({}))]);
    assert!(!allows(&denied));
    let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let terminating = denied.with(&patched(namespace("a", json!({})), ending));
    assert!(allows(&terminating));
    assert!(
        !terminating
            .0
            .namespace_coverage(&"a".into())
            .covered(Direction::Ingress)
    );
    let phase = patched(
        namespace("a", json!({})),
        json!({"status": {"phase": "Terminating"}}),
    );
    assert!(allows(&denied.with(&phase)));
}

#[test]
fn a_verdict_says_which_policies_isolate_and_which_rule_allows() {
    let cluster = two_pods([
        policy("a/deny", json!({})),
        policy(
            "a/open",
            json!({
                "podSelector": {"matchLabels": {"app": "db"}},
                "ingress": [
                    {"ports": [{"port": 443}]},
                    {
                        "from": [{"podSelector": {"matchLabels": {"app": "x"}}}, {"podSelector": {}}],
                        "ports": [{"port": 81}, {"port": 80}],
                    },
                ],
            }),
        ),
    ]);
    let verdict = cluster.verdict("a/web", "a/db", "TCP 80");
    let EndVerdict::Allowed { isolated_by, by } = &verdict.ingress else {
        panic!("{verdict}")
    };
    let reference = |name: &str| PolicyRef::new("a", name);
    assert_eq!(*isolated_by, [reference("deny"), reference("open")]);
    assert_eq!((by.index, by.peer, by.port), (1, Some(1), Some(1)));
    assert_eq!(
        verdict.to_string(),
        "allowed; egress: passes, no policy isolates it; \
         ingress: passes by a/open spec.ingress[1].from[1], isolated by a/deny, a/open"
    );
    let denied = cluster.verdict("a/db", "a/web", "TCP 80");
    assert_eq!(
        denied.ingress,
        EndVerdict::Denied {
            isolated_by: vec![reference("deny")]
        }
    );
    let anyone = cluster.verdict("192.0.2.1", "a/db", "TCP 443");
    assert!(
        anyone
            .to_string()
            .contains("passes by a/open spec.ingress[0], isolated"),
        "{anyone}"
    );
}
