//! What of an object is read at all. Large parts that nobody looks at are passed over on their way in, so that not even those
//! of one page of a list are ever held: of a pod as it runs they are nine tenths of what is watched, and half of what is judged.
//!
//! The same fields for all kinds, since none of them means anything to us in any kind that is watched.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What of a value is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    /// All of it.
    All,
    /// Nothing.
    Nothing,
    /// All fields but these, of which each is kept in its own way.
    But(&'static [(&'static str, Keep)]),
    /// Of each member of a list these fields.
    Only(&'static [&'static str]),
}

/// What of an object is judged that is there: who wrote which field nobody asks.
pub(super) const JUDGED: Keep = Keep::But(&[("metadata", Keep::But(&[WRITERS]))]);

/// What of an object is judged that is about to be: of those who wrote it their names.
pub(crate) const ASKED: Keep = Keep::But(&[(
    "metadata",
    Keep::But(&[("managedFields", Keep::Only(&["manager"]))]),
)]);

/// What of an object means something to the checks.
pub(super) const WATCHED: Keep = Keep::But(&[
    (
        "metadata",
        Keep::But(&[
            WRITERS,
            (
                "annotations",
                // A second copy of the object.
                Keep::But(&[(
                    "kubectl.kubernetes.io/last-applied-configuration",
                    Keep::Nothing,
                )]),
            ),
        ]),
    ),
    ("spec", Keep::But(&SPEC)),
    ("status", Keep::But(&STATUS)),
]);

const WRITERS: (&str, Keep) = ("managedFields", Keep::Nothing);

/// What a container's ports mean hangs on these.
const CONTAINER: Keep = Keep::Only(&["name", "ports", "restartPolicy"]);

const SPEC: [(&str, Keep); 7] = [
    ("containers", CONTAINER),
    ("initContainers", CONTAINER),
    ("ephemeralContainers", Keep::Nothing),
    ("volumes", Keep::Nothing),
    ("affinity", Keep::Nothing),
    ("tolerations", Keep::Nothing),
    ("topologySpreadConstraints", Keep::Nothing),
];

const STATUS: [(&str, Keep); 6] = [
    ("containerStatuses", Keep::Nothing),
    ("initContainerStatuses", Keep::Nothing),
    ("ephemeralContainerStatuses", Keep::Nothing),
    ("images", Keep::Nothing),
    ("volumesAttached", Keep::Nothing),
    ("volumesInUse", Keep::Nothing),
];

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Self::All => Value::deserialize(deserializer),
            Self::Nothing => IgnoredAny::deserialize(deserializer).map(|_| Value::Null),
            Self::But(_) | Self::Only(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Keep {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(field) = fields.next_key::<String>()? {
            match self.of_field(&field) {
                Self::Nothing => {
                    fields.next_value::<IgnoredAny>()?;
                }
                keep => {
                    let value = fields.next_value_seed(keep)?;
                    kept.insert(field, value);
                }
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(member) = members.next_element_seed(self.of_member())? {
            kept.push(member);
        }
        Ok(Value::Array(kept))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

// === impl Keep ===

impl Keep {
    fn of_field(self, field: &str) -> Self {
        match self {
            Self::But(fields) => {
                let mut fields = fields.iter();
                fields
                    .find(|(name, _)| *name == field)
                    .map_or(Self::All, |(_, keep)| *keep)
            }
            Self::Only(fields) if !fields.contains(&field) => Self::Nothing,
            Self::All | Self::Nothing | Self::Only(_) => Self::All,
        }
    }

    fn of_member(self) -> Self {
        match self {
            Self::Only(_) => self,
            Self::All | Self::Nothing | Self::But(_) => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn trimmed(text: &str) -> Value {
        WATCHED
            .deserialize(&mut serde_json::Deserializer::from_str(text))
            .unwrap()
    }

    #[test]
    fn what_is_large_and_means_nothing_here_is_left_out_and_all_else_is_as_it_was() {
        let container =
            json!({"name": "main", "ports": [{"containerPort": 80}], "env": [{"name": "A"}]});
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "other": [null, true, -1, 2.5, {"images": 7}],
            "metadata": {
                "name": "web", "managedFields": [{}], "labels": {"managedFields": "mine"},
                "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
            },
            "spec": {
                "containers": [container], "initContainers": [{"restartPolicy": "Always", "image": "x"}],
                "volumes": [{"name": "tmp"}], "hostNetwork": true, "overhead": null,
            },
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [{}]},
        });
        let kept = json!({
            "apiVersion": "v1", "kind": "Pod", "other": [null, true, -1, 2.5, {"images": 7}],
            "metadata": {
                "name": "web", "labels": {"managedFields": "mine"}, "annotations": {"a": "b"},
            },
            "spec": {
                "containers": [{"name": "main", "ports": [{"containerPort": 80}]}],
                "initContainers": [{"restartPolicy": "Always"}], "hostNetwork": true, "overhead": null,
            },
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        assert_eq!(trimmed(&value.to_string()), kept);
        assert_eq!(
            trimmed(r#"{"spec": null, "status": "odd"}"#),
            json!({"spec": null, "status": "odd"})
        );
    }

    #[test]
    fn what_is_judged_is_all_but_who_wrote_it() {
        let judged = |value: &Value| JUDGED.deserialize(value).unwrap();
        let mut value = json!({
            "metadata": {"name": "web", "managedFields": [{}], "annotations": {"a": "b"}},
            "spec": {"containers": [{"image": "x"}]},
        });
        let all = judged(&value);
        value["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        assert_eq!(all, value);
    }

    #[test]
    fn what_is_asked_is_all_but_what_they_wrote_who_wrote_it() {
        let mut value = json!({
            "metadata": {"name": "web", "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}},
                {"operation": "Update"}, null, [5],
            ]},
            "spec": {"managedFields": [{"operation": "Update"}]},
        });
        let asked = ASKED.deserialize(&value).unwrap();
        value["metadata"]["managedFields"] = json!([{"manager": "kubectl"}, {}, null, [5]]);
        assert_eq!(asked, value);
    }

    #[test]
    fn nothing_that_kinds_of_ours_have_is_left_out() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            count += usize::from(text.contains("kind: CustomResourceDefinition"));
            for (name, _) in SPEC.iter().chain(&STATUS) {
                assert!(!text.contains(&format!(" {name}:\n")), "{name}");
            }
        }
        assert_eq!(count, 5);
    }
}
