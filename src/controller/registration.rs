//! What the webhook is registered for, as data: a pure function of what is demanded, where the webhook is and whom it is
//! trusted by. `registration/apply.rs` brings the cluster to it and keeps it there.
//!
//! Each request of a namespaced kind meets exactly one of two validating entries: `fail`, which lists the namespaces that
//! something in mode `Enforce` holds for, and `ignore`, which leaves those and the ones of the cluster itself out. They are
//! told apart by the label `kubernetes.io/metadata.name`, which nobody can change; a Guardrail's own selector is never
//! copied, because a relabel could escape it. A namespace that is not listed yet meets `ignore`: its requests are judged,
//! and pass only while no replica answers.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
    ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference,
};

use crate::certs::host_of;
use crate::guard::baseline;
use crate::guard::decide::{COLLECTORS, GARBAGE_COLLECTOR, State};
use crate::guard::guardrail::Section;
use crate::guard::mode::Mode;
use crate::guard::review::Operation;
use crate::guard::scope::{Changed, JUDGED, Judged, Place};
use crate::netpol::{NAMESPACE_NAME_LABEL, SYSTEM_NAMESPACES};

pub mod apply;

/// The name of both configurations.
pub const NAME: &str = "ringfence";
/// Who is in this group passes by, whether a replica answers or not.
pub const BREAK_GLASS: &str = "ringfence.dev:break-glass";
/// The label by which what Ringfence made is known.
pub const MANAGED_BY: (&str, &str) = (baseline::MANAGED_BY, "ringfence");
/// The most namespaces that `fail` lists; an object of the API server may not be larger than about 1.5 MB, and each
/// name stands in it twice.
pub const MOST_LISTED: usize = 5_000;

/// Where API servers find the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// At a URL, without the path: `https://192.0.2.20:8443`.
    Url(String),
    /// Behind a Service.
    Service {
        /// The Service's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
}

/// How the webhook is registered, whatever is demanded.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Where it is.
    pub target: Target,
    /// The namespaces that no request is asked about from, beside [`SYSTEM_NAMESPACES`]: that of the installation, and what
    /// the operator names.
    pub left_out: BTreeSet<String>,
    /// Whether workloads and namespaces are offered to the mutating side too, for policies in Rego that change them.
    pub mutate_workloads: bool,
    /// How long an API server waits for an answer, in seconds.
    pub timeout_seconds: u8,
}

/// Both configurations; none where nothing is demanded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What is asked for a judgement.
    pub validating: Option<ValidatingWebhookConfiguration>,
    /// What is offered to be changed.
    pub mutating: Option<MutatingWebhookConfiguration>,
    /// How many namespaces should be in `fail` and found no place in it.
    pub unlisted: usize,
}

/// What is demanded, as far as a registration depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Whether there is a `Guardrail` or a `ReachabilityRule` at all.
    pub any: bool,
    /// Whether a Guardrail has allows to add to policies.
    pub baseline: bool,
    /// Whether a Guardrail asks for scheduling gates on pods.
    pub gates: bool,
    /// The namespaces in which something is in mode `Enforce`.
    pub enforced: BTreeSet<String>,
}

// === impl Demand ===

impl Demand {
    /// What is demanded of a cluster.
    pub fn of(state: &State) -> Self {
        let enforced = state.snapshot.namespaces().filter(|namespace| {
            let labels = namespace.labels();
            let mut selecting = state.guardrails.selecting(labels);
            namespace.object().is_some()
                && (selecting.any(|guardrail| guardrail.spec.strictest() == Mode::Enforce)
                    || state.reachability.strictest(labels) == Some(Mode::Enforce))
        });
        let guardrails = || state.guardrails.iter();
        let mut baselines = guardrails().filter_map(|guardrail| guardrail.spec.baseline.as_ref());
        Self {
            any: guardrails().len() > 0 || !state.reachability.is_empty(),
            baseline: guardrails().any(|guardrail| guardrail.mode_of(Section::Baseline).is_some()),
            gates: baselines.any(|section| section.scheduling_gates),
            enforced: enforced
                .map(|namespace| namespace.name().as_str().to_owned())
                .collect(),
        }
    }
}

/// What is to be registered. `bundle` is the PEM of the authorities that the webhook's certificate may be signed by, and
/// `owner` the object with which the configurations go.
pub fn plan(
    demand: &Demand,
    options: &Options,
    bundle: &[u8],
    owner: Option<&OwnerReference>,
) -> Plan {
    if !demand.any {
        return Plan::default();
    }
    let left_out = left_out(options);
    let enforced = demand.enforced.difference(&left_out);
    let fail: Vec<String> = enforced.clone().take(MOST_LISTED).cloned().collect();
    let unlisted = enforced.count().saturating_sub(fail.len());
    let others = left_out
        .iter()
        .chain(&fail)
        .cloned()
        .collect::<BTreeSet<_>>();
    let entry = |name, ignore, rules, namespaces| {
        validating(name, ignore, rules, namespaces, options, bundle)
    };
    let mut entries = Vec::new();
    if !fail.is_empty() {
        let namespaces = Some(selector("In", fail));
        entries.push(entry("fail", false, rules(Place::Namespace), namespaces));
    }
    let namespaces = Some(selector("NotIn", others.into_iter().collect()));
    entries.push(entry("ignore", true, rules(Place::Namespace), namespaces));
    entries.push(entry("cluster", true, rules(Place::Cluster), None));

    let offered: Vec<RuleWithOperations> = JUDGED
        .iter()
        .filter(|judged| judged.place == Place::Namespace)
        .filter(|judged| {
            let by_rego =
                options.mutate_workloads && judged.operations.contains(&Operation::Create);
            let asked = match judged.changed {
                Changed::Never => false,
                Changed::ToAllow => demand.baseline,
                Changed::ToWait => demand.gates,
            };
            asked || by_rego
        })
        .map(rule)
        .collect();
    Plan {
        validating: Some(ValidatingWebhookConfiguration {
            metadata: metadata(owner),
            webhooks: Some(entries),
        }),
        mutating: (!offered.is_empty()).then(|| MutatingWebhookConfiguration {
            metadata: metadata(owner),
            webhooks: Some(vec![mutating(offered, &left_out, options, bundle)]),
        }),
        unlisted,
    }
}

