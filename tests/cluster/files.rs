//! Certificates that somebody else makes, such as cert-manager, as files of a mounted Secret: what is mounted is swapped while
//! requests go through a real API server, and nothing fails.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use ringfence::certs::CertificateFacts;

use crate::access::definition;
use crate::events::{events, one};
use crate::installation::{controller, fails_for, install_kinds, registered, webhook_with};
use crate::kubernetes::{Kubernetes, free_port};
use crate::load::Load;
use crate::lockout::number;
use crate::registration::{GUARDRAIL, namespace, pod, refused};
use crate::rotation::ending_is_reported;

/// A folder as the kubelet mounts a Secret: the files are links into `..data`, which is swapped as a whole.
struct Mount {
    folder: PathBuf,
    version: usize,
}

impl Mount {
    fn new(folder: PathBuf) -> Self {
        std::fs::create_dir(&folder).unwrap();
        Self { folder, version: 0 }
    }

    fn swap(&mut self, files: &[(&str, &[u8])]) {
        self.version += 1;
        let version = format!("..{}", self.version);
        std::fs::create_dir(self.folder.join(&version)).unwrap();
        for (name, text) in files {
            std::fs::write(self.folder.join(&version).join(name), text).unwrap();
        }
        let next = self.folder.join("..data_tmp");
        symlink(&version, &next).unwrap();
        std::fs::rename(&next, self.folder.join("..data")).unwrap();
        for (name, _) in files {
            let link = self.folder.join(name);
            if !link.is_symlink() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// An authority and a leaf that it has signed.
struct Issued {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Issued {
    fn new(cluster: &Kubernetes, name: &str) -> Self {
        Self::valid(cluster, name, "24h")
    }

    fn valid(cluster: &Kubernetes, name: &str, length: &str) -> Self {
        let folder = cluster.folder().join(name);
        let made = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(["certs", "dev", "--name", "127.0.0.1", "--valid", length])
            .arg("--out")
            .arg(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        Self {
            authority: read("ca.crt"),
            certificate: read("tls.crt"),
            key: read("tls.key"),
        }
    }

    /// The files of the Secret, with these authorities.
    fn secret<'a>(&'a self, authorities: &'a [u8]) -> [(&'static str, &'a [u8]); 3] {
        [
            ("ca.crt", authorities),
            ("tls.crt", &self.certificate),
            ("tls.key", &self.key),
        ]
    }
}

/// Whether every entry trusts exactly these authorities.
fn trusts(configuration: &ValidatingWebhookConfiguration, authorities: &[u8]) -> bool {
    let mut entries = configuration.webhooks.iter().flatten();
    entries.all(|entry| {
        let bundle = entry.client_config.ca_bundle.as_ref();
        bundle.is_some_and(|bundle| bundle.0 == authorities)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_somebody_else_renews_are_swapped_under_load_and_nothing_fails() {
    let cluster = Kubernetes::start().await;
    install_kinds(&cluster).await;
    let (old, new) = (Issued::new(&cluster, "old"), Issued::new(&cluster, "new"));
    let mut mount = Mount::new(cluster.folder().join("mount"));
    mount.swap(&old.secret(&old.authority));
    let port = free_port();
    let (bundle, certificate, key) = (
        mount.path("ca.crt"),
        mount.path("tls.crt"),
        mount.path("tls.key"),
    );
    let _controller = controller(&cluster, "controller", port, &["--ca-bundle", &bundle]);
    let files = ["--tls-cert", &certificate, "--tls-key", &key];
    let webhook = webhook_with(&cluster, "webhook", port, &files);
    webhook.line(&["listening"]).await;
    cluster.apply(&namespace("shop", "prod"));
    cluster.apply(GUARDRAIL);
    registered(&cluster, "shop in fail", |c| {
        fails_for(c, "shop") && trusts(c, &old.authority)
    })
    .await;
    refused(&cluster, &pod("web", "shop"), "default-deny").await;
    let secrets = cluster.kubectl(
        &["get", "secrets", "-n", "ringfence-system", "-o", "name"],
        "",
    );
    let secrets = String::from_utf8_lossy(&secrets.stdout).into_owned();
    assert!(!secrets.contains("ringfence-certificates"), "{secrets}");

    let load = Load::start(&[cluster.client().await], 30, "shop");
    let both = [old.authority.as_slice(), &new.authority].concat();
    mount.swap(&old.secret(&both));
    registered(&cluster, "both trusted", |c| trusts(c, &both)).await;
    // No API server says when it has taken that up.
    tokio::time::sleep(Duration::from_secs(2)).await;
    mount.swap(&new.secret(&both));
    webhook.line(&["certificate replaced"]).await;
    let before = load.done();
    load.reached(before + 300, Duration::from_mins(1)).await;
    mount.swap(&new.secret(&new.authority));
    registered(&cluster, "the new one trusted", |c| {
        trusts(c, &new.authority)
    })
    .await;
    let before = load.done();
    load.reached(before + 300, Duration::from_mins(1)).await;
    println!("{} requests", load.unharmed().await);
    refused(&cluster, &pod("web", "shop"), "default-deny").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_somebody_else_does_not_renew_is_told_by_event_report_and_number_before_it_ends()
 {
    let cluster = Kubernetes::start().await;
    install_kinds(&cluster).await;
    cluster.apply(&definition(
        "wgpolicyk8s.io",
        "v1alpha2",
        "PolicyReport",
        "policyreports",
        "Namespaced",
    ));
    let new = Issued::new(&cluster, "new");
    let mut mount = Mount::new(cluster.folder().join("mount"));
    mount.swap(&new.secret(&new.authority));
    let (bundle, admin) = (mount.path("ca.crt"), format!("127.0.0.1:{}", free_port()));
    let controller = controller(
        &cluster,
        "controller",
        free_port(),
        &["--ca-bundle", &bundle, "--admin", &admin],
    );
    controller.line(&["leading"]).await;
    let told = async |expected: bool| {
        let what = format!("in the report: {expected}");
        // With nothing to tell there may be no report.
        let told = || ending_is_reported(&cluster, "ringfence").unwrap_or(false);
        Kubernetes::eventually(&what, async || (told() == expected).then_some(())).await;
    };
    let ends = || {
        let series = "ringfence_certificate_expiry_timestamp_seconds{certificate=\"Authority\"} ";
        number(&admin, series)
    };
    let end_of = |authority: &[u8]| {
        let facts = CertificateFacts::from_pem(authority).unwrap();
        u64::try_from(facts.not_after().as_second()).unwrap()
    };
    controller.line(&["audit done"]).await;
    assert_eq!(ends(), end_of(&new.authority));
    told(false).await;
    let about = async || events(&cluster, "default", "CertificateEnding", "ringfence").await;
    assert!(about().await.is_empty());

    // It is backdated by five minutes, so this is less than a seventh of its life.
    let old = Issued::valid(&cluster, "old", "45s");
    mount.swap(&old.secret(&old.authority));
    let event = one(&cluster, "default", "CertificateEnding", "ringfence").await;
    let kind = event.regarding.unwrap().kind.unwrap();
    assert_eq!(kind, "ValidatingWebhookConfiguration");
    let note = event.note.unwrap();
    assert!(note.contains("--ca-bundle"), "{note}");
    assert!(
        Timestamp::now().as_second() < i64::try_from(end_of(&old.authority)).unwrap(),
        "told before it ends: {note}"
    );
    assert_eq!(ends(), end_of(&old.authority));
    controller
        .line(&["WARN", "the authorities end soon or have ended"])
        .await;
    told(true).await;

    // Another stands beside it.
    let both = [old.authority.as_slice(), &new.authority].concat();
    mount.swap(&old.secret(&both));
    told(false).await;
    assert_eq!(ends(), end_of(&new.authority));
    assert_eq!(about().await.len(), 1);
}
