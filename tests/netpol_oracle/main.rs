//! Holds the model of network policies equal to a naive evaluator, over random clusters: every pair of ends, every
//! protocol, every port that matters. `evaluator` and `tiers` are the naive one, `clusters` makes the clusters.

// What a test cannot prepare has failed.
#![allow(clippy::expect_used, clippy::panic)]

mod clusters;
mod evaluator;
mod predecessors;
mod seen;
mod tiers;
mod trials;

use std::cell::RefCell;
use std::net::IpAddr;

use evaluator::{Address, Connection, EGRESS, End, INGRESS};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ringfence::netpol::{
    Direction, EndVerdict, Endpoint, Family, Flow, NodeName, Object, Pod, PolicyKind, Port,
    Protocol, RuleRef, Snapshot, Tier, Verdict, WorkloadKind, WorkloadRef, parse,
};
use seen::Seen;
use serde_json::{Value, json};
use tiers::Says;

/// A cluster twice: as it was generated, and as the model holds it.
struct Both {
    objects: Vec<Value>,
    snapshot: Snapshot,
    nodes: Vec<NodeName>,
}

impl Both {
    fn new(objects: Vec<Value>) -> Self {
        let snapshot = objects.iter().map(object).collect();
        let nodes = clusters::NODES.map(NodeName::from).to_vec();
        Self {
            objects,
            snapshot,
            nodes,
        }
    }

    /// Every end that a flow may have, for the one and for the other.
    fn ends(&self) -> Vec<(End<'_>, Endpoint<'_>)> {
        let mut ends = Vec::new();
        for object in self.objects.iter().filter(|object| is_workload(object)) {
            ends.push((End::Pod(object), Endpoint::Pod(self.pod(object))));
        }
        for address in clusters::OUTSIDE {
            let address: IpAddr = address.parse().expect("an address");
            ends.push((End::Outside(address), Endpoint::External(address)));
        }
        let known = clusters::NODE_ADDRESSES.map(|address| address.parse().ok());
        for (name, address) in [(0, known[0]), (0, known[1]), (1, None)] {
            let name = &self.nodes[name];
            ends.push((
                End::Node(name.as_str(), address),
                Endpoint::Node { name, address },
            ));
        }
        ends
    }

    fn pod(&self, object: &Value) -> &Pod {
        let text = |key: &str| object["metadata"][key].as_str().expect("a name");
        let kind = object["kind"].as_str().expect("a kind");
        let api_version = object["apiVersion"].as_str().expect("a version");
        let workload = WorkloadRef {
            kind: WorkloadKind::from_api(api_version, kind).expect("a workload"),
            namespace: text("namespace").into(),
            name: text("name").into(),
        };
        self.snapshot.pod(&workload).expect("a pod of the snapshot")
    }

    /// Compares the two on one flow, and looks at the reasons that the model gives.
    fn compare(
        &self,
        connection: &Connection<'_>,
        flow: &Flow<'_>,
        seen: &mut Seen,
    ) -> Result<(), TestCaseError> {
        let families: &[u8] = match flow.family {
            None => &[4, 6],
            Some(Family::V4) => &[4],
            Some(Family::V6) => &[6],
        };
        let expected = evaluator::is_allowed(&self.objects, connection, families);
        let verdict = self.snapshot.verdict(flow);
        prop_assert_eq!(verdict.allowed(), expected, "{}: {}", flow, verdict);
        seen.verdict(&verdict);
        for end in [&verdict.egress, &verdict.ingress] {
            if let EndVerdict::Allowed { by, .. } = end {
                seen.rule(by, &self.objects);
            }
        }
        self.compare_end(
            &verdict,
            Direction::Ingress,
            connection,
            connection.to,
            connection.from,
        )?;
        self.compare_end(
            &verdict,
            Direction::Egress,
            connection,
            connection.from,
            connection.to,
        )
    }

    /// Whether the policies and the rule that the model names are such.
    fn compare_end(
        &self,
        verdict: &Verdict,
        direction: Direction,
        connection: &Connection<'_>,
        own: End<'_>,
        other: End<'_>,
    ) -> Result<(), TestCaseError> {
        let end = verdict.at(direction);
        let End::Pod(pod) = own else {
            prop_assert!(matches!(
                end,
                EndVerdict::NotHeld(_) | EndVerdict::NoAddress
            ));
            return Ok(());
        };
        let word = word(direction);
        let isolating = names(&evaluator::isolating(&self.objects, word, pod));
        let mut named: Vec<String> = end.isolated_by().iter().map(ToString::to_string).collect();
        named.sort();
        let address = match (direction, verdict.addresses) {
            (Direction::Ingress, (source, _)) => source,
            (Direction::Egress, (_, destination)) => destination,
        };
        if !matches!(end, EndVerdict::NotHeld(_) | EndVerdict::NoAddress) {
            self.compare_tiers(verdict, direction, connection, pod, other, address)?;
        }
        match end {
            EndVerdict::NotHeld(_) | EndVerdict::NoAddress | EndVerdict::Ruled(_) => {}
            EndVerdict::NotIsolated => prop_assert!(isolating.is_empty()),
            EndVerdict::Denied { .. } => prop_assert_eq!(named, isolating),
            EndVerdict::Allowed { by, .. } => {
                prop_assert_eq!(&named, &isolating);
                self.compare_rule(by, connection, other, address)?;
            }
        }
        Ok(())
    }

