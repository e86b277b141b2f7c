//! Every template held to scenarios: the policies are put into a small cluster, and flows are tried.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;
use crate::guard::decide::Decision;
use crate::guard::testing::Cluster;
use crate::netpol::{Endpoint, Flow, Pod, Port, Protocol, Snapshot};

/// `namespace/pod -> namespace/pod protocol/port`, or an address at one end, and whether it may pass.
type Scenario = (&'static str, &'static str, &'static str, bool);

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn pod(namespace: &str, name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {
            "app": name, "app.kubernetes.io/name": name, "app.kubernetes.io/component": "c",
            "app.kubernetes.io/part-of": "p",
            "k8s-app": if name == "dns" { "kube-dns" } else { "other" },
        }},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "metrics", "containerPort": 9090}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// A cluster of all the parts that the templates speak of, without a policy.
fn cluster() -> Vec<Value> {
    let mut objects = vec![
        namespace("shop", &json!({"tenant": "acme", "environment": "prod"})),
        namespace("billing", &json!({"tenant": "acme", "environment": "prod"})),
        namespace("trial", &json!({"tenant": "acme", "environment": "dev"})),
        namespace("unsaid", &json!({"tenant": "acme"})),
        namespace("rival", &json!({"tenant": "rival", "environment": "prod"})),
        namespace("kube-system", &json!({})),
        namespace("monitoring", &json!({})),
        namespace("ingress-controller", &json!({})),
    ];
    let pods = [
        ("shop", "web"),
        ("shop", "api"),
        ("billing", "db"),
        ("billing", "api"),
        ("trial", "web"),
        ("unsaid", "web"),
        ("rival", "web"),
        ("kube-system", "dns"),
        ("kube-system", "other"),
        ("monitoring", "prometheus"),
        ("monitoring", "other"),
        ("ingress-controller", "proxy"),
    ];
    let pods = pods
        .iter()
        .zip(1..)
        .map(|((namespace, name), number): (_, u8)| {
            pod(namespace, name, &format!("10.0.0.{number}"))
        });
    objects.extend(pods);
    objects
}

fn rendered(name: &str, given: &[(&str, &str)]) -> Result<Vec<Value>, TemplateError> {
    let owner = [("owner", "team-shop")];
    let given: BTreeMap<String, String> = given
        .iter()
        .chain(&owner)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    find(name)?.render(&given)
}

/// Whether a flow may pass in a snapshot.
fn allowed(snapshot: &Snapshot, from: &str, to: &str, at: &str) -> bool {
    let pods: BTreeMap<String, &Pod> = snapshot
        .pods()
        .map(|pod| (format!("{}/{}", pod.namespace(), pod.name()), pod))
        .collect();
    let end = |text: &str| match text.parse() {
        Ok(address) => Endpoint::External(address),
        Err(_) => Endpoint::Pod(pods[text]),
    };
    let (protocol, port) = at.split_once('/').expect("protocol/port");
    let protocol = Protocol::from_api(protocol).expect("a protocol");
    let port = Port::new(port.parse().expect("a number")).expect("a port");
    let flow = Flow::new(end(from), end(to), protocol, port);
    snapshot.verdict(&flow).allowed()
}

/// Renders a template into the cluster; the policies pass the built-in guardrail, and each scenario is as expected.
fn hold(name: &str, given: &[(&str, &str)], scenarios: &[Scenario]) {
    let policies = rendered(name, given).expect("renders");
    let objects = [cluster(), policies.clone()].concat();
    let cluster = Cluster::of(&objects);
    for policy in &policies {
        let decision: Decision = cluster.create(policy);
        assert_eq!(decision.judged, [], "{name}: {policy:#}");
    }
    for (from, to, at, expected) in scenarios {
        assert_eq!(
            allowed(&cluster.snapshot, from, to, at),
            *expected,
            "{name}: {from} -> {to} {at}"
        );
    }
    let bare = Cluster::of(&self::cluster());
    for (from, to, at, _) in scenarios {
        assert!(
            allowed(&bare.snapshot, from, to, at),
            "open without policies"
        );
    }
}

#[test]
fn default_deny_closes_the_namespace_and_no_other() {
    hold(
        "default-deny",
        &[("namespace", "shop")],
        &[
            ("shop/web", "shop/api", "TCP/8080", false),
            ("shop/web", "kube-system/dns", "UDP/53", false),
            ("billing/api", "shop/web", "TCP/80", false),
            ("192.0.2.1", "shop/web", "TCP/443", false),
            ("shop/web", "192.0.2.1", "TCP/443", false),
            ("billing/api", "billing/db", "TCP/5432", true),
        ],
    );
}

