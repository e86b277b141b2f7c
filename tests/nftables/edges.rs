//! What is easily got wrong: ends of ranges, changed verdicts, the order of deletions, and very many elements.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ringfence::agent::nft::{self, Socket};
use ringfence::netpol::{Family, Protocol, Snapshot, parse};
use ringfence::ruleset::{
    Carried, Change, Element, End, Hook, Interface, Match, Options, Plan, Rule, Ruleset, Set,
    SetKind, SetName, Statement, Transaction, Tuple, Verdict, render,
};
use serde_json::{Value, json};

use crate::apply::{apply, read};
use crate::random::port;
use crate::space::{alone, listed, nft, program};

fn block(text: &str) -> Element {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ip = |text: &str| text.parse().expect("an address");
    Element::Block(ip(first), ip(last))
}

fn one_set(kind: SetKind, elements: impl IntoIterator<Item = Element>) -> Ruleset {
    let mut made = Ruleset::default();
    let elements = elements.into_iter().collect();
    made.sets.insert("set-a".into(), Set { kind, elements });
    made
}

fn dispatch(pods: &[(u8, &str)], chains: &[&str]) -> Ruleset {
    let pod = |(last, chain): &(u8, &str)| {
        let address = [10, 0, 0, *last].into();
        Element::Dispatch(address, (*chain).into())
    };
    let mut made = one_set(SetKind::Dispatch(Family::V4), pods.iter().map(pod));
    for chain in chains {
        let rules = vec![Rule::new(vec![], Verdict::Drop, *chain)];
        made.chain_mut((*chain).into()).rules = rules;
    }
    let forward = made.chain_mut("forward".into());
    forward.hook = Some(Hook::Forward);
    forward.rules = vec![Rule {
        matches: vec![],
        does: vec![Statement::Dispatch(
            Family::V4,
            End::Destination,
            "set-a".into(),
        )],
        why: "pods".into(),
    }];
    made
}

/// A pod on trial, isolated or not, and so many policies of one priority, each with rules for some teams.
fn tied(count: usize, is_isolated: bool, each: impl Fn(usize) -> Vec<Value>) -> Plan {
    let wide = |at: usize| {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": format!("wide-{at}")},
            "spec": {"tier": "Admin", "priority": 7, "subject": {"namespaces": {}}, "ingress": each(at)},
        })
    };
    let shop = json!({"namespace": "shop", "name": "web"});
    let objects = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "t1"}}}),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": shop,
            "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "main"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        }),
        json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "StagedNetworkPolicy", "metadata": shop,
            "spec": {"stage": "Shadow", "podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]},
        }),
    ];
    let isolating = is_isolated.then(|| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": "some"},
            "spec": {"podSelector": {}},
        })
    });
    let all = objects.into_iter().chain(isolating);
    let snapshot: Snapshot = all
        .chain((0..count).map(wide))
        .map(|value| parse(&value).expect("valid").expect("known").object)
        .collect();
    Plan::of(Options::new("n"), &snapshot)
}

fn for_team(action: &str, team: usize) -> Value {
    let of_team = json!({"namespaces": {"matchLabels": {"team": format!("t{team}")}}});
    json!({"action": action, "from": [of_team]})
}

fn is_taken(plan: &Plan) {
    let table = plan.whole();
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        apply(&mut socket, &Transaction::whole(&table));
        assert_eq!(read(&mut socket), table.as_kept());
    });
}

#[test]
fn many_policies_of_one_priority_are_taken_also_with_a_trial() {
    let each = |team: usize| match team % 4 {
        0 => vec![for_team("Pass", team)],
        1 => vec![for_team("Deny", team), for_team("Accept", team + 1)],
        2 => vec![for_team("Accept", team)],
        _ => vec![for_team("Accept", team), for_team("Deny", team + 1)],
    };
    for is_isolated in [false, true] {
        is_taken(&tied(25, is_isolated, each));
    }
}

#[test]
fn policies_that_the_kernel_cannot_follow_are_cut_short_and_that_is_said() {
    let in_turn = |team: usize| vec![for_team("Accept", team), for_team("Pass", team + 1)];
    let late = |team: usize| vec![for_team("Accept", team), for_team("Deny", team + 1)];
    for is_isolated in [false, true] {
        let mut seen = Vec::new();
        for count in (1..16).chain([40]) {
            let plan = tied(count, is_isolated, in_turn);
            // Exactly, without the trial, more strictly.
            seen.push(plan.cut_short().into_values().next());
            is_taken(&plan);
            // What they deny is asked first, so that it is only the trial that is too much.
            let plan = tied(count, is_isolated, late);
            assert!(
                !plan
                    .cut_short()
                    .into_values()
                    .any(|is_stricter| is_stricter)
            );
            is_taken(&plan);
        }
        assert!(seen.is_sorted(), "{seen:?}");
        seen.dedup();
        assert_eq!(seen, [None, Some(false), Some(true)]);
    }
}

