//! The checks of an object among all others: the section `hygiene`, and exemptions that have ended.

use super::Check;
use crate::guard::finding::Severity;
use crate::guard::guardrail::Section;

/// An exemption that has ended.
pub const EXPIRED_EXEMPTION: Check = Check {
    id: "RF601",
    title: "exemption has ended",
    severity: Severity::Medium,
    section: None,
    why: "it lets nothing off any more, and what it let off will be refused at the next change",
    description: "The `expires` of the Exemption has passed. Remove it, or renew it after a new look at its reason.",
};

/// A policy that selects no pod.
pub const POLICY_SELECTS_NOTHING: Check = Check {
    id: "RF602",
    title: "policy selects no pod",
    severity: Severity::Medium,
    section: Some(Section::Hygiene),
    why: "it isolates nothing and allows nothing: the pods that it was written for are held by other policies, or by none",
    description: "No pod of the namespace has the labels that the policy's podSelector asks for, so it does nothing. \
                  Where a label that is there differs by a letter or two, it is named. Otherwise this is said only of a \
                  namespace whose Namespace object and workloads are among the manifests, since the pods of others may \
                  come from elsewhere. Pods that something else makes (an operator) are not known to `check`: write an \
                  Exemption for the policy of these.",
};

/// A peer that means nobody.
pub const PEER_IS_NOBODY: Check = Check {
    id: "RF603",
    title: "peer means nobody",
    severity: Severity::Medium,
    section: Some(Section::Hygiene),
    why: "the connection that the rule was written for is not allowed, and nothing says so",
    description: "No pod is meant by this peer: no pod has such labels in the namespaces that it names, no namespace has \
                  such labels, the selector contradicts itself, or an `except` takes the whole block away. As for \
                  RF602, this is said where the namespaces are known whole, or where something there is nearly what is \
                  asked for. Peers by labels of namespaces are held against all namespaces only where the workloads of \
                  kube-system are given as well, as in a dump of a cluster.",
};

/// A part of a policy that can match nothing.
pub const NEVER_MATCHES: Check = Check {
    id: "RF604",
    title: "rule can never match",
    severity: Severity::Medium,
    section: Some(Section::Hygiene),
    why: "what it says it allows is not allowed",
    description: "Rules of a direction that `policyTypes` does not list count for nothing. A port name is looked up in \
                  the containers of each destination, by name and protocol (TCP where none is said): where no \
                  destination has it, nothing is opened, and addresses outside of the cluster have no port names at all. \
                  Correct the name or the protocol, or give the number.",
};

/// An allow of one end that the other end denies.
pub const ONE_SIDED: Check = Check {
    id: "RF605",
    title: "allowed at one end only",
    severity: Severity::Medium,
    section: Some(Section::Hygiene),
    why: "a connection needs the egress of its source and the ingress of its destination; this one is denied",
    description: "A rule allows egress to pods whose ingress is isolated and lets none of it in, or ingress from pods whose \
                  egress lets none of it out. Found only where nothing of what the peer allows can pass, and where all \
                  namespaces that it names are known whole: a wide allow at one end beside narrow ones at the other is \
                  a way of working. Nothing is said where an Admin tier goes before both ends. Add the missing half, or remove \
                  this one.",
};

/// A rule that adds nothing.
pub const REDUNDANT_RULE: Check = Check {
    id: "RF606",
    title: "rule adds nothing",
    severity: Severity::Low,
    section: Some(Section::Hygiene),
    why: "whoever removes the other one believes that this closes something, and it does not",
    description: "Other rules of the namespace allow all that this one does, to each of its peers, for all pods that it is \
                  for: by the meaning of selectors, blocks and ports, so for pods to come as well. All that RF606 and \
                  RF607 name can be removed together, and nothing changes. Rules without peers do not count, since they are what is \
                  to be narrowed. Namespaces with more than 500 policies, or with \
                  more than 10 000 peers, excepted blocks, ports, labels and values in them (32 and 1 000 at admission), are not \
                  looked at.",
};

/// A policy that adds nothing.
pub const REDUNDANT_POLICY: Check = Check {
    id: "RF607",
    title: "policy adds nothing",
    severity: Severity::Low,
    section: Some(Section::Hygiene),
    why: "a policy more to read, review and keep true, and none the safer for it",
    description: "Other policies of the namespace isolate all pods that this one selects, in each of its directions, and \
                  allow all that it allows: by meaning, so for pods to come as well. A policy without rules (a \
                  `default-deny`) is held against other ones without rules only. All that RF606 and RF607 name can be \
                  removed together, and nothing changes.",
};

/// Egress that is isolated without DNS.
pub const EGRESS_WITHOUT_DNS: Check = Check {
    id: "RF608",
    title: "egress without DNS",
    severity: Severity::Medium,
    section: Some(Section::Hygiene),
    why: "what the pods are allowed to reach they mostly know by name, and no name resolves",
    description: "Policies isolate the egress of pods and allow some of it, and none lets them reach the cluster's DNS pods \
                  by UDP and by TCP: DNS answers that are too long for UDP come by TCP. Which pods and ports are the \
                  cluster's DNS the guardrail says in `baseline.dns`; without that section nothing is found. A pod whose \
                  egress only policies without rules isolate (a `default-deny`) is meant to send nothing, and pods under \
                  `baseline.quarantine` are to have no DNS. A policy that needs no names says so by the annotation \
                  `ringfence.dev/inject: disabled`. Only `check` finds it, of namespaces whose Namespace object and \
                  workloads are given, with the first policy that opens something for these pods; at admission the \
                  mutating webhook adds the allow or tells of it. `ringfence baseline` prints what is missing.",
};

