use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc;

use serde_json::{Value, json};

use super::*;

const RESULT: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cni0","mac":"aa:00:00:00:00:01"},{"name":"veth7","mac":"aa:00:00:00:00:02"},{"name":"eth0","mac":"aa:00:00:00:00:03","sandbox":"/run/netns/x"}],"ips":[{"interface":2,"address":"10.244.0.5/24","gateway":"10.244.0.1"},{"interface":2,"address":"fd00::5/64"}],"odd":1e400}"#;

/// A folder with a socket in it, and the agent that answers there with these lines, one to each caller.
struct Agent {
    folder: tempfile::TempDir,
    heard: mpsc::Receiver<String>,
}

fn agent(answers: &'static [&'static str]) -> Agent {
    let folder = tempfile::tempdir().unwrap();
    let (sender, heard) = mpsc::channel();
    if !answers.is_empty() {
        let listener = UnixListener::bind(folder.path().join("cni.sock")).unwrap();
        thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                (&stream).write_all(answer.as_bytes()).unwrap();
                let _ = sender.send(line);
            }
        });
    }
    Agent { folder, heard }
}

fn environment(command: &str) -> Environment {
    Environment {
        command: command.to_owned(),
        container_id: "c1".to_owned(),
        interface: "eth0".to_owned(),
        arguments: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u-1"
            .to_owned(),
    }
}

fn config(agent: &Agent, more: &str) -> String {
    let socket: PathBuf = agent.folder.path().join("cni.sock");
    format!(
        r#"{{"cniVersion":"1.0.0","name":"n","type":"ringfence-cni","agentSocket":{socket:?},"timeoutSeconds":1{more}}}"#
    )
}

fn call(command: &str, config: &str) -> (bool, String) {
    let mut output = Vec::new();
    let good = run(&environment(command), config.as_bytes(), &mut output);
    (good, String::from_utf8(output).unwrap())
}

fn failure(command: &str, config: &str) -> (u64, String) {
    let (good, text) = call(command, config);
    assert!(!good, "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let words = format!(
        "{}: {}",
        value["msg"].as_str().unwrap(),
        value["details"].as_str().unwrap()
    );
    (value["code"].as_u64().unwrap(), words)
}

#[test]
fn a_pod_whose_rules_are_in_force_goes_on_with_the_result_as_it_was() {
    let agent = agent(&["{\"verdict\":\"ready\"}\n"]);
    let config = config(&agent, &format!(r#","prevResult":{RESULT}"#));
    assert_eq!(call("ADD", &config), (true, RESULT.to_owned()));
    let heard: Value = serde_json::from_str(&agent.heard.recv().unwrap()).unwrap();
    assert_eq!(
        heard,
        json!({
            "version": 1, "command": "add", "containerId": "c1", "interface": "eth0",
            "pod": {"namespace": "shop", "name": "web-0", "uid": "u-1"},
            "addresses": ["10.244.0.5", "fd00::5"], "hostInterface": "veth7", "mac": "aa:00:00:00:00:03"
        })
    );
}

#[test]
fn a_refusal_is_told_in_the_words_of_the_agent() {
    let agent = agent(&["{\"verdict\":\"refused\",\"message\":\"no such pod\"}\n"]);
    let config = config(
        &agent,
        &format!(r#","prevResult":{RESULT},"whenAgentIsDown":"pass""#),
    );
    assert_eq!(
        failure("ADD", &config),
        (100, "the ringfence agent refused: no such pod".to_owned())
    );
}

#[test]
fn without_an_agent_the_wait_is_bounded_and_the_error_says_what_to_do() {
    let agent = agent(&[]);
    for command in ["ADD", "CHECK"] {
        let begun = Instant::now();
        let (code, words) = failure(
            command,
            &config(&agent, &format!(r#","prevResult":{RESULT}"#)),
        );
        let took = begun.elapsed();
        assert!(
            (Duration::from_millis(800)..Duration::from_secs(5)).contains(&took),
            "{took:?}"
        );
        assert_eq!(code, 11);
        assert!(
            words.contains("the ringfence agent does not answer: no answer at "),
            "{words}"
        );
        assert!(
            words.contains("within 1 s (") && words.contains("running?"),
            "{words}"
        );
    }
    // A node without an agent has a network still.
    assert_eq!(call("STATUS", &config(&agent, "")), (true, String::new()));
    let pass = config(
        &agent,
        &format!(r#","prevResult":{RESULT},"whenAgentIsDown":"pass""#),
    );
    assert_eq!(call("ADD", &pass), (true, RESULT.to_owned()));
    assert_eq!(call("DEL", &config(&agent, "")), (true, String::new()));
}

#[test]
fn an_agent_that_is_replaced_meanwhile_is_asked_again() {
    let agent = agent(&["", "", "{\"verdict\":\"ready\"}\n"]);
    let config = config(&agent, &format!(r#","prevResult":{RESULT}"#));
    assert_eq!(call("ADD", &config), (true, RESULT.to_owned()));
    assert_eq!(agent.heard.iter().count(), 3);
}

#[test]
fn an_agent_that_listens_and_is_silent_is_not_waited_for_for_ever() {
    let agent = agent(&[]);
    let _listener = UnixListener::bind(agent.folder.path().join("cni.sock")).unwrap();
    let begun = Instant::now();
    let (code, _) = failure(
        "ADD",
        &config(&agent, &format!(r#","prevResult":{RESULT}"#)),
    );
    assert_eq!(code, 11);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_removal_never_fails_and_says_who_is_gone() {
    let agent = agent(&["{\"verdict\":\"refused\",\"message\":\"who?\"}\n"]);
    assert_eq!(call("DEL", &config(&agent, "")), (true, String::new()));
    let heard: Value = serde_json::from_str(&agent.heard.recv().unwrap()).unwrap();
    assert_eq!(
        (&heard["command"], &heard["pod"]["name"]),
        (&json!("del"), &json!("web-0"))
    );
    assert_eq!(call("DEL", "nonsense"), (true, String::new()));
    assert_eq!(call("GC", &config(&agent, "")), (true, String::new()));
}

#[test]
fn the_versions_are_told_and_others_refused() {
    let (good, text) = call("VERSION", r#"{"cniVersion":"0.4.0"}"#);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(good);
    assert_eq!(value["cniVersion"], "0.4.0");
    assert_eq!(
        value["supportedVersions"],
        json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
    let old = r#"{"cniVersion":"0.2.0","name":"n","type":"ringfence-cni"}"#;
    assert_eq!(failure("ADD", old).0, 1);
}

#[test]
fn what_cannot_be_understood_is_refused_in_words() {
    let agent = agent(&[]);
    assert_eq!(failure("ADD", "{").0, 6);
    assert_eq!(
        failure("ADD", &config(&agent, r#","whenAgentIsDown":"perhaps""#)).0,
        6
    );
    assert_eq!(failure("ADD", &config(&agent, "")).0, 7);
    assert_eq!(
        failure(
            "ADD",
            &config(&agent, r#","prevResult":{"ips":[{"address":"ten"}]}"#)
        )
        .0,
        6
    );
    assert_eq!(failure("", &config(&agent, "")).0, 4);
    assert!(called(Some("/opt/cni/bin/ringfence-cni".as_ref())));
    assert!(!called(Some("/usr/bin/ringfence".as_ref())) && !called(None));
}