#[test]
fn ranges_at_the_ends_and_side_by_side() {
    let v4: &[&[&str]] = &[
        &["0.0.0.0-255.255.255.255"],
        &["0.0.0.0-9.255.255.255", "11.0.0.0-255.255.255.255"],
        &["0.0.0.0"],
        &["255.255.255.255"],
        &["0.0.0.0-127.255.255.255", "128.0.0.0-255.255.255.255"],
        &["10.0.0.0-10.0.0.255", "10.0.1.0-10.0.1.255", "10.0.2.0"],
        &["255.255.255.254", "255.255.255.255"],
        &[],
    ];
    let v6: &[&[&str]] = &[
        &["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        &[
            "::",
            "::1-::2",
            "fd00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ],
        &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        &["::ffff:ffff:ffff:ffff-::1:0:0:0:0"],
    ];
    for (family, cases) in [(Family::V4, v4), (Family::V6, v6)] {
        alone(|| {
            let mut socket = Socket::open().expect("a socket");
            let mut old = one_set(SetKind::Blocks(family), []);
            apply(&mut socket, &Transaction::whole(&old));
            // Each becomes each other, in one transaction.
            for (from, to) in (0..cases.len()).flat_map(|a| (0..cases.len()).map(move |b| (a, b))) {
                for number in [from, to] {
                    let blocks = cases[number].iter().map(|text| block(text));
                    let new = one_set(SetKind::Blocks(family), blocks);
                    apply(&mut socket, &Transaction::between(&old, &new));
                    assert_eq!(read(&mut socket), new);
                    let shown = listed();
                    alone(|| {
                        nft(&render::ruleset(&new, render::Reader::Nft)).expect("accepted");
                        assert_eq!(listed(), shown, "{:?}", cases[number]);
                    });
                    old = new;
                }
            }
        });
    }
}

#[test]
fn a_verdict_is_changed_in_one_transaction() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let old = dispatch(&[(1, "a"), (2, "a")], &["a", "b"]);
        let new = dispatch(&[(1, "b"), (2, "a")], &["a", "b"]);
        apply(&mut socket, &Transaction::whole(&old));
        apply(&mut socket, &Transaction::between(&old, &new));
        assert_eq!(read(&mut socket), new);
        // Said without taking the old one out it is refused, and names the pod.
        let wrong = Transaction::of(vec![Change::AddElements(
            "set-a".into(),
            SetKind::Dispatch(Family::V4),
            vec![
                Element::Dispatch([10, 0, 0, 3].into(), "a".into()),
                Element::Dispatch([10, 0, 0, 2].into(), "b".into()),
            ],
        )]);
        let error = socket.apply(&wrong).expect_err("refused").to_string();
        assert_eq!(
            error,
            "the kernel refused to add 10.0.0.2 : jump b to the set set-a: is there already, or overlaps with what is \
             there (File exists (os error 17))"
        );
        assert_eq!(read(&mut socket), new);
    });
}

#[test]
fn chains_go_with_the_elements_that_lead_to_them() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let mut old = dispatch(&[(1, "a"), (2, "b")], &["a", "b"]);
        apply(&mut socket, &Transaction::whole(&old));
        for new in [
            dispatch(&[(1, "a")], &["a"]),
            dispatch(&[(1, "c"), (2, "d")], &["c", "d"]),
            dispatch(&[], &[]),
            dispatch(&[(9, "z")], &["z"]),
            Ruleset::default(),
        ] {
            apply(&mut socket, &Transaction::between(&old, &new));
            assert_eq!(read(&mut socket), new);
            old = new;
        }
    });
}

