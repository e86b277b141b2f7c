//! The certificate that `ringfence webhook` shows: from files, from the Secret that the controller keeps, or made now.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rustls::ServerConfig;

use crate::certs::{Access, Authority, Names, Validity, write_file};
use crate::controller::certificates::keep::SECRET;
use crate::controller::registration;
use crate::k8s::one;
use crate::runtime::{Phase, Readiness, Shutdown, Tasks};
use crate::telemetry::certificates::CertificateMetrics;
use crate::webhook::tls::{
    CertificateSlot, Clients, Identity, PairFiles, TlsVersions, proof, secret, server_config,
};

/// Which certificate is shown.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ShownArgs {
    /// A DNS name or IP address that a generated certificate is for; more than one may be given.
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// Make a certificate now, and write its CA here (PEM). In a cluster the certificate of the controller is shown
    /// instead where this is left out.
    #[arg(long, value_name = "FILE", conflicts_with = "tls_cert")]
    ca_out: Option<PathBuf>,
    /// A certificate chain of your own (PEM, leaf first), read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The oldest TLS to speak.
    #[arg(long, value_name = "VERSION", default_value = "1.3")]
    tls_min: TlsMin,
}

/// The oldest TLS to speak.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum TlsMin {
    /// TLS 1.2 and 1.3.
    #[value(name = "1.2")]
    From12,
    /// TLS 1.3 only.
    #[value(name = "1.3")]
    Only13,
}

/// How often certificate files are looked at.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(10);
/// How long a generated certificate is valid: it is made anew at each start.
const GENERATED_FOR: SignedDuration = SignedDuration::from_hours(24 * 365);

/// The cluster that the webhook is for, and the namespace of the installation there.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) client: Client,
    pub(super) namespace: String,
}

// === impl ShownArgs ===

impl ShownArgs {
    /// Settles what is shown and starts what keeps it so; waits for the controller where it makes the certificate. None
    /// when the process was told to stop meanwhile.
    pub(super) async fn slot(
        &self,
        place: Option<&Place>,
        metrics: &CertificateMetrics,
        tasks: &mut Tasks,
        mut shutdown: Shutdown,
    ) -> anyhow::Result<Option<Arc<CertificateSlot>>> {
        if let (Some(certificate), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) {
            let files = PairFiles { certificate, key };
            let slot = CertificateSlot::new(files.load(Timestamp::now()).context("--tls-cert")?);
            let following = files.follow(Arc::clone(&slot), LOOK_AT_CERTIFICATE, metrics.clone());
            tasks.spawn("certificate", following);
            return Ok(Some(slot));
        }
        let Some(place) = place.filter(|_| self.ca_out.is_none()) else {
            return Ok(Some(CertificateSlot::new(self.generated()?)));
        };
        let api: Api<Secret> = Api::namespaced(place.client.clone(), &place.namespace);
        let (mut receiver, following) = one::follow(api, SECRET.to_owned());
        tasks.spawn("watch of the certificate", following);
        let identity = tokio::select! {
            identity = secret::first(&mut receiver) => identity,
            () = shutdown.reached(Phase::Draining) => return Ok(None),
        };
        let Some(identity) = identity else {
            bail!("the certificate's Secret is not watched any more");
        };
        let slot = CertificateSlot::new(identity);
        let following = secret::follow(receiver, Arc::clone(&slot), secret::AGAIN, metrics.clone());
        tasks.spawn("certificate", following);
        Ok(Some(slot))
    }

    /// The server's side of TLS.
    pub(super) fn tls(
        &self,
        slot: Arc<CertificateSlot>,
        clients: Option<Arc<Clients>>,
    ) -> anyhow::Result<Arc<ServerConfig>> {
        let versions = match self.tls_min {
            TlsMin::From12 => TlsVersions::From12,
            TlsMin::Only13 => TlsVersions::Only13,
        };
        Ok(server_config(slot, versions, clients)?)
    }

    /// Proves again and again that API servers can shake hands with what listens at an address.
    pub(super) fn prove(
        place: &Place,
        own: SocketAddr,
        clients: Option<&Clients>,
        readiness: &Readiness,
        metrics: &CertificateMetrics,
        tasks: &mut Tasks,
    ) {
        let api = Api::all(place.client.clone());
        let (configuration, following) = one::follow(api, registration::NAME.to_owned());
        tasks.spawn("watch of the registration", following);
        readiness.wait_for(proof::READY, "no handshake was made yet");
        let proving = proof::keep(
            own,
            configuration,
            clients.map(Clients::own),
            readiness.clone(),
            metrics.clone(),
        );
        tasks.spawn("proof", proving);
    }

    /// A certificate that is made now.
    fn generated(&self) -> anyhow::Result<Identity> {
        let now = Timestamp::now();
        let names = Names::parse(&self.names).context("--name")?;
        let validity = Validity::starting(now, GENERATED_FOR)?;
        let authority = Authority::generate("ringfence webhook", names.clone(), validity)?;
        if let Some(path) = &self.ca_out {
            publish(path, &authority)?;
        }
        Ok(Identity::from_issued(
            &authority.issue(&names, validity)?,
            now,
        )?)
    }
}

fn publish(path: &Path, authority: &Authority) -> anyhow::Result<()> {
    write_file(
        path,
        authority.certificate_pem().as_bytes(),
        Access::Everybody,
    )
    .context("--ca-out")?;
    tracing::info!(path = %path.display(), "CA written");
    Ok(())
}