    /// Whether each tier decides what the naive evaluator says, and the rule that the model names is there.
    fn compare_tiers(
        &self,
        verdict: &Verdict,
        direction: Direction,
        connection: &Connection<'_>,
        pod: &Value,
        other: End<'_>,
        address: Option<IpAddr>,
    ) -> Result<(), TestCaseError> {
        let Some(address) = address else {
            return Ok(());
        };
        let says = |tier: Tier| {
            let (objects, tier) = (&self.objects, tier.as_str());
            let address = Address::Known(address);
            tiers::says(
                objects,
                tier,
                word(direction),
                connection,
                pod,
                other,
                address,
            )
        };
        let end = verdict.at(direction);
        let Some(ruled) = end.ruled() else {
            prop_assert_eq!(says(Tier::Admin), Says::Next);
            return Ok(());
        };
        let said = if ruled.accepts {
            Says::Accept
        } else {
            Says::Deny
        };
        prop_assert_eq!(says(ruled.by.tier), said, "{}", end);
        let is_named =
            |object: &&Value| object["metadata"]["name"] == ruled.by.policy.name.as_str();
        let policy = self.objects.iter().find(is_named).expect("a policy");
        let rule = &policy["spec"][direction.field()][ruled.by.index];
        let action = rule["action"].as_str().expect("an action");
        prop_assert!(ruled.accepts == (action == "Accept"), "{}", end);
        prop_assert!(action != "Pass" || ruled.closed.is_some(), "{}", end);
        prop_assert!(ruled.by.field().lookup(policy).is_some());
        Ok(())
    }

    /// Whether the peer and the port that the model names allow the flow by themselves.
    fn compare_rule(
        &self,
        by: &RuleRef,
        connection: &Connection<'_>,
        other: End<'_>,
        address: Option<IpAddr>,
    ) -> Result<(), TestCaseError> {
        let policy = policy_of(by, &self.objects);
        let rule = &evaluator::rules(policy, word(by.direction))[by.index];
        let peers = evaluator::peers(rule, word(by.direction));
        prop_assert_eq!(by.peer.is_none(), peers.is_empty());
        if let Some(peer) = by.peer {
            let matches = |address| {
                evaluator::peer_matches(&self.objects, policy, &peers[peer], other, address)
            };
            let matches = match address {
                Some(address) => matches(Address::Known(address)),
                None => matches(Address::UnknownIpv4) || matches(Address::UnknownIpv6),
            };
            prop_assert!(matches, "{} does not mean {:?}", by, other);
        }
        let pointed = by.field().lookup(policy);
        prop_assert_eq!(pointed, Some(by.peer.map_or(rule, |peer| &peers[peer])));
        if let Some(port) = by.port {
            prop_assert!(evaluator::port_matches(&rule["ports"][port], connection));
        }
        Ok(())
    }
}

fn object(value: &Value) -> Object {
    match parse(value) {
        Ok(Some(parsed)) => parsed.object,
        other => panic!("{value} should be valid: {other:?}"),
    }
}

fn is_workload(object: &Value) -> bool {
    object["spec"]["template"].is_object() || object["kind"] == "Pod"
}

/// The policy that a rule is of.
fn policy_of<'o>(by: &RuleRef, objects: &'o [Value]) -> &'o Value {
    let kind = match by.policy.kind {
        PolicyKind::NetworkPolicy => "NetworkPolicy",
        PolicyKind::Canary | PolicyKind::StagedNetworkPolicy => "StagedNetworkPolicy",
    };
    let is_named = |policy: &&Value| {
        policy["kind"] == kind
            && policy["metadata"]["namespace"] == by.policy.namespace.as_str()
            && policy["metadata"]["name"] == by.policy.name.as_str()
    };
    let mut policies = objects.iter();
    policies.find(is_named).expect("a policy of the cluster")
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => INGRESS,
        Direction::Egress => EGRESS,
    }
}

fn names(policies: &[&Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let mut names: Vec<String> = policies
        .iter()
        .map(|policy| {
            let (namespace, name) = (
                &policy["metadata"]["namespace"],
                &policy["metadata"]["name"],
            );
            let name = format!("{}/{}", text(namespace), text(name));
            if policy["kind"] == "StagedNetworkPolicy" {
                format!("StagedNetworkPolicy {name} (canary)")
            } else {
                name
            }
        })
        .collect();
    names.sort();
    names
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..ProptestConfig::default()
    }
}