#[test]
fn a_bad_change_leaves_everything_as_it_was_and_is_named() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let old = dispatch(&[(1, "a")], &["a"]);
        apply(&mut socket, &Transaction::whole(&old));
        let bad: [(Change, &str); 8] = [
            (
                Change::DeleteChain("a".into()),
                "to delete the chain a: something still leads to it",
            ),
            (
                Change::DeleteSet("nothing".into()),
                "to delete the set nothing: is not there",
            ),
            (
                Change::AddChain("a".into(), None),
                "to make the chain a: is there already",
            ),
            (
                Change::AddSet("set-a".into(), SetKind::Dispatch(Family::V4)),
                "to make the set set-a: is there already",
            ),
            (
                Change::AddRules(
                    "a".into(),
                    vec![
                        Rule::new(vec![], Verdict::Drop, ""),
                        Rule::new(vec![], Verdict::Jump("nowhere".into()), "leads astray"),
                    ],
                ),
                "to add to the chain a the rule `jump nowhere`: is not there",
            ),
            (
                Change::DeleteElements(
                    "set-a".into(),
                    SetKind::Dispatch(Family::V4),
                    vec![
                        Element::Dispatch([10, 0, 0, 1].into(), "a".into()),
                        Element::Dispatch([10, 0, 0, 7].into(), "a".into()),
                    ],
                ),
                "to take 10.0.0.7 : jump a out of the set set-a: is not there",
            ),
            (
                Change::AddElements(
                    "set-a".into(),
                    SetKind::Addresses(Family::V6),
                    vec![Element::Address(Ipv6Addr::LOCALHOST.into())],
                ),
                "to add ::1 to the set set-a: is not understood",
            ),
            (
                Change::AddRules(
                    "a".into(),
                    vec![Rule::new(
                        vec![],
                        Verdict::Jump("a".into()),
                        "round and round",
                    )],
                ),
                "to add to the chain a the rule `jump a`: chains lead to each other too deeply or in a circle",
            ),
        ];
        for (change, said) in bad {
            // What comes before it and after it is not done either.
            let good = |name: &str| Change::AddCounter(name.into());
            let changes = vec![good("x"), Change::FlushChain("a".into()), change, good("y")];
            let error = socket.apply(&Transaction::of(changes)).expect_err(said);
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("the kernel refused {said}")),
                "{text}"
            );
            let nft::ApplyError::Refused(refusal) = error else {
                panic!("{error:?}");
            };
            assert_eq!(refusal.change, Some(2), "{refusal:?}");
            assert_eq!(read(&mut socket), old, "{said}");
        }
        // The socket is as good as before.
        let new = dispatch(&[(1, "b")], &["b"]);
        apply(&mut socket, &Transaction::between(&old, &new));
        assert_eq!(read(&mut socket), new);
    });
}

#[test]
fn very_many_refusals_are_one_error() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        apply(&mut socket, &Transaction::whole(&Ruleset::default()));
        let gone = |number| Change::DeleteCounter(format!("c{number}").into());
        let changes = (0..20_000).map(gone).collect();
        let error = socket
            .apply(&Transaction::of(changes))
            .expect_err("refused");
        let text = error.to_string();
        assert!(
            text.starts_with("the kernel refused to delete the counter c0: "),
            "{text}"
        );
        apply(&mut socket, &Transaction::whole(&dispatch(&[], &[])));
        assert_eq!(read(&mut socket), dispatch(&[], &[]));
    });
}

fn many(kind: SetKind, number: u32) -> BTreeSet<Element> {
    let v4 = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
    let v6 = |n: u32| IpAddr::from(Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(n)));
    (0..number)
        .map(|n| match kind {
            SetKind::Blocks(Family::V4) => Element::Block(v4(16 * n), v4(16 * n + 7)),
            SetKind::Blocks(Family::V6) => Element::Block(v6(16 * n), v6(16 * n + 7)),
            SetKind::Dispatch(Family::V4) => {
                Element::Dispatch(v4(n), format!("pod-{}", n % 100).into())
            }
            SetKind::AddressPorts(_) => Element::AddressPort(v6(n), port(443)),
            _ => Element::Pair(v6(n), v6(n + 1)),
        })
        .collect()
}

/// Compares without printing all of it.
fn same(found: &Ruleset, wanted: &Ruleset) {
    let name = SetName::from("set-a");
    let (found_set, wanted_set) = (&found.sets[&name], &wanted.sets[&name]);
    assert_eq!(found_set.kind, wanted_set.kind);
    let gone: Vec<_> = wanted_set
        .elements
        .difference(&found_set.elements)
        .collect();
    let new: Vec<_> = found_set
        .elements
        .difference(&wanted_set.elements)
        .collect();
    let few = |all: &[&Element]| {
        format!(
            "{}: {:?}",
            all.len(),
            all.iter().take(3).collect::<Vec<_>>()
        )
    };
    assert!(
        gone.is_empty() && new.is_empty(),
        "{} {}",
        few(&gone),
        few(&new)
    );
    assert!(found == wanted);
}