/// Policies that could be one.
pub const COULD_BE_ONE: Check = Check {
    id: "RF609",
    title: "policies could be one",
    severity: Severity::Low,
    section: Some(Section::Hygiene),
    why: "whoever asks what these pods may do has to find and read all of them",
    description: "Several policies of the namespace have the same podSelector and the same `policyTypes`, the same labels and \
                  the same owner, so their rules could stand in one; no verdict changes by it. The finding is told of the \
                  first of them by name, with the one policy that takes the place of all: apply it, then delete the others. \
                  Policies without rules (a `default-deny`), those that add nothing (RF607) and those that Ringfence wrote \
                  are left alone. Only `check` finds it.",
};

/// More policies for a pod than the guardrail allows.
pub const MANY_POLICIES: Check = Check {
    id: "RF610",
    title: "many policies select one pod",
    severity: Severity::Low,
    section: Some(Section::Hygiene),
    why: "what the pod may do is the sum of them all, and nobody reads so many together",
    description: "More policies of the namespace select the pods of this workload than `hygiene.mostPoliciesPerPod` of the \
                  guardrail allows (10 unless it says otherwise). Join those that are for the same pods (RF609 has them), \
                  or raise the bound. Only `check` finds it.",
};

/// What never decides because of what comes before it.
pub const SHADOWED: Check = Check {
    id: "RF611",
    title: "shadowed by what comes before it",
    severity: Severity::Medium,
    section: Some(Section::Hygiene),
    why: "whoever reads it believes that it decides, and something else has decided already",
    description: "Of ClusterNetworkPolicies the first rule that matches decides: those of the Admin tier by priority, then the \
                  NetworkPolicies, then those of the Baseline tier for pods that no NetworkPolicy isolates. A rule is found where \
                  what is asked before it takes each of its peers at each of its ports, for all pods that it is for: by the \
                  meaning of selectors, blocks and ports, so for pods to come as well, and with the labels that namespaces have. \
                  Rules of the same policy, of the same tier with a lower priority, and of the Admin tier before \
                  NetworkPolicies and the Baseline tier are looked at; an Accept or a Deny behind a Pass that may match counts \
                  for nothing there, and neither does a policy of equal priority, since which of the two is asked first is not defined. A \
                  policy for the Baseline tier that names its namespaces is found where a NetworkPolicy isolates all \
                  of its pods in each. Where nothing of a policy decides, it is found as a whole. All that is found can be removed \
                  together, and no verdict changes. Remove it, or give it a place before what takes its flows.",
};

/// Rules that open everything piece by piece.
pub const OPENS_EVERYTHING: Check = Check {
    id: "RF612",
    title: "everything is open, piece by piece",
    severity: Severity::Medium,
    section: Some(Section::Hygiene),
    why: "each rule looks narrow, and together they are as wide as one that nobody would let pass",
    description: "By what they mean, rules of a policy open everything: selectors that are together every pod there can be (one \
                  label value and all but that value), selectors that are together each namespace there is (all but one that \
                  does not exist), blocks that hold the addresses of all pods, ports that are together all numbers of a \
                  protocol. What one peer or block says in one word is left to RF301 to RF304, and so are blocks that are \
                  together the world. Namespaces are counted by `check` only: all requirements where the workloads of \
                  kube-system and every Namespace are given, else only those that leave something out (`NotIn`, \
                  `DoesNotExist`), and not below three namespaces. Of a ClusterNetworkPolicy the Accept rules before any other \
                  are looked at. One finding tells of all in a policy.",
};

/// A label key whose values have run wild.
pub const WILD_LABELS: Check = Check {
    id: "RF613",
    title: "label values have run wild",
    severity: Severity::Low,
    section: Some(Section::Hygiene),
    why: "a policy that selects by one spelling misses the pods that have another",
    description: "A label key that the conventions of the guardrail or a selector of a policy use has more values over all \
                  workloads than `hygiene.mostLabelValues` allows (30 unless it says otherwise), or several that are probably \
                  one: they differ in capitals, in separators, by a number at the end that another one lacks, or are known \
                  words for one stage (`prod`, `production`). Keys that name a workload (`app`, `k8s-app`, `name`, \
                  `app.kubernetes.io/name`, `…/instance`, `…/version`) may have any number of values, and only other spellings \
                  are found there. Keys for which a convention lists `values` or a `pattern` are left to RF102. The finding is told once, of \
                  the first workload with the rarest value, and by `check` only.",
};

/// Pods that no policy isolates in a direction.
pub const WITHOUT_POLICY: Check = Check {
    id: "RF614",
    title: "pods without any policy",
    severity: Severity::Medium,
    section: Some(Section::Hygiene),
    why: "what no policy isolates is open in that direction, whatever is written for the other one",
    description: "No NetworkPolicy isolates the pods of this workload for ingress, or none for egress; each direction is a \
                  finding of its own. Directions that `coverage` of the guardrail asks for are left to RF201. Where the \
                  guardrail says that ClusterNetworkPolicies are enforced, a rule of one for the direction is a policy, too. It \
                  is said of namespaces whose Namespace object is given, of the workload and not of each pod that it owns. Apply \
                  a policy that selects the pods, and list the direction in its `policyTypes`.",
};
