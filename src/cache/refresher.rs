use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep};

use super::continuity::{Continuity, MAX_GAP};
use super::local_copy::LocalCopy;
use super::progress::{DeltaUse, FetchOutcome, Report};
use super::propagation::Propagation;
use super::refusals::Refusals;
use super::snapshot::Snapshot;
use crate::config::ClientConfig;
use crate::error::{Error, Kind};
use crate::model::Applications;
use crate::panics::catch_panic;
use crate::sync::offload;
use crate::time::{Backoff, jittered, lengthened, random_part};
use crate::transport::{Fetched, Full, Origin, Transport};

/// Number of mismatched deltas in a row after which deltas are paused.
const MISMATCHES_BEFORE_PAUSE: u32 = 3;
/// Number of full refreshes while deltas are paused. Deltas of some servers with remote regions
/// never match.
const FULL_REFRESHES: u32 = 5;
/// Number of intervals between two full refreshes while deltas are paused after mismatches. It caps
/// the load on the servers, since all their clients may be affected.
const FULL_REFRESH_INTERVALS: u32 = 2;
/// Number of pauses in a row, all due to digests, after which digests are ignored.
const PAUSES_BEFORE_COUNTS: u32 = 2;
/// Maximum random delay of a full fetch after a mismatched delta. All clients detect the mismatch
/// within one interval.
const MAX_SPREAD: Duration = Duration::from_secs(10);

/// Number of instances from which a response is applied on a blocking thread. Applying them takes
/// about as long as decoding [`OFFLOAD_THRESHOLD`](crate::sync::OFFLOAD_THRESHOLD) bytes.
pub(super) const OFFLOAD_INSTANCES: usize = 250;

/// Fetches a registry periodically and keeps the local copy up to date.
pub(crate) struct Refresher {
    transport: Transport,
    interval: Duration,
    /// Time within which the first fetch tries all servers, unless the process has a list. `None`
    /// once a server has responded with an error as well.
    race: Option<Duration>,
    delta: bool,
    local: LocalCopy,
    continuity: Continuity,
    /// `ETag` of the last full response, and the number of changes of the copy at that time.
    etag: Option<(HeaderValue, u64)>,
    backoff: Backoff,
    /// True after the first successful fetch.
    fetched: bool,
    /// True if the last full response had a version. A server without one offers no deltas.
    deltas_offered: bool,
    mismatches: u32,
    /// Number of pauses of deltas in a row that were due to digests.
    digest_pauses: u32,
    /// Server whose digests are ignored, since those of its deltas are wrong.
    counts_only: Option<Origin>,
    refusals: Refusals,
    /// Number of refreshes for which deltas are still paused.
    full_only: u32,
    /// Error of the latest delta, if it was refused. A full list does not remove it.
    refused: Option<Error>,
    failing_since: Option<Instant>,
    /// True if the last refresh failed with a sign of overload.
    overloaded: bool,
    /// End of the last refresh, successful or not.
    last_refresh: Instant,
    /// Clock that runs only while the registry responds. Held instances expire by it.
    response_clock: Instant,
    propagation: Propagation,
    /// Requests of the latest refresh.
    report: Report,
}

/// Result of fetching a delta.
enum Delta {
    Received(Box<Fetched>),
    /// The server offers no deltas.
    NotOffered,
    /// The response is no delta.
    Unusable,
    /// The server rejects deltas repeatedly.
    Rejected,
}

impl Refresher {
    pub(crate) fn new(transport: Transport, config: &ClientConfig) -> Self {
        let (interval, delta) = (config.fetch_interval, config.delta);
        let now = Instant::now();
        if delta && interval > MAX_GAP {
            tracing::info!(?interval, longest = ?MAX_GAP, "fetch interval is too long for deltas, every fetch may be a full one");
        }
        Self {
            transport: transport.in_background(),
            interval,
            race: Some(config.ready_timeout),
            delta,
            local: LocalCopy::new(&config.offline),
            continuity: Continuity::new(),
            etag: None,
            backoff: Backoff::new(Duration::from_secs(1).min(interval), interval),
            fetched: false,
            deltas_offered: false,
            mismatches: 0,
            digest_pauses: 0,
            counts_only: None,
            refusals: Refusals::default(),
            full_only: 0,
            refused: None,
            failing_since: None,
            overloaded: false,
            last_refresh: now,
            response_clock: now,
            propagation: Propagation::default(),
            report: Report::default(),
        }
    }

