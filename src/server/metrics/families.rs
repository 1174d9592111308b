//! Names, help and labels of the metrics, with their present values.

/// Metric with its present samples.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    /// Values of the labels, and the value.
    pub(super) samples: Vec<(Vec<String>, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// Metrics in the order in which they are read.
#[derive(Debug, Default)]
pub(in crate::server) struct Families(pub(super) Vec<Family>);

impl Families {
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, &[], [(vec![], value)]);
    }

    pub(super) fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        samples: impl IntoIterator<Item = (Vec<String>, f64)>,
    ) {
        self.0.push(Family { name, help, kind: Kind::Gauge, labels, samples: samples.into_iter().collect() });
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counters(name, help, &[], [(vec![], value)]);
    }

    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        samples: impl IntoIterator<Item = (Vec<String>, u64)>,
    ) {
        let samples = samples.into_iter().map(|(labels, value)| (labels, value as f64)).collect();
        self.0.push(Family { name, help, kind: Kind::Counter, labels, samples });
    }

    /// Adds a counter with one label.
    pub(super) fn counters_by(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static [&'static str; 1],
        samples: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        self.counters(name, help, label, samples.into_iter().map(|(label, value)| (vec![label.to_owned()], value)));
    }
}
