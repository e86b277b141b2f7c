//! Which cluster a subcommand speaks to.

use std::path::PathBuf;

use anyhow::Context as _;
use kube::Client;

use crate::controller::NAMESPACE;
use crate::k8s::client::{self, Access};

/// Which API server, and as whom.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ClusterArgs {
    /// A kubeconfig to reach the API server by.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; without it, the current one. Alone it means the kubeconfig of `kubectl`.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

// === impl ClusterArgs ===

impl ClusterArgs {
    /// Whether the cluster is meant that this pod is in.
    pub(super) fn is_in_cluster(&self) -> bool {
        self.kubeconfig.is_none() && self.context.is_none()
    }

    /// The namespace of the installation: what was asked for, else the pod's own, else what it is called by default.
    pub(super) fn installation(&self, client: &Client, asked: Option<&str>) -> String {
        let own = self.is_in_cluster().then(|| client.default_namespace());
        asked.or(own).unwrap_or(NAMESPACE).to_owned()
    }

    /// A client for what runs in a cluster: without any flag, the cluster that this pod is in.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let access = if self.is_in_cluster() {
            Access::InCluster
        } else {
            self.kubeconfig()
        };
        connect(&access).await
    }

    /// A client for what a person runs: without any flag, the cluster that this pod is in, else that of `kubectl`.
    pub(super) async fn connect_from_outside(&self) -> anyhow::Result<Client> {
        let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let access = if in_pod && self.is_in_cluster() {
            Access::InCluster
        } else {
            self.kubeconfig()
        };
        connect(&access).await
    }

    fn kubeconfig(&self) -> Access {
        Access::Kubeconfig {
            path: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }
}

/// The name of this machine; in a pod, of the pod.
pub(super) fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

async fn connect(access: &Access) -> anyhow::Result<Client> {
    client::connect(access)
        .await
        .context("cannot reach an API server")
}
