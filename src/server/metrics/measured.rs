//! Latency of requests by operation and status.

#[cfg(feature = "prometheus")]
use std::collections::HashSet;
#[cfg(feature = "prometheus")]
use std::sync::{Arc, OnceLock};

use http::StatusCode;
#[cfg(feature = "prometheus")]
use prometheus::{Histogram, HistogramOpts, HistogramVec};
#[cfg(feature = "prometheus")]
use tokio::time::Instant;

use super::OperationLabel;
use crate::server::settings::About;
#[cfg(feature = "prometheus")]
use crate::sync::Mutex;

#[cfg(feature = "prometheus")]
pub(super) const NAME: &str = "tower_eureka_request_duration_seconds";
#[cfg(feature = "prometheus")]
pub(super) const HELP: &str = "Time from the head of a request to the head of its response, by operation and status.";
/// Maximum number of applications with series of their own. All others have one together.
#[cfg(feature = "prometheus")]
const APPLICATIONS: usize = 1_000;
/// Name of the series of all other applications. Names of applications are in upper case.
#[cfg(feature = "prometheus")]
const OTHERS: &str = "others";
/// Upper bounds of the buckets, in seconds.
#[cfg(feature = "prometheus")]
const BUCKETS: [f64; 12] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
/// Status codes with a series of their own, the most frequent first.
#[cfg(feature = "prometheus")]
const STATUSES: [(u16, &str); 20] = [
    (200, "200"),
    (204, "204"),
    (304, "304"),
    (404, "404"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (405, "405"),
    (406, "406"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (507, "507"),
    (508, "508"),
    (0, "other"),
    (1, "aborted"),
];
/// Position of a status without a series of its own.
#[cfg(feature = "prometheus")]
const OTHER: usize = STATUSES.len() - 2;
/// Position of a request whose caller closed the connection before there was a response.
#[cfg(feature = "prometheus")]
const ABORTED: usize = STATUSES.len() - 1;

/// Latency of the requests of a server. Empty unless metrics are enabled.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Measured {
    #[cfg(feature = "prometheus")]
    latencies: Option<Arc<Latencies>>,
}

/// Start of a request. Empty unless metrics are enabled.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct Started {
    #[cfg(feature = "prometheus")]
    at: Option<Instant>,
}

/// Measures a request whose response is not ready yet. A timer that is dropped counts as a request
/// that its caller aborted.
#[derive(Debug)]
pub(in crate::server) struct Timer {
    #[cfg(feature = "prometheus")]
    running: Option<(Arc<Latencies>, OperationLabel, Instant)>,
}

impl Measured {
    #[cfg_attr(not(feature = "prometheus"), allow(unused_variables, reason = "nothing is measured"))]
    pub(in crate::server) fn new(settings: &About) -> Self {
        #[cfg(feature = "prometheus")]
        if settings.metrics {
            return Self::enabled();
        }
        Self::default()
    }

    #[cfg(feature = "prometheus")]
    pub(in crate::server) fn is_enabled(&self) -> bool {
        self.latencies.is_some()
    }

    /// Returns the start of a request.
    pub(in crate::server) fn start(&self) -> Started {
        Started {
            #[cfg(feature = "prometheus")]
            at: self.latencies.as_ref().map(|_| Instant::now()),
        }
    }

    /// Records a request with its response.
    #[cfg_attr(not(feature = "prometheus"), allow(unused_variables, reason = "nothing is measured"))]
    pub(in crate::server) fn record(&self, started: Started, operation: OperationLabel, status: StatusCode) {
        #[cfg(feature = "prometheus")]
        if let (Some(latencies), Some(at)) = (&self.latencies, started.at) {
            latencies.record(operation, position(status), at);
        }
    }

    /// Returns a timer for a request whose response is not ready yet.
    #[cfg_attr(not(feature = "prometheus"), allow(unused_variables, reason = "nothing is measured"))]
    pub(in crate::server) fn timer(&self, started: Started, operation: impl FnOnce() -> OperationLabel) -> Timer {
        Timer {
            #[cfg(feature = "prometheus")]
            running: self.latencies.clone().zip(started.at).map(|(latencies, at)| (latencies, operation(), at)),
        }
    }
}

impl Timer {
    /// Records the response.
    #[cfg_attr(not(feature = "prometheus"), allow(unused_variables, reason = "nothing is measured"))]
    pub(in crate::server) fn finish(&mut self, status: StatusCode) {
        #[cfg(feature = "prometheus")]
        if let Some((latencies, operation, at)) = self.running.take() {
            latencies.record(operation, position(status), at);
        }
    }
}

