//! API servers that show a client certificate to the webhook, as the Kubernetes documentation on authenticating API servers
//! has it: by an `AdmissionConfiguration` with a kubeconfig.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::json;

use crate::installation::{controller, fails_for, install_kinds, registered, webhook_with};
use crate::kubernetes::{Kubernetes, free_port};
use crate::registration::{GUARDRAIL, create, default_deny, namespace, pod, refused};

/// An authority in `NAME-ca.crt`, and in `NAME.crt` and `NAME.key` a client that it has signed for.
fn signed(cluster: &Kubernetes, name: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, name);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    let write =
        |file: String, text: &str| std::fs::write(cluster.folder().join(file), text).unwrap();
    write(format!("{name}-ca.crt"), &authority);
    write(format!("{name}.crt"), &certificate);
    write(format!("{name}.key"), &key.serialize_pem());
}

/// Starts the API server again, with a certificate for whom it finds at `127.0.0.1:PORT`. The same configuration as in the
/// README.
async fn show(cluster: &Kubernetes, name: &str, port: u16) {
    let file = |name: &str| cluster.folder().join(name);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config",
        "users": [{"name": format!("127.0.0.1:{port}"), "user": {
            "client-certificate": file(&format!("{name}.crt")),
            "client-key": file(&format!("{name}.key")),
        }}],
    });
    std::fs::write(file("webhooks.kubeconfig"), kubeconfig.to_string()).unwrap();
    let plugin = |plugin: &str| {
        json!({"name": plugin, "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": file("webhooks.kubeconfig"),
        }})
    };
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [plugin("ValidatingAdmissionWebhook"), plugin("MutatingAdmissionWebhook")],
    });
    std::fs::write(file("admission.yaml"), configuration.to_string()).unwrap();
    cluster.stop_server(0);
    let flag = format!(
        "--admission-control-config-file={}",
        file("admission.yaml").display()
    );
    cluster.start_server_with(0, &[&flag]).await;
}

#[tokio::test]
async fn an_api_server_is_known_by_its_certificate_and_without_it_nothing_is_judged() {
    let cluster = Kubernetes::start().await;
    install_kinds(&cluster).await;
    signed(&cluster, "ours");
    signed(&cluster, "foreign");
    let (port, admin) = (free_port(), free_port());
    let _controller = controller(&cluster, "controller", port, &[]);
    let admin = format!("127.0.0.1:{admin}");
    let authority = cluster.folder().join("ours-ca.crt");
    let webhook = webhook_with(
        &cluster,
        "webhook",
        port,
        &[
            "--admin",
            &admin,
            "--client-ca",
            authority.to_str().unwrap(),
            "--client-name",
            "kube-apiserver",
        ],
    );
    webhook.line(&["listening"]).await;
    cluster.apply(&namespace("shop", "prod"));
    cluster.apply(GUARDRAIL);
    registered(&cluster, "shop in fail", |c| fails_for(c, "shop")).await;

    // The proof of readiness is let in by a certificate of its own, and probes go to the admin port.
    Kubernetes::eventually("ready", async || {
        let probe = std::process::Command::new("curl")
            .args(["-sf", &format!("http://{admin}/readyz")])
            .output();
        probe.unwrap().status.success().then_some(())
    })
    .await;
    refused(&cluster, &pod("web", "shop"), "certificate required").await;
    show(&cluster, "foreign", port).await;
    refused(
        &cluster,
        &pod("web", "shop"),
        "unknown certificate authority",
    )
    .await;
    show(&cluster, "ours", port).await;
    refused(&cluster, &pod("web", "shop"), "default-deny").await;
    create(&cluster, &default_deny("shop"), &[]).unwrap();
    create(&cluster, &pod("web", "shop"), &[]).unwrap();

    let page = std::process::Command::new("curl")
        .args(["-sf", &format!("http://{admin}/metrics")])
        .output()
        .unwrap();
    let page = String::from_utf8_lossy(&page.stdout);
    for reason in ["NoCertificate", "NotTrusted"] {
        let series = format!("ringfence_webhook_clients_refused_total{{reason=\"{reason}\"}}");
        assert!(page.contains(&series), "{page}");
    }
    assert!(
        page.contains("ringfence_certificate_not_trusted 0"),
        "{page}"
    );
}
