use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::netpol::reach::Place;
use crate::netpol::testing::{Cluster, deployment, object, pod, policy, problems, staged};
use crate::netpol::{Direction, Object, ObjectKey, PolicyRef, Reachability};

fn canary(place: &str, canary: Value, spec: Value) -> Value {
    let mut manifest = staged(place, spec);
    manifest["spec"]["stage"] = json!("Canary");
    manifest["spec"]["canary"] = canary;
    manifest
}

#[test]
fn it_is_read_as_the_network_policy_that_it_is_to_become() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{"ports": [{"port": 53}]}]});
    let Object::StagedNetworkPolicy(tried) = object(&staged("shop/web", spec.clone())) else {
        panic!("another kind");
    };
    let Object::NetworkPolicy(real) = object(&policy("shop/web", spec)) else {
        panic!("another kind");
    };
    assert_eq!((tried.stage, &tried.canary), (Stage::Shadow, &None));
    let promoted = NetworkPolicy {
        standing: Standing::InForce,
        ..tried.policy
    };
    assert_eq!(promoted, real);
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let bad = |spec: Value| problems(&staged("shop/web", spec));
    assert_eq!(
        bad(json!({"stage": "Canary"})),
        ["spec.canary: is missing: stage Canary must say for which of the pods it is in force"]
    );
    assert_eq!(
        bad(json!({"canary": {"percent": 100}})),
        ["spec.canary.percent: must be from 1 to 99"]
    );
    assert_eq!(
        bad(json!({"canary": {"percent": 5, "podSelector": {}}})),
        ["spec.canary: must have either `percent` or `podSelector`"]
    );
    let fields = bad(json!({
        "stage": "Loud", "policyTypes": ["Up"], "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}],
    }));
    assert!(fields[0].starts_with("spec.stage: "), "{fields:?}");
    let fields = bad(json!({
        "policyTypes": ["Up"], "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}],
        "canary": {"podSelector": {"matchLabels": {"": "x"}}},
    }));
    let begin = [
        "spec.ingress[0].from[0].ipBlock.cidr: ",
        "spec.policyTypes[0]: ",
        "spec.canary.podSelector.matchLabels",
    ];
    assert_eq!(fields.len(), begin.len(), "{fields:?}");
    for (field, begin) in fields.iter().zip(begin) {
        assert!(field.starts_with(begin), "{field}");
    }
}

#[test]
fn a_shadow_holds_nobody_and_covers_nobody() {
    let cluster = Cluster::of([
        pod("shop/web", "app=web", []),
        pod("shop/db", "app=db", []),
        staged("shop/deny", json!({})),
    ]);
    assert!(cluster.allows("shop/web", "shop/db", "TCP 80"));
    let namespace = "shop".into();
    assert!(
        !cluster
            .0
            .namespace_coverage(&namespace)
            .covered(Direction::Ingress)
    );
    let staged: Vec<_> = cluster.0.staged_policies().collect();
    let promoted = Cluster(cluster.0.promoting(staged));
    assert_eq!(
        promoted
            .verdict("shop/web", "shop/db", "TCP 80")
            .ingress
            .to_string(),
        "does not pass, isolated by StagedNetworkPolicy shop/deny and allowed by no rule"
    );
}

#[test]
fn a_canary_holds_the_pods_that_it_chooses_and_covers_none() {
    let chosen = json!({"podSelector": {"matchLabels": {"track": "canary"}}});
    let cluster = Cluster::of([
        pod("shop/web-1", "app=web,track=canary", []),
        pod("shop/web-2", "app=web", []),
        pod("shop/db", "app=db,track=canary", []),
        canary(
            "shop/web",
            chosen,
            json!({"podSelector": {"matchLabels": {"app": "web"}}}),
        ),
    ]);
    let from = |to: &str| cluster.verdict("shop/db", to, "TCP 80").ingress.to_string();
    assert_eq!(
        from("shop/web-1"),
        "does not pass, isolated by StagedNetworkPolicy shop/web (canary) and allowed by no rule"
    );
    assert_eq!(from("shop/web-2"), "passes, no policy isolates it");
    assert!(cluster.allows("shop/web-2", "shop/db", "TCP 80"));
    let covered = cluster.0.pod_coverage(cluster.pod("shop/web-1"));
    assert!(!covered.covered(Direction::Ingress));
    let name = PolicyRef::staged("shop", "web");
    assert!(cluster.0.staged_policy(&name).is_some() && cluster.0.policies().next().is_none());
}

#[test]
fn for_the_chosen_pods_it_is_in_the_place_of_the_policy_of_its_name() {
    let chosen = json!({"podSelector": {"matchLabels": {"track": "canary"}}});
    let stricter = policy("shop/web", json!({"policyTypes": ["Ingress"]}));
    let open = canary("shop/web", chosen, json!({"ingress": [{}]}));
    let pods = [
        pod("shop/web-1", "track=canary", []),
        pod("shop/web-2", "", []),
    ];
    // In whatever order they are told.
    let one = Cluster::of(pods.clone()).with(&stricter).with(&open);
    let other = Cluster::of(pods).with(&open).with(&stricter);
    assert_eq!(one.0, other.0);
    assert!(one.allows("shop/web-2", "shop/web-1", "TCP 80"));
    assert!(!one.allows("shop/web-1", "shop/web-2", "TCP 80"));
    let ended = one
        .0
        .without(&ObjectKey::StagedNetworkPolicy(PolicyRef::staged(
            "shop", "web",
        )));
    assert!(!Cluster(ended).allows("shop/web-2", "shop/web-1", "TCP 80"));
    let bare = Cluster(
        one.0
            .without(&ObjectKey::NetworkPolicy(PolicyRef::new("shop", "web"))),
    );
    assert!(bare.allows("shop/web-1", "shop/web-2", "TCP 80"));
}

