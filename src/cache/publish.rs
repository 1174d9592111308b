use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::fetcher::{Fetcher, interests};
use super::file::RegistryFile;
use super::interest::{IDLE, Interests};
use super::local_copy::LocalCopy;
use super::lookup::{Lookup, Sources};
use super::progress::Progress;
use super::regions::RegionSplit;
use super::snapshot::Snapshot;
use super::source::RegistrySource;
use super::tally::Tally;
use crate::config::ClientConfig;
use crate::error::{Error, Kind};
use crate::metrics::RegistryMetrics;
use crate::model::{Instance, InstanceStatus, StatusCounts};
use crate::sync::{Mutex, MutexGuard};
use crate::time::{Moment, add_capped};
use crate::transport::Transport;

/// Longest time between two looks at the wall clock, which shows a suspension of the machine.
const TICK: Duration = Duration::from_secs(5);

/// Handle of the consumer's copy. The task that refreshes it ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct RegistryCache {
    published: Arc<Published>,
    /// The task has the sender, so that receivers notice its end.
    progress: watch::Receiver<Progress>,
    /// `None` if nothing is ever fetched.
    task: Option<AbortHandle>,
    file: Option<Arc<RegistryFile>>,
    /// Names in use. `None` if the whole registry is fetched.
    interests: Option<Arc<Interests>>,
    is_closed: AtomicBool,
}

impl RegistryCache {
    /// Starts the task that refreshes the copy. Must be called on a tokio runtime.
    pub(crate) fn start(transport: Transport, config: &ClientConfig) -> Arc<Self> {
        let regions = Mutex::new(RegionSplit::new(config.regions.clone()));
        let published = Arc::new(Published { regions, ..Published::default() });
        let interests = interests(&config.interest);
        let fetcher = Fetcher::new(transport, config, interests.as_ref());
        let mut first = Progress::new();
        published.publish_static(config, &mut first);
        let (sender, progress) = watch::channel(first);
        let file = RegistryFile::of(config);
        let interval = config.fetch_interval;
        let refreshed = refresh_loop(fetcher, published.clone(), sender, file.clone(), (interests.clone(), interval));
        let task = Some(tokio::spawn(refreshed).abort_handle());
        Arc::new(Self { published, progress, task, file, interests, is_closed: AtomicBool::new(false) })
    }

    /// Creates a copy that has static instances only, for this reason.
    pub(crate) fn without_fetches(reason: Error, config: &ClientConfig) -> Arc<Self> {
        let published = Arc::new(Published::default());
        let mut progress = Progress { error: Some(Arc::new(reason)), ..Progress::new() };
        published.publish_static(config, &mut progress);
        let (_, progress) = watch::channel(progress);
        let is_closed = AtomicBool::new(false);
        Arc::new(Self { published, progress, task: None, file: None, interests: None, is_closed })
    }

    /// Returns `true` until the runtime ends on which the copy was started.
    pub(crate) fn is_running(&self) -> bool {
        self.task.as_ref().is_none_or(|task| !task.is_finished())
    }

    /// Returns `true` if the copy is never fetched.
    pub(super) fn is_disabled(&self) -> bool {
        self.task.is_none()
    }

