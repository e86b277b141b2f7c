use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::netpol::labels::Labels;
use crate::netpol::replay::{Action, Actor, Observed, PodActor, Seen};
use crate::netpol::{Endpoint, Flow, Pod, Port, Protocol, WorkloadKind, WorkloadRef};

/// A workload of a random cluster: known from a manifest, or from records only.
#[derive(Clone, Debug)]
struct Work {
    namespace: &'static str,
    labels: Labels,
    is_manifest: bool,
}

/// A flow between two workloads, by number; numbers past the last one are addresses.
type Seed = (usize, usize, Protocol, u16);

const ADDRESSES: [&str; 4] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"];
const PORTS: [u16; 3] = [53, 80, 9999];
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn works() -> impl Strategy<Value = Vec<Work>> {
    let labels = select(vec![
        Labels::default(),
        Labels::from([("app", "x")]),
        Labels::from([("app", "y")]),
        Labels::from([("app", "x"), ("tier", "z")]),
        Labels::from([("app", "x"), ("tier", "w")]),
        Labels::from([("app.kubernetes.io/name", "x"), ("app", "y")]),
        Labels::from([("tier", "z")]),
    ]);
    let work = (select(vec!["a", "b"]), labels, any::<bool>());
    let work = work.prop_map(|(namespace, labels, is_manifest)| Work {
        namespace,
        labels,
        is_manifest,
    });
    vec(work, 1..7)
}

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    let port = select(vec![53, 80]);
    vec(
        (0..11_usize, 0..11_usize, select(PROTOCOLS.to_vec()), port),
        0..12,
    )
}

fn workload(number: usize, work: &Work) -> WorkloadRef {
    WorkloadRef {
        kind: WorkloadKind::Deployment,
        namespace: work.namespace.into(),
        name: format!("w{number}").into(),
    }
}

fn pod(number: usize, work: &Work) -> Pod {
    Pod {
        labels: work.labels.with("pod-template-hash", "755cdc7957"),
        ..Pod::new(workload(number, work))
    }
}

/// What a record would say of a pod of it.
fn actor(number: usize, works: &[Work]) -> Option<Actor> {
    let Some(work) = works.get(number) else {
        let address = ADDRESSES.get(number.checked_sub(7)?)?;
        return Some(Actor::Address(address.parse().expect("an address")));
    };
    Some(Actor::Pod(PodActor {
        namespace_labels: None,
        namespace: work.namespace.into(),
        name: Some(format!("w{number}-755cdc7957-abcde").as_str().into()),
        workload: None,
        labels: Some(pod(number, work).labels),
        address: None,
        node: None,
    }))
}

fn observed(works: &[Work], seeds: &[Seed]) -> (Observations, BTreeSet<Seed>) {
    let (mut observations, mut seen) = (Observations::default(), BTreeSet::new());
    for seed in seeds {
        let (from, to, protocol, port) = *seed;
        let (Some(source), Some(destination)) = (actor(from, works), actor(to, works)) else {
            continue;
        };
        if from >= works.len() && to >= works.len() {
            continue;
        }
        let flow = Observed {
            from: observations.actor(source),
            to: observations.actor(destination),
            protocol,
            port: Port::new(port).expect("a port"),
        };
        observations.add(flow, Seen::Somewhere, Action::Allowed, 1);
        seen.insert(*seed);
    }
    (observations, seen)
}

fn manifests(works: &[Work]) -> Snapshot {
    let known = works
        .iter()
        .enumerate()
        .filter(|(_, work)| work.is_manifest);
    known
        .map(|(number, work)| Object::Workload(pod(number, work)))
        .collect()
}

