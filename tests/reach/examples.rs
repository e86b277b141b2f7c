//! What `ringfence reach` and `ringfence why` print, on the example shop and on small clusters.

use std::io::Write;
use std::process::{Command, Output, Stdio};

const SHOP: &str = "deploy/examples/shop";

/// Runs the program; manifests that are given go to its standard input.
fn ringfence(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("CLICOLOR_FORCE")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("its input");
    // One that does not read it has closed it.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    child.wait_with_output().expect("it ends")
}

/// What it prints, and how it ends.
fn told(args: &[&str], stdin: &str) -> String {
    let output = ringfence(args, stdin);
    format!(
        "{}{}exit {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status.code().expect("an exit code")
    )
}

#[test]
fn the_shop_is_listed_in_every_form() {
    for form in ["text", "json", "csv", "markdown", "dot", "mermaid", "svg"] {
        insta::assert_snapshot!(
            format!("shop_{form}"),
            told(&["reach", SHOP, "--output", form], "")
        );
    }
}

#[test]
fn exposure_is_told_beside_the_connections_that_were_asked_for() {
    let asked = ["reach", SHOP, "--to", "admin-db/postgres", "--exposure"];
    insta::assert_snapshot!("exposure_text", told(&asked, ""));
    let json = [&asked[..], &["--port", "9090", "--output", "json"]].concat();
    insta::assert_snapshot!("exposure_json", told(&json, ""));
    let from = ["reach", SHOP, "--from", "backend/orders-api", "--exposure"];
    insta::assert_snapshot!("exposure_of_egress", told(&from, ""));
    let markdown = [&from[..], &["--output", "markdown"]].concat();
    insta::assert_snapshot!("exposure_markdown", told(&markdown, ""));
}

#[test]
fn filters_narrow_by_workload_namespace_address_and_port() {
    let lines = |args: &[&str]| {
        let output = ringfence(&[&["reach", SHOP, "-o", "csv"], args].concat(), "");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().count() - 1
    };
    assert_eq!(lines(&["--from", "frontend/web"]), 1);
    assert_eq!(lines(&["--from", "Deployment/frontend/web"]), 1);
    assert_eq!(lines(&["--to", "admin-db/*", "--port", "5432"]), 4);
    assert_eq!(lines(&["--to", "admin-db/*", "--port", "udp/5432"]), 0);
    assert_eq!(lines(&["--from", "203.0.113.9"]), 2);
    assert_eq!(lines(&["--from", "203.0.114.9"]), 0);
    assert_eq!(lines(&["--to", "198.51.0.0/16"]), 1);
}

