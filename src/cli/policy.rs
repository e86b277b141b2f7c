//! `ringfence policy`: tests, checks and lists policies in Rego.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{Exit, style};
use crate::guard::engine::PolicyInfo;
use crate::rego::testing::{self, Source, TestResult};
use crate::rego::{LoadError, PolicySet, Trial, trial};

/// Arguments of `ringfence policy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the tests of policies: `test_` rules and files `*.cases.yaml` beside them.
    Test(TestArgs),
    /// Load policies and say what is wrong with them, with file, line and column.
    Check(CheckArgs),
    /// List policies: id, severity, section, owner and title.
    List(ListArgs),
    /// Try out policies that another process of this program hands over. Not for people.
    #[command(hide = true)]
    Trial,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringfence policy test               the built-in policies\n  \
        ringfence policy test policies/     your own"
)]
struct TestArgs {
    /// Folders of policies, loaded together. Without one: the built-in policies.
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// How to print the results.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: TestOutput,
    /// Print failures and the summary only.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ringfence policy check policies/")]
struct CheckArgs {
    /// Folders of policies, loaded together.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// A folder of your own policies, listed beside the built-in ones.
    #[arg(long, value_name = "DIR")]
    policies: Vec<PathBuf>,
    /// How to print the list.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: ListOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TestOutput {
    /// For people.
    Text,
    /// A list of objects.
    Json,
    /// For CI systems.
    Junit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListOutput {
    /// For people.
    Text,
    /// A list of objects.
    Json,
}

/// Runs one of the subcommands.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Test(args) => test(args),
        Command::Check(args) => check(args),
        Command::List(args) => list(args),
        Command::Trial => {
            trial::main()?;
            Ok(Exit::Clean)
        }
    }
}

fn test(args: &TestArgs) -> anyhow::Result<Exit> {
    let source = if args.folders.is_empty() {
        Source::BuiltIn
    } else {
        Source::Folders(args.folders.clone())
    };
    let mut out = anstream::stdout().lock();
    let mut told = Ok(());
    let mut file = String::new();
    let results = testing::run(&source, &Trial::by_this_program()?, &mut |result| {
        if args.output == TestOutput::Text && told.is_ok() && !(args.quiet && result.passed()) {
            told = tell(&mut out, &mut file, result);
        }
    });
    told?;
    let results = match results {
        Ok(results) => results,
        Err(error) => return broken(&error).map(|()| Exit::Failed),
    };
    match args.output {
        TestOutput::Text => summary(&mut out, &results)?,
        TestOutput::Json => writeln!(out, "{}", serde_json::to_string_pretty(&results)?)?,
        TestOutput::Junit => writeln!(out, "{}", junit(&results).to_string()?)?,
    }
    Ok(if results.iter().all(TestResult::passed) {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

/// One result, below the name of its file.
fn tell(out: &mut impl Write, file: &mut String, result: &TestResult) -> std::io::Result<()> {
    if *file != result.file {
        file.clone_from(&result.file);
        writeln!(out, "{}{file}{:#}", style::HEAD, style::HEAD)?;
    }
    let (word, color) = if result.passed() {
        ("ok  ", style::GOOD)
    } else {
        ("FAIL", style::ERROR)
    };
    writeln!(
        out,
        "  {color}{word}{color:#} {} {}:{}{:#} {}",
        style::DIM,
        result.file,
        result.line,
        style::DIM,
        result.name
    )?;
    for line in result.prints.iter().chain(&result.failures) {
        writeln!(out, "         {line}")?;
    }
    out.flush()
}

fn summary(out: &mut impl Write, results: &[TestResult]) -> std::io::Result<()> {
    let failed = results.iter().filter(|result| !result.passed()).count();
    let time: std::time::Duration = results.iter().map(|result| result.time).sum();
    let color = if failed == 0 {
        style::GOOD
    } else {
        style::ERROR
    };
    let passed = results.len() - failed;
    writeln!(
        out,
        "{color}{passed} passed, {failed} failed{color:#} in {:.2} s",
        time.as_secs_f64()
    )
}

fn junit(results: &[TestResult]) -> quick_junit::Report {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for result in results {
        let mut status = TestCaseStatus::success();
        if !result.passed() {
            status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(result.failures.join("\n"));
        }
        let mut case = TestCase::new(result.name.as_str(), status);
        case.set_time(result.time);
        suites
            .entry(&result.file)
            .or_insert_with(|| TestSuite::new(result.file.as_str()))
            .add_test_case(case);
    }
    let mut report = quick_junit::Report::new("ringfence policy test");
    report.add_test_suites(suites.into_values());
    report
}

fn check(args: &CheckArgs) -> anyhow::Result<Exit> {
    let set = PolicySet::load(&args.folders, &Trial::by_this_program()?);
    match set {
        Ok(set) => {
            let own = set
                .registry()
                .iter()
                .filter(|info| !info.file.is_empty())
                .count();
            anstream::eprintln!("{}{own} policies are good{:#}", style::GOOD, style::GOOD);
            Ok(Exit::Clean)
        }
        Err(error) => broken(&error).map(|()| Exit::Findings),
    }
}

/// What is wrong with a set of policies, a line each.
fn broken(error: &LoadError) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    for problem in &error.problems {
        writeln!(out, "{}error:{:#} {problem}", style::ERROR, style::ERROR)?;
    }
    Ok(())
}

fn list(args: &ListArgs) -> anyhow::Result<Exit> {
    let trial = if args.policies.is_empty() {
        Trial::None
    } else {
        Trial::by_this_program()?
    };
    let set = match PolicySet::load(&args.policies, &trial) {
        Ok(set) => set,
        Err(error) => return broken(&error).map(|()| Exit::Failed),
    };
    let mut out = anstream::stdout().lock();
    match args.output {
        ListOutput::Json => writeln!(out, "{}", serde_json::to_string_pretty(set.registry())?)?,
        ListOutput::Text => {
            let width =
                |read: fn(&PolicyInfo) -> usize| set.registry().iter().map(read).max().unwrap_or(0);
            let (id, owner) = (
                width(|info| info.id.as_str().len()),
                width(|info| info.owner.as_ref().map_or(1, String::len)),
            );
            for info in set.registry() {
                let section = serde_json::to_value(info.section)?;
                writeln!(
                    out,
                    "{}{:id$}{:#}  {:8}  {:13}  {:owner$}  {}  {}{}{:#}",
                    style::HEAD,
                    info.id.as_str(),
                    style::HEAD,
                    info.severity.as_str(),
                    section.as_str().unwrap_or_default(),
                    info.owner.as_deref().unwrap_or("-"),
                    info.title,
                    style::DIM,
                    info.file,
                    style::DIM,
                )?;
            }
        }
    }
    Ok(Exit::Clean)
}
