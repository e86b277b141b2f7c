//! The templates themselves: what each takes, and the policies that it makes of it.

use serde_json::json;

use super::build::{
    among, default_deny, dns, in_namespace, in_namespaces, peer, policy, rule, way,
};
use super::{Kind, Parameter, Template};
use crate::guard::baseline::Allow;
use crate::guard::guardrail::{BaselineSection, MonitoringAllow};
use crate::netpol::Direction;
use crate::netpol::selector::{Requirement, Selector};

const NAMESPACE: Parameter = Parameter::required(
    "namespace",
    Kind::Namespace,
    "the namespace that the policies are in",
);
const PODS: Parameter = Parameter::with_default(
    "pods",
    Kind::Labels,
    "",
    "the pods of the namespace that are meant; empty for all",
);
const DNS_NAMESPACE: Parameter = Parameter::with_default(
    "dns-namespace",
    Kind::Namespace,
    "kube-system",
    "the namespace of the cluster's DNS",
);
const DNS_PODS: Parameter = Parameter::with_default(
    "dns-pods",
    Kind::Labels,
    "k8s-app=kube-dns",
    "the pods of the cluster's DNS",
);

const fn name(default: &'static str) -> Parameter {
    Parameter::with_default(
        "name",
        Kind::Name,
        default,
        "the name of the policy, or the first part of it",
    )
}

