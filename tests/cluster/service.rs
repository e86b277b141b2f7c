//! What a Service does for the webhook's replicas.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};

/// Where new connections go: the replicas that were ready when last asked, as the endpoints of a Service are.
#[derive(Clone, Default)]
pub(crate) struct Endpoints(Arc<Mutex<Vec<SocketAddr>>>);

impl Endpoints {
    pub(crate) fn set(&self, ready: Vec<SocketAddr>) {
        *self.0.lock().unwrap() = ready;
    }

    /// What a Service does for connections: each goes to one of its endpoints and stays there.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let mut next = 0;
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let ready = self.0.lock().unwrap().clone();
            next += 1;
            let Some(to) = ready.get(next % ready.len().max(1)).copied() else {
                continue;
            };
            tokio::spawn(async move {
                let Ok(mut to) = TcpStream::connect(to).await else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    }
}
