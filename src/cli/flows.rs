//! `ringfence flows`: what the agent of a node has denied of late, and what it denies now; and what policies on trial would.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::whole::warn;
use super::{Exit, one_thread, style};
use crate::agent::flows::{Page, Record, Verdict};

/// Arguments of `ringfence flows`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        kubectl exec -n ringfence-agent POD -- ringfence flows --follow\n  \
        kubectl port-forward -n ringfence-agent POD 9471 & ringfence flows --namespace shop\n  \
        ringfence flows --verdict would-deny                what policies on trial would drop\n  \
        ringfence flows --output json > denied.jsonl && ringfence replay denied.jsonl --policies DIR\n\n\
        JSON: a line for each flow, as `ringfence replay` and `ringfence suggest` read it: `time`, `from`, `to`, `protocol`, `port`,\n\
        `verdict` (denied, allowed, would-deny, would-allow), `count` (packets), and `details` with `direction`, `node`, `policies`,\n\
        `reason` and the `pods` of the last one.")]
pub struct Args {
    /// The admin port of the agent. It tells this only on its own node, and by `kubectl port-forward`.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9471")]
    agent: SocketAddr,
    /// Go on until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Only flows from or to pods of this namespace.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Only flows with these verdicts. May be given several times, or as a list with commas. Without it: all.
    #[arg(long, value_name = "VERDICT", value_enum, value_delimiter = ',')]
    verdict: Vec<Verdict>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// The forms of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people: a line for each flow.
    Text,
    /// For programs: a line of JSON for each flow.
    Json,
}

/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;
/// How often it is asked for more.
const AGAIN: Duration = Duration::from_millis(500);

/// Prints what there is, and what comes.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let runtime = one_thread()?;
    runtime.block_on(async {
        let mut next = 0;
        loop {
            let page = ask(args.agent, next)
                .await
                .with_context(|| format!("cannot ask the agent at {}", args.agent))?;
            if page.lost > 0 {
                warn(&format!(
                    "{} flows came faster than they were asked for",
                    page.lost
                ));
            }
            for record in page.flows.iter().filter(|record| args.wants(record)) {
                args.print(record)?;
            }
            next = page.next;
            if !args.follow {
                return Ok(Exit::Clean);
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}

async fn ask(agent: SocketAddr, from: u64) -> anyhow::Result<Page> {
    let asking = async {
        let stream = TcpStream::connect(agent).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(format!("/flows?from={from}"))
            .header("host", agent.to_string())
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        driver.abort();
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(serde_json::from_slice(&body)?)
    };
    timeout(PATIENCE, asking)
        .await
        .context("no answer in time")?
}

// === impl Args ===

impl Args {
    fn wants(&self, record: &Record) -> bool {
        if !self.verdict.is_empty() && !self.verdict.contains(&record.kind.verdict) {
            return false;
        }
        let ends = [&record.kind.from, &record.kind.to];
        self.namespace.as_ref().is_none_or(|namespace| {
            ends.iter()
                .any(|end| end.namespace.as_ref() == Some(namespace))
        })
    }

    fn print(&self, record: &Record) -> anyhow::Result<()> {
        let mut out = anstream::stdout().lock();
        match self.output {
            Form::Json => writeln!(out, "{}", serde_json::to_string(record)?)?,
            Form::Text => {
                let verdict = record.kind.verdict;
                let colour = match verdict {
                    Verdict::Denied => style::ERROR,
                    Verdict::Allowed => style::GOOD,
                    Verdict::WouldDeny | Verdict::WouldAllow => style::WARN,
                };
                let word = verdict.as_str();
                let (kind, details) = (&record.kind, &record.details);
                writeln!(
                    out,
                    "{} {colour}{word:7}{colour:#} {} -> {} {} {} ({}x, {}{}{})",
                    record.time.strftime("%H:%M:%S"),
                    kind.from,
                    kind.to,
                    kind.protocol,
                    kind.port,
                    record.count,
                    details.direction,
                    if details.reason.is_empty() { "" } else { ": " },
                    details.reason,
                )?;
            }
        }
        out.flush()?;
        Ok(())
    }
}
