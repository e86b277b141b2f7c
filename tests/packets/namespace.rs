//! A network namespace with a name of its own: made by `ip`, gone when it is dropped, also after a panic. What an earlier
//! process left behind because it was killed is swept away by the next one.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;
use std::{fs, process, thread};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    handle: File,
    removed: AtomicBool,
}

// === impl Namespace ===

impl Namespace {
    /// Makes several at once; the names that are given become part of theirs.
    pub(crate) fn make(names: &[String]) -> Vec<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(Self::sweep);
        let names: Vec<String> = names.iter().map(|name| unique(name)).collect();
        let lines: String = names
            .iter()
            .map(|name| format!("netns add {name}\n"))
            .collect();
        must(&run("ip", &["-batch", "-"], &lines), "ip netns add");
        names
            .into_iter()
            .map(|name| Self {
                handle: File::open(format!("{FOLDER}/{name}")).unwrap(),
                name,
                removed: AtomicBool::new(false),
            })
            .collect()
    }

    /// Its name, as `ip netns` has it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(FOLDER).join(&self.name)
    }

    /// Calls a function on a thread inside it: sockets opened there, and programs started there, stay inside.
    pub(crate) fn inside<T: Send>(&self, call: impl FnOnce() -> T + Send) -> T {
        // Its threads must not be made by one that is inside: they would be there, too.
        runtime();
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                call()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves the calling thread inside, for good.
    pub(crate) fn enter(&self) {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.handle.as_fd(), network)
            .expect("cannot enter a network namespace: run these tests as root, or by tests/run");
    }

    /// Runs a program inside it and gives what it printed; panics when it fails.
    pub(crate) fn run(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let output = self.inside(|| run(program, arguments, input));
        must(&output, &format!("{program} {}", arguments.join(" ")));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A socket that reads every frame at its interfaces, and waits for the next one no longer than this.
    pub(crate) fn frames(&self, patience: Duration) -> OwnedFd {
        let socket = self.inside(|| {
            let (family, kind) = (AddressFamily::PACKET, SocketType::RAW);
            net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(net::eth::ALL)).unwrap()
        });
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience)).unwrap();
        socket
    }

    /// Makes what listens outside, such as an API server on `127.0.0.1`, answer at the same port of `127.0.0.1` inside. What is
    /// given breaks the connections that are open.
    pub(crate) fn let_in(&self, target: SocketAddr) -> Arc<Notify> {
        let broken = Arc::new(Notify::new());
        let given = Arc::clone(&broken);
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, target.port()));
        let listener = self.inside(|| std::net::TcpListener::bind(local).unwrap());
        listener.set_nonblocking(true).unwrap();
        runtime().spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut inner, _)) = listener.accept().await {
                let broken = Arc::clone(&broken);
                tokio::spawn(async move {
                    if let Ok(mut outer) = tokio::net::TcpStream::connect(target).await {
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                            () = broken.notified() => {}
                        }
                    }
                });
            }
        });
        given
    }

    /// Runs lines of `ip` inside it.
    pub(crate) fn ip(&self, lines: &str) {
        self.run("ip", &["-batch", "-"], lines);
    }

    /// Loads a file of nftables inside it.
    pub(crate) fn nft(&self, script: &str) {
        self.run("nft", &["-f", "-"], script);
    }

    /// Sets values below `/proc/sys/net` inside it.
    pub(crate) fn set(&self, values: &[(&str, &str)]) {
        self.inside(|| {
            for (key, value) in values {
                fs::write(format!("/proc/sys/net/{key}"), value)
                    .unwrap_or_else(|error| panic!("net/{key}: {error}"));
            }
        });
    }

    /// Removes the namespaces of processes of these tests that are gone.
    pub(crate) fn sweep() {
        let Ok(entries) = fs::read_dir(FOLDER) else {
            return;
        };
        let gone = |name: &String| {
            let process = owner(name).map(|id| format!("/proc/{id}"));
            process.is_some_and(|process| !Path::new(&process).exists())
        };
        let stale: String = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(gone)
            .map(|name| format!("netns del {name}\n"))
            .collect();
        if !stale.is_empty() {
            run("ip", &["-force", "-batch", "-"], &stale);
        }
    }

    /// Removes several at once, with all that is in them.
    pub(crate) fn remove<'a>(namespaces: impl IntoIterator<Item = &'a Self>) {
        let lines: String = namespaces
            .into_iter()
            .filter(|namespace| !namespace.removed.swap(true, Ordering::Relaxed))
            .map(|namespace| format!("netns del {}\n", namespace.name))
            .collect();
        if !lines.is_empty() {
            run("ip", &["-force", "-batch", "-"], &lines);
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        Self::remove([&*self]);
    }
}

/// Lets a socket keep so many bytes until they are read; as many as anybody may have, without root.
pub(crate) fn let_wait(socket: impl AsFd, bytes: usize) {
    if sockopt::set_socket_recv_buffer_size_force(&socket, bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, bytes).unwrap();
    }
}

/// What waits for sockets of all namespaces: a socket belongs where it was opened, whoever waits for it.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        // Thousands of probes are in flight at once.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("packets")
            .enable_all()
            .build()
            .unwrap()
    })
}

fn unique(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("rf-{}-{number}-{name}", process::id())
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("rf-")?.split('-').next()?.parse().ok()
}

fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // A program that fails early may leave its input unread.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn must(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{said}", output.status);
}
