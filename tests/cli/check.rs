//! `ringfence check` and `ringfence baseline`.

use insta::assert_snapshot;

use super::{folder_with, repository, ringfence};

const UNCOVERED: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web, tier: front, team: shop}
    spec:
      containers:
        - name: main
          image: web:1
";

#[test]
fn a_workload_without_default_deny_is_shown_with_its_line_and_what_to_apply() {
    let folder = folder_with("shop.yaml", UNCOVERED);
    assert_snapshot!(ringfence(folder.path(), &["check", "."], ""));
}

#[test]
fn standard_input_is_judged_like_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let seen = ringfence(
        folder.path(),
        &["check", "-", "--output", "json"],
        UNCOVERED,
    );
    assert_snapshot!(seen);
}

#[test]
fn the_example_shop_keeps_every_rule() {
    let seen = ringfence(repository(), &["check", "deploy/examples/shop"], "");
    assert_snapshot!(seen);
}

#[test]
fn every_violation_of_the_examples_is_found() {
    let seen = ringfence(repository(), &["check", "deploy/examples/violations"], "");
    assert_snapshot!(seen);
}

#[test]
fn a_guardrail_of_ones_own_decides_and_the_exit_code_follows_fail_on() {
    let folder = folder_with("shop.yaml", UNCOVERED);
    std::fs::write(
        folder.path().join("audit.yml"),
        "apiVersion: ringfence.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: mild}\nspec: {mode: Audit, coverage: {}}\n",
    )
    .unwrap();
    // It lies among the manifests, and is used without being named.
    let exit = |arguments: &[&str]| {
        let seen = ringfence(folder.path(), &[&["check", "."], arguments].concat(), "");
        seen.lines().next().unwrap().to_owned()
    };
    assert_eq!(exit(&[]), "exit: 0");
    assert_eq!(exit(&["--fail-on", "warn"]), "exit: 0");
    assert_eq!(exit(&["--fail-on", "audit"]), "exit: 1");

    let file = folder_with(
        "strict.yaml",
        "apiVersion: ringfence.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: g}\nspec: {mode: Enforce, coverage: {}}\n",
    );
    let strict = file.path().join("strict.yaml");
    let strict = strict.to_str().unwrap();
    assert_eq!(exit(&["--guardrail", strict]), "exit: 1");
    assert_eq!(
        exit(&["--guardrail", strict, "--fail-on", "never"]),
        "exit: 0"
    );
}

#[test]
fn what_cannot_be_read_is_told_with_its_place_and_exits_with_2() {
    let folder = folder_with(
        "broken.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: [shop\n",
    );
    assert_snapshot!("broken", ringfence(folder.path(), &["check", "."], ""));
    assert_snapshot!(
        "missing",
        ringfence(folder.path(), &["check", "nowhere"], "")
    );
    let empty = tempfile::tempdir().unwrap();
    assert_snapshot!("empty", ringfence(empty.path(), &["check", "."], ""));
}

#[test]
fn a_bad_guardrail_is_named_by_file_line_and_field() {
    let folder = folder_with(
        "g.yaml",
        "apiVersion: ringfence.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: g}\nspec:\n  mod: Audit\n",
    );
    assert_snapshot!(ringfence(
        folder.path(),
        &["check", "--guardrail", "g.yaml", "-"],
        UNCOVERED
    ));
}

#[test]
fn a_rule_that_the_policies_break_is_shown_with_the_flow() {
    let arguments = [
        "check",
        "deploy/examples/shop",
        "deploy/examples/rules/shop.yaml",
        "deploy/examples/rules/opens-the-database.yaml",
    ];
    assert_snapshot!(ringfence(repository(), &arguments, ""));
}

#[test]
fn a_rule_beside_the_manifests_is_judged_and_a_broken_one_is_told_with_its_place() {
    let rule = |ports: &str| {
        format!(
            "apiVersion: ringfence.dev/v1alpha1\nkind: ReachabilityRule\nmetadata: {{name: closed}}\nspec:\n  from:\n  \
             - cidrs: [0.0.0.0/0]\n  to:\n  - namespaces: [shop]\n  expect: Deny\n  mode: Enforce\n  ports:\n  - {ports}\n"
        )
    };
    let folder = folder_with("rule.yaml", &rule("port: 80"));
    let arguments = ["check", "-", "--guardrail", "rule.yaml"];
    assert_snapshot!(
        "rule_beside",
        ringfence(folder.path(), &arguments, UNCOVERED)
    );
    let folder = folder_with("rule.yaml", &rule("prot: 80"));
    assert_snapshot!("rule_broken", ringfence(folder.path(), &["check", "."], ""));
}

#[test]
fn baseline_prints_what_belongs_beside_a_policy() {
    let arguments = [
        "baseline",
        "deploy/examples/violations/forgot-dns-gitops.yaml",
    ];
    let seen = ringfence(repository(), &arguments, "");
    assert_snapshot!(seen);
    // And with it beside, nothing is missing any more.
    let printed = seen.split_once("--- stdout\n").unwrap().1;
    let both = format!(
        "{}\n{printed}",
        std::fs::read_to_string(repository().join(arguments[1])).unwrap()
    );
    assert_eq!(
        ringfence(repository(), &["baseline", "-"], &both),
        "exit: 0\n"
    );
}

