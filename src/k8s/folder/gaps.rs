//! In which namespaces more may run than a folder says: those of objects of which controllers make pods that no kind known here
//! is, and all of them where a kustomization changes what is written.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Folder;
use super::doubts::runs_pods;
use crate::guard::review::Kind;
use crate::netpol::NamespaceName;
use crate::netpol::findings::Gaps;

/// Words that the specs of such objects have, by which their pods are made: a workload's, an operator's, a chart's.
const WORDS: [&str; 15] = [
    "replicas",
    "instances",
    "numberOfInstances",
    "members",
    "nodeSets",
    "workloadRef",
    "serviceAccountName",
    "podTemplate",
    "podMetadata",
    "containers",
    "container",
    "image",
    "tolerations",
    "chart",
    "chartRef",
];

/// Kinds that have such words and make none: they scale others, or look for images.
const OTHERS: [&str; 2] = ["ScaledObject", "ImageRepository"];

/// How deep below the spec they are looked for.
const DEEP: usize = 3;

/// Where an object says that what it makes goes, beside its own namespace. Who says it makes something.
const ELSEWHERE: [&str; 2] = ["/spec/targetNamespace", "/spec/destination/namespace"];

impl Folder {
    /// Where more may run than is known.
    pub fn gaps(&self) -> Gaps {
        if self.is_unbuilt {
            return Gaps::Everywhere;
        }
        let subjects = self.objects.iter().filter_map(|placed| {
            let subject = placed.review.object.as_ref()?;
            matches!(subject.parsed, Kind::Other).then_some(&subject.value)
        });
        let makers = subjects.filter(|value| makes_pods(value));
        let namespaces: BTreeSet<NamespaceName> = makers.flat_map(reached).collect();
        Gaps::In(namespaces)
    }
}

fn reached(value: &Value) -> impl Iterator<Item = NamespaceName> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let own = text("/metadata/namespace").unwrap_or("default");
    let elsewhere = ELSEWHERE.into_iter().filter_map(text);
    elsewhere.chain([own]).map(NamespaceName::from)
}

fn makes_pods(value: &Value) -> bool {
    let kind = value.get("kind").and_then(Value::as_str);
    let is_other = kind.is_some_and(|kind| OTHERS.contains(&kind));
    let goes_elsewhere = || ELSEWHERE.into_iter().any(|at| value.pointer(at).is_some());
    let has_word = || value.get("spec").is_some_and(|spec| has_word(spec, DEEP));
    !is_other && (runs_pods(value) || goes_elsewhere() || has_word())
}

fn has_word(value: &Value, deep: usize) -> bool {
    let Some(deeper) = deep.checked_sub(1) else {
        return false;
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .any(|(key, below)| WORDS.contains(&key.as_str()) || has_word(below, deeper)),
        Value::Array(items) => items.iter().any(|below| has_word(below, deeper)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_makes_pods_is_known_by_what_it_says_of_them() {
        let makers = [
            json!({"replicas": 2, "workloadRef": {}}),
            json!({"template": {"spec": {"containers": []}}}),
            json!({"template": {"spec": {"domain": {}}}}),
            json!({"kafka": {"replicas": 3}}),
            json!({"nodeSets": [{"podTemplate": {}}]}),
            json!({"serviceAccountName": "prometheus-k8s"}),
            json!({"chart": {"spec": {}}}),
            json!({"source": {"chart": "redis"}}),
            json!({"destination": {"namespace": "shop"}, "source": {"path": "shop"}}),
            json!({"targetNamespace": "shop", "path": "./shop"}),
            json!({"instances": 3}),
            json!({"templates": [{"container": {"command": []}}]}),
        ];
        for spec in makers {
            assert!(makes_pods(&json!({"spec": spec})), "{spec}");
        }
        let others = [
            json!({"endpoints": [{"port": "web"}], "selector": {}}),
            json!({"secretName": "tls", "dnsNames": ["a"]}),
            json!({"minReplicas": 1, "scaleTargetRef": {}}),
            json!({"a": {"b": {"c": {"replicas": 1}}}}),
        ];
        for spec in others {
            assert!(!makes_pods(&json!({"spec": spec})), "{spec}");
        }
        let scaler = json!({"kind": "ScaledObject", "spec": {"fallback": {"replicas": 6}}});
        assert!(!makes_pods(&scaler));
    }

    #[test]
    fn what_goes_elsewhere_is_a_gap_there() {
        let value = json!({
            "metadata": {"namespace": "flux"}, "spec": {"targetNamespace": "shop"},
        });
        let names: Vec<_> = reached(&value).map(|name| name.to_string()).collect();
        assert_eq!(names, ["shop", "flux"]);
    }
}
