use proptest::prelude::*;
use serde_json::json;

use super::*;

fn selector(value: serde_json::Value) -> Selector {
    let selector: LabelSelector = serde_json::from_value(value).expect("a selector");
    Selector::parse(&selector, &FieldPath::root()).expect("a valid selector")
}

fn problems(value: serde_json::Value) -> Vec<String> {
    let selector: LabelSelector = serde_json::from_value(value).expect("a selector");
    let error =
        Selector::parse(&selector, &FieldPath::of(["spec", "podSelector"])).expect_err("not valid");
    error.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_selector_prints_as_kubectl_takes_it() {
    let all = selector(json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a", "b"]},
            {"key": "env", "operator": "NotIn", "values": ["dev"]},
            {"key": "env", "operator": "NotIn", "values": ["dev", "test"]},
            {"key": "owner", "operator": "Exists"},
            {"key": "old", "operator": "DoesNotExist", "values": []},
        ],
    }));
    assert_eq!(
        all.to_string(),
        "app=web,env!=dev,env notin (dev,test),!old,owner,tier in (a,b)"
    );
    assert_eq!(Selector::everything().to_string(), "");
}

#[test]
fn a_selector_without_requirements_is_everything() {
    for empty in [
        json!({}),
        json!({"matchLabels": {}}),
        json!({"matchExpressions": [], "matchLabels": {}}),
    ] {
        let selector = selector(empty);
        assert!(selector.is_everything() && selector.matches(&Labels::default()));
    }
    // This matches every object that has no such label, yet it is a requirement.
    assert!(
        !selector(json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}))
            .is_everything()
    );
}

#[test]
fn what_the_api_server_refuses_is_refused_at_its_field() {
    let found = problems(json!({
        "matchLabels": {"-a": "ok", "b": "not ok"},
        "matchExpressions": [
            {"key": "a", "operator": "In"},
            {"key": "a", "operator": "NotIn", "values": []},
            {"key": "a", "operator": "Exists", "values": ["x"]},
            {"key": "a", "operator": "DoesNotExist", "values": ["x"]},
            {"key": "a", "operator": "in", "values": ["x"]},
            {"key": "", "operator": "In", "values": ["ok", "not ok"]},
        ],
    }));
    let fields: Vec<&str> = found
        .iter()
        .map(|problem| problem.split(": ").next().expect("a field"))
        .collect();
    assert_eq!(
        fields,
        [
            "spec.podSelector.matchLabels.-a",
            "spec.podSelector.matchLabels.b",
            "spec.podSelector.matchExpressions[0].values",
            "spec.podSelector.matchExpressions[1].values",
            "spec.podSelector.matchExpressions[2].values",
            "spec.podSelector.matchExpressions[3].values",
            "spec.podSelector.matchExpressions[4].operator",
            "spec.podSelector.matchExpressions[5].key",
            "spec.podSelector.matchExpressions[5].values[1]",
        ]
    );
}

/// Semantics line 13: `NotIn` and `DoesNotExist` match objects without the key; all terms must hold, those of `matchLabels` too.
#[test]
fn s1_13_not_in_and_does_not_exist_match_objects_without_the_key() {
    let none = Labels::default();
    let dev = Labels::from([("env", "dev")]);
    let prod = Labels::from([("env", "prod")]);
    let expression = |operator: &str, values: &[&str]| {
        selector(
            json!({"matchExpressions": [{"key": "env", "operator": operator, "values": values}]}),
        )
    };
    let matched = |selector: &Selector| [&none, &dev, &prod].map(|labels| selector.matches(labels));
    assert_eq!(
        matched(&expression("In", &["dev", "test"])),
        [false, true, false]
    );
    assert_eq!(
        matched(&expression("NotIn", &["dev", "test"])),
        [true, false, true]
    );
    assert_eq!(matched(&expression("Exists", &[])), [false, true, true]);
    assert_eq!(
        matched(&expression("DoesNotExist", &[])),
        [true, false, false]
    );

    let both = selector(json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["dev"]}],
    }));
    assert!(both.matches(&Labels::from([("app", "web")])));
    assert!(!both.matches(&Labels::from([("app", "web"), ("env", "dev")])));
    assert!(!both.matches(&prod));
}

#[test]
fn implication_and_disjointness_see_through_the_operators() {
    let web = selector(json!({"matchLabels": {"app": "web", "env": "prod"}}));
    let some = selector(
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}),
    );
    let not_db = selector(
        json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}),
    );
    let no_app =
        selector(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}));
    assert!(web.implies(&some) && some.implies(&not_db) && no_app.implies(&not_db));
    assert!(!some.implies(&web) && !not_db.implies(&some) && !not_db.implies(&no_app));
    assert!(web.implies(&Selector::everything()) && !Selector::everything().implies(&web));
    assert!(
        web.disjoint(&no_app) && !some.disjoint(&not_db) && !web.disjoint(&Selector::everything())
    );
    let impossible = Selector::new([Requirement::exists("a"), Requirement::does_not_exist("a")]);
    assert!(impossible.implies(&web) && impossible.disjoint(&Selector::everything()));
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let key = prop_oneof![Just("a"), Just("b")];
    let values = proptest::collection::vec(prop_oneof![Just("x"), Just("y"), Just("z")], 1..3);
    (key, 0..4, values).prop_map(|(key, operator, values)| match operator {
        0 => Requirement::is_in(key, values),
        1 => Requirement::is_not_in(key, values),
        2 => Requirement::exists(key),
        _ => Requirement::does_not_exist(key),
    })
}

fn any_selector() -> impl Strategy<Value = Selector> {
    proptest::collection::vec(any_requirement(), 0..4).prop_map(Selector::new)
}

/// Every label set over two keys; the value `other` stands for all values that no selector names.
fn every_label_set() -> Vec<Labels> {
    let values = [None, Some("x"), Some("y"), Some("z"), Some("other")];
    let pair = |a: Option<&'static str>, b: Option<&'static str>| {
        let labels = [("a", a), ("b", b)].into_iter();
        labels
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    };
    values
        .into_iter()
        .flat_map(|a| values.map(|b| pair(a, b)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Over a universe that holds a value which no selector names, the answers are not only sound but exact.
    #[test]
    fn implication_and_disjointness_are_those_of_all_label_sets(left in any_selector(), right in any_selector()) {
        let all = every_label_set();
        let implies = all.iter().all(|labels| !left.matches(labels) || right.matches(labels));
        let disjoint = !all.iter().any(|labels| left.matches(labels) && right.matches(labels));
        prop_assert_eq!(left.implies(&right), implies, "{} => {}", left, right);
        prop_assert_eq!(left.disjoint(&right), disjoint, "{} and {}", left, right);
    }
}
