//! The kernel's counters as numbers of the agent, which go on through a table that is made anew.

use std::collections::BTreeMap;

use super::nft::Counted;
use crate::netpol::Direction;
use crate::ruleset::CounterName;
use crate::telemetry::agent::{AgentMetrics, Would};

/// What each counter had when it was read last.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<CounterName, u64>);

impl Counts {
    /// Adds what has been counted since.
    pub(super) fn take(&mut self, counters: BTreeMap<CounterName, Counted>, to: &AgentMetrics) {
        for (name, counted) in counters {
            let packets = counted.packets;
            let before = self.0.insert(name.clone(), packets).unwrap_or(0);
            // A new table begins at nothing.
            let more = packets.checked_sub(before).unwrap_or(packets);
            match name.as_str() {
                "denied-ingress" => to.denied(Direction::Ingress, more),
                "denied-egress" => to.denied(Direction::Egress, more),
                "would-deny-ingress" => to.would(Would::Deny, Direction::Ingress, more),
                "would-deny-egress" => to.would(Would::Deny, Direction::Egress, more),
                "would-allow-ingress" => to.would(Would::Allow, Direction::Ingress, more),
                "would-allow-egress" => to.would(Would::Allow, Direction::Egress, more),
                "unknown" => {
                    to.unknown.inc_by(more);
                }
                "spoofed" => {
                    to.spoofed.inc_by(more);
                }
                "link-local" => {
                    to.link_local.inc_by(more);
                }
                "crafted" => {
                    to.crafted.inc_by(more);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics;

    #[test]
    fn a_table_made_anew_counts_on() {
        let numbers = AgentMetrics::new(&mut metrics::registry());
        let mut counts = Counts::default();
        for packets in [3, 5, 5, 2] {
            let counted = Counted { packets, bytes: 0 };
            let read = [(CounterName::from("unknown"), counted)].into();
            counts.take(read, &numbers);
        }
        assert_eq!(numbers.unknown.get(), 7);
    }
}
