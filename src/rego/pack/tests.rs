use std::path::Path;
use std::sync::LazyLock;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::guard::guardrail::{Guardrail, GuardrailSpec};
use crate::guard::review::{Review, Subject};
use crate::netpol::{self, Snapshot};
use crate::rego::input::{Extent, document};
use crate::rego::value::from_json;

#[test]
fn every_file_of_the_folder_is_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let found = |end: &str| {
        crate::rego::load::read_folder_with(&folder, |name| name.ends_with(end))
            .unwrap()
            .into_iter()
            .map(|file| {
                file.path
                    .strip_prefix(folder.to_str().unwrap())
                    .unwrap()
                    .trim_start_matches('/')
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found(".rego"),
        FILES.iter().map(|(path, _)| *path).collect::<Vec<_>>()
    );
    assert_eq!(
        found(".cases.yaml"),
        CASES.iter().map(|(path, _)| *path).collect::<Vec<_>>()
    );
}

#[test]
fn the_built_in_policies_load() {
    let pack = Pack::load().unwrap();
    let ids: Vec<_> = pack
        .policies()
        .map(|policy| policy.info.id.to_string())
        .collect();
    assert_eq!(
        ids,
        [
            "RF401", "RF402", "RF403", "RF404", "RF405", "RF406", "RF501", "RF502", "RF503",
            "RF504", "RF101", "RF103", "RF102", "RF104"
        ]
    );
    assert!(
        pack.policies()
            .all(|policy| policy.why.is_some() && !policy.info.description.is_empty())
    );
}

/// The virtual machine goes on after `x := y` with `y` undefined; with `=` it does not.
#[test]
fn bodies_of_the_built_in_policies_bind_by_the_single_equals_sign() {
    for file in files() {
        for (number, line) in file.text.lines().enumerate() {
            let in_body = line.starts_with('\t')
                || line
                    .split_once(" if ")
                    .is_some_and(|(_, body)| body.contains(":="));
            assert!(
                !(in_body && line.contains(":=")),
                "{}:{}: write `=`",
                file.path,
                number + 1
            );
        }
    }
}

/// A few words, so that they meet: alike, almost alike, and not at all.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "app",
        "ap",
        "application",
        "tier",
        "env",
        "prod",
        "prd",
        "dev",
        "web",
        "",
        "x1",
        "x2",
    ])
    .prop_map(str::to_owned)
}

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(word(), 0..4)
}

fn labels() -> impl Strategy<Value = Json> {
    prop_oneof![
        1 => Just(Json::Null),
        6 => prop::collection::btree_map(word(), word(), 0..5).prop_map(|labels| json!(labels)),
    ]
}

fn metadata() -> impl Strategy<Value = Json> {
    (prop::option::of(labels()), prop::option::of(labels())).prop_map(|(labels, annotations)| {
        let mut metadata = json!({"name": "it", "namespace": "shop"});
        for (key, value) in [("labels", labels), ("annotations", annotations)] {
            if let Some(value) = value {
                metadata[key] = value;
            }
        }
        metadata
    })
}

fn container() -> impl Strategy<Value = Json> {
    let port = (1_u16..100, prop::option::of(0_u16..100)).prop_map(|(port, host)| {
        host.map_or(
            json!({"containerPort": port}),
            |host| json!({"containerPort": port, "hostPort": host}),
        )
    });
    let capability = prop::sample::select(vec![
        "NET_ADMIN",
        "cap_net_raw",
        "ALL",
        "all",
        "CHOWN",
        "CAP_SYS_ADMIN",
    ]);
    let capabilities = prop::option::of(prop::collection::vec(capability, 0..3));
    (
        prop::option::of(prop::collection::vec(port, 0..3)),
        prop::option::of(any::<bool>()),
        capabilities,
    )
        .prop_map(|(ports, privileged, add)| {
            let mut container = json!({"name": "main", "image": "x"});
            if let Some(ports) = ports {
                container["ports"] = json!(ports);
            }
            if let Some(privileged) = privileged {
                container["securityContext"]["privileged"] = json!(privileged);
            }
            if let Some(add) = add {
                container["securityContext"]["capabilities"]["add"] = json!(add);
            }
            container
        })
}

