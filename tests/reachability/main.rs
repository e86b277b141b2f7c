//! Holds reachability rules to their definition, written out here over every pair of ends: what a change is found to break
//! is what is wrong after it and was not before, and what a rule by itself is found to meet is what is wrong at all.

// What a test cannot prepare has failed.
#![allow(clippy::expect_used, clippy::panic)]

#[path = "../netpol_oracle/clusters.rs"]
#[allow(dead_code)] // each test uses its part
mod clusters;
#[path = "../support/random.rs"]
mod random;
#[path = "../netpol_oracle/trials.rs"]
mod trials;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use ringfence::guard::decide::{Context, judge};
use ringfence::guard::engine::{Budget, NoPolicies};
use ringfence::guard::exemption::Exemptions;
use ringfence::guard::guardrail::Guardrails;
use ringfence::guard::reachability::{ReachabilityRule, ReachabilityRules};
use ringfence::guard::review::{Operation, Review, Subject};
use ringfence::netpol::groups::Group;
use ringfence::netpol::{
    Direction, Endpoint, Flow, Labels, Object, ObjectKey, Pod, Port, PortSet, Protocol, Snapshot,
};
use serde_json::{Value, json};

/// Where some block of the generated policies or rules begins or has just ended.
const EDGES: [&str; 38] = [
    "0.0.0.0",
    "10.0.0.0",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.0.8",
    "10.0.0.250",
    "10.0.0.251",
    "10.0.1.0",
    "10.0.1.1",
    "10.0.1.2",
    "10.0.1.4",
    "10.0.1.8",
    "10.0.2.0",
    "11.0.0.0",
    "128.0.0.0",
    "192.0.2.0",
    "192.0.2.2",
    "192.0.2.128",
    "192.0.3.0",
    "192.168.0.0",
    "192.168.0.1",
    "192.168.0.2",
    "192.169.0.0",
    "::",
    "2001:db8::",
    "2001:db9::",
    "8000::",
    "fd00::",
    "fd00::1",
    "fd00::2",
    "fd00::4",
    "fd00::5",
    "fd00::6",
    "fd00::8",
    "fd01::",
    "fd01::1",
    "fd01::2",
];

/// One end of a flow: a workload, or an address.
type Name = String;
/// Flows, each at one port.
type Flows = BTreeSet<(Name, Name, Protocol, Port)>;

// === random rules and changes ===

fn any_end() -> impl Strategy<Value = Value> {
    let selector = || {
        select(vec![
            json!({}),
            json!({"matchLabels": {"app": "x"}}),
            json!({"matchLabels": {"app": "y"}}),
            json!({"matchExpressions": [{"key": "env", "operator": "Exists"}]}),
        ])
    };
    let block = select(vec![
        json!({"cidrs": ["0.0.0.0/0", "::/0"]}),
        json!({"cidrs": ["0.0.0.0/0"], "except": ["10.0.0.0/8"]}),
        json!({"cidrs": ["10.0.0.0/29", "fd00::/16"]}),
    ]);
    prop_oneof![
        2 => select(vec!["a", "b", "c"]).prop_map(|name| json!({"namespaces": [name]})),
        2 => (select(vec!["a", "b"]), selector())
            .prop_map(|(name, pods)| json!({"namespaces": [name], "podSelector": pods})),
        2 => selector().prop_map(|pods| json!({"podSelector": pods})),
        2 => (selector(), option::of(selector()))
            .prop_map(|(names, pods)| json!({"namespaceSelector": names, "podSelector": pods})),
        1 => block,
    ]
}

fn any_rule() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        Just(json!({"port": 80})),
        Just(json!({"port": 53, "endPort": 90, "protocol": "UDP"})),
        Just(json!({"protocol": "SCTP"})),
        Just(json!({"port": 8080})),
    ];
    let ports = prop_oneof![1 => Just(json!([])), 2 => vec(port, 1..3).prop_map(Value::from)];
    let ends = || vec(any_end(), 1..3);
    (ends(), ends(), ports, select(vec!["Deny", "Allow"]))
        .prop_map(|(from, to, ports, expect)| {
            json!({
                "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule",
                "metadata": {"name": "rule"},
                "spec": {"from": from, "to": to, "ports": ports, "expect": expect, "mode": "Enforce"}
            })
        })
        .prop_filter("traffic outside", |rule| ReachabilityRule::parse(rule).is_ok())
}

