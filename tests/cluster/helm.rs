//! Helm itself, and a small chart: a policy, an account, a Service and a workload.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::kubernetes::{Kubernetes, kept};
use crate::registration::default_deny;

/// The release that `tests/run` builds.
const RELEASE: &str = "4.3.1";

/// Writes the chart, in the folder of the control plane; gives where it is.
pub(crate) fn chart(cluster: &Kubernetes) -> PathBuf {
    let folder = cluster.folder().join("chart");
    let templates = folder.join("templates");
    std::fs::create_dir_all(&templates).unwrap();
    let about = json!({"apiVersion": "v2", "name": "web", "version": "1.0.0"});
    std::fs::write(folder.join("Chart.yaml"), about.to_string()).unwrap();
    let of = |api: &str, kind: &str, spec: Value| {
        let metadata = json!({"name": "web", "namespace": "{{ .Release.Namespace }}"});
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": metadata});
        if !spec.is_null() {
            object["spec"] = spec;
        }
        object.to_string()
    };
    let labels = json!({"app": "web"});
    let deployment = json!({
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "serviceAccountName": "web", "containers": [{"name": "main", "image": "x"}]
            }
        }
    });
    let service = json!({"selector": labels, "ports": [{"port": 80}]});
    // In an order that is not the one in which Helm makes them.
    let files = [
        ("1-deployment.yaml", of("apps/v1", "Deployment", deployment)),
        ("2-service.yaml", of("v1", "Service", service)),
        ("3-account.yaml", of("v1", "ServiceAccount", Value::Null)),
        (
            "4-policy.yaml",
            format!(
                "{{{{ if .Values.policy }}}}\n{}{{{{ end }}}}\n",
                default_deny("{{ .Release.Namespace }}")
            ),
        ),
    ];
    for (name, text) in files {
        std::fs::write(templates.join(name), text).unwrap();
    }
    std::fs::write(folder.join("values.yaml"), "policy: true\n").unwrap();
    folder
}

/// `helm install --create-namespace` of the chart, with these arguments more.
pub(crate) fn install(
    cluster: &Kubernetes,
    namespace: &str,
    arguments: &[&str],
) -> Result<(), String> {
    let helm = kept(&format!("helm-{RELEASE}")).join("helm");
    assert!(
        helm.exists(),
        "{} is missing: `tests/run --only kubernetes` builds it",
        helm.display()
    );
    let mut command = Command::new(helm);
    for (variable, folder) in [
        ("HELM_CACHE_HOME", "helm-cache"),
        ("HELM_CONFIG_HOME", "helm-config"),
        ("HELM_DATA_HOME", "helm-data"),
    ] {
        command.env(variable, cluster.folder().join(folder));
    }
    let output = command
        .args(["install", "web"])
        .arg(cluster.folder().join("chart"))
        .args(["--create-namespace", "--namespace", namespace])
        .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
        .args(arguments)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