fn pod_spec() -> impl Strategy<Value = Json> {
    let containers = || prop::collection::vec(container(), 0..3);
    let flag = || prop::option::of(any::<bool>());
    (
        containers(),
        prop::option::of(containers()),
        prop::option::of(containers()),
        flag(),
        flag(),
        flag(),
    )
        .prop_map(|(main, init, ephemeral, network, pid, ipc)| {
            let mut spec = json!({"containers": main});
            for (key, list) in [("initContainers", init), ("ephemeralContainers", ephemeral)] {
                if let Some(list) = list {
                    spec[key] = json!(list);
                }
            }
            for (key, flag) in [("hostNetwork", network), ("hostPID", pid), ("hostIPC", ipc)] {
                if let Some(flag) = flag {
                    spec[key] = json!(flag);
                }
            }
            spec
        })
}

fn object() -> impl Strategy<Value = Json> {
    let template = || (prop::option::of(metadata()), pod_spec());
    let templated = |(metadata, spec): (Option<Json>, Json)| {
        let mut template = json!({"spec": spec});
        if let Some(mut metadata) = metadata {
            metadata
                .as_object_mut()
                .unwrap()
                .retain(|key, _| key == "labels" || key == "annotations");
            template["metadata"] = metadata;
        }
        template
    };
    prop_oneof![
        3 => (metadata(), pod_spec()).prop_map(|(metadata, spec)| json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})),
        3 => (metadata(), template()).prop_map(move |(metadata, template)| json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": templated(template)}})),
        1 => (metadata(), template()).prop_map(move |(metadata, template)| json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": templated(template)}}}})),
        2 => metadata().prop_map(|metadata| json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}}})),
        1 => metadata().prop_map(|metadata| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})),
    ]
}

fn presence() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["Required", "Recommended", "Optional"])
}

fn label_rule() -> impl Strategy<Value = Json> {
    let kinds = prop::collection::vec(
        prop::sample::select(vec!["Pod", "Deployment", "ConfigMap", "NetworkPolicy"]),
        0..3,
    );
    let pattern = prop::option::of(prop::sample::select(vec!["[a-z]+", "prod|dev", "x[0-9]"]));
    let place = prop::sample::select(vec!["Pods", "Object", "Both"]);
    (word(), words(), presence(), words(), pattern, kinds, place).prop_map(
        |(key, aliases, presence, values, pattern, kinds, place)| {
            let key = if key.is_empty() { "app".to_owned() } else { key };
            json!({"key": key, "aliases": aliases, "presence": presence, "values": values, "pattern": pattern, "kinds": kinds, "place": place})
        },
    )
}

fn guardrail() -> impl Strategy<Value = Guardrail> {
    let annotation = || {
        (word(), presence(), prop::option::of(Just("[a-z]+")))
            .prop_map(|(annotation, presence, pattern)| json!({"annotation": annotation, "presence": presence, "pattern": pattern}))
    };
    let allow = prop::sample::subsequence(
        vec![
            "HostNetwork",
            "HostPort",
            "Privileged",
            "HostPID",
            "HostIPC",
            "Capability",
        ],
        0..4,
    );
    let bypasses = (allow, prop::collection::btree_set(0_u16..100, 0..20))
        .prop_map(|(allow, ports)| json!({"allow": allow, "allowedHostPorts": ports}));
    let documentation = (annotation(), annotation(), annotation()).prop_map(
        |(owner, purpose, review)| json!({"owner": owner, "purpose": purpose, "reviewBy": review}),
    );
    let labels = (prop::collection::vec(label_rule(), 0..4), any::<bool>())
        .prop_map(|(rules, near)| json!({"rules": rules, "nearMisses": near}));
    (labels, bypasses, documentation).prop_map(|(labels, bypasses, documentation)| {
        let mut spec = serde_json::to_value(GuardrailSpec::built_in()).unwrap();
        spec["labels"] = labels;
        spec["bypasses"] = bypasses;
        spec["documentation"] = documentation;
        let manifest = json!({"apiVersion": "ringfence.dev/v1alpha1", "kind": "Guardrail", "metadata": {"name": "it"}, "spec": spec});
        Guardrail::parse(&manifest).unwrap()
    })
}

