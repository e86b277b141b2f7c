//! What users' own policies can ask and answer.

use ringfence::guard::engine::Level;
use ringfence::guard::finding::Severity;
use ringfence::guard::guardrail::Section;
use ringfence::guard::review::{Operation, Review, Subject};
use serde_json::{Value, json};

use crate::support::{Setting, create, engine, failed, found, pod, policy};

/// What a policy answers about a pod.
fn answers(rules: &str) -> (Vec<String>, Vec<String>) {
    let answers = Setting::new().ask(&engine(&[&policy("p", rules)]), &create(&pod("web")));
    (found(&answers), failed(&answers))
}

#[test]
fn texts_and_objects_are_answers() {
    let rules = "deny contains \"no reason\"\n\
        deny contains {\"msg\": \"with field\", \"field\": [\"spec\", \"containers\", 0, \"image\"]}\n\
        warn contains {\"msg\": \"written\", \"field\": \"spec.containers[0].image\"}";
    let (found, failed) = answers(rules);
    assert_eq!(
        found,
        [
            "p : no reason",
            "p spec.containers[0].image: with field",
            "p spec.containers[0].image: written"
        ]
    );
    assert_eq!(failed, Vec::<String>::new());
}

#[test]
fn an_answer_may_say_everything_about_a_finding() {
    let text = "# METADATA\n# title: Images have a tag\n# custom:\n#   id: SHOP-1\n#   severity: low\n#   why: tags move\n#   section: bypasses\n\
        package shop\n\n\
        deny contains {\n\t\"msg\": \"no tag\", \"field\": [\"spec\"], \"severity\": \"high\", \"why\": \"it moves\",\n\
        \t\"fix\": {\"summary\": \"add one\", \"patch\": [{\"op\": \"replace\", \"path\": [\"spec\", \"containers\", 0, \"image\"], \"value\": \"web:2\"}]},\n}\n\n\
        warn contains \"plain\"\n";
    let answers = Setting::new().ask(&engine(&[text]), &create(&pod("web")));
    assert_eq!(failed(&answers), Vec::<String>::new());
    let [full, plain] = &answers.violations[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(
        (full.level, full.severity, full.section),
        (Level::Deny, Severity::High, Section::Bypasses)
    );
    assert_eq!(full.why, "it moves");
    let fix = full.fix.as_ref().unwrap();
    assert_eq!(fix.summary, "add one");
    assert_eq!(
        serde_json::to_value(fix.patch.as_ref().unwrap()).unwrap(),
        json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "web:2"}])
    );
    assert_eq!(
        (plain.level, plain.severity, plain.why.as_str()),
        (Level::Warn, Severity::Low, "tags move")
    );
}

#[test]
fn an_addition_adds_the_parents_that_are_missing() {
    let rules = "deny contains {\"msg\": \"x\", \"fix\": {\"summary\": \"add\", \"patch\": [\n\
        \t{\"op\": \"add\", \"path\": [\"metadata\", \"annotations\", \"example.com/a~b\"], \"value\": \"1\"},\n\
        \t{\"op\": \"add\", \"path\": [\"metadata\", \"annotations\", \"other\"], \"value\": \"2\"},\n\
        \t{\"op\": \"add\", \"path\": \"/spec/tolerations/-\", \"value\": {}}]}}";
    let answers = Setting::new().ask(&engine(&[&policy("p", rules)]), &create(&pod("web")));
    let patch = answers.violations[0]
        .fix
        .as_ref()
        .unwrap()
        .patch
        .as_ref()
        .unwrap();
    let mut object = pod("web");
    json_patch::patch(&mut object, patch).unwrap();
    assert_eq!(
        object["metadata"]["annotations"],
        json!({"example.com/a~b": "1", "other": "2"})
    );
    assert_eq!(object["spec"]["tolerations"], json!([{}]));
}