#[test]
fn a_hundred_thousand_elements() {
    for kind in [
        SetKind::Dispatch(Family::V4),
        SetKind::Pairs(Family::V6),
        SetKind::AddressPorts(Family::V6),
        SetKind::Blocks(Family::V4),
        SetKind::Blocks(Family::V6),
    ] {
        alone(|| {
            let mut socket = Socket::open().expect("a socket");
            let mut all = one_set(kind, many(kind, 100_000));
            for number in 0..100 {
                all.chain_mut(format!("pod-{number}").into());
            }
            apply(&mut socket, &Transaction::whole(&all));
            same(&read(&mut socket), &all);
            // One goes and one comes, and then half of them go.
            let mut new = all.clone();
            let name = SetName::from("set-a");
            let set = new.sets.get_mut(&name).expect("made");
            let first = set.elements.pop_first().expect("many");
            apply(&mut socket, &Transaction::between(&all, &new));
            apply(&mut socket, &Transaction::between(&new, &all));
            let set = new.sets.get_mut(&name).expect("made");
            set.elements = many(kind, 50_000);
            set.elements.remove(&first);
            apply(&mut socket, &Transaction::between(&all, &new));
            same(&read(&mut socket), &new);
            apply(&mut socket, &Transaction::removal());
        });
    }
}

/// A port behind which an address is.
fn ports_of_a_bridge() -> Ruleset {
    let port = Interface::parse("veth1").expect("a name");
    let mut made = Ruleset::default();
    let address = [10, 0, 0, 1].into();
    for (name, kind, element) in [
        (
            "ports-1",
            SetKind::Interfaces,
            Element::Interface(port.clone()),
        ),
        (
            "sources-4",
            SetKind::Sources(Family::V4),
            Element::Source(port, address),
        ),
    ] {
        let elements = BTreeSet::from([element]);
        made.sets.insert(name.into(), Set { kind, elements });
    }
    let chain = made.chain_mut("prerouting".into());
    chain.hook = Some(Hook::Prerouting);
    let own = |carried| Match::Own(carried, "sources-4".into());
    chain.rules = [Carried::Ip(Family::V4), Carried::Arp]
        .map(|carried| {
            let matches = vec![Match::Interface("ports-1".into()), own(carried)];
            Rule::new(matches, Verdict::Accept, "own")
        })
        .to_vec();
    made
}

#[test]
fn what_somebody_else_changes_shows() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let mut wanted = dispatch(&[(1, "a")], &["a"]);
        wanted.chain_mut("a".into()).rules = vec![
            Rule::new(
                vec![
                    Match::Protocol(Protocol::Tcp),
                    Match::Port(port(80), port(90)),
                ],
                Verdict::Return,
                "web",
            ),
            Rule::new(vec![], Verdict::Drop, "else"),
        ];
        let set = one_set(SetKind::Blocks(Family::V4), [block("10.0.0.0-10.0.0.255")]);
        wanted
            .sets
            .insert("more".into(), set.sets[&SetName::from("set-a")].clone());
        wanted.bridge = Some(Box::new(ports_of_a_bridge()));
        // The same rules, the first one asking for the contrary.
        let again = |how: &str| {
            let rule = |asked: &str| {
                format!(
                    "add rule bridge ringfence prerouting iifname @ports-1 {asked} @sources-4 accept comment \"own\"\n"
                )
            };
            let ip = rule(&format!("ether type ip iifname . ip saddr {how}"));
            let arp = rule("ether type arp iifname . arp saddr ip");
            format!("flush chain bridge ringfence prerouting\n{ip}{arp}")
        };
        apply(&mut socket, &Transaction::whole(&wanted));
        nft(&again("")).expect("rules of nft");
        assert_eq!(read(&mut socket), wanted);
        for tampering in [
            "add rule inet ringfence a accept",
            "insert rule inet ringfence forward ip saddr 10.0.0.7 accept",
            "insert rule inet ringfence forward iifname eth0 accept",
            "insert rule inet ringfence a meta l4proto tcp th dport != 80-90 return",
            "flush chain inet ringfence a",
            "delete element inet ringfence set-a { 10.0.0.1 }",
            "add element inet ringfence set-a { 10.0.0.9 : accept }",
            "add element inet ringfence set-a { 10.0.0.9 : jump a }",
            "add element inet ringfence more { 10.0.2.0/24 }",
            "add set inet ringfence other { type ipv4_addr; size 7; flags dynamic; }",
            "add chain inet ringfence other",
            "add chain inet ringfence other { type filter hook forward priority -7; }",
            "add chain inet ringfence forward { policy drop; }",
            "add table inet ringfence { flags dormant; }",
            "add counter inet ringfence other",
            "insert rule bridge ringfence prerouting accept",
            "flush chain bridge ringfence prerouting",
            "add element bridge ringfence ports-1 { \"veth2\" }",
            "delete element bridge ringfence sources-4 { \"veth1\" . 10.0.0.1 }",
            &again("!= "),
            "add chain bridge ringfence prerouting { policy drop; }",
            "delete table bridge ringfence",
        ] {
            apply(&mut socket, &Transaction::whole(&wanted));
            nft(tampering).unwrap_or_else(|error| panic!("{tampering}: {error}"));
            let found = nft::read(&mut socket).expect("readable").expect("there");
            let shows = !found.strangers.is_empty() || found.ruleset != wanted.as_kept();
            assert!(shows, "{tampering}");
        }
        apply(&mut socket, &Transaction::whole(&wanted));
        assert_eq!(read(&mut socket), wanted);
    });
}