pub(super) const TEMPLATES: &[Template] = &[
    Template {
        name: "default-deny",
        about: "Nothing in or out of any pod of a namespace, unless another policy says so.",
        parameters: &[NAMESPACE],
        purpose: "nothing in or out unless another policy says so",
        build: |values| Ok(vec![default_deny(values, values.namespace("namespace"))]),
    },
    Template {
        name: "default-deny-allowlist",
        about: "Default-deny and, beside it, DNS and the namespaces that may come in at some ports.",
        parameters: &[
            NAMESPACE,
            PODS,
            Parameter::required("from", Kind::Namespaces, "the namespaces that may come in"),
            Parameter::required("ports", Kind::Ports, "at which ports of the pods"),
            DNS_NAMESPACE,
            DNS_PODS,
        ],
        purpose: "nothing in or out but DNS and the namespaces of the list",
        build: |values| {
            let namespace = values.namespace("namespace");
            let peer = peer(
                &in_namespaces(values.namespaces("from")),
                &Selector::everything(),
            );
            Ok(vec![
                default_deny(values, namespace),
                dns(values, namespace),
                policy(
                    values,
                    namespace,
                    "allowlist",
                    &values.selector("pods"),
                    &[(
                        Direction::Ingress,
                        rule(Direction::Ingress, &[peer], values.ports("ports")),
                    )],
                ),
            ])
        },
    },
    Template {
        name: "frontend-to-backend",
        about: "The frontend's pods reach the backend's pods at some ports: egress of the one, ingress of the other.",
        parameters: &[
            Parameter::with_default(
                "from-namespace",
                Kind::Namespace,
                "frontend",
                "the namespace of the frontend",
            ),
            Parameter::required("from", Kind::Labels, "the frontend's pods"),
            Parameter::with_default(
                "to-namespace",
                Kind::Namespace,
                "backend",
                "the namespace of the backend",
            ),
            Parameter::required("to", Kind::Labels, "the backend's pods"),
            Parameter::with_default(
                "ports",
                Kind::Ports,
                "8080",
                "the ports of the backend's pods, not of their Service",
            ),
            name("frontend-to-backend"),
        ],
        purpose: "the frontend calls the backend",
        build: way,
    },
    Template {
        name: "backend-to-database",
        about: "The backend's pods reach the database's pods at some ports: egress of the one, ingress of the other.",
        parameters: &[
            Parameter::with_default(
                "from-namespace",
                Kind::Namespace,
                "backend",
                "the namespace of the backend",
            ),
            Parameter::required("from", Kind::Labels, "the backend's pods"),
            Parameter::with_default(
                "to-namespace",
                Kind::Namespace,
                "database",
                "the namespace of the database",
            ),
            Parameter::required("to", Kind::Labels, "the database's pods"),
            Parameter::with_default(
                "ports",
                Kind::Ports,
                "5432",
                "the ports of the database's pods, not of their Service",
            ),
            name("backend-to-database"),
        ],
        purpose: "the backend keeps its data in the database",
        build: way,
    },
    Template {
        name: "allow-dns",
        about: "The pods of a namespace may ask the cluster's DNS, by UDP and TCP.",
        parameters: &[
            NAMESPACE,
            PODS,
            DNS_NAMESPACE,
            DNS_PODS,
            Parameter::with_default(
                "dns-ports",
                Kind::PortNumbers,
                "53",
                "the ports that the DNS pods listen on, not those of their Service",
            ),
            Parameter::optional(
                "node-local",
                Kind::Addresses,
                "addresses of a node-local DNS cache",
            ),
        ],
        purpose: "pods may ask the cluster's DNS",
        build: |values| Ok(vec![dns(values, values.namespace("namespace"))]),
    },
    Template {
        name: "allow-monitoring",
        about: "The monitoring may scrape the pods of a namespace.",
        parameters: &[
            NAMESPACE,
            PODS,
            Parameter::with_default(
                "monitoring-namespace",
                Kind::Namespace,
                "monitoring",
                "the namespace of the monitoring",
            ),
            Parameter::with_default(
                "monitoring-pods",
                Kind::Labels,
                "",
                "the pods that scrape; empty for all of that namespace",
            ),
            Parameter::with_default(
                "ports",
                Kind::ScrapePorts,
                "9090",
                "the TCP ports that are scraped, by number or name",
            ),
        ],
        purpose: "the monitoring scrapes the pods",
        build: |values| {
            let scrapers = values.selector("monitoring-pods");
            let section = BaselineSection {
                monitoring: Some(MonitoringAllow {
                    enabled: true,
                    namespace_selector: in_namespace(values, "monitoring-namespace")
                        .to_label_selector(),
                    pod_selector: Some(scrapers.to_label_selector())
                        .filter(|_| !scrapers.is_everything()),
                    ports: values.scrape_ports("ports").to_vec(),
                }),
                ..BaselineSection::default()
            };
            let rule = Allow::Monitoring.rule(&section).unwrap_or_default();
            let rules = [(Direction::Ingress, rule)];
            Ok(vec![policy(
                values,
                values.namespace("namespace"),
                "allow-monitoring",
                &values.selector("pods"),
                &rules,
            )])
        },
    },
    Template {
        name: "allow-ingress-controller",
        about: "The ingress controller's pods reach some pods of a namespace at some ports.",
        parameters: &[
            NAMESPACE,
            Parameter::required("pods", Kind::Labels, "the pods that are published"),
            Parameter::required(
                "ports",
                Kind::Ports,
                "the ports of these pods, not of their Service",
            ),
            Parameter::with_default(
                "controller-namespace",
                Kind::Namespace,
                "ingress-controller",
                "the namespace of the ingress controller",
            ),
            Parameter::with_default(
                "controller-pods",
                Kind::Labels,
                "",
                "its pods; empty for all of that namespace",
            ),
            name("allow-ingress-controller"),
        ],
        purpose: "the ingress controller passes requests from outside on",
        build: |values| {
            let peer = peer(
                &in_namespace(values, "controller-namespace"),
                &values.selector("controller-pods"),
            );
            let rule = rule(Direction::Ingress, &[peer], values.ports("ports"));
            let name = values.text("name").unwrap_or_default();
            let rules = [(Direction::Ingress, rule)];
            Ok(vec![policy(
                values,
                values.namespace("namespace"),
                name,
                &values.selector("pods"),
                &rules,
            )])
        },
    },
    Template {
        name: "egress-to-networks",
        about: "Some pods of a namespace reach named networks outside of the cluster: a policy for each network.",
        parameters: &[
            NAMESPACE,
            PODS,
            Parameter::required(
                "networks",
                Kind::Networks,
                "the networks, each with a name: partners=203.0.113.0/24",
            ),
            Parameter::with_default("ports", Kind::Ports, "443", "at which ports"),
            name("egress-to"),
        ],
        purpose: "pods reach networks outside of the cluster",
        build: |values| {
            let prefix = values.text("name").unwrap_or_default();
            // A name may stand for several blocks.
            let mut blocks: Vec<(&str, Vec<serde_json::Value>)> = Vec::new();
            for (name, block) in values.networks("networks") {
                let peer = json!({"ipBlock": {"cidr": block.to_string()}});
                match blocks.iter_mut().find(|(known, _)| known == name) {
                    Some((_, peers)) => peers.push(peer),
                    None => blocks.push((name, vec![peer])),
                }
            }
            let made = blocks.into_iter().map(|(name, peers)| {
                let rule = rule(Direction::Egress, &peers, values.ports("ports"));
                let rules = [(Direction::Egress, rule)];
                policy(
                    values,
                    values.namespace("namespace"),
                    &format!("{prefix}-{name}"),
                    &values.selector("pods"),
                    &rules,
                )
            });
            Ok(made.collect())
        },
    },
    Template {
        name: "tenant-namespace",
        about: "A namespace of a tenant: open to the tenant's other namespaces, except those of some environments.",
        parameters: &[
            NAMESPACE,
            Parameter::required(
                "tenant",
                Kind::Labels,
                "the labels that all namespaces of the tenant carry: tenant=acme",
            ),
            Parameter::with_default(
                "environment-key",
                Kind::LabelKey,
                "environment",
                "the label of namespaces that says their environment",
            ),
            Parameter::required(
                "not-environments",
                Kind::LabelValues,
                "the environments that are kept apart",
            ),
            DNS_NAMESPACE,
            DNS_PODS,
        ],
        purpose: "the namespaces of a tenant work together, but not across environments",
        build: |values| {
            let namespace = values.namespace("namespace");
            let key = values.text("environment-key").unwrap_or_default();
            let apart = values.values("not-environments").iter().map(String::as_str);
            // NotIn alone would let in a namespace that says no environment at all.
            let others = values
                .selector("tenant")
                .and(&Requirement::exists(key))
                .and(&Requirement::is_not_in(key, apart));
            Ok(vec![
                default_deny(values, namespace),
                dns(values, namespace),
                among(values, namespace, "tenant", &others),
            ])
        },
    },
    Template {
        name: "dev-isolated-from-prod",
        about: "Namespaces of development and of production, each open to its own kind and closed to the other.",
        parameters: &[
            Parameter::required("dev", Kind::Namespaces, "the namespaces of development"),
            Parameter::required("prod", Kind::Namespaces, "the namespaces of production"),
            DNS_NAMESPACE,
            DNS_PODS,
        ],
        purpose: "development and production do not reach each other",
        build: |values| {
            let (dev, prod) = (values.namespaces("dev"), values.namespaces("prod"));
            if let Some(both) = dev.iter().find(|name| prod.contains(name)) {
                let problem = format!("parameters `dev` and `prod`: namespace {both} is in both");
                return Err(values.template().refuse(vec![problem]));
            }
            let mut policies = Vec::new();
            for (environment, name) in [(dev, "within-dev"), (prod, "within-prod")] {
                let own = in_namespaces(environment);
                for namespace in environment {
                    let namespace = namespace.as_str();
                    policies.push(default_deny(values, namespace));
                    policies.push(dns(values, namespace));
                    policies.push(among(values, namespace, name, &own));
                }
            }
            Ok(policies)
        },
    },
];