    /// Tries the servers of the first fetch one after the other, since there is a list already.
    pub(super) fn without_race(self) -> Self {
        Self { race: None, ..self }
    }

    /// Returns the report on the latest refresh.
    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    /// Returns the error of deltas that are refused, although the latest refresh has fetched a full
    /// list.
    pub(super) fn partial_error(&self) -> Option<&Error> {
        self.refused.as_ref()
    }

    /// Returns the use of deltas from now on.
    pub(super) fn deltas(&self) -> DeltaUse {
        match () {
            () if !self.delta => DeltaUse::Off,
            () if !self.fetched => DeltaUse::Undecided,
            () if !self.deltas_offered || self.refusals.are_deltas_off() => DeltaUse::NotOffered,
            () if self.full_only > 0 => DeltaUse::Paused,
            () => DeltaUse::InUse,
        }
    }

    /// Returns the number of held instances.
    pub(super) fn held(&self) -> usize {
        self.local.held()
    }

    /// Takes over a list that was saved earlier, before the first fetch. Returns its snapshot.
    pub(super) async fn restore(&mut self, list: Applications) -> Snapshot {
        self.apply(list, |local, list, _| local.restore(list)).await;
        self.local.snapshot()
    }

    /// Returns `true` if the server's list has an instance.
    pub(super) fn lists_any(&self) -> bool {
        !self.local.is_empty()
    }

    /// Fetches once. Returns the new snapshot or the error, and the delay before the next fetch.
    ///
    /// Not cancel safe: if the future is dropped, the copy may be empty, and this must not be
    /// called again.
    pub(crate) async fn next(&mut self) -> (Result<Snapshot, Error>, Duration) {
        self.report = Report::default();
        let refreshed = match catch_panic(self.refresh()).await {
            Ok(refreshed) => refreshed,
            Err(panicked) => {
                // The list may be half changed, so it is discarded and fetched again.
                (self.local, self.etag) = (self.local.without_list(), None);
                self.continuity.lost();
                tracing::error!(error = %panicked, "refresh panicked");
                Err(Error::new(Kind::Call, "fetch registry").cause(panicked.to_string()))
            }
        };
        self.last_refresh = Instant::now();
        match refreshed {
            Ok(()) => {
                self.backoff.reset();
                let intervals = if self.full_only > 0 { FULL_REFRESH_INTERVALS } else { 1 };
                (Ok(self.local.snapshot()), jittered(self.interval.saturating_mul(intervals)))
            }
            Err(error) => {
                if self.failing_since.is_none() {
                    self.failing_since = Some(Instant::now());
                    tracing::warn!(%error, "refresh failed, keeping the last copy");
                }
                let wait = self.delay_after(&error);
                (Err(error), wait)
            }
        }
    }

    /// Returns the delay after a failed refresh.
    ///
    /// Retries early only if that is cheap for the servers: before the first successful fetch, and
    /// while there is no connection. A server that responds with an error or too late may be
    /// overloaded. A pause that all servers asked for is obeyed.
    fn delay_after(&mut self, error: &Error) -> Duration {
        self.overloaded = self.refusals.is_refused()
            || matches!(error.kind(), Kind::Status(420 | 429 | 500..) | Kind::Paused(_) | Kind::Timeout);
        if matches!(error.kind(), Kind::Status(_) | Kind::Paused(_)) {
            // The servers respond, so one after the other can be tried.
            self.race = None;
        }
        if let Some(pause) = self.transport.pause() {
            return jittered(self.interval).max(lengthened(pause));
        }
        let is_harmless = matches!(error.kind(), Kind::Connect | Kind::Call);
        if is_harmless || !self.fetched { self.backoff.next() } else { jittered(self.interval) }
    }

