//! The checks that are written in Rust: what each is called, why it matters and what to do.
//!
//! Checks written in Rego carry the same in their metadata; `ringfence explain` and the reports read both alike.

use crate::guard::engine::PolicyInfo;
use crate::guard::finding::{FindingId, Severity};
use crate::guard::guardrail::Section;

mod whole;

pub use whole::*;

/// A check that is written in Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its id.
    pub id: &'static str,
    /// One line.
    pub title: &'static str,
    /// How much its findings matter.
    pub severity: Severity,
    /// The section of the guardrail that asks for it; `None` where every manifest is held to it.
    pub section: Option<Section>,
    /// Why it matters, in one line.
    pub why: &'static str,
    /// What it looks at and what to do, in full.
    pub description: &'static str,
}

/// The manifest cannot be read.
pub const UNREADABLE: Check = Check {
    id: "RF001",
    title: "manifest cannot be read",
    severity: Severity::High,
    section: None,
    why: "what cannot be read cannot be judged, and will not be applied either",
    description: "The file is not YAML or JSON, not UTF-8, too large or too deep. The place is where reading \
                  stopped. Documents after it in the same file may not have been read: mend it and check again.",
};

/// The object is not valid.
pub const INVALID: Check = Check {
    id: "RF002",
    title: "object is not valid",
    severity: Severity::High,
    section: None,
    why: "the API server refuses it, or would keep something else than was meant",
    description: "A field has a value that its kind does not allow: an address block that is none, an `except` \
                  outside its block, an `endPort` below its port, a selector with an unknown operator, a policy type \
                  that does not exist. The rules are those of the Kubernetes API for the kind.",
};

/// A field is not known.
pub const UNKNOWN_FIELD: Check = Check {
    id: "RF003",
    title: "unknown field",
    severity: Severity::High,
    section: None,
    why: "the API server drops a field that it does not know, so the policy means something else than it says",
    description: "The kind has no such field. In a policy this opens or closes more than was meant: a peer whose \
                  `namespaceSelector` is misspelt selects pods of the policy's own namespace. Correct the name or \
                  remove the field.",
};

/// A key stands twice.
pub const DUPLICATE_KEY: Check = Check {
    id: "RF004",
    title: "key stands twice",
    severity: Severity::Medium,
    section: None,
    why: "only the last of them counts, without a word",
    description: "The same key stands twice in one mapping. kubectl keeps the last and drops the first; two \
                  `ingress:` keys in a policy lose the rules of the first. Join them.",
};

/// A workload in a namespace without default-deny.
pub const UNCOVERED: Check = Check {
    id: "RF201",
    title: "workload without default-deny",
    severity: Severity::High,
    section: Some(Section::Coverage),
    why: "a pod that no policy isolates is reachable from, and may reach, every pod of the cluster and the world",
    description: "Kubernetes lets every pod talk to every pod until a NetworkPolicy isolates it, in each direction \
                  by itself. With `scope: Namespace` the policies with an empty podSelector must together isolate \
                  every pod of the namespace, those to come as well; with `scope: Workload` some policy must select \
                  the workload's pods. Names do not count: an allow-all called `default-deny` isolates, and the \
                  breadth checks speak of what it opens. Apply a default-deny policy before the workload, or in the \
                  same `kubectl apply`.",
};

/// A change that would leave workloads uncovered.
pub const LAST_COVER: Check = Check {
    id: "RF202",
    title: "change would leave workloads uncovered",
    severity: Severity::Critical,
    section: Some(Section::Coverage),
    why: "once the last policy that isolates a pod is gone, all of its traffic is allowed at once",
    description: "The change removes or weakens the last policy that isolates these workloads in a direction: a \
                  deletion, a shorter `policyTypes`, a narrower podSelector. Apply what takes its place first, then \
                  make the change. Namespaces that are being deleted are left alone.",
};

