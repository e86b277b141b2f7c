//! What it takes to say who enforces network policies: the model of a cluster, read once, and the receipts of its nodes.

use std::collections::BTreeMap;

use kube::Client;
use serde_json::Value;

use super::list::{ListError, Pages};
use crate::guard::audit::{self, KINDS, Kind};
use crate::guard::enforcement::{self, Receipt};
use crate::guard::review;
use crate::netpol::{NodeName, Object, Snapshot};

/// The kinds that say which policy holds which pod, by their plurals.
const NEEDED: [&str; 5] = [
    "namespaces",
    "networkpolicies",
    "clusternetworkpolicies",
    "nodes",
    "pods",
];

/// A cluster and the receipts of its nodes.
#[derive(Debug, Default)]
pub struct Standing {
    /// Namespaces, policies, nodes and pods.
    pub snapshot: Snapshot,
    /// The receipts by node; `None` where the API server does not know the kind.
    pub receipts: Option<BTreeMap<NodeName, Receipt>>,
    /// What could not be understood, each with the reason. It is in none of the above.
    pub not_understood: Vec<String>,
}

/// Reads a cluster in pages.
///
/// # Errors
///
/// A kind that a cluster cannot be without, or that is there, cannot be read.
pub async fn read(client: &Client) -> Result<Standing, ListError> {
    let mut standing = Standing::default();
    let needed = KINDS.iter().filter(|kind| NEEDED.contains(&kind.plural));
    for kind in needed {
        each(client, kind, |object| standing.take(object, kind)).await?;
    }
    standing.receipts = receipts(client, &mut standing.not_understood).await?;
    Ok(standing)
}

/// Reads the receipts by node; `None` where the API server does not know the kind.
///
/// # Errors
///
/// They are there and cannot be read.
pub async fn receipts(
    client: &Client,
    not_understood: &mut Vec<String>,
) -> Result<Option<BTreeMap<NodeName, Receipt>>, ListError> {
    let mut receipts = BTreeMap::new();
    let is_served = each(client, &enforcement::KIND, |object| {
        let name = object.pointer("/metadata/name").and_then(Value::as_str);
        let name = name.unwrap_or_default();
        match Receipt::read(&object) {
            Ok(receipt) => {
                receipts.insert(NodeName::from(name), receipt);
            }
            Err(error) => not_understood.push(format!("NodeEnforcement {name}: {error}")),
        }
    });
    Ok(is_served.await?.then_some(receipts))
}

/// Gives each object of a kind away; tells whether the API server knows the kind, where a cluster can be without it.
pub async fn each(
    client: &Client,
    kind: &'static Kind,
    mut give: impl FnMut(Value),
) -> Result<bool, ListError> {
    let mut pages = Pages::of(client, kind);
    loop {
        match pages.next().await {
            Ok(Some(page)) => page.items.into_iter().for_each(&mut give),
            Ok(None) => return Ok(true),
            Err(ListError::Absent { .. }) if kind.is_optional() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

// === impl Standing ===

impl Standing {
    fn take(&mut self, object: Value, kind: &Kind) {
        let review = audit::review(object, kind);
        match review.object.as_ref().map(|subject| &subject.parsed) {
            Some(review::Kind::Model(parsed)) => match &parsed.object {
                Object::Workload(_) => {}
                other => self.snapshot.insert(other.clone()),
            },
            Some(review::Kind::Invalid(error)) => {
                let object = review.object_ref();
                self.not_understood.push(format!("{object}: {error}"));
            }
            _ => {}
        }
    }
}
