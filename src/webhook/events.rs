//! What of a decision is worth an Event: each check that refused the change, or would in mode `Enforce`.
//!
//! An Event is about what its reader has at hand. Of a pod that a controller makes that is the controller: it is there when
//! the pod was refused, and a hundred replicas have one. Of an object that was refused when it was to be made there is no
//! uid, since it never was.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::Value;

use crate::guard::decide::{Decision, Judged};
use crate::guard::mode::Mode;
use crate::guard::registry;
use crate::guard::review::{Operation, Review};
use crate::k8s::events::{CHECK, GUARDRAILS, MODE, Notice, REFUSED, WOULD_REFUSE, Weight};

/// More checks than these of one change are not told.
const MOST_CHECKS: usize = 8;

/// What is to be told of a review that was judged.
pub(super) fn notices(review: &Review, decision: &Decision) -> Vec<Notice> {
    if review.dry_run || decision.unrefusable {
        return Vec::new();
    }
    let refused = decision
        .in_force(Mode::Enforce)
        .map(|judged| (REFUSED, judged));
    let would_be = decision.would_deny().filter(|judged| {
        // Whom nobody governs nobody would refuse.
        decision.strictest.is_some() || judged.finding.id.as_str() != registry::INVALID.id
    });
    let all = refused.chain(would_be.map(|judged| (WOULD_REFUSE, judged)));
    let mut notices: Vec<Notice> = Vec::new();
    let mut about = None;
    for (reason, judged) in all {
        let (regarding, key) = about.get_or_insert_with(|| about_what(review, decision.allowed()));
        let notice = notice(review, regarding, key, reason, judged);
        if !notices.iter().any(|known| known.key == notice.key) {
            notices.push(notice);
        }
        if notices.len() >= MOST_CHECKS {
            break;
        }
    }
    notices
}

