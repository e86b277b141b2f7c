//! What network policies mean, as slowly and plainly as one can write it down.
//!
//! Written from the text of the API and its documentation, over the JSON objects as they are, one small function for each
//! sentence. It shares no code and no type with the model that it judges; do not make it clever.
//!
//! API: <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#networkpolicyspec-v1-networking-k8s-io>,
//! documentation: <https://kubernetes.io/docs/concepts/services-networking/network-policies/>.

use std::net::IpAddr;

use serde_json::Value;

use crate::tiers::{self, Says};

/// The two directions, by the word that `policyTypes` uses.
pub(crate) const INGRESS: &str = "Ingress";
pub(crate) const EGRESS: &str = "Egress";

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// A pod, or an object with a pod template.
    Pod(&'a Value),
    /// A node, by name, and its address.
    Node(&'a str, Option<IpAddr>),
    /// Something outside of the cluster.
    Outside(IpAddr),
}

/// A connection that someone wants to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection<'a> {
    pub(crate) from: End<'a>,
    pub(crate) to: End<'a>,
    pub(crate) protocol: &'a str,
    pub(crate) port: u64,
}

/// The address that an end has in one connection; an unknown one is still of a family.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Address {
    Known(IpAddr),
    UnknownIpv4,
    UnknownIpv6,
}

/// "For a connection from a source pod to a destination pod to be allowed, both the egress policy on the source pod and the
/// ingress policy on the destination pod need to allow the connection."
///
/// A connection is over two addresses of the same family: it can be made if any two will do.
pub(crate) fn is_allowed(cluster: &[Value], connection: &Connection<'_>, families: &[u8]) -> bool {
    for family in families {
        for source in addresses(connection.from, *family) {
            for destination in addresses(connection.to, *family) {
                let leaves = passes(
                    cluster,
                    EGRESS,
                    connection,
                    connection.from,
                    connection.to,
                    destination,
                );
                let enters = passes(
                    cluster,
                    INGRESS,
                    connection,
                    connection.to,
                    connection.from,
                    source,
                );
                if leaves && enters {
                    return true;
                }
            }
        }
    }
    false
}

/// The addresses of a family (4 or 6) that an end has; an end of which none are known may get one of either.
fn addresses(end: End<'_>, family: u8) -> Vec<Address> {
    let mut known = Vec::new();
    match end {
        End::Pod(pod) if !is_finished(pod) => {
            for ip in list(&pod["status"]["podIPs"]) {
                known.push(
                    ip["ip"]
                        .as_str()
                        .expect("an address")
                        .parse()
                        .expect("an address"),
                );
            }
        }
        End::Pod(_) => {}
        End::Node(_, address) => known.extend(address),
        End::Outside(address) => known.push(address),
    }
    if known.is_empty() {
        return vec![if family == 4 {
            Address::UnknownIpv4
        } else {
            Address::UnknownIpv6
        }];
    }
    known.retain(|address| address.is_ipv4() == (family == 4));
    known.into_iter().map(Address::Known).collect()
}

