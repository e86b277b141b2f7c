//! What is read of reviews, good and bad.

use serde_json::{Value, json};

use super::*;
use crate::guard::gitops;

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}, "spec": {}})
}

fn review(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "web", "namespace": "shop", "operation": "CREATE",
            "userInfo": {"username": "jane", "groups": ["system:authenticated"], "extra": {"a": ["b"]}},
            "object": pod("web"), "oldObject": null, "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"}
        }
    });
    change(&mut review);
    serde_json::to_vec(&review).unwrap()
}

fn read(body: &[u8]) -> Result<Review, Refusal> {
    Envelope::read(body)?.review()
}

/// The reason of a refusal that is addressed to the request's uid.
fn answerable(body: &[u8]) -> String {
    match read(body).unwrap_err() {
        Refusal::Answerable { uid, reason, .. } => {
            assert_eq!(uid, "705ab4f5-6393-11e8-b7cc-42010a800002");
            reason
        }
        Refusal::Nobody(reason) => panic!("nobody to answer: {reason}"),
    }
}

fn nobody(body: &[u8]) -> String {
    match read(body).unwrap_err() {
        Refusal::Nobody(reason) => reason,
        Refusal::Answerable { reason, .. } => panic!("answerable: {reason}"),
    }
}

#[test]
fn a_create_carries_the_object_alone() {
    let review = read(&review(|_| {})).unwrap();
    assert_eq!(review.operation, Operation::Create);
    assert_eq!(review.origin, Origin::Admission);
    assert_eq!(
        review.namespace.as_ref().map(NamespaceName::as_str),
        Some("shop")
    );
    assert_eq!((review.kind.as_str(), review.name.as_str()), ("Pod", "web"));
    assert_eq!(review.object.unwrap().value, pod("web"));
    assert!(review.old_object.is_none() && review.subresource.is_none() && !review.dry_run);
    assert_eq!(review.user.groups, ["system:authenticated"]);
}

#[test]
fn a_delete_is_read_from_the_old_object() {
    let body = review(|review| {
        review["request"]["operation"] = json!("DELETE");
        review["request"]["object"] = Value::Null;
        review["request"]["oldObject"] = pod("web");
    });
    let review = read(&body).unwrap();
    assert!(review.object.is_none());
    assert_eq!(review.old_object.unwrap().value, pod("web"));
}

#[test]
fn an_object_where_the_operation_has_none_is_refused_or_left_out() {
    for (operation, object, old_object, reason) in [
        (
            "DELETE",
            true,
            false,
            "a request to DELETE carries oldObject",
        ),
        ("CREATE", false, true, "a request to CREATE carries object"),
        (
            "UPDATE",
            true,
            false,
            "a request to UPDATE carries oldObject",
        ),
        ("UPDATE", false, true, "a request to UPDATE carries object"),
    ] {
        let body = review(|review| {
            review["request"]["operation"] = json!(operation);
            review["request"]["object"] = if object { pod("web") } else { Value::Null };
            review["request"]["oldObject"] = if old_object { pod("web") } else { Value::Null };
        });
        let said = answerable(&body);
        assert!(said.starts_with(reason), "{operation}: {said}");
    }
    let both = review(|review| {
        review["request"]["operation"] = json!("DELETE");
        review["request"]["oldObject"] = pod("web");
    });
    assert!(read(&both).unwrap().object.is_none());
}

#[test]
fn a_connect_has_options_of_another_kind_for_an_object() {
    let body = review(|review| {
        review["request"]["operation"] = json!("CONNECT");
        review["request"]["kind"]["kind"] = json!("PodExecOptions");
        review["request"]["subResource"] = json!("exec");
        review["request"]["object"] =
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["sh"]});
    });
    let review = read(&body).unwrap();
    assert_eq!(review.subresource.as_deref(), Some("exec"));
    assert!(review.object.is_none() && review.old_object.is_none());
}

#[test]
fn a_generated_name_is_empty_and_not_an_error() {
    let body = review(|review| {
        review["request"]["name"] = json!("");
        review["request"]["object"]["metadata"] =
            json!({"generateName": "web-", "namespace": "shop"});
    });
    let review = read(&body).unwrap();
    assert_eq!(review.name, "");
    assert_eq!(review.object_ref().name, "web-*");
}

