use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep};

use super::Snapshot;
use super::continuity::{Continuity, MAX_GAP};
use super::local::LocalRegistry;
use crate::config::ClientConfig;
use crate::error::{Error, Kind};
use crate::model::{Applications, Digest};
use crate::panics::catch_panic;
use crate::sync::offload;
use crate::time::{Backoff, jittered, lengthened, random_part};
use crate::transport::{Fetched, Full, Origin, Transport};

/// Number of deltas in a row that left a difference after which no deltas are requested …
const MISMATCHES_BEFORE_PAUSE: u32 = 3;
/// … for this number of refreshes: some servers with remote regions never agree with themselves.
const FULL_REFRESHES: u32 = 10;
/// Number of such pauses in a row, with digests that differ, after which digests are not used.
const PAUSES_BEFORE_COUNTS: u32 = 2;
/// Number of deltas in a row that a server failed to make after which everything is fetched
/// instead.
const BROKEN_DELTAS: u32 = 2;

/// Long enough for every provider to find a registry that restarted: three of the default
/// heartbeats.
const MIN_HOLD: Duration = Duration::from_secs(90);
/// Longest delay of a full fetch after a delta that left a difference. All clients find the
/// difference within one interval.
const MAX_SPREAD: Duration = Duration::from_secs(10);
/// Time after which the first fetch asks the next server as well.
const STAGGER: Duration = Duration::from_secs(1);

/// Instances of a response that takes as long to compare as [`OFFLOAD_THRESHOLD`](crate::sync::OFFLOAD_THRESHOLD) bytes
/// to decode, about.
const MANY: usize = 250;

/// Fetches a registry again and again.
pub(crate) struct Refresher {
    transport: Transport,
    interval: Duration,
    stagger: Duration,
    delta: bool,
    local: LocalRegistry,
    continuity: Continuity,
    /// `ETag` of the last full response, and the number of changes of the copy then.
    etag: Option<(HeaderValue, u64)>,
    backoff: Backoff,
    /// True once the registry was fetched.
    fetched: bool,
    /// True if the last full response carried a version; without one a server gives no deltas.
    deltas_offered: bool,
    mismatches: u32,
    /// Pauses of deltas in a row whose digests differed.
    digest_pauses: u32,
    /// Server whose digests are not used, since those of its deltas are wrong.
    counts_only: Option<Origin>,
    broken_deltas: u32,
    full_only: u32,
    failing_since: Option<Instant>,
    /// True if the last refresh failed as it does at a server with too much to do.
    overloaded: bool,
    /// End of the last refresh, also of one that failed.
    looked: Instant,
    /// Runs only while the registry responds: the clock of the instances that are held.
    responding: Instant,
}

impl Refresher {
    pub(crate) fn new(transport: Transport, config: &ClientConfig) -> Self {
        let (interval, delta) = (config.fetch_interval, config.delta);
        let now = Instant::now();
        if delta && interval > MAX_GAP {
            tracing::info!(?interval, longest = ?MAX_GAP, "fetch interval is too long for deltas, each fetch may be a full one");
        }
        Self {
            transport: transport.in_background(),
            interval,
            // So that each of three servers is asked before calls give up waiting.
            stagger: STAGGER.min(config.ready_timeout / 3),
            delta,
            local: LocalRegistry::new(MIN_HOLD),
            continuity: Continuity::new(),
            etag: None,
            backoff: Backoff::new(Duration::from_secs(1).min(interval), interval),
            fetched: false,
            deltas_offered: false,
            mismatches: 0,
            digest_pauses: 0,
            counts_only: None,
            broken_deltas: 0,
            full_only: 0,
            failing_since: None,
            overloaded: false,
            looked: now,
            responding: now,
        }
    }

