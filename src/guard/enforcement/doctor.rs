//! What stands in the way of network policies: a cluster and a node, diagnosed.
//!
//! [`cluster`] and [`node`] take what was seen and say what it means; nothing is looked at here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::chains::Chain;
use super::plugins::{self, Enforces, Plugin};
use super::{Receipt, Worth};
use crate::netpol::NodeName;

mod others;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, in one word; stable.
    pub id: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was seen, in one sentence.
    pub says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may be meant so.
    Warning,
    /// Policies do not hold, or not all of them.
    Problem,
    /// It could not be found out.
    Unknown,
}

/// What was seen of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The network plugins that run there.
    pub plugins: Vec<Plugin>,
    /// The nodes.
    pub nodes: Vec<NodeName>,
    /// How many agents of Ringfence there should be and how many are ready; `None` without a DaemonSet of it.
    pub agents: Option<(u64, u64)>,
    /// The image of these agents.
    pub image: Option<String>,
    /// The receipts by node; `None` where the API server does not know the kind.
    pub receipts: Option<BTreeMap<NodeName, Receipt>>,
    /// How many policies of the whole cluster there are; `None` where the API server does not know the kind.
    pub wide_policies: Option<usize>,
    /// How many guardrails and reachability rules there are.
    pub demands: usize,
    /// How many entries the registration of the webhook has; `None` where there is none.
    pub webhook: Option<usize>,
}

/// What was seen of a node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The types of the plugins in the configuration that the container runtime takes.
    pub types: Vec<String>,
    /// Switches of the kernel by name, and whether each is on; `None` where the kernel does not have it.
    pub switches: BTreeMap<&'static str, Option<bool>>,
    /// What nftables answers; `None` where it was not asked.
    pub nftables: Option<Nftables>,
    /// The chains of others' tables of nftables; none where it was not asked, or did not answer.
    pub chains: Vec<Chain>,
    /// Whether the table of Ringfence's agent is there.
    pub has_own_table: bool,
    /// Whether there is a table `filter` of an iptables that is not nftables' own.
    pub has_legacy_filter: bool,
    /// Whether kube-proxy has IPVS send on what goes to Services; `None` where that was not asked.
    pub has_ipvs: Option<bool>,
}

/// What nftables answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nftables {
    /// It is there and may be used.
    Answers,
    /// Whoever asks may not.
    NotPermitted,
    /// It is not there, or does not work.
    Fails(String),
}

/// Says what was seen of a cluster.
pub fn cluster(seen: &Cluster, now: Timestamp) -> Vec<Check> {
    let confirming = seen.confirming(now);
    let checks = [
        Some(seen.plugin(confirming)),
        Some(seen.enforcement(confirming)),
        Some(seen.agents(confirming)),
        seen.wide(confirming),
        more_networks(&seen.plugins),
        Some(seen.webhook()),
    ];
    checks.into_iter().flatten().collect()
}

/// Says what was seen of a node.
pub fn node(seen: &Node) -> Vec<Check> {
    let known = plugins::of_types(&seen.types);
    let mut checks = vec![plugin(&known, "node")];
    checks.extend(more_networks(&known));
    if seen.types.iter().any(|name| name == OWN) {
        checks.push(Check::ok(
            "node-start",
            "new pods are held back until their rules are in force (the plugin `ringfence-cni` is in the node's chain)",
        ));
    }
    checks.extend(
        seen.switches
            .iter()
            .map(|(name, state)| switch(name, *state)),
    );
    checks.extend(seen.nftables.as_ref().map(nftables));
    if seen.nftables == Some(Nftables::Answers) {
        checks.extend(others::rules(seen));
    }
    checks.extend(seen.has_ipvs.map(services));
    checks
}

/// The type of our own plugin.
const OWN: &str = "ringfence-cni";

/// The switches of a node that matter, as `sysctl` names them.
pub const SWITCHES: [&str; 4] = [
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
];

fn switch(name: &str, state: Option<bool>) -> Check {
    let bridge = name.starts_with("net.bridge.");
    let sixth = name.contains('6');
    let id = if bridge { "bridge" } else { "forwarding" };
    match state {
        Some(true) => Check::ok(id, format!("{name} is 1")),
        Some(false) if bridge => Check::new(
            Level::Problem,
            id,
            format!("{name} is 0: packets between pods on one bridge do not meet the rules"),
        )
        .advise(format!("sysctl -w {name}=1, or the component deploy/agent/prepare")),
        None if bridge => Check::new(
            Level::Warning,
            id,
            format!("{name} is not there, since br_netfilter is not loaded: if pods share a bridge, packets between them do not meet the rules"),
        )
        .advise("modprobe br_netfilter on the node, and a file in /etc/modules-load.d; not needed where no two pods share a bridge"),
        // Clusters of one family have the other's switch off.
        Some(false) | None if sixth => {
            Check::new(Level::Warning, id, format!("{name} is not 1: pods have no IPv6 to elsewhere"))
                .advise(format!("sysctl -w {name}=1 if the cluster has IPv6"))
        }
        Some(false) | None => Check::new(
            Level::Problem,
            id,
            format!("{name} is not 1: pods reach nothing outside of their node"),
        )
        .advise(format!("sysctl -w {name}=1")),
    }
}

