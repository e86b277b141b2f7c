//! A cluster read once: lists in pages, one kind after the other.
//!
//! [`Pages`] is the reading itself, for who drops each page when it is judged (the controller's audit); [`read`] keeps
//! everything and makes the state of it that decisions are made by, as [`super::folder`] does of a folder
//! (`ringfence audit`).

use super::enforcement;
use kube::Client;
use kube::api::ListParams;
use serde::de::DeserializeSeed as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::guard::audit::{self, KINDS, Kind};
use crate::guard::enforcement::confirmed::Confirmations;
use crate::guard::exemption::Exemption;
use crate::guard::guardrail::Guardrail;
use crate::guard::reachability::ReachabilityRule;
use crate::guard::review::{self, Review};
use crate::k8s::{served, trim};
use crate::netpol::{NamespaceName, Object, ParseError, Snapshot};

/// How many objects a page holds: what an API server gives without being asked to hold much at a time.
const PAGE: u32 = 200;
/// The same for who keeps all of them: an API server may search all objects for each page.
const LARGE_PAGE: u32 = 500;
/// How many pages wait to be taken in.
const AHEAD: usize = 2;

/// Why a kind could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The API server has no such kind.
    #[error("the API server does not know {kind}")]
    Absent {
        /// The kind.
        kind: &'static str,
    },
    /// Whoever asks may not.
    #[error("{message}")]
    Forbidden {
        /// What the API server says, which names the user, the verb and the resource.
        message: String,
    },
    /// The list took so long that the API server has forgotten its beginning.
    #[error("the list of {kind} took too long, and the API server has forgotten its beginning")]
    Expired {
        /// The kind.
        kind: &'static str,
    },
    /// Anything else.
    #[error("cannot list {kind}")]
    Failed {
        /// The kind.
        kind: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
    /// An object of a list is none that can be read.
    #[error("the list of {kind} cannot be read")]
    Unreadable {
        /// The kind.
        kind: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// What came could not be taken in.
    #[error("what the API server lists could not be taken in")]
    Lost(#[from] tokio::task::JoinError),
}

/// The pages of all objects of one kind, or of those in one namespace.
pub struct Pages<'c> {
    client: &'c Client,
    kind: &'static Kind,
    path: String,
    labels: Option<&'static str>,
    fields: Option<String>,
    limit: u32,
    next: Option<String>,
    begun: bool,
}

/// Some objects of a list, as they came: so the next page can be asked for before this one is read.
#[derive(Debug)]
pub struct Page {
    kind: &'static Kind,
    items: Option<Box<RawValue>>,
    /// About how many more there are.
    pub remaining: usize,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Box<RawValue>>,
}

/// An object of a list, without what nobody judges.
struct Item(Value);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        trim::JUDGED.deserialize(deserializer).map(Self)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    r#continue: Option<String>,
    remaining_item_count: Option<i64>,
}

/// A cluster as it was read.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Every object that is audited, owners before what they own.
    pub reviews: Vec<Review>,
    /// What the model holds of them. Templates are not in it, since their pods are.
    pub snapshot: Snapshot,
    /// The guardrails that are good.
    pub guardrails: Vec<Guardrail>,
    /// The exemptions that are good.
    pub exemptions: Vec<Exemption>,
    /// The reachability rules that are good.
    pub rules: Vec<ReachabilityRule>,
    /// What nodes say that they enforce.
    pub confirmations: Confirmations,
    /// The kinds that the API server does not have.
    pub absent: Vec<&'static Kind>,
}

// === impl Pages ===

impl<'c> Pages<'c> {
    /// All objects of a kind.
    pub fn of(client: &'c Client, kind: &'static Kind) -> Self {
        Self {
            client,
            kind,
            path: kind.path(),
            labels: None,
            fields: None,
            limit: PAGE,
            next: None,
            begun: false,
        }
    }

    /// Only those with some labels, as a selector says it.
    #[must_use]
    pub fn labelled(self, labels: &'static str) -> Self {
        Self {
            labels: Some(labels),
            ..self
        }
    }

