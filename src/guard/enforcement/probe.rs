//! A proof by doing: two pods, one policy that denies, and what the one heard of the other before and after.
//!
//! `k8s::probe` makes what [`Probe`] says and reads the [`Heard`] of the pod that asks; [`check`] says what it means. Nothing is
//! made or waited for here.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::doctor::{Check, Level};

/// The port at which one pod listens.
pub const PORT: u16 = 8080;
/// The name of the pod that listens, and of that which asks it.
pub const LISTENER: &str = "listener";
/// The name of the pod that asks.
pub const ASKER: &str = "asker";
/// The label that the namespace has, for Guardrails that are to leave it out.
pub const LABEL: &str = "ringfence.dev/probe";

/// What is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// An image whose entry point is this program.
    pub image: String,
    /// Where both pods are to run; where the scheduler wants without it.
    pub node: Option<String>,
}

/// What the pod that asks has heard; its termination message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The addresses that answered at some time.
    pub answered: Vec<SocketAddr>,
    /// Those of them that had fallen silent at the end.
    pub silent: Vec<SocketAddr>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The node of the pod that listened, which had to hold it to its policy.
    pub node: String,
    /// The addresses of the pod that listened.
    pub addresses: Vec<IpAddr>,
    /// What was heard.
    pub heard: Heard,
}

impl Probe {
    /// The namespace, whose name the API server makes.
    pub fn namespace() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "generateName": "ringfence-probe-",
                "labels": {
                    LABEL: "true",
                    "app.kubernetes.io/part-of": "ringfence",
                    "pod-security.kubernetes.io/enforce": "restricted",
                },
            },
        })
    }

    /// The pod that listens.
    pub fn listener(&self) -> Value {
        self.pod(LISTENER, &["probe", "listen"])
    }

    /// The pod that asks it at its addresses.
    pub fn asker(&self, addresses: &[IpAddr]) -> Value {
        let addresses: Vec<String> = addresses
            .iter()
            .map(|address| SocketAddr::new(*address, PORT).to_string())
            .collect();
        let mut arguments = vec!["probe", "ask"];
        arguments.extend(addresses.iter().map(String::as_str));
        self.pod(ASKER, &arguments)
    }

    /// The policy that denies all that comes to the pod that listens.
    pub fn policy() -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"},
            "spec": {"podSelector": {"matchLabels": {"app": LISTENER}}, "policyTypes": ["Ingress"]},
        })
    }

    fn pod(&self, name: &str, arguments: &[&str]) -> Value {
        let labels = json!({
            "app": name,
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/part-of": "ringfence",
        });
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "activeDeadlineSeconds": 300,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": name, "image": self.image, "imagePullPolicy": "IfNotPresent", "args": arguments,
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        if let (Some(node), Some(Value::Object(spec))) = (&self.node, pod.get_mut("spec")) {
            spec.insert("nodeName".to_owned(), json!(node));
        }
        pod
    }
}

/// Says what it means.
pub fn check(outcome: &Outcome) -> Check {
    let Outcome {
        node,
        addresses,
        heard,
    } = outcome;
    let id = "probe";
    let is_asked =
        |among: &[SocketAddr], address: &IpAddr| among.iter().any(|one| one.ip() == *address);
    let (answered, deaf): (Vec<&IpAddr>, Vec<&IpAddr>) = addresses
        .iter()
        .partition(|address| is_asked(&heard.answered, address));
    let open: Vec<&&IpAddr> = answered
        .iter()
        .filter(|address| !is_asked(&heard.silent, address))
        .collect();
    if let Some(open) = open.first() {
        let says = format!(
            "node {node} does not enforce NetworkPolicy: a pod was still answered at {open} after a policy denied it"
        );
        return Check::new(Level::Problem, id, says)
            .advise("use a network plugin that enforces, or run Ringfence's agents: kubectl apply -k deploy/agent");
    }
    if let Some(deaf) = deaf.first() {
        let says = format!(
            "node {node}: two pods could not reach each other at {deaf} before any policy was there, so nothing is proved of it"
        );
        return Check::new(Level::Unknown, id, says)
            .advise("see what else denies: ClusterNetworkPolicies, policies of the network plugin, or the network itself");
    }
    Check::new(
        Level::Ok,
        id,
        format!(
            "node {node} enforces NetworkPolicy: a pod was answered, and not any more once a policy denied it"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(answered: &[&str], silent: &[&str]) -> Outcome {
        let sockets = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
        Outcome {
            node: "n1".to_owned(),
            addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            heard: Heard {
                answered: sockets(answered),
                silent: sockets(silent),
            },
        }
    }

    #[test]
    fn what_answers_and_falls_silent_at_every_address_is_enforced() {
        let (four, six) = ("10.0.0.7:8080", "[fd00::7]:8080");
        let level = |answered: &[&str], silent: &[&str]| check(&outcome(answered, silent)).level;
        assert_eq!(level(&[four, six], &[four, six]), Level::Ok);
        assert_eq!(level(&[four, six], &[four]), Level::Problem);
        assert_eq!(level(&[four, six], &[]), Level::Problem);
        assert_eq!(level(&[four], &[four]), Level::Unknown);
        assert_eq!(level(&[four], &[]), Level::Problem);
        assert_eq!(level(&[], &[]), Level::Unknown);
    }

    #[test]
    fn pods_go_where_they_are_sent_and_ask_every_address() {
        let probe = Probe {
            image: "ringfence".to_owned(),
            node: Some("n1".to_owned()),
        };
        let asker = probe.asker(&outcome(&[], &[]).addresses);
        assert_eq!(asker["spec"]["nodeName"], "n1");
        assert_eq!(
            asker["spec"]["containers"][0]["args"],
            json!(["probe", "ask", "10.0.0.7:8080", "[fd00::7]:8080"])
        );
        let anywhere = Probe {
            node: None,
            ..probe
        };
        assert_eq!(anywhere.listener()["spec"].get("nodeName"), None);
    }
}
