//! Network plugins: by what they are known in a cluster and on a node, and whether they enforce policies.

use serde_json::Value;

use super::chains::Chain;

/// What is known of a network plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Its name, for people.
    pub name: &'static str,
    /// What its `DaemonSet`s are called: the name, or how it begins before a `-`.
    daemon_sets: &'static [&'static str],
    /// The types that it has in the configuration of a node.
    types: &'static [&'static str],
    /// What its tables or chains of rules for policies are called, or how that begins.
    rules: &'static [&'static str],
    /// Whether it enforces NetworkPolicy.
    pub enforces: Enforces,
}

/// Whether something enforces NetworkPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforces {
    /// It does.
    Yes,
    /// It ignores it.
    No,
    /// It does under a condition that cannot be seen from here.
    If(&'static str),
    /// It gives pods more networks, which policies do not speak of.
    MoreNetworks,
}

/// The plugins that are known, those that enforce first.
pub const PLUGINS: [Plugin; 17] = [
    plugin("Calico", &["calico-node"], &["calico"], Enforces::Yes)
        .with_rules(&["cali-", "filter-cali-"]),
    plugin(
        "Canal (Flannel with Calico's policies)",
        &["canal"],
        &[],
        Enforces::Yes,
    ),
    plugin(
        "Cilium",
        &["cilium", "anetd"],
        &["cilium-cni"],
        Enforces::Yes,
    ),
    plugin("Weave Net", &["weave-net"], &["weave-net"], Enforces::Yes).with_rules(&["WEAVE-NPC"]),
    plugin("Antrea", &["antrea-agent"], &["antrea"], Enforces::Yes),
    plugin("Kube-OVN", &["kube-ovn-cni"], &["kube-ovn"], Enforces::Yes),
    plugin(
        "OVN-Kubernetes",
        &["ovnkube-node"],
        &["ovn-k8s-cni-overlay"],
        Enforces::Yes,
    ),
    plugin(
        "kube-network-policies",
        &["kube-network-policies"],
        &[],
        Enforces::Yes,
    )
    .with_rules(&["kube-network-policies"]),
    plugin(
        "the Azure network policy manager",
        &["azure-npm"],
        &[],
        Enforces::Yes,
    )
    .with_rules(&["AZURE-NPM"]),
    plugin("Romana", &["romana-agent"], &["romana"], Enforces::Yes),
    plugin(
        "kube-router",
        &["kube-router"],
        &[],
        Enforces::If("its firewall is on (--run-firewall, the default)"),
    )
    .with_rules(&["KUBE-ROUTER-FORWARD", "kube-router-filter-"]),
    plugin(
        "kindnet",
        &["kindnet"],
        &[],
        Enforces::If("it is of kind 0.24 or later"),
    )
    .with_rules(&["kindnet-network-policies"]),
    plugin(
        "the Amazon VPC CNI",
        &["aws-node"],
        &["aws-cni"],
        Enforces::If("its network policy agent is on (enableNetworkPolicy)"),
    ),
    plugin(
        "the Azure CNI",
        &["azure-cni", "azure-cns"],
        &["azure-vnet"],
        Enforces::If("the cluster was made with a network policy engine"),
    ),
    plugin(
        "Flannel",
        &["kube-flannel", "flannel"],
        &["flannel"],
        Enforces::No,
    ),
    plugin("a plain bridge", &[], &["bridge"], Enforces::No),
    plugin(
        "Multus",
        &["kube-multus", "multus"],
        &["multus", "multus-shim"],
        Enforces::MoreNetworks,
    ),
];

const fn plugin(
    name: &'static str,
    daemon_sets: &'static [&'static str],
    types: &'static [&'static str],
    enforces: Enforces,
) -> Plugin {
    Plugin {
        name,
        daemon_sets,
        types,
        rules: &[],
        enforces,
    }
}

// === impl Plugin ===

impl Plugin {
    const fn with_rules(self, rules: &'static [&'static str]) -> Self {
        Self { rules, ..self }
    }

    /// Whose rules for policies a chain is of.
    pub(super) fn of_chain(chain: &Chain) -> Option<Self> {
        let has = |plugin: &Self| plugin.rules.iter().any(|name| chain.is_called(name));
        PLUGINS.into_iter().find(has)
    }
}

/// The plugins that a DaemonSet runs, by its name and the names of its containers; none for one that is no plugin.
pub fn of_daemon_set(object: &Value) -> Vec<Plugin> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = object.pointer("/metadata/name").map(text);
    let containers = object.pointer("/spec/template/spec/containers");
    let containers = containers.and_then(Value::as_array).into_iter().flatten();
    let containers = containers.filter_map(|container| container.get("name").map(text));
    let own: Vec<Plugin> = name.iter().flat_map(|name| called(name)).collect();
    // Some that ignore policies run what enforces them beside themselves, in one pod.
    let ignores = own.iter().any(|plugin| plugin.enforces == Enforces::No);
    let beside = containers
        .filter(|_| ignores)
        .flat_map(|name| called(&name).collect::<Vec<_>>());
    let beside = beside.filter(|plugin| plugin.enforces == Enforces::Yes);
    let mut found: Vec<Plugin> = beside.collect();
    found.extend(own);
    found
}

