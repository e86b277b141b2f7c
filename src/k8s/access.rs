//! The roles and bindings of a cluster, read once.

use kube::Client;
use serde_json::Value;

use super::list::{ListError, Pages};
use crate::guard::access::Rbac;
use crate::guard::audit::Kind;

const fn kind(kind: &'static str, plural: &'static str) -> Kind {
    Kind {
        group: "rbac.authorization.k8s.io",
        version: "v1",
        kind,
        plural,
    }
}

static ROLES: [Kind; 2] = [kind("ClusterRole", "clusterroles"), kind("Role", "roles")];
static BINDINGS: [Kind; 2] = [
    kind("ClusterRoleBinding", "clusterrolebindings"),
    kind("RoleBinding", "rolebindings"),
];

/// Reads all of them; those that cannot be understood are counted.
///
/// # Errors
/// They may not be read, or could not be: an answer without them would be wrong.
pub async fn read(client: &Client) -> Result<(Rbac, usize), ListError> {
    let mut rbac = Rbac::default();
    let mut bad = 0;
    let roles = ROLES.iter().map(|kind| (kind, true));
    for (kind, is_role) in roles.chain(BINDINGS.iter().map(|kind| (kind, false))) {
        let mut pages = Pages::of(client, kind);
        while let Some(page) = pages.next().await? {
            let mut take = |object: &Value| {
                if is_role {
                    rbac.role(object)
                } else {
                    rbac.binding(object)
                }
            };
            let objects = page.into_objects()?;
            bad += objects.iter().filter(|object| !take(object)).count();
        }
    }
    Ok((rbac, bad))
}