#[cfg(feature = "prometheus")]
impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((latencies, operation, at)) = self.running.take() {
            latencies.record(operation, ABORTED, at);
        }
    }
}

#[cfg(feature = "prometheus")]
fn position(status: StatusCode) -> usize {
    STATUSES.iter().position(|&(code, _)| code == status.as_u16()).unwrap_or(OTHER)
}

/// Histograms by operation and status. Each is created with its first request and found without a
/// lock.
#[cfg(feature = "prometheus")]
#[derive(Debug)]
pub(super) struct Latencies {
    series: HistogramVec,
    found: [[OnceLock<Histogram>; STATUSES.len()]; OperationLabel::NAMES.len()],
    /// Applications with series of their own.
    applications: Mutex<HashSet<Arc<str>>>,
}

#[cfg(feature = "prometheus")]
impl Measured {
    fn enabled() -> Self {
        let options = HistogramOpts::new(NAME, HELP).buckets(BUCKETS.to_vec());
        let series = HistogramVec::new(options, &["operation", "status"]).expect("name and buckets are valid");
        Self {
            latencies: Some(Arc::new(Latencies { series, found: Default::default(), applications: Mutex::default() })),
        }
    }

    pub(super) fn series(&self) -> Option<&HistogramVec> {
        self.latencies.as_ref().map(|latencies| &latencies.series)
    }

    /// Returns the name under which an application is counted: its own for the first 1,000 of this
    /// process, else the one of all others.
    ///
    /// A name that has series keeps them, so that later names do not replace it, and so that no
    /// sequence of names creates more series.
    pub(super) fn series_of<'a>(&self, app: &'a Arc<str>) -> &'a str {
        let Some(latencies) = &self.latencies else { return OTHERS };
        let mut applications = latencies.applications.lock();
        if applications.contains(app) || applications.len() < APPLICATIONS && applications.insert(app.clone()) {
            app
        } else {
            OTHERS
        }
    }

    /// Returns the number and the total seconds of requests by operation and status.
    pub(super) fn totals(&self) -> impl Iterator<Item = ([&'static str; 2], u64, f64)> {
        let operations =
            self.latencies.iter().flat_map(|latencies| OperationLabel::NAMES.into_iter().zip(&latencies.found));
        operations.flat_map(|(operation, statuses)| {
            STATUSES.into_iter().zip(statuses).filter_map(move |((_, status), found)| {
                let found = found.get()?;
                Some(([operation, status], found.get_sample_count(), found.get_sample_sum()))
            })
        })
    }
}

#[cfg(feature = "prometheus")]
impl Latencies {
    fn record(&self, operation: OperationLabel, status: usize, started: Instant) {
        let names = || [OperationLabel::NAMES[operation as usize], STATUSES[status].1];
        let histogram = &self.found[operation as usize][status];
        let histogram = histogram.get_or_init(|| self.series.with_label_values(&names()));
        histogram.observe(started.elapsed().as_secs_f64());
    }
}

#[cfg(all(test, feature = "prometheus"))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn request_is_recorded_by_operation_and_status() {
        let measured = Measured::enabled();
        let started = measured.start();
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        measured.record(started, OperationLabel::Heartbeat, StatusCode::OK);
        measured.record(measured.start(), OperationLabel::Heartbeat, StatusCode::IM_A_TEAPOT);
        measured.timer(started, || OperationLabel::List).finish(StatusCode::NOT_MODIFIED);
        drop(measured.timer(started, || OperationLabel::Register));
        let totals: Vec<_> = measured.totals().collect();
        let expected = [
            (["heartbeat", "200"], 1, 2.0),
            (["heartbeat", "other"], 1, 0.0),
            (["list", "304"], 1, 2.0),
            (["register", "aborted"], 1, 2.0),
        ];
        assert_eq!(totals, expected);
    }

    #[test]
    fn application_with_series_keeps_them_whatever_names_follow() {
        let measured = Measured::enabled();
        let names = |prefix: &str| -> Vec<Arc<str>> { (0..2_000).map(|n| format!("{prefix}{n:04}").into()).collect() };
        let own = |names: &[Arc<str>]| names.iter().filter(|name| measured.series_of(name) == &***name).count();
        let (first, later) = (names("M"), names("A"));
        assert_eq!((own(&first), own(&later), own(&first[..1_000])), (1_000, 0, 1_000));
        assert_eq!(measured.series_of(&later[0]), OTHERS);
    }

    #[test]
    fn nothing_is_recorded_while_metrics_are_disabled() {
        let measured = Measured::default();
        measured.record(measured.start(), OperationLabel::Heartbeat, StatusCode::OK);
        assert_eq!(measured.totals().count(), 0);
    }
}
