//! Container images without a registry, made by the scripts in `deploy/image`, as a user makes them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What pods of the tests are made of; its `sleep` is the process that holds a pod's namespaces, too.
pub(crate) const BUSYBOX: &str = "localhost/busybox:test";
/// Ringfence's own program.
pub(crate) const RINGFENCE: &str = "localhost/ringfence:test";

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/image");
/// What of busybox is called by its own name.
const APPLETS: [&str; 9] = [
    "sh", "cat", "httpd", "nc", "ping", "rm", "sleep", "timeout", "usleep",
];

/// Makes both images in a folder. Each is `NAME.tar`.
pub(crate) fn make(folder: &Path) {
    let root = folder.join("busybox");
    let busybox = Path::new("/bin/busybox");
    put(&root, busybox, busybox);
    for library in libraries(busybox) {
        put(&root, &library, &library);
    }
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::create_dir(root.join("www")).unwrap();
    fs::write(root.join("www/index.html"), "hello\n").unwrap();
    run(Command::new(format!("{SCRIPTS}/pack"))
        .arg(&root)
        .args([BUSYBOX, "0:0"])
        .arg(folder.join("busybox.tar"))
        .args(["/bin/sleep", "2147483647"]));
    fs::remove_dir_all(root).unwrap();

    let program = folder.join("ringfence");
    let built = std::env::var_os("RINGFENCE_BINARY").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_ringfence")),
        PathBuf::from,
    );
    fs::copy(built, &program).unwrap();
    // Symbols are most of a debug build, and the agent copies itself to the node.
    run(Command::new("strip").arg("--strip-debug").arg(&program));
    run(Command::new(format!("{SCRIPTS}/build"))
        .args(["--name", RINGFENCE, "--program"])
        .arg(&program)
        .arg("-o")
        .arg(folder.join("ringfence.tar")));
    fs::remove_file(program).unwrap();
}

/// The libraries of a program, and what loads them; none where it is linked statically.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.lines().flat_map(str::split_whitespace);
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn put(root: &Path, source: &Path, target: &Path) {
    let path = root.join(target.strip_prefix("/").unwrap());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(source, path).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