/// The plugins of a node, by the types in its configuration.
pub fn of_types<'t>(types: impl IntoIterator<Item = &'t String>) -> Vec<Plugin> {
    let types: Vec<&String> = types.into_iter().collect();
    let has = |plugin: &Plugin| {
        let mut known = plugin.types.iter();
        known.any(|known| types.iter().any(|name| name == known))
    };
    PLUGINS.into_iter().filter(has).collect()
}

fn called(name: &str) -> impl Iterator<Item = Plugin> {
    PLUGINS.into_iter().filter(move |plugin| {
        let mut known = plugin.daemon_sets.iter();
        known.any(|known| is_called(name, known))
    })
}

fn is_called(name: &str, known: &str) -> bool {
    let rest = name.strip_prefix(known);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(daemon_set: &str, containers: &[&str]) -> Vec<&'static str> {
        let containers = containers.iter().map(|name| json!({"name": name}));
        let object = json!({
            "metadata": {"name": daemon_set, "namespace": "kube-system"},
            "spec": {"template": {"spec": {"containers": containers.collect::<Vec<_>>()}}},
        });
        let plugins = of_daemon_set(&object).into_iter();
        plugins.map(|plugin| plugin.name).collect()
    }

    #[test]
    fn plugins_are_known_by_their_daemon_sets() {
        assert_eq!(names("calico-node", &["calico-node"]), ["Calico"]);
        assert_eq!(names("kube-flannel-ds", &["kube-flannel"]), ["Flannel"]);
        assert_eq!(names("kube-flannel-ds-amd64", &[]), ["Flannel"]);
        assert_eq!(names("kube-multus-ds", &["kube-multus"]), ["Multus"]);
        assert_eq!(
            names(
                "kube-flannel-ds",
                &["kube-flannel", "kube-network-policies"]
            ),
            ["kube-network-policies", "Flannel"]
        );
        let canal = "Canal (Flannel with Calico's policies)";
        assert_eq!(names("canal", &["calico-node", "kube-flannel"]), [canal]);
        for other in ["kube-proxy", "canalization", "my-cilium", "ringfence-agent"] {
            assert!(names(other, &["main"]).is_empty(), "{other}");
        }
    }

    #[test]
    fn plugins_are_known_by_the_configuration_of_a_node() {
        let of = |types: &[&str]| {
            let types: Vec<String> = types.iter().map(|name| (*name).to_owned()).collect();
            let names = of_types(&types).into_iter().map(|plugin| plugin.name);
            names.collect::<Vec<_>>()
        };
        assert_eq!(of(&["flannel", "portmap", "ringfence"]), ["Flannel"]);
        assert_eq!(of(&["calico", "bandwidth"]), ["Calico"]);
        assert!(of(&["portmap"]).is_empty());
    }

    #[test]
    fn who_enforces_is_known_by_its_rules() {
        let of = |table: &str, name: &str| {
            let chain = Chain {
                family: "ip",
                table: table.to_owned(),
                name: name.to_owned(),
                on_the_way: None,
            };
            Plugin::of_chain(&chain).map(|plugin| plugin.name)
        };
        for (table, chain, name) in [
            ("filter", "cali-tw-cali12345678901", "Calico"),
            ("calico", "filter-cali-FORWARD", "Calico"),
            ("filter", "WEAVE-NPC", "Weave Net"),
            ("filter", "KUBE-ROUTER-FORWARD", "kube-router"),
            (
                "kube-router-filter-ipv4",
                "KUBE-ROUTER-FORWARD",
                "kube-router",
            ),
            ("kindnet-network-policies", "postrouting", "kindnet"),
            (
                "kube-network-policies",
                "prerouting",
                "kube-network-policies",
            ),
            ("filter", "AZURE-NPM", "the Azure network policy manager"),
        ] {
            assert_eq!(of(table, chain), Some(name), "{table} {chain}");
        }
        for (table, chain) in [
            ("kube-proxy", "filter-forward"),
            ("filter", "KUBE-FORWARD"),
            ("filter", "FLANNEL-FWD"),
            ("nat", "KUBE-ROUTER-HAIRPIN"),
            // Left behind where the rest was taken away by its name.
            ("filter", "KUBE-NWPLCY-DEFAULT"),
            ("ringfence", "forward"),
        ] {
            assert_eq!(of(table, chain), None, "{table} {chain}");
        }
    }
}
