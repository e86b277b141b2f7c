//! The `Guardrail` resource (`ringfence.dev/v1alpha1`): which namespaces, which mode, and a section per concern.
//!
//! A section that is absent demands nothing. A section that is there, even empty (`{}`), demands what its fields
//! default to. Guardrails add up: each that selects a namespace is applied by itself.
//! [`Guardrail::parse`] turns the manifest into the checked form that the checks work with.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::guard::enforcement::confirmed::Confirmations;
use crate::guard::mode::Mode;
use crate::guard::status::Status;
use crate::netpol::{Labels, ParseError, Selector};

mod check;
mod defaults;
mod sections;

pub use sections::{
    AnnotationRule, BaselineSection, BreadthLimits, BreadthSection, Bypass, BypassesSection,
    ClusterNetworkPolicies, CoverageScope, CoverageSection, DnsAllow, DocumentationSection,
    EnforcementSection, Existing, HygieneSection, IngressControllerAllow, Inject, LabelPlace,
    LabelRule, LabelsSection, MonitoringAllow, OnFailure, OptOut, PoliciesSection, ScrapePort,
};

/// The API group of Ringfence's own kinds.
pub const GROUP: &str = "ringfence.dev";
/// The version of Ringfence's own kinds.
pub const VERSION: &str = "v1alpha1";

/// What is demanded of the namespaces that are selected.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ringfence.dev",
    version = "v1alpha1",
    kind = "Guardrail",
    root = "GuardrailManifest",
    plural = "guardrails",
    shortname = "gr",
    category = "ringfence",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    status = "Status",
    doc = "What is demanded of the network policies, workloads and namespaces that it selects, and what is done about what is not so.",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuardrailSpec {
    /// The namespaces that it holds for, by their labels. Absent or empty: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// What is done about findings, unless a section says otherwise.
    #[serde(default)]
    pub mode: Mode,
    /// What an update meets whose violations were there before it.
    #[serde(default)]
    pub unchanged: Unchanged,
    /// Label conventions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsSection>,
    /// Default-deny coverage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<CoverageSection>,
    /// What every namespace is allowed all the same: DNS, monitoring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineSection>,
    /// Workloads that network policy cannot hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bypasses: Option<BypassesSection>,
    /// How wide a rule may open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breadth: Option<BreadthSection>,
    /// What a policy must say about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documentation: Option<DocumentationSection>,
    /// What is wrong with policies only when they are seen among all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hygiene: Option<HygieneSection>,
    /// Whether anything enforces network policies where a pod is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<EnforcementSection>,
    /// The user's own policies in Rego.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<PoliciesSection>,
}

/// What an update meets whose violations were there before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unchanged {
    /// Only what the update adds is held against it.
    #[default]
    Tolerate,
    /// Everything that is wrong is held against it.
    Judge,
}

/// Whether a thing must be there, or only should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Presence {
    /// It must be there.
    #[default]
    Required,
    /// It should be there; its absence never refuses anything.
    Recommended,
    /// It need not be there; what is there is still checked.
    Optional,
}
/// A concern of a guardrail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Label conventions.
    Labels,
    /// Default-deny coverage.
    Coverage,
    /// Baseline allows and their injection.
    Baseline,
    /// Bypasses.
    Bypasses,
    /// Breadth of rules.
    Breadth,
    /// Documentation of policies.
    Documentation,
    /// Policies among each other: what selects nothing, what never matches.
    Hygiene,
    /// Whether anything enforces policies.
    Enforcement,
    /// The user's own policies.
    Policies,
}

/// A guardrail that was checked: its selectors and patterns are known to be good.
#[derive(Clone, Debug)]
pub struct Guardrail {
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: GuardrailSpec,
    /// The namespaces that it holds for.
    pub namespaces: Selector,
    /// Pods that get no baseline allow.
    pub quarantine: Option<Selector>,
    /// The `spec` as JSON with every default written out: the parameters of policies in Rego.
    pub parameters: Value,
}

/// The guardrails in force; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Guardrails {
    all: Arc<[Guardrail]>,
    baselines: Baselines,
    confirmations: Option<Confirmations>,
}

/// Whether a controller makes the baseline policies that guardrails ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Baselines {
    /// It does: what they will cover can be counted upon.
    Kept,
    /// None does, as in a folder of manifests.
    #[default]
    NotKept,
}
// === impl GuardrailSpec ===

