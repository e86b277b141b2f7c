//! Who may change what a cluster's isolation rests on: network policies, the labels that choose guardrails, exemptions,
//! guardrails, the webhook's registration, and the ways past all of it.
//!
//! How data passes through: [`Rbac`] takes roles and bindings as an API server gives them, [`Rbac::grants`] makes a row of
//! each subject, place and resource. A row is exact: [`Grant::allows`] says what the API server's own authorizer says of
//! that subject by that binding. Aggregated roles hold the rules that the API server has put into them.
//!
//! Source: k8s.io/kubernetes/pkg/apis/rbac/v1, `evaluation_helpers.go`; plugin/pkg/auth/authorizer/rbac.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use target::{TARGETS, Target, Within};

mod target;

/// The group that the registration lets past the webhook.
pub const BREAK_GLASS: &str = "ringfence.dev:break-glass";

/// Something that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    /// To write NetworkPolicies.
    NetworkPolicies,
    /// To write `ClusterNetworkPolicies`, or policies of the kinds that they have replaced.
    ClusterNetworkPolicies,
    /// To change the labels of namespaces, by which guardrails and policies choose them.
    NamespaceLabels,
    /// To write Exemptions.
    Exemptions,
    /// To exempt from a Guardrail, which an Exemption takes as well.
    Exempt,
    /// To write Guardrails and `ReachabilityRules`.
    Guardrails,
    /// To change who is asked before a write.
    Webhooks,
    /// To act as the group that is let past the webhook.
    BreakGlass,
    /// To take any of these rights: to bind or write roles beyond one's own, or to act as others.
    Rights,
}

/// Where a right holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere.
    Cluster,
    /// In one namespace.
    Namespace(String),
}

/// Who has a right, as a binding names them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind")]
pub enum Subject {
    /// A group.
    Group {
        /// Its name.
        name: String,
    },
    /// A user.
    User {
        /// Its name.
        name: String,
    },
    /// A service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// One row of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What it is a power to.
    pub power: Power,
    /// Where.
    pub scope: Scope,
    /// Whose.
    pub subject: Subject,
    /// The API group of the resource.
    pub group: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// The objects it is limited to; none where it is to all.
    pub names: BTreeSet<String>,
    /// The verbs.
    pub verbs: BTreeSet<&'static str>,
    /// The bindings that give it, as `Kind name`.
    pub bindings: BTreeSet<String>,
}

/// Roles and bindings.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    roles: BTreeMap<(Option<String>, String), Vec<Rule>>,
    bindings: Vec<Binding>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: BTreeSet<String>,
    verbs: Vec<String>,
}

#[derive(Clone, Debug)]
struct Binding {
    scope: Scope,
    name: String,
    role: (Option<String>, String),
    subjects: Vec<Subject>,
}

// === impl Rbac ===

impl Rbac {
    /// Takes a Role or `ClusterRole`; one that cannot be understood is left out, and the answer is `false`.
    pub fn role(&mut self, object: &Value) -> bool {
        let Some(name) = text(object, "/metadata/name") else {
            return false;
        };
        let rules = match object.get("rules").filter(|rules| !rules.is_null()) {
            Some(rules) => Vec::<Rule>::deserialize(rules),
            None => Ok(Vec::new()),
        };
        let key = (text(object, "/metadata/namespace"), name);
        rules.is_ok_and(|rules| {
            self.roles.insert(key, rules);
            true
        })
    }

    /// Takes a `RoleBinding` or `ClusterRoleBinding` in the same way.
    pub fn binding(&mut self, object: &Value) -> bool {
        let namespace = text(object, "/metadata/namespace");
        let [name, kind, role] =
            ["/metadata/name", "/roleRef/kind", "/roleRef/name"].map(|at| text(object, at));
        let (Some(name), Some(kind), Some(role)) = (name, kind, role) else {
            return false;
        };
        let of_namespace = namespace.clone().filter(|_| kind == "Role");
        let subjects = object.get("subjects").and_then(Value::as_array);
        let subjects = subjects.into_iter().flatten();
        self.bindings.push(Binding {
            name,
            role: (of_namespace, role),
            subjects: subjects
                .filter_map(|subject| Subject::of(subject, namespace.as_deref()))
                .collect(),
            scope: namespace.map_or(Scope::Cluster, Scope::Namespace),
        });
        true
    }

    /// Everybody who has one of the powers, by power, place and name.
    pub fn grants(&self) -> Vec<Grant> {
        type Key<'r> = (
            Power,
            &'r Scope,
            &'r Subject,
            &'static str,
            &'static str,
            BTreeSet<String>,
        );
        type Given = (BTreeSet<&'static str>, BTreeSet<String>);
        let mut rows: BTreeMap<Key<'_>, Given> = BTreeMap::new();
        for binding in &self.bindings {
            let rules = self.roles.get(&binding.role).into_iter().flatten();
            for (rule, target) in rules.flat_map(|rule| TARGETS.iter().map(move |t| (rule, t))) {
                let Some((verbs, names)) = rule.over(target, &binding.scope) else {
                    continue;
                };
                for subject in &binding.subjects {
                    let (group, resource) = (target.group, target.resource);
                    let key = (
                        target.power,
                        &binding.scope,
                        subject,
                        group,
                        resource,
                        names.clone(),
                    );
                    let row = rows.entry(key).or_default();
                    row.0.extend(&verbs);
                    row.1.insert(binding.to_string());
                }
            }
        }
        let row = |(key, (verbs, bindings)): (Key<'_>, Given)| {
            let (power, scope, subject, group, resource, names) = key;
            Grant {
                power,
                scope: scope.clone(),
                subject: subject.clone(),
                group,
                resource,
                names,
                verbs,
                bindings,
            }
        };
        rows.into_iter().map(row).collect()
    }
}

