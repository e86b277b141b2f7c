use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::*;

fn wrong<T: de::DeserializeOwned + std::fmt::Debug>(value: &Value) -> Vec<String> {
    let decoded: Decoded<T> = decode(value).expect("an object, with holes");
    decoded
        .wrong_types
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_correct_object_decodes_as_serde_decodes_it() {
    let value = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}},
        "spec": {
            "containers": [{
                "name": "main",
                "env": [{"name": "A", "value": "1"}],
                "livenessProbe": {"httpGet": {"port": "web"}, "periodSeconds": 5},
                "resources": {"limits": {"cpu": 0.5, "memory": "1Gi"}},
                "securityContext": {"privileged": true},
            }],
            "tolerations": [{"operator": "Exists"}],
        },
    });
    let decoded: Decoded<Pod> = decode(&value).expect("correct");
    assert_eq!(
        decoded.object,
        serde_json::from_value::<Pod>(value).expect("correct")
    );
    assert!(decoded.wrong_types.is_empty() && decoded.unknown_fields.is_empty());
}

#[test]
fn null_is_the_zero_value_of_its_field() {
    let value = json!({
        "metadata": {"name": null, "labels": {"a": null}, "finalizers": [null], "creationTimestamp": null},
        "spec": {"podSelector": null, "policyTypes": null, "ingress": [null, {"from": [null], "ports": null}]},
    });
    let decoded: Decoded<NetworkPolicy> = decode(&value).expect("nothing but zero values");
    let equal = json!({
        "metadata": {"labels": {"a": ""}, "finalizers": [""]},
        "spec": {"ingress": [{}, {"from": [{}]}]},
    });
    let mut equal = equal;
    equal["apiVersion"] = json!("networking.k8s.io/v1");
    equal["kind"] = json!("NetworkPolicy");
    assert_eq!(
        decoded.object,
        serde_json::from_value::<NetworkPolicy>(equal).expect("correct")
    );
    assert!(decoded.wrong_types.is_empty());
}

#[test]
fn wrong_types_say_what_was_wanted_and_what_was_found() {
    let value = json!({
        "metadata": {"labels": {"a": 1}, "creationTimestamp": "yesterday", "generation": 1e20},
        "spec": {
            "replicas": 3_000_000_000_u32,
            "paused": "no",
            "selector": 7,
            "template": {"spec": {"containers": [{"name": ["x"], "args": [true]}, "main"]}},
        },
    });
    let found = wrong::<Deployment>(&value);
    let (time, others) = found.split_first().expect("some");
    assert!(
        time.starts_with("metadata.creationTimestamp: is not valid: "),
        "{time}"
    );
    assert_eq!(
        others,
        [
            "metadata.generation: must be an integer, not the number 100000000000000000000",
            "metadata.labels.a: must be a string, not the integer 1",
            "spec.paused: must be a boolean, not the string \"no\"",
            "spec.replicas: the number 3000000000 does not fit",
            "spec.selector: must be an object, not the integer 7",
            "spec.template.spec.containers[0].args[0]: must be a string, not the boolean true",
            "spec.template.spec.containers[0].name: must be a string, not a list",
            "spec.template.spec.containers[1]: must be an object, not the string \"main\"",
        ]
    );
}

#[test]
fn the_kind_of_an_embedded_object_must_be_right() {
    let value = json!({"spec": {"volumeClaimTemplates": [{"kind": "Volume"}]}});
    let found = wrong::<k8s_openapi::api::apps::v1::StatefulSet>(&value);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("spec.volumeClaimTemplates[0]"),
        "{found:?}"
    );
}

#[test]
fn managed_fields_are_neither_read_nor_unknown() {
    let value = json!({"metadata": {"managedFields": [{"manager": 5}], "managedField": 1}, "managedFields": 1});
    let decoded: Decoded<Pod> = decode(&value).expect("correct");
    assert_eq!(decoded.object.metadata.managed_fields, None);
    let unknown: Vec<String> = decoded
        .unknown_fields
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(unknown, ["managedFields", "metadata.managedField"]);
}

#[test]
fn lists_of_problems_are_bounded() {
    let many: Map<String, Value> = (0..1000).map(|key| (key.to_string(), json!(1))).collect();
    let decoded: Decoded<Pod> = decode(&json!({"spec": many})).expect("unknown fields only");
    assert_eq!(decoded.unknown_fields.len(), MOST_UNKNOWN_FIELDS);
    let wrong =
        decode::<Pod>(&json!({"metadata": {"labels": many}})).expect_err("too many wrong types");
    assert_eq!(wrong.len(), MOST_WRONG_TYPES);
}
