//! A webhook that lets in only clients with a certificate: who passes, who does not, and how that is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use ringfence::telemetry::metrics;
use ringfence::webhook::server::ServerOptions;
use ringfence::webhook::tls::clients::ClientMetrics;
use ringfence::webhook::tls::{Clients, TlsVersions};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::client::{Client, Http, client_config_showing, connect};
use crate::command::{Program, folder, review};
use crate::support::{Running, options, start_for};

/// An authority that signs for clients.
struct Signer {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key as PEM.
type Shown = (String, String);

impl Signer {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn sign(&self, common_name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Shown {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn client(&self, common_name: &str) -> Shown {
        self.sign(common_name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }
}

async fn start(clients: &Arc<Clients>, versions: TlsVersions, counted: &ClientMetrics) -> Running {
    let options = ServerOptions {
        clients: counted.clone(),
        ..options()
    };
    let router = Router::new().route("/hello", get(|| async { "hello" }));
    start_for(Some(Arc::clone(clients)), options, versions, |_| router).await
}

/// What a client with this certificate gets; where it got nothing, how that ended and how many connections it took.
async fn ask(
    server: &Running,
    shown: Option<&Shown>,
    http: Http,
    version: &'static SupportedProtocolVersion,
) -> Result<u16, (String, u64)> {
    let shown = shown.map(|(certificate, key)| (certificate.as_str(), key.as_str()));
    let authority = server.authority.certificate_pem();
    let config = client_config_showing(shown, &[authority], http, &[version]);
    let mut client = Client::with(server.address, config, http);
    let answer = timeout(Duration::from_secs(3), client.get("/hello")).await;
    let answer = answer.expect("an end, not a hang");
    let connections = u64::try_from(client.connections).unwrap();
    answer
        .map(|answer| answer.status)
        .map_err(|error| (error, connections))
}

fn counted(metrics_of: &ClientMetrics, reason: &str) -> u64 {
    let mut registry = Registry::with_prefix("ringfence");
    metrics_of.register(&mut registry);
    let text = metrics::text(&registry).unwrap();
    let series = format!("ringfence_webhook_clients_refused_total{{reason=\"{reason}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.map_or(0, |count| count.parse().unwrap())
}

/// A client may know that it was refused a moment before that is counted.
async fn all_counted(metrics_of: &ClientMetrics, reason: &str, count: u64) {
    let begun = Instant::now();
    while counted(metrics_of, reason) != count {
        let left = counted(metrics_of, reason);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{left} of {count}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_of_the_authority_are_let_in_and_others_are_told_and_counted() {
    let (signer, other) = (Signer::new("clients"), Signer::new("clients"));
    let clients = Clients::new(signer.pem.clone().into(), Vec::new()).unwrap();
    let (good, foreign) = (signer.client("api"), other.client("api"));
    let server_only = signer.sign("api", &[], ExtendedKeyUsagePurpose::ServerAuth);
    for (versions, version) in [(TlsVersions::Only13, &TLS13), (TlsVersions::From12, &TLS12)] {
        let metrics = ClientMetrics::default();
        let server = start(&clients, versions, &metrics).await;
        let (mut without, mut untrusted) = (0, 0);
        for http in [Http::One, Http::Two] {
            assert_eq!(ask(&server, Some(&good), http, version).await, Ok(200));
            let (_, connections) = ask(&server, None, http, version).await.unwrap_err();
            without += connections;
            for shown in [&foreign, &server_only] {
                let refused = ask(&server, Some(shown), http, version).await;
                untrusted += refused.unwrap_err().1;
            }
        }
        let told = told(&server, version).await;
        without += 1;
        assert!(told.contains("CertificateRequired"), "{told}");
        all_counted(&metrics, "NoCertificate", without).await;
        all_counted(&metrics, "NotTrusted", untrusted).await;
    }
}

/// How a connection without a certificate is ended. Its client sends no request: the end of a connection with a request
/// that nobody read may overtake the words.
async fn told(server: &Running, version: &'static SupportedProtocolVersion) -> String {
    let authority = server.authority.certificate_pem();
    let config = client_config_showing(None, &[authority], Http::One, &[version]);
    let ended = async {
        let mut stream = connect(server.address, config).await?;
        stream.read_u8().await
    };
    let ended = timeout(Duration::from_secs(3), ended).await;
    format!("{:?}", ended.expect("an end, not a hang").unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_these_only_the_ones_with_a_name_that_is_given() {
    let signer = Signer::new("clients");
    let names = vec!["kube-apiserver".to_owned(), "api.example.com".to_owned()];
    let clients = Clients::new(signer.pem.clone().into(), names).unwrap();
    let metrics = ClientMetrics::default();
    let server = start(&clients, TlsVersions::default(), &metrics).await;
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let mut others = 0;
    for (shown, good) in [
        (signer.client("kube-apiserver"), true),
        (signer.sign("x", &["API.example.com"], usage.clone()), true),
        (signer.client("kube-apiserver.example.com"), false),
        (signer.sign("x", &["*.example.com"], usage), false),
    ] {
        let answer = ask(&server, Some(&shown), Http::One, &TLS13).await;
        assert_eq!(answer.is_ok(), good, "{answer:?}");
        others += answer.err().map_or(0, |(_, connections)| connections);
    }
    all_counted(&metrics, "NotNamed", others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_let_in_before_is_not_let_in_again_once_the_authority_is_another() {
    let (first, second) = (Signer::new("first"), Signer::new("second"));
    let clients = Clients::new(first.pem.clone().into(), Vec::new()).unwrap();
    let server = start(&clients, TlsVersions::default(), &ClientMetrics::default()).await;
    let shown = first.client("api");
    let shown = (shown.0.as_str(), shown.1.as_str());
    let authority = server.authority.certificate_pem();
    let config = client_config_showing(Some(shown), &[authority], Http::One, &[&TLS13]);
    // A client that would resume its session, were it given a ticket.
    let mut config = Arc::unwrap_or_clone(config);
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    let mut open = Client::with(server.address, Arc::clone(&config), Http::One);
    assert_eq!(open.get("/hello").await.unwrap().status, 200);

    clients.replace(second.pem.clone().into()).unwrap();
    let mut again = Client::with(server.address, config, Http::One);
    again.get("/hello").await.unwrap_err();
    assert_eq!(open.get("/hello").await.unwrap().status, 200);
    assert_eq!(open.connections, 1, "what is open stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_asks_for_certificates_on_its_port_and_for_none_on_the_admin_port() {
    let (top, manifests) = folder();
    let signer = Signer::new("clients");
    let path = top.path().join("clients.crt");
    std::fs::write(&path, &signer.pem).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = free.local_addr().unwrap();
    drop(free);
    let flags = [
        "--client-ca",
        path.to_str().unwrap(),
        "--client-name",
        "api",
    ];
    let program = Program::start(
        &manifests,
        &[&flags[..], &["--admin", &admin.to_string()]].concat(),
    );
    let asked = async |shown: Option<Shown>| {
        let shown = shown
            .as_ref()
            .map(|shown| (shown.0.as_str(), shown.1.as_str()));
        let config = client_config_showing(shown, &[&program.ca], Http::One, &[&TLS13]);
        let mut client = Client::with(program.address, config, Http::One);
        client.post("/validate", review().to_string()).await
    };
    assert_eq!(asked(Some(signer.client("api"))).await.unwrap().status, 200);
    for refused in [None, Some(signer.client("other"))] {
        let begun = Instant::now();
        asked(refused).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
    assert_eq!(
        program.logged("client refused")["reason"],
        "no certificate was shown"
    );
    let page = std::process::Command::new("curl")
        .args([
            "-sf",
            &format!("http://{admin}/readyz"),
            &format!("http://{admin}/metrics"),
        ])
        .output()
        .unwrap();
    let page = String::from_utf8_lossy(&page.stdout);
    assert!(page.starts_with("ok\n"), "{page}");
    assert!(
        page.contains("ringfence_webhook_clients_refused_total{reason=\"NotNamed\"} "),
        "{page}"
    );
}
