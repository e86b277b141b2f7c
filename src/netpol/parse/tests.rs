use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::netpol::testing::{
    deployment, namespace, network_policy, patched, pod, policy, problem_fields, problems,
};
use crate::netpol::{Phase, ServiceType, WorkloadRef};

fn read(value: &Value) -> Object {
    crate::netpol::testing::object(value)
}

fn read_pod(value: &Value) -> Pod {
    match read(value) {
        Object::Pod(pod) | Object::Workload(pod) => pod,
        other => panic!("not a pod: {other:?}"),
    }
}

/// An object of a kind with a template, whose pods are labelled `app=web`.
fn templated(kind: WorkloadKind) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
        "hostNetwork": true,
        "containers": [{"name": "main", "ports": [{"name": "web", "containerPort": 80}]}],
    }});
    let spec = match kind {
        WorkloadKind::Pod => template["spec"].clone(),
        WorkloadKind::CronJob => {
            json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}})
        }
        _ => json!({"template": template}),
    };
    json!({
        "apiVersion": kind.api_version(),
        "kind": kind.as_str(),
        "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web"}},
        "spec": spec,
    })
}

#[test]
fn every_kind_with_pods_becomes_the_same_type() {
    for kind in WorkloadKind::ALL {
        let value = templated(kind);
        let pod = read_pod(&value);
        let workload = WorkloadRef {
            kind,
            namespace: "shop".into(),
            name: "web".into(),
        };
        assert_eq!(pod.workload, workload);
        assert_eq!(pod.is_template(), kind != WorkloadKind::Pod);
        assert_eq!(pod.labels.get("app"), Some("web"), "{kind}");
        assert_eq!(
            pod.labels.get("batch.kubernetes.io/job-name"),
            (kind == WorkloadKind::Job).then_some("web")
        );
        assert!(
            pod.host_network && pod.ips.is_empty() && pod.ports.len() == 1,
            "{kind}"
        );
        let spec = FieldPath::of(kind.pod_at().iter().copied()).key("spec");
        assert!(
            spec.lookup(&value)
                .is_some_and(|spec| spec["containers"].is_array()),
            "{kind}"
        );
    }
}

#[test]
fn a_workload_without_a_template_says_where_it_is_missing() {
    for kind in WorkloadKind::ALL {
        let mut value = templated(kind);
        value["spec"] = Value::Null;
        let missing = FieldPath::of(kind.pod_at().iter().copied());
        let missing = if kind == WorkloadKind::Pod {
            missing.key("spec")
        } else {
            missing
        };
        assert_eq!(problems(&value), [format!("{missing}: is missing")]);
    }
    let mut empty = templated(WorkloadKind::Deployment);
    empty["spec"]["template"] = json!({});
    assert_eq!(problems(&empty), ["spec.template.spec: is missing"]);
}

#[test]
fn other_kinds_are_none_of_ours() {
    for (api_version, kind) in [
        ("v1", "ConfigMap"),
        ("projectcalico.org/v3", "NetworkPolicy"),
        ("serving.knative.dev/v1", "Service"),
        ("batch.volcano.sh/v1alpha1", "Job"),
        ("v1", "List"),
    ] {
        assert_eq!(
            parse(&json!({"apiVersion": api_version, "kind": kind})),
            Ok(None),
            "{kind}"
        );
    }
}

#[test]
fn versions_that_are_served_no_longer_are_refused_by_name() {
    for (api_version, kind) in [
        ("networking.k8s.io/v1beta1", "NetworkPolicy"),
        ("extensions/v1beta1", "NetworkPolicy"),
        ("extensions/v1beta1", "Deployment"),
        ("apps/v1beta2", "StatefulSet"),
        ("batch/v1beta1", "CronJob"),
        ("v2", "Pod"),
    ] {
        assert_eq!(
            problem_fields(&json!({"apiVersion": api_version, "kind": kind})),
            ["apiVersion"],
            "{kind}"
        );
    }
    assert_eq!(
        problems(&json!({"apiVersion": "extensions/v1beta1", "kind": "NetworkPolicy"})),
        [
            "apiVersion: \"extensions/v1beta1\" is not read: a NetworkPolicy must be of networking.k8s.io/v1"
        ]
    );
}

