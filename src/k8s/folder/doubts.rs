//! What an answer about a whole cluster cannot know from a folder, or leaves out: told beside the answer, with its place.
//!
//! Policies of other kinds, fields that no kind has, namespaces that are not there, addresses and labels that pods get only
//! when they run. None of it makes the manifests bad, so each is a sentence and no error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use serde_json::Value;

use super::{Folder, Placed};
use crate::guard::review::Kind;
use crate::netpol::labels::{NAMESPACE_NAME_LABEL, VOLATILE};
use crate::netpol::net::parse_block;
use crate::netpol::{FieldPath, NamespaceName, Object, SYSTEM_NAMESPACES};

/// More of them are counted and not told.
const MOST: usize = 20;

/// Where pods have their addresses from, as a rule: private networks (RFC 1918, RFC 6598, RFC 4193).
const PRIVATE: [&str; 5] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
];

/// Something that the reader of an answer should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What it is.
    pub message: String,
}

/// Finds them.
struct Search {
    found: Vec<Doubt>,
    /// The namespaces that have a Namespace object.
    there: BTreeSet<NamespaceName>,
    /// Those in which something runs.
    inhabited: BTreeSet<NamespaceName>,
    /// Those of them whose labels nobody knows.
    bare: Vec<String>,
    /// The labels that controllers set and that some pod does not have.
    lacking: Vec<&'static str>,
    /// Whether there are pods that have no address yet.
    has_unplaced: bool,
    /// What has been said once is not said again.
    said: BTreeSet<String>,
}

