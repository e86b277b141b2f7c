//! Holds the findings of the whole to their word: over random clusters, what is said to select nothing, to match nothing or
//! to add nothing is taken away, and no pair of ends may notice at any port.

// What a test cannot prepare has failed.
#![allow(clippy::expect_used, clippy::panic)]

#[path = "../netpol_oracle/clusters.rs"]
#[allow(dead_code)] // the other test uses the rest
mod clusters;
#[path = "../support/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use ringfence::netpol::findings::{self, Everything, Flaw, Neighbourhood, OneSided, What, Whole};
use ringfence::netpol::reach::Place;
use ringfence::netpol::{
    Direction, EndVerdict, Endpoint, FieldPath, Flow, PortSet, Reachability, Segment, Snapshot,
    Tier, parse,
};
use serde_json::{Value, json};

fn snapshot(objects: &[Value]) -> Snapshot {
    let object = |value: &Value| {
        parse(value)
            .expect("valid")
            .expect("a kind of the model")
            .object
    };
    objects.iter().map(object).collect()
}

/// What every pair of ends may do, pods by name and addresses outside.
fn everything(snapshot: &Snapshot) -> Vec<PortSet> {
    let reach = Reachability::of(snapshot);
    let pods: Vec<_> = snapshot.pods().map(|pod| pod.workload.clone()).collect();
    let addresses = clusters::OUTSIDE.map(|text| text.parse::<IpAddr>().expect("an address"));
    let places: Vec<Place<'_>> = pods
        .iter()
        .map(Place::Pod)
        .chain(addresses.into_iter().map(Place::Address))
        .collect();
    let mut all = Vec::new();
    for from in &places {
        all.extend(places.iter().map(|to| reach.between(*from, *to)));
    }
    all
}

/// The objects without one field of one of them; a list that would be left empty, and so mean all, goes with its rule.
fn without(objects: &[Value], name: &str, field: &FieldPath) -> Vec<Value> {
    let mut objects = objects.to_vec();
    let object = objects
        .iter_mut()
        .find(|object| object["metadata"]["name"] == json!(name))
        .expect("the policy");
    let mut field = field.clone();
    while let Some(above) = field.parent() {
        let (items, last) = (
            above.lookup(object).cloned(),
            field.segments().last().cloned(),
        );
        let is_rule = field.segments().len() == 3;
        if let (Some(Value::Array(items)), Some(Segment::Index(index))) = (items, last)
            && (items.len() > 1 || is_rule)
        {
            let all = object
                .pointer_mut(&above.to_pointer())
                .and_then(Value::as_array_mut);
            all.expect("a list").remove(index);
            return objects;
        }
        field = above;
    }
    panic!("{field} is in no list");
}

/// Whether one end lets the example pass and the policies named deny it at the other.
fn one_sided(all: &Snapshot, found: &OneSided) -> Result<(), TestCaseError> {
    let pod = |workload| Endpoint::Pod(all.pod(workload).expect("a pod"));
    let flow = Flow::new(pod(&found.from), pod(&found.to), found.protocol, found.port);
    let verdict = all.verdict(&flow);
    let (own, other) = match found.direction {
        Direction::Ingress => (verdict.ingress, verdict.egress),
        Direction::Egress => (verdict.egress, verdict.ingress),
    };
    prop_assert!(own.passes(), "{flow}: {own}");
    prop_assert!(
        matches!(other, EndVerdict::Denied { .. }),
        "{flow}: {other}"
    );
    prop_assert_eq!(other.isolated_by(), &found.denied_by);
    Ok(())
}

