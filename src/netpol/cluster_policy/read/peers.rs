//! Whom a rule is for.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::{one_of, some};
use crate::netpol::cluster_policy::{ClusterPeer, PodScope, manifest as api};
use crate::netpol::field::Place;
use crate::netpol::name::ClusterPolicyKind;
use crate::netpol::problem::{Problems, Quoted};
use crate::netpol::selector::Selector;

/// No peer may have more blocks or names than this.
const MOST_TEXTS: usize = 25;

/// The longest address block, in characters.
const LONGEST_BLOCK: usize = 43;

/// The pods of a subject, or of a peer of an ingress rule.
pub(super) fn pods(peer: &api::Peer, at: &Place<'_>, problems: &mut Problems) -> Option<PodScope> {
    let (namespaces, pods) = (peer.namespaces.as_ref(), peer.pods.as_ref());
    let count = [namespaces.is_some(), pods.is_some()];
    one_of(&count, "namespaces or pods", at, problems);
    scope(namespaces, pods, at, problems)
}

/// A peer of an egress rule.
pub(super) fn egress(
    kind: ClusterPolicyKind,
    peer: &api::EgressPeer,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Option<ClusterPeer> {
    let count = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        peer.nodes.is_some(),
        peer.networks.is_some(),
        peer.domain_names.is_some(),
    ];
    let words = "namespaces, pods, nodes, networks or domainNames";
    one_of(&count, words, at, problems);
    if let Some(nodes) = &peer.nodes {
        let selector = Selector::read(nodes, &at.key("nodes"), problems);
        return Some(ClusterPeer::Nodes(selector));
    }
    if let Some(networks) = &peer.networks {
        let at = at.key("networks");
        set(networks, &at, problems);
        let read = |(index, text): (usize, &String)| {
            let read = block(text);
            if read.is_none() {
                let reason = format!(
                    "{}: must be an address block, such as 10.0.0.0/8 or fd00::/8",
                    Quoted(text)
                );
                problems.add(&at.index(index), reason);
            }
            read
        };
        let blocks = networks.iter().enumerate().filter_map(read);
        return Some(ClusterPeer::Networks(blocks.collect()));
    }
    if let Some(names) = &peer.domain_names {
        let at = at.key("domainNames");
        if kind == ClusterPolicyKind::BaselineAdminNetworkPolicy {
            problems.add(&at, format!("is no peer of a {kind}"));
            return None;
        }
        set(names, &at, problems);
        for (index, name) in names.iter().enumerate() {
            if !is_domain_name(name) {
                let reason = format!(
                    "{}: must be a domain name, such as example.com or *.example.com",
                    Quoted(name)
                );
                problems.add(&at.index(index), reason);
            }
        }
        let names = names.iter().map(|name| name.as_str().into());
        return Some(ClusterPeer::DomainNames(names.collect()));
    }
    scope(peer.namespaces.as_ref(), peer.pods.as_ref(), at, problems).map(ClusterPeer::Pods)
}

/// A peer that says what it is in a word that the API does not have, or not any more; what is null is as good as absent.
pub(super) fn unknown(
    kind: ClusterPolicyKind,
    raw: &Value,
    rules: &str,
    rule: usize,
    peers: &str,
    peer: usize,
) -> Option<ClusterPeer> {
    let peer = raw.get(rules)?.get(rule)?.get(peers)?.get(peer)?;
    // What only egress has is as unknown to ingress as what is to come.
    let known: &[&str] = match rules {
        "ingress" => &["namespaces", "pods"],
        _ => &["namespaces", "pods", "nodes", "networks", "domainNames"],
    };
    let fields = peer.as_object()?.iter();
    let fields: Vec<_> = fields.filter(|(_, value)| !value.is_null()).collect();
    let word = if fields.iter().any(|(key, _)| known.contains(&key.as_str())) {
        before(kind, peer)
    } else {
        fields.first().map(|(key, _)| key.as_str().into())
    };
    word.map(ClusterPeer::Unknown)
}

