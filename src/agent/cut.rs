//! Ends connections that are open and would not be let in now.
//!
//! Packets of a connection that was let in pass without being asked again, so when policies become stricter its entry in the
//! kernel's table of connections is deleted, and its next packet is judged like a first one. That packet may come from the
//! server's side and look like a connection the other way round, which may be allowed: so both ways are first put into a set
//! whose packets are dropped for a while, or until policies allow the connection again: a program that keeps its socket would
//! otherwise not be heard for all of that time. Who opened it has to speak first then, so that the kernel knows it the same way
//! round. Connections that are still allowed are not touched.

use rustix::io::Errno;

use super::addresses::Own;
use super::conntrack::{Conntrack, ConntrackError, Entry};
use super::kernel::{Kernel, KernelError};
use crate::netpol::{Direction, Endpoint, Family, Flow, Port};
use crate::ruleset::{Plan, Tuple};

/// Why connections could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum CutError {
    /// The table of connections cannot be read or changed.
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    /// Their packets cannot be dropped.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Which addresses are the node's own cannot be read.
    #[error("the node's own addresses cannot be read")]
    Own(#[from] Errno),
    /// The table was rebuilt while it was read, again and again.
    #[error("the table of connections changes too fast to be read")]
    Torn,
}

/// How often the table of connections is read again because it was rebuilt meanwhile.
const TRIES: usize = 3;

/// How many connections are cut at once: a pod may have opened as many as the kernel has room for.
const AT_ONCE: usize = 4096;

/// Cuts what the plan's policies deny, and gives how many connections it were.
pub(super) fn forbidden(plan: &Plan, kernel: &mut Kernel) -> Result<usize, CutError> {
    let mut conntrack = Conntrack::open()?;
    let judge = Judge {
        plan,
        own: Own::read()?,
    };
    let mut total = 0;
    for _ in 0..TRIES {
        let mut entries = Vec::new();
        let listed = conntrack.list(None, |entry| {
            if judge.is_forbidden(&entry) {
                entries.push(entry);
            }
        })?;
        for some in entries.chunks(AT_ONCE) {
            let tuples: Vec<Tuple> = some.iter().filter_map(Entry::forwarded).collect();
            if !tuples.is_empty() {
                kernel.keep_cut(plan, &tuples)?;
            }
            total += conntrack.delete(some)?.deleted;
        }
        if !listed.is_torn {
            return Ok(total);
        }
    }
    Err(CutError::Torn)
}

/// Lets connections pass again that were cut and that the plan's policies allow now; gives how many they were.
pub(super) fn allowed(plan: &Plan, kernel: &mut Kernel) -> Result<usize, CutError> {
    let judge = Judge {
        plan,
        own: Own::read()?,
    };
    let mut tuples = kernel.kept_cut(plan)?;
    tuples.retain(|tuple| !judge.is_denied(tuple));
    for some in tuples.chunks(AT_ONCE) {
        kernel.release(plan, some)?;
    }
    Ok(tuples.len())
}

/// Says which connections are forbidden.
struct Judge<'p> {
    plan: &'p Plan,
    own: Own,
}

impl Judge<'_> {
    fn is_forbidden(&self, entry: &Entry) -> bool {
        // As the packets are where they are judged: with the client's own address and the endpoint's.
        let (source, destination) = (entry.original.source, entry.reply.source);
        let (from_pod, to_pod) = (self.plan.is_local(source), self.plan.is_local(destination));
        if !from_pod && !to_pod || source == destination || self.own.has(source) {
            return false;
        }
        let Some(tuple) = entry.forwarded() else {
            // Policies speak of TCP, UDP and SCTP. What is none of these costs one packet more where it is still allowed.
            return true;
        };
        self.is_denied(&tuple)
    }

    /// Whether policies of a local pod deny a connection.
    fn is_denied(&self, tuple: &Tuple) -> bool {
        let (source, destination) = (tuple.source.0, tuple.destination.0);
        let (from_pod, to_pod) = (self.plan.is_local(source), self.plan.is_local(destination));
        let Some(port) = Port::new(tuple.destination.1) else {
            return false;
        };
        let snapshot = self.plan.snapshot();
        let to = if self.own.has(destination) {
            Endpoint::Node {
                name: &self.plan.options().node,
                address: Some(destination),
            }
        } else {
            snapshot.endpoint_at(destination)
        };
        let flow = Flow::new(snapshot.endpoint_at(source), to, tuple.protocol, port);
        let verdict = snapshot.verdict(&flow.over(Family::of(source)));
        let denies = |is_local: bool, direction| is_local && !verdict.at(direction).passes();
        denies(from_pod, Direction::Egress) || denies(to_pod, Direction::Ingress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::conntrack::{Ends, Way};
    use crate::netpol::{Snapshot, parse};
    use crate::ruleset::Options;
    use serde_json::json;

    #[test]
    fn what_policies_do_not_speak_of_is_begun_anew() {
        let pod = |name: &str, address: &str| {
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name},
                "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "main"}]},
                "status": {"phase": "Running", "podIPs": [{"ip": address}]},
            })
        };
        let deny = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [
                {"ports": [{"port": 80}]},
            ]},
        });
        let objects = [pod("web", "10.0.0.1"), deny];
        let snapshot: Snapshot = objects
            .iter()
            .map(|value| parse(value).unwrap().unwrap().object)
            .collect();
        let plan = Plan::of(Options::new("n"), &snapshot);
        let judge = Judge {
            plan: &plan,
            own: Own::default(),
        };
        let is_forbidden = |from: &str, protocol: u8, ends: Ends| {
            let [source, destination] = [from, "192.0.2.1"].map(|it| it.parse().unwrap());
            let way = |source, destination, ends| Way {
                source,
                destination,
                ends,
                zone: 0,
            };
            let back = match ends {
                Ends::Ports(from, to) => Ends::Ports(to, from),
                other => other,
            };
            judge.is_forbidden(&Entry {
                original: way(source, destination, ends),
                reply: way(destination, source, back),
                protocol,
                status: 0,
                id: None,
                zone: 0,
            })
        };
        assert!(!is_forbidden("10.0.0.1", 6, Ends::Ports(40_000, 80)));
        assert!(is_forbidden("10.0.0.1", 6, Ends::Ports(40_000, 81)));
        // GRE and UDP-Lite, which the kernel tells with ports, ICMP, and ESP.
        for (protocol, ends) in [
            (47, Ends::Ports(0, 80)),
            (136, Ends::Ports(40_000, 80)),
            (1, Ends::Icmp(1, 8, 0)),
            (50, Ends::None),
        ] {
            assert!(is_forbidden("10.0.0.1", protocol, ends), "{protocol}");
            assert!(!is_forbidden("10.0.0.2", protocol, ends), "nobody's");
        }
    }
}