    /// Fetches once. Returns the new snapshot or the error, and the delay before the next fetch.
    ///
    /// Dropped before its end, it may leave an empty registry behind: it must not be called again
    /// then.
    pub(crate) async fn next(&mut self) -> (Result<Snapshot, Error>, Duration) {
        let refreshed = match catch_panic(self.refresh()).await {
            Ok(refreshed) => refreshed,
            Err(panicked) => {
                // Whatever it was about to change is fetched anew.
                (self.local, self.etag) = (LocalRegistry::new(MIN_HOLD), None);
                self.continuity.lost();
                tracing::error!(error = %panicked, "refresh of the registry panicked");
                Err(Error::new(Kind::Call, "fetch registry").cause(panicked.to_string()))
            }
        };
        self.looked = Instant::now();
        match refreshed {
            Ok(()) => {
                self.backoff.reset();
                (Ok(self.local.snapshot()), jittered(self.interval))
            }
            Err(error) => {
                if self.failing_since.is_none() {
                    self.failing_since = Some(Instant::now());
                    tracing::warn!(%error, "registry cannot be fetched, the last copy stays in use");
                }
                let wait = self.delay_after(&error);
                (Err(error), wait)
            }
        }
    }

    /// Retries soon only where that costs no server much: before the first good fetch, and while
    /// there is no connection. A server that responds with an error, or too late, may be
    /// overloaded. If all servers asked for a pause, it is obeyed.
    fn delay_after(&mut self, error: &Error) -> Duration {
        self.overloaded = matches!(error.kind(), Kind::Status(429 | 500..) | Kind::Paused(_) | Kind::Timeout);
        if let Some(pause) = self.transport.pause() {
            return jittered(self.interval).max(lengthened(pause));
        }
        let is_harmless = matches!(error.kind(), Kind::Connect | Kind::Call);
        if is_harmless || !self.fetched { self.backoff.next() } else { jittered(self.interval) }
    }

    /// One refresh: a delta where that is possible, everything where it is not or did not do.
    async fn refresh(&mut self) -> Result<(), Error> {
        if !self.is_delta_useful() || !self.overloaded && self.continuity.takes_insurance() {
            return self.fetch_all().await;
        }
        if self.full_only > 0 {
            self.full_only -= 1;
            return self.fetch_all().await;
        }
        let Some(mut delta) = self.fetch_delta().await? else { return self.fetch_all().await };
        self.responded();
        let origin = delta.origin.clone();
        delta.digest = delta.digest.filter(|_| self.counts_only.as_ref() != Some(&origin));
        let (version, is_exact) = (delta.list.version, self.local.is_exact(delta.digest));
        let continues = is_exact || self.continuity.is_continued_by(&delta.origin, version);
        if continues && self.take(delta.list, delta.digest, LocalRegistry::delta).await {
            self.continuity.continued(delta.origin, version, delta.requested);
            (self.mismatches, self.digest_pauses) = (0, 0);
            return Ok(());
        }
        self.mismatches += 1;
        tracing::debug!(continues, mismatches = self.mismatches, "delta left a difference, fetching everything");
        if self.mismatches >= MISMATCHES_BEFORE_PAUSE {
            tracing::warn!(
                refreshes = FULL_REFRESHES,
                "deltas keep leaving a difference, fetching everything for a while"
            );
            (self.mismatches, self.full_only) = (0, FULL_REFRESHES);
            self.digest_pauses = if is_exact { self.digest_pauses + 1 } else { 0 };
            if self.digest_pauses >= PAUSES_BEFORE_COUNTS {
                tracing::warn!("digests of deltas keep differing, comparing counts instead");
                (self.digest_pauses, self.counts_only) = (0, Some(origin));
            }
        }
        self.fetch_all_later().await
    }

    /// A delta with a digest proves by itself that it continues the copy. Any other delta needs a
    /// recent predecessor. After an overload a delta finds out at little cost whether the server
    /// responds again.
    fn is_delta_useful(&self) -> bool {
        let is_worth_it = self.continuity.is_recent() || self.local.has_digest() || self.overloaded;
        self.delta && self.deltas_offered && !self.local.is_empty() && is_worth_it
    }

