use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use super::changed::changed;
use super::progress::Progress;
use super::publish::RegistryCache;
use super::snapshot::Snapshot;
use crate::error::Error;
use crate::model::{Application, Instance, InstanceChange};
use crate::untrusted::Quoted;

/// Event of the consumer's copy of the registry. Returned by
/// [`Eureka::events`](crate::Eureka::events).
///
/// Prints as a line: `changed ORDERS orders-1 UP -> DOWN`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// An instance appeared.
    Added(Arc<Instance>),
    /// An instance changed. Renewed leases and new timestamps are no changes.
    Changed {
        /// The instance as it was before.
        before: Arc<Instance>,
        /// The instance as it is now.
        now: Arc<Instance>,
        /// Kind of the change.
        change: InstanceChange,
    },
    /// An instance disappeared.
    Removed(Arc<Instance>),
    /// A refresh succeeded. Its changes were reported before, and there may be none.
    Refreshed(Arc<Snapshot>),
    /// A refresh failed. The copy remains as it was.
    RefreshFailed(Arc<Error>),
}

/// Stream of the events of all applications. Created by [`Eureka::events`](crate::Eureka::events).
///
/// It begins with the registry as it is: an [`Added`](RegistryEvent::Added) for each instance, then
/// a [`Refreshed`](RegistryEvent::Refreshed). Before the first fetch, instances of the registry
/// file and static ones are added without a `Refreshed`. Nothing is queued for a slow reader. It
/// receives the difference between the state that it has and the present one, followed by one event
/// for all refreshes in between.
///
/// The events concern the own region. [`Snapshot::region`] has the instances of remote ones.
///
/// The stream keeps the refresh running. It ends when the client is
/// [closed](crate::Eureka::close) or its runtime ends.
pub struct RegistryEvents {
    progress: WatchStream<Progress>,
    /// State that the reader has.
    snapshot: Arc<Snapshot>,
    succeeded: u64,
    failed: u64,
    /// Events of the latest difference.
    events: VecDeque<RegistryEvent>,
    registry: Arc<RegistryCache>,
}

impl RegistryEvents {
    pub(crate) fn new(registry: Arc<RegistryCache>) -> Self {
        let progress = WatchStream::new(registry.watch_progress());
        Self { progress, snapshot: Arc::default(), succeeded: 0, failed: 0, events: VecDeque::new(), registry }
    }

    /// Queues the events since the state that the reader has.
    fn advance(&mut self, progress: &Progress) {
        let (counts, snapshot) = (progress.counts, self.registry.snapshot());
        // Instances from the registry file, static ones and new names are there without a success.
        if !Arc::ptr_eq(&self.snapshot, &snapshot) {
            let before = std::mem::replace(&mut self.snapshot, snapshot.clone());
            for (_, before, now) in changed(&before.applications, &snapshot.applications) {
                self.compare(before, now, &snapshot);
            }
        }
        if counts.succeeded > self.succeeded {
            self.events.push_back(RegistryEvent::Refreshed(snapshot));
        }
        if counts.failed > self.failed
            && let Some(error) = &progress.error
        {
            self.events.push_back(RegistryEvent::RefreshFailed(error.clone()));
        }
        (self.succeeded, self.failed) = (counts.succeeded, counts.failed);
    }

    /// Queues the differences of one application. Removals come last, so that a reader that stops
    /// in between still has instances.
    ///
    /// Instances of a name that is not fetched any more have not disappeared.
    fn compare(&mut self, before: Option<&Application>, now: Option<&Application>, snapshot: &Snapshot) {
        let instances = |state: Option<&Application>| state.map_or_else(Vec::new, |app| app.instances.clone());
        let mut known: HashMap<Arc<str>, Arc<Instance>> =
            instances(before).into_iter().map(|instance| (instance.id().into(), instance)).collect();
        for now in instances(now) {
            match known.remove(now.id()) {
                None => self.events.push_back(RegistryEvent::Added(now)),
                Some(before) => {
                    let change = now.change_since(&before);
                    if change != InstanceChange::None {
                        self.events.push_back(RegistryEvent::Changed { before, now, change });
                    }
                }
            }
        }
        // In the order of the list, and not in that of the map.
        let gone = instances(before).into_iter().filter(|instance| known.contains_key(instance.id()));
        let gone = gone.filter(|instance| snapshot.covers(instance));
        self.events.extend(gone.map(RegistryEvent::Removed));
    }
}

impl Stream for RegistryEvents {
    type Item = RegistryEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RegistryEvent>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            match ready!(Pin::new(&mut self.progress).poll_next(cx)) {
                Some(progress) => self.advance(&progress),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for RegistryEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryEvents").field("queued", &self.events.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for RegistryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |instance: &Instance| format!("{} {}", Quoted(instance.app()), Quoted(instance.id()));
        match self {
            Self::Added(instance) => write!(f, "added {} {}", name(instance), instance.status()),
            Self::Changed { before, now, change } => {
                write!(f, "changed {} {}", name(now), before.status())?;
                if now.status() != before.status() {
                    write!(f, " -> {}", now.status())?;
                }
                match change {
                    InstanceChange::Restarted => f.write_str(", restarted"),
                    InstanceChange::Address => f.write_str(", new address"),
                    InstanceChange::None | InstanceChange::Details => Ok(()),
                }
            }
            Self::Removed(instance) => write!(f, "removed {}", name(instance)),
            Self::Refreshed(snapshot) => {
                let applications = snapshot.applications().count();
                write!(f, "refreshed: {} instances of {applications} applications", snapshot.instance_count())
            }
            Self::RefreshFailed(error) => write!(f, "refresh failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;
    use crate::config::{ClientConfig, OfflineConfig};
    use crate::error::Kind;

    #[tokio::test]
    async fn instances_that_were_never_fetched_are_added_without_a_refresh() {
        let instance = Instance { instance_id: Some("a".into()), ..Instance::bare("ORDERS".into()) };
        let application = Application { name: "ORDERS".into(), instances: vec![Arc::new(instance)] };
        let offline = OfflineConfig { instances: vec![Arc::new(application)], ..OfflineConfig::default() };
        let config = ClientConfig { offline, ..ClientConfig::default() };
        let registry = RegistryCache::without_fetches(Error::new(Kind::Config, "test"), &config);
        let events: Vec<_> = RegistryEvents::new(registry).map(|event| event.to_string()).collect().await;
        assert_eq!(events, ["added ORDERS a UP"]);
    }
}
