//! Calico flow logs: a JSON object a line, aggregated over time and pods.
//!
//! <https://docs.tigera.io/calico-cloud/observability/elastic/flow/datatypes>. `-` stands for what there is not;
//! types are `wep` (a pod), `hep` (a node), `ns` (a set of networks) and `net` (`pub` or `pvt`).

use serde::Deserialize;
use serde_json::value::RawValue;

use super::line::{self, End, Fields, Line, Pairs, Read, Skip};
use crate::netpol::replay::{Action, Seen};

#[derive(Debug, Deserialize)]
struct Log<'a> {
    source_type: Option<&'a str>,
    source_namespace: Option<&'a str>,
    source_name: Option<&'a str>,
    source_name_aggr: Option<&'a str>,
    source_ip: Option<&'a str>,
    #[serde(borrow)]
    source_labels: Option<Labels<'a>>,
    dest_type: Option<&'a str>,
    dest_namespace: Option<&'a str>,
    dest_name: Option<&'a str>,
    dest_name_aggr: Option<&'a str>,
    dest_ip: Option<&'a str>,
    #[serde(borrow)]
    dest_labels: Option<Labels<'a>>,
    dest_port: Option<u64>,
    proto: Option<&'a str>,
    action: Option<&'a str>,
    reporter: Option<&'a str>,
    num_flows: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Labels<'a> {
    #[serde(borrow)]
    labels: Option<&'a RawValue>,
}

/// Reads one record.
pub(super) fn read(text: &str) -> Result<Read<'_>, String> {
    let log: Log<'_> = serde_json::from_str(text).map_err(|error| line::wrong_json(&error))?;
    let action = match log.action {
        Some("allow") => Action::Allowed,
        Some("deny") => Action::Denied,
        Some(other) => return Err(format!("`action`: {other:?} is neither allow nor deny")),
        None => return Err("`action` is missing: no flow log of Calico".to_owned()),
    };
    let protocol = said(log.proto);
    let Some(protocol) = line::protocol(protocol).map_err(|error| format!("`proto`: {error}"))?
    else {
        return Ok(Read::Skip(Skip::OtherProtocol));
    };
    let port = log.dest_port.ok_or("`dest_port` is missing")?;
    let source = End::Fields(fields(
        log.source_type,
        log.source_namespace,
        [log.source_name, log.source_name_aggr],
        log.source_ip,
        log.source_labels.as_ref(),
    )?);
    let destination = End::Fields(fields(
        log.dest_type,
        log.dest_namespace,
        [log.dest_name, log.dest_name_aggr],
        log.dest_ip,
        log.dest_labels.as_ref(),
    )?);
    Ok(Read::Flow(Line {
        from: source,
        to: destination,
        protocol,
        port: line::port(port).map_err(|error| format!("`dest_port`: {error}"))?,
        action,
        seen: match log.reporter {
            Some("src") => Seen::AtSource,
            Some("dst") => Seen::AtDestination,
            _ => Seen::Somewhere,
        },
        flows: log.num_flows.unwrap_or(1),
    }))
}

/// What is said, where a dash says that nothing is.
fn said(text: Option<&str>) -> &str {
    text.filter(|text| *text != "-").unwrap_or_default()
}

fn fields<'a>(
    kind: Option<&str>,
    namespace: Option<&'a str>,
    names: [Option<&'a str>; 2],
    address: Option<&'a str>,
    labels: Option<&Labels<'a>>,
) -> Result<Fields<'a>, String> {
    let [name, aggregated] = names.map(said);
    let name = if name.is_empty() { aggregated } else { name };
    let address = said(address);
    match said(kind) {
        "wep" => Ok(Fields {
            namespace: said(namespace),
            pod: name,
            labels: labels
                .and_then(|labels| line::present(labels.labels))
                .map_or(Pairs::Unsaid, Pairs::List),
            address,
            ..Fields::default()
        }),
        "hep" => Ok(Fields {
            node: name,
            address,
            ..Fields::default()
        }),
        "net" | "ns" => Ok(Fields {
            address,
            unknown: match (address, name) {
                ("", "pub") => "addresses of public networks, joined by the recorder",
                ("", "pvt") => "addresses of private networks, joined by the recorder",
                ("", _) => "addresses of a set of networks, joined by the recorder",
                (_, _) => "",
            },
            ..Fields::default()
        }),
        other => Err(format!("type {other:?} is none of wep, hep, net and ns")),
    }
}
