//! A server for one test: real TLS on loopback, a certificate of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use jiff::{SignedDuration, Timestamp};
use ringfence::certs::{Authority, Issued, Names, Validity};
use ringfence::runtime::{Phase, Shutdown, Trigger};
use ringfence::webhook::server::{self, Ending, ServerOptions};
use ringfence::webhook::tls::{CertificateSlot, Clients, Identity, TlsVersions, server_config};
use tokio::task::JoinHandle;

use crate::client::{Client, Http};

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) slot: Arc<CertificateSlot>,
    pub(crate) trigger: Trigger,
    pub(crate) ending: JoinHandle<Ending>,
}

pub(crate) fn names() -> Names {
    Names::parse(["127.0.0.1", "ringfence.ringfence-system.svc"]).unwrap()
}

pub(crate) fn validity() -> Validity {
    Validity::starting(Timestamp::now(), SignedDuration::from_hours(1)).unwrap()
}

pub(crate) fn authority() -> Authority {
    Authority::generate("test", names(), validity()).unwrap()
}

pub(crate) fn leaf(authority: &Authority) -> Issued {
    authority.issue(&names(), validity()).unwrap()
}

/// Short times, so that tests of limits end soon.
pub(crate) fn options() -> ServerOptions {
    ServerOptions {
        drain_delay: Duration::from_millis(300),
        drain_timeout: Duration::from_secs(5),
        ..ServerOptions::default()
    }
}

pub(crate) async fn start(router: Router, options: ServerOptions) -> Running {
    start_with(options, TlsVersions::default(), move |_| router).await
}

/// Starts a server whose router knows how far the shutdown is.
pub(crate) async fn start_with(
    options: ServerOptions,
    versions: TlsVersions,
    router: impl FnOnce(Shutdown) -> Router,
) -> Running {
    start_for(None, options, versions, router).await
}

/// The same, for some clients only.
pub(crate) async fn start_for(
    clients: Option<Arc<Clients>>,
    options: ServerOptions,
    versions: TlsVersions,
    router: impl FnOnce(Shutdown) -> Router,
) -> Running {
    let authority = authority();
    let slot =
        CertificateSlot::new(Identity::from_issued(&leaf(&authority), Timestamp::now()).unwrap());
    let tls = server_config(slot.clone(), versions, clients).unwrap();
    let listener = server::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, shutdown) = Trigger::new();
    let router = router(shutdown.clone());
    let ending = tokio::spawn(server::run(listener, tls, router, options, shutdown));
    Running {
        address,
        authority,
        slot,
        trigger,
        ending,
    }
}

impl Running {
    pub(crate) fn client(&self, http: Http) -> Client {
        Client::new(self.address, &[self.authority.certificate_pem()], http)
    }

    pub(crate) async fn drain(self) -> Ending {
        self.trigger.advance_to(Phase::Draining);
        self.ending.await.unwrap()
    }
}
