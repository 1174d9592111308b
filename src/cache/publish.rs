use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::refresher::Refresher;
use super::{Lookup, Snapshot, Sources};
use crate::config::ClientConfig;
use crate::error::{Error, Kind};
use crate::model::Instance;
use crate::sync::{Mutex, MutexGuard};
use crate::transport::Transport;

/// The running copy. The task that refreshes it ends with the last handle.
#[derive(Debug)]
pub(crate) struct Registry {
    published: Arc<Published>,
    /// `None` where nothing is fetched.
    task: Option<AbortHandle>,
}

impl Registry {
    /// Starts to refresh. Needs a tokio runtime.
    pub(crate) fn start(transport: Transport, config: &ClientConfig) -> Arc<Self> {
        let published = Arc::new(Published::default());
        let task = tokio::spawn(keep(Refresher::new(transport, config), published.clone())).abort_handle();
        Arc::new(Self { published, task: Some(task) })
    }

    /// One that stays empty, since this setting switches fetching off.
    pub(crate) fn off(setting: &str) -> Arc<Self> {
        let published = Arc::new(Published::default());
        let error = Error::new(Kind::Config, "fetch registry").cause(format!("it is switched off by {setting}"));
        published.failed(error);
        Arc::new(Self { published, task: None })
    }

    /// Returns true while it can refresh: until the runtime ends on which it was started.
    pub(crate) fn is_running(&self) -> bool {
        self.task.as_ref().is_none_or(|task| !task.is_finished())
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.snapshot.load_full()
    }

    /// Follows the applications behind a look-up.
    pub(crate) fn follow(&self, lookup: &Lookup) -> watch::Receiver<Sources> {
        let mut topics = self.published.topics();
        topics.retain(|_, topic| topic.receiver_count() > 0);
        let now = || watch::Sender::new(lookup.sources(&self.published.snapshot.load()));
        topics.entry(lookup.clone()).or_insert_with(now).subscribe()
    }

    /// Age of the copy, and the error since.
    pub(crate) fn freshness(&self) -> Freshness {
        self.published.fetched().clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Publishes what the refresher sees, until it is dropped.
async fn keep(mut refresher: Refresher, published: Arc<Published>) {
    loop {
        let (seen, wait) = refresher.next().await;
        match seen {
            Ok(snapshot) => published.publish(snapshot),
            Err(error) => published.failed(error),
        }
        sleep(wait).await;
    }
}

/// Results of the refresher, for everybody to read.
#[derive(Debug, Default)]
struct Published {
    snapshot: ArcSwap<Snapshot>,
    topics: Mutex<HashMap<Lookup, watch::Sender<Sources>>>,
    fetched: Mutex<Freshness>,
}

/// Time of the last good refresh, and the error since.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness {
    /// The last good refresh.
    pub(crate) at: Option<Instant>,
    /// Error of the last refresh after it.
    pub(crate) error: Option<Arc<Error>>,
}

impl Published {
    fn topics(&self) -> MutexGuard<'_, HashMap<Lookup, watch::Sender<Sources>>> {
        self.topics.lock()
    }

    fn fetched(&self) -> MutexGuard<'_, Freshness> {
        self.fetched.lock()
    }

    /// Swaps the snapshot, then wakes the followers of what changed. In this order: a follower that
    /// comes in between starts from the new snapshot.
    fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(snapshot.clone());
        self.topics().retain(|lookup, topic| {
            topic.send_if_modified(|seen| {
                let now = lookup.sources(&snapshot);
                let same = seen.len() == now.len() && seen.iter().zip(&now).all(|(seen, now)| Arc::ptr_eq(seen, now));
                // An application may have changed in instances that carry another VIP.
                let changed = !same && !are_same(lookup.candidates(seen), lookup.candidates(&now));
                if !same {
                    *seen = now;
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

fn are_same<'a>(seen: impl Iterator<Item = &'a Arc<Instance>>, now: impl Iterator<Item = &'a Arc<Instance>>) -> bool {
    seen.map(Arc::as_ptr).eq(now.map(Arc::as_ptr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_nobody_follows_any_more_leaves_nothing_behind() {
        let published = Arc::<Published>::default();
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let registry = Registry { published: published.clone(), task: Some(task) };
        let lookups = ["A", "B"].map(|name| Lookup::Name(name.into()));
        let kept = registry.follow(&lookups[0]);
        drop([registry.follow(&lookups[0]), registry.follow(&lookups[1])]);
        published.publish(Snapshot::default());
        assert!(published.topics().keys().eq(&lookups[..1]));
        drop(kept);
        drop(registry.follow(&lookups[1]));
        assert!(published.topics().keys().eq(&lookups[1..]));
        published.publish(Snapshot::default());
        assert!(published.topics().is_empty());
    }
}
