//! `ringfence probe`: what the two pods of `ringfence doctor --probe` do.

use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Subcommand;

use super::Exit;
use crate::guard::enforcement::probe::{Heard, PORT};

/// Arguments of `ringfence probe`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Take connections and end them, until it is stopped.
    Listen {
        /// At which port.
        #[arg(long, value_name = "PORT", default_value_t = PORT)]
        port: u16,
    },
    /// Ask addresses again and again, until all that answered have fallen silent.
    Ask {
        /// The addresses.
        #[arg(value_name = "ADDR:PORT", required = true)]
        addresses: Vec<SocketAddr>,
        /// For how long, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 40)]
        time: u64,
        /// Where it is written what was heard.
        #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
        message: PathBuf,
    },
}

/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// The pause between two rounds.
const PAUSE: Duration = Duration::from_millis(200);
/// For how long an address must not have answered to count as silent.
const SILENT: Duration = Duration::from_secs(4);

/// Does what one of the pods does.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.part {
        Part::Listen { port } => listen(*port),
        Part::Ask {
            addresses,
            time,
            message,
        } => {
            let heard = ask(addresses, Duration::from_secs(*time));
            let text = serde_json::to_string(&heard)?;
            std::fs::write(message, &text)
                .with_context(|| format!("cannot write {}", message.display()))?;
            writeln!(anstream::stdout(), "{text}")?;
            Ok(Exit::Clean)
        }
    }
}

fn listen(port: u16) -> anyhow::Result<Exit> {
    // Takes IPv4, too, where the kernel has both.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        .with_context(|| format!("cannot listen at port {port}"))?;
    for stream in listener.incoming() {
        drop(stream);
    }
    Ok(Exit::Clean)
}

/// What answers, and what of it is silent at the end: when all that answered are, or when the time is over.
fn ask(addresses: &[SocketAddr], time: Duration) -> Heard {
    let begun = Instant::now();
    let mut last: Vec<Option<Instant>> = vec![None; addresses.len()];
    loop {
        for (address, last) in addresses.iter().zip(&mut last) {
            if TcpStream::connect_timeout(address, PATIENCE).is_ok() {
                *last = Some(Instant::now());
            }
        }
        let is_silent = |last: &Instant| last.elapsed() >= SILENT;
        let is_over = begun.elapsed() >= time;
        let all_silent = last.iter().all(|last| last.as_ref().is_some_and(is_silent));
        if is_over || all_silent {
            let of = |wanted: &dyn Fn(&Instant) -> bool| -> Vec<SocketAddr> {
                let both = addresses.iter().zip(&last);
                both.filter(|(_, last)| last.as_ref().is_some_and(wanted))
                    .map(|(address, _)| *address)
                    .collect()
            };
            return Heard {
                answered: of(&|_| true),
                silent: of(&is_silent),
            };
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_to_answer_is_silent_and_who_never_answered_is_not_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let never = {
            let bound = TcpListener::bind("127.0.0.1:0").unwrap();
            bound.local_addr().unwrap()
        };
        let closed = std::thread::spawn(move || {
            let _first = listener.accept().unwrap();
        });
        assert_eq!(
            ask(&[there], Duration::from_mins(1)),
            Heard {
                answered: vec![there],
                silent: vec![there],
            }
        );
        closed.join().unwrap();
        assert_eq!(ask(&[never], Duration::ZERO), Heard::default());
    }
}