fn notice(
    review: &Review,
    regarding: &ObjectReference,
    key: &str,
    reason: &'static str,
    judged: &Judged,
) -> Notice {
    let finding = &judged.finding;
    let (id, mode) = (finding.id.as_str(), judged.mode.as_str());
    let guardrails = judged.guardrails.join(",");
    let mut note = format!("{id}: {}", finding.message);
    if let Some(fix) = &finding.fix {
        note = format!("{note}. Fix: {}", fix.summary);
    }
    let annotations = [(CHECK, id), (MODE, mode), (GUARDRAILS, &guardrails)];
    Notice {
        regarding: regarding.clone(),
        weight: Weight::Warning,
        reason,
        action: match review.operation {
            Operation::Create => "Create",
            Operation::Update => "Update",
            Operation::Delete => "Delete",
            Operation::Connect => "Connect",
        },
        note,
        key: format!("{key} {reason} {id} {mode} {guardrails}"),
        annotations: annotations
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// The object that an Event is about, and by what it is known again.
fn about_what(review: &Review, allowed: bool) -> (ObjectReference, String) {
    let object = review.object_ref();
    let value = review.subject().map(|subject| &subject.value);
    let is_new = review.operation == Operation::Create;
    // A namespace that is not there yet can hold no Event.
    let namespace = match review.kind.as_str() {
        "Namespace" if is_new => None,
        _ => review
            .namespace
            .as_ref()
            .map(|name| name.as_str().to_owned()),
    };
    if let Some(owner) = value.and_then(controller).filter(|_| namespace.is_some()) {
        let regarding = ObjectReference { namespace, ..owner };
        let key = key(
            &regarding,
            regarding.name.as_deref(),
            regarding.uid.as_deref(),
        );
        return (regarding, key);
    }
    let text = |at: &str| value?.pointer(at)?.as_str().filter(|text| !text.is_empty());
    let prefix = text("/metadata/generateName").filter(|_| is_new);
    let regarding = ObjectReference {
        api_version: Some(object.api_version),
        kind: Some(object.kind),
        namespace,
        // The name that the API server has made up for it was never seen by anybody.
        name: Some(match prefix {
            Some(prefix) if !allowed => format!("{prefix}*"),
            Some(_) | None => object.name,
        }),
        uid: text("/metadata/uid")
            .filter(|_| allowed || !is_new)
            .map(str::to_owned),
        ..ObjectReference::default()
    };
    // Each object of one template has another name and uid.
    let key = match prefix {
        Some(prefix) => key(&regarding, Some(prefix), None),
        None => key(
            &regarding,
            regarding.name.as_deref(),
            regarding.uid.as_deref(),
        ),
    };
    (regarding, key)
}

fn key(regarding: &ObjectReference, name: Option<&str>, uid: Option<&str>) -> String {
    let [namespace, kind] =
        [&regarding.namespace, &regarding.kind].map(|part| part.as_deref().unwrap_or_default());
    let [name, uid] = [name, uid].map(Option::unwrap_or_default);
    format!("{namespace} {kind} {name} {uid}")
}

/// The controller that made an object. That of a static pod is a Node, which is in no namespace.
fn controller(object: &Value) -> Option<ObjectReference> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let text = |field: &str| owner.get(field)?.as_str().map(str::to_owned);
    let reference = ObjectReference {
        api_version: text("apiVersion"),
        kind: text("kind"),
        name: text("name"),
        uid: text("uid"),
        ..ObjectReference::default()
    };
    (reference.kind.as_deref() != Some("Node")).then_some(reference)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::guard::engine::Level;
    use crate::guard::finding::{Finding, FindingId, Fix, Severity};
    use crate::guard::review::Subject;
    use crate::netpol::FieldPath;

    fn review(operation: Operation, metadata: &Value) -> Review {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop"}});
        let fields = pod["metadata"].as_object_mut().unwrap();
        fields.extend(metadata.as_object().unwrap().clone());
        Review::made_of(operation, Some(Subject::new(pod)), None)
    }

    fn decision(modes: &[(&str, Mode)]) -> Decision {
        let judged = modes.iter().map(|(id, mode)| Judged {
            finding: Finding {
                id: FindingId::from(*id),
                severity: Severity::High,
                object: Review::of_manifest(json!({})).object_ref(),
                field: FieldPath::root(),
                message: "nothing isolates it".to_owned(),
                why: String::new(),
                fix: Some(Fix::words("add a default-deny")),
            },
            section: None,
            level: Level::Deny,
            mode: *mode,
            guardrails: vec!["prod".to_owned()],
            exemption: None,
        });
        Decision {
            judged: judged.collect(),
            strictest: modes.iter().map(|(_, mode)| *mode).max(),
            ..Decision::default()
        }
    }

    const METADATA: fn() -> Value = || json!({"name": "web", "uid": "1"});

    #[test]
    fn each_check_is_told_once_with_its_fix_and_for_programs() {
        let review = review(Operation::Create, &METADATA());
        let told = notices(
            &review,
            &decision(&[
                ("RF201", Mode::Enforce),
                ("RF201", Mode::Enforce),
                ("RF404", Mode::Audit),
            ]),
        );
        let [refused, would] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((refused.reason, would.reason), (REFUSED, WOULD_REFUSE));
        assert_eq!(
            refused.note,
            "RF201: nothing isolates it. Fix: add a default-deny"
        );
        assert_eq!(refused.annotations[CHECK], "RF201");
        assert_eq!(refused.annotations[GUARDRAILS], "prod");
        assert_eq!(would.annotations[MODE], "Audit");
        assert_ne!(refused.key, would.key);
    }

    #[test]
    fn what_was_never_made_has_no_uid_and_what_is_there_has_one() {
        let about = |operation, metadata: &Value, mode| {
            let notice = &notices(&review(operation, metadata), &decision(&[("RF201", mode)]))[0];
            let regarding = notice.regarding.clone();
            (regarding.name.unwrap(), regarding.uid)
        };
        let web = |uid: Option<&str>| ("web".to_owned(), uid.map(str::to_owned));
        let (create, update) = (Operation::Create, Operation::Update);
        assert_eq!(about(create, &METADATA(), Mode::Enforce), web(None));
        assert_eq!(about(create, &METADATA(), Mode::Warn), web(Some("1")));
        assert_eq!(about(update, &METADATA(), Mode::Enforce), web(Some("1")));
        let generated = json!({"name": "web-x1", "generateName": "web-", "uid": "1"});
        assert_eq!(about(create, &generated, Mode::Enforce).0, "web-*");
        assert_eq!(about(create, &generated, Mode::Audit).0, "web-x1");
    }

    #[test]
    fn replicas_have_one_event_which_is_about_their_controller() {
        let owner = |kind: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "web-5d", "uid": "9", "controller": true}]);
        let one = |number: u8, kind: &str| {
            let metadata = json!({
                "name": format!("web-5d-{number}"), "uid": number.to_string(), "generateName": "web-5d-",
                "ownerReferences": owner(kind)
            });
            let review = review(Operation::Create, &metadata);
            notices(&review, &decision(&[("RF201", Mode::Enforce)])).remove(0)
        };
        let (first, second) = (one(1, "ReplicaSet"), one(2, "ReplicaSet"));
        assert_eq!(first, second);
        assert_eq!(first.regarding.name.as_deref(), Some("web-5d"));
        assert_eq!(first.regarding.uid.as_deref(), Some("9"));
        // A Node is in no namespace, and an Event is in that of its object.
        let regarding = one(1, "Node").regarding;
        assert_eq!(regarding.kind.as_deref(), Some("Pod"));
    }

    #[test]
    fn a_namespace_holds_its_events_once_it_is_there() {
        let namespace = |operation| {
            let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "1"}});
            let review = Review::made_of(operation, Some(Subject::new(value)), None);
            notices(&review, &decision(&[("RF101", Mode::Enforce)]))[0]
                .regarding
                .namespace
                .clone()
        };
        assert_eq!(namespace(Operation::Create), None);
        assert_eq!(namespace(Operation::Update).as_deref(), Some("shop"));
    }

    #[test]
    fn dry_runs_and_what_no_mode_would_refuse_are_not_told() {
        let found = decision(&[("RF201", Mode::Audit)]);
        let mut dry = review(Operation::Create, &METADATA());
        assert_eq!(notices(&dry, &found).len(), 1);
        dry.dry_run = true;
        assert_eq!(notices(&dry, &found), []);
        let mirror = Decision {
            unrefusable: true,
            ..found.clone()
        };
        let review = review(Operation::Create, &METADATA());
        assert_eq!(notices(&review, &mirror), []);
        let mut warned = found;
        warned.judged[0].level = Level::Warn;
        assert_eq!(notices(&review, &warned), []);
    }
}