#[test]
fn a_namespace_is_in_itself() {
    for name in [json!("shop"), Value::Null] {
        let body = review(|review| {
            review["request"]["kind"]["kind"] = json!("Namespace");
            review["request"]["name"] = name.clone();
            review["request"]["namespace"] = json!("elsewhere");
            review["request"]["object"] =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        });
        let review = read(&body).unwrap();
        assert_eq!(
            review.namespace.as_ref().map(NamespaceName::as_str),
            Some("shop")
        );
        assert!(
            review
                .object
                .unwrap()
                .value
                .pointer("/metadata/namespace")
                .is_none()
        );
    }
}

#[test]
fn what_only_the_request_says_is_filled_in_and_a_contradiction_is_refused() {
    let body = review(|review| {
        review["request"]["object"] = json!({"metadata": {"name": "web"}, "spec": {}});
    });
    assert_eq!(read(&body).unwrap().object.unwrap().value, pod("web"));
    let body = review(|review| review["request"]["object"]["kind"] = json!("ConfigMap"));
    assert_eq!(
        answerable(&body),
        r#"request.object has kind "ConfigMap", and request.kind says "Pod""#
    );
    let body = review(|review| review["request"]["object"]["apiVersion"] = json!(7));
    assert!(answerable(&body).contains("apiVersion"));
    let body = review(|review| review["request"]["object"] = json!([1]));
    assert_eq!(answerable(&body), "request.object is not a JSON object");
}

#[test]
fn an_object_of_a_converted_kind_is_read_as_the_kind_it_was_converted_to() {
    let body = review(|review| {
        review["request"]["kind"] = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
        review["request"]["requestKind"] =
            json!({"group": "extensions", "version": "v1beta1", "kind": "Deployment"});
        review["request"]["object"] =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    });
    let review = read(&body).unwrap();
    assert_eq!(
        (
            review.kind_version.group.as_str(),
            review.kind_version.version.as_str()
        ),
        ("apps", "v1")
    );
}

#[test]
fn an_unknown_kind_of_object_is_read_like_any_other() {
    let body = review(|review| {
        review["request"]["kind"] = json!({"group": "acme.io", "version": "v7", "kind": "Widget"});
        review["request"]["object"] =
            json!({"apiVersion": "acme.io/v7", "kind": "Widget", "metadata": {"name": "w"}});
    });
    assert_eq!(read(&body).unwrap().kind, "Widget");
}

#[test]
fn a_review_that_can_be_answered_is_answered_with_what_is_wrong() {
    for (change, reason) in [
        (
            (|r| r["apiVersion"] = json!("admission.k8s.io/v1beta1")) as fn(&mut Value),
            "v1beta1 is not spoken here",
        ),
        (
            |r| r["apiVersion"] = json!("admission.k8s.io/v3"),
            r#"got "admission.k8s.io/v3""#,
        ),
        (
            |r| drop(r.as_object_mut().unwrap().remove("apiVersion")),
            "got none",
        ),
        (
            |r| r["kind"] = json!("Pod"),
            r#"expected kind AdmissionReview, got "Pod""#,
        ),
        (
            |r| r["request"]["operation"] = json!("PATCH"),
            r#"unknown operation "PATCH""#,
        ),
        (
            |r| r["request"]["operation"] = json!(5),
            "request.operation is not as an AdmissionReview has it",
        ),
        (
            |r| r["request"]["kind"] = json!("Pod"),
            "request.kind is not as an AdmissionReview has it",
        ),
        (
            |r| r["request"]["kind"] = json!({}),
            "the request names no kind",
        ),
        (
            |r| r["request"]["userInfo"]["groups"] = json!("admins"),
            "request.userInfo.groups is not as",
        ),
        (
            |r| r["request"]["dryRun"] = json!("yes"),
            "request.dryRun is not as",
        ),
    ] {
        let said = answerable(&review(change));
        assert!(said.contains(reason), "{said}");
    }
    let Refusal::Answerable { version, .. } = read(&review(|r| {
        r["apiVersion"] = json!("admission.k8s.io/v1beta1");
    }))
    .unwrap_err() else {
        panic!()
    };
    assert_eq!(
        version,
        Version::V1Beta1,
        "answered in the words of the caller"
    );
}