/// Whether all that adds nothing can be taken away together.
fn together(objects: &[Value], before: &[PortSet]) -> Result<(), TestCaseError> {
    let all = snapshot(objects);
    let near = Neighbourhood::of(&all);
    let mut left = objects.to_vec();
    for policy in all.policies() {
        let name = policy.name.as_str();
        let types = Direction::BOTH
            .into_iter()
            .filter(|direction| policy.isolates(*direction));
        let types: Vec<&str> = types.map(Direction::policy_type).collect();
        let own = left
            .iter_mut()
            .find(|object| object["metadata"]["name"] == json!(name));
        own.expect("the policy")["spec"]["policyTypes"] = json!(types);
        for Flaw { field, what } in near.flaws(policy).into_iter().rev() {
            match what {
                What::RuleAddsNothing(_) | What::RuleShadowed(_) => {
                    left = without(&left, name, &field);
                }
                What::PolicyAddsNothing(_) | What::PolicyShadowed(_) => {
                    left.retain(|object| object["metadata"]["name"] != json!(name));
                }
                _ => {}
            }
        }
    }
    for policy in all.cluster_policies() {
        let name = policy.reference.name.as_str();
        for Flaw { field, what } in findings::cluster_flaws(&all, Some(&near), policy)
            .into_iter()
            .rev()
        {
            match what {
                What::PolicyShadowed(_) => {
                    left.retain(|object| object["metadata"]["name"] != json!(name));
                }
                What::RuleShadowed(_) => left = without(&left, name, &field),
                _ => {}
            }
        }
    }
    prop_assert_eq!(&everything(&snapshot(&left)), before);
    Ok(())
}

/// Whether each rule and policy of the whole cluster that never decides can be taken away.
fn shadowed(
    objects: &[Value],
    before: &[PortSet],
    seen: &mut BTreeMap<&'static str, u32>,
) -> Result<(), TestCaseError> {
    let all = snapshot(objects);
    let near = Neighbourhood::of(&all);
    for policy in all.cluster_policies() {
        let name = policy.reference.name.as_str();
        for Flaw { field, what } in findings::cluster_flaws(&all, Some(&near), policy) {
            let (kind, changed) = match (&what, policy.tier) {
                (What::OpensEverything(_), _) => continue,
                (What::SelectsNothing(_), _) => {
                    let left = objects
                        .iter()
                        .filter(|object| object["metadata"]["name"] != json!(name));
                    ("cluster policy rules nobody", left.cloned().collect())
                }
                (What::PeerIsNobody(_), _) => {
                    ("cluster peer is nobody", without(objects, name, &field))
                }
                (What::PolicyShadowed(_), _) => {
                    let left = objects
                        .iter()
                        .filter(|object| object["metadata"]["name"] != json!(name));
                    ("cluster policy shadowed", left.cloned().collect())
                }
                (_, Tier::Admin) => ("Admin rule shadowed", without(objects, name, &field)),
                (_, Tier::Baseline) => ("Baseline rule shadowed", without(objects, name, &field)),
            };
            *seen.entry(kind).or_default() += 1;
            prop_assert_eq!(
                &everything(&snapshot(&changed)),
                before,
                "{} {}: {:?}",
                name,
                field,
                what
            );
        }
    }
    Ok(())
}

/// The objects with a rule more in a policy, which says in one word what others are found to open piece by piece.
fn in_one_word(objects: &[Value], name: &str, found: &[Everything]) -> (&'static str, Vec<Value>) {
    let mut objects = objects.to_vec();
    let spec = objects
        .iter_mut()
        .find(|object| object["metadata"]["name"] == json!(name))
        .map(|object| &mut object["spec"])
        .expect("the policy");
    let mut kind = "all addresses";
    for one in found {
        let (direction, list) = match one.direction {
            Direction::Ingress => ("ingress", "from"),
            Direction::Egress => ("egress", "to"),
        };
        let mut rule = spec[direction][one.rules[0]].clone();
        match &one.what {
            Whole::AnyPod => kind = "any pod",
            Whole::Namespaces(_) => kind = "all namespaces",
            Whole::Ports(_) => kind = "all ports",
            Whole::Addresses { .. } => continue,
        }
        match &one.what {
            Whole::Ports(protocol) => rule["ports"] = json!([{"protocol": protocol}]),
            _ => rule[list] = json!([{"namespaceSelector": {}}]),
        }
        let rules = spec[direction].as_array_mut().expect("rules");
        rules.push(rule);
    }
    (kind, objects)
}