#[test]
fn what_is_no_object_of_the_api_is_refused() {
    for value in [json!(null), json!([]), json!("v1"), json!(1)] {
        assert_eq!(
            problems(&value),
            ["must be an object with apiVersion and kind"]
        );
    }
    assert_eq!(
        problems(&json!({})),
        ["apiVersion: is missing", "kind: is missing"]
    );
    assert_eq!(
        problems(&json!({"apiVersion": "v1", "kind": 5})),
        ["kind: must be a string"]
    );
}

#[test]
fn all_problems_of_a_policy_are_told_with_their_fields() {
    let spec = json!({
        "podSelector": {"matchExpressions": [{"key": "app", "operator": "Is"}]},
        "policyTypes": ["Ingress", "Both"],
        "ingress": [
            {"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/33"}}]},
            {"ports": [{"port": "HTTP"}, {"protocol": "ICMP"}, {"port": 80, "endPort": 8}, {"protocol": ""}]},
        ],
        "egress": [{"to": [{"ipBlock": {"cidr": ""}}, {"podSelector": {"matchLabels": {"a b": "c d"}}}]}],
    });
    let mut value = policy("shop/p", spec);
    value["metadata"] = json!({"namespace": "Shop", "labels": {"app": "-"}});
    assert_eq!(
        problem_fields(&value),
        [
            "metadata.namespace",
            "metadata.name",
            "metadata.labels.app",
            "spec.podSelector.matchExpressions[0].operator",
            "spec.ingress[0].from[0]",
            "spec.ingress[0].from[1].ipBlock.cidr",
            "spec.ingress[1].ports[0].port",
            "spec.ingress[1].ports[1].protocol",
            "spec.ingress[1].ports[2].endPort",
            "spec.ingress[1].ports[3].protocol",
            "spec.egress[0].to[0].ipBlock.cidr",
            "spec.egress[0].to[1].podSelector.matchLabels[\"a b\"]",
            "spec.egress[0].to[1].podSelector.matchLabels[\"a b\"]",
            "spec.policyTypes[1]",
        ]
    );
}

#[test]
fn wrong_types_are_all_told_and_beside_them_what_is_wrong_otherwise() {
    let spec = json!({
        "podSelector": "app=web",
        "ingress": [
            {"from": {"podSelector": {}}},
            {"ports": [{"port": 80.5}, {"port": 70000}, {"endPort": "90"}]},
            {"from": [{"podSelector": []}]},
        ],
        "egress": [{"to": [{"ipBlock": {"cidr": 10}}]}],
    });
    assert_eq!(
        problems(&policy("shop/p", spec)),
        [
            "spec.egress[0].to[0].ipBlock.cidr: must be a string, not the integer 10",
            "spec.ingress[0].from: must be a list, not an object",
            "spec.ingress[1].ports[0].port: must be an integer or a string, not the number 80.5",
            "spec.ingress[1].ports[2].endPort: must be an integer, not the string \"90\"",
            "spec.ingress[2].from[0].podSelector: must be an object, not a list",
            "spec.podSelector: must be an object, not the string \"app=web\"",
            "spec.ingress[1].ports[1].port: 70000: must be a port number between 1 and 65535",
        ]
    );
}

#[test]
fn unknown_fields_are_listed_and_change_nothing() {
    let spec = json!({"podSelector": {}, "ingres": [{}], "ingress": [{"form": [], "ports": [{"prot": "UDP"}]}]});
    let parsed = parse(&policy("shop/p", spec))
        .expect("valid")
        .expect("a policy");
    let unknown: Vec<String> = parsed
        .unknown_fields
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        unknown,
        [
            "spec.ingres",
            "spec.ingress[0].form",
            "spec.ingress[0].ports[0].prot"
        ]
    );
}

#[test]
fn a_missing_namespace_is_the_default_one_and_a_generated_name_its_prefix() {
    let mut value = policy("shop/p", json!({}));
    value["metadata"] = json!({"generateName": "deny-"});
    let policy = network_policy(&value);
    assert_eq!(
        (policy.namespace.as_str(), policy.name.as_str()),
        ("default", "deny-")
    );
    value["metadata"] = json!({"generateName": "Deny-", "namespace": ""});
    assert_eq!(problem_fields(&value), ["metadata.generateName"]);
    value["metadata"] = Value::Null;
    assert_eq!(problems(&value), ["metadata.name: is missing"]);
}

