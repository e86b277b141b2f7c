//! The rules of the house, each a plain function from text to complaints, so that each can be seen to fail.

use crate::scan::{self, Path};

/// What breaks a rule: line (0 for the file as a whole) and what is wrong.
pub(crate) type Complaint = (usize, String);

/// The pure folders and the folders of the house that each may use.
pub(crate) const PURE: [(&str, &[&str]); 4] = [
    ("netpol", &["netpol"]),
    ("guard", &["netpol", "guard"]),
    ("ruleset", &["netpol", "ruleset"]),
    ("report", &["netpol", "guard", "report"]),
];

/// Files, processes, the network, clocks, threads, logging and chance: not for pure folders.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::io::Stdin",
    "std::io::Stdout",
    "std::io::Stderr",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "kube::Api",
    "kube::Client",
    "kube::client",
    "kube::runtime",
    "anstream",
    "arc_swap",
    "axum",
    "getrandom",
    "hyper",
    "hyper_util",
    "ignore",
    "indicatif",
    "log",
    "mimalloc",
    "notify",
    "rand",
    "rayon",
    "rcgen",
    "regorus",
    "rustix",
    "rustls",
    "tokio",
    "tokio_rustls",
    "tower",
    "tracing",
    "tracing_subscriber",
];

const PRINTING: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// Words of a comment that tell history instead of reasons. Matched in lower case, at word boundaries.
const HISTORY: [&str; 12] = [
    "formerly",
    "previously",
    "used to be",
    "was renamed",
    "we changed",
    "changed from",
    "refactored",
    "deprecated since",
    "todo",
    "fixme",
    "xxx",
    "hack",
];

/// The longest a source may be, its tests aside.
pub(crate) const LONGEST: usize = 500;

/// The folder of the house that a source belongs to: `netpol` of `src/netpol.rs` and `src/netpol/flow.rs`.
pub(crate) fn folder(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

/// Whether a source holds the tests of one module, which explains them.
fn of_one_module(file: &str) -> bool {
    file.starts_with("src/") && (file.ends_with("/tests.rs") || file.contains("/tests/"))
}

/// Whether a source is test code as a whole, by its name.
fn is_test(file: &str) -> bool {
    file.starts_with("tests/") || of_one_module(file)
}

/// The files that a source declares as test code in files of their own.
pub(crate) fn test_files(file: &str, text: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs");
    let folder = stem
        .strip_suffix("/lib")
        .or(stem.strip_suffix("/main"))
        .unwrap_or(stem);
    scan::scan(text)
        .test_modules
        .into_iter()
        .map(|module| format!("{folder}/{module}.rs"))
        .collect()
}

/// Every rule that a Rust source is held to. Test code is held to fewer.
pub(crate) fn rust(file: &str, text: &str, declared_test: bool) -> Vec<Complaint> {
    let source = scan::scan(text);
    let mut complaints = history(text);
    if file.ends_with("/mod.rs") {
        complaints.push((
            0,
            "`mod.rs`: name the file after its folder, beside it".to_owned(),
        ));
    }
    if !of_one_module(file) {
        complaints.extend(head(text));
    }
    if declared_test || is_test(file) {
        return complaints;
    }
    if source.lines > LONGEST {
        complaints.push((
            0,
            format!(
                "{} lines without its tests; split it before {LONGEST}",
                source.lines
            ),
        ));
    }
    for (name, line) in scan::macros(&source.tokens) {
        if ["todo", "unimplemented", "dbg"].contains(&name.as_str()) {
            complaints.push((line, format!("`{name}!`")));
        }
    }
    for (name, line) in scan::methods(&source.tokens) {
        if ["unwrap", "unwrap_err"].contains(&name.as_str()) {
            complaints.push((line, format!("`{name}` outside of tests")));
        }
    }
    if let Some(folder) = folder(file) {
        if let Some((_, allowed)) = PURE.iter().find(|(pure, _)| *pure == folder) {
            complaints.extend(pure(&source));
            complaints.extend(arrows(file, folder, allowed, &source));
        } else if !["cli", "main"].contains(&folder) {
            // The command line is on top of everything.
            let up = |path: &Path| absolute(file, path).is_some_and(|to| to == "cli");
            let ups = scan::paths(&source.tokens)
                .into_iter()
                .filter(|path| up(path));
            complaints.extend(ups.map(|path| {
                (
                    path.line,
                    format!("`{}`: nothing uses `cli`", path.words.join("::")),
                )
            }));
        }
    }
    complaints.sort();
    complaints.dedup();
    complaints
}

/// A head comment says what the file is for.
fn head(text: &str) -> Vec<Complaint> {
    if text.starts_with("//! ") {
        Vec::new()
    } else {
        vec![(1, "no `//!` head comment on the first line".to_owned())]
    }
}

/// Comments give reasons, never dates or history.
fn history(text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for comment in scan::scan(text).comments {
        // What stands in backticks or quotes is quoted, not told.
        let told: String = comment
            .text
            .split(['`', '"'])
            .step_by(2)
            .collect::<Vec<_>>()
            .join(" ");
        if let Some(date) = told
            .split(|c: char| !(c.is_ascii_digit() || c == '-'))
            .find(|word| is_date(word))
        {
            complaints.push((comment.line, format!("a date in a comment: {date}")));
        }
        let words = told.to_lowercase();
        for phrase in HISTORY {
            if contains_words(&words, phrase) {
                complaints.push((comment.line, format!("history in a comment: {phrase}")));
            }
        }
    }
    complaints
}

fn is_date(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    matches!(parts[..], [year, month, day] if year.len() == 4 && year.starts_with("20") && month.len() == 2 && day.len() == 2)
}

fn contains_words(text: &str, phrase: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(phrase).any(|(at, _)| {
        boundary(text[..at].chars().next_back())
            && boundary(text[at + phrase.len()..].chars().next())
    })
}

fn pure(source: &scan::Source) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for path in scan::paths(&source.tokens) {
        let whole = path.words.join("::");
        // `core` and `alloc` have nothing impure, but `std` may be spelt `::std`, which reads the same here.
        if IMPURE
            .iter()
            .any(|banned| whole == *banned || whole.starts_with(&format!("{banned}::")))
        {
            complaints.push((path.line, format!("`{whole}` in a pure folder")));
        } else if path.words.len() > 1 && path.words.last().is_some_and(|last| last == "now") {
            complaints.push((
                path.line,
                format!("`{whole}` in a pure folder: the time is an argument"),
            ));
        }
    }
    for (name, line) in scan::macros(&source.tokens) {
        if PRINTING.contains(&name.as_str()) {
            complaints.push((line, format!("`{name}!` in a pure folder")));
        }
    }
    for token in &source.tokens {
        if let scan::Kind::Word(word) = &token.kind
            && ["async", "await", "unsafe"].contains(&word.as_str())
        {
            complaints.push((token.line, format!("`{word}` in a pure folder")));
        }
    }
    for (name, line) in scan::methods(&source.tokens) {
        if ["expect", "expect_err"].contains(&name.as_str()) {
            complaints.push((line, format!("`{name}` in a pure folder")));
        }
    }
    complaints
}

