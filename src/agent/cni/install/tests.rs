use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::agent::cni::list::WhenDown;

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]}"#;
const SINGLE: &str = r#"{"cniVersion": "0.4.0", "name": "n", "type": "bridge"}"#;

struct Node {
    folder: tempfile::TempDir,
    installer: Installer,
}

fn node(files: &[(&str, &str)]) -> Node {
    // In memory, where there is such a folder: how long a disk takes to sync is not ours.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let [configurations, plugins] = ["net.d", "bin"].map(|name| folder.path().join(name));
    fs::create_dir(&configurations).unwrap();
    fs::create_dir(&plugins).unwrap();
    for (name, text) in files {
        fs::write(configurations.join(name), text).unwrap();
    }
    let binary = folder.path().join("ringfence");
    fs::write(&binary, "the binary").unwrap();
    let installer = Installer {
        configurations,
        plugins,
        binary,
        entry: Entry::new("/run/ringfence/cni.sock", WhenDown::Fail, 10),
    };
    Node { folder, installer }
}

impl Node {
    fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(&self.installer.configurations).unwrap();
        let files = entries.map(|entry| entry.unwrap());
        files
            .map(|file| {
                (
                    file.file_name().into_string().unwrap(),
                    fs::read_to_string(file.path()).unwrap(),
                )
            })
            .collect()
    }

    fn types(&self, name: &str) -> Vec<String> {
        // That file alone: others come and go while one is replaced.
        let text = fs::read_to_string(self.installer.configurations.join(name)).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let plugins = value["plugins"].as_array().unwrap();
        plugins
            .iter()
            .map(|plugin| plugin["type"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn the_first_list_gets_the_plugin_and_loses_it_again() {
    let node = node(&[
        ("10-a.conflist", LIST),
        ("20-b.conflist", LIST),
        ("00-notes.txt", "x"),
    ]);
    assert_eq!(node.installer.install().unwrap(), Change::Written);
    assert_eq!(node.types("10-a.conflist"), ["bridge", NAME]);
    assert_eq!(node.files()["20-b.conflist"], LIST);
    let binary = node.installer.plugins.join(NAME);
    assert_eq!(fs::read_to_string(&binary).unwrap(), "the binary");
    assert_eq!(
        fs::metadata(&binary).unwrap().permissions().mode() & 0o777,
        0o755
    );
    assert_eq!(node.installer.install().unwrap(), Change::None);
    // A newer binary of the same length.
    fs::write(&node.installer.binary, "The Binary").unwrap();
    assert_eq!(node.installer.install().unwrap(), Change::Written);
    assert_eq!(fs::read_to_string(&binary).unwrap(), "The Binary");

    assert_eq!(
        node.installer.remove(Duration::ZERO).unwrap(),
        Change::Written
    );
    assert_eq!(node.types("10-a.conflist"), ["bridge"]);
    assert!(!binary.exists());
    assert_eq!(node.installer.remove(Duration::ZERO).unwrap(), Change::None);
    assert_eq!(node.files().len(), 3);
}

#[test]
fn a_single_plugin_becomes_a_list_and_comes_back() {
    for name in ["10-a.conf", "10-a.json"] {
        let node = node(&[(name, SINGLE)]);
        assert_eq!(node.installer.install().unwrap(), Change::Written);
        assert_eq!(node.types("10-a.conflist"), ["bridge", NAME]);
        assert_eq!(
            node.installer
                .effective()
                .unwrap()
                .unwrap()
                .file_name()
                .unwrap(),
            "10-a.conflist"
        );
        assert_eq!(node.installer.install().unwrap(), Change::None);
        node.installer.remove(Duration::ZERO).unwrap();
        assert_eq!(
            node.files(),
            BTreeMap::from([(name.to_owned(), SINGLE.to_owned())])
        );
    }
    // The other installer writes its file again: the list follows it.
    let node = node(&[("10-a.conf", SINGLE)]);
    node.installer.install().unwrap();
    let newer = SINGLE.replace("bridge", "ptp");
    fs::write(node.installer.configurations.join("10-a.conf"), &newer).unwrap();
    assert_eq!(node.installer.install().unwrap(), Change::Written);
    assert_eq!(node.types("10-a.conflist"), ["ptp", NAME]);
    node.installer.remove(Duration::ZERO).unwrap();
    assert_eq!(
        node.files(),
        BTreeMap::from([("10-a.conf".to_owned(), newer)])
    );
}

#[test]
fn what_cannot_be_changed_is_left_alone_and_said() {
    let nothing = node(&[]);
    let error = nothing.installer.install().unwrap_err().to_string();
    assert!(
        error.ends_with("no network configuration yet; is a CNI plugin installed?"),
        "{error}"
    );
    let half = node(&[("10-a.conflist", "{\"cniVersion\": ")]);
    let error = half.installer.install().unwrap_err().to_string();
    assert!(
        error.ends_with("10-a.conflist: it is no network configuration"),
        "{error}"
    );
    assert_eq!(half.files()["10-a.conflist"], "{\"cniVersion\": ");
    let _ = half.folder;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_is_no_reason_to_look_again() {
    let node = node(&[("10-flannel.conflist", LIST)]);
    node.installer.install().unwrap();
    let (_watcher, mut changes) = node.installer.watch().unwrap();
    assert_eq!(node.installer.install().unwrap(), Change::None);
    sleep(Duration::from_millis(300)).await;
    assert!(changes.try_recv().is_err());
    let path = node.installer.configurations.join("10-flannel.conflist");
    fs::write(&path, LIST).unwrap();
    let heard = timeout(Duration::from_secs(10), changes.recv());
    assert_eq!(heard.await, Ok(Some(())));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_put_back_within_a_second_whoever_rewrites_the_list() {
    let node = node(&[]);
    let (stop, stopped) = watch::channel(false);
    let (sender, mut told) = mpsc::unbounded_channel();
    let installer = node.installer.clone();
    let keeping = tokio::spawn(async move {
        installer
            .keep(stopped, |outcome| sender.send(outcome).unwrap())
            .await;
    });
    let first = told.recv().await.unwrap();
    assert!(matches!(first, Err(InstallError::Nothing(_))), "{first:?}");
    let path = node.installer.configurations.join("10-flannel.conflist");
    for round in 0..5 {
        let begun = Instant::now();
        if round % 2 == 0 {
            fs::write(&path, LIST).unwrap();
        } else {
            // As a careful installer writes.
            let fresh = node.folder.path().join("fresh");
            fs::write(&fresh, LIST).unwrap();
            fs::rename(&fresh, &path).unwrap();
        }
        while node.types("10-flannel.conflist") != ["bridge", NAME] {
            if begun.elapsed() >= Duration::from_secs(1) {
                let told: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
                panic!("round {round}: {told:?}");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
    let begun = Instant::now();
    fs::remove_file(node.installer.plugins.join(NAME)).unwrap();
    while !node.installer.plugins.join(NAME).exists() {
        assert!(begun.elapsed() < Duration::from_secs(1));
        sleep(Duration::from_millis(5)).await;
    }
    stop.send(true).unwrap();
    keeping.await.unwrap();
}

#[test]
fn at_every_moment_there_is_a_list_that_works() {
    for (name, rounds) in [("10-a.conflist", 200), ("10-a.conf", 20)] {
        let node = node(&[(name, if name.ends_with("list") { LIST } else { SINGLE })]);
        let done = Arc::new(AtomicBool::new(false));
        let looking = {
            let (installer, done) = (node.installer.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut looks = [0, 0];
                while !done.load(Ordering::Relaxed) {
                    let Some(path) = installer.effective().unwrap() else {
                        panic!("no configuration at all");
                    };
                    // A file may go between the look at the folder and the reading.
                    let Ok(text) = fs::read_to_string(&path) else {
                        continue;
                    };
                    let value: Value = serde_json::from_str(&text).unwrap();
                    let ours = text.contains(NAME);
                    assert!(value.get("plugins").is_some() || value.get("type").is_some());
                    // What the list names is there, unless the list has changed meanwhile.
                    let there = installer.plugins.join(NAME).exists();
                    let still = fs::read_to_string(&path).is_ok_and(|now| now == text);
                    assert!(!ours || there || !still, "a list without its plugin");
                    looks[usize::from(ours)] += 1;
                }
                looks
            })
        };
        for _ in 0..rounds {
            node.installer.install().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            node.installer.remove(Duration::from_millis(1)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        let [without, with] = looking.join().unwrap();
        assert!(without > 0 && with > 0, "{without} {with}");
    }
}