    /// Ends the refresh for good. The last snapshot remains.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        if let Some(task) = &self.task {
            task.abort();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.snapshot.load_full()
    }

    /// Subscribes to the applications of a lookup.
    pub(crate) fn subscribe(&self, lookup: &Lookup) -> watch::Receiver<Sources> {
        self.record_use(lookup);
        let mut topics = self.published.topics();
        topics.retain(|_, topic| topic.receiver_count() > 0);
        let now = || watch::Sender::new(lookup.sources(&self.published.snapshot.load()));
        topics.entry(lookup.clone()).or_insert_with(now).subscribe()
    }

    /// Records the use of a name without a subscription. It matters if only the names in use are
    /// fetched.
    pub(crate) fn record_use(&self, lookup: &Lookup) {
        if let Some(interests) = &self.interests {
            interests.record_use(lookup);
        }
    }

    /// Keeps a name in use.
    pub(crate) fn keep(&self, lookup: &Lookup) {
        if let Some(interests) = &self.interests {
            interests.keep(lookup);
        }
    }

    /// Returns the time of the oldest response for these names, and an error since then.
    pub(crate) fn freshness_of(&self, lookups: &[Lookup]) -> (Option<Moment>, Option<Arc<Error>>) {
        match &self.interests {
            Some(interests) => interests.freshness(lookups),
            None => {
                let progress = self.progress.borrow();
                (progress.at, progress.error.clone())
            }
        }
    }

    /// Sets a function that is called before each refresh with the time after which names are
    /// dropped. It ends the subscriptions of names that were not called for this time.
    pub(crate) fn on_idle(&self, drop_idle: impl Fn(Duration) + Send + Sync + 'static) {
        if self.interests.is_some() {
            *self.published.drop_idle.lock() = Some(Box::new(drop_idle));
        }
    }

    /// Returns the state after the latest refresh.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Returns a receiver of the state after each refresh. Its sender ends with the refresh.
    pub(crate) fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until a refresh has succeeded.
    ///
    /// # Errors
    /// If none can succeed any more, or the client was closed.
    pub(crate) async fn loaded(&self) -> Result<Arc<Snapshot>, Error> {
        if self.is_closed() {
            return Err(self.ended());
        }
        let mut progress = self.watch_progress();
        match progress.wait_for(|progress| progress.at.is_some()).await.map(drop) {
            Ok(()) => Ok(self.snapshot()),
            Err(_) => Err(self.ended()),
        }
    }

    /// Refreshes now, after a refresh that is under way. Concurrent calls share one refresh.
    pub(crate) async fn refresh(&self) -> Result<Arc<Snapshot>, Error> {
        let mut number = 0;
        let mut progress = self.watch_progress();
        self.published.requested.send_modify(|requested| {
            *requested += 1;
            number = *requested;
        });
        let refreshed = progress.wait_for(|progress| progress.completed >= number).await;
        match refreshed.map(|progress| progress.error.as_ref().map(|error| error.without_source())) {
            Ok(None) => Ok(self.snapshot()),
            Ok(Some(error)) => Err(error),
            Err(_) => Err(self.ended()),
        }
    }

    /// Waits until the refresh has ended for good.
    pub(crate) async fn wait_for_end(&self) {
        // The error is the end.
        let _ = self.watch_progress().wait_for(|_| false).await;
    }

    /// Returns the reason why nothing is fetched any more.
    pub(crate) fn ended(&self) -> Error {
        let error = Error::new(Kind::Closed, "fetch registry");
        if self.is_closed() {
            return error.cause("the client was closed");
        }
        match self.progress.borrow().error.as_ref().filter(|_| self.is_disabled()) {
            Some(error) => error.without_source(),
            None => error.cause("the runtime on which it was started has ended"),
        }
    }

    /// Saves the registry file, if there is one, within three seconds.
    pub(crate) async fn save(&self) {
        if let Some(file) = &self.file {
            file.close().await;
        }
    }
}