#[test]
fn default_deny_allowlist_lets_in_the_list_at_its_ports() {
    hold(
        "default-deny-allowlist",
        &[
            ("namespace", "shop"),
            ("pods", "app=api"),
            ("from", "billing,rival"),
            ("ports", "8080,udp/5000"),
        ],
        &[
            ("billing/api", "shop/api", "TCP/8080", true),
            ("rival/web", "shop/api", "UDP/5000", true),
            ("billing/api", "shop/api", "TCP/8081", false),
            ("billing/api", "shop/web", "TCP/8080", false),
            ("trial/web", "shop/api", "TCP/8080", false),
            ("192.0.2.1", "shop/api", "TCP/8080", false),
            ("shop/web", "kube-system/dns", "UDP/53", true),
            ("shop/api", "kube-system/dns", "TCP/53", true),
            ("shop/api", "billing/db", "TCP/5432", false),
        ],
    );
}

#[test]
fn frontend_to_backend_and_backend_to_database_open_one_way() {
    hold(
        "frontend-to-backend",
        &[
            ("from-namespace", "shop"),
            ("from", "app=web"),
            ("to-namespace", "billing"),
            ("to", "app=api"),
        ],
        &[
            ("shop/web", "billing/api", "TCP/8080", true),
            ("shop/web", "billing/api", "TCP/9090", false),
            ("shop/web", "billing/db", "TCP/8080", false),
            ("shop/api", "billing/api", "TCP/8080", false),
            ("billing/api", "billing/db", "TCP/8080", true),
            ("shop/web", "192.0.2.1", "TCP/8080", false),
        ],
    );
    hold(
        "backend-to-database",
        &[
            ("from-namespace", "shop"),
            ("from", "app=api"),
            ("to-namespace", "billing"),
            ("to", "app=db"),
        ],
        &[
            ("shop/api", "billing/db", "TCP/5432", true),
            ("shop/api", "billing/db", "TCP/5433", false),
            ("shop/web", "billing/db", "TCP/5432", false),
            ("billing/api", "billing/db", "TCP/5432", false),
        ],
    );
}

#[test]
fn allow_dns_opens_both_protocols_and_nothing_else() {
    hold(
        "allow-dns",
        &[
            ("namespace", "shop"),
            ("dns-ports", "53,1053"),
            ("node-local", "169.254.20.10"),
        ],
        &[
            ("shop/web", "kube-system/dns", "UDP/53", true),
            ("shop/web", "kube-system/dns", "TCP/53", true),
            ("shop/web", "kube-system/dns", "UDP/1053", true),
            ("shop/web", "169.254.20.10", "UDP/53", true),
            ("shop/web", "kube-system/dns", "TCP/443", false),
            ("shop/web", "kube-system/other", "UDP/53", false),
            ("shop/web", "192.0.2.1", "UDP/53", false),
        ],
    );
}

#[test]
fn allow_monitoring_opens_the_scraped_ports_to_the_scrapers() {
    hold(
        "allow-monitoring",
        &[
            ("namespace", "shop"),
            ("monitoring-pods", "app=prometheus"),
            ("ports", "metrics,9100"),
        ],
        &[
            ("monitoring/prometheus", "shop/web", "TCP/9090", true),
            ("monitoring/prometheus", "shop/api", "TCP/9100", true),
            ("monitoring/prometheus", "shop/web", "TCP/8080", false),
            ("monitoring/other", "shop/web", "TCP/9090", false),
            ("shop/api", "shop/web", "TCP/9090", false),
        ],
    );
}

#[test]
fn allow_ingress_controller_publishes_the_chosen_pods() {
    hold(
        "allow-ingress-controller",
        &[
            ("namespace", "shop"),
            ("pods", "app=web"),
            ("ports", "8080"),
        ],
        &[
            ("ingress-controller/proxy", "shop/web", "TCP/8080", true),
            ("ingress-controller/proxy", "shop/web", "TCP/9090", false),
            ("192.0.2.1", "shop/web", "TCP/8080", false),
            ("ingress-controller/proxy", "shop/api", "TCP/8080", true),
        ],
    );
}

#[test]
fn egress_to_networks_does_not_open_the_world() {
    for (block, widest) in [("0.0.0.0/0", 8), ("::/0", 32), ("128.0.0.0/1", 8)] {
        let network = format!("x={block}");
        let given = [
            ("namespace", "shop"),
            ("owner", "team"),
            ("networks", &network),
        ];
        let error = rendered("egress-to-networks", &given).expect_err("too broad");
        let said = error.to_string();
        assert!(
            said.contains(&format!("too broad: name networks of /{widest}")),
            "{said}"
        );
    }
}

