use super::*;
use crate::guard::enforcement::chains::Policy;
use crate::guard::enforcement::plugins::PLUGINS;
use serde_json::json;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn known(name: &str) -> Plugin {
    let mut plugins = PLUGINS.into_iter();
    plugins.find(|plugin| plugin.name == name).unwrap()
}

fn receipts(nodes: &[&str]) -> BTreeMap<NodeName, Receipt> {
    let receipt = Receipt::read(&json!({"status": {
        "readBack": "2026-06-01T11:59:00Z",
        "conditions": [{"type": "Enforced", "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": "2026-06-01T00:00:00Z"}],
    }}))
    .unwrap();
    let nodes = nodes.iter();
    nodes
        .map(|node| (NodeName::from(*node), receipt.clone()))
        .collect()
}

/// A cluster of two nodes with these plugins and receipts of these nodes.
fn seen(plugins: &[&str], confirming: &[&str]) -> Cluster {
    Cluster {
        plugins: plugins.iter().map(|name| known(name)).collect(),
        nodes: vec!["one".into(), "two".into()],
        receipts: Some(receipts(confirming)),
        ..Cluster::default()
    }
}

fn level(checks: &[Check], id: &str) -> Option<Level> {
    let mut checks = checks.iter();
    checks.find(|check| check.id == id).map(|check| check.level)
}

#[test]
fn who_enforces_is_the_plugin_or_the_agents_on_every_node() {
    for (plugins, confirming, expected) in [
        (&["Calico"][..], &[][..], Level::Ok),
        (&["Calico"], &["one"], Level::Warning),
        (&["Flannel"], &[], Level::Problem),
        (&["Flannel"], &["one"], Level::Problem),
        (&["Flannel"], &["one", "two"], Level::Ok),
        // A receipt of a node that is gone is none.
        (&["Flannel"], &["one", "three"], Level::Problem),
        (&["kube-network-policies", "Flannel"], &[], Level::Ok),
        (&["kindnet"], &[], Level::Warning),
        (&["kindnet"], &["one", "two"], Level::Ok),
        (&[], &[], Level::Warning),
        (&["Multus"], &[], Level::Warning),
    ] {
        let checks = cluster(&seen(plugins, confirming), now());
        assert_eq!(
            level(&checks, "enforcement"),
            Some(expected),
            "{plugins:?} {confirming:?}"
        );
    }
}

#[test]
fn a_plugin_that_nobody_knows_is_no_matter_where_agents_enforce() {
    for (confirming, expected) in [
        (&[][..], Level::Warning),
        (&["one"], Level::Warning),
        (&["one", "two"], Level::Ok),
    ] {
        let checks = cluster(&seen(&[], confirming), now());
        assert_eq!(level(&checks, "plugin"), Some(expected), "{confirming:?}");
    }
}

#[test]
fn agents_are_held_to_their_receipts() {
    for (agents, confirming, expected) in [
        (None, &[][..], Level::Ok),
        (Some((2, 1)), &["one"], Level::Problem),
        (Some((2, 2)), &["one"], Level::Problem),
        (Some((2, 2)), &["one", "two"], Level::Ok),
    ] {
        let seen = Cluster {
            agents,
            ..seen(&["Flannel"], confirming)
        };
        let checks = cluster(&seen, now());
        assert_eq!(
            level(&checks, "agents"),
            Some(expected),
            "{agents:?} {confirming:?}"
        );
    }
}

#[test]
fn what_is_demanded_is_asked_for_at_the_webhook() {
    for (demands, webhook, expected) in [
        (0, None, Level::Ok),
        (1, None, Level::Problem),
        (1, Some(0), Level::Problem),
        (1, Some(3), Level::Ok),
        (0, Some(3), Level::Warning),
    ] {
        let seen = Cluster {
            demands,
            webhook,
            ..seen(&[], &[])
        };
        let checks = cluster(&seen, now());
        assert_eq!(
            level(&checks, "webhook"),
            Some(expected),
            "{demands} {webhook:?}"
        );
    }
}

#[test]
fn cluster_policies_and_further_networks_are_spoken_of_where_there_are_any() {
    let checks = cluster(&seen(&["Calico"], &[]), now());
    assert_eq!(level(&checks, "cluster-policies"), None);
    assert_eq!(level(&checks, "networks"), None);
    let some = |confirming: &[&str]| Cluster {
        wide_policies: Some(2),
        ..seen(&["Flannel", "Multus"], confirming)
    };
    let checks = cluster(&some(&["one"]), now());
    assert_eq!(level(&checks, "cluster-policies"), Some(Level::Warning));
    assert_eq!(level(&checks, "networks"), Some(Level::Warning));
    let checks = cluster(&some(&["one", "two"]), now());
    assert_eq!(level(&checks, "cluster-policies"), Some(Level::Ok));
}