/// Whether policies let a connection pass at one of its ends.
fn passes(
    cluster: &[Value],
    direction: &str,
    connection: &Connection<'_>,
    own: End<'_>,
    other: End<'_>,
    other_address: Address,
) -> bool {
    // Policies are about pods: nodes and the outside are not isolated by anything.
    let End::Pod(pod) = own else { return true };
    // Pods on the host network are treated as the node; finished pods have no network any more.
    if is_on_host_network(pod) || is_finished(pod) {
        return true;
    }
    // "a Pod cannot block access to itself"
    if let End::Pod(other) = other
        && pod["kind"] == "Pod"
        && other["kind"] == "Pod"
        && pod["metadata"]["name"] == other["metadata"]["name"]
        && pod["metadata"]["namespace"] == other["metadata"]["namespace"]
    {
        return true;
    }
    // "The Admin tier takes precedence over all other policies."
    let tier = |tier| {
        tiers::says(
            cluster,
            tier,
            direction,
            connection,
            pod,
            other,
            other_address,
        )
    };
    match tier("Admin") {
        Says::Accept => return true,
        Says::Deny => return false,
        Says::Next => {}
    }
    // "v1.NetworkPolicy always makes a final decision for selected pods. Further evaluation only happens for Pods not selected."
    // "If a given connection wasn't allowed or denied by any of the tiers, [...] all pods can communicate with each other."
    let isolating = isolating(cluster, direction, pod);
    if isolating.is_empty() {
        return tier("Baseline") != Says::Deny;
    }
    // "traffic to and from the node where a Pod is running is always allowed", as far as network policies go
    if let (Some(own), Some(node)) = (pod_of(pod)["spec"]["nodeName"].as_str(), node_of(other))
        && own == node
    {
        return true;
    }
    // "Network policies do not conflict; they are additive."
    for policy in isolating {
        for rule in rules(policy, direction) {
            if rule_allows(
                cluster,
                policy,
                direction,
                rule,
                connection,
                other,
                other_address,
            ) {
                return true;
            }
        }
    }
    false
}

/// The policies that isolate a pod in a direction: those of its namespace "that both select the pod" and have the
/// direction in their `policyTypes`. A namespace that is being deleted has no policies to count upon.
pub(crate) fn isolating<'c>(cluster: &'c [Value], direction: &str, pod: &Value) -> Vec<&'c Value> {
    let mut isolating = Vec::new();
    if is_on_host_network(pod) || is_finished(pod) {
        return isolating;
    }
    for policy in cluster {
        if is_in_force(cluster, policy, pod)
            && policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
            && !is_terminating(cluster, &policy["metadata"]["namespace"])
            && selects(
                &policy["spec"]["podSelector"],
                &pod_of(pod)["metadata"]["labels"],
            )
            && has_type(policy, direction)
        {
            isolating.push(policy);
        }
    }
    isolating
}

/// Whether a policy is in force for a pod of its namespace. A NetworkPolicy is, but where one of its name is tried on the pod in its
/// place; one on trial is for the pods that it is tried on.
fn is_in_force(cluster: &[Value], policy: &Value, pod: &Value) -> bool {
    match policy["kind"].as_str() {
        Some("NetworkPolicy") => {
            let is_of_name = |other: &&Value| {
                other["kind"] == "StagedNetworkPolicy"
                    && other["metadata"]["namespace"] == policy["metadata"]["namespace"]
                    && other["metadata"]["name"] == policy["metadata"]["name"]
            };
            !cluster
                .iter()
                .filter(is_of_name)
                .any(|other| is_tried_on(other, pod))
        }
        Some("StagedNetworkPolicy") => is_tried_on(policy, pod),
        _ => false,
    }
}

/// Whether a policy on trial is in force for a pod of its namespace.
fn is_tried_on(policy: &Value, pod: &Value) -> bool {
    if policy["spec"]["stage"] != "Canary" {
        return false;
    }
    let canary = &policy["spec"]["canary"];
    match canary["percent"].as_u64() {
        None => selects(&canary["podSelector"], &pod_of(pod)["metadata"]["labels"]),
        // The pods of a template have no names yet.
        Some(percent) => pod["kind"] == "Pod" && lot(pod) < percent,
    }
}

/// FNV-1a of `namespace/name`, its halves put together, of which the rest by a hundred counts.
fn lot(pod: &Value) -> u64 {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or("default");
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in format!("{}/{}", text("namespace"), text("name")).bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    (hash ^ (hash >> 32)) % 100
}

/// "If this field is not specified, it will default based on the existence of ingress or egress rules; policies that contain an
/// egress section are assumed to affect egress, and all policies are assumed to affect ingress."
fn has_type(policy: &Value, direction: &str) -> bool {
    let types = list(&policy["spec"]["policyTypes"]);
    if !types.is_empty() {
        return types.iter().any(|one| one == direction);
    }
    direction == INGRESS || !list(&policy["spec"]["egress"]).is_empty()
}

