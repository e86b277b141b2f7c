//! Network namespaces for tests: each on a thread of its own, gone when the thread is.

use std::panic::resume_unwind;
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;

/// Does something in a network namespace of its own; programs that it starts are there, too.
pub(crate) fn alone<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    let run = || {
        // The network namespace is the thread's alone, unlike what makes this unsafe for others.
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for flags that are not used here"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNET)
            .expect("the tests of nftables make network namespaces: run them as root");
        what()
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    })
}

/// Runs a program with a text as its input and gives what it says.
///
/// # Errors
///
/// What it says of its failure.
pub(crate) fn program(arguments: &[&str], input: &str) -> Result<String, String> {
    let (name, arguments) = arguments.split_first().expect("a program");
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} is needed, see tests/run prepare: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that has failed reads no further.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    });
    let output = child.wait_with_output().expect("a running program");
    writer.join().expect("a writer");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Has nft read a text.
pub(crate) fn nft(text: &str) -> Result<String, String> {
    program(&["nft", "-f", "-"], text)
}

/// Our tables as nft shows them, without what differs from one making to the next: handles, and the time that elements have
/// left.
pub(crate) fn listed() -> [serde_json::Value; 2] {
    let list = |family| program(&["nft", "-j", "list", "table", family, "ringfence"], "");
    let inet = list("inet").unwrap_or_else(|error| panic!("no table: {error}"));
    // There may be none for bridges.
    [inet, list("bridge").unwrap_or_else(|_| "{}".to_owned())].map(|text| in_order(&text))
}

fn in_order(text: &str) -> serde_json::Value {
    let mut value = serde_json::from_str(text).expect("JSON");
    normalise(&mut value);
    let mut objects: Vec<_> = match value {
        serde_json::Value::Object(mut object) => object
            .remove("nftables")
            .and_then(|list| list.as_array().cloned())
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    // Rules stand in their order; all else is in whatever order it was made.
    objects.sort_by_cached_key(|object| {
        let rule = object.get("rule").and_then(|rule| rule.get("chain"));
        let other = object.to_string();
        rule.map_or((other, String::new()), |chain| {
            ("~".into(), chain.to_string())
        })
    });
    serde_json::Value::Array(objects)
}

fn normalise(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(object) => {
            object.remove("handle");
            object.remove("expires");
            for (name, inner) in object.iter_mut() {
                normalise(inner);
                // Elements of sets are in no order.
                if let ("elem", Some(list)) = (name.as_str(), inner.as_array_mut()) {
                    list.sort_by_cached_key(ToString::to_string);
                }
            }
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(normalise),
        _ => {}
    }
}