#[test]
fn tables_of_others_are_left_alone() {
    alone(|| {
        let others = "table inet other { set s { type ipv4_addr; }; chain c { ip saddr @s drop; }; }\n\
                      table ip ringfence { chain c { tcp dport 22 accept; }; }";
        nft(others).expect("accepted");
        let before = program(&["nft", "list", "ruleset"], "").expect("listed");
        let mut socket = Socket::open().expect("a socket");
        assert!(nft::read(&mut socket).expect("readable").is_none());
        let wanted = dispatch(&[(1, "a")], &["a"]);
        apply(&mut socket, &Transaction::whole(&wanted));
        assert_eq!(read(&mut socket), wanted);
        apply(&mut socket, &Transaction::removal());
        let after = program(&["nft", "list", "ruleset"], "").expect("listed");
        assert_eq!(after, before);
    });
}

#[test]
fn cut_connections_are_held_for_a_while_only() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let kind = SetKind::Tuples(Family::V4, 1);
        let tuple = |port| {
            Element::Tuple(Tuple {
                source: ([10, 0, 0, 1].into(), port),
                destination: ([10, 0, 0, 2].into(), 80),
                protocol: Protocol::Sctp,
            })
        };
        let wanted = one_set(kind, []);
        apply(&mut socket, &Transaction::whole(&wanted));
        let add =
            |elements| Transaction::of(vec![Change::AddElements("set-a".into(), kind, elements)]);
        apply(&mut socket, &add(vec![tuple(1), tuple(2)]));
        // Again is no error.
        apply(&mut socket, &add(vec![tuple(2)]));
        let name = SetName::from("set-a");
        let mut held = || {
            let found = nft::elements(&mut socket, &name, kind).expect("readable");
            let held = found.expect("there");
            assert_eq!((held.strangers, held.is_torn), (0, false));
            held.elements
        };
        let elements = held();
        let known: BTreeSet<Element> = elements.iter().map(|(one, _)| one.clone()).collect();
        assert_eq!(known, BTreeSet::from([tuple(1), tuple(2)]));
        for (_, left) in elements {
            let left = left.expect("they go by themselves");
            assert!(left <= Duration::from_secs(1), "{left:?}");
        }
        let start = Instant::now();
        while !held().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "they stay");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(read(&mut socket), wanted);
        let none = nft::elements(&mut socket, &"none".into(), kind);
        assert!(none.expect("readable").is_none());
    });
}

#[test]
fn counters_and_generations_are_read() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        assert!(nft::counters(&mut socket).expect("readable").is_empty());
        let before = nft::generation(&mut socket).expect("readable");
        nft("table inet ringfence { counter a { packets 3 bytes 250 }; counter b { }; }")
            .expect("accepted");
        let counters = nft::counters(&mut socket).expect("readable");
        let counted = |packets, bytes| nft::Counted { packets, bytes };
        let wanted = [("a".into(), counted(3, 250)), ("b".into(), counted(0, 0))];
        assert_eq!(counters, wanted.into());
        let after = nft::generation(&mut socket).expect("readable");
        assert_eq!(after.id, before.id + 1);
    });
}