#[test]
fn an_answer_of_the_wrong_shape_is_a_failure_and_the_others_stand() {
    for (rules, reason) in [
        (
            "deny contains 7",
            "`deny` holds 7; expects a text or an object with `msg`",
        ),
        (
            "deny contains [\"x\"]",
            "`deny` holds [\"x\"]; expects a text or an object with `msg`",
        ),
        (
            "deny contains {\"msg\": 7}",
            "`deny` has 7 as `msg`; expects a text",
        ),
        (
            "deny contains {\"msg\": \" \"}",
            "`deny` has an answer without `msg`",
        ),
        (
            "deny contains {\"field\": [\"spec\"]}",
            "`deny` has an answer without `msg`",
        ),
        (
            "deny contains {\"msg\": \"x\", \"field\": 7}",
            "`deny` has 7 as `field`; expects a list of steps",
        ),
        (
            "deny contains {\"msg\": \"x\", \"field\": [{}]}",
            "`deny` has {} as a step of a path",
        ),
        (
            "deny contains {\"msg\": \"x\", \"field\": [-1]}",
            "`deny` has -1 as a step of a path",
        ),
        (
            "deny contains {\"msg\": \"x\", \"id\": \"other\"}",
            "`deny` has an answer with the id `other`, which no metadata of the package has",
        ),
        (
            "deny contains {\"msg\": \"x\", \"severity\": \"urgent\"}",
            "`deny` unknown severity `urgent`: use info, low, medium, high or critical",
        ),
        (
            "deny contains {\"msg\": \"x\", \"fix\": \"add it\"}",
            "`deny` has a `fix` that is no object with `summary` and `patch`",
        ),
        (
            "deny contains {\"msg\": \"x\", \"fix\": {}}",
            "`deny` has a `fix` without `summary`",
        ),
        (
            "deny contains {\"msg\": \"x\", \"unknown\": 1}",
            "`deny` has an answer with the unknown key `unknown`: use msg, field, id, severity, why or fix",
        ),
        (
            "warn contains {\"msg\": \"x\", 7: 1}",
            "`warn` an object key is not a string",
        ),
    ] {
        let (found, failed) = answers(&format!("{rules}\nwarn contains \"other\""));
        assert_eq!(failed, [format!("p: {reason}")], "{rules}");
        assert_eq!(found, ["p : other"], "{rules}");
    }
    let (_, failed) = answers("deny := {\"a\": 1}");
    assert_eq!(failed, ["p: `deny` is an object; write `deny contains …`"]);
}

#[test]
fn a_fix_that_does_not_fit_is_a_failure_and_the_finding_stands() {
    let patch = |patch: &str| {
        answers(&format!(
            "deny contains {{\"msg\": \"x\", \"fix\": {{\"summary\": \"s\", \"patch\": {patch}}}}}"
        ))
    };
    for (operations, reason) in [
        ("{}", "p: `deny` has a patch that is no list of operations"),
        (
            "[1]",
            "p: `deny` has a patch with an operation that is no object",
        ),
        (
            "[{\"op\": \"put\", \"path\": \"/a\"}]",
            "p: `deny` has a patch with an operation that is none of JSON Patch",
        ),
        (
            "[{\"op\": \"remove\", \"path\": \"/spec/nothing\"}]",
            "p: `deny` has a `fix.patch` that does not apply",
        ),
    ] {
        let (found, failed) = patch(operations);
        assert_eq!(found, ["p : x"], "{operations}");
        assert!(failed[0].starts_with(reason), "{failed:?}");
    }
}

#[test]
fn an_error_in_a_policy_has_its_place() {
    let (_, failed) = answers("a := 1\n\na := 2 if input.object\n\ndeny contains \"x\" if a == 1");
    assert!(failed[0].starts_with("p: 0.rego:"), "{failed:?}");
}

#[test]
fn policies_share_libraries_and_are_asked_each_by_itself() {
    let first = policy(
        "first",
        "import data.lib\ndeny contains \"one\" if lib.is_web(input.object)",
    );
    let second = policy("second", "deny contains \"two\"");
    let broken = policy(
        "third",
        "a := 1\na := 2 if input.object\ndeny contains \"x\" if a == 1",
    );
    let lib = "package lib\nis_web(object) if object.metadata.labels.app == \"web\"";
    let answers = Setting::new().ask(
        &engine(&[&first, lib, &broken, &second]),
        &create(&pod("web")),
    );
    assert_eq!(found(&answers), ["first : one", "second : two"]);
    assert!(
        failed(&answers)[0].starts_with("third: "),
        "{:?}",
        failed(&answers)
    );
}

#[test]
fn many_policies_of_one_request_are_all_asked() {
    let texts: Vec<String> = (0..25)
        .map(|index| policy(&format!("p{index:02}"), "deny contains input.request.name"))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answers = Setting::new().ask(&engine(&texts), &create(&pod("web")));
    let expected: Vec<String> = (0..25).map(|index| format!("p{index:02} : web")).collect();
    assert_eq!(found(&answers), expected);
}

