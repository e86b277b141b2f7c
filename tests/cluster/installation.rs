//! An installation of Ringfence beside a control plane: its kinds, a controller, and webhooks that are reached by URL.

use std::process::Command;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;

use crate::kubernetes::{Kubernetes, free_port};
use crate::process::Process;

/// A controller and one webhook. Both end when this is dropped.
pub(crate) struct Installation {
    pub(crate) controller: Process,
    pub(crate) webhook: Process,
    pub(crate) port: u16,
}

/// Ringfence's own kinds, known to an API server.
pub(crate) async fn install_kinds(cluster: &Kubernetes) {
    let printed = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .arg("crds")
        .output()
        .unwrap();
    cluster.apply(&String::from_utf8(printed.stdout).unwrap());
    // They are served a moment after they were made.
    let served = async || {
        let guardrails = cluster.kubectl(
            &[
                "get",
                "guardrails,exemptions,reachabilityrules,nodeenforcements",
                "-A",
            ],
            "",
        );
        guardrails.status.success().then_some(())
    };
    Kubernetes::eventually("the kinds served", served).await;
}

impl Installation {
    /// Installs the kinds, a webhook and a controller, the latter with these arguments more.
    pub(crate) async fn start(cluster: &Kubernetes, arguments: &[&str]) -> Self {
        install_kinds(cluster).await;
        let port = free_port();
        let this = Self {
            controller: controller(cluster, "controller", port, arguments),
            webhook: webhook(cluster, "webhook", port),
            port,
        };
        this.webhook.line(&["listening"]).await;
        this.controller.line(&["leading"]).await;
        this
    }
}

/// A controller that registers a webhook at a port.
pub(crate) fn controller(
    cluster: &Kubernetes,
    name: &str,
    port: u16,
    arguments: &[&str],
) -> Process {
    let url = format!("https://127.0.0.1:{port}");
    let mut all = vec!["--webhook-url", &url];
    all.extend(arguments);
    cluster.ringfence(name, "controller", &all)
}

/// A webhook at a port, with the certificate that the controller keeps.
pub(crate) fn webhook(cluster: &Kubernetes, name: &str, port: u16) -> Process {
    webhook_with(cluster, name, port, &[])
}

/// The same, with these arguments more.
pub(crate) fn webhook_with(
    cluster: &Kubernetes,
    name: &str,
    port: u16,
    arguments: &[&str],
) -> Process {
    let listen = format!("127.0.0.1:{port}");
    let mut all = vec!["--listen", &listen, "--drain-delay", "1"];
    all.extend(arguments);
    cluster.ringfence(name, "webhook", &all)
}

/// Waits until the API server holds a registration that satisfies.
pub(crate) async fn registered(
    cluster: &Kubernetes,
    what: &str,
    good: impl Fn(&ValidatingWebhookConfiguration) -> bool,
) -> ValidatingWebhookConfiguration {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(cluster.client().await);
    let look = async || {
        let there = api.get_opt("ringfence").await.unwrap();
        there.filter(|there| good(there))
    };
    Kubernetes::eventually(what, look).await
}

/// Whether the entry `fail` lists a namespace.
pub(crate) fn fails_for(configuration: &ValidatingWebhookConfiguration, namespace: &str) -> bool {
    let entries = configuration.webhooks.iter().flatten();
    let mut fail = entries.filter(|entry| entry.name.starts_with("fail."));
    fail.any(|entry| {
        let selector = entry.namespace_selector.clone().unwrap_or_default();
        let terms = selector.match_expressions.unwrap_or_default();
        let values = terms
            .into_iter()
            .flat_map(|term| term.values.unwrap_or_default());
        values.into_iter().any(|value| value == namespace)
    })
}
