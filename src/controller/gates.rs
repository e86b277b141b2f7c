//! Takes the scheduling gate from pods whose namespace has its baseline by now, or is not to get one any more.
//!
//! What policies see of a pod has no gates in it, and gates can only be set when a pod is made; so the pods that wait for
//! a node are listed where one of them was not looked at before. Without a Guardrail that asks for gates this is done once,
//! for what an earlier one may have left behind.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::guard::baseline::plan;
use crate::guard::decide::State;
use crate::guard::mutate::gate::GATE;
use crate::k8s::live::Live;
use crate::k8s::one::chain;
use crate::netpol::{Phase, WorkloadKind, WorkloadRef};

/// The least time between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// How long to wait after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Opens gates for as long as it is polled.
pub(super) async fn keep(client: Client, live: Live) -> Result<(), Infallible> {
    let mut changed = live.changed();
    let mut gates = Gates {
        client,
        free: BTreeSet::new(),
        looked: false,
    };
    loop {
        changed.mark_unchanged();
        let mut pause = PAUSE;
        if live.is_complete()
            && let Err(error) = gates.round(&live.state.load_full()).await
        {
            tracing::warn!(error = %chain(&error), "scheduling gates not taken away, tried again");
            pause = AFTER_FAILURE;
            changed.mark_changed();
        }
        tokio::time::sleep(pause).await;
        if changed.changed().await.is_err() {
            return Ok(());
        }
    }
}

struct Gates {
    client: Client,
    /// Pods that have no gate of ours, and so never will.
    free: BTreeSet<WorkloadRef>,
    /// Whether there was a look at all pods.
    looked: bool,
}

impl Gates {
    async fn round(&mut self, state: &State) -> Result<(), kube::Error> {
        let asked = state.guardrails.iter().any(|guardrail| {
            let baseline = guardrail.spec.baseline.as_ref();
            baseline.is_some_and(|section| section.scheduling_gates)
        });
        if self.looked && !asked {
            return Ok(());
        }
        let waiting: BTreeSet<&WorkloadRef> = state
            .snapshot
            .pods()
            .filter(|pod| !pod.is_template() && pod.phase == Phase::Pending && pod.node.is_none())
            .map(|pod| &pod.workload)
            .collect();
        self.free.retain(|pod| waiting.contains(pod));
        if !waiting.iter().any(|pod| !self.free.contains(*pod)) {
            self.looked = true;
            return Ok(());
        }
        let pods: Api<Pod> = Api::all(self.client.clone());
        let pending = ListParams::default().fields("status.phase=Pending");
        for pod in pods.list(&pending).await? {
            self.look(&pod, state).await?;
        }
        self.looked = true;
        Ok(())
    }

    async fn look(&mut self, pod: &Pod, state: &State) -> Result<(), kube::Error> {
        let (Some(namespace), name) = (pod.namespace(), pod.name_any()) else {
            return Ok(());
        };
        let reference = WorkloadRef {
            kind: WorkloadKind::Pod,
            namespace: namespace.as_str().into(),
            name: name.as_str().into(),
        };
        let spec = pod.spec.as_ref();
        let mut gates = spec
            .and_then(|spec| spec.scheduling_gates.as_ref())
            .into_iter()
            .flatten();
        if !gates.any(|gate| gate.name == GATE) {
            self.free.insert(reference);
            return Ok(());
        }
        let Some(known) = state.snapshot.pod(&reference) else {
            return Ok(());
        };
        let to_come = plan::to_come(known.namespace(), &state.snapshot, &state.guardrails);
        let covered = state.snapshot.pod_coverage(known);
        if !to_come.iter().all(|way| covered.covered(*way)) {
            return Ok(());
        }
        let open = json!({"spec": {"schedulingGates": [{"$patch": "delete", "name": GATE}]}});
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let patched = pods
            .patch(&name, &PatchParams::default(), &Patch::Strategic(open))
            .await;
        match patched {
            Ok(_) => {
                tracing::info!(namespace, name, "scheduling gate taken away");
                self.free.insert(reference);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
