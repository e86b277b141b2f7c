//! A network policy as it stands in the API, and several as one: for policies that are written by a program.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
use crate::netpol::coverage::Direction;
use crate::netpol::labels::Labels;
use crate::netpol::port::{PortMatch, PortSpec};

impl NetworkPolicy {
    /// The manifest of it: what it means, with every default written out.
    pub fn manifest(&self) -> Value {
        let types: Vec<&str> = Direction::BOTH
            .into_iter()
            .filter(|direction| self.isolates(*direction))
            .map(Direction::policy_type)
            .collect();
        let mut spec =
            json!({"podSelector": self.selector.to_label_selector(), "policyTypes": types});
        let mut metadata =
            json!({"name": self.name.as_str(), "namespace": self.namespace.as_str()});
        if let Some(spec) = spec.as_object_mut() {
            for direction in Direction::BOTH {
                let rules: Vec<Value> = self
                    .rules(direction)
                    .iter()
                    .map(|rule| manifest_of(rule, direction))
                    .collect();
                if !rules.is_empty() {
                    spec.insert(direction.field().to_owned(), Value::Array(rules));
                }
            }
        }
        if let Some(metadata) = metadata.as_object_mut() {
            for (field, texts) in [("labels", &self.labels), ("annotations", &self.annotations)] {
                let texts = by_key(texts);
                if !texts.is_empty() {
                    metadata.insert(field.to_owned(), json!(texts));
                }
            }
        }
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata,
            "spec": spec
        })
    }

    /// This policy with the rules of others added to its own, each once. It can take the place of all of them where they
    /// select the same pods and isolate them in the same directions.
    #[must_use]
    pub fn joined<'p>(&self, others: impl IntoIterator<Item = &'p NetworkPolicy>) -> NetworkPolicy {
        let mut joined = self.clone();
        for other in others {
            for direction in Direction::BOTH {
                let rules = match direction {
                    Direction::Ingress => &mut joined.ingress,
                    Direction::Egress => &mut joined.egress,
                };
                for rule in other.rules(direction) {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        joined
    }
}

fn by_key(texts: &Labels) -> BTreeMap<&str, &str> {
    texts.iter().collect()
}

fn manifest_of(rule: &Rule, direction: Direction) -> Value {
    let mut manifest = Map::new();
    if let Peers::Only(peers) = &rule.peers {
        let list = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        manifest.insert(list.to_owned(), peers.iter().map(peer).collect());
    }
    if let Ports::Only(ports) = &rule.ports {
        manifest.insert("ports".to_owned(), ports.iter().map(port).collect());
    }
    Value::Object(manifest)
}

fn peer(peer: &Peer) -> Value {
    match peer {
        Peer::Pods {
            namespaces: NamespaceScope::Own,
            pods,
        } => json!({"podSelector": pods.to_label_selector()}),
        Peer::Pods {
            namespaces: NamespaceScope::Selected(namespaces),
            pods,
        } if pods.is_everything() => {
            json!({"namespaceSelector": namespaces.to_label_selector()})
        }
        Peer::Pods {
            namespaces: NamespaceScope::Selected(namespaces),
            pods,
        } => json!({
            "namespaceSelector": namespaces.to_label_selector(),
            "podSelector": pods.to_label_selector()
        }),
        Peer::Block { cidr, except } if except.is_empty() => {
            json!({"ipBlock": {"cidr": cidr.to_string()}})
        }
        Peer::Block { cidr, except } => {
            let except: Vec<String> = except.iter().map(ToString::to_string).collect();
            json!({"ipBlock": {"cidr": cidr.to_string(), "except": except}})
        }
    }
}

fn port(entry: &PortMatch) -> Value {
    let protocol = entry.protocol.as_str();
    match &entry.port {
        PortSpec::Any => json!({"protocol": protocol}),
        PortSpec::Number(port) => json!({"protocol": protocol, "port": port}),
        PortSpec::Range(first, last) => {
            json!({"protocol": protocol, "port": first, "endPort": last})
        }
        PortSpec::Named(name) => json!({"protocol": protocol, "port": name.as_str()}),
    }
}
