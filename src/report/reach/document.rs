//! The stable form of JSON: this is what others parse.

use std::cell::Cell;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::netpol::reach::{Connection, Exposure, Newcomer, OpenPorts, Party, PortSet};
use crate::netpol::{Direction, Protocol, WorkloadRef};

/// A listing.
#[derive(Serialize)]
pub(crate) struct Document<'a, C: Serialize> {
    pub(crate) connections: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exposure: Option<Vec<DocumentExposure<'a>>>,
}

/// A connection, written in its stable form.
pub(crate) struct Each(pub(crate) Connection);

#[derive(Serialize)]
struct DocumentConnection<'a> {
    from: DocumentParty<'a>,
    to: DocumentParty<'a>,
    allowed: &'a PortSet,
}

/// What a workload is open to: to it for ingress, from it for egress.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum DocumentExposure<'a> {
    Ingress {
        to: DocumentParty<'a>,
        from: DocumentNewcomer<'a>,
        allowed: DocumentPorts<'a>,
        #[serde(rename = "ifOwnPolicyAllows", skip_serializing_if = "Option::is_none")]
        if_allowed: Option<DocumentPorts<'a>>,
    },
    Egress {
        from: DocumentParty<'a>,
        to: DocumentNewcomer<'a>,
        allowed: DocumentPorts<'a>,
        #[serde(rename = "ifOwnPolicyAllows", skip_serializing_if = "Option::is_none")]
        if_allowed: Option<DocumentPorts<'a>>,
    },
}

/// Ports in ranges, and by name where a newcomer may give the name any number.
pub(crate) struct DocumentPorts<'a>(&'a OpenPorts);

/// A workload by `kind`, `namespace` and `name`; addresses outside by `cidr`.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum DocumentParty<'a> {
    Workload {
        kind: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    Outside {
        cidr: String,
    },
}

/// Selectors as `kubectl --selector` takes them; an empty one means all.
#[derive(Serialize)]
pub(crate) struct DocumentNewcomer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(rename = "namespaceSelector", skip_serializing_if = "Option::is_none")]
    namespaces: Option<String>,
    #[serde(rename = "podSelector")]
    pods: String,
}

impl Serialize for Each {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(Connection { from, to, ports }) = self;
        let connection = DocumentConnection {
            from: DocumentParty::of(from),
            to: DocumentParty::of(to),
            allowed: ports,
        };
        connection.serialize(serializer)
    }
}

impl<'a> DocumentExposure<'a> {
    pub(crate) fn of(
        workload: &'a WorkloadRef,
        direction: Direction,
        exposure: &'a Exposure,
    ) -> Self {
        let (namespace, namespaces, pods) = match &exposure.who {
            Newcomer::Anyone => (None, Some(String::new()), String::new()),
            Newcomer::In { namespace, pods } => (Some(namespace.as_str()), None, pods.to_string()),
            Newcomer::Selected { namespaces, pods } => {
                (None, Some(namespaces.to_string()), pods.to_string())
            }
        };
        let newcomer = DocumentNewcomer {
            namespace,
            namespaces,
            pods,
        };
        let workload = DocumentParty::workload(workload);
        let allowed = DocumentPorts(&exposure.at);
        let more = &exposure.if_allowed;
        let if_allowed = (!more.is_empty()).then_some(DocumentPorts(more));
        match direction {
            Direction::Ingress => Self::Ingress {
                to: workload,
                from: newcomer,
                allowed,
                if_allowed,
            },
            Direction::Egress => Self::Egress {
                from: workload,
                to: newcomer,
                allowed,
                if_allowed,
            },
        }
    }
}

impl Serialize for DocumentPorts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Named<'a> {
            protocol: Protocol,
            ports: &'a str,
        }
        let OpenPorts { ports, named } = self.0;
        let mut list = serializer.serialize_seq(None)?;
        for range in ports.ranges() {
            list.serialize_element(&range)?;
        }
        for (protocol, name) in named {
            list.serialize_element(&Named {
                protocol: *protocol,
                ports: name.as_str(),
            })?;
        }
        list.end()
    }
}

impl<'a> DocumentParty<'a> {
    pub(crate) fn of(party: &'a Party) -> Self {
        match party {
            Party::Workload(workload) => Self::workload(workload),
            Party::Outside(block) => Self::Outside {
                cidr: block.to_string(),
            },
        }
    }

    pub(crate) fn workload(workload: &'a WorkloadRef) -> Self {
        Self::Workload {
            kind: workload.kind.as_str(),
            namespace: workload.namespace.as_str(),
            name: workload.name.as_str(),
        }
    }
}

/// A list whose items are made as they are written, once.
pub(crate) struct Streamed<I>(Cell<Option<I>>);

impl<I> Streamed<I> {
    pub(crate) fn new(items: I) -> Self {
        Self(Cell::new(Some(items)))
    }
}

impl<I: Iterator<Item: Serialize>> Serialize for Streamed<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.take().into_iter().flatten())
    }
}
