use serde_json::{Value, json};

use super::{ReachabilityRule, ReachabilityRules};
use crate::guard::decide::{Cut, Decision};
use crate::guard::engine::Budget;
use crate::guard::exemption::{Exemption, Exemptions};
use crate::guard::guardrail::GuardrailSpec;
use crate::guard::mode::Mode;
use crate::guard::review::{Origin, Review};
use crate::guard::testing::{
    BUDGET, Cluster, create, default_deny, delete, deployment, ids, namespace, now, policy, update,
};
use crate::netpol::ParseError;

mod nodes;
mod staged;
mod wide;

fn rule(spec: &Value) -> Value {
    json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule",
        "metadata": {"name": "not-db"}, "spec": spec
    })
}

fn not_db(mode: &str) -> Value {
    rule(&json!({
        "from": [{"namespaces": ["shop"], "podSelector": {"matchLabels": {"app": "web"}}}],
        "to": [{"podSelector": {"matchLabels": {"app": "db"}}}],
        "ports": [{"port": 5432}], "expect": "Deny", "mode": mode
    }))
}

fn opens() -> Value {
    policy(
        "opens",
        &json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "api"}}}, {"podSelector": {}}],
            "ports": [{"port": 5432}]
        }]}),
    )
}

/// A shop whose pods take nothing, and may open what they want.
fn shop(rules: &[Value]) -> Cluster {
    let deny = policy(
        "deny",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    of(
        &[
            namespace("shop"),
            deny,
            deployment("web", &json!({"app": "web"})),
            deployment("db", &json!({"app": "db"})),
        ],
        rules,
    )
}

fn of(objects: &[Value], rules: &[Value]) -> Cluster {
    let mut cluster = Cluster::under(&GuardrailSpec::default(), objects);
    let parse = |rule: &Value| ReachabilityRule::parse(rule).expect("a good rule");
    let rules = rules.iter().map(parse).collect();
    cluster.reachability = ReachabilityRules::new(rules, &cluster.snapshot);
    cluster
}

fn messages(decision: &Decision) -> Vec<&str> {
    let judged = decision.judged.iter();
    judged.map(|judged| &*judged.finding.message).collect()
}

#[test]
fn a_policy_that_opens_what_a_rule_forbids_is_refused_with_the_flow_and_the_peer() {
    let decision = shop(&[not_db("Enforce")]).create(&opens());
    assert!(!decision.allowed());
    assert_eq!(
        messages(&decision),
        [
            "opens Deployment shop/web → Deployment shop/db TCP 5432, which ReachabilityRule not-db forbids; \
             let through by ingress rule 0, peer 1; no policy isolates Deployment shop/web for egress"
        ]
    );
    let finding = &decision.judged[0].finding;
    assert_eq!(finding.id.as_str(), "RF701");
    assert_eq!(finding.field.to_string(), "spec.ingress[0].from[1]");
    let patch = finding.fix.as_ref().and_then(|fix| fix.patch.as_ref());
    assert_eq!(
        serde_json::to_value(patch).expect("JSON"),
        json!([{"op": "remove", "path": "/spec/ingress/0/from/1"}])
    );
}

#[test]
fn the_only_peer_goes_with_its_rule_for_no_peer_would_be_everyone() {
    let mut opens = opens();
    opens["spec"]["ingress"][0]["from"]
        .as_array_mut()
        .expect("peers")
        .remove(0);
    let decision = shop(&[not_db("Enforce")]).create(&opens);
    let fix = decision.judged[0].finding.fix.as_ref().expect("a fix");
    assert_eq!(fix.summary, "remove spec.ingress[0]");
}

#[test]
fn what_was_open_before_is_not_held_against_an_update() {
    let mut cluster = shop(&[not_db("Enforce")]);
    cluster.snapshot = cluster.snapshot.with(
        crate::guard::review::Subject::new(opens())
            .model()
            .expect("a policy")
            .clone(),
    );
    let mut wider = opens();
    wider["spec"]["ingress"][0]["ports"] = json!([{"port": 5432}, {"port": 80}]);
    assert!(cluster.update(&opens(), &wider).allowed());
    let mut noted = opens();
    noted["metadata"]["annotations"] = json!({"note": "none"});
    assert!(cluster.update(&opens(), &noted).allowed());
}

#[test]
fn a_deletion_that_opens_and_one_that_closes_are_seen() {
    let cluster = shop(&[not_db("Enforce")]);
    let deny = policy(
        "deny",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    let decision = cluster.delete(&deny);
    assert_eq!(ids(&decision), ["RF701"]);
    assert!(
        messages(&decision)[0].ends_with(
            "no policy isolates Deployment shop/db for ingress; no policy isolates Deployment shop/web for egress"
        ),
        "{:?}",
        messages(&decision)
    );
    let mut demands = not_db("Enforce");
    demands["spec"]["expect"] = json!("Allow");
    let closed = of(
        &[
            deny,
            opens(),
            deployment("web", &json!({"app": "web"})),
            deployment("db", &json!({"app": "db"})),
        ],
        &[demands],
    );
    let decision = closed.delete(&opens());
    assert_eq!(ids(&decision), ["RF702"]);
    let finding = &decision.judged[0].finding;
    assert!(
        finding.message.contains("isolated by shop/deny"),
        "{}",
        finding.message
    );
    let fix = finding.fix.as_ref().expect("a fix");
    assert_eq!(
        fix.manifest.as_ref().expect("a policy")["kind"],
        "NetworkPolicy"
    );
}

#[test]
fn what_is_proposed_is_enough_and_takes_no_other_policys_place() {
    let named = |name: &str, mut policy: Value| {
        policy["metadata"]["name"] = json!(name);
        policy
    };
    let proposed = |decision: &Decision| {
        let fix = decision.judged[0].finding.fix.clone().expect("a fix");
        fix.manifest.expect("a policy to apply")
    };
    let workloads = ["web", "db"].map(|name| deployment(name, &json!({"app": name})));
    let with = |policies: &[Value], rule: &Value| {
        let objects = [namespace("shop")].into_iter().chain(workloads.clone());
        let objects: Vec<Value> = objects.chain(policies.iter().cloned()).collect();
        of(&objects, std::slice::from_ref(rule))
    };
    let deny = policy(
        "default-deny-ingress",
        &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    );
    let closed = with(std::slice::from_ref(&deny), &not_db("Enforce"));
    let refused = closed.delete(&deny);
    assert_eq!(ids(&refused), ["RF701"]);
    let also = with(&[deny.clone(), proposed(&refused)], &not_db("Enforce"));
    assert!(also.delete(&deny).allowed());

    let mut demands = not_db("Enforce");
    demands["spec"]["expect"] = json!("Allow");
    let open = named("db-ingress", opens());
    let refused = with(&[deny.clone(), open.clone()], &demands).delete(&open);
    assert_eq!(ids(&refused), ["RF702"]);
    let also = with(&[deny.clone(), open.clone(), proposed(&refused)], &demands);
    assert!(also.delete(&open).allowed());

    // A policy that has to stay as open as it is, with what else is changed of it.
    let mut narrower = open.clone();
    narrower["metadata"]["annotations"] = json!({"why": "less"});
    narrower["spec"]["ingress"][0]["from"] =
        json!([{"podSelector": {"matchLabels": {"app": "api"}}}]);
    let cluster = with(&[deny, open.clone()], &demands);
    let refused = cluster.update(&open, &narrower);
    assert_eq!(ids(&refused), ["RF702"]);
    let instead = proposed(&refused);
    assert_eq!(instead["metadata"]["annotations"], json!({"why": "less"}));
    assert_eq!(instead["spec"]["ingress"].as_array().map(Vec::len), Some(2));
    assert!(cluster.update(&open, &instead).allowed());
}

#[test]
fn a_workload_is_held_to_the_flows_of_its_pods_to_be() {
    let open = of(
        &[namespace("shop"), deployment("db", &json!({"app": "db"}))],
        &[not_db("Warn")],
    );
    let web = deployment("web", &json!({"app": "web"}));
    let decision = open.create(&web);
    assert_eq!(ids(&decision), ["RF701"]);
    assert!(decision.allowed(), "it is only warned of");
    assert_eq!(
        decision.judged[0].finding.field.to_string(),
        "spec.template.metadata.labels"
    );
    // A pod of a workload that is there already is nothing new.
    let known = of(
        &[
            namespace("shop"),
            deployment("db", &json!({"app": "db"})),
            web.clone(),
        ],
        &[not_db("Enforce")],
    );
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web", "pod-template-hash": "1"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "1", "controller": true}]},
        "spec": {"containers": [{"name": "main", "image": "x"}]}
    });
    assert!(known.create(&pod).allowed());
    let mut alone = pod;
    alone["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(ids(&known.create(&alone)), ["RF701"]);
    let mut image = web.clone();
    image["spec"]["template"]["spec"]["containers"][0]["image"] = json!("y");
    assert!(known.update(&web, &image).allowed());
    // Another pod is no template, whatever is said of it.
    let mut owned = alone.clone();
    owned["metadata"]["name"] = json!("web-2");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": "1", "controller": true
    }]);
    let beside = of(
        &[
            namespace("shop"),
            deployment("db", &json!({"app": "db"})),
            alone.clone(),
        ],
        &[not_db("Enforce")],
    );
    assert_eq!(ids(&beside.create(&owned)), ["RF701"]);
}

