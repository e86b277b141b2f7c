//! The chained plugin, as the container runtime calls it: environment and standard input in, standard output out.
//!
//! It changes nothing about the network: it asks the agent, waits, and hands on the result of the plugins before. It is
//! one process a call, so it blocks and needs no runtime of its own.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::Serialize;

use super::NAME;
use super::ask::{Answer, Command, LONGEST, PodName, Request, VERSION};
use super::config::{self, Config, VERSIONS, WhenDown};

/// What the runtime says in the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`: `KEY=value;KEY=value`.
    pub arguments: String,
}

/// An error in the words of the specification.
#[derive(Debug, Serialize)]
struct Failure {
    #[serde(rename = "cniVersion")]
    version: String,
    code: u32,
    msg: String,
    details: String,
}

/// The longest input, in bytes.
const INPUT: u64 = 4 << 20;

/// How long until a silent agent is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the news that a pod is gone may take.
const GONE: Duration = Duration::from_secs(1);

/// The specification's codes: <https://www.cni.dev/docs/spec/#error>.
mod code {
    pub(super) const VERSION: u32 = 1;
    pub(super) const ENVIRONMENT: u32 = 4;
    pub(super) const INPUT: u32 = 5;
    pub(super) const DECODING: u32 = 6;
    pub(super) const CONFIGURATION: u32 = 7;
    pub(super) const LATER: u32 = 11;
    /// Our own: the agent said no.
    pub(super) const REFUSED: u32 = 100;
}

/// Whether the program was called by the name of the plugin.
pub fn called(program: Option<&OsStr>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name == Some(OsStr::new(NAME))
}

/// The whole program, where it was called by the name of the plugin.
pub fn main() -> ExitCode {
    if answer_call() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Answers the call that this process is, and says whether it went well.
pub fn answer_call() -> bool {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let environment = Environment {
        command: variable("CNI_COMMAND"),
        container_id: variable("CNI_CONTAINERID"),
        interface: variable("CNI_IFNAME"),
        arguments: variable("CNI_ARGS"),
    };
    let mut output = Vec::new();
    let good = run(&environment, io::stdin().lock(), &mut output);
    let written = io::stdout().write_all(&output);
    good && written.is_ok()
}

/// Answers one call, and says whether it went well.
pub fn run(environment: &Environment, input: impl Read, output: &mut Vec<u8>) -> bool {
    match answered(environment, input) {
        Ok(text) => {
            output.extend_from_slice(text.as_bytes());
            true
        }
        // A pod that cannot be removed is worse than an agent that does not know it is gone.
        Err(_) if environment.command == "DEL" => true,
        Err(failure) => {
            let text = serde_json::to_vec(&failure).unwrap_or_default();
            output.extend_from_slice(&text);
            false
        }
    }
}

fn answered(environment: &Environment, input: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = input.take(INPUT).read_to_string(&mut text);
    read.map_err(|error| Failure::new(code::INPUT, "the input cannot be read", error.to_string()))?;
    let config: Config = serde_json::from_str(&text).map_err(|error| {
        Failure::new(
            code::DECODING,
            "the network configuration cannot be understood",
            error.to_string(),
        )
    })?;
    answer(environment, &config).map_err(|mut failure| {
        if VERSIONS.contains(&&*config.cni_version) {
            failure.version.clone_from(&config.cni_version);
        }
        failure
    })
}

fn answer(environment: &Environment, config: &Config) -> Result<String, Failure> {
    if environment.command == "VERSION" {
        let said = if config.cni_version.is_empty() {
            "1.1.0"
        } else {
            &config.cni_version
        };
        let mut versions = VERSIONS;
        versions.sort_unstable();
        return Ok(
            serde_json::json!({"cniVersion": said, "supportedVersions": versions}).to_string(),
        );
    }
    if !VERSIONS.contains(&&*config.cni_version) {
        let details = format!(
            "the network is of version {:?}; {NAME} is of 0.3.0 to 1.1.0",
            config.cni_version
        );
        return Err(Failure::new(
            code::VERSION,
            "incompatible CNI version",
            details,
        ));
    }
    match &*environment.command {
        "ADD" => {
            let request = request(environment, config, Command::Add)?;
            ask(config, &request, Duration::from_secs(config.seconds()))?;
            let result = config.prev_result.as_deref();
            Ok(result
                .map(|result| result.get().to_owned())
                .unwrap_or_default())
        }
        "CHECK" => {
            let request = request(environment, config, Command::Check)?;
            ask(config, &request, Duration::from_secs(config.seconds()))?;
            Ok(String::new())
        }
        "DEL" => {
            let request = request(environment, config, Command::Del)?;
            ask(config, &request, GONE)?;
            Ok(String::new())
        }
        // Where this fails, runtimes say that the node has no network, and its pods leave their Services. An agent that is away for
        // a moment takes no rule with it; what it must hold back is held back by `ADD`.
        // And nothing is kept that could be left behind.
        "STATUS" | "GC" => Ok(String::new()),
        other => {
            let details =
                format!("CNI_COMMAND is {other:?}; {NAME} is called by a container runtime");
            Err(Failure::new(code::ENVIRONMENT, "no such command", details))
        }
    }
}

/// What there is to ask about a pod.
fn request(
    environment: &Environment,
    config: &Config,
    command: Command,
) -> Result<Request, Failure> {
    let mut request = named(environment, command);
    let Some(result) = &config.prev_result else {
        // A pod may have to be removed that was never whole.
        if command == Command::Del {
            return Ok(request);
        }
        let details =
            format!("{NAME} is the last of a chain of plugins: put it at the end of a list");
        return Err(Failure::new(code::CONFIGURATION, "no prevResult", details));
    };
    let read: Result<config::Result, _> = serde_json::from_str(result.get());
    let wrong = |details: String| {
        Failure::new(
            code::DECODING,
            "the prevResult cannot be understood",
            details,
        )
    };
    let result = read.map_err(|error| wrong(error.to_string()))?;
    request.addresses = result.addresses().map_err(wrong)?;
    request.host_interface = result.host_interface();
    request.mac = result.mac(&environment.interface);
    Ok(request)
}

fn named(environment: &Environment, command: Command) -> Request {
    let argument = |wanted: &str| {
        let mut pairs = environment
            .arguments
            .split(';')
            .filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(key, _)| *key == wanted);
        found
            .map(|(_, value)| value.to_owned())
            .filter(|value| !value.is_empty())
    };
    let pod = argument("K8S_POD_NAMESPACE").zip(argument("K8S_POD_NAME"));
    Request {
        version: VERSION,
        command,
        container_id: environment.container_id.clone(),
        pod: pod.map(|(namespace, name)| PodName {
            namespace,
            name,
            uid: argument("K8S_POD_UID"),
        }),
        interface: environment.interface.clone(),
        addresses: Vec::new(),
        host_interface: None,
        mac: None,
    }
}

