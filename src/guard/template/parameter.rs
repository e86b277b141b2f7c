//! Parameters of templates: what kinds there are, and how the texts on the command line become values.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::civil::Date;

use super::Template;
use crate::guard::breadth::widest;
use crate::guard::guardrail::{BreadthLimits, ScrapePort};
use crate::netpol::labels::{key_problem, value_problem};
use crate::netpol::name::{dns_label_problem, dns_subdomain_problem, port_name_problem};
use crate::netpol::net::{parse_address, parse_block};
use crate::netpol::selector::{Requirement, Selector};
use crate::netpol::{NamespaceName, Port, Protocol};

/// One parameter of a template.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What its text is read as.
    pub kind: Kind,
    /// What is taken where it is not given.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub is_required: bool,
    /// What it says, for people.
    pub about: &'static str,
}

/// What the text of a parameter is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One line for people.
    Text,
    /// A day such as `2027-05-31`.
    Day,
    /// The name of a policy.
    Name,
    /// The name of a namespace.
    Namespace,
    /// Names of namespaces, separated by commas.
    Namespaces,
    /// Labels that are selected, `key=value`, separated by commas; empty for every pod.
    Labels,
    /// A label key.
    LabelKey,
    /// Label values, separated by commas.
    LabelValues,
    /// Ports such as `8080` or `udp/53`, separated by commas; TCP where no protocol is said.
    Ports,
    /// Port numbers, separated by commas.
    PortNumbers,
    /// TCP ports by number or by the name of the container port, separated by commas.
    ScrapePorts,
    /// Addresses, separated by commas.
    Addresses,
    /// Named address blocks, `name=CIDR`, separated by commas.
    Networks,
}

/// The value of a parameter.
#[derive(Clone, Debug)]
pub(super) enum Given {
    Text(String),
    Namespaces(Vec<NamespaceName>),
    Selector(Selector),
    Values(Vec<String>),
    Ports(Vec<(Protocol, Port)>),
    PortNumbers(Vec<u16>),
    ScrapePorts(Vec<ScrapePort>),
    Addresses(Vec<IpAddr>),
    Networks(Vec<(String, IpNet)>),
}

/// The values of a template's parameters, all of the kind that the template says.
#[derive(Debug)]
pub(super) struct Values<'t> {
    template: &'t Template,
    values: BTreeMap<&'static str, Given>,
}

// === impl Parameter ===

impl Parameter {
    /// One that must be given.
    pub(super) const fn required(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self {
            name,
            kind,
            default: None,
            is_required: true,
            about,
        }
    }

    /// One that may be left out.
    pub(super) const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self {
            is_required: false,
            ..Self::required(name, kind, about)
        }
    }

    /// One that has a default.
    pub(super) const fn with_default(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        about: &'static str,
    ) -> Self {
        Self {
            default: Some(default),
            ..Self::optional(name, kind, about)
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Its form in a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Day => "day",
            Self::Name => "name",
            Self::Namespace => "namespace",
            Self::Namespaces => "namespaces",
            Self::Labels => "labels",
            Self::LabelKey => "label key",
            Self::LabelValues => "label values",
            Self::Ports => "ports",
            Self::PortNumbers => "port numbers",
            Self::ScrapePorts => "TCP ports",
            Self::Addresses => "addresses",
            Self::Networks => "name=CIDR list",
        }
    }
}

// === impl Given ===

impl Given {
    /// Reads a text; an error says what is wrong with it.
    pub(super) fn read(kind: Kind, text: &str) -> Result<Self, String> {
        let one =
            |problem: Option<&str>| problem.map_or(Ok(()), |problem| Err(said(text, problem)));
        match kind {
            Kind::Text => {
                let is_line = !text.trim().is_empty() && !text.contains(char::is_control);
                one((!is_line).then_some("must be one line of text"))?;
                Ok(Self::Text(text.to_owned()))
            }
            Kind::Day => match text.parse::<Date>() {
                Ok(day) if text.len() == 10 => Ok(Self::Text(day.to_string())),
                Ok(_) | Err(_) => Err(said(text, "must be a day such as 2027-05-31")),
            },
            Kind::Name => {
                one(dns_subdomain_problem(text))?;
                Ok(Self::Text(text.to_owned()))
            }
            Kind::Namespace => {
                one(dns_label_problem(text))?;
                Ok(Self::Namespaces(vec![NamespaceName::from(text)]))
            }
            Kind::Namespaces => {
                let name = |name: &str| match dns_label_problem(name) {
                    Some(problem) => Err(said(name, problem)),
                    None => Ok(NamespaceName::from(name)),
                };
                list(text, name).map(Self::Namespaces)
            }
            Kind::Labels => labels(text).map(Self::Selector),
            Kind::LabelKey => {
                one(key_problem(text))?;
                Ok(Self::Text(text.to_owned()))
            }
            Kind::LabelValues => {
                let value = |value: &str| match value_problem(value) {
                    Some(problem) => Err(said(value, problem)),
                    None => Ok(value.to_owned()),
                };
                list(text, value).map(Self::Values)
            }
            Kind::Ports => list(text, port).map(Self::Ports),
            Kind::PortNumbers => list(text, number).map(Self::PortNumbers),
            Kind::ScrapePorts => list(text, scrape_port).map(Self::ScrapePorts),
            Kind::Addresses => {
                let address = |text: &str| {
                    parse_address(text).map_err(|error| said(text, &error.to_string()))
                };
                list(text, address).map(Self::Addresses)
            }
            Kind::Networks => list(text, network).map(Self::Networks),
        }
    }
}

