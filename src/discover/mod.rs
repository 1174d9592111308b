//! The instances of an application or VIP address as a [`tower::discover::Discover`] stream.
//!
//! ```text
//!  cache ─ applications that changed ─▶ EurekaDiscover ─ Insert, Remove ─▶ balancer
//!                                           ▲      └ Explainer ─▶ Explanation (no instance to call)
//!                          Selection: name, statuses, filter
//! ```
//!
//! A [`Selection`] chooses instances, [`EurekaDiscover`] streams their changes, and an
//! [`Explanation`] reports why none of them can be called.

mod explanation;
mod selection;

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tower::discover::Change;

pub use explanation::{Candidate, Explainer, Explanation, Finding, Reason};
pub use selection::Selection;

use crate::cache::{RegistryCache, Sources};
use crate::model::{Instance, InstanceChange};

/// Stream of the changes to the instances of a [`Selection`], as inserts and removes.
///
/// It implements [`Discover`](tower::discover::Discover), so [`Balance`](crate::balance::Balance)
/// and tower's own balancer take it. Created by [`Eureka::discover`](crate::Eureka::discover).
///
/// The stream begins with the instances that are already known. It never fails and never ends, and
/// it wakes its task only when an instance under the name of the selection changes. A slow reader
/// gets the latest state and not each intermediate one.
///
/// The key is the id of the instance, which is unique within an application. If the application of
/// the instance has another name than the selection, the key is `APPLICATION/id`.
///
/// An instance is inserted again when its address or details change and when it restarts. Renewed
/// leases and new timestamps are not reported. Pass the instance that was inserted before to
/// [`Instance::change_since`] to learn the kind of change.
///
/// ```no_run
/// # async fn example() -> Result<(), tower_eureka::Error> {
/// use tokio_stream::StreamExt;
///
/// let eureka = tower_eureka::Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
/// let mut orders = eureka.discover("orders")?;
/// while let Some(Ok(change)) = orders.next().await {
///     println!("{change:?}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct EurekaDiscover {
    selection: Selection,
    /// Applications of each look-up of the selection.
    sources: Vec<Sources>,
    /// Changes of each of these.
    updates: Vec<WatchStream<Sources>>,
    inserted: HashMap<Arc<str>, Arc<Instance>>,
    changes: VecDeque<Change<Arc<str>, Arc<Instance>>>,
    /// Keeps the refresh loop running.
    registry: Arc<RegistryCache>,
}

impl EurekaDiscover {
    pub(crate) fn new(registry: Arc<RegistryCache>, selection: impl Into<Selection>) -> Self {
        let selection = selection.into();
        let (sources, updates) = subscribe(&registry, &selection);
        Self { selection, sources, updates, inserted: HashMap::new(), changes: VecDeque::new(), registry }
    }

    /// Replaces the selection. Instances that the new one selects as well are not reported again.
    pub(crate) fn select(&mut self, selection: Selection) {
        (self.sources, self.updates) = subscribe(&self.registry, &selection);
        self.selection = selection;
    }

    /// Returns the selection whose instances the stream reports.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Explains why the selection has no instance to call at present.
    pub fn explain(&self) -> Explanation {
        Explanation::of(&self.selection, &self.registry)
    }

    /// Returns a handle that explains the selection after the stream itself was moved into a
    /// balancer.
    pub fn explainer(&self) -> Explainer {
        Explainer { selection: self.selection.clone(), registry: self.registry.clone() }
    }

    /// Queues the changes from the inserted instances to the present state. Inserts come first, so
    /// that a reader that stops in between still has instances to call.
    fn queue_changes(&mut self) {
        let Self { selection, sources, inserted, changes, .. } = self;
        let mut present = HashSet::new();
        for instance in selection.matching(sources) {
            let key = selection.key(instance);
            let known = inserted.get(&*key);
            let change = known.map(|known| instance.change_since(known));
            if change != Some(InstanceChange::None) {
                let is_newer = |known: &Arc<Instance>| instance.last_dirty_timestamp > known.last_dirty_timestamp;
                let is_other_process = match change {
                    Some(InstanceChange::Restarted) => true,
                    // A newer registration at another address, which hides a restart.
                    Some(InstanceChange::Address) => known.is_some_and(is_newer),
                    _ => false,
                };
                let generation = known.map_or(0, |known| known.generation) + u32::from(is_other_process);
                let instance = with_generation(instance, generation);
                let key = Arc::<str>::from(&*key);
                inserted.insert(key.clone(), instance.clone());
                changes.push_back(Change::Insert(key, instance));
            }
            present.insert(key);
        }
        inserted.retain(|key, _| {
            let stays = present.contains(&**key);
            if !stays {
                changes.push_back(Change::Remove(key.clone()));
            }
            stays
        });
    }
}

/// Subscribes to each look-up of a selection. The first items are the present ones.
fn subscribe(registry: &RegistryCache, selection: &Selection) -> (Vec<Sources>, Vec<WatchStream<Sources>>) {
    let subscribe = |lookup| (Sources::default(), WatchStream::new(registry.subscribe(lookup)));
    selection.lookups().iter().map(subscribe).unzip()
}

impl Selection {
    /// Waits until a fetched registry has no instance of the selection, in any status.
    pub(crate) async fn wait_until_unknown(&self, registry: &RegistryCache) {
        let mut refreshes = registry.watch_progress();
        while registry.freshness_of(self.lookups()).0.is_none()
            || !self.named(&self.sources(&registry.snapshot())).is_empty()
        {
            if refreshes.changed().await.is_err() {
                // Nothing is fetched any more.
                std::future::pending().await
            }
        }
    }
}

/// Returns the instance with this generation. It stays shared with the snapshot until its first
/// restart.
fn with_generation(instance: &Arc<Instance>, generation: u32) -> Arc<Instance> {
    if generation == instance.generation {
        instance.clone()
    } else {
        Arc::new(Instance { generation, ..Instance::clone(instance) })
    }
}

impl Stream for EurekaDiscover {
    type Item = Result<Change<Arc<str>, Arc<Instance>>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            let mut has_changed = false;
            let Self { sources, updates, .. } = &mut *self;
            for (sources, updates) in sources.iter_mut().zip(updates) {
                // It never ends, since `registry` owns the sending side.
                if let Poll::Ready(Some(now)) = Pin::new(updates).poll_next(cx) {
                    (*sources, has_changed) = (now, true);
                }
            }
            if !has_changed {
                return Poll::Pending;
            }
            self.queue_changes();
        }
    }
}

impl fmt::Debug for EurekaDiscover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaDiscover")
            .field("selection", &self.selection)
            .field("instances", &self.inserted.len())
            .finish_non_exhaustive()
    }
}
