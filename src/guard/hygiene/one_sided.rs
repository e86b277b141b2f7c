//! An allow of one end in words, and the half that is missing as a manifest.

use crate::guard::finding::Fix;
use crate::netpol::findings::OneSided;
use crate::netpol::{Direction, Endpoint, Flow, Snapshot};

pub(super) fn message(found: &OneSided) -> String {
    let OneSided {
        direction,
        from,
        to,
        protocol,
        port,
        denied_by,
    } = found;
    let policies: Vec<String> = denied_by.iter().map(ToString::to_string).collect();
    let other = match direction {
        Direction::Egress => format!("the ingress of {to}"),
        Direction::Ingress => format!("the egress of {from}"),
    };
    format!(
        "{direction} is allowed here, and denied at the other end: {other} is isolated by {} and lets nothing of it pass, \
         such as {from} to {protocol} {port}",
        policies.join(", ")
    )
}

/// The smallest change of the other end that lets the example pass, where there is one.
pub(super) fn fix(found: &OneSided, snapshot: &Snapshot) -> Option<Fix> {
    let (from, to) = (snapshot.pod(&found.from)?, snapshot.pod(&found.to)?);
    let flow = Flow::new(
        Endpoint::Pod(from),
        Endpoint::Pod(to),
        found.protocol,
        found.port,
    );
    let change = snapshot
        .explain(&flow)
        .changes
        .into_iter()
        .find(|change| change.direction != found.direction)?;
    Some(if change.is_new {
        Fix {
            summary: "allow it at the other end as well, or remove it here".to_owned(),
            patch: None,
            manifest: Some(change.manifest),
        }
    } else {
        Fix::words(format!(
            "add the rule to the {} of NetworkPolicy {} as well, or remove it here",
            change.direction, change.policy
        ))
    })
}