#[test]
fn egress_to_networks_opens_each_network_by_a_policy_of_its_name() {
    let given = [
        ("namespace", "shop"),
        ("pods", "app=api"),
        (
            "networks",
            "partners=203.0.113.0/24,office=198.51.100.0/25,partners=2001:db8::/48",
        ),
    ];
    hold(
        "egress-to-networks",
        &given,
        &[
            ("shop/api", "203.0.113.9", "TCP/443", true),
            ("shop/api", "198.51.100.127", "TCP/443", true),
            ("shop/api", "198.51.100.128", "TCP/443", false),
            ("shop/api", "203.0.113.9", "TCP/80", false),
            ("shop/api", "billing/db", "TCP/443", false),
            ("shop/web", "192.0.2.1", "TCP/443", true),
        ],
    );
    let policies = rendered("egress-to-networks", &given).expect("renders");
    let names: Vec<&Value> = policies
        .iter()
        .map(|policy| &policy["metadata"]["name"])
        .collect();
    assert_eq!(names, ["egress-to-partners", "egress-to-office"]);
}

#[test]
fn a_tenant_is_open_to_itself_but_not_across_environments() {
    hold(
        "tenant-namespace",
        &[
            ("namespace", "shop"),
            ("tenant", "tenant=acme"),
            ("not-environments", "dev,test"),
        ],
        &[
            ("billing/api", "shop/web", "TCP/8080", true),
            ("shop/web", "billing/db", "TCP/5432", true),
            ("shop/web", "shop/api", "TCP/8080", true),
            ("trial/web", "shop/web", "TCP/8080", false),
            ("shop/web", "trial/web", "TCP/8080", false),
            ("unsaid/web", "shop/web", "TCP/8080", false),
            ("rival/web", "shop/web", "TCP/8080", false),
            ("192.0.2.1", "shop/web", "TCP/8080", false),
            ("shop/web", "kube-system/dns", "UDP/53", true),
        ],
    );
}

#[test]
fn dev_and_prod_do_not_meet() {
    hold(
        "dev-isolated-from-prod",
        &[("dev", "trial,unsaid"), ("prod", "shop,billing")],
        &[
            ("trial/web", "shop/web", "TCP/8080", false),
            ("shop/web", "trial/web", "TCP/8080", false),
            ("unsaid/web", "billing/db", "TCP/5432", false),
            ("trial/web", "unsaid/web", "TCP/8080", true),
            ("shop/api", "billing/db", "TCP/5432", true),
            ("rival/web", "shop/web", "TCP/8080", false),
            ("trial/web", "kube-system/dns", "TCP/53", true),
        ],
    );
    let error = rendered("dev-isolated-from-prod", &[("dev", "a,b"), ("prod", "b")]);
    assert_eq!(
        error.expect_err("both").to_string(),
        "template dev-isolated-from-prod: parameters `dev` and `prod`: namespace b is in both"
    );
}

#[test]
fn every_template_has_scenarios_and_says_what_it_is_for() {
    let tests = include_str!("tests.rs");
    let names: BTreeSet<&str> = TEMPLATES.iter().map(|template| template.name).collect();
    assert_eq!(names.len(), TEMPLATES.len());
    for template in TEMPLATES {
        let held = format!("hold(\n        \"{}\",", template.name);
        assert!(tests.contains(&held), "{}", template.name);
        let policies = rendered(template.name, &[]).err();
        assert!(policies.is_some(), "{} needs parameters", template.name);
    }
}

#[test]
fn wrong_parameters_are_all_named() {
    let error = rendered(
        "allow-ingress-controller",
        &[("namespace", "Shop"), ("port", "80")],
    );
    insta::assert_snapshot!("wrong-parameters", error.expect_err("wrong").to_string());
    let error = rendered("default-deni", &[]);
    insta::assert_snapshot!("unknown-template", error.expect_err("unknown").to_string());
}

#[test]
fn no_value_becomes_structure() {
    let evil = "x\nspec: {}";
    let error = rendered("default-deny", &[("namespace", "shop"), ("purpose", evil)]);
    assert!(error.is_err());
    for evil in ["{a: b}", "- x: y", "'\"", "# no", "yes", "null: *x"] {
        let policies = rendered("default-deny", &[("namespace", "shop"), ("purpose", evil)]);
        let said =
            policies.expect("renders")[0]["metadata"]["annotations"]["ringfence.dev/purpose"]
                .clone();
        assert_eq!(said, json!(evil));
    }
}