#[test]
fn a_node_is_judged_by_its_switches_and_its_nftables() {
    let seen = |bridge: Option<bool>, forward: Option<bool>, sixth: Option<bool>, nftables| Node {
        types: vec!["flannel".to_owned(), "ringfence-cni".to_owned()],
        switches: SWITCHES
            .into_iter()
            .zip([bridge, bridge, forward, sixth])
            .collect(),
        nftables: Some(nftables),
        has_ipvs: Some(false),
        ..Node::default()
    };
    let worst = |seen: &Node| node(seen).iter().map(|check| check.level).max();
    let on = Some(true);
    assert_eq!(worst(&seen(on, on, on, Nftables::Answers)), Some(Level::Ok));
    assert_eq!(
        worst(&seen(None, on, on, Nftables::Answers)),
        Some(Level::Warning)
    );
    assert_eq!(
        worst(&seen(Some(false), on, on, Nftables::Answers)),
        Some(Level::Problem)
    );
    assert_eq!(
        worst(&seen(on, Some(false), on, Nftables::Answers)),
        Some(Level::Problem)
    );
    assert_eq!(
        worst(&seen(on, on, Some(false), Nftables::Answers)),
        Some(Level::Warning)
    );
    let broken = Nftables::Fails("no such module".to_owned());
    assert_eq!(worst(&seen(on, on, on, broken)), Some(Level::Problem));
    let silent = Nftables::NotPermitted;
    assert_eq!(worst(&seen(on, on, on, silent)), Some(Level::Unknown));
    let ipvs = Node {
        has_ipvs: Some(true),
        ..seen(on, on, on, Nftables::Answers)
    };
    assert_eq!(worst(&ipvs), Some(Level::Problem));
    assert_eq!(level(&node(&ipvs), "services"), Some(Level::Problem));
    let checks = node(&seen(on, on, on, Nftables::Answers));
    assert_eq!(level(&checks, "services"), Some(Level::Ok));
    assert_eq!(level(&checks, "node-start"), Some(Level::Ok));
    assert!(checks.iter().any(|check| check.says.contains("Flannel")));
}

fn chain(path: &str, on_the_way: Option<Policy>) -> Chain {
    let [family, table, name] = path.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{path}");
    };
    Chain {
        family: if family == "ip" { "ip" } else { "inet" },
        table: table.to_owned(),
        name: name.to_owned(),
        on_the_way,
    }
}

#[test]
fn rules_of_others_that_may_drop_what_policies_let_pass_are_named() {
    let proxy = chain("ip kube-proxy filter-forward", Some(Policy::Accept));
    let says = |chains: &[&Chain], has_own_table, has_legacy_filter| {
        let seen = Node {
            nftables: Some(Nftables::Answers),
            chains: chains.iter().map(|chain| (*chain).clone()).collect(),
            has_own_table,
            has_legacy_filter,
            ..Node::default()
        };
        let checks = node(&seen).into_iter();
        let checks = checks.filter(|check| check.id == "other-rules");
        let lines = checks.map(|check| format!("{}: {}", check.level.as_str(), check.says));
        lines.collect::<Vec<_>>()
    };
    let none = ["ok: no known firewall is here, and no chain of others that drops by its policy"];
    assert_eq!(says(&[], false, false), none);
    assert_eq!(says(&[&proxy], true, false), none);
    let docker = chain("ip filter FORWARD", Some(Policy::Drop));
    assert_eq!(
        says(&[&docker], true, false),
        [
            "warning: ip filter FORWARD drops what none of its rules lets pass, whatever policies say"
        ]
    );
    // Who drops what comes to the node drops nothing on its way.
    let to_node = chain("ip filter INPUT", None);
    assert_eq!(says(&[&to_node], false, false), none);
    let firewalld = chain("inet firewalld filter_FORWARD", Some(Policy::Accept));
    assert_eq!(
        says(&[&firewalld], false, false),
        [
            "warning: firewalld has rules here, and where it is on they decide about packets of pods, too"
        ]
    );
    let router = chain("ip filter KUBE-ROUTER-FORWARD", None);
    assert_eq!(
        says(&[&router], false, false),
        ["ok: kube-router has rules for policies here (the chain ip filter KUBE-ROUTER-FORWARD)"]
    );
    assert_eq!(
        says(&[&router], true, false),
        [
            "warning: kube-router has rules here (the chain ip filter KUBE-ROUTER-FORWARD), and so has Ringfence's agent: what either denies is denied"
        ]
    );
    assert_eq!(
        says(&[], true, true),
        ["warning: there is a table filter of iptables-legacy, whose rules are not looked at here"]
    );
    // Where nftables does not answer, nothing is said of what is in it.
    assert!(
        !node(&Node::default())
            .iter()
            .any(|check| check.id == "other-rules")
    );
}