fn nftables(answer: &Nftables) -> Check {
    let id = "nftables";
    match answer {
        Nftables::Answers => Check::ok(id, "the kernel has nf_tables, and this process may use it"),
        Nftables::NotPermitted => Check::new(
            Level::Unknown,
            id,
            "this process may not ask nftables, so nothing is known of it",
        )
        .advise("run this with the capability NET_ADMIN in the node's network namespace"),
        Nftables::Fails(why) => Check::new(
            Level::Problem,
            id,
            format!("nftables does not answer: {why}"),
        )
        .advise("load the module nf_tables: modprobe nf_tables"),
    }
}

fn services(has_ipvs: bool) -> Check {
    let id = "services";
    if has_ipvs {
        Check::new(
            Level::Problem,
            id,
            "kube-proxy sends on by IPVS (kube-ipvs0 is there): what pods send to Services passes the rules of the agent by",
        )
        .advise("kube-proxy --proxy-mode nftables, or iptables")
    } else {
        Check::ok(
            id,
            "what pods send to Services meets the rules (kube-proxy is not in mode ipvs)",
        )
    }
}

fn plugin(known: &[Plugin], whose: &str) -> Check {
    let id = if whose == "node" {
        "node-plugin"
    } else {
        "plugin"
    };
    let primary = known
        .iter()
        .filter(|it| it.enforces != Enforces::MoreNetworks);
    let words = primary.map(|plugin| match plugin.enforces {
        Enforces::Yes => format!("{}, which enforces NetworkPolicy", plugin.name),
        Enforces::No | Enforces::MoreNetworks => {
            format!("{}, which ignores NetworkPolicy", plugin.name)
        }
        Enforces::If(condition) => format!(
            "{}, which enforces NetworkPolicy if {condition}",
            plugin.name
        ),
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() {
        return Check::new(
            Level::Warning,
            id,
            format!("no network plugin of this {whose} is known to this program"),
        )
        .advise("see its documentation for whether it enforces NetworkPolicy (k3s has an enforcer built in, of which only a node's rules tell)");
    }
    Check::ok(id, format!("this {whose} has {}", words.join("; and ")))
}

fn more_networks(known: &[Plugin]) -> Option<Check> {
    let mut known = known.iter();
    let plugin = known.find(|plugin| plugin.enforces == Enforces::MoreNetworks)?;
    let says = format!(
        "{} can give pods further networks, and NetworkPolicies hold a pod on its first network only",
        plugin.name
    );
    let advice =
        "isolate further networks by other means (MultiNetworkPolicy, or separate networks)";
    Some(Check::new(Level::Warning, "networks", says).advise(advice))
}

// === impl Cluster ===

impl Cluster {
    /// How many nodes have a receipt that counts.
    fn confirming(&self, now: Timestamp) -> usize {
        let receipts = self.receipts.as_ref();
        let counts = |node: &&NodeName| {
            let receipt = receipts.and_then(|receipts| receipts.get(*node));
            receipt.is_some_and(|receipt| receipt.worth(now) == Worth::Confirmed)
        };
        self.nodes.iter().filter(counts).count()
    }

    /// Whether every node's agent confirms that it enforces.
    fn by_agents(&self, confirming: usize) -> bool {
        confirming > 0 && confirming == self.nodes.len()
    }

    fn plugin(&self, confirming: usize) -> Check {
        let check = plugin(&self.plugins, "cluster");
        if check.level == Level::Ok || !self.by_agents(confirming) {
            return check;
        }
        Check::ok(
            check.id,
            "no network plugin of this cluster is known to this program, and none has to be: Ringfence's agents enforce",
        )
    }

    fn enforcement(&self, confirming: usize) -> Check {
        let id = "enforcement";
        let all = self.nodes.len();
        let by = |enforces: fn(Enforces) -> bool| {
            let mut plugins = self.plugins.iter();
            plugins.find(|plugin| enforces(plugin.enforces))
        };
        let certain = by(|enforces| enforces == Enforces::Yes);
        let perhaps = by(|enforces| matches!(enforces, Enforces::If(_)));
        match (certain, confirming) {
            (Some(plugin), 0) => Check::ok(id, format!("{} enforces NetworkPolicy", plugin.name)),
            (Some(plugin), _) => Check::new(
                Level::Warning,
                id,
                format!("{} and Ringfence's agents both enforce: what either denies is denied", plugin.name),
            )
            .advise("have one of them enforce"),
            (None, confirming) if self.by_agents(confirming) => {
                Check::ok(id, "Ringfence's agents confirm that they enforce NetworkPolicy on every node")
            }
            (None, 0) => match perhaps {
                Some(plugin) => Check::new(
                    Level::Warning,
                    id,
                    format!("whether {} enforces NetworkPolicy here cannot be seen", plugin.name),
                )
                .advise("see its settings; where it does not, run Ringfence's agents (deploy/agent)"),
                None if self.plugins.iter().any(|it| it.enforces == Enforces::No) => Check::new(
                    Level::Problem,
                    id,
                    "nothing enforces NetworkPolicy: policies are accepted and have no effect",
                )
                .advise("run Ringfence's agents: kubectl apply -k deploy/agent"),
                None => Check::new(Level::Warning, id, "nothing is known that would enforce NetworkPolicy here")
                    .advise("see the network plugin's documentation; where it does not, run Ringfence's agents (deploy/agent)"),
            },
            (None, confirming) => Check::new(
                Level::Problem,
                id,
                format!("only {confirming} of {all} nodes confirm that they enforce NetworkPolicy"),
            )
            .advise("`ringfence status` names the others and the reasons"),
        }
    }

    fn agents(&self, confirming: usize) -> Check {
        let id = "agents";
        let all = self.nodes.len();
        match self.agents {
            None if confirming == 0 => Check::ok(id, "no agents of Ringfence run here, and no node has a fresh receipt"),
            None => Check::ok(id, format!("{confirming} of {all} nodes have a fresh receipt, from agents outside of a DaemonSet")),
            Some((wanted, ready)) if ready < wanted => Check::new(
                Level::Problem,
                id,
                format!("{ready} of {wanted} agents of Ringfence are ready; {confirming} of {all} nodes have a fresh receipt"),
            )
            .advise("see the logs of the others: kubectl logs -n ringfence-agent -l app.kubernetes.io/component=agent"),
            Some((wanted, _)) if confirming < all => Check::new(
                Level::Problem,
                id,
                format!("all {wanted} agents of Ringfence are ready, but only {confirming} of {all} nodes have a fresh receipt"),
            )
            .advise("`ringfence status` names the others and the reasons"),
            Some((wanted, _)) => Check::ok(
                id,
                format!("all {wanted} agents of Ringfence are ready, and every node has a fresh receipt"),
            ),
        }
    }

    fn wide(&self, confirming: usize) -> Option<Check> {
        let id = "cluster-policies";
        let count = self.wide_policies.filter(|count| *count > 0)?;
        if self.by_agents(confirming) {
            return Some(Check::ok(
                id,
                format!(
                    "Ringfence's agents enforce the {count} ClusterNetworkPolicies and AdminNetworkPolicies on every node"
                ),
            ));
        }
        let says = format!(
            "there are {count} ClusterNetworkPolicies or AdminNetworkPolicies, and most network plugins ignore them"
        );
        let advice = "see whether yours enforces policy.networking.k8s.io in their version; Ringfence's agents do";
        Some(Check::new(Level::Warning, id, says).advise(advice))
    }

    fn webhook(&self) -> Check {
        let id = "webhook";
        match self.webhook.filter(|entries| *entries > 0) {
            Some(_) if self.demands == 0 => Check::new(
                Level::Warning,
                id,
                "the webhook is registered, and no Guardrail or ReachabilityRule asks for anything",
            )
            .advise("the controller takes the registration away by itself: see whether it runs"),
            Some(_) => Check::ok(id, "the admission webhook is registered"),
            None if self.demands == 0 => Check::ok(
                id,
                "no Guardrail or ReachabilityRule asks for anything, so no webhook is registered",
            ),
            None => Check::new(
                Level::Problem,
                id,
                format!("{} Guardrails and ReachabilityRules are there, and no webhook is registered: changes are not judged", self.demands),
            )
            .advise("see whether the controller runs: kubectl -n ringfence-system get deployments"),
        }
    }
}

// === impl Check ===

impl Check {
    /// Something that was looked at.
    pub fn new(level: Level, id: &'static str, says: impl Into<String>) -> Self {
        Self {
            id,
            level,
            says: says.into(),
            advice: None,
        }
    }

    fn ok(id: &'static str, says: impl Into<String>) -> Self {
        Self::new(Level::Ok, id, says)
    }

    /// With what to do about it.
    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests;
