//! Ends connections that are open and would not be let in now.
//!
//! Packets of a connection that was let in pass without being asked again, so when policies become stricter its entry in the
//! kernel's table of connections is deleted, and its next packet is judged like a first one. That packet may come from the
//! server's side and look like a connection the other way round, which may be allowed: so both ways are first put into a set
//! whose packets are dropped for a while, or until policies allow the connection again: a program that keeps its socket would
//! otherwise not be heard for all of that time. Who opened it has to speak first then, so that the kernel knows it the same way
//! round. Connections that are still allowed are not touched.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};

use super::conntrack::{Conntrack, ConntrackError, Ends, Entry};
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
    /// The table was rebuilt while it was read, again and again.
    #[error("the table of connections changes too fast to be read")]
    Torn,
}

/// How often the table of connections is read again because it was rebuilt meanwhile.
const TRIES: usize = 3;

/// Cuts what the plan's policies deny, and gives how many connections it were.
pub(super) fn forbidden(plan: &Plan, kernel: &mut Kernel) -> Result<usize, CutError> {
    let mut conntrack = Conntrack::open()?;
    let mut judge = Judge {
        plan,
        own: HashMap::new(),
    };
    let mut total = 0;
    for _ in 0..TRIES {
        let (mut entries, mut tuples) = (Vec::new(), Vec::new());
        let listed = conntrack.list(None, |entry| {
            if judge.is_forbidden(&entry) {
                tuples.extend(entry.forwarded());
                entries.push(entry);
            }
        })?;
        if !entries.is_empty() {
            kernel.keep_cut(plan, &tuples)?;
            total += conntrack.delete(&entries)?.deleted;
        }
        if !listed.is_torn {
            return Ok(total);
        }
    }
    Err(CutError::Torn)
}

/// Lets connections pass again that were cut and that the plan's policies allow now; gives how many they were.
pub(super) fn allowed(plan: &Plan, kernel: &mut Kernel) -> Result<usize, CutError> {
    let mut judge = Judge {
        plan,
        own: HashMap::new(),
    };
    let mut tuples = kernel.kept_cut(plan)?;
    tuples.retain(|tuple| !judge.is_denied(tuple));
    if !tuples.is_empty() {
        kernel.release(plan, &tuples)?;
    }
    Ok(tuples.len())
}

/// Says which connections are forbidden.
struct Judge<'p> {
    plan: &'p Plan,
    /// Whether addresses are the node's own.
    own: HashMap<IpAddr, bool>,
}

impl Judge<'_> {
    fn is_forbidden(&mut self, entry: &Entry) -> bool {
        // As the packets are where they are judged: with the client's own address and the endpoint's.
        let (source, destination) = (entry.original.source, entry.reply.source);
        let (from_pod, to_pod) = (self.plan.is_local(source), self.plan.is_local(destination));
        if !from_pod && !to_pod || source == destination || self.is_own(source) {
            return false;
        }
        let Some(tuple) = entry.forwarded() else {
            // Policies speak of ports. What has none costs one packet more where it is still allowed.
            return matches!(entry.original.ends, Ends::Icmp(..) | Ends::None);
        };
        self.is_denied(&tuple)
    }

    /// Whether policies of a local pod deny a connection.
    fn is_denied(&mut self, tuple: &Tuple) -> bool {
        let (source, destination) = (tuple.source.0, tuple.destination.0);
        let (from_pod, to_pod) = (self.plan.is_local(source), self.plan.is_local(destination));
        let Some(port) = Port::new(tuple.destination.1) else {
            return false;
        };
        let snapshot = self.plan.snapshot();
        let to = if self.is_own(destination) {
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

    /// Whether an address is one of the node itself, which is then not held to policies: only such a one can be bound.
    fn is_own(&mut self, address: IpAddr) -> bool {
        if self.plan.is_local(address) {
            return false;
        }
        *self
            .own
            .entry(address)
            .or_insert_with(|| UdpSocket::bind((address, 0)).is_ok())
    }
}