#[test]
fn policies_of_ones_own_and_the_documentation_are_asked_about_the_whole_cluster() {
    let wide = "\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata:
  name: guard
spec:
  tier: Admin
  priority: 1
  subject:
    namespaces: {}
  ingress:
    - action: Deny
      from:
        - namespaces:
            matchLabels: {tier: dev}
";
    let own = "\
# METADATA
# title: Low priorities are kept free
# custom:
#   id: SHOP-2
#   severity: low
package shop.priorities

deny contains {\"msg\": \"priority below 10\", \"field\": [\"spec\", \"priority\"]} if {
\tinput.request.kind.kind == \"ClusterNetworkPolicy\"
\tnot input.namespace
\tinput.object.spec.priority < 10
}
";
    let folder = folder_with("guard.yaml", wide);
    std::fs::create_dir(folder.path().join("own")).unwrap();
    std::fs::write(folder.path().join("own/priorities.rego"), own).unwrap();
    let seen = ringfence(
        folder.path(),
        &["check", "guard.yaml", "--policies", "own"],
        "",
    );
    assert_snapshot!(seen);
}

#[test]
fn enforcement_is_asked_for_only_where_receipts_are_among_the_manifests() {
    let guardrail = "{apiVersion: ringfence.dev/v1alpha1, kind: Guardrail, metadata: {name: all}, \
        spec: {mode: Enforce, enforcement: {}}}\n";
    let folder = folder_with("guardrail.yaml", guardrail);
    let arguments = ["check", "-", "--guardrail", "guardrail.yaml"];
    let seen = ringfence(folder.path(), &arguments, UNCOVERED);
    assert!(seen.starts_with("exit: 0"), "{seen}");
    let old = "{apiVersion: ringfence.dev/v1alpha1, kind: NodeEnforcement, metadata: {name: one}, spec: {node: one}, \
        status: {readBack: 2026-01-01T00:00:00Z}}";
    let seen = ringfence(
        folder.path(),
        &arguments,
        &format!("{UNCOVERED}\n---\n{old}\n"),
    );
    assert!(
        seen.starts_with("exit: 1") && seen.contains("RF203"),
        "{seen}"
    );
}

/// A kind of which no pods are known, a policy of another plugin, a policy for that kind's pods and another one, and a workload.
const OTHERS: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web, namespace: shop}
spec:
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: main, image: web}]}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: open, namespace: shop}
spec: {endpointSelector: {}, ingress: [{}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec:
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: main, image: db}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}
";

#[test]
fn what_is_not_judged_is_named_and_nothing_is_held_to_be_absent_beside_it() {
    let folder = folder_with("shop.yaml", OTHERS);
    for command in ["check", "baseline"] {
        let said = ringfence(folder.path(), &[command, "."], "");
        assert!(said.contains("exit: 0"), "{said}");
        for (line, what) in [
            (5, "Rollout is no kind"),
            (11, "CiliumNetworkPolicy is not judged"),
        ] {
            let warned = said.lines().any(|told| {
                told.starts_with(&format!("warning: shop.yaml:{line}: ")) && told.contains(what)
            });
            assert!(warned, "{what}: {said}");
        }
        assert!(!said.contains("RF602"), "{said}");
    }
    // Without it all that runs is known.
    let known = OTHERS.replace("kind: Rollout", "kind: Certificate");
    let known = known.replace(
        "template: {metadata: {labels: {app: web}}",
        "issued: {by: {app: web}}}\n#",
    );
    let folder = folder_with("shop.yaml", &known);
    let said = ringfence(folder.path(), &["check", "."], "");
    assert!(said.contains("RF602"), "{said}");
    // A kustomization may give labels and namespaces that nobody sees.
    std::fs::write(
        folder.path().join("kustomization.yaml"),
        "namespace: other\n",
    )
    .unwrap();
    let said = ringfence(folder.path(), &["check", "."], "");
    assert!(
        !said.contains("RF602") && said.contains("kustomize build"),
        "{said}"
    );
}

#[test]
fn a_chart_that_nobody_rendered_is_no_clean_folder() {
    let folder = folder_with("Chart.yaml", "name: shop\n");
    std::fs::create_dir(folder.path().join("templates")).unwrap();
    let template = folder.path().join("templates/policy.yaml");
    std::fs::write(template, "metadata: {name: {{ .Values.name }}}\n").unwrap();
    for path in [".", "templates/policy.yaml"] {
        let said = ringfence(folder.path(), &["check", path], "");
        assert!(
            said.contains("exit: 2") && said.contains("helm template"),
            "{said}"
        );
    }
    std::fs::write(folder.path().join("shop.yaml"), UNCOVERED).unwrap();
    let said = ringfence(folder.path(), &["check", "."], "");
    assert!(
        said.contains("exit: 1") && said.contains("helm template"),
        "{said}"
    );
}