fn any_rules() -> impl Strategy<Value = Vec<Value>> {
    vec(any_rule(), 1..6).prop_map(|mut rules| {
        for (number, rule) in rules.iter_mut().enumerate() {
            rule["metadata"] = json!({"name": format!("rule-{number}")});
        }
        rules
    })
}

fn key(value: &Value) -> (String, String, String) {
    let text = |pointer: &str| {
        let text = value.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    (
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name"),
    )
}

/// Something that is made, changed or deleted in a cluster.
fn change(objects: &[Value], others: &[Value], index: Index, deletes: bool) -> Review {
    if deletes {
        let old = Subject::new(index.get(objects).clone());
        return Review::made_of(Operation::Delete, None, Some(old));
    }
    let new = index.get(others);
    let old = objects.iter().find(|old| key(old) == key(new));
    let operation = if old.is_some() {
        Operation::Update
    } else {
        Operation::Create
    };
    Review::made_of(
        operation,
        Some(Subject::new(new.clone())),
        old.cloned().map(Subject::new),
    )
}

// === the definition ===

fn matches(selector: &Value, labels: &Labels) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut equal = equal.map(|(key, value)| labels.get(key) == value.as_str());
    let exist = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let mut exist = exist.map(|one| labels.contains(one["key"].as_str().expect("a key")));
    equal.all(|holds| holds) && exist.all(|holds| holds)
}

fn means_pod(end: &Value, pod: &Pod, snapshot: &Snapshot) -> bool {
    let labels = snapshot.namespace_labels(pod.namespace());
    let named = |names: &Value| {
        let mut names = names.as_array().into_iter().flatten();
        names.any(|name| name == pod.namespace().as_str())
    };
    let is_none = |field: &str| end.get(field).is_none_or(Value::is_null);
    is_none("cidrs")
        && (is_none("namespaces") || named(&end["namespaces"]))
        && (is_none("namespaceSelector") || matches(&end["namespaceSelector"], &labels))
        && (is_none("podSelector") || matches(&end["podSelector"], &pod.labels))
}

fn means_address(end: &Value, address: IpAddr) -> bool {
    let within = |field: &str| {
        let mut blocks = end[field].as_array().into_iter().flatten();
        blocks.any(|block| {
            let block: ipnet::IpNet = block.as_str().expect("a text").parse().expect("a block");
            block.contains(&address)
        })
    };
    within("cidrs") && !within("except")
}

fn ports() -> impl Iterator<Item = (Protocol, Port)> {
    let ports = clusters::PORTS.into_iter();
    let ports = ports.map(|port| u16::try_from(port).expect("a port"));
    // Ranges of cluster network policies end one further.
    let near = ports.flat_map(|port| [port - 1, port, port + 1, port + 2]);
    let ports: BTreeSet<u16> = near.chain([1, 65535]).collect();
    let ports = ports.into_iter().filter_map(Port::new);
    ports.flat_map(|port| Protocol::ALL.map(move |protocol| (protocol, port)))
}

fn means_port(rule: &Value, protocol: Protocol, port: Port) -> bool {
    let ports = rule["spec"]["ports"].as_array().expect("ports");
    ports.is_empty()
        || ports.iter().any(|one| {
            let first = one["port"].as_u64();
            let last = one["endPort"].as_u64().or(first);
            one["protocol"].as_str().unwrap_or("TCP") == protocol.as_str()
                && first.is_none_or(|first| first <= u64::from(port.get()))
                && last.is_none_or(|last| u64::from(port.get()) <= last)
        })
}