#[test]
fn the_input_is_the_request_and_what_the_model_knows() {
    let dump = policy("p", "deny contains json.marshal(input)");
    let object = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "report", "namespace": "shop", "managedFields": [{"manager": "kubectl"}]},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {
            "metadata": {"labels": {"app": "report"}},
            "spec": {"containers": [{"name": "a", "image": "a"}], "initContainers": [{"name": "b", "image": "b"}]}}}}},
    });
    let setting = Setting::new().in_cluster(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": "report"}}}}),
    ]);
    let answers = setting.ask(&engine(&[&dump]), &create(&object));
    let input: Value = serde_json::from_str(&answers.violations[0].message).unwrap_or_default();
    // Messages are cut; the parts below come before the end of the document.
    assert_eq!(
        input,
        Value::Null,
        "the whole document is longer than a message"
    );
    let field = |path: &str| {
        let text = policy("p", &format!("deny contains json.marshal(input.{path})"));
        let answers = setting.ask(&engine(&[&text]), &create(&object));
        let found = answers
            .violations
            .first()
            .map(|found| serde_json::from_str::<Value>(&found.message).unwrap());
        found.unwrap_or(Value::Null)
    };
    assert_eq!(field("request.operation"), json!("CREATE"));
    assert_eq!(
        field("request.kind"),
        json!({"group": "batch", "version": "v1", "kind": "CronJob"})
    );
    assert_eq!(
        field("request.resource"),
        json!({"group": "batch", "version": "v1", "resource": "cronjobs"})
    );
    assert_eq!(
        field("request.object.metadata"),
        json!({"name": "report", "namespace": "shop"}),
        "no managed fields"
    );
    assert_eq!(field("object.spec.schedule"), json!("0 3 * * *"));
    assert_eq!(field("workload.kind"), json!("CronJob"));
    assert_eq!(
        field("workload.path"),
        json!(["spec", "jobTemplate", "spec", "template"])
    );
    assert_eq!(field("workload.metadata.labels"), json!({"app": "report"}));
    assert_eq!(
        field("workload.containers[1]"),
        json!({
            "path": ["spec", "jobTemplate", "spec", "template", "spec", "initContainers", 0],
            "list": "initContainers", "container": {"name": "b", "image": "b"},
        })
    );
    assert_eq!(
        field("namespace.labels"),
        json!({"kubernetes.io/metadata.name": "shop", "team": "shop"})
    );
    assert_eq!(
        field("namespace.selectedLabels"),
        json!({"app": ["report"]})
    );
    assert_eq!(
        field("coverage"),
        json!({"ingress": true, "egress": false, "by": {"ingress": ["deny"], "egress": []}})
    );
    assert_eq!(field("guardrail.mode"), json!("Enforce"));
    assert_eq!(field("now"), json!("2026-11-21T10:00:00Z"));
}

#[test]
fn updates_and_deletions_have_the_old_object() {
    let text = policy(
        "p",
        "deny contains sprintf(\"%s %v %v\", [input.request.operation, input.object.metadata.name, input.oldObject.metadata.name])\n\
        deny contains \"gone\" if { input.request.operation == \"DELETE\"; input.object == null; input.oldObject.metadata.name == \"old\" }",
    );
    let engine = engine(&[&text]);
    let subject = |name: &str| Some(Subject::new(pod(name)));
    let update = Review::made_of(Operation::Update, subject("new"), subject("old"));
    assert_eq!(
        found(&Setting::new().ask(&engine, &update)),
        ["p : UPDATE new old"]
    );
    let delete = Review::made_of(Operation::Delete, None, subject("old"));
    assert_eq!(found(&Setting::new().ask(&engine, &delete)), ["p : gone"]);
}

#[test]
fn a_policy_can_ask_who_may_reach_whom() {
    let text = policy(
        "p",
        "me := {\"namespace\": input.namespace.name, \"labels\": input.workload.metadata.labels}\n\
         db := {\"namespace\": \"shop\", \"labels\": {\"app\": \"db\"}}\n\
         deny contains \"reaches the database\" if ringfence.allowed(me, db, \"TCP\", 5432)\n\
         deny contains v.ingress.isolatedBy[0] if {\n\tv := ringfence.verdict(me, db, \"TCP\", 80)\n\tnot v.allowed\n}\n\
         deny contains \"not covered\" if not ringfence.covered(input.namespace.name, input.workload.metadata.labels).egress\n\
         deny contains ringfence.namespace_labels(\"shop\").team\n\
         deny contains \"in range\" if net.cidr_intersects(\"10.0.0.0/8\", \"10.1.0.0/16\")",
    );
    let setting = Setting::new().in_cluster(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "payments"}}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "db", "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": "db"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}]}}),
    ]);
    let answers = setting.ask(&engine(&[&text]), &create(&pod("web")));
    assert_eq!(failed(&answers), Vec::<String>::new());
    assert_eq!(
        found(&answers),
        [
            "p : db",
            "p : in range",
            "p : not covered",
            "p : payments",
            "p : reaches the database"
        ]
    );
}

