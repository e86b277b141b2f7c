//! What cluster network policies mean, as slowly and plainly as `evaluator` says what network policies do.
//!
//! Written from the text of the API (`policy.networking.k8s.io/v1alpha2`, release v0.2.0) and its overview,
//! <https://network-policy-api.sigs.k8s.io/api-overview/>. It shares no code and no type with the model.

use serde_json::Value;

use crate::evaluator::{
    Address, Connection, End, INGRESS, contains, is_finished, is_on_host_network, list,
    named_ports, namespace_labels, peers, pod_of, rules, selects,
};

/// What a tier says of a connection at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    Accept,
    Deny,
    /// Nothing, or that the next tier decides.
    Next,
}

/// Whether a peer means an end, where that can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Yes,
    No,
    NobodyKnows,
}

/// What a tier says at the end of a pod.
///
/// "If two (or more) policies in the same tier with the same priority could match a connection, then the implementation can
/// apply any of the matching policies": a connection passes for sure only if it does whichever is applied.
pub(crate) fn says(
    cluster: &[Value],
    tier: &str,
    direction: &str,
    connection: &Connection<'_>,
    pod: &Value,
    other: End<'_>,
    address: Address,
) -> Says {
    let of_tier = |policy: &&Value| {
        policy["kind"] == "ClusterNetworkPolicy" && policy["spec"]["tier"] == tier
    };
    let policies: Vec<&Value> = cluster.iter().filter(of_tier).collect();
    let priority = |policy: &&Value| policy["spec"]["priority"].as_u64();
    // "Policies with lower priority values have higher precedence."
    let mut priorities: Vec<Option<u64>> = policies.iter().map(priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    for next in priorities {
        let mut said = Vec::new();
        for policy in &policies {
            if priority(policy) == next && is_subject(cluster, &policy["spec"], pod) {
                said.extend(first_action(
                    cluster, policy, direction, connection, other, address,
                ));
            }
        }
        for strictest in ["Deny", "Pass", "Accept"] {
            if said.contains(&strictest) {
                return match strictest {
                    "Deny" => Says::Deny,
                    "Accept" => Says::Accept,
                    // "Skips all further rules in the current tier and passes evaluation to the next tier."
                    _ => Says::Next,
                };
            }
        }
    }
    Says::Next
}

/// "Note that host-networked pods are not included in subject selection."
fn is_subject(cluster: &[Value], spec: &Value, pod: &Value) -> bool {
    !is_on_host_network(pod) && !is_finished(pod) && means_pod(cluster, &spec["subject"], pod)
}

/// A `namespaces` selector means all pods there; a `pods` one "selects pods via namespace AND pod selectors".
fn means_pod(cluster: &[Value], peer: &Value, pod: &Value) -> bool {
    let namespace = namespace_labels(cluster, &pod["metadata"]["namespace"]);
    if peer["namespaces"].is_object() {
        return selects(&peer["namespaces"], &namespace);
    }
    selects(&peer["pods"]["namespaceSelector"], &namespace)
        && selects(
            &peer["pods"]["podSelector"],
            &pod_of(pod)["metadata"]["labels"],
        )
}

/// "A rule that appears at the top of the rules would take the highest precedence."
fn first_action<'p>(
    cluster: &[Value],
    policy: &'p Value,
    direction: &str,
    connection: &Connection<'_>,
    other: End<'_>,
    address: Address,
) -> Option<&'p str> {
    for rule in rules(policy, direction) {
        let action = rule["action"].as_str().expect("an action");
        let known = ["namespaces", "pods", "nodes", "networks", "domainNames"];
        let known = if direction == INGRESS {
            &known[..2]
        } else {
            &known
        };
        let is_unknown = |peer: &Value| known.iter().all(|field| peer[*field].is_null());
        // "DomainNames is only supported for Accept rules": elsewhere it is as good as unknown.
        let is_out_of_place = |peer: &Value| action != "Accept" && peer["domainNames"].is_array();
        let peers = peers(rule, direction);
        if peers
            .iter()
            .any(|peer| is_unknown(peer) || is_out_of_place(peer))
        {
            // "For Accept rules, fail closed means: treat the rule as matching no traffic. For Deny and Pass rules [...]: treat
            // the rule as a 'Deny all' rule."
            if action == "Accept" {
                continue;
            }
            return Some("Deny");
        }
        // "If unspecified, protocol-specific attributes will not be used to match traffic."
        let protocols = list(&rule["protocols"]);
        if !protocols.is_empty() && !protocols.iter().any(|one| port_matches(one, connection)) {
            continue;
        }
        let means: Vec<Means> = peers
            .iter()
            .map(|peer| means(cluster, peer, other, address))
            .collect();
        if means.contains(&Means::Yes) {
            return Some(action);
        }
        // What may be meant is never passed for it.
        if means.contains(&Means::NobodyKnows) && action != "Accept" {
            return Some("Deny");
        }
    }
    None
}