// === impl Rule ===

impl Rule {
    /// The verbs that it gives over a target where it is bound, and the objects it is limited to.
    fn over(
        &self,
        target: &Target,
        scope: &Scope,
    ) -> Option<(Vec<&'static str>, BTreeSet<String>)> {
        let is_any =
            |words: &[String], word: &str| words.iter().any(|own| own == "*" || own == word);
        if !is_any(&self.api_groups, target.group) || !is_any(&self.resources, target.resource) {
            return None;
        }
        let mut names = self.resource_names.clone();
        match (scope, target.within) {
            (Scope::Namespace(_), Within::Nothing) => return None,
            (Scope::Namespace(namespace), Within::Itself) if !names.is_empty() => {
                if !names.remove(namespace) {
                    return None;
                }
                names.clear();
            }
            (Scope::Cluster | Scope::Namespace(_), _) => {}
        }
        match target.name {
            Some(name) if !names.is_empty() => {
                if !names.contains(name) {
                    return None;
                }
                names = [name.to_owned()].into();
            }
            // That one is a power of its own.
            None if target.resource == "groups" && !names.is_empty() => {
                names.remove(BREAK_GLASS);
                if names.is_empty() {
                    return None;
                }
            }
            Some(_) | None => {}
        }
        // What is asked for without a name is not given by a rule with names.
        let nameless = |verb: &str| matches!(verb, "create" | "deletecollection");
        let verbs: Vec<&'static str> = target
            .verbs
            .iter()
            .copied()
            .filter(|verb| is_any(&self.verbs, verb) && (names.is_empty() || !nameless(verb)))
            .collect();
        (!verbs.is_empty()).then_some((verbs, names))
    }
}

// === impl Grant ===

impl Grant {
    /// Whether it lets its subject do this to an object of its resource.
    pub fn allows(&self, verb: &str, namespace: Option<&str>, name: Option<&str>) -> bool {
        let here = match &self.scope {
            Scope::Cluster => true,
            Scope::Namespace(own) => namespace == Some(own.as_str()),
        };
        let named = self.names.is_empty() || name.is_some_and(|name| self.names.contains(name));
        here && named && self.verbs.contains(verb)
    }
}

// === impl Subject ===

impl Subject {
    /// A subject of a binding; an account that names no namespace is of the binding's own.
    fn of(value: &Value, namespace: Option<&str>) -> Option<Self> {
        let name = text(value, "/name")?;
        match value.get("kind").and_then(Value::as_str)? {
            "Group" => Some(Self::Group { name }),
            "ServiceAccount" => Some(Self::ServiceAccount {
                namespace: text(value, "/namespace").or(namespace.map(str::to_owned))?,
                name,
            }),
            "User" => {
                let account = name.strip_prefix("system:serviceaccount:");
                match account.and_then(|account| account.split_once(':')) {
                    Some((namespace, name)) => Some(Self::ServiceAccount {
                        namespace: namespace.to_owned(),
                        name: name.to_owned(),
                    }),
                    None => Some(Self::User { name }),
                }
            }
            _ => None,
        }
    }

    /// Whether it is a part of Kubernetes itself. A group of everybody, or of all accounts, is not.
    pub fn is_own(&self) -> bool {
        match self {
            Self::ServiceAccount { namespace, .. } => namespace == "kube-system",
            Self::User { name } => name.starts_with("system:") && name != "system:anonymous",
            Self::Group { name } => {
                let broad = ["system:authenticated", "system:unauthenticated"];
                let accounts = name == "system:serviceaccounts"
                    || (name.starts_with("system:serviceaccounts:")
                        && name != "system:serviceaccounts:kube-system");
                name.starts_with("system:") && !broad.contains(&name.as_str()) && !accounts
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group { name } => write!(f, "group {name}"),
            Self::User { name } => write!(f, "user {name}"),
            Self::ServiceAccount { namespace, name } => {
                write!(f, "service account {namespace}/{name}")
            }
        }
    }
}

// === impl Binding ===

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Cluster => write!(f, "ClusterRoleBinding {}", self.name),
            Scope::Namespace(_) => write!(f, "RoleBinding {}", self.name),
        }
    }
}

// === impl Power ===

impl Power {
    /// The question, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NetworkPolicies => "write NetworkPolicies",
            Self::ClusterNetworkPolicies => "write ClusterNetworkPolicies",
            Self::NamespaceLabels => "change the labels of namespaces",
            Self::Exemptions => "write Exemptions",
            Self::Exempt => "exempt from Guardrails",
            Self::Guardrails => "write Guardrails and ReachabilityRules",
            Self::Webhooks => "change who is asked before a write",
            Self::BreakGlass => "act as the break-glass group",
            Self::Rights => "take rights that they do not have",
        }
    }
}

fn text(value: &Value, at: &str) -> Option<String> {
    let text = value.pointer(at)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
