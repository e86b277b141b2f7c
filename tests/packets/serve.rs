//! What answers in a namespace: TCP accepts and echoes, UDP echoes, SCTP answers an INIT.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use tokio::task::AbortHandle;

use crate::cluster::Place;
use crate::namespace::runtime;
use crate::sctp;

/// Servers of one namespace, which end when this is dropped.
pub(crate) struct Serving(Vec<AbortHandle>);

// === impl Serving ===

impl Serving {
    /// Answers at these ports of a place's addresses.
    pub(crate) fn start(place: &Place, ports: &[u16]) -> Self {
        let addresses = [place.address(false), place.address(true)];
        let sockets = addresses.iter().flat_map(|address| {
            let at = ports.iter().map(|port| SocketAddr::new(*address, *port));
            at.collect::<Vec<_>>()
        });
        let (listeners, echoes, associations) = place.namespace.inside(|| {
            let sockets: Vec<SocketAddr> = sockets.collect();
            let listeners: Vec<TcpListener> = sockets.iter().map(listen).collect();
            let echo = |address| UdpSocket::bind(address).unwrap();
            let echoes: Vec<UdpSocket> = sockets.iter().map(echo).collect();
            (listeners, echoes, addresses.map(sctp::open))
        });
        let mut tasks = Vec::new();
        for listener in listeners {
            tasks.push(runtime().spawn(accept(listener)).abort_handle());
        }
        for echo in echoes {
            tasks.push(runtime().spawn(answer(echo)).abort_handle());
        }
        for (socket, v6) in associations.into_iter().zip([false, true]) {
            let ports = ports.to_vec();
            let task = runtime().spawn(sctp::answer(socket, v6, ports));
            tasks.push(task.abort_handle());
        }
        Self(tasks)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Listens, with room for many at once.
fn listen(address: &SocketAddr) -> TcpListener {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket: OwnedFd = rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::TCP),
    )
    .unwrap();
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, address).unwrap();
    rustix::net::listen(&socket, 1024).unwrap();
    TcpListener::from(socket)
}

async fn accept(listener: TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reads, mut writes) = stream.split();
            let _ = tokio::io::copy(&mut reads, &mut writes).await;
        });
    }
}

async fn answer(socket: UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    let mut packet = [0; 2048];
    loop {
        // Errors are about answers that were refused; the next question is another one's.
        if let Ok((size, from)) = socket.recv_from(&mut packet).await {
            let _ = socket.send_to(&packet[..size], from).await;
        }
    }
}