#[test]
fn a_policy_keeps_its_labels_and_annotations_but_not_the_copy_kubectl_makes() {
    let metadata = json!({"metadata": {
        "labels": {"team": "x"},
        "annotations": {"owner": "Someone", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }});
    let policy = network_policy(&patched(policy("shop/p", json!({})), metadata));
    assert_eq!(policy.labels.to_string(), "team=x");
    assert_eq!(policy.annotations.to_string(), "owner=Someone");
}

#[test]
fn a_running_pod_has_addresses_a_node_and_an_owner() {
    let more = json!({
        "metadata": {"ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Note", "name": "n", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "2", "controller": true},
        ]},
        "spec": {"nodeName": "n1"},
        "status": {"podIP": "10.0.0.1"},
    });
    let pod = read_pod(&patched(
        pod("shop/web", "app=web", ["10.0.0.1", "fd00::1"]),
        more,
    ));
    assert_eq!(
        pod.ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.1", "fd00::1"]
    );
    assert_eq!(
        pod.node.as_ref().map(crate::netpol::NodeName::as_str),
        Some("n1")
    );
    assert_eq!(pod.phase, Phase::Running);
    assert_eq!(pod.workload.kind, WorkloadKind::Pod);
    assert_eq!(
        pod.owner.expect("an owner").to_string(),
        "ReplicaSet shop/web-1"
    );
}

#[test]
fn a_pod_tells_what_is_wrong_with_its_ports_and_addresses() {
    let ports = json!([
        {"containerPort": 0},
        {"containerPort": 80, "name": "HTTP"},
        {"containerPort": 80, "protocol": "tcp"},
        {"containerPort": 80, "protocol": "", "name": ""},
    ]);
    let mut value = pod("shop/web", "app=web", ["10.0.0.1", "10.0.0"]);
    value["spec"]["initContainers"] = json!([{"name": "init", "ports": ports}]);
    assert_eq!(
        problem_fields(&value),
        [
            "spec.initContainers[0].ports[0].containerPort",
            "spec.initContainers[0].ports[1].name",
            "spec.initContainers[0].ports[2].protocol",
            "status.podIPs[1].ip",
        ]
    );
    let twice = pod("shop/web", "app=web", ["10.0.0.1", "fd00::1", "10.0.0.2"]);
    assert_eq!(
        problems(&twice),
        ["status.podIPs: may not list more than one address of a family"]
    );
}