    /// Refreshes once: by a delta if possible, otherwise by the whole registry.
    async fn refresh(&mut self) -> Result<(), Error> {
        if !self.is_delta_useful() || self.is_full_due() {
            return self.fetch_all().await;
        }
        if self.full_only > 0 {
            self.full_only -= 1;
            return self.fetch_all().await;
        }
        let mut delta = match self.fetch_delta().await? {
            Delta::Received(delta) => *delta,
            Delta::NotOffered => return self.fetch_all().await,
            Delta::Rejected => {
                // A server that rejects full lists as well rejects this client, and not deltas.
                self.fetch_all().await?;
                self.refusals.turn_deltas_off();
                self.delta_accepted();
                return Ok(());
            }
            Delta::Unusable => {
                self.mismatched(None);
                return self.fetch_all_delayed().await;
            }
        };
        self.responded();
        let origin = delta.origin.clone();
        self.local.set_responder(&origin, self.transport.server_count());
        delta.digest = delta.digest.filter(|_| self.counts_only.as_ref() != Some(&origin));
        let (version, is_exact) = (delta.list.version, self.local.is_exact(delta.digest));
        let continues = is_exact || self.continuity.is_continued_by(&delta.origin, version);
        let digest = delta.digest;
        if continues && self.apply(delta.list, move |local, list, now| local.apply_delta(list, digest, now)).await {
            self.continuity.continued(delta.origin, version, delta.requested);
            (self.mismatches, self.digest_pauses) = (0, 0);
            return Ok(());
        }
        tracing::debug!(continues, "delta does not match, fetching the whole registry");
        self.report.mismatches += 1;
        self.mismatched(is_exact.then_some(origin));
        self.fetch_all_delayed().await
    }

    /// Counts a delta that did not match or could not be read, and pauses deltas after several in a
    /// row. `origin` is set if a digest did not match.
    fn mismatched(&mut self, origin: Option<Origin>) {
        self.mismatches += 1;
        if self.mismatches < MISMATCHES_BEFORE_PAUSE {
            return;
        }
        tracing::warn!(
            refreshes = FULL_REFRESHES,
            "deltas repeatedly do not match or cannot be read, fetching the whole registry for a while"
        );
        (self.mismatches, self.full_only) = (0, FULL_REFRESHES);
        self.digest_pauses = if origin.is_some() { self.digest_pauses + 1 } else { 0 };
        if self.digest_pauses >= PAUSES_BEFORE_COUNTS {
            tracing::warn!("digests of deltas repeatedly do not match, comparing counts instead");
            (self.digest_pauses, self.counts_only) = (0, origin);
        }
    }

    /// Returns `true` if a delta should be fetched.
    ///
    /// A delta with a digest proves by itself that it continues the copy. Any other delta needs a
    /// recent response before it. After an overload, a delta is a cheap probe of the server.
    fn is_delta_useful(&self) -> bool {
        let can_continue = self.continuity.is_recent() || self.local.has_digest() || self.overloaded;
        let is_offered = self.deltas_offered && !self.refusals.are_deltas_off();
        self.delta && is_offered && !self.local.is_empty() && can_continue
    }

    /// Returns `true` if a full fetch is due although a delta could be applied: to verify the copy,
    /// or because deltas have been refused for long.
    fn is_full_due(&mut self) -> bool {
        if self.refusals.is_refused() {
            return self.refusals.is_full_due();
        }
        !self.overloaded && self.continuity.take_due_verification()
    }

    /// Fetches a delta.
    ///
    /// A refusal is returned as an error. A full fetch costs the server more, so it would be no
    /// remedy, unless the server rejects deltas for good.
    async fn fetch_delta(&mut self) -> Result<Delta, Error> {
        let began = Instant::now();
        let error = match self.transport.changes().await {
            Ok(delta) => {
                self.refusals.ended();
                self.delta_accepted();
                let Some(delta) = delta else { return Ok(Delta::NotOffered) };
                self.observe(FetchOutcome::Delta, began, &delta);
                return Ok(Delta::Received(Box::new(delta)));
            }
            Err(error) => error,
        };
        self.report.failed(began, &error);
        let is_rejected = self.refusals.failed(error.kind());
        self.refused = self.refusals.is_refused().then(|| error.without_source());
        match error.kind() {
            Kind::InvalidResponse => Ok(Delta::Unusable),
            _ if is_rejected => Ok(Delta::Rejected),
            _ => Err(error),
        }
    }

    /// Fetches the whole registry after a random delay, so that clients with the same mismatch
    /// spread.
    async fn fetch_all_delayed(&mut self) -> Result<(), Error> {
        self.continuity.lost();
        self.etag = None;
        sleep(random_part((self.interval / 3).min(MAX_SPREAD))).await;
        self.fetch_all().await
    }

