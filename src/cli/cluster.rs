//! Which cluster a subcommand speaks to.

use std::path::PathBuf;

use anyhow::Context as _;
use kube::Client;

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
    /// A client for what runs in a cluster: without any flag, the cluster that this pod is in.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let access = if self.is_empty() {
            Access::InCluster
        } else {
            self.kubeconfig()
        };
        connect(&access).await
    }

    /// A client for what a person runs: without any flag, the cluster that this pod is in, else that of `kubectl`.
    pub(super) async fn connect_from_outside(&self) -> anyhow::Result<Client> {
        let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let access = if in_pod && self.is_empty() {
            Access::InCluster
        } else {
            self.kubeconfig()
        };
        connect(&access).await
    }

    fn is_empty(&self) -> bool {
        self.kubeconfig.is_none() && self.context.is_none()
    }

    fn kubeconfig(&self) -> Access {
        Access::Kubeconfig {
            path: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }
}

async fn connect(access: &Access) -> anyhow::Result<Client> {
    client::connect(access)
        .await
        .context("cannot reach an API server")
}
