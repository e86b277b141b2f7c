//! The numbers of a node's agent.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::netpol::Direction;

/// What the agent counts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// Changes of the table that the kernel took.
    pub transactions: Counter,
    /// Changes of the table that it did not take.
    pub failures: Counter,
    rebuilds: Family<Why, Counter>,
    lag: Histogram,
    /// Pods of the node that have an address.
    pub pods: Gauge,
    /// Policies that hold pods of the node.
    pub policies: Gauge,
    /// Whether the kernel holds what is wanted: 1 or 0.
    pub in_force: Gauge,
    denied: Family<To, Counter>,
    would: Family<WouldTo, Counter>,
    /// Connections that were cut because policies deny them now.
    pub cut: Counter,
    /// Told denied packets that were lost on the way from the kernel.
    pub lost: Counter,
    /// Packets that were dropped because nobody knows whose their address of the node's blocks is.
    pub unknown: Counter,
    /// Packets of pods that were dropped because a node would have taken them for the overlay's own.
    pub crafted: Counter,
    /// Packets that were dropped because their sender was not the pod that they came from.
    pub spoofed: Counter,
    /// Packets between pods that were dropped because no policy is asked of addresses of the link.
    pub link_local: Counter,
    /// Pods of the node that are not held to their own addresses, since it is not known behind which interface they are.
    pub unchecked: Gauge,
}

/// Why the table was made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Rebuild {
    /// The agent started.
    Start,
    /// The kernel refused a change.
    Refused,
    /// Somebody else changed or deleted the table.
    Touched,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: Rebuild,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    direction: Side,
}

/// What would become of a packet if the policies on trial were promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Would {
    /// It passed and would be dropped.
    Deny,
    /// It was dropped and would pass.
    Allow,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WouldTo {
    direction: Side,
    would: Would,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Side {
    Ingress,
    Egress,
}

/// Seconds.
const LAGS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0,
];

// === impl AgentMetrics ===

impl AgentMetrics {
    /// Adds them to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let this = Self {
            transactions: Counter::default(),
            failures: Counter::default(),
            rebuilds: Family::default(),
            lag: Histogram::new(LAGS),
            pods: Gauge::default(),
            policies: Gauge::default(),
            in_force: Gauge::default(),
            denied: Family::default(),
            would: Family::default(),
            cut: Counter::default(),
            lost: Counter::default(),
            unknown: Counter::default(),
            crafted: Counter::default(),
            spoofed: Counter::default(),
            link_local: Counter::default(),
            unchecked: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("agent");
        for (name, help, counter) in this.counters() {
            registry.register(name, help, counter.clone());
        }
        let mut add = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(name, help, gauge.clone());
        };
        add(
            "local_pods",
            "Pods of the node that have an address",
            &this.pods,
        );
        add(
            "policies",
            "Policies that hold pods of the node",
            &this.policies,
        );
        add(
            "unchecked_pods",
            "Pods of the node that are not held to their own addresses",
            &this.unchecked,
        );
        add(
            "in_force",
            "Whether the kernel holds what is wanted",
            &this.in_force,
        );
        registry.register(
            "rebuilds",
            "How often the table was made anew",
            this.rebuilds.clone(),
        );
        registry.register(
            "lag_seconds",
            "From a watch's event to its effect in the kernel",
            this.lag.clone(),
        );
        registry.register(
            "denied_packets",
            "Packets that were dropped because no policy lets them pass",
            this.denied.clone(),
        );
        registry.register(
            "staged_packets",
            "Packets of which policies on trial would decide otherwise",
            this.would.clone(),
        );
        this
    }

    /// What is counted by itself, with its name and what it means.
    fn counters(&self) -> [(&'static str, &'static str, &Counter); 8] {
        [
            (
                "transactions",
                "Changes of the table that the kernel took",
                &self.transactions,
            ),
            (
                "failures",
                "Changes of the table that the kernel did not take",
                &self.failures,
            ),
            (
                "cut_connections",
                "Connections that were cut because policies deny them now",
                &self.cut,
            ),
            (
                "lost_reports",
                "Reports of denied packets that were lost",
                &self.lost,
            ),
            (
                "unknown_packets",
                "Packets that were dropped because their address of the node's blocks is no known pod's",
                &self.unknown,
            ),
            (
                "crafted_packets",
                "Packets of pods that were dropped because a node would have taken them for the overlay's own",
                &self.crafted,
            ),
            (
                "spoofed_packets",
                "Packets that were dropped because their sender was not the pod that they came from, or no pod sends such: what routers say, what is neither IP nor ARP",
                &self.spoofed,
            ),
            (
                "link_local_packets",
                "Packets between pods that were dropped because no policy is asked of addresses of the link",
                &self.link_local,
            ),
        ]
    }

    /// The table was made anew.
    pub fn rebuilt(&self, reason: Rebuild) {
        self.rebuilds.get_or_create(&Why { reason }).inc();
    }

    /// A change took so long from the watch to the kernel.
    pub fn took(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    /// So many more packets were denied.
    pub fn denied(&self, direction: Direction, packets: u64) {
        let direction = direction.into();
        self.denied.get_or_create(&To { direction }).inc_by(packets);
    }

    /// Of so many more packets policies on trial would decide otherwise.
    pub fn would(&self, would: Would, direction: Direction, packets: u64) {
        let direction = direction.into();
        let of = WouldTo { direction, would };
        self.would.get_or_create(&of).inc_by(packets);
    }
}

impl From<Direction> for Side {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Ingress,
            Direction::Egress => Self::Egress,
        }
    }
}