#[test]
fn who_gives_way_to_a_trial_covers_whom_that_isolates_as_well() {
    use Direction::{Egress, Ingress};
    let all = json!({"policyTypes": ["Ingress", "Egress"]});
    let deny = policy("shop/deny", all.clone());
    let pods = [
        pod("shop/web-1", "track=canary", []),
        pod("shop/web-2", "", []),
        deployment("shop/api", "app=api"),
    ];
    let cluster = Cluster::of(pods).with(&deny);
    let missing = |chosen: &Value, spec: &Value| {
        let tried = cluster.with(&canary("shop/deny", chosen.clone(), spec.clone()));
        let of_pod = |name| tried.0.pod_coverage(tried.pod(name)).missing();
        let of_all = tried.0.namespace_coverage(&"shop".into()).missing();
        [of_pod("shop/web-1"), of_pod("shop/web-2"), of_all]
    };
    let chosen = json!({"podSelector": {"matchLabels": {"track": "canary"}}});
    assert_eq!(missing(&chosen, &all), [vec![], vec![], vec![]]);
    let one_way = json!({"policyTypes": ["Ingress"]});
    let egress = vec![Egress];
    assert_eq!(missing(&chosen, &one_way), [egress.clone(), vec![], egress]);
    let nobody = json!({"podSelector": {"matchLabels": {"x": "none"}}, "policyTypes": ["Ingress", "Egress"]});
    let both = vec![Ingress, Egress];
    assert_eq!(missing(&chosen, &nobody), [both.clone(), vec![], both]);
    // By labels a template says whether its pods are chosen, and by a share it does not.
    let of_template = |chosen: &Value| {
        let tried = cluster.with(&canary("shop/deny", chosen.clone(), nobody.clone()));
        let mut pods = tried.0.pods();
        let api = pods.find(|pod| pod.is_template()).unwrap();
        tried.0.pod_coverage(api).missing()
    };
    assert_eq!(of_template(&chosen), []);
    assert_eq!(of_template(&json!({"percent": 5})), [Ingress, Egress]);
    // In shadow it takes nobody's place.
    let shadow = cluster.with(&staged("shop/deny", nobody));
    let coverage = shadow.0.namespace_coverage(&"shop".into());
    assert!(coverage.missing().is_empty());
}

#[test]
fn reachability_and_verdicts_agree_on_a_share_of_pods() {
    let pods = (0..40).map(|index| pod(&format!("shop/web-{index}"), "app=web", []));
    let mut cluster = Cluster::of(pods);
    cluster = cluster.with(&deployment("shop/api", "app=web"));
    cluster = cluster.with(&canary("shop/deny", json!({"percent": 30}), json!({})));
    let reach = Reachability::of(&cluster.0);
    let mut denied = 0;
    for to in cluster.0.pods() {
        let from = cluster.pod("shop/web-0");
        if from.workload == to.workload {
            continue;
        }
        let at = format!("{}:{}/{}", to.workload.kind, to.namespace(), to.name());
        let allowed = cluster.allows("shop/web-0", &at, "TCP 80");
        let ports = reach.between(Place::Pod(&from.workload), Place::Pod(&to.workload));
        assert_eq!(!ports.is_empty(), allowed, "{at}");
        denied += usize::from(!allowed);
    }
    assert!((5..20).contains(&denied), "{denied}");
    assert!(
        cluster.allows("shop/web-0", "Deployment:shop/api", "TCP 80"),
        "it has no pods yet"
    );
}

proptest! {
    #[test]
    fn a_larger_share_keeps_the_pods_of_a_smaller_one(name in "[a-z]{1,8}-[a-z0-9]{5}", small in 1_u8..99, more in 1_u8..50) {
        let cluster = Cluster::of([pod(&format!("shop/{name}"), "", [])]);
        let pod = cluster.0.pods().next().unwrap();
        let large = small.saturating_add(more).min(99);
        prop_assert!(!Choice::Percent(small).chooses(pod) || Choice::Percent(large).chooses(pod));
    }
}

#[test]
fn a_share_is_about_what_it_says() {
    let pods = (0..2000).map(|index| pod(&format!("shop/web-5d9c7b6f4-{index:05x}"), "", []));
    let cluster = Cluster::of(pods);
    for percent in [5, 20, 50, 90] {
        let choice = Choice::Percent(percent);
        let chosen = cluster.0.pods().filter(|pod| choice.chooses(pod)).count();
        let wanted = usize::from(percent) * 20;
        assert!(chosen.abs_diff(wanted) < 100, "{percent} %: {chosen}");
    }
}

#[test]
fn promotion_leaves_what_the_user_wrote() {
    let mut manifest = canary("shop/web", json!({"percent": 5}), json!({"ingress": [{}]}));
    manifest["metadata"]["uid"] = json!("1");
    manifest["metadata"]["labels"] = json!({"team": "shop"});
    manifest["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "owner": "anna"});
    assert_eq!(
        promoted(&manifest),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {
                "name": "web", "namespace": "shop", "labels": {"team": "shop"}, "annotations": {"owner": "anna"},
            },
            "spec": {"podSelector": {}, "ingress": [{}]},
        })
    );
}