#[test]
fn labels_of_a_namespace_may_bring_its_pods_under_a_rule() {
    let stages = rule(&json!({
        "from": [{"namespaceSelector": {"matchLabels": {"stage": "dev"}}}],
        "to": [{"namespaces": ["shop"], "podSelector": {"matchLabels": {"app": "db"}}}],
        "expect": "Deny", "mode": "Enforce"
    }));
    let cluster = of(
        &[
            namespace("shop"),
            deployment("web", &json!({"app": "web"})),
            deployment("db", &json!({"app": "db"})),
        ],
        &[stages],
    );
    let mut relabelled = namespace("shop");
    relabelled["metadata"]["labels"] = json!({"stage": "dev"});
    let decision = cluster.update(&namespace("shop"), &relabelled);
    assert_eq!(ids(&decision), ["RF701"]);
    assert_eq!(
        decision.judged[0].finding.field.to_string(),
        "metadata.labels"
    );
}

#[test]
fn an_exemption_lets_the_object_off_and_names_the_rule() {
    let exemption = |guardrail: &str| {
        Exemption::parse(&json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "Exemption",
            "metadata": {"name": "reports", "namespace": "shop"},
            "spec": {"checks": ["RF701"], "objects": [{"kind": "NetworkPolicy", "name": "opens"}], "guardrail": guardrail,
                "reason": "reports", "owner": "data", "expires": "2027-01-01T00:00:00Z"}
        }))
        .expect("a good exemption")
    };
    let mut cluster = shop(&[not_db("Enforce")]);
    cluster.exemptions = Exemptions::new(vec![exemption("another")]);
    assert!(!cluster.create(&opens()).allowed());
    cluster.exemptions = Exemptions::new(vec![exemption("not-db")]);
    let decision = cluster.create(&opens());
    assert!(decision.allowed());
    assert_eq!(
        decision.judged[0].exemption.as_deref(),
        Some("shop/reports")
    );

    // And the rule itself is let off by what opens the flow.
    let mut open = of(
        &[
            opens(),
            deployment("web", &json!({"app": "web"})),
            deployment("db", &json!({"app": "db"})),
        ],
        &[not_db("Enforce")],
    );
    let review = Review::of_manifest(not_db("Enforce"));
    assert!(!open.judge(&review).allowed());
    open.exemptions = Exemptions::new(vec![exemption("not-db")]);
    assert!(open.judge(&review).allowed());
    assert_eq!(open.judge(&review).exempted().count(), 1);
}