/// Asks until the agent answers or the time is over. An agent that is being replaced is tried again.
fn ask(config: &Config, request: &Request, within: Duration) -> Result<(), Failure> {
    let socket = &config.agent_socket;
    let deadline = Instant::now() + within;
    loop {
        let error = match ask_once(socket, request, deadline) {
            Ok(Answer::Ready) => return Ok(()),
            Ok(Answer::Refused { message }) => {
                return Err(Failure::new(
                    code::REFUSED,
                    "the ringfence agent refused",
                    message,
                ));
            }
            Err(error) => error,
        };
        if deadline.saturating_duration_since(Instant::now()) > PAUSE {
            thread::sleep(PAUSE);
            continue;
        }
        if config.when_agent_is_down == WhenDown::Pass {
            return Ok(());
        }
        let details = format!(
            "no answer at {} within {} s ({error}). Is the pod of the ringfence agent on this node running? The kubelet \
             tries again by itself",
            socket.display(),
            within.as_secs()
        );
        return Err(Failure::new(
            code::LATER,
            "the ringfence agent does not answer",
            details,
        ));
    }
}

fn ask_once(socket: &Path, request: &Request, deadline: Instant) -> io::Result<Answer> {
    let stream = connect(socket, deadline)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(left(deadline)))?;
    (&stream).write_all(&line)?;
    let mut heard = String::new();
    stream.set_read_timeout(Some(left(deadline)))?;
    BufReader::new((&stream).take(LONGEST)).read_line(&mut heard)?;
    if heard.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&heard)?)
}

/// Connects, bounded: who has a full queue makes others wait.
fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(left(deadline)))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// The time that is left; a little where none is, since no time means for ever.
fn left(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

// === impl Failure ===

impl Failure {
    fn new(code: u32, msg: &str, details: impl Into<String>) -> Self {
        Self {
            version: "1.0.0".to_owned(),
            code,
            msg: msg.to_owned(),
            details: details.into(),
        }
    }
}

#[cfg(test)]
mod tests;