#[test]
fn the_clock_is_the_same_for_all_that_is_asked() {
    let (found, _) = answers("deny contains sprintf(\"%d\", [time.now_ns()])");
    assert_eq!(found, ["p : 1795255200000000000"]);
}

#[test]
fn policies_of_a_guardrail_can_be_left_out() {
    let one = policy("one", "deny contains \"x\"");
    let two = policy("two", "deny contains \"y\"");
    let engine = engine(&[&one, &two]);
    let review = create(&pod("web"));
    let some = Setting::with(&json!({"policies": {"exclude": ["one"]}}));
    assert_eq!(found(&some.ask(&engine, &review)), ["two : y"]);
    let none = Setting::with(&json!({"policies": null}));
    assert_eq!(found(&none.ask(&engine, &review)), Vec::<String>::new());
}

#[test]
fn a_policy_of_a_section_that_is_absent_is_left_out() {
    let text = "# METADATA\n# title: t\n# custom: {id: p, section: bypasses}\npackage p\ndeny contains \"x\"";
    let engine = engine(&[text]);
    let review = create(&pod("web"));
    assert_eq!(found(&Setting::new().ask(&engine, &review)), ["p : x"]);
    assert_eq!(
        found(&Setting::with(&json!({"bypasses": null})).ask(&engine, &review)),
        Vec::<String>::new()
    );
}

#[test]
fn policies_change_objects_one_after_the_other() {
    let first = policy(
        "a",
        "mutate := [{\"op\": \"add\", \"path\": [\"metadata\", \"annotations\", \"n\"], \"value\": \"1\"}] if not input.object.metadata.annotations.n",
    );
    let second = policy(
        "b",
        "mutate contains {\"op\": \"add\", \"path\": \"/metadata/labels/seen\", \"value\": input.object.metadata.annotations.n}",
    );
    let engine = engine(&[&second, &first]);
    let setting = Setting::new();
    let mutations = setting.mutate(&engine, &create(&pod("web")));
    assert!(mutations.failures.is_empty(), "{mutations:?}");
    let ids: Vec<_> = mutations
        .patches
        .iter()
        .map(|mutation| mutation.policy.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let mut object = pod("web");
    for mutation in &mutations.patches {
        json_patch::patch(&mut object, &mutation.patch).unwrap();
    }
    assert_eq!(object["metadata"]["annotations"], json!({"n": "1"}));
    assert_eq!(
        object["metadata"]["labels"],
        json!({"app": "web", "seen": "1"})
    );
}

#[test]
fn a_change_that_does_not_apply_is_a_failure_and_the_others_are_made() {
    let good = policy(
        "a",
        "mutate := [{\"op\": \"remove\", \"path\": \"/metadata/labels\"}]",
    );
    for (rules, reason) in [
        (
            "mutate := [{\"op\": \"remove\", \"path\": \"/spec/nothing\"}]",
            "`mutate` has a patch that does not apply",
        ),
        (
            "mutate := \"x\"",
            "`mutate` is a text; write a list of JSON Patch operations",
        ),
        (
            "mutate := [7]",
            "`mutate` has a patch with an operation that is no object",
        ),
        (
            "mutate := [{\"op\": \"add\", \"path\": [[]], \"value\": 1}]",
            "`mutate` has [] as a step of a path",
        ),
    ] {
        let engine = engine(&[&good, &policy("b", rules)]);
        let mutations = Setting::new().mutate(&engine, &create(&pod("web")));
        assert_eq!(mutations.patches.len(), 1, "{rules}");
        assert_eq!(mutations.failures[0].policy, "b");
        assert!(
            mutations.failures[0].reason.starts_with(reason),
            "{mutations:?}"
        );
    }
}

#[test]
fn a_policy_that_only_changes_finds_nothing_and_the_other_way_round() {
    let changes = policy("a", "mutate := []");
    let finds = policy("b", "deny contains \"x\"");
    let engine = engine(&[&changes, &finds]);
    let review = create(&pod("web"));
    assert_eq!(found(&Setting::new().ask(&engine, &review)), ["b : x"]);
    let mutations = Setting::new().mutate(&engine, &review);
    assert!(mutations.patches.is_empty() && mutations.failures.is_empty());
}

#[test]
fn messages_are_one_line_and_not_endless() {
    let (found, _) = answers("deny contains \"one\\ntwo\\u0007three\"");
    assert_eq!(found, ["p : one two three"]);
    let (found, _) = answers(
        "deny contains sprintf(\"%s%s\", [s, s])\ns := concat(\"\", [\"ä\" | some _ in numbers.range(1, 3000)])",
    );
    assert_eq!(found[0].chars().count(), "p : ".len() + 2_001);
}