#[test]
fn a_rule_that_is_broken_already_is_refused_in_a_file_and_taken_with_a_warning_by_a_server() {
    let open = of(
        &[
            deployment("web", &json!({"app": "web"})),
            deployment("db", &json!({"app": "db"})),
        ],
        &[],
    );
    let mut review = Review::of_manifest(not_db("Enforce"));
    assert!(!open.judge(&review).allowed());
    review.origin = Origin::Admission;
    let decision = open.judge(&review);
    assert!(decision.allowed());
    assert_eq!(decision.in_force(Mode::Warn).count(), 1);
}

#[test]
fn an_end_that_selects_nothing_is_warned_of() {
    let mut typo = not_db("Enforce");
    typo["spec"]["to"][0]["podSelector"]["matchLabels"]["app"] = json!("bd");
    let decision = shop(&[]).judge(&Review::of_manifest(typo));
    assert_eq!(ids(&decision), ["RF703"]);
    assert!(decision.allowed());
    assert_eq!(
        messages(&decision),
        ["spec.to[0] selects no pod, so the rule says nothing of it"]
    );
}

#[test]
fn what_is_too_much_to_look_at_is_said_and_counts_as_the_rule_has_it() {
    let cluster = shop(&[not_db("Enforce")]);
    let budget = Budget { pods: 0, ..BUDGET };
    let decision =
        crate::guard::decide::judge(&create(&opens()), &cluster.context(), now(), budget);
    assert_eq!(decision.cut, Some(Cut::Pods(0)));
    assert_eq!(decision.strictest, Some(Mode::Enforce));
}