fn check(objects: &[Value], seen: &mut BTreeMap<&'static str, u32>) -> Result<(), TestCaseError> {
    let all = snapshot(objects);
    let before = everything(&all);
    let near = Neighbourhood::of(&all);
    for policy in all.policies() {
        let name = policy.name.as_str();
        // Without its last egress rule a policy that lists no types would isolate less.
        let mut objects = objects.to_vec();
        let types = Direction::BOTH
            .into_iter()
            .filter(|direction| policy.isolates(*direction));
        let types: Vec<&str> = types.map(Direction::policy_type).collect();
        let own = objects
            .iter_mut()
            .find(|object| object["metadata"]["name"] == json!(name));
        own.expect("the policy")["spec"]["policyTypes"] = json!(types);
        let objects = &objects;
        for Flaw { field, what } in near.flaws(policy) {
            let (kind, changed) = match &what {
                What::SelectsNothing(_) | What::PolicyAddsNothing(_) | What::PolicyShadowed(_) => {
                    let left = objects
                        .iter()
                        .filter(|object| object["metadata"]["name"] != json!(name));
                    let kind = match &what {
                        What::SelectsNothing(_) => "policy selects nothing",
                        What::PolicyShadowed(_) => "policy shadowed",
                        _ => "policy adds nothing",
                    };
                    (kind, left.cloned().collect())
                }
                What::RuleShadowed(_) => ("rule shadowed", without(objects, name, &field)),
                What::RuleAddsNothing(_) => ("rule adds nothing", without(objects, name, &field)),
                What::OneSided(found) => {
                    one_sided(&all, found)?;
                    ("one-sided", without(objects, name, &field))
                }
                What::OpensEverything(found) => {
                    let (kind, changed) = in_one_word(objects, name, found);
                    (kind, changed)
                }
                What::PeerIsNobody(_) => ("peer is nobody", without(objects, name, &field)),
                What::NeverMatches(_) if field.segments().len() == 2 => {
                    let mut objects = objects.clone();
                    let object = objects
                        .iter_mut()
                        .find(|object| object["metadata"]["name"] == json!(name));
                    let spec = &mut object.expect("the policy")["spec"];
                    let direction = field.segments().last().expect("a direction").clone();
                    let Segment::Key(direction) = direction else {
                        panic!("{field}")
                    };
                    spec[direction] = json!([]);
                    ("no such direction", objects)
                }
                What::NeverMatches(_) => ("never matches", without(objects, name, &field)),
            };
            *seen.entry(kind).or_default() += 1;
            prop_assert_eq!(
                &everything(&snapshot(&changed)),
                &before,
                "{} {}: {:?}",
                name,
                field,
                what
            );
        }
    }
    shadowed(objects, &before, seen)
}

/// What makes a folder one of a whole cluster.
fn system() -> [Value; 3] {
    let namespace =
        |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    [
        namespace("c"),
        namespace("kube-system"),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"containers": [{"name": "main"}]}, "status": {"phase": "Running", "podIP": "10.0.9.9"},
        }),
    ]
}

#[test]
fn what_is_said_to_do_nothing_can_be_taken_away() {
    let mut seen = BTreeMap::new();
    for is_whole in [false, true] {
        let counted = std::cell::RefCell::new(&mut seen);
        random::hold(256, &clusters::any_cluster(), |mut objects| {
            if is_whole {
                objects.extend(system());
            }
            check(&objects, &mut counted.borrow_mut())?;
            together(&objects, &everything(&snapshot(&objects)))
        });
    }
    // A test that never meets what it is about says nothing.
    for (kind, least) in [
        ("policy selects nothing", 50),
        ("peer is nobody", 50),
        ("never matches", 50),
        ("no such direction", 20),
        ("rule adds nothing", 20),
        ("policy adds nothing", 1),
        ("one-sided", 2),
        ("rule shadowed", 20),
        ("policy shadowed", 1),
        ("Admin rule shadowed", 20),
        ("Baseline rule shadowed", 20),
        ("cluster policy shadowed", 1),
        ("cluster policy rules nobody", 10),
        ("cluster peer is nobody", 10),
        ("all namespaces", 1),
        ("all addresses", 2),
    ] {
        assert!(
            seen.get(kind).is_some_and(|seen| *seen >= least),
            "{kind}: {seen:?}"
        );
    }
}