#[test]
fn a_review_without_anybody_to_answer_is_told_so_in_a_sentence() {
    for (change, reason) in [
        (
            (|r| drop(r.as_object_mut().unwrap().remove("request"))) as fn(&mut Value),
            "has no request",
        ),
        (|r| r["request"] = Value::Null, "has no request"),
        (
            |r| r["request"] = json!("x"),
            "request is not as an AdmissionReview has it",
        ),
        (|r| r["request"]["uid"] = json!(""), "has no uid"),
        (
            |r| drop(r["request"].as_object_mut().unwrap().remove("uid")),
            "has no uid",
        ),
        (|r| r["request"]["uid"] = json!(7), "request.uid is not as"),
        (
            |r| r["request"]["uid"] = json!("x".repeat(300)),
            "longer than 256 bytes",
        ),
    ] {
        let said = nobody(&review(change));
        assert!(said.contains(reason), "{said}");
    }
    let whole = review(|_| {});
    assert!(
        nobody(&whole[..whole.len() / 2]).starts_with("the body is not JSON: EOF while parsing")
    );
    assert!(nobody(b"").starts_with("the body is not JSON"));
    assert!(nobody(b"kind: AdmissionReview").starts_with("the body is not JSON"));
    assert!(nobody(b"[]").starts_with("the AdmissionReview is not as"));
    assert_eq!(
        nobody(b"{\"kind\": \"\xff\"}"),
        "the body is not UTF-8 at byte 10"
    );
}

#[test]
fn deep_nesting_is_refused_with_its_limit_and_no_stack() {
    for depth in [200, 200_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body =
            String::from_utf8(review(|r| r["request"]["object"]["spec"] = json!("DEEP"))).unwrap();
        let said = answerable(body.replace("\"DEEP\"", &deep).as_bytes());
        assert_eq!(
            said,
            "request.object is nested more than 127 levels deep, and nothing so deep is read"
        );
        // In a place that nobody reads it is no harm.
        let body = String::from_utf8(review(|r| r["request"]["options"] = json!("DEEP"))).unwrap();
        assert!(read(body.replace("\"DEEP\"", &deep).as_bytes()).is_ok());
    }
}

#[test]
fn a_field_given_twice_is_refused() {
    let body = String::from_utf8(review(|_| {})).unwrap();
    let twice = body.replacen(
        "\"operation\":",
        "\"operation\":\"DELETE\",\"operation\":",
        1,
    );
    assert!(
        answerable(twice.as_bytes()).contains("duplicate field"),
        "{}",
        answerable(twice.as_bytes())
    );
}

#[test]
fn who_wrote_an_object_is_read_and_not_what_they_wrote() {
    let deep = |levels: usize| {
        let wrap = |inner, _| json!({"f:spec": inner});
        (0..levels).fold(json!({}), wrap)
    };
    let body = |levels: usize| {
        review(|r| {
            r["request"]["object"]["metadata"]["managedFields"] =
                json!([{"manager": "argocd-controller", "fieldsV1": deep(levels)}]);
        })
    };
    for levels in [3, 300] {
        let subject = read(&body(levels)).unwrap().object.unwrap();
        assert_eq!(gitops::keeper(&subject), Some(gitops::Tool::ArgoCd));
        assert_eq!(
            subject.value["metadata"]["managedFields"],
            json!([{"manager": "argocd-controller"}])
        );
    }
}

#[test]
fn what_follows_the_review_is_refused() {
    let mut body = review(|_| {});
    body.extend_from_slice(b"{}");
    assert!(
        nobody(&body).contains("trailing characters") || nobody(&body).contains("goes on after")
    );
}

#[test]
fn somebody_elses_words_are_quoted_without_what_moves_a_cursor() {
    let said = answerable(&review(|r| {
        r["request"]["operation"] = json!("\u{1b}[2Jx\n".repeat(100));
    }));
    assert!(
        !said.contains('\u{1b}') && !said.contains('\n') && said.len() < 400,
        "{said}"
    );
}

#[test]
fn requests_of_one_kind_in_one_namespace_share_a_lane() {
    let (one, same) = (
        review(|_| {}),
        review(|r| r["request"]["name"] = json!("other")),
    );
    let other = review(|r| r["request"]["namespace"] = json!("bank"));
    let lane = |body: &[u8]| Envelope::read(body).unwrap().lane();
    assert_eq!(lane(&one), lane(&same));
    assert_ne!(lane(&one), lane(&other));
}