/// A workload where nothing says that policies are enforced.
pub const UNENFORCED: Check = Check {
    id: "RF203",
    title: "nothing confirms that policies are enforced",
    severity: Severity::High,
    section: Some(Section::Enforcement),
    why: "where nothing enforces them, network policies are accepted, listed and without any effect",
    description: "The API server takes every NetworkPolicy; whether it holds is up to the nodes, and some network plugins \
                  (Flannel, a plain bridge) ignore them. The agent of Ringfence writes a receipt for its node \
                  (`NodeEnforcement`) after it has read the kernel back. A workload is found here when no node has a \
                  receipt of the last ten minutes with the condition `Enforced`, and a pod that names its node when that \
                  node has none. Run the agent (deploy/agent), or, where the network plugin enforces policies itself, name \
                  it in the Guardrail: `enforcement.enforcedBy`. `ringfence status` shows the receipts, `ringfence doctor` \
                  what there is. `ringfence check` asks only where receipts are among the \
                  manifests.",
};

/// A rule without peers.
pub const ANY_PEER: Check = Check {
    id: "RF301",
    title: "rule without peers",
    severity: Severity::High,
    section: Some(Section::Breadth),
    why: "a rule without `from` or `to` allows every peer there is: all pods, all nodes and the world",
    description: "An ingress rule whose `from` (or an egress rule whose `to`) is absent or empty matches every peer; \
                  ports narrow what is opened, not to whom. Name the peers. Where the world is meant, say so with an \
                  address block and an Exemption.",
};

/// Address blocks that are the world.
pub const WORLD: Check = Check {
    id: "RF302",
    title: "open to the world",
    severity: Severity::High,
    section: Some(Section::Breadth),
    why: "the block holds every address of its family, the cluster's own pods included",
    description: "A block of prefix length 0, or several that together make one (two /1s), by a policy's rules of one \
                  direction taken together. `except` takes little away from it. Name the networks that are meant.",
};

/// An address block wider than allowed.
pub const WIDE_BLOCK: Check = Check {
    id: "RF303",
    title: "address block wider than allowed",
    severity: Severity::Medium,
    section: Some(Section::Breadth),
    why: "a wide block opens networks that nobody has looked at",
    description: "The block's prefix, or that of several adjacent ones taken together, is shorter than the guardrail \
                  allows (`widestPrefixV4`, `widestPrefixV6`). Name narrower networks, or have the block listed in \
                  `allowedBlocks`.",
};

/// A peer that is all namespaces.
pub const ALL_NAMESPACES: Check = Check {
    id: "RF304",
    title: "all namespaces as a peer",
    severity: Severity::High,
    section: Some(Section::Breadth),
    why: "every namespace is meant, those of other tenants and those to come as well",
    description: "A `namespaceSelector` that is empty, that no namespace can fail to match, or that only leaves some out \
                  (`NotIn`, `DoesNotExist`): a namespace without these labels matches. With a podSelector \
                  beside it that asks for a label the pods of that label are meant wherever they are, and whoever may make a pod may make \
                  one with that label. Select namespaces by name (`kubernetes.io/metadata.name`) or by a label that \
                  tenants cannot set.",
};

/// Opting out of the baseline where that is not allowed.
pub const OPT_OUT: Check = Check {
    id: "RF505",
    title: "opting out of the baseline is not allowed",
    severity: Severity::Low,
    section: Some(Section::Baseline),
    why: "the guardrail keeps the allows for DNS and monitoring for every policy",
    description: "The annotation `ringfence.dev/inject: disabled` asks to be left without the baseline's allows, and \
                  the guardrail has `baseline.optOut: Forbid`. Remove the annotation, or have the guardrail allow it.",
};

/// A namespace that has no baseline policy yet.
pub const NO_BASELINE: Check = Check {
    id: "RF506",
    title: "namespace is without its baseline policy",
    severity: Severity::Medium,
    section: Some(Section::Baseline),
    why: "until the baseline policy is there, whatever no other policy isolates is open",
    description: "The guardrail has a `baseline` section, and the policy that it asks for is not in the namespace: \
                  because the section is not in mode `Enforce`, because pods run there and the namespace was not \
                  promoted, or because a policy of the same name is there that Ringfence did not make. Only the audit \
                  tells of it. Look at what the policy would cut, then promote the namespace (`ringfence promote`) or \
                  set the section's mode.",
};

/// A flow that a reachability rule forbids.
pub const FORBIDDEN_REACHABLE: Check = Check {
    id: "RF701",
    title: "forbidden flow is open",
    severity: Severity::High,
    section: None,
    why: "a ReachabilityRule says that this flow must never pass",
    description: "A ReachabilityRule with `expect: Deny` names two ends, and some flow between them passes all the same. \
                  The finding shows one: from which workload to which, at which ports, and the rules that let it \
                  through, or the end that no policy isolates. `ringfence check` tells it of the rule itself; the webhook \
                  tells it of the change that would open the flow: a policy that is made, changed or deleted, a namespace \
                  whose labels change, a workload whose pods would be at one of the ends. What was open before the change \
                  is not held against it. Narrow the rule of the policy, or isolate the end that is open; \
                  `ringfence why` shows the flow step by step.",
};

