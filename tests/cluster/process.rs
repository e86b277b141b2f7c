//! Processes that never outlive the test: a shell of each one's own waits for the end of a pipe that the test holds,
//! and then kills it. That works when the test panics, aborts or is killed, too.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Arguments: the log, the file for the process id, a folder to remove at the end or nothing, the command.
const KEEPER: &str = r#"
log=$1; pid=$2; folder=$3; shift 3
"$@" >"$log" 2>&1 </dev/null &
child=$!
echo $child >"$pid.new" && mv "$pid.new" "$pid"
read -r _
kill -KILL $child 2>/dev/null
wait $child 2>/dev/null
[ -z "$folder" ] || { sleep 0.3; rm -rf "$folder"; }
"#;

/// A running program, killed when this is dropped.
pub(crate) struct Process {
    keeper: Child,
    name: String,
    log: PathBuf,
    pid: PathBuf,
}

impl Process {
    /// Starts a program; its output goes to `NAME.log` in the folder.
    pub(crate) fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        Self::start_and_remove(name, folder, command, None)
    }

    /// The same, and removes a folder once the process is gone.
    pub(crate) fn start_and_remove(
        name: &str,
        folder: &Path,
        command: &mut Command,
        remove: Option<&Path>,
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let pid = folder.join(format!("{name}.pid"));
        // What one of the same name wrote before is not said by this one.
        for old in [&pid, &log] {
            let _ = std::fs::remove_file(old);
        }
        let mut keeper = Command::new("/bin/sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&log).arg(&pid);
        keeper.arg(remove.unwrap_or(Path::new("")));
        keeper.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => keeper.env(key, value),
                None => keeper.env_remove(key),
            };
        }
        let keeper = keeper.stdin(Stdio::piped()).spawn().unwrap();
        Self {
            keeper,
            name: name.to_owned(),
            log,
            pid,
        }
    }

    /// All that it has written.
    pub(crate) fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            file.read_to_end(&mut text).unwrap();
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits for a line that holds all of these words, and gives it.
    pub(crate) async fn line(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let log = self.log();
            let found = log
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(line) = found {
                return line.to_owned();
            }
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "{} did not write {words:?}:\n{log}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        let begun = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&self.pid) {
                return text.trim().parse().unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .unwrap();
    }

    /// Whether it runs still.
    pub(crate) fn is_running(&self) -> bool {
        // A process that has ended stays as a zombie until its keeper waits for it.
        std::fs::read_to_string(format!("/proc/{}/stat", self.id())).is_ok_and(|stat| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
        })
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&self) {
        let begun = Instant::now();
        while self.is_running() {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "{} runs still:\n{}",
                self.name,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