/// Whether each group of policies can be replaced by the one that is proposed; how many groups there were.
fn one_for_many(objects: &[Value]) -> Result<u32, TestCaseError> {
    let all = snapshot(objects);
    let near = Neighbourhood::of(&all);
    let mut before = None;
    let mut groups = 0;
    for policy in all.policies() {
        let others = near.joinable(policy);
        let Some(first) = others.first() else {
            continue;
        };
        prop_assert!(
            others
                .iter()
                .all(|other| near.joinable(other).contains(&policy))
        );
        if first.name < policy.name {
            continue;
        }
        groups += 1;
        let gone: Vec<&str> = others.iter().map(|other| other.name.as_str()).collect();
        let mut left = objects.to_vec();
        left.retain(|object| {
            !gone
                .iter()
                .any(|name| object["metadata"]["name"] == json!(name))
        });
        let own = left
            .iter_mut()
            .find(|object| object["metadata"]["name"] == json!(policy.name.as_str()));
        *own.expect("the policy") = policy.joined(others.iter().copied()).manifest();
        let before = before.get_or_insert_with(|| everything(&all));
        prop_assert_eq!(
            &everything(&snapshot(&left)),
            &*before,
            "{} {:?}",
            policy.name,
            gone
        );
    }
    Ok(groups)
}

#[test]
fn policies_that_could_be_one_are_the_same_as_one() {
    let groups = std::cell::Cell::new(0);
    random::hold(256, &clusters::any_cluster(), |objects| {
        groups.set(groups.get() + one_for_many(&objects)?);
        Ok(())
    });
    assert!(groups.get() >= 1, "no policies could be one");
}

#[test]
fn the_manifest_of_a_policy_reads_as_the_policy() {
    random::hold(256, &clusters::any_cluster(), |objects| {
        for policy in snapshot(&objects).policies() {
            let again = snapshot(&[policy.manifest()]);
            let again = again.policy(&policy.reference()).expect("the policy");
            prop_assert_eq!(&again.selector, &policy.selector);
            prop_assert_eq!(&again.isolates, &policy.isolates);
            for direction in Direction::BOTH {
                prop_assert_eq!(again.rules(direction), policy.rules(direction));
            }
        }
        Ok(())
    });
}

#[test]
fn a_policy_is_held_against_what_is_next_to_it_as_against_everything() {
    random::hold(128, &clusters::any_cluster(), |objects| {
        let all = snapshot(&objects);
        let near = Neighbourhood::of(&all);
        for policy in all.policies() {
            let around = Neighbourhood::around(&all, policy, 100).expect("few pods");
            let (few, many) = (around.flaws(policy), near.flaws(policy));
            for flaw in &few {
                let is_same = |other: &Flaw| match (&flaw.what, &other.what) {
                    // Of all namespaces more may be known to be open.
                    (What::OpensEverything(few), What::OpensEverything(many)) => {
                        few.iter().all(|one| many.contains(one))
                    }
                    _ => flaw == other,
                };
                prop_assert!(many.iter().any(is_same), "{:?} is not in {:?}", flaw, many);
            }
        }
        Ok(())
    });
}

#[test]
fn more_peers_than_can_be_held_against_each_other_in_time_are_not() {
    let blocks = |number: u32| -> Vec<Value> {
        let addresses = (0..number).map(|at| std::net::Ipv4Addr::from_bits(0x0b00_0000 + at));
        let blocks = addresses.map(|at| json!({"ipBlock": {"cidr": format!("{at}/32")}}));
        blocks.collect()
    };
    let policy = |name: &str, number: u32| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": name},
            "spec": {"podSelector": {}, "ingress": [{"from": blocks(number)}]},
        })
    };
    let adds_nothing = |others: u32, at_admission: bool| {
        let all = snapshot(&[policy("many", others), policy("one", 1)]);
        let one = all.policies().find(|policy| policy.name.as_str() == "one");
        let one = one.expect("the policy");
        let near = if at_admission {
            Neighbourhood::around(&all, one, 100).expect("few pods")
        } else {
            Neighbourhood::of(&all)
        };
        let flaws = near.flaws(one);
        let mut flaws = flaws.iter();
        flaws.any(|flaw| matches!(flaw.what, What::PolicyAddsNothing(_)))
    };
    for (most, at_admission) in [(1_000, true), (10_000, false)] {
        assert!(adds_nothing(most - 1, at_admission));
        assert!(!adds_nothing(most, at_admission));
    }
}
