//! What each fuzz target does with its bytes, and what must hold whatever they are.
//!
//! The targets in `targets/` run these under libFuzzer; `tests/corpus.rs` runs them over the kept inputs and mutations of
//! them in every `cargo test`. A panic is a finding.

use std::sync::{Arc, LazyLock};

use ringfence::agent::heard::{self, Heard};
use ringfence::agent::nft::Part;
use ringfence::guard::decide::{self, State};
use ringfence::guard::engine::Budget;
use ringfence::guard::exemption::{Exemption, Exemptions};
use ringfence::guard::guardrail::{Guardrail, Guardrails};
use ringfence::guard::mutate::mutate;
use ringfence::guard::reachability::ReachabilityRules;
use ringfence::guard::review::{Operation, Review, Subject};
use ringfence::k8s::yaml::{self, Limits, Text};
use ringfence::netpol::field::{FieldPath, Segment};
use ringfence::netpol::{self, Direction, Endpoint, Flow, Object, Port, Protocol, Snapshot};
use ringfence::rego::{PolicySet, RegoEngine};
use ringfence::webhook::review::{Envelope, Refusal};
use serde_json::{Value, json};

/// What a target does with some bytes.
type Target = fn(&[u8]);

/// The names of the targets and what each does.
pub(crate) const TARGETS: [(&str, Target); 5] = [
    ("review", review),
    ("manifest", manifest),
    ("policy", policy),
    ("guardrail", guardrail),
    ("netlink", netlink),
];

const BUDGET: Budget = Budget {
    deadline: None,
    pods: 100,
};

/// An AdmissionReview as bytes: it is refused in words or judged, and mutating twice is mutating once.
pub(crate) fn review(bytes: &[u8]) {
    let envelope = match Envelope::read(bytes) {
        Ok(envelope) => envelope,
        Err(Refusal::Nobody(reason) | Refusal::Answerable { reason, .. }) => {
            return assert!(!reason.is_empty(), "a refusal gives a reason");
        }
    };
    let _ = envelope.lane();
    let Ok(review) = envelope.review() else {
        return;
    };
    judge(&review, &CLUSTER);
}

/// A manifest as bytes: it is read or its faults are named, and every field of what is read has a place in the text.
pub(crate) fn manifest(bytes: &[u8]) {
    let Ok(text) = Text::from_bytes("input", bytes.to_vec()) else {
        return;
    };
    let text = Arc::new(text);
    let limits = Limits {
        bytes: 1 << 20,
        values: 20_000,
        aliased: 2_000,
        depth: 64,
    };
    let reading = yaml::read(&text, &limits);
    for document in reading.documents {
        assert!(!document.value.is_null(), "an empty document is none");
        let mut fields = Vec::new();
        each_field(&document.value, &FieldPath::root(), &mut fields);
        for field in fields {
            let place = document.places.place(&field);
            assert!(
                text.line(place.line).is_some(),
                "{field} stands outside of the text: {place:?}"
            );
        }
        let subject = Subject::new(document.value);
        if let Some(object) = subject.model() {
            let _ = CLUSTER.snapshot.with(object.clone());
        }
        judge(
            &Review::made_of(Operation::Create, Some(subject), None),
            &CLUSTER,
        );
    }
}

/// An object of Kubernetes as JSON: it parses or its problems are named by fields, and what it does to a cluster can be
/// asked in every way.
pub(crate) fn policy(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let object = match netpol::parse(&value) {
        Ok(Some(parsed)) => parsed.object,
        Ok(None) => return,
        Err(error) => return assert!(!error.problems.is_empty(), "an error names its problems"),
    };
    let before = &CLUSTER.snapshot;
    let after = before.with(object.clone());
    assert_eq!(
        after,
        after.with(object.clone()),
        "putting it in twice is putting it in once"
    );
    if let Object::NetworkPolicy(policy) = &object {
        // An added policy isolates more, and never takes an isolation away.
        for pod in before.pods() {
            for direction in [Direction::Ingress, Direction::Egress] {
                let (was, is) = (before.pod_coverage(pod), after.pod_coverage(pod));
                let replaced = before.policy(&policy.reference()).is_some();
                assert!(replaced || !was.covered(direction) || is.covered(direction));
                assert!(!policy.isolates_pod(pod, direction) || is.covered(direction));
            }
        }
    }
    let pods: Vec<_> = after.pods().take(12).cloned().collect();
    let world = Endpoint::External([203, 0, 113, 9].into());
    let ends: Vec<Endpoint<'_>> = pods.iter().map(Endpoint::Pod).chain([world]).collect();
    for from in &ends {
        for to in &ends {
            for (protocol, port) in [
                (Protocol::Tcp, 8080),
                (Protocol::Udp, 53),
                (Protocol::Sctp, 65_535),
            ] {
                let Some(port) = Port::new(port) else {
                    continue;
                };
                let verdict = after.verdict(&Flow::new(*from, *to, protocol, port));
                assert!(!verdict.to_string().is_empty());
                assert_eq!(
                    verdict.allowed(),
                    verdict.egress.passes() && verdict.ingress.passes()
                );
            }
        }
    }
    let gone = after.without(&object.key());
    assert_eq!(gone, gone.without(&object.key()));
}