fn selecting(key: &str, value: &str) -> Json {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "other", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {key: value}}}})
}

proptest! {
    /// What is found does not depend on how policies are run, nor on how much of the object they are shown.
    #[test]
    fn the_virtual_machine_finds_something_where_the_interpreter_does(
        object in object(),
        guardrail in guardrail(),
        policy in prop::option::of(("app|tier|env", "prod|web")),
    ) {
        static PACK: LazyLock<Pack> = LazyLock::new(|| Pack::load().unwrap());
        let pack = &*PACK;
        let review = Review::of_manifest(object);
        let mut snapshot = Snapshot::default();
        if let Some((key, value)) = &policy {
            snapshot = snapshot.with(netpol::parse(&selecting(key, value)).unwrap().unwrap().object);
        }
        let question = Question {
            review: &review,
            subject: review.subject().unwrap(),
            snapshot: &snapshot,
            guardrail: &guardrail,
            now: "2026-03-04T23:59:59Z".parse::<Timestamp>().unwrap(),
            deadline: None,
        };
        let parameters = from_json(&guardrail.parameters);
        let small = document(&question, parameters.clone(), Extent::Pack);
        let whole = document(&question, parameters, Extent::Whole);
        let limit = Duration::from_secs(10);
        for asked in &pack.sections {
            let concerned = pack.sections(&question).contains(&asked.section);
            let mut seen = Vec::new();
            for rule in &asked.rules {
                let by_interpreter = asked.interpret(rule, &whole, limit).unwrap();
                let on_little = asked.interpret(rule, &small, limit).unwrap();
                prop_assert_eq!(&by_interpreter, &on_little, "{}", rule.path);
                let Value::Set(found) = &by_interpreter else { panic!("{by_interpreter}") };
                if !(asked.section == Section::Labels && input::has_selected_labels(&small)) {
                    let nothing = pack.finds_nothing(rule, &small, limit).unwrap();
                    prop_assert_eq!(nothing, found.is_empty(), "{}: {}", rule.path, by_interpreter);
                }
                if !concerned && question.guardrail.mode_of(asked.section).is_some() {
                    prop_assert!(found.is_empty(), "a section that is not asked would have found {}", by_interpreter);
                }
                let (violations, wrong) = answer::violations(&asked.package, rule.name, &by_interpreter, &question.subject.value);
                prop_assert!(wrong.is_empty(), "{}: {:?}", rule.path, wrong);
                seen.extend(violations);
            }
            if concerned {
                for _ in 0..2 {
                    let told = pack.ask(asked.section, &small, &question, limit).unwrap();
                    prop_assert_eq!(&told, &seen, "the first time and again");
                }
            }
            // A guardrail that demands the same label twice is told so twice.
            let mut keys: Vec<_> = guardrail.spec.labels.iter().flat_map(|labels| &labels.rules).map(|rule| &rule.key).collect();
            let demands = keys.len();
            keys.sort();
            keys.dedup();
            // One violation is one finding, and what is offered as a fix clears it.
            for (index, violation) in seen.iter().enumerate() {
                let again = seen.iter().skip(index + 1).any(|other| other.id == violation.id && other.field == violation.field && other.message == violation.message);
                prop_assert!(!again || keys.len() < demands, "{} is told twice", violation.message);
                let Some(patch) = violation.fix.as_ref().and_then(|fix| fix.patch.as_ref()) else { continue };
                let mut fixed = question.subject.value.clone();
                json_patch::patch(&mut fixed, patch).unwrap();
                let subject = Subject::new(fixed);
                let question = Question { subject: &subject, ..question };
                let input = document(&question, from_json(&guardrail.parameters), Extent::Pack);
                let left = pack.ask(asked.section, &input, &question, limit).unwrap();
                prop_assert_eq!(&left, &pack.ask(asked.section, &input, &question, limit).unwrap(), "asked again");
                // Of two that are alike, the patch of one clears one.
                let alike = |all: &[Violation]| {
                    all.iter().filter(|one| one.id == violation.id && one.message == violation.message).count()
                };
                prop_assert!(alike(&left) < alike(&seen), "{} is not cleared by {:?}", violation.message, patch);
            }
        }
    }
}