impl GuardrailSpec {
    /// The mode of a section: its own, else the guardrail's. `None` where the section is absent.
    pub fn mode_of(&self, section: Section) -> Option<Mode> {
        let own = match section {
            Section::Labels => self.labels.as_ref().map(|section| section.mode),
            Section::Coverage => self.coverage.as_ref().map(|section| section.mode),
            Section::Baseline => self.baseline.as_ref().map(|section| section.mode),
            Section::Bypasses => self.bypasses.as_ref().map(|section| section.mode),
            Section::Breadth => self.breadth.as_ref().map(|section| section.mode),
            Section::Documentation => self.documentation.as_ref().map(|section| section.mode),
            // What it finds opens nothing, so it refuses only where it was told to.
            Section::Hygiene => self
                .hygiene
                .as_ref()
                .map(|section| section.mode.or(Some(self.mode.min(Mode::Warn)))),
            Section::Enforcement => self.enforcement.as_ref().map(|section| section.mode),
            Section::Policies => self.policies.as_ref().map(|section| section.mode),
        };
        own.map(|mode| mode.unwrap_or(self.mode))
    }

    /// The strictest mode of any section.
    pub fn strictest(&self) -> Mode {
        Section::ALL
            .iter()
            .filter_map(|&section| self.mode_of(section))
            .max()
            .unwrap_or(self.mode)
    }
}

impl Section {
    /// Every section, in the order of the manifest.
    pub const ALL: [Self; 9] = [
        Self::Labels,
        Self::Coverage,
        Self::Baseline,
        Self::Bypasses,
        Self::Breadth,
        Self::Documentation,
        Self::Hygiene,
        Self::Enforcement,
        Self::Policies,
    ];
}
// === impl Guardrail ===

impl Guardrail {
    /// The guardrail that makes Ringfence useful with no configuration; see [`GuardrailSpec::built_in`].
    pub fn built_in() -> Result<Self, ParseError> {
        Self::check("built-in".to_owned(), GuardrailSpec::built_in())
    }

    /// The same in another mode.
    pub fn built_in_as(mode: Mode) -> Result<Self, ParseError> {
        Self::check(
            "built-in".to_owned(),
            GuardrailSpec {
                mode,
                ..GuardrailSpec::built_in()
            },
        )
    }

    /// Reads a manifest. Unknown fields are errors, and every problem is named by its field.
    pub fn parse(value: &Value) -> Result<Self, ParseError> {
        let manifest: GuardrailManifest = super::manifest::read(value)?;
        Self::check(manifest.metadata.name.unwrap_or_default(), manifest.spec)
    }

    /// The same in another mode; sections with a mode of their own keep it.
    pub fn in_mode(&self, mode: Mode) -> Result<Self, ParseError> {
        let spec = GuardrailSpec {
            mode,
            ..self.spec.clone()
        };
        Self::check(self.name.clone(), spec)
    }

    /// Whether it holds for a namespace with these labels.
    pub fn selects(&self, namespace: &Labels) -> bool {
        self.namespaces.matches(namespace)
    }

    /// Whether it may hold for a namespace that a selector means, there already or not.
    pub fn may_select(&self, namespaces: &Selector) -> bool {
        !namespaces.disjoint(&self.namespaces)
    }

    /// The mode of a section; see [`GuardrailSpec::mode_of`].
    pub fn mode_of(&self, section: Section) -> Option<Mode> {
        self.spec.mode_of(section)
    }
}
// === impl Guardrails ===

impl Guardrails {
    /// Guardrails in force, in the order of their names.
    pub fn new(mut guardrails: Vec<Guardrail>) -> Self {
        guardrails.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            all: guardrails.into(),
            baselines: Baselines::default(),
            confirmations: None,
        }
    }

    /// The same where a controller makes the baseline policies that they ask for.
    #[must_use]
    pub fn with_baselines_kept(self) -> Self {
        Self {
            baselines: Baselines::Kept,
            ..self
        }
    }

    /// Whether a controller makes the baseline policies that they ask for.
    pub fn baselines(&self) -> Baselines {
        self.baselines
    }

    /// The same where nodes say by receipts what they enforce; `None` where nobody could know of any.
    #[must_use]
    pub fn with_confirmations(self, confirmations: Option<Confirmations>) -> Self {
        Self {
            confirmations,
            ..self
        }
    }

    /// What nodes say that they enforce; `None` where nobody could know of any, as in a folder of manifests.
    pub fn confirmations(&self) -> Option<&Confirmations> {
        self.confirmations.as_ref()
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Guardrail> {
        self.all.iter()
    }

    /// Those that hold for a namespace with these labels.
    pub fn selecting<'a>(&'a self, namespace: &'a Labels) -> impl Iterator<Item = &'a Guardrail> {
        self.all
            .iter()
            .filter(move |guardrail| guardrail.selects(namespace))
    }
}

impl<'a> IntoIterator for &'a Guardrails {
    type Item = &'a Guardrail;
    type IntoIter = std::slice::Iter<'a, Guardrail>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::fmt::Display for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Labels => "labels",
            Self::Coverage => "coverage",
            Self::Baseline => "baseline",
            Self::Bypasses => "bypasses",
            Self::Breadth => "breadth",
            Self::Documentation => "documentation",
            Self::Hygiene => "hygiene",
            Self::Enforcement => "enforcement",
            Self::Policies => "policies",
        })
    }
}