/// A flow that a reachability rule demands.
pub const DEMANDED_UNREACHABLE: Check = Check {
    id: "RF702",
    title: "demanded flow is closed",
    severity: Severity::High,
    section: None,
    why: "a ReachabilityRule says that this flow must always pass",
    description: "A ReachabilityRule with `expect: Allow` demands every flow from each of its one end to each of the other \
                  at every port, and one of them does not pass. The finding shows it with the policies that isolate the \
                  pods and do not allow it, and the smallest rule that would. At admission only what the change itself \
                  closes is held against it.",
};

/// A reachability rule that means nobody.
pub const SELECTS_NOTHING: Check = Check {
    id: "RF703",
    title: "reachability rule selects nothing",
    severity: Severity::Medium,
    section: None,
    why: "a rule about nobody is kept whatever happens, and guards nothing",
    description: "An end of a ReachabilityRule selects no pod that policies hold: a name or label is misspelt, the workload \
                  is not among the manifests, or its pods are on the host network. `ringfence check` and the webhook warn \
                  of it; `ringfence test` fails.",
};

/// A certificate of the webhook that ends soon.
pub const ENDING_CERTIFICATE: Check = Check {
    id: "RF801",
    title: "certificate of the webhook ends soon",
    severity: Severity::Critical,
    section: None,
    why: "once it has ended no API server gets an answer: what is enforced is refused, and the rest passes without being judged",
    description: "A leaf or an authority has a seventh of its time left or less, or has ended, and no other is there. \
                  The controller tells it of the Secret that it keeps them in, in the report of its own namespace and as \
                  the Event `CertificateEnding`; its log and the Event `CertificateFailed` say why it could not renew \
                  them. It goes on trying. Where somebody else makes them (`--ca-bundle`) it tells it of the \
                  ValidatingWebhookConfiguration, for the authority that ends last.",
};

/// A policy that could not be evaluated.
pub const FAILED_POLICY: Check = Check {
    id: "RF901",
    title: "policy could not be evaluated",
    severity: Severity::High,
    section: Some(Section::Policies),
    why: "what it guards was not looked at",
    description: "A policy in Rego ran out of time, answered in a shape that is not understood, or met an error. \
                  `policies.onFailure` of the guardrail says whether this refuses. `ringfence policy check DIR` shows \
                  what is wrong before it is in force.",
};

/// Every check that is written in Rust, in the order of the ids.
pub const CHECKS: [Check; 32] = [
    UNREADABLE,
    INVALID,
    UNKNOWN_FIELD,
    DUPLICATE_KEY,
    UNCOVERED,
    LAST_COVER,
    UNENFORCED,
    ANY_PEER,
    WORLD,
    WIDE_BLOCK,
    ALL_NAMESPACES,
    OPT_OUT,
    NO_BASELINE,
    EXPIRED_EXEMPTION,
    POLICY_SELECTS_NOTHING,
    PEER_IS_NOBODY,
    NEVER_MATCHES,
    ONE_SIDED,
    REDUNDANT_RULE,
    REDUNDANT_POLICY,
    EGRESS_WITHOUT_DNS,
    COULD_BE_ONE,
    MANY_POLICIES,
    SHADOWED,
    OPENS_EVERYTHING,
    WILD_LABELS,
    WITHOUT_POLICY,
    FORBIDDEN_REACHABLE,
    DEMANDED_UNREACHABLE,
    SELECTS_NOTHING,
    ENDING_CERTIFICATE,
    FAILED_POLICY,
];

// === impl Check ===

impl Check {
    /// The same, as what is known of a policy.
    pub fn info(&self) -> PolicyInfo {
        PolicyInfo {
            id: FindingId::from(self.id),
            title: self.title.to_owned(),
            description: self.description.to_owned(),
            severity: self.severity,
            owner: None,
            section: self.section.unwrap_or(Section::Policies),
            file: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_in_order() {
        assert!(CHECKS.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
}