#[test]
fn quantities_may_be_numbers_and_null_is_nothing() {
    let spec = json!({"spec": {"template": {"spec": {
        "hostNetwork": null,
        "containers": [{"name": "main", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "ports": null}],
    }}}});
    let mut value = patched(deployment("shop/web", "app=web"), spec);
    value["metadata"]["creationTimestamp"] = Value::Null;
    value["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    value["spec"]["template"]["metadata"]["labels"]["empty"] = Value::Null;
    let pod = read_pod(&value);
    assert_eq!(pod.labels.get("empty"), Some(""));
}

#[test]
fn a_service_defaults_its_target_and_type() {
    let spec = json!({
        "clusterIP": "None",
        "clusterIPs": ["None"],
        "selector": {},
        "ports": [{"port": 80}, {"port": 81, "targetPort": 0}, {"port": 82, "targetPort": ""}],
    });
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    let Object::Service(read) = read(&service) else {
        panic!("a service")
    };
    assert_eq!(
        (read.selector, read.service_type, read.cluster_ips.len()),
        (None, ServiceType::ClusterIP, 0)
    );
    assert!(
        read.ports
            .iter()
            .all(|port| port.target == crate::netpol::TargetPort::Number(port.port))
    );

    let wrong = json!({"spec": {
        "type": "Internal",
        "clusterIP": "10.96.0",
        "ports": [{"port": 0, "targetPort": "80", "protocol": "x"}, {"port": 1, "targetPort": -1}],
    }});
    assert_eq!(
        problem_fields(&patched(service, wrong)),
        [
            "spec.type",
            "spec.clusterIP",
            "spec.ports[0].protocol",
            "spec.ports[0].port",
            "spec.ports[0].targetPort",
            "spec.ports[1].targetPort"
        ]
    );
}

#[test]
fn a_namespace_has_its_name_as_a_label_whatever_it_says() {
    let labels = json!({"kubernetes.io/metadata.name": "other", "team": "x"});
    let Object::Namespace(read) = read(&namespace("shop", labels)) else {
        panic!("a namespace")
    };
    assert_eq!(
        read.labels.to_string(),
        "kubernetes.io/metadata.name=shop,team=x"
    );
    assert_eq!(
        problem_fields(&namespace("a.b", json!({}))),
        ["metadata.name"]
    );
}

/// Any JSON, with the words of the API more often than chance would have them.
fn any_json() -> impl Strategy<Value = Value> {
    let word = || {
        prop_oneof![
            4 => proptest::sample::select(vec![
                "apiVersion", "kind", "metadata", "name", "namespace", "labels", "spec", "status", "template",
                "podSelector", "matchLabels", "matchExpressions", "key", "operator", "values", "ingress", "egress",
                "from", "to", "ports", "port", "endPort", "protocol", "ipBlock", "cidr", "except", "policyTypes",
                "containers", "initContainers", "containerPort", "podIPs", "ip", "hostNetwork", "jobTemplate",
                "ownerReferences", "controller", "creationTimestamp", "targetPort", "clusterIPs", "managedFields",
                "In", "Exists", "TCP", "Ingress", "Egress", "10.0.0.0/8", "::/0", "10.0.0.1", "Running", "Always",
            ]).prop_map(str::to_owned),
            1 => "\\PC{0,12}",
        ]
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-10_i32..70_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((word(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// One valid object of each kind, with as many fields as the parser looks at.
fn valid_objects() -> Vec<Value> {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"namespaceSelector": {}, "podSelector": {}}],
                     "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "web"}]}],
        "egress": [{"to": [{"ipBlock": {"cidr": "::/0"}}], "ports": [{"protocol": "UDP"}]}],
    });
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
        "selector": {"app": "web"}, "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80, "targetPort": "web", "protocol": "TCP"}],
    }});
    let mut valid = vec![
        policy("shop/p", spec),
        namespace("shop", json!({"team": "x"})),
        pod("shop/web", "app=web", ["10.0.0.1", "fd00::1"]),
        service,
    ];
    valid.extend(WorkloadKind::ALL.map(templated));
    valid
}

/// The number of values in a value, itself included.
fn size(value: &Value) -> usize {
    let below: usize = match value {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(object) => object.values().map(size).sum(),
        _ => 0,
    };
    below + 1
}

/// Puts something else in the place of the nth value.
fn replace_nth(value: &mut Value, nth: &mut usize, by: &Value) {
    if *nth == 0 {
        *value = by.clone();
    }
    let Some(rest) = nth.checked_sub(1) else {
        *nth = usize::MAX;
        return;
    };
    *nth = rest;
    let below: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(object) => object.values_mut().collect(),
        _ => Vec::new(),
    };
    for one in below {
        if *nth != usize::MAX {
            replace_nth(one, nth, by);
        }
    }
}

/// Whatever is wrong, it is told with a place, and each place can be found or its parent can.
fn is_answered(value: &Value) -> Result<(), TestCaseError> {
    if let Err(error) = parse(value) {
        prop_assert!(!error.problems.is_empty());
        for problem in error.problems {
            prop_assert!(
                !problem.reason.is_empty() && !problem.reason.contains('\n'),
                "{}",
                problem
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_json_makes_the_parser_panic(value in any_json()) {
        is_answered(&value)?;
        for mut object in valid_objects() {
            for key in ["metadata", "spec", "status"] {
                object[key] = value.clone();
                is_answered(&object)?;
            }
        }
    }

    #[test]
    fn no_change_of_a_valid_object_makes_the_parser_panic(
        (mut object, at, by) in proptest::sample::select(valid_objects()).prop_flat_map(|object| {
            let values = size(&object);
            (Just(object), 0..values, any_json())
        })
    ) {
        prop_assert!(parse(&object).is_ok());
        replace_nth(&mut object, &mut at.clone(), &by);
        is_answered(&object)?;
    }
}
