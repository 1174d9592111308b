use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Snapshot;
use super::local::LocalRegistry;
use crate::blocking::blocking;
use crate::config::ClientConfig;
use crate::error::{Error, Kind};
use crate::model::Applications;
use crate::timer::{Backoff, jittered};
use crate::transport::Transport;

/// After so many deltas in a row that left a difference, deltas are not asked for …
const MISMATCHES_BEFORE_PAUSE: u32 = 3;
/// … for so many refreshes: some servers with remote regions never agree with themselves (`protocol` 6.1).
const FULL_REFRESHES: u32 = 10;

/// Long enough for every provider to find a registry that restarted: three of the default heartbeats.
const MIN_HOLD: Duration = Duration::from_secs(90);

/// Instances of an answer that takes as long to compare as [`LARGE`](crate::blocking::LARGE) bytes to decode, about.
const MANY: usize = 250;

/// Fetches a registry again and again.
pub(crate) struct Refresher {
    transport: Transport,
    interval: Duration,
    delta: bool,
    local: LocalRegistry,
    backoff: Backoff,
    /// Whether a full answer came and carried a version; without one a server gives no deltas.
    deltas_offered: bool,
    mismatches: u32,
    full_only: u32,
    failing_since: Option<Instant>,
}

impl Refresher {
    pub(crate) fn new(transport: Transport, config: &ClientConfig) -> Self {
        let (interval, delta) = (config.fetch_interval, config.delta);
        Self {
            transport,
            interval,
            delta,
            local: LocalRegistry::new(MIN_HOLD),
            backoff: Backoff::new(Duration::from_secs(1).min(interval), interval),
            deltas_offered: false,
            mismatches: 0,
            full_only: 0,
            failing_since: None,
        }
    }

    /// Looks once. What there is then, or why that is not known, and how long to wait for the next look.
    ///
    /// Dropped before its end, it may leave an empty registry behind: not to be asked again then.
    pub(crate) async fn next(&mut self) -> (Result<Snapshot, Error>, Duration) {
        match self.refresh().await {
            Ok(()) => {
                self.backoff.reset();
                (Ok(self.local.snapshot()), jittered(self.interval))
            }
            Err(error) => {
                if self.failing_since.is_none() {
                    self.failing_since = Some(Instant::now());
                    tracing::warn!(%error, "registry cannot be fetched, the last copy stays in use");
                }
                (Err(error), self.backoff.next())
            }
        }
    }

    /// One refresh: a delta where that is possible, everything where it is not or did not do.
    async fn refresh(&mut self) -> Result<(), Error> {
        if !self.delta || !self.deltas_offered || self.local.is_empty() {
            return self.fetch_all().await;
        }
        if self.full_only > 0 {
            self.full_only -= 1;
            return self.fetch_all().await;
        }
        let delta = match self.transport.delta().await {
            Ok(Some(delta)) => delta,
            // A server that answers, though not with a delta, may still have the whole.
            Ok(None) => return self.fetch_all().await,
            Err(error) if matches!(error.kind(), Kind::Status(_) | Kind::Body) => return self.fetch_all().await,
            Err(error) => return Err(error),
        };
        self.answered();
        if self.take(delta, LocalRegistry::delta).await {
            self.mismatches = 0;
            return Ok(());
        }
        self.mismatches += 1;
        tracing::debug!(mismatches = self.mismatches, "delta left a difference, fetching everything");
        if self.mismatches >= MISMATCHES_BEFORE_PAUSE {
            tracing::warn!(
                refreshes = FULL_REFRESHES,
                "deltas keep leaving a difference, fetching everything for a while"
            );
            (self.mismatches, self.full_only) = (0, FULL_REFRESHES);
        }
        // All clients see the same mismatch at about the same time; they should not all come back at once.
        sleep(jittered((self.interval / 20).min(Duration::from_secs(1)))).await;
        self.fetch_all().await
    }

    async fn fetch_all(&mut self) -> Result<(), Error> {
        let answer: Applications = self.transport.applications().await?;
        self.deltas_offered = answer.version.is_some_and(|version| version != -1);
        self.answered();
        let (held, listed) = (self.local.held(), answer.len());
        self.take(answer, LocalRegistry::full).await;
        if self.local.held() > held {
            tracing::warn!(
                listed,
                held = self.local.held(),
                "registry lost most of its instances at once, keeping them for now"
            );
        }
        Ok(())
    }

    /// Compares an answer with what is held, a large one where nobody waits.
    async fn take<T: Send + 'static>(
        &mut self,
        answer: Applications,
        take: fn(&mut LocalRegistry, &Applications, Instant) -> T,
    ) -> T {
        let now = Instant::now();
        if answer.len() < MANY {
            return take(&mut self.local, &answer, now);
        }
        let mut local = std::mem::replace(&mut self.local, LocalRegistry::new(MIN_HOLD));
        let (local, taken) = blocking(move || {
            let taken = take(&mut local, &answer, now);
            // What there is to index is indexed here, too.
            local.snapshot();
            (local, taken)
        })
        .await;
        self.local = local;
        taken
    }

    fn answered(&mut self) {
        if let Some(since) = self.failing_since.take() {
            tracing::info!(elapsed = ?since.elapsed(), "registry answers again");
            self.local.resume(Instant::now());
        }
    }
}
