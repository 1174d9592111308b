//! Metrics in the text format of Prometheus.

use prometheus::{CounterVec, Encoder, GaugeVec, Opts, Registry, TextEncoder};

use super::families::{Family, Kind};
use super::parts::Parts;

pub(in crate::server) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Returns all metrics of a server and of its process.
///
/// The registry of the library lives for one scrape, since it holds copies of values that the
/// server counts itself.
pub(in crate::server) fn text(parts: &Parts<'_>) -> String {
    let registry = Registry::new();
    for family in parts.families().0.iter().filter(|family| !family.samples.is_empty()) {
        add(&registry, family).expect("names and labels of a metric are constants, and valid");
    }
    if let Some(latencies) = parts.measured.series() {
        registry.register(Box::new(latencies.clone())).expect("no other metric has this name");
    }
    #[cfg(target_os = "linux")]
    registry
        .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
        .expect("no other metric has these names");
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).expect("each metric has a sample");
    String::from_utf8(text).expect("names and labels are UTF-8")
}

fn add(registry: &Registry, Family { name, help, kind, labels, samples }: &Family) -> prometheus::Result<()> {
    let options = Opts::new(*name, *help);
    match kind {
        Kind::Gauge => {
            let gauges = GaugeVec::new(options, labels)?;
            for (labels, value) in samples {
                gauges.get_metric_with_label_values(labels)?.set(*value);
            }
            registry.register(Box::new(gauges))
        }
        Kind::Counter => {
            let counters = CounterVec::new(options, labels)?;
            for (labels, value) in samples {
                counters.get_metric_with_label_values(labels)?.inc_by(*value);
            }
            registry.register(Box::new(counters))
        }
    }
}