#[test]
fn changes_that_alter_no_flow_cost_nothing() {
    let cluster = shop(&[not_db("Enforce")]);
    let budget = Budget { pods: 0, ..BUDGET };
    let mut noted = default_deny();
    noted["metadata"]["annotations"] = json!({"note": "none"});
    for review in [
        update(&default_deny(), &noted),
        delete(&deployment("web", &json!({"app": "web"}))),
        create(&deployment("web", &json!({"app": "web"}))),
    ] {
        let decision = crate::guard::decide::judge(&review, &cluster.context(), now(), budget);
        assert_eq!(decision.cut, None, "{review:?}");
    }
}

fn problems(spec: &Value) -> Vec<String> {
    let Err(ParseError { problems }) = ReachabilityRule::parse(&rule(spec)) else {
        return Vec::new();
    };
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_is_named_by_its_field() {
    let pods = json!([{"podSelector": {}}]);
    let of = |from: Value, ports: Value| {
        problems(&json!({"from": from, "to": pods, "ports": ports, "expect": "Deny"}))
    };
    for (from, ports, problem) in [
        (
            json!([]),
            json!([]),
            "spec.from: must name at least one end",
        ),
        (json!([{}]), json!([]), "spec.from[0]: must say who"),
        (
            json!([{"namespaces": ["Shop"]}]),
            json!([]),
            "spec.from[0].namespaces[0]: `Shop`",
        ),
        (
            json!([{"namespaces": ["a"], "namespaceSelector": {}}]),
            json!([]),
            "spec.from[0].namespaceSelector: may not stand beside `namespaces`",
        ),
        (
            json!([{"podSelector": {}, "cidrs": ["10.0.0.0/8"]}]),
            json!([]),
            "spec.from[0].cidrs: may not stand beside selectors",
        ),
        (
            json!([{"cidrs": ["10.0.0.0"]}]),
            json!([]),
            "spec.from[0].cidrs[0]: `10.0.0.0`",
        ),
        (
            json!([{"cidrs": ["10.0.0.0/8"], "except": ["11.0.0.0/8"]}]),
            json!([]),
            "spec.from[0].except[0]: `11.0.0.0/8` is in none",
        ),
        (
            json!([{"podSelector": {}, "except": ["11.0.0.0/8"]}]),
            json!([]),
            "spec.from[0].except: may only stand beside `cidrs`",
        ),
        (
            json!([{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}]),
            json!([]),
            "spec.from[0].podSelector.matchExpressions[0].operator",
        ),
        (
            json!([{"pods": {}}]),
            json!([]),
            "spec.from[0].pods: unknown field",
        ),
        (
            pods.clone(),
            json!([{"port": 0}]),
            "spec.ports[0].port: must be a port number",
        ),
        (pods.clone(), json!([{"port": 70000}]), "spec.ports[0].port"),
        (
            pods.clone(),
            json!([{"endPort": 80}]),
            "spec.ports[0].endPort: may only stand beside `port`",
        ),
        (
            pods.clone(),
            json!([{"port": 90, "endPort": 80}]),
            "spec.ports[0].endPort: 80",
        ),
        (
            pods.clone(),
            json!([{"port": 80, "protocol": "ICMP"}]),
            "spec.ports[0].protocol",
        ),
    ] {
        let found = of(from.clone(), ports.clone());
        assert!(
            found.iter().any(|found| found.starts_with(problem)),
            "{problem}: {found:?} of {from} {ports}"
        );
    }
    let outside = json!([{"cidrs": ["0.0.0.0/0"]}]);
    assert!(
        problems(&json!({"from": outside, "to": outside, "expect": "Deny"}))[0]
            .starts_with("spec.to: must name pods")
    );
    assert!(problems(&json!({"from": pods, "to": pods}))[0].contains("expect"));
    assert_eq!(
        problems(&json!({"from": pods, "to": pods, "expect": "Allow"})),
        Vec::<String>::new()
    );
}

#[test]
fn a_template_stands_in_for_an_end_that_selects_nothing() {
    let cluster = of(
        &[
            namespace("shop"),
            namespace("other"),
            deployment("web", &json!({"app": "web"})),
        ],
        &[],
    );
    let assumed = |from: Value| {
        let spec = json!({"from": [from], "to": [{"podSelector": {}}], "expect": "Deny"});
        let rule = ReachabilityRule::parse(&rule(&spec)).expect("a good rule");
        let pods = super::assume(&[rule], &cluster.snapshot);
        let assumed = pods.pods().filter(|pod| pod.name().as_str() != "web");
        let assumed = assumed.map(|pod| format!("{} {}", pod.namespace(), pod.labels));
        assumed.collect::<Vec<_>>()
    };
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    assert_eq!(assumed(web), Vec::<String>::new(), "it is there");
    let all = json!({"podSelector": {"matchExpressions": [
        {"key": "app", "operator": "In", "values": ["db", "mail"]}, {"key": "tier", "operator": "Exists"},
        {"key": "old", "operator": "DoesNotExist"}
    ]}});
    assert_eq!(
        assumed(all),
        ["other app=db,tier=assumed", "shop app=db,tier=assumed"]
    );
    let named = json!({"namespaces": ["far", "other"]});
    assert_eq!(assumed(named), ["far ", "other "]);
    let staged = json!({"namespaceSelector": {"matchLabels": {"stage": "dev"}}});
    assert_eq!(assumed(staged), ["assumed-2 "]);
    let never = json!({"podSelector": {"matchExpressions": [
        {"key": "app", "operator": "Exists"}, {"key": "app", "operator": "DoesNotExist"}
    ]}});
    assert_eq!(assumed(never), Vec::<String>::new(), "nothing can match it");
}

#[test]
fn one_of_two_pods_alike_may_be_the_only_one_that_is_reached() {
    let pod = |name: &str, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
            "status": {"phase": "Running", "podIP": address}
        })
    };
    let each_other = rule(&json!({
        "from": [{"podSelector": {}}], "to": [{"podSelector": {}}], "expect": "Deny", "mode": "Enforce"
    }));
    let deny = policy(
        "deny",
        &json!({"podSelector": {}, "policyTypes": ["Egress"]}),
    );
    let cluster = of(
        &[deny, pod("first", "10.0.0.1"), pod("second", "10.0.0.9")],
        &[each_other],
    );
    let opens = |block: &str| {
        policy(
            "opens",
            &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": block}}]}]}),
        )
    };
    for (block, from) in [
        ("10.0.0.1/32", "opens Pod shop/second → Pod shop/first "),
        ("10.0.0.9/32", "opens Pod shop/first → Pod shop/second "),
    ] {
        let decision = cluster.create(&opens(block));
        assert_eq!(decision.judged.len(), 1, "{block}");
        assert!(
            messages(&decision)[0].starts_with(from),
            "{:?}",
            messages(&decision)
        );
    }
    assert!(cluster.create(&opens("10.0.0.2/32")).allowed());
}
