//! Progress of the refresh, for status, metrics and events.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::source::RegistrySource;
use crate::error::Error;
use crate::time::Moment;
use crate::transport::Fetched;

/// State of the copy after the latest refresh. The refresh loop publishes a new one after each
/// refresh.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Time at which the refresh was started.
    pub(crate) started: Moment,
    /// Time of the last successful refresh.
    pub(crate) at: Option<Moment>,
    /// Error of the latest refresh, if it failed.
    pub(crate) error: Option<Arc<Error>>,
    /// Origin of the instances.
    pub(crate) source: RegistrySource,
    /// Time of the first of the refreshes in a row that have failed.
    pub(crate) failing_since: Option<Moment>,
    pub(crate) counts: RefreshCounts,
    pub(crate) deltas: DeltaUse,
    /// Number of instances that are missing from the server's list and held.
    pub(crate) held: usize,
    /// Time that the latest change took to arrive.
    pub(crate) lag: Option<Duration>,
    /// Part of the registry that is fetched. `None` if it is all of it.
    pub(crate) interest: Option<InterestUse>,
    /// Number of the latest [`refresh`](crate::Eureka::refresh) that was completed.
    pub(super) completed: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            started: Moment::now(),
            at: None,
            error: None,
            source: RegistrySource::None,
            failing_since: None,
            counts: RefreshCounts::default(),
            deltas: DeltaUse::default(),
            held: 0,
            lag: None,
            interest: None,
            completed: 0,
        }
    }

    /// Returns the age of the copy. Before the first successful refresh, the time since the start.
    pub(super) fn age(&self) -> Duration {
        self.at.unwrap_or(self.started).elapsed()
    }

    pub(super) fn succeeded(&mut self) {
        (self.at, self.error, self.failing_since) = (Some(Moment::now()), None, None);
        self.source = RegistrySource::Fetched;
        self.counts.succeeded += 1;
    }

    pub(super) fn failed(&mut self, error: Error) {
        self.failing_since.get_or_insert_with(Moment::now);
        self.error = Some(Arc::new(error));
        self.counts.failed += 1;
    }
}

/// Numbers of refreshes, fetches and bytes since the first refresh of a client. Part of
/// [`RegistryStatus`](super::RegistryStatus).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefreshCounts {
    /// Refreshes that succeeded.
    pub succeeded: u64,
    /// Refreshes that failed.
    pub failed: u64,
    /// Full lists that were received.
    pub full: u64,
    /// Full lists that the server did not send, since they had not changed (304).
    pub unchanged: u64,
    /// Deltas that were received.
    pub deltas: u64,
    /// Deltas that did not match the copy, so that the full list was fetched.
    pub mismatches: u64,
    /// Bytes of the lists as received, before decompression.
    pub received_bytes: u64,
}

impl RefreshCounts {
    /// Adds the fetches of one refresh.
    pub(super) fn add(&mut self, report: &Report) {
        for fetch in &report.fetches {
            match fetch.outcome {
                FetchOutcome::Full => self.full += 1,
                FetchOutcome::Unchanged => self.unchanged += 1,
                FetchOutcome::Delta => self.deltas += 1,
                FetchOutcome::Failed => {}
            }
            self.received_bytes += fetch.received;
        }
        self.mismatches += report.mismatches;
    }
}

/// Use of deltas by the refresh. Part of [`RegistryStatus`](super::RegistryStatus).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeltaUse {
    /// No list was fetched yet.
    #[default]
    Undecided,
    /// Deltas are fetched.
    InUse,
    /// [Switched off](crate::EurekaBuilder::delta).
    Off,
    /// The registry server offers no deltas.
    NotOffered,
    /// With [`Interest::Used`](crate::Interest::Used), the lists of the names are cheaper.
    NotNeeded,
    /// The full list is fetched for a while, since deltas failed or did not match repeatedly.
    Paused,
}

impl DeltaUse {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::InUse => "in use",
            Self::Off => "off",
            Self::NotOffered => "not offered",
            Self::NotNeeded => "not needed",
            Self::Paused => "paused",
        }
    }
}

/// Part of the registry that is fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InterestUse {
    /// Number of names in use.
    pub(crate) names: usize,
    /// True while the whole registry is fetched, since that is cheaper.
    pub(crate) is_whole_fetched: bool,
}

/// Report on the requests of one refresh.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) fetches: Vec<FetchReport>,
    /// Deltas that did not match.
    pub(super) mismatches: u64,
    /// Time that each new change took to arrive.
    pub(super) lags: Vec<Duration>,
}

/// One fetch of a list, at one or several servers.
#[derive(Debug)]
pub(super) struct FetchReport {
    pub(super) outcome: FetchOutcome,
    /// URL of the server that responded, or of the one that failed.
    pub(super) server: Option<Arc<str>>,
    pub(super) elapsed: Duration,
    /// Bytes as received.
    pub(super) received: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchOutcome {
    Full,
    Unchanged,
    Delta,
    Failed,
}

impl FetchOutcome {
    /// Returns the value of the label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unchanged => "unchanged",
            Self::Delta => "delta",
            Self::Failed => "failure",
        }
    }
}

impl Report {
    /// Adds a list that arrived.
    pub(super) fn fetched(&mut self, outcome: FetchOutcome, began: Instant, fetched: &Fetched) {
        let (server, elapsed) = (Some(fetched.origin.url().clone()), began.elapsed());
        self.fetches.push(FetchReport { outcome, server, elapsed, received: fetched.received });
    }

    /// Adds a list that had not changed.
    pub(super) fn unchanged(&mut self, began: Instant, server: &Arc<str>) {
        let (server, elapsed) = (Some(server.clone()), began.elapsed());
        self.fetches.push(FetchReport { outcome: FetchOutcome::Unchanged, server, elapsed, received: 0 });
    }

    /// Adds a fetch that failed.
    pub(super) fn failed(&mut self, began: Instant, error: &Error) {
        let (server, elapsed) = (error.server_url().map(Arc::from), began.elapsed());
        self.fetches.push(FetchReport { outcome: FetchOutcome::Failed, server, elapsed, received: 0 });
    }
}