impl Drop for RegistryCache {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Publishes the results of the refresher until the task is aborted.
async fn refresh_loop(
    mut fetcher: Fetcher,
    published: Arc<Published>,
    progress: watch::Sender<Progress>,
    file: Option<Arc<RegistryFile>>,
    (interests, interval): (Option<Arc<Interests>>, Duration),
) {
    if let Some(file) = &file
        && let Some(restored) = file.restore().await
    {
        published.publish(fetcher.restore(restored.list).await);
        progress.send_modify(|progress| progress.source = RegistrySource::File);
    }
    let (metrics, mut tally) = (RegistryMetrics::default(), Tally::default());
    if progress.borrow().source != RegistrySource::None {
        write_size(&metrics, tally.count(&published.snapshot), 0);
    }
    metrics.stale(progress.borrow().source == RegistrySource::File);
    let age = || progress.borrow().age();
    tokio::select! {
        () = metrics.report_age(age) => {}
        () = async {
            let mut requested = published.requested.subscribe();
            loop {
                if requested.has_changed().unwrap_or(false) {
                    fetcher.hurry();
                }
                let number = *requested.borrow_and_update();
                if let Some(interests) = &interests {
                    interests.drop_idle(published.subscribed());
                }
                let (refreshed, wait) = fetcher.next(&|snapshot| published.publish(snapshot)).await;
                // A list without any instance is never saved.
                let is_saved = fetcher.lists_any() && fetcher.has_asked();
                if let (Some(file), Ok(snapshot), true) = (&file, &refreshed, is_saved) {
                    file.fetched(Arc::new(snapshot.clone()));
                }
                let refreshed = refreshed.map(|snapshot| published.publish(snapshot));
                let mut now = progress.borrow().clone();
                now.completed = number;
                if fetcher.has_asked() {
                    record(&mut now, &fetcher, refreshed);
                    write(&metrics, &now, &fetcher);
                    // Counted even if it is not written, so that no older snapshot is kept.
                    let counts = tally.count(&published.snapshot);
                    if now.error.is_none() {
                        write_size(&metrics, counts, now.held);
                    }
                } else {
                    now.interest = fetcher.interest();
                }
                progress.send_replace(now);
                tokio::select! {
                    suspended = wait_or_resume(wait, interval / 2) => if let Some(skipped) = suspended {
                        tracing::info!(?skipped, "machine was suspended or its clock set, refreshing");
                        fetcher.hurry();
                    },
                    // The sender lives as long as `published`.
                    _ = requested.changed() => fetcher.hurry(),
                    () = fetcher.fresh() => {}
                }
            }
        } => {}
    }
}

/// Waits for this time, or until the wall clock has advanced by more than `limit` beside tokio's
/// clock, as after a suspension of the machine. Returns the time by which it did.
async fn wait_or_resume(wait: Duration, limit: Duration) -> Option<Duration> {
    let (began, until) = (Moment::now(), add_capped(Instant::now(), wait));
    loop {
        sleep_until(until.min(Instant::now() + TICK)).await;
        let skipped = began.skipped();
        if skipped > limit {
            return Some(skipped);
        }
        if Instant::now() >= until {
            return None;
        }
    }
}

/// Adds the result of a refresh to the progress.
fn record(progress: &mut Progress, fetcher: &Fetcher, refreshed: Result<(), Error>) {
    let report = fetcher.report();
    progress.counts.add(report);
    progress.lag = report.lags.last().copied().or(progress.lag);
    (progress.deltas, progress.held, progress.interest) = (fetcher.deltas(), fetcher.held(), fetcher.interest());
    match refreshed {
        Ok(()) => {
            progress.succeeded();
            progress.error = fetcher.partial_error().map(|error| Arc::new(error.without_source()));
        }
        Err(error) => progress.failed(error),
    }
}

/// Writes the metrics of a refresh.
fn write(metrics: &RegistryMetrics, progress: &Progress, fetcher: &Fetcher) {
    let report = fetcher.report();
    for fetch in &report.fetches {
        metrics.fetched(fetch.outcome.as_str(), fetch.server.as_deref(), fetch.elapsed, fetch.received);
    }
    metrics.mismatched(report.mismatches);
    report.lags.iter().for_each(|lag| metrics.propagated(*lag));
    metrics.age(progress.age());
    metrics.stale(progress.error.is_some());
}

/// Writes the metrics of the size of the copy.
fn write_size(metrics: &RegistryMetrics, (applications, counts): (usize, StatusCounts), held: usize) {
    let by_status = InstanceStatus::ALL.map(|status| (status.as_str(), counts.of(status)));
    metrics.registry(applications, by_status, held);
}

/// Results of the refresher.
#[derive(Default)]
struct Published {
    snapshot: ArcSwap<Snapshot>,
    regions: Mutex<RegionSplit>,
    topics: Mutex<HashMap<Lookup, watch::Sender<Sources>>>,
    /// Number of refreshes that were asked for.
    requested: watch::Sender<u64>,
    drop_idle: Mutex<Option<DropIdle>>,
}

/// Ends the subscriptions of names that were not called for some time.
type DropIdle = Box<dyn Fn(Duration) + Send + Sync>;

impl Published {
    /// Publishes the static instances, if there are any.
    fn publish_static(&self, config: &ClientConfig, progress: &mut Progress) {
        if !config.offline.instances.is_empty() {
            self.publish(LocalCopy::new(&config.offline).snapshot());
            progress.source = RegistrySource::Static;
        }
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Lookup, watch::Sender<Sources>>> {
        self.topics.lock()
    }

    /// Returns the names with a subscription, after those that are not called any more were ended.
    fn subscribed(&self) -> Vec<Lookup> {
        if let Some(drop_idle) = &*self.drop_idle.lock() {
            drop_idle(IDLE);
        }
        let topics = self.topics();
        topics.iter().filter(|(_, topic)| topic.receiver_count() > 0).map(|(lookup, _)| lookup.clone()).collect()
    }

    /// Stores the snapshot and wakes the subscribers of changed applications.
    ///
    /// The snapshot is stored first, so that a subscriber that arrives in between starts with it.
    fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(self.regions.lock().split(snapshot));
        self.snapshot.store(snapshot.clone());
        self.topics().retain(|lookup, topic| {
            topic.send_if_modified(|sent| {
                let now = lookup.sources(&snapshot);
                let same = sent.are_same(&now);
                // A change of an application may concern only instances with other VIP addresses.
                let changed = !same && !are_same(lookup.candidates(sent), lookup.candidates(&now));
                if !same {
                    *sent = now;
                }
                changed
            });
            topic.receiver_count() > 0
        });
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("names", &self.topics().len()).finish_non_exhaustive()
    }
}

fn are_same<'a>(sent: impl Iterator<Item = &'a Arc<Instance>>, now: impl Iterator<Item = &'a Arc<Instance>>) -> bool {
    sent.map(Arc::as_ptr).eq(now.map(Arc::as_ptr))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::AtomicUsize;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use tokio::time::sleep;
    use tower::service_fn;