fn with_policies(snapshot: &Snapshot, suggestion: &Suggestion) -> Snapshot {
    let policies = suggestion.policies.iter();
    policies.fold(snapshot.clone(), |snapshot, policy| {
        let parsed = parse(policy).expect("valid").expect("a kind of the model");
        snapshot.with(parsed.object)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The policies allow what was seen and nothing else, asked of each pair of workloads and addresses at each port.
    #[test]
    fn what_was_seen_is_allowed_and_nothing_else(works in works(), seeds in seeds()) {
        let (observations, seen) = observed(&works, &seeds);
        // Workloads that only records know take part by their flows alone.
        let is_known = |number: usize| {
            works[number].is_manifest || seen.iter().any(|(from, to, ..)| *from == number || *to == number)
        };
        let snapshot = manifests(&works);
        let suggestion = Suggestion::of(&observations, &snapshot, &Options::default());
        prop_assert!(suggestion.is_proved(), "{suggestion:?}");

        // Workloads of one namespace and the same labels are one.
        let group = |number: usize| works.get(number).map_or((None, number), |work| {
            (Some((work.namespace, work.labels.clone())), 0)
        });
        let seen: BTreeSet<_> = seen
            .iter()
            .map(|(from, to, protocol, port)| (group(*from), group(*to), *protocol, *port))
            .collect();
        let tried = with_policies(&snapshot, &suggestion);
        let pods: BTreeMap<usize, Pod> = (0..works.len())
            .filter(|number| is_known(*number))
            .map(|number| (number, pod(number, &works[number])))
            .collect();
        let ends: Vec<usize> = pods.keys().copied().chain(7..11).collect();
        let end = |number: usize| match pods.get(&number) {
            Some(pod) => Endpoint::Pod(pod),
            None => Endpoint::External(ADDRESSES[number - 7].parse().expect("an address")),
        };
        let is_held = |number: usize| {
            let namespace = works.get(number).map(|work| work.namespace);
            namespace.is_some_and(|namespace| tried.policies_in(&namespace.into()).next().is_some())
        };
        for from in &ends {
            for to in ends.iter().filter(|to| *from < 7 || **to < 7) {
                for protocol in PROTOCOLS {
                    for port in PORTS {
                        let flow = Flow::new(end(*from), end(*to), protocol, Port::new(port).expect("a port"));
                        let was_seen = seen.contains(&(group(*from), group(*to), protocol, port));
                        let is_free = !is_held(*from) && !is_held(*to);
                        prop_assert_eq!(
                            tried.verdict(&flow).allowed(),
                            was_seen || is_free,
                            "{} {:#?}", flow, &suggestion.policies
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn labels_are_the_fewest_that_tell_a_workload_from_the_others() {
    let work = |labels: &[(&str, &str)]| Work {
        namespace: "a",
        labels: labels.iter().copied().collect(),
        is_manifest: true,
    };
    let works = [
        work(&[("app", "web"), ("version", "3"), ("tier", "front")]),
        work(&[("app", "api"), ("app.kubernetes.io/component", "server")]),
        work(&[("app", "api"), ("app.kubernetes.io/component", "worker")]),
        work(&[("app", "api")]),
        work(&[]),
    ];
    let seeds: Vec<Seed> = (0..5)
        .map(|number| (number, 7, Protocol::Tcp, 80))
        .collect();
    let (observations, _) = observed(&works, &seeds);
    let suggestion = Suggestion::of(&observations, &manifests(&works), &Options::default());
    let selectors: Vec<&Value> = suggestion
        .policies
        .iter()
        .map(|policy| &policy["spec"]["podSelector"])
        .collect();
    let lacks = |key: &str| json!({"key": key, "operator": "DoesNotExist"});
    assert_eq!(
        selectors,
        [
            &json!({}),
            &json!({"matchLabels": {"app": "web"}}),
            &json!({"matchLabels": {"app.kubernetes.io/component": "server"}}),
            &json!({"matchLabels": {"app.kubernetes.io/component": "worker"}}),
            &json!({"matchLabels": {"app": "api"}, "matchExpressions": [lacks("app.kubernetes.io/component")]}),
            &json!({"matchExpressions": [lacks("app")]}),
        ]
    );
}

#[test]
fn addresses_are_joined_only_where_nothing_is_added_or_where_it_is_asked_for() {
    let works = [Work {
        namespace: "a",
        labels: Labels::from([("app", "x")]),
        is_manifest: true,
    }];
    // 192.0.2.1 to .3: the last two are a block.
    let seeds: Vec<Seed> = (7..11)
        .map(|address| (0, address, Protocol::Tcp, 80))
        .collect();
    let (observations, _) = observed(&works, &seeds);
    let blocks = |join| {
        let options = Options {
            join,
            ..Options::default()
        };
        let suggestion = Suggestion::of(&observations, &manifests(&works), &options);
        assert!(suggestion.is_proved(), "{suggestion:?}");
        suggestion.policies[1]["spec"]["egress"][0]["to"].clone()
    };
    let block = |cidr: &str| json!({"ipBlock": {"cidr": cidr}});
    assert_eq!(
        blocks(None),
        json!([
            block("192.0.2.1/32"),
            block("192.0.2.2/31"),
            block("2001:db8::1/128")
        ])
    );
    assert_eq!(
        blocks(Some(Join { v4: 24, v6: 64 })),
        json!([block("192.0.2.0/24"), block("2001:db8::/64")])
    );
}

#[test]
fn what_cannot_be_known_or_said_is_told_and_is_no_proof() {
    let works = [Work {
        namespace: "a",
        labels: Labels::from([("app", "x")]),
        is_manifest: true,
    }];
    let (mut observations, _) = observed(&works, &[(7, 0, Protocol::Tcp, 80)]);
    let to = observations.actor(actor(0, &works).expect("a pod"));
    let froms = [
        Actor::Unknown("a riddle".to_owned()),
        Actor::Node {
            name: "n1".into(),
            address: None,
        },
    ];
    for from in froms {
        let flow = Observed {
            from: observations.actor(from),
            to,
            protocol: Protocol::Tcp,
            port: Port::new(80).expect("a port"),
        };
        observations.add(flow, Seen::Somewhere, Action::Allowed, 3);
    }
    let suggestion = Suggestion::of(&observations, &manifests(&works), &Options::default());
    assert!(!suggestion.is_proved());
    assert_eq!(
        suggestion.unknown,
        BTreeMap::from([("a riddle".to_owned(), 3)])
    );
    assert_eq!(suggestion.denied.len(), 1, "{suggestion:?}");
    let notes: Vec<&String> = suggestion.notes.iter().collect();
    assert_eq!(
        notes,
        ["no policy can speak of node n1: its address is not known"]
    );
}

#[test]
fn what_a_pod_s_own_node_asks_of_it_needs_no_rule() {
    let works = [Work {
        namespace: "a",
        labels: Labels::from([("app", "x")]),
        is_manifest: true,
    }];
    let suggested = |node: &str| {
        let mut observations = Observations::default();
        let Some(Actor::Pod(pod)) = actor(0, &works) else {
            panic!("a pod");
        };
        let to = Actor::Pod(PodActor {
            node: Some("n1".into()),
            ..pod
        });
        let from = Actor::Node {
            name: node.into(),
            address: Some("192.0.2.1".parse().expect("an address")),
        };
        let flow = Observed {
            from: observations.actor(from),
            to: observations.actor(to),
            protocol: Protocol::Tcp,
            port: Port::new(80).expect("a port"),
        };
        observations.add(flow, Seen::Somewhere, Action::Allowed, 3);
        Suggestion::of(&observations, &manifests(&works), &Options::default())
    };
    let [own, other] = ["n1", "n2"].map(suggested);
    assert!(own.is_proved() && other.is_proved(), "{own:?} {other:?}");
    assert_eq!(own.policies.len(), 1, "{own:?}");
    let from = &other.policies[1]["spec"]["ingress"][0]["from"];
    assert_eq!(*from, json!([{"ipBlock": {"cidr": "192.0.2.1/32"}}]));
}