    async fn fetch_all(&mut self) -> Result<(), Error> {
        // It stays if the request fails.
        let known =
            self.etag.as_ref().filter(|(_, changes)| *changes == self.local.changes()).map(|(etag, _)| etag.clone());
        let race = self.race.filter(|_| !self.fetched);
        let began = Instant::now();
        let full = match self.transport.full(known.as_ref(), race, &self.local.known()).await {
            Ok(full) => full,
            Err(error) => {
                self.report.failed(began, &error);
                self.refusals.full_failed(error.kind(), self.interval);
                return Err(error);
            }
        };
        self.refusals.full_fetched();
        let fetched = match full {
            Full::Changed(fetched) => fetched,
            Full::Unchanged(origin, requested) => {
                self.report.unchanged(began, origin.url());
                self.responded();
                self.local.set_responder(&origin, self.transport.server_count());
                let held = self.local.held();
                self.local.apply_unchanged(self.response_clock);
                self.leave_empty_server(held);
                self.continuity.renewed(origin, requested);
                return Ok(());
            }
        };
        self.observe(FetchOutcome::Full, began, &fetched);
        let Fetched { list, skipped, origin, requested, digest, etag, .. } = fetched;
        let digest = digest.filter(|_| self.counts_only.as_ref() != Some(&origin));
        self.fetched = true;
        self.deltas_offered = list.version.is_some_and(|version| version != -1);
        if !self.deltas_offered {
            self.delta_accepted();
        }
        self.responded();
        self.local.set_responder(&origin, self.transport.server_count());
        let (held, listed) = (self.local.held(), list.len());
        self.apply(list, move |local, list, now| local.apply_full(list, skipped, digest, now)).await;
        self.leave_empty_server(held);
        self.continuity.renewed(origin, requested);
        // Only servers that send digests are known to use an `ETag` for one list only.
        self.etag = etag.filter(|_| self.local.has_digest()).map(|etag| (etag, self.local.changes()));
        if self.local.held() > held {
            tracing::warn!(
                listed,
                held = self.local.held(),
                "implausibly many instances are missing, holding them for now"
            );
        }
        Ok(())
    }

    /// Begins the next fetch at another server if this one has no instance, and some are held or
    /// none was ever listed, since another one may have them. `before` is the number of held
    /// instances before the response.
    fn leave_empty_server(&self, before: usize) {
        let held = self.local.held();
        if self.local.is_empty() && held < before {
            tracing::warn!(removed = before - held, "registry stays empty, removing held instances");
        }
        if let Some(origin) = self.local.empty_server() {
            self.transport.leave_reader(origin.url());
        }
    }

    /// Applies a response to the copy, on a blocking thread if it is large.
    async fn apply<T: Send + 'static>(
        &mut self,
        list: Applications,
        apply: impl FnOnce(&mut LocalCopy, &Applications, Instant) -> T + Send + 'static,
    ) -> T {
        let now = self.response_clock;
        if list.len() < OFFLOAD_INSTANCES {
            return apply(&mut self.local, &list, now);
        }
        // If this panics, the snapshot remains.
        let rest = self.local.without_list();
        let mut local = std::mem::replace(&mut self.local, rest);
        let (local, output) = offload(move || {
            let output = apply(&mut local, &list, now);
            // The snapshot updates the index of VIP addresses, which takes time as well.
            local.snapshot();
            (local, output)
        })
        .await;
        self.local = local;
        output
    }

    /// Adds a list to the report.
    fn observe(&mut self, outcome: FetchOutcome, began: Instant, fetched: &Fetched) {
        self.report.fetched(outcome, began, fetched);
        let instances = fetched.list.applications.iter().flat_map(|application| &application.instances);
        let updated = instances.filter_map(|instance| instance.last_updated_timestamp());
        self.report.lags.extend(self.propagation.observe(&fetched.origin, fetched.date, updated));
    }

    /// Advances the response clock by the time since the last refresh, at most by one interval.
    fn responded(&mut self) {
        let now = Instant::now();
        self.overloaded = false;
        self.response_clock += now.duration_since(self.last_refresh).min(self.interval);
        self.last_refresh = now;
        if self.refused.is_none() {
            self.recovered();
        }
    }

    /// Records that deltas are not refused any more.
    fn delta_accepted(&mut self) {
        if self.refused.take().is_some() {
            self.recovered();
        }
    }

    fn recovered(&mut self) {
        if let Some(since) = self.failing_since.take() {
            tracing::info!(elapsed = ?since.elapsed(), "refresh recovered");
        }
    }
}
