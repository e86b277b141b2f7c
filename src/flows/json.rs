//! Our own records: a JSON object a line.
//!
//! `{"from": {"namespace": "shop", "workload": "Deployment/web"}, "to": {"ip": "192.0.2.1"}, "protocol": "TCP",
//! "port": 443, "verdict": "allowed", "count": 3, "time": "…"}`. An end has `namespace` with `pod`, `workload` or
//! `labels`, or `ip`, or `node`; what is known beside it may be said as well. `details` may hold anything, such as why the
//! node agent denied a flow. Other unknown fields are errors.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::line::{self, End, Fields, Line, Pairs, Read, Skip};
use crate::netpol::replay::{Action, Seen};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<'a> {
    #[serde(rename = "time")]
    _time: Option<IgnoredAny>,
    #[serde(borrow)]
    from: Said<'a>,
    #[serde(borrow)]
    to: Said<'a>,
    protocol: Option<&'a str>,
    port: u64,
    verdict: &'a str,
    count: Option<u64>,
    #[serde(rename = "details")]
    _details: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said<'a> {
    namespace: Option<&'a str>,
    pod: Option<&'a str>,
    workload: Option<&'a str>,
    #[serde(borrow)]
    labels: Option<&'a RawValue>,
    ip: Option<&'a str>,
    node: Option<&'a str>,
}

/// Reads one record.
pub(super) fn read(text: &str) -> Result<Read<'_>, String> {
    let record: Record<'_> =
        serde_json::from_str(text).map_err(|error| line::wrong_json(&error))?;
    if record.verdict == "would-allow" {
        return Ok(Read::Skip(Skip::Repeated));
    }
    let action = action(record.verdict)?;
    let Some(protocol) = line::protocol(record.protocol.unwrap_or("TCP"))? else {
        return Ok(Read::Skip(Skip::OtherProtocol));
    };
    Ok(Read::Flow(Line {
        from: End::Fields(record.from.fields()),
        to: End::Fields(record.to.fields()),
        protocol,
        port: line::port(record.port)?,
        action,
        seen: Seen::Somewhere,
        flows: record.count.unwrap_or(1),
    }))
}

/// Reads a verdict.
pub(super) fn action(text: &str) -> Result<Action, String> {
    match text {
        // It passed; only a policy on trial says otherwise.
        "allowed" | "would-deny" => Ok(Action::Allowed),
        "denied" => Ok(Action::Denied),
        other => Err(format!("verdict {other:?} is neither allowed nor denied")),
    }
}

/// The kind and the name of `Deployment/web`; of `web` only the name.
pub(super) fn workload(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or(("", text))
}

// === impl Said ===

impl<'a> Said<'a> {
    fn fields(&self) -> Fields<'a> {
        let (kind, workload) = workload(self.workload.unwrap_or_default());
        Fields {
            namespace: self.namespace.unwrap_or_default(),
            pod: self.pod.unwrap_or_default(),
            kind,
            workload,
            labels: Pairs::map(self.labels),
            address: self.ip.unwrap_or_default(),
            node: self.node.unwrap_or_default(),
            unknown: "",
        }
    }
}
