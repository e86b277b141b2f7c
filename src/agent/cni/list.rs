//! The text of a network configuration with the plugin at the end of its chain, or without it. What it says otherwise
//! stays as it is: values are carried over as text. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::NAME;
use super::config::VERSIONS;

pub use super::config::WhenDown;

/// The plugin's own entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    #[serde(rename = "type")]
    kind: &'static str,
    agent_socket: String,
    when_agent_is_down: WhenDown,
    timeout_seconds: u64,
}

/// Why a configuration cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It is no JSON object.
    #[error("it is no network configuration")]
    Json(#[from] serde_json::Error),
    /// It has no plugins, or they are none.
    #[error("it has no list of plugins")]
    Plugins,
    /// It is of a version without chains.
    #[error("its cniVersion is {0:?}; a chain needs 0.3.0 to 1.1.0")]
    Version(String),
}

type Object = BTreeMap<String, Box<RawValue>>;

// === impl Entry ===

impl Entry {
    /// An entry that asks the agent at this socket.
    pub fn new(socket: &str, when_down: WhenDown, seconds: u64) -> Self {
        Self {
            kind: NAME,
            agent_socket: socket.to_owned(),
            when_agent_is_down: when_down,
            timeout_seconds: seconds,
        }
    }
}

/// The list with the entry as its last plugin; none where it is so already.
pub fn with(text: &str, entry: &Entry) -> Result<Option<String>, ListError> {
    let mut list: Object = serde_json::from_str(text)?;
    version(&list)?;
    let mut plugins = plugins(&list)?;
    let wanted = to_raw_value(entry)?;
    let ours = plugins.iter().filter(|plugin| is_ours(plugin)).count();
    if ours == 1 && plugins.last().is_some_and(|last| same(last, &wanted)) {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.is_empty() {
        return Err(ListError::Plugins);
    }
    plugins.push(wanted);
    list.insert("plugins".to_owned(), to_raw_value(&plugins)?);
    Ok(Some(pretty(&list)?))
}

/// The list without the plugin; none where it is not in it.
pub fn without(text: &str) -> Result<Option<String>, ListError> {
    let mut list: Object = serde_json::from_str(text)?;
    let mut plugins = plugins(&list)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.len() == before {
        return Ok(None);
    }
    list.insert("plugins".to_owned(), to_raw_value(&plugins)?);
    Ok(Some(pretty(&list)?))
}

/// A list of the one plugin that a configuration without a list names.
pub fn listed(text: &str) -> Result<String, ListError> {
    let plugin: Object = serde_json::from_str(text)?;
    if !plugin.contains_key("type") {
        return Err(ListError::Plugins);
    }
    let mut list = Object::new();
    for key in ["cniVersion", "name"] {
        if let Some(value) = plugin.get(key) {
            list.insert(key.to_owned(), value.clone());
        }
    }
    list.insert("plugins".to_owned(), to_raw_value(&[&plugin])?);
    Ok(pretty(&list)?)
}

fn version(list: &Object) -> Result<(), ListError> {
    let said = list.get("cniVersion").map_or("\"\"", |value| value.get());
    let said: String = serde_json::from_str(said)?;
    if VERSIONS.contains(&&*said) {
        Ok(())
    } else {
        Err(ListError::Version(said))
    }
}

fn plugins(list: &Object) -> Result<Vec<Box<RawValue>>, ListError> {
    let plugins = list.get("plugins").ok_or(ListError::Plugins)?;
    serde_json::from_str(plugins.get()).map_err(|_| ListError::Plugins)
}

fn is_ours(plugin: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_str::<Typed>(plugin.get()).is_ok_and(|plugin| plugin.kind == NAME)
}

fn same(one: &RawValue, other: &RawValue) -> bool {
    let read = |value: &RawValue| serde_json::from_str::<serde_json::Value>(value.get()).ok();
    read(one) == read(other)
}

/// A line for each key; the values are as they came.
fn pretty(list: &Object) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(list)?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const FLANNEL: &str = r#"{
  "name": "cbr0", "cniVersion": "0.3.1", "odd": 123456789012345678901234567890,
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}"#;

    fn entry() -> Entry {
        Entry::new("/run/ringfence/cni.sock", WhenDown::Fail, 10)
    }

    #[test]
    fn the_plugin_comes_last_and_all_else_stays() {
        let text = with(FLANNEL, &entry()).unwrap().unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let before: Value = serde_json::from_str(FLANNEL).unwrap();
        assert_eq!(value["plugins"].as_array().unwrap().len(), 3);
        assert_eq!(value["plugins"][0], before["plugins"][0]);
        assert_eq!(value["plugins"][1], before["plugins"][1]);
        assert_eq!(
            value["plugins"][2],
            serde_json::json!({"type": "ringfence-cni", "agentSocket": "/run/ringfence/cni.sock", "whenAgentIsDown": "fail", "timeoutSeconds": 10})
        );
        // Also a number that no float holds.
        assert!(text.contains("123456789012345678901234567890"), "{text}");
        assert_eq!(with(&text, &entry()).unwrap(), None);
        let back: Value = serde_json::from_str(&without(&text).unwrap().unwrap()).unwrap();
        assert_eq!(back, before);
        assert_eq!(without(FLANNEL).unwrap(), None);
    }

    #[test]
    fn an_entry_that_differs_or_is_not_last_is_put_right() {
        let text = with(FLANNEL, &entry()).unwrap().unwrap();
        let other = Entry::new("/run/ringfence/cni.sock", WhenDown::Pass, 10);
        let changed = with(&text, &other).unwrap().unwrap();
        assert_eq!(changed.matches("ringfence-cni").count(), 1);
        assert!(changed.contains("pass"));
        let first = r#"{"cniVersion": "1.0.0", "plugins": [{"type": "ringfence-cni"}, {"type": "bridge"}]}"#;
        let value: Value = serde_json::from_str(&with(first, &entry()).unwrap().unwrap()).unwrap();
        assert_eq!(value["plugins"][0]["type"], "bridge");
        assert_eq!(value["plugins"][1]["type"], "ringfence-cni");
    }

    #[test]
    fn a_single_plugin_becomes_a_list() {
        let single = r#"{"cniVersion": "0.4.0", "name": "n", "type": "bridge", "bridge": "cni0"}"#;
        let text = listed(single).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["name"], &value["cniVersion"]),
            (&Value::from("n"), &Value::from("0.4.0"))
        );
        assert_eq!(value["plugins"][0]["bridge"], "cni0");
        assert!(with(&text, &entry()).unwrap().is_some());
    }

    #[test]
    fn what_is_no_chain_says_why() {
        let error = |text: &str| with(text, &entry()).unwrap_err().to_string();
        assert_eq!(error("[]"), "it is no network configuration");
        assert_eq!(
            error("{\"cniVersion\": \"1.0.0\"}"),
            "it has no list of plugins"
        );
        assert_eq!(
            error("{\"cniVersion\": \"1.0.0\", \"plugins\": []}"),
            "it has no list of plugins"
        );
        assert_eq!(
            error("{\"cniVersion\": \"0.2.0\", \"plugins\": [{\"type\": \"bridge\"}]}"),
            "its cniVersion is \"0.2.0\"; a chain needs 0.3.0 to 1.1.0"
        );
        assert_eq!(
            listed("{}").unwrap_err().to_string(),
            "it has no list of plugins"
        );
    }
}