/// What is wrong with a text.
fn said(text: &str, problem: &str) -> String {
    format!("{text:?}: {problem}")
}

/// What stands between commas, at least one.
fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(|part| read(part.trim())).collect()
}

fn labels(text: &str) -> Result<Selector, String> {
    if text.trim().is_empty() {
        return Ok(Selector::everything());
    }
    let label = |text: &str| {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| said(text, "must be labels such as app=web,tier=front"))?;
        match key_problem(key).or(value_problem(value)) {
            Some(problem) => Err(said(text, problem)),
            None => Ok(Requirement::is(key, value)),
        }
    };
    list(text, label).map(Selector::new)
}

fn port(text: &str) -> Result<(Protocol, Port), String> {
    let (protocol, number) = text.split_once('/').unwrap_or(("TCP", text));
    let protocol = Protocol::from_api(&protocol.to_ascii_uppercase());
    let number = number.parse().ok().and_then(Port::new);
    protocol.zip(number).ok_or_else(|| {
        said(
            text,
            "must be a port such as 443 or udp/53, between 1 and 65535",
        )
    })
}

fn number(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().and_then(Port::new);
    number
        .map(Port::get)
        .ok_or_else(|| said(text, "must be a port number between 1 and 65535"))
}

fn scrape_port(text: &str) -> Result<ScrapePort, String> {
    if let Some(port) = text.parse().ok().and_then(Port::new) {
        return Ok(ScrapePort::Number(port.get()));
    }
    match port_name_problem(text) {
        Some(_) => Err(said(
            text,
            "must be a port number or the name of a container port",
        )),
        None => Ok(ScrapePort::Name(text.to_owned())),
    }
}

fn network(text: &str) -> Result<(String, IpNet), String> {
    let (name, block) = text.split_once('=').ok_or_else(|| {
        said(
            text,
            "must be a named block such as partners=203.0.113.0/24",
        )
    })?;
    if let Some(problem) = dns_label_problem(name) {
        return Err(said(name, problem));
    }
    let block = parse_block(block).map_err(|error| said(block, &error.to_string()))?;
    // What a template makes passes the checks as they are without a Guardrail (RF302).
    let widest = widest(block, &BreadthLimits::default());
    if block.prefix_len() < widest {
        let problem = format!("is too broad: name networks of /{widest} or smaller");
        return Err(said(&block.to_string(), &problem));
    }
    Ok((name.to_owned(), block))
}

// === impl Values ===

// Each parameter has been read as its kind before a template is built, so that a value of another kind cannot be met;
// nothing is what would be returned then.
impl<'t> Values<'t> {
    pub(super) fn new(template: &'t Template) -> Self {
        Self {
            template,
            values: BTreeMap::new(),
        }
    }

    pub(super) fn set(&mut self, name: &'static str, value: Given) {
        self.values.insert(name, value);
    }

    pub(super) fn template(&self) -> &'t Template {
        self.template
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(Given::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn namespace(&self, name: &str) -> &str {
        self.namespaces(name)
            .first()
            .map_or("", NamespaceName::as_str)
    }

    pub(super) fn namespaces(&self, name: &str) -> &[NamespaceName] {
        match self.values.get(name) {
            Some(Given::Namespaces(namespaces)) => namespaces,
            _ => &[],
        }
    }

    pub(super) fn selector(&self, name: &str) -> Selector {
        match self.values.get(name) {
            Some(Given::Selector(selector)) => selector.clone(),
            _ => Selector::everything(),
        }
    }

    pub(super) fn values(&self, name: &str) -> &[String] {
        match self.values.get(name) {
            Some(Given::Values(values)) => values,
            _ => &[],
        }
    }

    pub(super) fn ports(&self, name: &str) -> &[(Protocol, Port)] {
        match self.values.get(name) {
            Some(Given::Ports(ports)) => ports,
            _ => &[],
        }
    }

    pub(super) fn port_numbers(&self, name: &str) -> &[u16] {
        match self.values.get(name) {
            Some(Given::PortNumbers(numbers)) => numbers,
            _ => &[],
        }
    }

    pub(super) fn scrape_ports(&self, name: &str) -> &[ScrapePort] {
        match self.values.get(name) {
            Some(Given::ScrapePorts(ports)) => ports,
            _ => &[],
        }
    }

    pub(super) fn addresses(&self, name: &str) -> &[IpAddr] {
        match self.values.get(name) {
            Some(Given::Addresses(addresses)) => addresses,
            _ => &[],
        }
    }

    pub(super) fn networks(&self, name: &str) -> &[(String, IpNet)] {
        match self.values.get(name) {
            Some(Given::Networks(networks)) => networks,
            _ => &[],
        }
    }
}