#[test]
fn the_model_gives_the_verdicts_of_the_naive_evaluator() {
    let seen = RefCell::new(Seen::default());
    let check = |objects: Vec<Value>| {
        let both = Both::new(objects);
        let ends = both.ends();
        let seen = &mut seen.borrow_mut();
        for (from, model_from) in &ends {
            for (to, model_to) in &ends {
                // Between two ends that are no pods there is nothing to judge.
                if !matches!(from, End::Pod(_)) && !matches!(to, End::Pod(_)) {
                    continue;
                }
                for protocol in Protocol::ALL {
                    for (index, port) in clusters::PORTS.into_iter().enumerate() {
                        let number = u16::try_from(port)
                            .ok()
                            .and_then(Port::new)
                            .expect("a port");
                        let flow = Flow::new(*model_from, *model_to, protocol, number);
                        let protocol = protocol.as_str();
                        let connection = Connection {
                            from: *from,
                            to: *to,
                            protocol,
                            port,
                        };
                        both.compare(&connection, &flow, seen)?;
                        // One family by itself, for every pair and protocol at one port.
                        if index == 1 {
                            both.compare(&connection, &flow.over(Family::V4), seen)?;
                            both.compare(&connection, &flow.over(Family::V6), seen)?;
                        }
                    }
                }
            }
        }
        Ok(())
    };
    let result = TestRunner::new(config(128)).run(&clusters::any_cluster(), check);
    result.unwrap_or_else(|failure| panic!("{failure}"));
    let result = TestRunner::new(config(64)).run(&trials::any_cluster(), check);
    result.unwrap_or_else(|failure| panic!("{failure}"));
    seen.borrow().at_least(&[
        ("allowed", 2000),
        ("denied", 2000),
        ("not isolated", 2000),
        ("allowed by a rule", 500),
        ("denied at an end", 600),
        ("allowed by rules at both ends", 10),
        ("rule for everyone", 80),
        ("podSelector", 6),
        ("namespaceSelector", 10),
        ("both selectors", 4),
        ("ipBlock", 100),
        ("ipBlock of IPv6", 6),
        ("ipBlock with except", 6),
        ("named port", 1),
        ("range of ports", 5),
        ("no address", 200),
        ("host network", 200),
        ("finished", 200),
        ("own node", 100),
        ("itself", 20),
        ("accepted by the Admin tier", 40),
        ("denied by the Admin tier", 150),
        ("accepted by the Baseline tier", 1),
        ("denied by the Baseline tier", 10),
        ("canary", 100),
    ]);
}

proptest! {
    #![proptest_config(config(64))]

    /// Coverage is the list of isolating policies, by whatever names, and what isolates is what verdicts speak of.
    #[test]
    fn coverage_is_that_of_the_naive_evaluator(objects in clusters::any_cluster()) {
        let both = Both::new(objects);
        for object in both.objects.iter().filter(|object| is_workload(object)) {
            let coverage = both.snapshot.pod_coverage(both.pod(object));
            for direction in Direction::BOTH {
                let expected = names(&evaluator::isolating(&both.objects, word(direction), object));
                let named: Vec<String> = coverage.by(direction).iter().map(ToString::to_string).collect();
                prop_assert_eq!(named, expected);
            }
        }
        // What covers a namespace covers a pod that nothing is known of but that it comes there.
        for state in both.snapshot.namespaces() {
            let metadata = json!({"namespace": state.name().as_str(), "name": "new"});
            let mut new = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}});
            let covering = both.snapshot.namespace_coverage(state.name());
            for labels in [json!({}), json!({"app": "x"}), json!({"app": "y", "env": "x"}), json!({"env": "y"})] {
                new["metadata"]["labels"] = labels;
                let Object::Pod(pod) = object(&new) else { panic!("a pod") };
                let coverage = both.snapshot.pod_coverage(&pod);
                for direction in Direction::BOTH {
                    let by = coverage.by(direction);
                    prop_assert!(covering.by(direction).iter().all(|policy| by.contains(policy)));
                }
            }
        }
    }

    /// Neither the order in which policies come nor that of their names changes what is allowed.
    #[test]
    fn the_order_of_policies_never_matters(objects in clusters::any_cluster(), turn in 1_usize..7) {
        let both = Both::new(objects.clone());
        let (mut policies, mut others): (Vec<Value>, Vec<Value>) =
            objects.into_iter().partition(|object| object["kind"] == "NetworkPolicy");
        let names: Vec<Value> = policies.iter().map(|policy| policy["metadata"]["name"].clone()).collect();
        let turn = turn.checked_rem(policies.len()).unwrap_or_default();
        policies.rotate_left(turn);
        policies.reverse();
        for (policy, name) in policies.iter_mut().zip(names) {
            policy["metadata"]["name"] = name;
        }
        policies.append(&mut others);
        let turned = Both::new(policies);
        for (_, from) in both.ends() {
            for (_, to) in both.ends() {
                for port in [53, 80, 8080] {
                    let port = Port::new(port).expect("a port");
                    let flow = Flow::new(from, to, Protocol::Tcp, port);
                    prop_assert_eq!(both.snapshot.verdict(&flow).allowed(), turned.snapshot.verdict(&flow).allowed());
                }
            }
        }
    }
}
