//! Container images without a registry: one layer of a few files, as an archive that containerd imports.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

/// What pods of the tests are made of; its `sleep` is the process that holds a pod's namespaces, too.
pub(crate) const BUSYBOX: &str = "localhost/busybox:test";
/// Ringfence's own program.
pub(crate) const RINGFENCE: &str = "localhost/ringfence:test";

/// What of busybox is called by its own name.
const APPLETS: [&str; 9] = [
    "sh", "cat", "httpd", "nc", "ping", "rm", "sleep", "timeout", "usleep",
];

/// Makes both images in a folder. Each is `NAME.tar`.
pub(crate) fn make(folder: &Path) {
    let root = folder.join("busybox.root");
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
    pack(folder, "busybox", BUSYBOX, &["/bin/sleep", "2147483647"]);

    let root = folder.join("ringfence.root");
    let program = std::env::var_os("RINGFENCE_BINARY").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_ringfence")),
        PathBuf::from,
    );
    put(&root, &program, Path::new("/bin/ringfence"));
    // Symbols are most of a debug build, and the agent copies itself to the node.
    run(Command::new("strip")
        .arg("--strip-debug")
        .arg(root.join("bin/ringfence")));
    for library in libraries(&program) {
        put(&root, &library, &library);
    }
    pack(folder, "ringfence", RINGFENCE, &["/bin/ringfence"]);
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

fn pack(folder: &Path, name: &str, tag: &str, entrypoint: &[&str]) {
    let root = folder.join(format!("{name}.root"));
    let work = folder.join(format!("{name}.work"));
    fs::create_dir(&work).unwrap();
    let layer = work.join("layer.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&layer)
        .arg("."));
    let sum = digest(&SHA256, &fs::read(&layer).unwrap());
    let sum: String = sum
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": machine, "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]);
    fs::write(work.join("config.json"), config.to_string()).unwrap();
    fs::write(work.join("manifest.json"), manifest.to_string()).unwrap();
    let target = folder.join(format!("{name}.tar"));
    let files = ["manifest.json", "config.json", "layer.tar"];
    run(Command::new("tar")
        .arg("-C")
        .arg(&work)
        .arg("-cf")
        .arg(target)
        .args(files));
    for folder in [root, work] {
        fs::remove_dir_all(folder).unwrap();
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