/// Whether an entry of `protocols` means the protocol and port of a connection.
fn port_matches(entry: &Value, connection: &Connection<'_>) -> bool {
    if let Some(name) = entry["destinationNamedPort"].as_str() {
        return named_ports(connection.to, name, connection.protocol).contains(&connection.port);
    }
    let port = &entry[connection.protocol.to_lowercase()]["destinationPort"];
    let (start, end) = (&port["range"]["start"], &port["range"]["end"]);
    match (start.as_u64(), end.as_u64()) {
        (Some(start), Some(end)) => start <= connection.port && connection.port <= end,
        _ => port["number"] == connection.port,
    }
}

fn means(cluster: &[Value], peer: &Value, end: End<'_>, address: Address) -> Means {
    let sure = |is_meant| if is_meant { Means::Yes } else { Means::No };
    let pod = match end {
        // "Host-networked pods are not included in this type of peer."
        End::Pod(pod) if !is_on_host_network(pod) && !is_finished(pod) => Some(pod),
        _ => None,
    };
    if peer["namespaces"].is_object() || peer["pods"].is_object() {
        return sure(pod.is_some_and(|pod| means_pod(cluster, peer, pod)));
    }
    if peer["networks"].is_array() {
        let blocks = list(&peer["networks"]);
        return sure(blocks.iter().any(|block| {
            let block = block.as_str().expect("a block");
            match address {
                Address::Known(address) => contains(block, address),
                Address::UnknownIpv4 => block == "0.0.0.0/0",
                Address::UnknownIpv6 => block == "::/0",
            }
        }));
    }
    if peer["domainNames"].is_array() {
        return if pod.is_some() {
            Means::No
        } else {
            Means::NobodyKnows
        };
    }
    if pod.is_some() {
        return Means::No;
    }
    // "It selects the nodeIPs": those of a node that is known, or of one that the end says it is.
    let (name, is_node) = match end {
        End::Pod(pod) => (pod_of(pod)["spec"]["nodeName"].as_str(), !is_finished(pod)),
        End::Node(name, _) => (Some(name), true),
        End::Outside(_) => (None, false),
    };
    if matches!(end, End::Pod(_)) && !is_node {
        return Means::No;
    }
    let nodes = || cluster.iter().filter(|one| one["kind"] == "Node");
    let is_meant = |node: &Value| selects(&peer["nodes"], &node["metadata"]["labels"]);
    if let Some(node) = nodes().find(|node| node["metadata"]["name"].as_str() == name) {
        return sure(is_meant(node));
    }
    if let Address::Known(address) = address {
        let has_it = |node: &&Value| {
            let addresses = list(&node["status"]["addresses"]);
            addresses
                .iter()
                .any(|one| one["address"] == address.to_string())
        };
        let having: Vec<&Value> = nodes().filter(has_it).collect();
        if !having.is_empty() {
            return sure(having.into_iter().any(is_meant));
        }
    }
    if !is_node {
        return Means::No;
    }
    // "If present but empty, it selects all Nodes."
    let is_empty = |field: &str| {
        peer["nodes"][field]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
    };
    if is_empty("matchLabels") && list(&peer["nodes"]["matchExpressions"]).is_empty() {
        Means::Yes
    } else {
        Means::NobodyKnows
    }
}