/// Everything that a rule does not want as it is.
fn wrong(rule: &Value, snapshot: &Snapshot) -> Flows {
    let pods: Vec<&Pod> = snapshot.pods().filter(|pod| pod.is_held()).collect();
    let addresses = EDGES.map(|text| text.parse::<IpAddr>().expect("an address"));
    let ends = |side: &str| {
        let ends = rule["spec"][side].as_array().expect("ends");
        let pods = pods
            .iter()
            .filter(|pod| ends.iter().any(|end| means_pod(end, pod, snapshot)))
            .map(|pod| Endpoint::Pod(pod));
        let outside = addresses
            .iter()
            .filter(|address| ends.iter().any(|end| means_address(end, **address)))
            .map(|address| Endpoint::External(*address));
        pods.chain(outside).collect::<Vec<_>>()
    };
    let demands = rule["spec"]["expect"] == "Allow";
    let mut wrong = Flows::new();
    for from in ends("from") {
        for to in ends("to") {
            let is_judged = match (from, to) {
                (Endpoint::Pod(from), Endpoint::Pod(to)) => {
                    from.workload != to.workload || from.is_template()
                }
                // No policy gives a pod an address.
                (Endpoint::Pod(pod), Endpoint::External(address))
                | (Endpoint::External(address), Endpoint::Pod(pod)) => {
                    pod.ips.is_empty()
                        || pod.ips.iter().any(|own| own.is_ipv4() == address.is_ipv4())
                }
                _ => false,
            };
            if !is_judged {
                continue;
            }
            for (protocol, port) in
                ports().filter(|(protocol, port)| means_port(rule, *protocol, *port))
            {
                let flow = Flow::new(from, to, protocol, port);
                if snapshot.verdict(&flow).allowed() != demands {
                    wrong.insert((from.to_string(), to.to_string(), protocol, port));
                }
            }
        }
    }
    wrong
}

// === what is held to it ===

fn snapshot(objects: &[Value]) -> Snapshot {
    let object = |value: &Value| Subject::new(value.clone()).model().expect("a kind").clone();
    objects.iter().map(object).collect()
}

fn checked(rules: &[Value]) -> Vec<ReachabilityRule> {
    let parse = |rule: &Value| ReachabilityRule::parse(rule).expect("a good rule");
    rules.iter().map(parse).collect()
}

/// The ids and messages of what is found.
fn found(review: &Review, rules: Vec<ReachabilityRule>, known: &Snapshot) -> Vec<(String, String)> {
    let context = Context {
        snapshot: known,
        guardrails: &Guardrails::default(),
        exemptions: &Exemptions::default(),
        reachability: &ReachabilityRules::new(rules, known),
        engine: &NoPolicies,
        neighbourhood: None,
    };
    let now = "2026-06-01T00:00:00Z".parse().expect("a time");
    let budget = Budget {
        deadline: None,
        pods: 100_000,
    };
    let decision = judge(review, &context, now, budget);
    assert_eq!(decision.cut, None);
    let judged = decision.judged.into_iter().map(|judged| judged.finding);
    judged
        .map(|finding| (finding.id.to_string(), finding.message))
        .collect()
}

fn after(review: &Review, known: &Snapshot) -> Snapshot {
    let model = |subject: &Option<Subject>| subject.as_ref().and_then(Subject::model).cloned();
    match (model(&review.object), model(&review.old_object)) {
        (Some(new), _) => known.with(new),
        (None, Some(old)) => known.without(&old.key()),
        (None, None) => known.clone(),
    }
}

fn check_change(
    objects: &[Value],
    review: &Review,
    rules: &[Value],
) -> Result<usize, TestCaseError> {
    let before = snapshot(objects);
    let after = after(review, &before);
    let found = found(review, checked(rules), &before);
    // Who leaves reaches nobody, and takes nothing from the others.
    let leaves = review.operation == Operation::Delete
        && !matches!(
            review.old_object.as_ref().and_then(Subject::model),
            Some(Object::NetworkPolicy(_) | Object::ClusterNetworkPolicy(_))
        );
    let mut broken = 0;
    for rule in rules {
        let mut new = wrong(rule, &after);
        for old in wrong(rule, &before) {
            new.remove(&old);
        }
        let name = rule["metadata"]["name"].as_str().expect("a name");
        let told = found
            .iter()
            .any(|(_, message)| message.contains(&format!("ReachabilityRule {name} ")));
        prop_assert_eq!(
            told,
            !new.is_empty() && !leaves,
            "{:?} of {:#} by {:?}: {:?} {:?}",
            found,
            rule,
            review.operation,
            review
                .object
                .as_ref()
                .map(|object| object.value.to_string()),
            new.iter().take(3).collect::<Vec<_>>()
        );
        broken += usize::from(told);
    }
    Ok(broken)
}