#[test]
fn what_cannot_be_answered_says_so_and_ends_with_two() {
    let broken = "deploy/examples/violations/invalid-cidr.yaml";
    insta::assert_snapshot!(told(&["reach", SHOP, broken], ""), @r#"
    error: deploy/examples/violations/invalid-cidr.yaml:22:19: NetworkPolicy backend/warehouse: spec.egress[0].to[0].ipBlock.cidr: "10.300.0.0/16": must be an address block, such as 192.0.2.0/24 or 2001:db8::/32
    exit 2
    "#);
    insta::assert_snapshot!(told(&["reach", SHOP, "--from", "shop/nobody"], ""), @r"
    error: --from: there is no shop/nobody among the manifests
    exit 2
    ");
    insta::assert_snapshot!(told(&["why", "shop/a", "shop/b", "80", SHOP], ""), @r"
    error: FROM: there is no shop/a among the manifests
    exit 2
    ");
}

#[test]
fn a_denied_flow_is_told_step_by_step_with_what_would_allow_it() {
    let why = |from: &str, to: &str, port: &str| told(&["why", from, to, port, SHOP], "");
    insta::assert_snapshot!(
        "why_denied_at_both_ends",
        why("frontend/web", "admin-db/postgres", "5432")
    );
    insta::assert_snapshot!(
        "why_denied_to_the_outside",
        why("frontend/web", "192.0.2.10", "udp/443")
    );
    insta::assert_snapshot!(
        "why_allowed",
        why(
            "backend/orders-api",
            "StatefulSet/admin-db/postgres",
            "tcp/5432"
        )
    );
}

#[test]
fn a_workload_that_only_general_policies_isolate_gets_a_policy_of_its_own() {
    let cluster = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: a}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web, pod-template-hash: x}}
spec: {containers: [{name: main, image: main}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: a, labels: {app: api}}
spec: {containers: [{name: main, image: main}]}
";
    insta::assert_snapshot!(
        "why_needs_a_new_policy",
        told(&["why", "a/web", "a/api", "8080", "-"], cluster)
    );
}

const TIERS: &str = "deploy/examples/tiers";

#[test]
fn cluster_network_policies_are_judged_before_and_after_those_of_namespaces() {
    insta::assert_snapshot!("tiers_reach", told(&["reach", TIERS], ""));
    let why = |from: &str, to: &str, port: &str, form: &str| {
        told(&["why", from, to, port, TIERS, "--output", form], "")
    };
    let (web, postgres) = ("tenant/web", "data/postgres");
    insta::assert_snapshot!(
        "tiers_why_denied_by_admin",
        why(web, postgres, "5432", "text")
    );
    insta::assert_snapshot!(
        "tiers_why_denied_by_admin_json",
        why(web, postgres, "5432", "json")
    );
    insta::assert_snapshot!(
        "tiers_why_accepted",
        why("monitoring/prometheus", postgres, "9090", "text")
    );
    insta::assert_snapshot!(
        "tiers_why_denied_by_baseline",
        why("data/postgres", "data/api", "8080", "text")
    );
    insta::assert_snapshot!(
        "tiers_why_to_a_domain",
        why(web, "203.0.113.7", "443", "text")
    );
    insta::assert_snapshot!(
        "tiers_why_allowed_json",
        why("data/api", postgres, "5432", "json")
    );
}

/// An AdminNetworkPolicy that denies what a NetworkPolicy allows and passes the rest on, and a BaselineAdminNetworkPolicy.
const BEFORE: &str = "
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: guard}
spec:
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: data}}}
  ingress:
    - name: scrape
      action: Allow
      from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: prometheus}}}}]
      ports: [{portNumber: {port: 9090}}]
    - name: no-web
      action: Deny
      from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]
      ports: [{portRange: {start: 5000, end: 6000}}]
    - name: teams-decide
      action: Pass
      from: [{namespaces: {}}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec:
  subject: {namespaces: {}}
  ingress:
    - {action: Deny, from: [{namespaces: {}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: postgres, namespace: data}
spec:
  podSelector: {matchLabels: {app: postgres}}
  ingress:
    - from: [{namespaceSelector: {}}]
      ports: [{port: 5432}]
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: main, image: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: api}}, spec: {containers: [{name: main, image: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: prometheus, namespace: shop, labels: {app: prometheus}}, spec: {containers: [{name: main, image: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: postgres, namespace: data, labels: {app: postgres}}, spec: {containers: [{name: main, image: main}]}}
";

#[test]
fn the_kinds_before_cluster_network_policy_are_judged_and_named() {
    insta::assert_snapshot!("before_reach", told(&["reach", "-"], BEFORE));
    let why = |from: &str, to: &str, port: &str, form: &str| {
        told(&["why", from, to, port, "-", "--output", form], BEFORE)
    };
    let postgres = "data/postgres";
    insta::assert_snapshot!(
        "before_why_denied_by_admin",
        why("shop/web", postgres, "5432", "text")
    );
    insta::assert_snapshot!(
        "before_why_denied_by_admin_json",
        why("shop/web", postgres, "5432", "json")
    );
    insta::assert_snapshot!(
        "before_why_passed_on",
        why("shop/api", postgres, "5432", "text")
    );
    insta::assert_snapshot!(
        "before_why_denied_by_baseline",
        why(postgres, "shop/api", "80", "text")
    );
    insta::assert_snapshot!(
        "before_why_denied_by_baseline_json",
        why(postgres, "shop/api", "80", "json")
    );
    insta::assert_snapshot!(
        "before_registry",
        told(&["registry", "-", "--at", "2026-06-01T00:00:00Z"], BEFORE)
    );
    let later = BEFORE
        .replace("action: Deny, from", "action: Allow, from")
        .replace(
            "name: no-web\n      action: Deny",
            "name: no-web\n      action: Accept",
        );
    insta::assert_snapshot!("before_refused", told(&["reach", "-"], &later));
}

#[test]
fn what_rules_want_closed_is_red_on_the_map() {
    let cluster = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {containers: [{name: main, image: main}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: b, labels: {app: db}}
spec: {containers: [{name: main, image: main}]}
---
apiVersion: ringfence.dev/v1alpha1
kind: ReachabilityRule
metadata: {name: no-way}
spec:
  from: [{podSelector: {matchLabels: {app: web}}}, {cidrs: [203.0.113.0/24]}]
  to: [{namespaces: [b]}]
  ports: [{port: 5432}]
  expect: Deny
";
    let red = |args: &[&str]| -> Vec<String> {
        let svg = told(
            &[&["reach", "-", "--output", "svg"], args].concat(),
            cluster,
        );
        let lines = svg.lines().filter(|line| line.contains("must not reach"));
        lines
            .map(|line| {
                let title = line.split("<title>").nth(1).expect("a title");
                title.split("</title>").next().expect("its end").to_owned()
            })
            .collect()
    };
    assert_eq!(
        red(&[]),
        [
            "web must not reach db: TCP 5432",
            "203.0.113.0/24 must not reach db: TCP 5432"
        ]
    );
    assert_eq!(
        red(&["--from", "a/web"]),
        ["web must not reach db: TCP 5432"]
    );
    assert_eq!(red(&["--port", "80"]), Vec::<String>::new());
}
