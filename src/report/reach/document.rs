//! The stable form of JSON: this is what others parse.

use std::cell::Cell;

use serde::{Serialize, Serializer};

use crate::netpol::WorkloadRef;
use crate::netpol::reach::{Connection, Exposure, Newcomer, Party, PortSet};

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

#[derive(Serialize)]
pub(crate) struct DocumentExposure<'a> {
    to: DocumentParty<'a>,
    from: DocumentNewcomer<'a>,
    allowed: &'a PortSet,
}

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
    pub(crate) fn of(workload: &'a WorkloadRef, exposure: &'a Exposure) -> Self {
        let (namespace, namespaces, pods) = match &exposure.from {
            Newcomer::Anyone => (None, Some(String::new()), String::new()),
            Newcomer::In { namespace, pods } => (Some(namespace.as_str()), None, pods.to_string()),
            Newcomer::Selected { namespaces, pods } => {
                (None, Some(namespaces.to_string()), pods.to_string())
            }
        };
        Self {
            to: DocumentParty::workload(workload),
            from: DocumentNewcomer {
                namespace,
                namespaces,
                pods,
            },
            allowed: &exposure.ports,
        }
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
