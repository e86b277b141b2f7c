//! The one writer: what keeps the webhook registered, its certificates good, and everything else that Ringfence holds in
//! place in a cluster.
//!
//! Every replica follows the cluster; the one that holds the Lease (`lease.rs`) runs the tasks that [`Controller::lead`]
//! starts, and stops them the moment it does not hold it any more. Each task plans by a pure function and brings the
//! cluster to the plan by writes that may be repeated: `registration.rs` the webhook configurations, `certificates.rs` the
//! Secret of the webhook's certificates, `baselines.rs` the baseline policies of namespaces. `audit.rs` judges everything
//! that exists and writes reports, `status.rs` says of Ringfence's own kinds whether they are in force,
//! `gates.rs` lets pods go that waited for a baseline, `events.rs` tells what became of it all.

use std::convert::Infallible;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;

use crate::guard::finding::ObjectRef;
use crate::k8s::events::Events;
use crate::k8s::live::Live;
use crate::k8s::one;
use crate::report::policy_report::Form;
use crate::runtime::{Tasks, publish};
use crate::telemetry::audit::AuditMetrics;
use crate::telemetry::baselines::BaselineMetrics;
use crate::telemetry::certificates::CertificateMetrics;
use certificates::ending::Ending;
use events::Teller;
use prometheus_client::registry::Registry;
use registration::Demand;

mod audit;
mod baselines;
pub mod certificates;
mod events;
mod gates;
pub mod lease;
pub mod registration;
mod status;

/// Who writes, by name of the server-side apply.
pub const FIELD_MANAGER: &str = "ringfence";
/// The `ClusterRole` of the installation that what is registered goes with.
pub const OWNER: &str = "ringfence-controller";
/// The Lease of the writers.
pub const LEASE: &str = "ringfence-controller";
/// The namespace of an installation where nothing else is said.
pub const NAMESPACE: &str = "ringfence-system";

/// The namespace of the node agents: they are on the host's network, which the one of the webhook does not allow.
pub const AGENTS: &str = "ringfence-agent";

/// Where the webhook's certificates come from.
#[derive(Debug, Clone)]
pub enum Certificates {
    /// The controller makes and renews them.
    Kept(certificates::Terms),
    /// Somebody else does; this file has the authorities that sign them, as PEM, and is read again.
    Elsewhere(PathBuf),
}

/// A controller that may lead. Cheap to clone.
#[derive(Clone)]
pub struct Controller {
    /// To the API server.
    pub client: Client,
    /// The namespace of the installation.
    pub namespace: String,
    /// The cluster as it is.
    pub live: Live,
    /// How the webhook is registered.
    pub registration: registration::Options,
    /// Where its certificates come from.
    pub certificates: Certificates,
    /// The API that the audit's reports are written in.
    pub reports: Form,
    /// What is told of its work.
    pub metrics: Metrics,
    /// Where that is told as Events.
    pub events: Option<Events>,
}

/// The numbers of all that a controller does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    certificates: CertificateMetrics,
    baselines: BaselineMetrics,
    audit: AuditMetrics,
}

// === impl Certificates ===

impl Certificates {
    /// The object that what becomes of them is told of: the Secret of the installation in a namespace, or the registration
    /// that trusts them where somebody else makes them.
    fn object(&self, namespace: &str) -> ObjectRef {
        let (api_version, kind, namespace, name) = match self {
            Self::Kept(_) => ("v1", "Secret", Some(namespace), certificates::keep::SECRET),
            Self::Elsewhere(_) => (
                "admissionregistration.k8s.io/v1",
                "ValidatingWebhookConfiguration",
                None,
                registration::NAME,
            ),
        };
        ObjectRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }
}

// === impl Controller ===

impl Controller {
    /// Starts what is done while leading. Whoever drops the tasks stops all of it.
    pub fn lead(&self) -> Tasks {
        let mut tasks = Tasks::new();
        let all = || self.client.clone();
        let name = || registration::NAME.to_owned();
        let (validating, task) = one::follow(Api::all(all()), name());
        tasks.spawn("watch of the validating configuration", task);
        let (mutating, task) = one::follow(Api::all(all()), name());
        tasks.spawn("watch of the mutating configuration", task);
        let (demand_sender, demand) = watch::channel(None);
        tasks.spawn("demand", follow_demand(self.live.clone(), demand_sender));
        let (bundle_sender, bundle) = watch::channel(None);
        let (ending_sender, ending) = watch::channel(None);
        let about = self.certificates.object(&self.namespace);
        let outputs = certificates::keep::Outputs {
            bundle: bundle_sender,
            metrics: self.metrics.certificates.clone(),
            events: Teller::new(self.events.clone(), &about),
            ending: Ending::new(ending_sender),
        };
        match &self.certificates {
            Certificates::Kept(terms) => {
                let secrets: Api<Secret> = Api::namespaced(all(), &self.namespace);
                let (secret, task) = one::follow(secrets, certificates::keep::SECRET.to_owned());
                tasks.spawn("watch of the certificates", task);
                let inputs = certificates::keep::Inputs {
                    secret,
                    validating: validating.clone(),
                    mutating: mutating.clone(),
                };
                let namespace = self.namespace.clone();
                tasks.spawn(
                    "certificates",
                    certificates::keep::keep(all(), namespace, terms.clone(), inputs, outputs),
                );
            }
            Certificates::Elsewhere(path) => {
                let following = certificates::bundle::follow(all(), path.clone(), outputs);
                tasks.spawn("bundle", following);
            }
        }
        let inputs = registration::apply::Inputs {
            demand,
            bundle,
            validating,
            mutating,
        };
        tasks.spawn(
            "registration",
            registration::apply::keep(
                all(),
                self.namespace.clone(),
                self.registration.clone(),
                inputs,
            ),
        );
        let (live, metrics) = (self.live.clone(), &self.metrics);
        tasks.spawn(
            "baselines",
            baselines::keep(
                all(),
                self.namespace.clone(),
                live.clone(),
                metrics.baselines.clone(),
                self.events.clone(),
            ),
        );
        tasks.spawn("gates", gates::keep(all(), live.clone()));
        tasks.spawn("status", status::keep(all(), live.standings()));
        tasks.spawn(
            "audit",
            audit::keep(
                all(),
                live,
                self.reports,
                metrics.audit.clone(),
                audit::Own {
                    namespace: self.namespace.as_str().into(),
                    certificates: self.certificates.clone(),
                    ending,
                },
            ),
        );
        tasks
    }
}

// === impl Metrics ===

impl Metrics {
    /// Adds them to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            certificates: CertificateMetrics::new(registry),
            baselines: BaselineMetrics::new(registry),
            audit: AuditMetrics::new(registry),
        }
    }
}

/// Tells what is demanded, each time it is something else; nothing before the cluster is known whole.
async fn follow_demand(
    live: Live,
    demands: watch::Sender<Option<Demand>>,
) -> Result<(), Infallible> {
    let mut changed = live.changed();
    loop {
        if live.is_complete() {
            let demand = Demand::of(&live.state.load());
            publish(&demands, Some(demand));
        }
        if changed.changed().await.is_err() {
            return Ok(());
        }
    }
}