fn check_whole(objects: &[Value], rules: &[Value]) -> Result<(), TestCaseError> {
    let known = snapshot(objects);
    for rule in rules {
        let found = found(&Review::of_manifest(rule.clone()), Vec::new(), &known);
        let ids: BTreeMap<&str, &str> = found.iter().map(|(id, text)| (&**id, &**text)).collect();
        let id = if rule["spec"]["expect"] == "Allow" {
            "RF702"
        } else {
            "RF701"
        };
        let wrong = wrong(rule, &known);
        prop_assert_eq!(
            ids.contains_key(id),
            !wrong.is_empty(),
            "{:?} of {:#}: {:?}",
            found,
            rule,
            wrong.iter().take(3).collect::<Vec<_>>()
        );
        let is_empty = |end: &Value| {
            let mut pods = known.pods().filter(|pod| pod.is_held());
            end.get("cidrs").is_none() && !pods.any(|pod| means_pod(end, pod, &known))
        };
        let mut ends = ["from", "to"]
            .into_iter()
            .flat_map(|side| rule["spec"][side].as_array().expect("ends"));
        prop_assert_eq!(ids.contains_key("RF703"), ends.any(is_empty), "{:#}", rule);
    }
    Ok(())
}

/// A cluster in which nothing is being deleted: such changes are not judged.
fn any_cluster() -> impl Strategy<Value = Vec<Value>> {
    clusters::any_cluster().prop_map(|mut objects| {
        for object in &mut objects {
            object["metadata"]["deletionTimestamp"] = Value::Null;
        }
        objects
    })
}

#[test]
fn what_a_change_breaks_is_what_is_wrong_after_it_and_was_not_before() {
    let cluster = any_cluster;
    let cases = (
        cluster(),
        cluster(),
        any_rules(),
        any::<Index>(),
        prop::bool::weighted(0.2),
    );
    let (broken, by_wide) = (Cell::new(0), Cell::new(0));
    random::hold(512, &cases, |(objects, others, rules, index, deletes)| {
        let review = change(&objects, &others, index, deletes);
        let found = check_change(&objects, &review, &rules)?;
        broken.set(broken.get() + found);
        if review.kind == "ClusterNetworkPolicy" {
            by_wide.set(by_wide.get() + found);
        }
        Ok(())
    });
    assert!(broken.get() > 15, "only {} rules were broken", broken.get());
    assert!(by_wide.get() > 0, "none by a ClusterNetworkPolicy");
}

#[test]
fn what_a_rule_meets_is_what_is_wrong() {
    let cases = (any_cluster(), any_rules());
    random::hold(256, &cases, |(objects, rules)| {
        check_whole(&objects, &rules)
    });
    // Where policies are on trial, for some pods of a kind and not for others.
    let cases = (trials::any_cluster(), any_rules());
    random::hold(128, &cases, |(objects, rules)| {
        check_whole(&objects, &rules)
    });
}

