//! A first evaluation of a user's policies in another process, where nothing can be lost.
//!
//! What the checks at load cannot see (a crash of the evaluator, memory without end, endless work) ends that process
//! and is told as an error of the set. The process is this very program: [`main`] is what it runs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::context::{self, Context};
use super::load::{LoadError, PolicyFile, Problem};
use super::pool::STACK;
use super::user::{self, Asked, UserPolicy};
use super::{input, samples, value};

/// The arguments by which a program is asked to be the trial process.
pub const ARGUMENTS: [&str; 2] = ["policy", "trial"];

/// How policies are tried before they are put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Not at all: they are evaluated in this process only, as trusted ones are.
    None,
    /// By a program that calls [`main`] when it is given [`ARGUMENTS`].
    By(PathBuf),
}

/// How long a trial may take.
const TIME: Duration = Duration::from_secs(15);
/// How much address space it may have.
const MEMORY: u64 = 2 << 30;
/// How much processor time it may have, in seconds.
const PROCESSOR: u64 = 15;
/// How long one evaluation may take there.
const LIMIT: Duration = Duration::from_millis(250);
/// Most problems that are told.
const MAX_PROBLEMS: usize = 100;
/// Most that is read of what the trial process says.
const MAX_OUTPUT: u64 = 4 << 20;

// === impl Trial ===

impl Trial {
    /// By the program that runs now. Only for programs whose `main` knows [`ARGUMENTS`].
    pub fn by_this_program() -> std::io::Result<Self> {
        Ok(Self::By(std::env::current_exe()?))
    }

    /// Tries a set of files.
    pub(super) fn run(&self, files: &[PolicyFile]) -> Result<(), LoadError> {
        match self {
            Self::By(program) if !files.is_empty() => {
                LoadError::if_any(try_out(program, files).unwrap_or_else(|error| {
                    vec![Problem::of(format!(
                        "the policies cannot be tried by {}: {error}",
                        program.display()
                    ))]
                }))
            }
            Self::By(_) | Self::None => Ok(()),
        }
    }
}

fn try_out(program: &PathBuf, files: &[PolicyFile]) -> std::io::Result<Vec<Problem>> {
    let mut child = Command::new(program)
        .args(ARGUMENTS)
        .env_clear()
        // Allocate address space in small pieces, so that the limit on it measures what is used.
        .envs([
            ("MIMALLOC_ARENA_RESERVE", "32768"),
            ("MIMALLOC_ARENA_EAGER_COMMIT", "0"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let request = serde_json::to_vec(files)?;
    if let Some(mut input) = child.stdin.take() {
        // A child that dies does not read to the end; how it ended says more than this.
        std::thread::spawn(move || drop(input.write_all(&request)));
    }
    let (sender, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(output.take(MAX_OUTPUT))
                .lines()
                .map_while(Result::ok)
            {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    let end = Instant::now() + TIME;
    let (mut doing, mut verdict) = (String::from("starting"), None);
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.strip_prefix("> ") {
                Some(step) => step.clone_into(&mut doing),
                None => verdict = serde_json::from_str(&line).ok(),
            },
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                return Ok(vec![Problem::of(format!(
                    "{doing} took longer than {} s in a trial",
                    TIME.as_secs()
                ))]);
            }
        }
    }
    let status = wait(&mut child, end)?;
    Ok(match verdict {
        Some(problems) if status.success() => problems,
        _ => vec![Problem::of(format!(
            "{doing} ended the trial process ({status}): the evaluator ran out of stack or memory, or crashed"
        ))],
    })
}

fn wait(child: &mut Child, end: Instant) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the trial process does: reads files from standard input, tries them, writes the problems to standard output.
pub fn main() -> std::io::Result<()> {
    let limit = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::As, limit(MEMORY))?;
    setrlimit(Resource::Cpu, limit(PROCESSOR))?;
    setrlimit(Resource::Core, limit(0))?;
    let mut request = Vec::new();
    std::io::stdin().lock().read_to_end(&mut request)?;
    let files: Vec<PolicyFile> = serde_json::from_slice(&request)?;
    let work = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || examine(&files))?;
    let problems = work
        .join()
        .unwrap_or_else(|_| vec![Problem::of("the evaluator panicked")]);
    println!("{}", serde_json::to_string(&problems)?);
    Ok(())
}

/// Loads the policies and evaluates each with every sample.
fn examine(files: &[PolicyFile]) -> Vec<Problem> {
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    say(&format!("loading {}", names.join(", ")));
    let policies = match user::load(files, &Trial::None) {
        Ok(policies) => policies,
        Err(error) => return error.problems,
    };
    let samples = match samples::Samples::new() {
        Ok(samples) => samples,
        Err(error) => return vec![Problem::of(format!("the samples cannot be made: {error}"))],
    };
    let mut problems = Vec::new();
    for policy in &policies {
        for (name, question) in samples.questions() {
            let context = Context {
                snapshot: question.snapshot.clone(),
                now: question.now,
            };
            let _entered = context::enter(context);
            let parameters = value::from_json(&question.guardrail.parameters);
            let document = input::document(&question, parameters, input::Extent::Whole);
            for asked in [Asked::Violations, Asked::Mutation] {
                say(&format!(
                    "evaluating the policy `{}` with {name}",
                    policy.name()
                ));
                if let Some(reason) =
                    problem(policy, asked, document.clone(), &question.subject.value)
                {
                    problems.push(Problem::of(format!(
                        "policy `{}`, tried with {name}: {reason}",
                        policy.name()
                    )));
                }
            }
        }
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    problems
}

fn problem(
    policy: &UserPolicy,
    asked: Asked,
    input: regorus::Value,
    object: &serde_json::Value,
) -> Option<String> {
    if !policy.answers(asked) {
        return None;
    }
    match asked {
        Asked::Violations => match policy.find(input, object, LIMIT) {
            Ok((_, wrong)) => wrong.first().map(ToString::to_string),
            Err(error) => Some(error.to_string()),
        },
        Asked::Mutation => policy
            .change(input, object, LIMIT)
            .err()
            .map(|error| error.to_string()),
    }
}

/// Tells the one who waits what comes next, so that it knows what it was if nothing more comes.
fn say(step: &str) {
    println!("> {step}");
}