    /// The delta. `None` where everything is to be fetched instead: the server gives no deltas, or
    /// cannot make one.
    ///
    /// An overload is an error and no reason to ask for more.
    async fn fetch_delta(&mut self) -> Result<Option<Fetched>, Error> {
        let error = match self.transport.changes().await {
            Ok(delta) => {
                self.broken_deltas = 0;
                return Ok(delta);
            }
            Err(error) => error,
        };
        match error.kind() {
            Kind::Body => Ok(None),
            Kind::Status(429 | 502..=504) => Err(error),
            Kind::Status(500..) => {
                self.broken_deltas += 1;
                if self.broken_deltas < BROKEN_DELTAS {
                    return Err(error);
                }
                tracing::warn!(%error, refreshes = FULL_REFRESHES, "deltas fail, fetching everything for a while");
                (self.broken_deltas, self.full_only) = (0, FULL_REFRESHES);
                Ok(None)
            }
            Kind::Status(_) => Ok(None),
            _ => Err(error),
        }
    }

    /// Fetches everything after a random delay, so that clients that found the same difference
    /// spread.
    async fn fetch_all_later(&mut self) -> Result<(), Error> {
        self.continuity.lost();
        self.etag = None;
        sleep(random_part((self.interval / 3).min(MAX_SPREAD))).await;
        self.fetch_all().await
    }

    async fn fetch_all(&mut self) -> Result<(), Error> {
        let known = self.etag.take().filter(|(_, changes)| *changes == self.local.changes()).map(|(etag, _)| etag);
        let stagger = (!self.fetched).then_some(self.stagger);
        let fetched = match self.transport.full(known.as_ref(), stagger).await? {
            Full::Changed(fetched) => fetched,
            Full::Unchanged(origin, requested) => {
                self.responded();
                self.local.unchanged(self.responding);
                self.continuity.renewed(origin, requested);
                self.etag = known.map(|etag| (etag, self.local.changes()));
                return Ok(());
            }
        };
        let Fetched { list, origin, requested, digest, etag } = fetched;
        let digest = digest.filter(|_| self.counts_only.as_ref() != Some(&origin));
        self.fetched = true;
        self.deltas_offered = list.version.is_some_and(|version| version != -1);
        self.responded();
        let (held, listed) = (self.local.held(), list.len());
        self.take(list, digest, LocalRegistry::full).await;
        self.continuity.renewed(origin, requested);
        // Only a server that sends digests is known to give the same tag to the same list alone.
        self.etag = etag.filter(|_| self.local.has_digest()).map(|etag| (etag, self.local.changes()));
        if self.local.held() > held {
            tracing::warn!(
                listed,
                held = self.local.held(),
                "registry lost most of its instances at once, keeping them for now"
            );
        }
        Ok(())
    }

    /// Compares a response with what is held, a large one on a blocking thread.
    async fn take<T: Send + 'static>(
        &mut self,
        list: Applications,
        digest: Option<Digest>,
        take: fn(&mut LocalRegistry, &Applications, Option<Digest>, Instant) -> T,
    ) -> T {
        let now = self.responding;
        if list.len() < MANY {
            return take(&mut self.local, &list, digest, now);
        }
        let mut local = std::mem::replace(&mut self.local, LocalRegistry::new(MIN_HOLD));
        let (local, taken) = offload(move || {
            let taken = take(&mut local, &list, digest, now);
            // What there is to index is indexed here, too.
            local.snapshot();
            (local, taken)
        })
        .await;
        self.local = local;
        taken
    }

    /// Counts the time since the last look as time in which the registry responded, unless it is
    /// longer than an interval.
    fn responded(&mut self) {
        let now = Instant::now();
        self.overloaded = false;
        self.responding += now.duration_since(self.looked).min(self.interval);
        self.looked = now;
        if let Some(since) = self.failing_since.take() {
            tracing::info!(elapsed = ?since.elapsed(), "registry responds again");
        }
    }
}