    use super::*;
    use crate::config::Interest;
    use crate::time::move_wall_clock;
    use crate::transport::RequestBody;

    #[tokio::test(start_paused = true)]
    async fn registry_is_refreshed_soon_after_a_suspension() {
        for interest in [Interest::All, Interest::Used] {
            let asked = Arc::new(AtomicUsize::new(0));
            let counted = asked.clone();
            let service = service_fn(move |_: Request<RequestBody>| {
                counted.fetch_add(1, Ordering::Relaxed);
                let list = r#"{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}"#;
                async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(list))) }
            });
            let client = crate::Eureka::builder().service_url("http://registry/eureka").interest(interest.clone());
            let client = client.fetch_interval(Duration::from_secs(600)).http_service(service).build().unwrap();
            client.ready().await.unwrap();
            sleep(Duration::from_secs(60)).await;
            let before = asked.load(Ordering::Relaxed);
            move_wall_clock(200_000);
            sleep(Duration::from_secs(6)).await;
            assert_eq!(asked.load(Ordering::Relaxed), before, "{interest:?}: the clock was set");
            move_wall_clock(3_600_000);
            sleep(Duration::from_secs(6)).await;
            assert_eq!(asked.load(Ordering::Relaxed), before + 1, "{interest:?}");
            sleep(Duration::from_secs(60)).await;
            assert_eq!(asked.load(Ordering::Relaxed), before + 1, "{interest:?}");
        }
    }

    #[tokio::test]
    async fn lookup_without_subscribers_is_removed_at_the_next_refresh() {
        let registry = RegistryCache::without_fetches(Error::new(Kind::Config, "test"), &ClientConfig::default());
        let published = &registry.published;
        let lookups = ["A", "B"].map(|name| Lookup::Name(name.into()));
        let kept = registry.subscribe(&lookups[0]);
        drop([registry.subscribe(&lookups[0]), registry.subscribe(&lookups[1])]);
        published.publish(Snapshot::default());
        assert!(published.topics().keys().eq(&lookups[..1]));
        drop(kept);
        drop(registry.subscribe(&lookups[1]));
        assert!(published.topics().keys().eq(&lookups[1..]));
        published.publish(Snapshot::default());
        assert!(published.topics().is_empty());
    }
}