/// A word of the first releases of `v1alpha1` (to v0.1.2), in which a peer's namespaces were more than a selector. Read as one, they
/// would be all namespaces.
fn before(kind: ClusterPolicyKind, peer: &Value) -> Option<Box<str>> {
    if kind == ClusterPolicyKind::ClusterNetworkPolicy {
        return None;
    }
    let words = [
        ("namespaces", "namespaceSelector"),
        ("namespaces", "sameLabels"),
        ("namespaces", "notSameLabels"),
        ("pods", "namespaces"),
    ];
    let mut said = words.into_iter();
    let (key, word) = said.find(|(key, word)| {
        let found = peer.get(key).and_then(|part| part.get(word));
        found.is_some_and(|value| !value.is_null())
    })?;
    Some(format!("{key}.{word}").into())
}

/// The pods of a peer or a subject.
fn scope(
    namespaces: Option<&LabelSelector>,
    pods: Option<&api::NamespacedPod>,
    at: &Place<'_>,
    problems: &mut Problems,
) -> Option<PodScope> {
    if let Some(namespaces) = namespaces {
        return Some(PodScope {
            namespaces: Selector::read(namespaces, &at.key("namespaces"), problems),
            pods: Selector::everything(),
        });
    }
    let (pods, at) = (pods?, at.key("pods"));
    let mut read = |selector: Option<&_>, key: &str| {
        let read = selector.map(|selector| Selector::read(selector, &at.key(key), problems));
        read.unwrap_or_else(|| {
            problems.add(&at.key(key), "is missing");
            Selector::everything()
        })
    };
    Some(PodScope {
        namespaces: read(pods.namespace_selector.as_ref(), "namespaceSelector"),
        pods: read(pods.pod_selector.as_ref(), "podSelector"),
    })
}

/// A block as `isCIDR` of the API server's validation takes it: no leading zeros, no IPv4 within IPv6, no zone. Bits right
/// of the prefix mean nothing.
fn block(text: &str) -> Option<IpNet> {
    let (address, prefix) = text
        .split_once('/')
        .filter(|_| text.len() <= LONGEST_BLOCK)?;
    let is_plain = prefix.bytes().all(|byte| byte.is_ascii_digit())
        && (prefix == "0" || !prefix.starts_with('0'));
    let prefix: u8 = prefix.parse().ok().filter(|_| is_plain)?;
    match address.parse().ok()? {
        std::net::IpAddr::V4(address) => {
            Some(IpNet::V4(Ipv4Net::new(address, prefix).ok()?.trunc()))
        }
        std::net::IpAddr::V6(address) => {
            let net = Ipv6Net::new(address, prefix).ok()?;
            (address.to_ipv4_mapped().is_none()).then_some(IpNet::V6(net.trunc()))
        }
    }
}

/// Whether a text has the form of the API's `DomainName`: two labels or more, perhaps `*.` before and a dot after them.
fn is_domain_name(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    let text = text.strip_suffix('.').unwrap_or(text);
    // The API's pattern has `A-z` for the first character, which is more than letters.
    let may_begin = |byte: u8| byte.is_ascii_alphanumeric() || b"[\\]^_`".contains(&byte);
    let is_label = |label: &str| match label.as_bytes() {
        [] => false,
        [only] => may_begin(*only),
        [first, middle @ .., last] => {
            let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
            may_begin(*first) && middle.iter().all(is_inner) && last.is_ascii_alphanumeric()
        }
    };
    text.contains('.') && text.split('.').all(is_label)
}

/// A list that may neither be empty nor too long nor say a thing twice.
fn set(texts: &[String], at: &Place<'_>, problems: &mut Problems) {
    some(Some(texts.len()), MOST_TEXTS, at, problems);
    for (index, text) in texts.iter().enumerate() {
        if texts.iter().take(index).any(|earlier| earlier == text) {
            problems.add(
                &at.index(index),
                format!("{}: is there twice", Quoted(text)),
            );
        }
    }
}