/// A Guardrail or an Exemption as JSON: it parses or its problems are named, it survives being written and read again,
/// and everything can be judged by it.
pub(crate) fn guardrail(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    if let Ok(exemption) = Exemption::parse(&value) {
        let mut again = value.clone();
        again["spec"] = json!(exemption.spec);
        assert_eq!(
            Exemption::parse(&again).map_err(|error| error.to_string()),
            Ok(exemption)
        );
    }
    let guardrail = match Guardrail::parse(&value) {
        Ok(guardrail) => guardrail,
        Err(error) => return assert!(!error.problems.is_empty(), "an error names its problems"),
    };
    let mut again = value.clone();
    again["spec"] = json!(guardrail.spec);
    let again = Guardrail::parse(&again).map_err(|error| error.to_string());
    assert_eq!(again.map(|again| again.spec), Ok(guardrail.spec.clone()));
    let state = State {
        guardrails: Guardrails::new(vec![guardrail]),
        ..CLUSTER.clone()
    };
    for object in &*OBJECTS {
        let review = Review::made_of(Operation::Create, Some(Subject::new(object.clone())), None);
        judge(&review, &state);
    }
}

/// What the kernel says of packets, connections and our table, as bytes: it is read as what it is, or as nothing. What ends at the
/// same place is read the same, whatever follows it.
pub(crate) fn netlink(bytes: &[u8]) {
    let heard = heard::read(bytes);
    // No message is shorter than its header.
    assert!(heard.len() <= bytes.len() / 16);
    for one in &heard {
        match one {
            Heard::Packet(record) => {
                assert!(record.prefix.chars().count() < 128, "{record:?}");
                let again = record
                    .header
                    .map(|header| header.source.is_ipv4() == header.destination.is_ipv4());
                assert_ne!(again, Ok(false), "{record:?}");
            }
            Heard::Connection(entry) => {
                let _ = (
                    entry.forwarded(),
                    entry.tuple(&entry.original),
                    entry.tuple(&entry.reply),
                );
            }
            Heard::Part(Part::Elements(of_kinds)) => {
                for (kind, held) in of_kinds {
                    assert!(held.elements.is_sorted(), "{kind:?}: {held:?}");
                }
            }
            Heard::Part(_)
            | Heard::Generation(_)
            | Heard::Answer(..)
            | Heard::End
            | Heard::Nothing => {}
        }
    }
    let more = heard::read(&[bytes, &[0; 4]].concat());
    assert!(more.len() >= heard.len());
}

fn judge(review: &Review, state: &State) {
    let now = "2026-06-01T00:00:00Z".parse().expect("a time");
    let decision = decide::judge(review, &state.context(), now, BUDGET);
    for judged in &decision.judged {
        let finding = &judged.finding;
        assert!(
            !finding.message.is_empty() && !finding.message.contains('\n'),
            "{finding:?}"
        );
        // A fix that is given applies.
        if let (Some(patch), Some(subject)) = (
            finding.fix.as_ref().and_then(|fix| fix.patch.as_ref()),
            review.subject(),
        ) {
            let mut fixed = subject.value.clone();
            assert!(json_patch::patch(&mut fixed, patch).is_ok(), "{finding:?}");
        }
    }
    let mutated = mutate(review, &state.context(), now, BUDGET);
    let Some(subject) = &review.object else {
        return;
    };
    let mut changed = subject.value.clone();
    assert!(
        json_patch::patch(&mut changed, &mutated.patch).is_ok(),
        "a patch applies to its object"
    );
    let again = Review {
        object: Some(Subject::new(changed)),
        ..review.clone()
    };
    let twice = mutate(&again, &state.context(), now, BUDGET);
    assert!(
        twice.patch.0.is_empty(),
        "mutating twice changes something: {:?}",
        twice.patch
    );
}

fn each_field(value: &Value, at: &FieldPath, fields: &mut Vec<FieldPath>) {
    // Places are found in about constant time, but so many of them are no better a test.
    if fields.len() > 500 {
        return;
    }
    fields.push(at.clone());
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| each_field(value, &at.key(key), fields)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| {
            each_field(
                value,
                &at.join(&FieldPath::of([Segment::Index(index)])),
                fields,
            );
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A small cluster under the built-in guardrail, with the built-in policies.
static CLUSTER: LazyLock<State> = LazyLock::new(|| State {
    snapshot: OBJECTS
        .iter()
        .fold(Snapshot::default(), |snapshot, object| {
            let subject = Subject::new(object.clone());
            snapshot.with(subject.model().expect("a kind of the model").clone())
        }),
    guardrails: Guardrails::new(vec![
        Guardrail::built_in().expect("the built-in guardrail is good"),
    ]),
    exemptions: Exemptions::default(),
    reachability: ReachabilityRules::default(),
    engine: Arc::new(RegoEngine::new(
        PolicySet::built_in().expect("the built-in policies are good"),
    )),
});

static OBJECTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let pod = |namespace: &str, name: &str, address: &str, host: bool, phase: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": {"app": name, "tier": "web"}},
            "spec": {
                "hostNetwork": host, "nodeName": "one",
                "containers": [{"name": "main", "image": "x", "ports": [
                    {"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}
                ]}]
            },
            "status": {"phase": phase, "podIPs": [{"ip": address}, {"ip": "2001:db8::7"}]}
        })
    };
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "a", "name": name}, "spec": spec
        })
    };
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"team": "a"}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b", "labels": {"team": "b"}}}),
        pod("a", "one", "10.0.0.1", false, "Running"),
        pod("a", "two", "10.0.0.2", false, "Running"),
        pod("b", "three", "10.0.0.3", false, "Running"),
        pod("b", "host", "192.0.2.1", true, "Running"),
        pod("b", "done", "10.0.0.4", false, "Succeeded"),
        policy(
            "default-deny",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        ),
        policy(
            "allow",
            json!({
                "podSelector": {"matchLabels": {"app": "one"}},
                "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "three"}}}], "ports": [{"port": "http"}]}],
                "egress": [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 8000, "endPort": 9000}]}]
            }),
        ),
    ]
});
