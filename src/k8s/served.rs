//! Whether an API server serves a resource at all.
//!
//! To who has no right to a resource it says so before it looks whether there is such a one. So a refusal of what a cluster
//! can be without says nothing, as after an update whose new roles were not applied. What is served may be asked by everybody.

use std::time::Duration;

use kube::Client;
use tokio::time::timeout;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a resource of an `apiVersion` with a group is certainly not served; in doubt it may be.
pub(super) async fn is_absent(client: &Client, api_version: &str, plural: &str) -> bool {
    match timeout(PATIENCE, client.list_api_group_resources(api_version)).await {
        Ok(Ok(served)) => !served.resources.iter().any(|it| it.name == plural),
        Ok(Err(error)) => matches!(error, kube::Error::Api(status) if status.code == 404),
        Err(_) => false,
    }
}