    /// By more at a time, for who keeps them all.
    fn in_large_pages(self) -> Self {
        Self {
            limit: LARGE_PAGE,
            ..self
        }
    }

    /// The kind.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Only those in a namespace; of namespaces only itself. Of other kinds that are in none still all of them.
    #[must_use]
    pub fn within(self, namespace: &NamespaceName) -> Self {
        if let Some(path) = self.kind.path_in(namespace) {
            return Self { path, ..self };
        }
        let is_namespace = self.kind.kind == "Namespace";
        let fields = is_namespace.then(|| format!("metadata.name={namespace}"));
        Self { fields, ..self }
    }

    /// The next page; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Page>, ListError> {
        if self.begun && self.next.is_none() {
            return Ok(None);
        }
        let mut parameters = ListParams::default().limit(self.limit);
        if let Some(labels) = self.labels {
            parameters = parameters.labels(labels);
        }
        if let Some(fields) = &self.fields {
            parameters = parameters.fields(fields);
        }
        if let Some(next) = &self.next {
            parameters = parameters.continue_token(next);
        }
        let kind = self.kind.kind;
        let failed = |source| ListError::Failed {
            kind,
            source: Box::new(source),
        };
        let request = kube::core::Request::new(self.path.as_str())
            .list(&parameters)
            .map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let list: List = match self.client.request(request).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(ListError::Absent { kind });
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let (api, plural) = (self.kind.api_version(), self.kind.plural);
                if self.kind.is_optional() && served::is_absent(self.client, &api, plural).await {
                    return Err(ListError::Absent { kind });
                }
                let message = status.message.clone();
                return Err(ListError::Forbidden { message });
            }
            Err(kube::Error::Api(status)) if status.code == 410 => {
                return Err(ListError::Expired { kind });
            }
            Err(error) => return Err(failed(error)),
        };
        self.begun = true;
        self.next = list.metadata.r#continue.filter(|next| !next.is_empty());
        let remaining = list.metadata.remaining_item_count.unwrap_or_default();
        Ok(Some(Page {
            kind: self.kind,
            items: list.items,
            remaining: usize::try_from(remaining).unwrap_or_default(),
        }))
    }
}

// === impl Page ===

impl Page {
    /// Their kind.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The objects, without the `apiVersion` and `kind` that lists leave out, and without who wrote which field.
    ///
    /// # Errors
    /// One is nested too deep.
    pub fn into_objects(self) -> Result<Vec<Value>, ListError> {
        let Some(items) = self.items else {
            return Ok(Vec::new());
        };
        let items: Vec<Item> =
            serde_json::from_str(items.get()).map_err(|source| ListError::Unreadable {
                kind: self.kind.kind,
                source,
            })?;
        Ok(items.into_iter().map(|item| item.0).collect())
    }
}

/// Reads everything that is audited. `seen` is told after each page how many objects came and about how many more of
/// the same kind will. While a page is taken in, the next ones are on their way.
///
/// # Errors
/// Of a kind that a cluster cannot be without, or that exists and may not be read: what is judged without it would be
/// judged wrongly.
pub async fn read(
    client: &Client,
    mut seen: impl FnMut(usize, usize) + Send + 'static,
) -> Result<Cluster, ListError> {
    let (pages, mut come) = mpsc::channel::<Page>(AHEAD);
    let taking = tokio::task::spawn_blocking(move || {
        let mut cluster = Cluster::default();
        while let Some(page) = come.blocking_recv() {
            let (kind, remaining) = (page.kind, page.remaining);
            let objects = page.into_objects()?;
            seen(objects.len(), remaining);
            for object in objects {
                cluster.take(audit::review(object, kind));
            }
        }
        Ok::<_, ListError>(cluster)
    });
    let absent = fetch(client, pages).await?;
    let cluster = taking.await??;
    // A receipt that is not understood confirms nothing, as if it were not there.
    let mut not_understood = Vec::new();
    let receipts = enforcement::receipts(client, &mut not_understood).await?;
    Ok(Cluster {
        confirmations: receipts.unwrap_or_default().into_iter().collect(),
        absent,
        ..cluster
    })
}