#[test]
fn what_a_node_breaks_is_what_is_wrong_after_it_and_was_not_before() {
    let node = || {
        let labels = select(vec![json!({}), json!({"app": "x"}), json!({"app": "y"})]);
        let addresses = select(vec![
            json!([]),
            json!(["192.168.0.1"]),
            json!(["192.168.0.2", "fd01::1"]),
        ]);
        (labels, addresses).prop_map(|(labels, addresses)| {
            let addresses = addresses.as_array().expect("addresses").iter();
            let addresses: Vec<Value> = addresses
                .map(|address| json!({"type": "InternalIP", "address": address}))
                .collect();
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels},
                "status": {"addresses": addresses}
            })
        })
    };
    let action = || select(vec!["Accept", "Deny"]);
    let wide = (action(), action(), select(vec!["Admin", "Baseline"])).prop_map(
        |(nodes, others, tier)| {
            json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                "metadata": {"name": "nodes"},
                "spec": {"tier": tier, "priority": 0, "subject": {"namespaces": {}}, "egress": [
                    {"action": nodes, "to": [{"nodes": {"matchLabels": {"app": "x"}}}]},
                    {"action": others, "to": [{"networks": ["192.168.0.0/16", "fd01::/64"]}]}
                ]}
            })
        },
    );
    let rules = (any_rules(), select(vec!["Deny", "Allow"])).prop_map(|(mut rules, expect)| {
        let to = json!([{"cidrs": ["192.168.0.0/16", "fd01::/64"], "except": ["192.168.0.2/32"]}]);
        rules.push(json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "ReachabilityRule", "metadata": {"name": "nodes"},
            "spec": {"from": [{"podSelector": {}}], "to": to, "ports": [], "expect": expect, "mode": "Enforce"}
        }));
        rules
    });
    let cases = (any_cluster(), wide, option::of(node()), node(), rules);
    let broken = Cell::new(0);
    random::hold(256, &cases, |(mut objects, wide, old, new, rules)| {
        objects.retain(|object| object["kind"] != "Node");
        objects.push(wide);
        objects.extend(old.clone());
        let operation = if old.is_some() {
            Operation::Update
        } else {
            Operation::Create
        };
        let review = Review::made_of(operation, Some(Subject::new(new)), old.map(Subject::new));
        broken.set(broken.get() + check_change(&objects, &review, &rules)?);
        Ok(())
    });
    // Some seventeen as a rule; the clusters are other ones each time.
    assert!(broken.get() > 2, "only {} rules were broken", broken.get());
}

#[test]
fn rules_that_are_carried_on_are_what_they_are_when_made_anew() {
    let changes = vec((any::<Index>(), any::<bool>()), 1..6);
    let cases = (any_cluster(), any_cluster(), any_rules(), changes);
    let kept = Cell::new(0);
    random::hold(256, &cases, |(objects, others, rules, changes)| {
        let mut known = snapshot(&objects);
        let mut carried = ReachabilityRules::new(checked(&rules), &known);
        for (index, comes) in changes {
            let subject = index.get(if comes { &others } else { &objects });
            let object = Subject::new(subject.clone())
                .model()
                .expect("a kind")
                .clone();
            let key = object.key();
            known = if comes {
                known.with(object)
            } else {
                known.without(&key)
            };
            let is_wide = matches!(key, ObjectKey::Node(_) | ObjectKey::ClusterNetworkPolicy(_));
            kept.set(kept.get() + usize::from(!is_wide));
            carried = carried.following(&known, &[key]);
            let fresh = ReachabilityRules::new(checked(&rules), &known);
            prop_assert!(carried == fresh, "{:?} is not {:?}", carried, fresh);
        }
        Ok(())
    });
    assert!(
        kept.get() > 200,
        "only {} changes of a namespace",
        kept.get()
    );
}

#[test]
fn who_passes_has_a_door_at_both_ends() {
    let passed = Cell::new(0);
    random::hold(256, &any_cluster(), |objects| {
        let known = snapshot(&objects);
        let groups: Vec<Group> = known
            .namespaces()
            .flat_map(|state| Group::of_namespace(state, &known))
            .collect();
        let through = |of: &Group, direction: Direction, other: &Group| {
            let doors = of.doors(direction).into_iter();
            let doors = doors.filter(|door| door.is_for(other));
            doors
                .map(|door| door.ports_for(other, direction))
                .fold(PortSet::none(), |all, ports| all.or(&ports))
        };
        for from in &groups {
            let elsewhere = groups.iter();
            for to in elsewhere.filter(|to| to.namespace() != from.namespace()) {
                let (out, into) = (
                    through(from, Direction::Egress, to),
                    through(to, Direction::Ingress, from),
                );
                for source in from.pods() {
                    for destination in to.pods() {
                        let open = from.reaches(source, to, destination);
                        prop_assert!(open.without(&out).is_empty(), "out: {} {}", open, out);
                        prop_assert!(open.without(&into).is_empty(), "into: {} {}", open, into);
                        passed.set(passed.get() + usize::from(!open.is_empty()));
                    }
                }
            }
        }
        Ok(())
    });
    assert!(passed.get() > 100, "only {} pairs", passed.get());
}