/// Something in a policy that depends on what is not in manifests.
enum Part<'v> {
    /// A selector of pods, by its keys.
    Pods(Vec<&'v str>),
    /// A selector of namespaces: whether it asks for anything but the name, and the names that it demands.
    Namespaces(bool, Vec<&'v str>),
    /// A block of addresses.
    Block(&'v str),
}

impl Folder {
    /// What cannot be known of it, or is in it and not judged; the first ones, and last how many more there are.
    pub fn doubts(&self) -> Vec<Doubt> {
        self.search(Search::look_at)
    }

    /// What is in it and not judged, in the same way.
    pub fn unjudged(&self) -> Vec<Doubt> {
        self.search(Search::look_for_others)
    }

    fn search(&self, look: impl Fn(&mut Search, &Placed)) -> Vec<Doubt> {
        let mut search = Search::of(self);
        for placed in &self.objects {
            look(&mut search, placed);
        }
        let more = search.found.len().saturating_sub(MOST);
        search.found.truncate(MOST);
        if more > 0
            && let Some(last) = search.found.last_mut()
        {
            last.message = format!("{} (and {more} more like these)", last.message);
        }
        search.found
    }
}

fn object(placed: &Placed) -> Option<&Object> {
    match &placed.review.object.as_ref()?.parsed {
        Kind::Model(parsed) => Some(&parsed.object),
        _ => None,
    }
}

// === impl Search ===

impl Search {
    /// Knows what is there, and has looked at nothing yet.
    fn of(folder: &Folder) -> Self {
        let (mut there, mut inhabited) = (BTreeSet::new(), BTreeSet::new());
        for placed in &folder.objects {
            match object(placed) {
                Some(Object::Namespace(namespace)) => {
                    there.insert(namespace.name.clone());
                }
                Some(Object::Pod(pod) | Object::Workload(pod)) => {
                    inhabited.insert(pod.namespace().clone());
                }
                _ => {}
            }
        }
        let pods = || folder.snapshot.pods();
        let is_lacking = |key: &&str| pods().any(|pod| !pod.labels.contains(key));
        Self {
            found: Vec::new(),
            bare: inhabited
                .difference(&there)
                .map(ToString::to_string)
                .collect(),
            lacking: VOLATILE.into_iter().filter(is_lacking).collect(),
            has_unplaced: pods()
                .any(|pod| pod.ips.is_empty() && !pod.is_finished() && !pod.host_network),
            there,
            inhabited,
            said: BTreeSet::new(),
        }
    }

    /// Whether nothing is known of a namespace.
    fn is_strange(&self, namespace: &NamespaceName) -> bool {
        !self.there.contains(namespace) && !self.inhabited.contains(namespace)
    }

    fn look_at(&mut self, placed: &Placed) {
        let Some(subject) = &placed.review.object else {
            return;
        };
        match &subject.parsed {
            Kind::Other => self.other(placed, &subject.value),
            Kind::Model(parsed) => {
                let is_policy = matches!(
                    parsed.object,
                    Object::NetworkPolicy(_)
                        | Object::ClusterNetworkPolicy(_)
                        | Object::StagedNetworkPolicy(_)
                );
                if !is_policy {
                    return;
                }
                for field in &parsed.unknown_fields {
                    let what = placed.review.object_ref();
                    let message = format!("{what}: {field} is no field of its kind: it is ignored");
                    self.say(placed, field, message);
                }
                self.homeless(placed, &parsed.object);
                let mut parts = Vec::new();
                let spec = FieldPath::of(["spec"]);
                if let Some(value) = subject.value.get("spec") {
                    walk(value, &spec, &mut parts);
                }
                for (field, part) in parts {
                    self.part(placed, &field, &part);
                }
            }
            _ => {}
        }
    }

    /// Whether it is of a kind that is not judged.
    fn look_for_others(&mut self, placed: &Placed) {
        if let Some(subject) = &placed.review.object
            && matches!(subject.parsed, Kind::Other)
        {
            self.other(placed, &subject.value);
        }
    }

    /// A kind that is not judged.
    fn other(&mut self, placed: &Placed, value: &Value) {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let lower = kind.to_ascii_lowercase();
        let root = FieldPath::root();
        let meant = [
            "NetworkPolicy",
            "ClusterNetworkPolicy",
            "AdminNetworkPolicy",
            "BaselineAdminNetworkPolicy",
        ];
        let spelt = meant
            .iter()
            .find(|meant| meant.eq_ignore_ascii_case(kind))
            .filter(|_| matches!(group, "networking.k8s.io" | "policy.networking.k8s.io"));
        if let Some(meant) = spelt {
            let message =
                format!("{api_version} has no kind {kind}; {meant} is meant? It is not judged");
            self.say(placed, &root, message);
        } else if lower.ends_with("networkpolicy") {
            let message = format!(
                "{api_version} {kind} is not judged: what it allows or denies is not known"
            );
            self.say_once(placed, &root, format!("{api_version} {kind}"), message);
        } else if runs_pods(value) {
            let message = format!(
                "{api_version} {kind} is no kind that is known: its pods are not looked at"
            );
            self.say_once(placed, &root, format!("{api_version} {kind}"), message);
        }
    }

    /// A policy of a namespace that is not there.
    fn homeless(&mut self, placed: &Placed, policy: &Object) {
        let Some(namespace) = policy.namespace() else {
            return;
        };
        if self.is_strange(namespace) {
            let message = format!(
                "nothing is known of namespace {namespace}: neither it nor anything that runs in it is among the manifests"
            );
            let field = FieldPath::of(["metadata", "namespace"]);
            self.say_once(placed, &field, format!("namespace {namespace}"), message);
        }
    }

    fn part(&mut self, placed: &Placed, field: &FieldPath, part: &Part<'_>) {
        let what = placed.review.object_ref();
        match part {
            Part::Pods(keys) => {
                if let Some(key) = keys.iter().find(|key| self.lacking.contains(key)) {
                    let message = format!(
                        "{what}: {field}: pods get the label {key} from a controller when they are made; those that are not among the \
                         manifests are taken to have none"
                    );
                    self.say(placed, field, message);
                }
            }
            Part::Namespaces(by_labels, names) => {
                // Every cluster has these, whether they are among the manifests or not.
                let own = |name: &&&str| **name == "default" || SYSTEM_NAMESPACES.contains(*name);
                for name in names.iter().filter(|name| !own(name)) {
                    if self.is_strange(&NamespaceName::from(*name)) {
                        let message = format!(
                            "{what}: {field}: nothing is known of namespace {name}: neither it nor anything that runs in it is among the \
                             manifests"
                        );
                        self.say_once(placed, field, format!("namespace {name}"), message);
                    }
                }
                if *by_labels && !self.bare.is_empty() {
                    let message = format!(
                        "{what}: {field}: the labels of namespaces that are not among the manifests are not known and taken to be none: {}",
                        listed(&self.bare)
                    );
                    self.say_once(placed, field, "labels of namespaces".to_owned(), message);
                }
            }
            Part::Block(block) => {
                let may_be_pods = parse_block(block).is_ok_and(|block| may_be_pods(&block));
                if may_be_pods && self.has_unplaced {
                    let message = format!(
                        "{what}: {field}: the addresses of pods that do not run yet are not known: they are taken not to be in {block}"
                    );
                    self.say_once(placed, field, "blocks".to_owned(), message);
                }
            }
        }
    }

    fn say(&mut self, placed: &Placed, field: &FieldPath, message: String) {
        self.found.push(Doubt {
            file: placed.source.file.to_string(),
            line: placed.places.place(field).line,
            message,
        });
    }

    fn say_once(&mut self, placed: &Placed, field: &FieldPath, key: String, message: String) {
        if self.said.insert(key) {
            self.say(placed, field, message);
        }
    }
}

/// Whether pods that do not run yet may be in a block or not: not in one far from where pods are, and in that of all addresses
/// they all are.
fn may_be_pods(block: &IpNet) -> bool {
    let mut private = PRIVATE.iter().filter_map(|text| parse_block(text).ok());
    let meets = |private: IpNet| private.contains(block) || block.contains(&private);
    block.prefix_len() > 0 && private.any(meets)
}

/// Some names, with a sign that there are more.
fn listed(names: &[String]) -> String {
    match names {
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and others"),
        names => names.join(", "),
    }
}

/// Whether an object of another kind makes pods, as those do that have a template of one.
pub(super) fn runs_pods(value: &Value) -> bool {
    let has = |pointer: &str| value.pointer(pointer).is_some_and(Value::is_array);
    has("/spec/template/spec/containers") || value.pointer("/spec/template/spec/domain").is_some()
}

/// What of a policy depends on what is not in manifests. The parts are small: a policy is bounded by its parser.
fn walk<'v>(value: &'v Value, at: &FieldPath, parts: &mut Vec<(FieldPath, Part<'v>)>) {
    match value {
        Value::Object(fields) => {
            for (key, below) in fields {
                let field = at.key(key.as_str());
                match key.as_str() {
                    "podSelector" => {
                        parts.push((field, Part::Pods(keys(below).into_keys().collect())));
                    }
                    "namespaceSelector" | "namespaces" if below.is_object() => {
                        let asked = keys(below);
                        let by_labels = asked.keys().any(|key| *key != NAMESPACE_NAME_LABEL);
                        let names = asked.get(NAMESPACE_NAME_LABEL).cloned().unwrap_or_default();
                        parts.push((field, Part::Namespaces(by_labels, names)));
                    }
                    "cidr" => parts.extend(below.as_str().map(|block| (field, Part::Block(block)))),
                    "networks" => {
                        let blocks = below.as_array().into_iter().flatten().enumerate();
                        parts.extend(blocks.filter_map(|(index, block)| {
                            Some((field.index(index), Part::Block(block.as_str()?)))
                        }));
                    }
                    _ => walk(below, &field, parts),
                }
            }
        }
        Value::Array(items) => {
            for (index, below) in items.iter().enumerate() {
                walk(below, &at.index(index), parts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The keys that a selector asks for, each with the values that it demands one of.
fn keys(selector: &Value) -> BTreeMap<&str, Vec<&str>> {
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        keys.entry(key).or_default().extend(value.as_str());
    }
    let asked = selector.get("matchExpressions").and_then(Value::as_array);
    for one in asked.into_iter().flatten() {
        let Some(key) = one.get("key").and_then(Value::as_str) else {
            continue;
        };
        let values = keys.entry(key).or_default();
        if one.get("operator").and_then(Value::as_str) == Some("In") {
            let demanded = one.get("values").and_then(Value::as_array);
            values.extend(demanded.into_iter().flatten().filter_map(Value::as_str));
        }
    }
    keys
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use crate::k8s::manifests::Input;
    use crate::k8s::yaml::Limits;

    fn doubts(text: &str) -> Vec<String> {
        let limits = Limits::default();
        let input = Input::read("x.yaml", text.as_bytes(), &limits).unwrap();
        let doubts = read(vec![input], &limits).doubts();
        doubts.iter().map(ToString::to_string).collect()
    }

    const WEB: &str = "\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
---
";

    fn policy(spec: &str) -> String {
        format!(
            "{WEB}apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
        )
    }

    #[test]
    fn nothing_is_said_of_what_can_be_known() {
        let text = policy(
            "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: 192.0.2.0/24}}, {podSelector: {}}]}]}",
        );
        assert_eq!(doubts(&text), Vec::<String>::new());
    }

    #[test]
    fn what_pods_get_when_they_run_is_not_known_before() {
        let by_name = "{podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: web-0}}}";
        let said = doubts(&policy(by_name));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with(
                "x.yaml:13: NetworkPolicy shop/p: spec.podSelector: pods get the label"
            ),
            "{said:?}"
        );

        let by_block = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 10.1.0.0/16}}]}]}";
        let said = doubts(&policy(by_block));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].ends_with("not to be in 10.0.0.0/8"), "{said:?}");
    }

    #[test]
    fn namespaces_that_are_not_there_are_named_once() {
        let text = policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gone}}}, \
             {namespaceSelector: {matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}}]}]}",
        );
        let said = doubts(&text.replace("name: p, namespace: shop", "name: p, namespace: gone"));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("nothing is known of namespace gone"),
            "{said:?}"
        );
        assert!(said[1].ends_with("taken to be none: shop"), "{said:?}");
        let there =
            format!("{text}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n");
        let said = doubts(&there);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("from[0].namespaceSelector"), "{said:?}");
    }

    #[test]
    fn what_is_not_judged_is_named() {
        let kind = |version: &str, kind: &str| {
            doubts(&format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n"
            ))
        };
        for (version, other) in [
            ("cilium.io/v2", "CiliumNetworkPolicy"),
            ("projectcalico.org/v3", "GlobalNetworkPolicy"),
            ("crd.antrea.io/v1beta1", "ClusterNetworkPolicy"),
        ] {
            assert!(kind(version, other)[0].contains("is not judged"), "{other}");
        }
        assert!(
            kind("networking.k8s.io/v1", "Networkpolicy")[0].contains("NetworkPolicy is meant?")
        );
        let admin = kind("policy.networking.k8s.io/v1alpha1", "AdminNetworkpolicy");
        assert!(admin[0].contains("; AdminNetworkPolicy is meant?"));
        assert_eq!(kind("v1", "ConfigMap"), Vec::<String>::new());
        let rollout = WEB
            .replace("apps/v1", "argoproj.io/v1alpha1")
            .replace("StatefulSet", "Rollout");
        assert!(doubts(&rollout)[0].contains("its pods are not looked at"));
        let field = policy("{podSelector: {}, form: 1}");
        let input = |text: &str| Input::read("x.yaml", text.as_bytes(), &Limits::default());
        let folder = |text: &str| read(vec![input(text).unwrap()], &Limits::default());
        assert_eq!(folder(&rollout).unjudged().len(), 1);
        assert_eq!(folder(&field).unjudged(), []);
    }

    #[test]
    fn a_field_that_is_none_is_said_with_its_line() {
        let said = doubts(&policy(
            "\n  podSelector: {}\n  ingress:\n  - form: [{podSelector: {}}]",
        ));
        assert_eq!(
            said,
            [
                "x.yaml:16: NetworkPolicy shop/p: spec.ingress[0].form is no field of its kind: it is ignored"
            ]
        );
    }

    #[test]
    fn very_many_are_counted() {
        let fields: Vec<String> = (0..30).map(|n| format!("x{n}: 1")).collect();
        let said = doubts(&policy(&format!(
            "{{podSelector: {{}}, {}}}",
            fields.join(", ")
        )));
        assert_eq!(said.len(), 20);
        assert!(said[19].ends_with("(and 10 more like these)"), "{said:?}");
    }
}
