//! The numbers of a cluster that is followed, read at each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::kind::Kind;
use super::{Live, Watch};

/// Reads the numbers of one cluster.
#[derive(Debug)]
struct Numbers(Live);

// === impl Live ===

impl Live {
    /// Adds its numbers to what is told.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Numbers(self.clone())));
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Self(live) = self;
        gauge(
            &mut encoder,
            "state_age",
            "For how long changes of the cluster may have been missed; 0 while all is well",
            Some(&Unit::Seconds),
            &live.age().as_secs_f64(),
        )?;
        gauge(
            &mut encoder,
            "state_complete",
            "1 once every first list is complete",
            None,
            &u64::from(live.is_complete()),
        )?;
        let undecodable = live.undecodable();
        let watches = live.watches();
        let mut each =
            |name: &str, help: &str, of: &dyn Fn(Kind, &Watch) -> u64, kind: MetricType| {
                let mut family = encoder.encode_descriptor(name, help, None, kind)?;
                for (watched, watch) in &watches {
                    let labels = [("kind", watched.as_str())];
                    let number = of(*watched, watch);
                    let one = family.encode_family(&labels)?;
                    match kind {
                        MetricType::Counter => ConstCounter::new(number).encode(one)?,
                        _ => ConstGauge::new(number).encode(one)?,
                    }
                }
                Ok::<(), std::fmt::Error>(())
            };
        each(
            "state_objects",
            "Objects of the cluster that decisions are made by",
            &|kind, _| live.count(kind),
            MetricType::Gauge,
        )?;
        each(
            "state_undecodable",
            "Objects that cannot be understood; of those that could be once, the last good version is in force",
            &|kind, _| {
                let of_kind = undecodable.iter().filter(|it| it.kind == kind);
                u64::try_from(of_kind.count()).unwrap_or(u64::MAX)
            },
            MetricType::Gauge,
        )?;
        each(
            "watch_served",
            "1 where the API server serves the kind",
            &|_, watch| u64::from(watch.listed && !watch.absent),
            MetricType::Gauge,
        )?;
        each(
            "watch_restarts",
            "How often the watch of a kind began again after a failure",
            &|_, watch| watch.restarts,
            MetricType::Counter,
        )?;
        each(
            "watch_lists",
            "Whole lists that were taken in",
            &|_, watch| watch.lists,
            MetricType::Counter,
        )?;
        each(
            "watch_changes",
            "Single changes that were taken in",
            &|_, watch| watch.changes,
            MetricType::Counter,
        )
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: &impl EncodeGaugeValue,
) -> Result<(), std::fmt::Error> {
    let mut one = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    one.encode_gauge(value)
}
