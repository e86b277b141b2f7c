//! The writing of reports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use tokio::time::MissedTickBehavior;

use crate::controller::FIELD_MANAGER;
use crate::guard::audit::{Kind, Touched};
use crate::k8s::list::{ListError, Pages};
use crate::netpol::NamespaceName;
use crate::report::policy_report::{Form, PolicyReport};

/// The least time between the beginnings of two writes.
const BETWEEN: Duration = Duration::from_millis(20);
/// What our reports are known by.
const OURS: &str = "app.kubernetes.io/managed-by=ringfence";

/// Why a report could not be written.
pub(super) type WriteError = Box<dyn std::error::Error + Send + Sync>;

/// Writes the reports that differ from those that are there; nothing where their CRD is not there.
pub(super) async fn reports(
    client: &Client,
    form: Form,
    touched: &Touched,
    reports: Vec<PolicyReport>,
) -> Result<(), WriteError> {
    // Each with where to look for what is there: at once, or only where something is to be told.
    let places: BTreeSet<(bool, Option<&str>)> = match touched {
        Touched::All => [(true, None), (false, None)].into(),
        Touched::Some { .. } => reports
            .iter()
            .map(|report| report.metadata.namespace.as_deref())
            .map(|namespace| (namespace.is_some(), namespace))
            .collect(),
    };
    let mut there: BTreeMap<(String, Option<String>), PolicyReport> = BTreeMap::new();
    let mut absent: Vec<&Kind> = Vec::new();
    for (is_of_namespace, namespace) in places {
        let kind = form.kind(is_of_namespace);
        if absent.contains(&kind) {
            continue;
        }
        let mut pages = Pages::of(client, kind).labelled(OURS);
        if let Some(namespace) = namespace {
            pages = pages.within(&NamespaceName::from(namespace));
        }
        loop {
            match pages.next().await {
                Ok(Some(page)) => {
                    for mut item in page.into_objects()? {
                        kind.name(&mut item);
                        if let Ok(report) = serde_json::from_value::<PolicyReport>(item) {
                            let key = (report.kind.clone(), report.metadata.namespace.clone());
                            there.insert(key, report);
                        }
                    }
                }
                Ok(None) => break,
                Err(ListError::Absent { .. }) => {
                    absent.push(kind);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let mut rate = tokio::time::interval(BETWEEN);
    rate.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for report in reports {
        let kind = form.kind(report.metadata.namespace.is_some());
        let key = (report.kind.clone(), report.metadata.namespace.clone());
        if absent.contains(&kind) || there.get(&key) == Some(&report) {
            continue;
        }
        rate.tick().await;
        let named = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
        let resource = ApiResource::from_gvk_with_plural(&named, kind.plural);
        let api: Api<DynamicObject> = match &report.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let as_us = PatchParams::apply(FIELD_MANAGER).force();
        match api
            .patch(&report.metadata.name, &as_us, &Patch::Apply(&report))
            .await
        {
            Ok(_) => {}
            // The namespace has gone meanwhile, or is about to.
            Err(kube::Error::Api(status))
                if status.is_not_found() || status.message.contains("being terminated") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