/// The rules of a policy for a direction.
pub(crate) fn rules<'p>(policy: &'p Value, direction: &str) -> &'p [Value] {
    list(
        &policy["spec"][if direction == INGRESS {
            "ingress"
        } else {
            "egress"
        }],
    )
}

/// The peers of a rule for a direction.
pub(crate) fn peers<'r>(rule: &'r Value, direction: &str) -> &'r [Value] {
    list(&rule[if direction == INGRESS { "from" } else { "to" }])
}

/// "The traffic must match both ports and from." Each: "If this field is empty or missing, this rule matches all."
pub(crate) fn rule_allows(
    cluster: &[Value],
    policy: &Value,
    direction: &str,
    rule: &Value,
    connection: &Connection<'_>,
    other: End<'_>,
    other_address: Address,
) -> bool {
    let peers = peers(rule, direction);
    let ports = list(&rule["ports"]);
    let peer_matches = peers.is_empty()
        || peers
            .iter()
            .any(|peer| peer_matches(cluster, policy, peer, other, other_address));
    let port_matches = ports.is_empty() || ports.iter().any(|port| port_matches(port, connection));
    peer_matches && port_matches
}

/// Whether one item of `from` or `to` means an end.
pub(crate) fn peer_matches(
    cluster: &[Value],
    policy: &Value,
    peer: &Value,
    end: End<'_>,
    address: Address,
) -> bool {
    // "If this field is set then neither of the other fields can be."
    if peer["ipBlock"].is_object() {
        return block_contains(&peer["ipBlock"], address);
    }
    // Selectors mean pods, and neither those on the host network nor finished ones.
    let End::Pod(pod) = end else { return false };
    if is_on_host_network(pod) || is_finished(pod) {
        return false;
    }
    let namespace = &pod["metadata"]["namespace"];
    let namespace_matches = if peer["namespaceSelector"].is_object() {
        selects(
            &peer["namespaceSelector"],
            &namespace_labels(cluster, namespace),
        )
    } else {
        // "Otherwise it selects the pods matching podSelector in the policy's own namespace."
        *namespace == policy["metadata"]["namespace"]
    };
    // "Otherwise it selects all pods in the namespaces selected by namespaceSelector."
    namespace_matches && selects(&peer["podSelector"], &pod_of(pod)["metadata"]["labels"])
}

/// Whether one item of `ports` means the protocol and port of a connection.
pub(crate) fn port_matches(port: &Value, connection: &Connection<'_>) -> bool {
    // "If not specified, this field defaults to TCP."
    if port["protocol"].as_str().unwrap_or("TCP") != connection.protocol {
        return false;
    }
    match &port["port"] {
        // "If this field is not provided, this matches all port names and numbers."
        Value::Null => true,
        // "endPort indicates that the range of ports from port to endPort if set, inclusive, should be allowed"
        Value::Number(first) => {
            let first = first.as_u64().expect("a port");
            let last = port["endPort"].as_u64().unwrap_or(first);
            first <= connection.port && connection.port <= last
        }
        // "a numerical or named port on a pod": of the pod that is connected to.
        Value::String(name) => {
            named_ports(connection.to, name, connection.protocol).contains(&connection.port)
        }
        other => panic!("{other} is no port"),
    }
}

/// The numbers that a pod gives to the name of a port, in its containers and in init containers that keep running.
pub(crate) fn named_ports(end: End<'_>, name: &str, protocol: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    let End::Pod(pod) = end else { return numbers };
    if is_on_host_network(pod) || is_finished(pod) {
        return numbers;
    }
    let spec = &pod_of(pod)["spec"];
    let containers = list(&spec["containers"]).iter();
    let sidecars = list(&spec["initContainers"])
        .iter()
        .filter(|one| one["restartPolicy"] == "Always");
    for container in containers.chain(sidecars) {
        for port in list(&container["ports"]) {
            if port["name"] == name && port["protocol"].as_str().unwrap_or("TCP") == protocol {
                numbers.push(port["containerPort"].as_u64().expect("a port"));
            }
        }
    }
    numbers
}

