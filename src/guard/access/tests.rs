//! The rules of RBAC, one by one; the API server's own answers are in `tests/cluster/rights.rs`.

use serde_json::json;

use super::target::WRITE;
use super::*;

/// The rows that one rule gives to jane, bound everywhere or in a namespace.
fn rows(rule: &Value, namespace: Option<&str>) -> Vec<Grant> {
    let mut rbac = Rbac::default();
    assert!(rbac.role(&json!({"metadata": {"name": "some"}, "rules": [rule]})));
    assert!(rbac.binding(&json!({
        "metadata": {"name": "some", "namespace": namespace},
        "roleRef": {"kind": "ClusterRole", "name": "some"},
        "subjects": [{"kind": "User", "name": "jane"}]
    })));
    rbac.grants()
}

fn powers(rule: &Value, namespace: Option<&str>) -> Vec<Power> {
    let mut powers: Vec<Power> = rows(rule, namespace).iter().map(|row| row.power).collect();
    powers.dedup();
    powers
}

fn rule(group: &str, resource: &str, verb: &str) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
}

#[test]
fn wildcards_give_everything_that_is_not_of_a_namespace_only_everywhere() {
    let all = rule("*", "*", "*");
    assert_eq!(powers(&all, None).len(), 9);
    assert_eq!(
        powers(&all, Some("shop")),
        [
            Power::NetworkPolicies,
            Power::NamespaceLabels,
            Power::Exemptions,
            Power::Rights
        ]
    );
    let verbs = &rows(&all, Some("shop"))[0].verbs;
    assert_eq!(verbs.len(), WRITE.len());
}

#[test]
fn what_is_read_or_is_a_part_of_an_object_or_of_another_group_gives_nothing() {
    for rule in [
        rule("networking.k8s.io", "networkpolicies", "list"),
        rule("networking.k8s.io", "networkpolicies/status", "update"),
        rule("extensions", "networkpolicies", "create"),
        rule("", "groups", "create"),
    ] {
        assert_eq!(rows(&rule, None), [], "{rule}");
    }
}

#[test]
fn names_limit_and_what_is_asked_without_a_name_is_not_given() {
    let mut named = rule("networking.k8s.io", "networkpolicies", "*");
    named["resourceNames"] = json!(["a"]);
    let row = &rows(&named, None)[0];
    assert!(row.allows("update", Some("shop"), Some("a")));
    assert!(!row.allows("update", Some("shop"), Some("b")));
    assert!(!row.allows("create", Some("shop"), None));
    assert!(!row.verbs.contains("deletecollection"));
}

#[test]
fn a_role_in_a_namespace_may_give_the_labels_of_that_namespace() {
    let mut labels = rule("", "namespaces", "patch");
    let row = &rows(&labels, Some("shop"))[0];
    assert!(row.allows("patch", Some("shop"), Some("shop")));
    assert!(!row.allows("patch", Some("bank"), Some("bank")));
    labels["resourceNames"] = json!(["bank"]);
    assert_eq!(rows(&labels, Some("shop")), []);
    assert_eq!(rows(&labels, None)[0].names, ["bank".to_owned()].into());
}

#[test]
fn the_break_glass_group_is_told_apart_from_all_others() {
    let mut act = rule("", "groups", "impersonate");
    assert_eq!(powers(&act, None), [Power::BreakGlass, Power::Rights]);
    act["resourceNames"] = json!([BREAK_GLASS]);
    assert_eq!(powers(&act, None), [Power::BreakGlass]);
    act["resourceNames"] = json!(["developers"]);
    assert_eq!(powers(&act, None), [Power::Rights]);
}

#[test]
fn a_role_is_found_where_its_binding_looks_for_it() {
    let mut rbac = Rbac::default();
    let policies = rule("networking.k8s.io", "networkpolicies", "create");
    rbac.role(&json!({"metadata": {"name": "own", "namespace": "shop"}, "rules": [policies]}));
    rbac.role(&json!({"metadata": {"name": "none"}, "rules": null}));
    let bind = |kind: &str, name: &str, namespace: &str| {
        json!({
            "metadata": {"name": "x", "namespace": namespace}, "roleRef": {"kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "ci"}]
        })
    };
    for elsewhere in [
        bind("Role", "own", "bank"),
        bind("ClusterRole", "own", "shop"),
        bind("ClusterRole", "none", "shop"),
    ] {
        rbac.binding(&elsewhere);
    }
    assert_eq!(rbac.grants(), []);
    rbac.binding(&bind("Role", "own", "shop"));
    let [row] = &rbac.grants()[..] else { panic!() };
    assert_eq!(row.subject.to_string(), "service account shop/ci");
    assert_eq!(row.bindings, ["RoleBinding x".to_owned()].into());
}

#[test]
fn groups_of_everybody_are_not_taken_for_a_part_of_kubernetes() {
    let group = |name: &str| Subject::Group { name: name.into() }.is_own();
    assert!(group("system:masters") && group("system:serviceaccounts:kube-system"));
    assert!(!group("system:authenticated") && !group("system:serviceaccounts:shop"));
    let user = |name: &str| {
        let subject = json!({"kind": "User", "name": name});
        Subject::of(&subject, None).unwrap().is_own()
    };
    assert!(user("system:kube-scheduler") && user("system:serviceaccount:kube-system:x"));
    assert!(!user("system:anonymous") && !user("system:serviceaccount:shop:x") && !user("jane"));
}
