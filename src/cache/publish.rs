use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::lookup::{Lookup, Sources};
use super::refresher::Refresher;
use super::regions::RegionSplit;
use super::snapshot::Snapshot;
use crate::config::ClientConfig;
use crate::error::{Error, Kind};
use crate::model::Instance;
use crate::sync::{Mutex, MutexGuard};
use crate::transport::Transport;

/// Handle of the consumer's copy. The task that refreshes it ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct RegistryCache {
    published: Arc<Published>,
    /// `None` if fetching is disabled.
    task: Option<AbortHandle>,
}

impl RegistryCache {
    /// Starts the task that refreshes the copy. Must be called on a tokio runtime.
    pub(crate) fn start(transport: Transport, config: &ClientConfig) -> Arc<Self> {
        let regions = Mutex::new(RegionSplit::new(config.regions.clone()));
        let published = Arc::new(Published { regions, ..Published::default() });
        let task = tokio::spawn(refresh_loop(Refresher::new(transport, config), published.clone())).abort_handle();
        Arc::new(Self { published, task: Some(task) })
    }

    /// Creates a copy that stays empty, since this setting disables fetching.
    pub(crate) fn disabled(setting: &str) -> Arc<Self> {
        let published = Arc::new(Published::default());
        let error = Error::new(Kind::Config, "fetch registry").cause(format!("fetching is disabled by {setting}"));
        published.failed(error);
        Arc::new(Self { published, task: None })
    }

    /// Returns `true` until the runtime ends on which the copy was started.
    pub(crate) fn is_running(&self) -> bool {
        self.task.as_ref().is_none_or(|task| !task.is_finished())
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.snapshot.load_full()
    }

    /// Subscribes to the applications of a lookup.
    pub(crate) fn subscribe(&self, lookup: &Lookup) -> watch::Receiver<Sources> {
        let mut topics = self.published.topics();
        topics.retain(|_, topic| topic.receiver_count() > 0);
        let now = || watch::Sender::new(lookup.sources(&self.published.snapshot.load()));
        topics.entry(lookup.clone()).or_insert_with(now).subscribe()
    }

    /// Returns the time of the last successful refresh and the error since then.
    pub(crate) fn freshness(&self) -> Freshness {
        self.published.fetched().clone()
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
async fn refresh_loop(mut refresher: Refresher, published: Arc<Published>) {
    loop {
        let (refreshed, wait) = refresher.next().await;
        match refreshed {
            Ok(snapshot) => published.publish(snapshot),
            Err(error) => published.failed(error),
        }
        sleep(wait).await;
    }
}

/// Results of the refresher.
#[derive(Debug, Default)]
struct Published {
    snapshot: ArcSwap<Snapshot>,
    regions: Mutex<RegionSplit>,
    topics: Mutex<HashMap<Lookup, watch::Sender<Sources>>>,
    fetched: Mutex<Freshness>,
}

/// Time of the last successful refresh, and the error since then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness {
    /// Time of the last successful refresh.
    pub(crate) at: Option<Instant>,
    /// Error of the latest refresh, if it failed.
    pub(crate) error: Option<Arc<Error>>,
}

impl Published {
    fn topics(&self) -> MutexGuard<'_, HashMap<Lookup, watch::Sender<Sources>>> {
        self.topics.lock()
    }

    fn fetched(&self) -> MutexGuard<'_, Freshness> {
        self.fetched.lock()
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
        *self.fetched() = Freshness { at: Some(Instant::now()), error: None };
    }

    fn failed(&self, error: Error) {
        self.fetched().error = Some(Arc::new(error));
    }
}

fn are_same<'a>(sent: impl Iterator<Item = &'a Arc<Instance>>, now: impl Iterator<Item = &'a Arc<Instance>>) -> bool {
    sent.map(Arc::as_ptr).eq(now.map(Arc::as_ptr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lookup_without_subscribers_is_removed_at_the_next_refresh() {
        let published = Arc::<Published>::default();
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let registry = RegistryCache { published: published.clone(), task: Some(task) };
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