/// "Except values will be rejected if they are outside the cidr range"; they "should not be included within this rule".
fn block_contains(block: &Value, address: Address) -> bool {
    let cidr = block["cidr"].as_str().expect("a block");
    let excepts = list(&block["except"]);
    match address {
        Address::Known(address) => {
            contains(cidr, address)
                && !excepts
                    .iter()
                    .any(|except| contains(except.as_str().expect("a block"), address))
        }
        // An address that is not known is in a block for sure only where all addresses of its family are.
        Address::UnknownIpv4 => cidr == "0.0.0.0/0" && excepts.is_empty(),
        Address::UnknownIpv6 => cidr == "::/0" && excepts.is_empty(),
    }
}

/// Whether the first bits of an address are those of a block.
pub(crate) fn contains(cidr: &str, address: IpAddr) -> bool {
    let (network, prefix) = cidr.split_once('/').expect("a prefix");
    let prefix: u32 = prefix.parse().expect("a number of bits");
    match (network.parse().expect("an address"), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u32::from(network) ^ u32::from(address)).leading_zeros() >= prefix
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (u128::from(network) ^ u128::from(address)).leading_zeros() >= prefix
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// "The result of matchLabels and matchExpressions are `ANDed`. An empty label selector matches all objects."
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let mut all = true;
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        all = all && labels.get(key) == Some(value);
    }
    for expression in list(&selector["matchExpressions"]) {
        let label = labels.get(expression["key"].as_str().expect("a key"));
        let is_listed = label.is_some_and(|label| list(&expression["values"]).contains(label));
        all = all
            && match expression["operator"].as_str().expect("an operator") {
                "In" => is_listed,
                "NotIn" => !is_listed,
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                other => panic!("{other} is no operator"),
            };
    }
    all
}

/// The labels of a namespace: "the control plane sets an immutable label kubernetes.io/metadata.name on all namespaces".
pub(crate) fn namespace_labels(cluster: &[Value], name: &Value) -> Value {
    let namespace = cluster
        .iter()
        .find(|one| one["kind"] == "Namespace" && one["metadata"]["name"] == *name);
    let mut labels = namespace
        .map(|namespace| namespace["metadata"]["labels"].clone())
        .unwrap_or_default();
    labels["kubernetes.io/metadata.name"] = name.clone();
    labels
}

fn is_terminating(cluster: &[Value], name: &Value) -> bool {
    cluster.iter().any(|one| {
        one["kind"] == "Namespace"
            && one["metadata"]["name"] == *name
            && one["metadata"]["deletionTimestamp"].is_string()
    })
}

/// The node whose own traffic an end is.
fn node_of(end: End<'_>) -> Option<&str> {
    match end {
        End::Node(name, _) => Some(name),
        End::Pod(pod) if is_on_host_network(pod) && !is_finished(pod) => {
            pod_of(pod)["spec"]["nodeName"].as_str()
        }
        End::Pod(_) | End::Outside(_) => None,
    }
}

pub(crate) fn is_on_host_network(pod: &Value) -> bool {
    pod_of(pod)["spec"]["hostNetwork"] == true
}

pub(crate) fn is_finished(pod: &Value) -> bool {
    pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
}

/// The part of an object that has the pod's labels and spec.
pub(crate) fn pod_of(object: &Value) -> &Value {
    if object["kind"] == "Pod" {
        object
    } else {
        &object["spec"]["template"]
    }
}

/// A list; absent and null are empty ones, whose meaning each caller states.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
