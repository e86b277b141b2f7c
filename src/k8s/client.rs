//! The one place that makes a client of the API server: of a kubeconfig, or of what a pod is given to reach its own.
//!
//! Nothing but the API server named there is ever connected to. Requests name the program and its version as their user
//! agent, so that an audit log tells who asked.

use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderValue, USER_AGENT};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Which API server, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// The one that a pod is told of, by its service account.
    #[default]
    InCluster,
    /// By a kubeconfig.
    Kubeconfig {
        /// The file; `None`: the files of `$KUBECONFIG`, else `~/.kube/config`.
        path: Option<PathBuf>,
        /// One of its contexts; `None`: the current one.
        context: Option<String>,
    },
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// This is no pod, or one without a service account.
    #[error("this is no pod with a service account, so give --kubeconfig")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// TLS or authentication cannot be set up.
    #[error("no client can be made of it")]
    Client(#[source] Box<kube::Error>),
}

/// How long a connection may take to be made: within it an API server that can be reached answers.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the API server may take to receive a request.
const WRITE: Duration = Duration::from_secs(10);

/// Makes a client. Connects to nobody yet.
pub async fn connect(access: &Access) -> Result<Client, AccessError> {
    // The client asks for the provider of the process. Where there is one already, it is this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = |error| AccessError::Kubeconfig(Box::new(error));
    let mut config = match access {
        Access::InCluster => {
            Config::incluster().map_err(|error| AccessError::InCluster(Box::new(error)))?
        }
        Access::Kubeconfig { path, context } => {
            let options = KubeConfigOptions {
                context: context.clone(),
                ..KubeConfigOptions::default()
            };
            match path {
                Some(path) => {
                    let read = Kubeconfig::read_from(path).map_err(kubeconfig)?;
                    Config::from_custom_kubeconfig(read, &options).await
                }
                None => Config::from_kubeconfig(&options).await,
            }
            .map_err(kubeconfig)?
        }
    };
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    let agent = HeaderValue::from_static(concat!("ringfence/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    Client::try_from(config).map_err(|error| AccessError::Client(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_used_is_said_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, "clusters: 7").unwrap();
        let access = Access::Kubeconfig {
            path: Some(file),
            context: None,
        };
        let Err(error) = connect(&access).await else {
            panic!("a client of nothing")
        };
        assert_eq!(error.to_string(), "the kubeconfig cannot be used");
    }
}