/// Sends on what the pages have, owners before what they own; gives the kinds that the API server does not have.
async fn fetch(client: &Client, come: mpsc::Sender<Page>) -> Result<Vec<&'static Kind>, ListError> {
    let mut absent = Vec::new();
    for kind in &KINDS {
        let mut pages = Pages::of(client, kind).in_large_pages();
        loop {
            match pages.next().await {
                Ok(Some(page)) => {
                    if come.send(page).await.is_err() {
                        // Who takes them in has ended, and tells why.
                        return Ok(absent);
                    }
                }
                Ok(None) => break,
                Err(ListError::Absent { .. }) if kind.is_optional() => {
                    absent.push(kind);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(absent)
}

/// The policies on trial, each with its name, and what is wrong with those that are not understood.
///
/// # Errors
/// They cannot be listed, or the API server does not know the kind.
pub async fn staged(
    client: &Client,
) -> Result<Vec<(String, Result<Object, ParseError>)>, ListError> {
    let mut found = Vec::new();
    let mut pages = Pages::of(client, &audit::STAGED);
    while let Some(page) = pages.next().await? {
        for object in page.into_objects()? {
            let review = audit::review(object, &audit::STAGED);
            let name = review.object_ref().to_string();
            match review.object.map(|subject| subject.parsed) {
                Some(review::Kind::Model(parsed)) => found.push((name, Ok(parsed.object))),
                Some(review::Kind::Invalid(error)) => found.push((name, Err(error))),
                Some(_) | None => {}
            }
        }
    }
    Ok(found)
}

// === impl Cluster ===

impl Cluster {
    /// Takes one object in.
    pub fn take(&mut self, review: Review) {
        match review.object.as_ref().map(|subject| &subject.parsed) {
            // Live pods are what policies hold; a template beside them would count them twice.
            Some(review::Kind::Model(parsed)) if !matches!(parsed.object, Object::Workload(_)) => {
                self.snapshot.insert(parsed.object.clone());
            }
            Some(review::Kind::Guardrail(guardrail)) => self.guardrails.push((**guardrail).clone()),
            Some(review::Kind::Exemption(exemption)) => self.exemptions.push((**exemption).clone()),
            Some(review::Kind::ReachabilityRule(rule)) => self.rules.push((**rule).clone()),
            Some(review::Kind::NodeEnforcement(receipt)) => {
                self.confirmations.insert((**receipt).clone());
            }
            Some(review::Kind::Model(_) | review::Kind::Other | review::Kind::Invalid(_))
            | None => {}
        }
        self.reviews.push(review);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_state_is_made_of_what_is_there_and_not_of_templates() {
        let take = |cluster: &mut Cluster, plural: &str, object: Value| {
            let kind = KINDS.iter().find(|kind| kind.plural == plural).unwrap();
            cluster.take(audit::review(object, kind));
        };
        let mut cluster = Cluster::default();
        let spec = json!({"containers": [{"name": "main", "image": "x"}]});
        let metadata = json!({"name": "web", "namespace": "shop"});
        take(
            &mut cluster,
            "namespaces",
            json!({"metadata": {"name": "shop"}}),
        );
        take(
            &mut cluster,
            "deployments",
            json!({"metadata": metadata, "spec": {"selector": {}, "template": {"spec": spec}}}),
        );
        take(
            &mut cluster,
            "pods",
            json!({"metadata": metadata, "spec": spec}),
        );
        take(
            &mut cluster,
            "guardrails",
            json!({"metadata": {"name": "all"}, "spec": {"mode": "Audit"}}),
        );
        assert_eq!(cluster.reviews.len(), 4);
        assert_eq!(cluster.snapshot.pods().count(), 1);
        assert_eq!(cluster.snapshot.namespaces().count(), 1);
        assert_eq!(cluster.guardrails.len(), 1);
    }
}