fn left_out(options: &Options) -> BTreeSet<String> {
    let system = SYSTEM_NAMESPACES.into_iter().map(str::to_owned);
    system.chain(options.left_out.iter().cloned()).collect()
}

fn validating(
    name: &str,
    ignore: bool,
    rules: Vec<RuleWithOperations>,
    namespaces: Option<LabelSelector>,
    options: &Options,
    bundle: &[u8],
) -> ValidatingWebhook {
    ValidatingWebhook {
        name: format!("{name}.validate.ringfence.dev"),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: options.target.client_config("/validate", bundle),
        failure_policy: Some(if ignore { "Ignore" } else { "Fail" }.to_owned()),
        match_conditions: Some(match_conditions()),
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: namespaces,
        object_selector: None,
        rules: Some(rules),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(i32::from(options.timeout_seconds)),
    }
}

/// Always `Ignore`: what was not changed is validated all the same.
fn mutating(
    rules: Vec<RuleWithOperations>,
    left_out: &BTreeSet<String>,
    options: &Options,
    bundle: &[u8],
) -> MutatingWebhook {
    MutatingWebhook {
        name: "mutate.ringfence.dev".to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: options.target.client_config("/mutate", bundle),
        failure_policy: Some("Ignore".to_owned()),
        match_conditions: Some(match_conditions()),
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: Some(selector("NotIn", left_out.iter().cloned().collect())),
        object_selector: None,
        reinvocation_policy: Some("IfNeeded".to_owned()),
        rules: Some(rules),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(i32::from(options.timeout_seconds)),
    }
}

/// Who is never asked about. They hold with every replica dead, since the API server itself evaluates them.
fn match_conditions() -> Vec<MatchCondition> {
    let group = |group: &str| {
        format!("!has(request.userInfo.groups) || !('{group}' in request.userInfo.groups)")
    };
    let collectors: Vec<String> = COLLECTORS.iter().map(|user| format!("'{user}'")).collect();
    let condition = |name: &str, expression| MatchCondition {
        name: name.to_owned(),
        expression,
    };
    vec![
        condition("not-break-glass", group(BREAK_GLASS)),
        condition("not-a-node", group("system:nodes")),
        // Only what they delete: what controllers create and update is judged, or nothing would be. Policies are deleted
        // with their owners where that uncovers nobody.
        condition(
            "not-a-collector",
            format!(
                "request.operation != 'DELETE' || !has(request.userInfo.username) || !(request.userInfo.username in [{}]) || \
                 (request.userInfo.username == '{GARBAGE_COLLECTOR}' && request.resource.resource == 'networkpolicies')",
                collectors.join(", ")
            ),
        ),
    ]
}

fn rules(place: Place) -> Vec<RuleWithOperations> {
    let judged = JUDGED.iter().filter(|judged| judged.place == place);
    judged.map(rule).collect()
}

fn rule(judged: &Judged) -> RuleWithOperations {
    let texts = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
    let operations = judged.operations.iter().map(|operation| match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    });
    RuleWithOperations {
        api_groups: texts(&[judged.group]),
        api_versions: texts(&[judged.version]),
        operations: Some(operations.map(str::to_owned).collect()),
        resources: texts(judged.resources),
        scope: Some("*".to_owned()),
    }
}

fn selector(operator: &str, values: Vec<String>) -> LabelSelector {
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: NAMESPACE_NAME_LABEL.to_owned(),
            operator: operator.to_owned(),
            values: Some(values),
        }]),
        match_labels: None,
    }
}

fn metadata(owner: Option<&OwnerReference>) -> ObjectMeta {
    let (key, value) = MANAGED_BY;
    ObjectMeta {
        name: Some(NAME.to_owned()),
        labels: Some([(key.to_owned(), value.to_owned())].into()),
        owner_references: owner.map(|owner| vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}

// === impl Target ===

impl Target {
    /// The host that the webhook's certificate must be for.
    pub fn host(&self) -> String {
        match self {
            Self::Url(url) => host_of(url).to_owned(),
            Self::Service {
                namespace, name, ..
            } => format!("{name}.{namespace}.svc"),
        }
    }

    fn client_config(&self, path: &str, bundle: &[u8]) -> WebhookClientConfig {
        let ca_bundle = Some(ByteString(bundle.to_vec()));
        match self {
            Self::Url(url) => WebhookClientConfig {
                ca_bundle,
                service: None,
                url: Some(format!("{}{path}", url.trim_end_matches('/'))),
            },
            Self::Service {
                namespace,
                name,
                port,
            } => WebhookClientConfig {
                ca_bundle,
                service: Some(ServiceReference {
                    name: name.clone(),
                    namespace: namespace.clone(),
                    path: Some(path.to_owned()),
                    port: Some(i32::from(*port)),
                }),
                url: None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