fn arrows(file: &str, folder: &str, allowed: &[&str], source: &scan::Source) -> Vec<Complaint> {
    scan::paths(&source.tokens)
        .into_iter()
        .filter_map(|path| {
            let to = absolute(file, &path)?;
            let whole = path.words.join("::");
            (!allowed.contains(&to.as_str())).then(|| {
                (
                    path.line,
                    format!("`{whole}`: `{folder}` must not use `{to}`"),
                )
            })
        })
        .collect()
}

/// The folder of the house that a path leads to, `super` and `crate` followed.
fn absolute(file: &str, path: &Path) -> Option<String> {
    let ups = path
        .words
        .iter()
        .take_while(|word| *word == "super")
        .count();
    match path.words.first()?.as_str() {
        "crate" | "ringfence" => path.words.get(1).cloned(),
        "super" => {
            let inside = file.strip_prefix("src/")?.strip_suffix(".rs")?;
            // The module of the file, as far up as the path climbs, then down again.
            let mut module: Vec<&str> = inside.split('/').collect();
            module.truncate(module.len().saturating_sub(ups));
            module.extend(path.words.iter().skip(ups).map(String::as_str));
            module.first().map(|&first| first.to_owned())
        }
        _ => None,
    }
}

/// A private key, in whatever file: the mark of PEM with a line of base64 below it.
pub(crate) fn private_key(text: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let base64 = |line: &&str| {
        line.len() >= 40
            && line
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    lines
        .windows(2)
        .position(|pair| {
            pair[0].contains("-----BEGIN ")
                && pair[0].contains("PRIVATE KEY-----")
                && base64(&pair[1])
        })
        .map(|at| at + 1)
}

/// Whether a file of this name would hold a key or a certificate.
pub(crate) fn is_key_file(file: &str) -> bool {
    let end = file.rsplit('.').next().unwrap_or_default().to_lowercase();
    ["key", "pem", "p12", "pfx", "crt", "cer", "der", "jks"].contains(&end.as_str())
}

/// Paths of somebody's machine.
pub(crate) fn machine_path(text: &str) -> Option<Complaint> {
    // Put together here, so that this file does not hold what it looks for.
    let homes = ["home", "root", "Users", "work"].map(|name| format!("/{name}/"));
    text.lines().enumerate().find_map(|(index, line)| {
        let found = homes.iter().find(|home| {
            line.match_indices(home.as_str()).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| c.is_whitespace() || "\"'`(=:".contains(c))
            })
        })?;
        Some((index + 1, format!("a path of somebody's machine: {found}…")))
    })
}
