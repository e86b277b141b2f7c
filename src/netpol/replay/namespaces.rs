//! The labels of namespaces, where records tell them and manifests do not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::record::{Actor, Observations};
use crate::netpol::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::netpol::name::NamespaceName;
use crate::netpol::namespace::Namespace;
use crate::netpol::object::Object;
use crate::netpol::snapshot::Snapshot;

impl Observations {
    /// A snapshot with the labels that are recorded of namespaces of which it knows nothing but the name.
    ///
    /// What manifests say of a namespace counts more. Where records contradict each other, because the labels were changed
    /// meanwhile, the namespace stays unknown.
    pub(in crate::netpol) fn informing<'s>(&self, snapshot: &'s Snapshot) -> Cow<'s, Snapshot> {
        let mut recorded: BTreeMap<&NamespaceName, Option<&Labels>> = BTreeMap::new();
        for actor in self.actors() {
            let Actor::Pod(pod) = actor else { continue };
            let Some(labels) = &pod.namespace_labels else {
                continue;
            };
            let known = recorded.entry(&pod.namespace).or_insert(Some(labels));
            *known = known.filter(|known| *known == labels);
        }
        let mut informed = Cow::Borrowed(snapshot);
        for (name, labels) in recorded {
            if let Some(labels) = labels.filter(|_| is_bare(name, snapshot)) {
                let namespace = Namespace::new(name.clone(), labels);
                informed.to_mut().insert(Object::Namespace(namespace));
            }
        }
        informed
    }
}

/// Whether nothing is known of a namespace's labels but the one that is its name.
fn is_bare(name: &NamespaceName, snapshot: &Snapshot) -> bool {
    let labels = snapshot.namespace_labels(name);
    labels.iter().all(|(key, _)| key == NAMESPACE_NAME_LABEL)
}
