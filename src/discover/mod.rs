//! The instances behind a name as a [`tower::discover::Discover`] stream.
//!
//! ```text
//!  registry ─ applications that changed ─▶ EurekaDiscover ─ Insert, Remove ─▶ a balancer
//!                                              ▲      └ Explainer ─▶ why there is nobody to call
//!                             Selection: look-up, statuses, filter
//! ```
//!
//! A [`Selection`] says whose instances are meant, [`EurekaDiscover`] follows them, and an [`Explanation`] tells why there are none.

mod explanation;
mod selection;

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tower::discover::Change;

pub use explanation::{Candidate, Explainer, Explanation, Finding, Reason};
pub use selection::Selection;

use crate::cache::{Registry, Sources};
use crate::model::{Instance, InstanceChange};

/// Follows the instances of a [`Selection`]: an insert for each that comes, a remove for each that goes.
///
/// A real [`Discover`](tower::discover::Discover): what tower's balancer takes, and ours. It never errs and never ends, starts
/// with what is known, and wakes only when the instances behind its name change. A reader that lags sees the newest state, not
/// every step to it. Made by [`Eureka::discover`](crate::Eureka::discover).
///
/// The key is the instance's id, unique within an application; of an instance whose application has another name than the one
/// looked up, it is `APPLICATION/id`.
///
/// An instance is inserted again if something changed that matters to a connection or a choice, and if it restarted;
/// [`Instance::change_since`] tells which, from the instance that was inserted before. Renewed leases and new timestamps are no
/// event.
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
    states: WatchStream<Sources>,
    inserted: HashMap<Arc<str>, Arc<Instance>>,
    changes: VecDeque<Change<Arc<str>, Arc<Instance>>>,
    /// Keeps the registry refreshed as long as somebody follows it.
    registry: Arc<Registry>,
}

impl EurekaDiscover {
    pub(crate) fn new(registry: Arc<Registry>, selection: impl Into<Selection>) -> Self {
        let selection = selection.into();
        let states = WatchStream::new(registry.follow(selection.lookup()));
        Self { selection, states, inserted: HashMap::new(), changes: VecDeque::new(), registry }
    }

    /// What it follows.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Why there is no instance to call, now.
    pub fn explain(&self) -> Explanation {
        Explanation::of(&self.selection, &self.registry)
    }

    /// What explains so later, when the stream itself has gone into a balancer.
    pub fn explain_later(&self) -> Explainer {
        Explainer { selection: self.selection.clone(), registry: self.registry.clone() }
    }

    /// The [`explanation`](Explanation) in words, whenever it is asked. Made for [`Balance`](crate::balance::Balance)'s error.
    pub fn explainer(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let explainer = self.explain_later();
        move || explainer.explain().to_string()
    }

    /// Queues what leads from the inserted instances to this state: first what comes, then what goes, so that a reader that
    /// stops in between still has somewhere to go.
    fn queue_changes(&mut self, sources: &Sources) {
        let Self { selection, inserted, changes, .. } = self;
        let mut present = HashSet::new();
        for instance in selection.wanted(sources) {
            let key = selection.key(instance);
            let known = inserted.get(&*key);
            let change = known.map(|known| instance.change_since(known));
            if change != Some(InstanceChange::None) {
                let generation = known.map_or(0, |known| known.generation);
                let generation = generation + u32::from(change == Some(InstanceChange::Restarted));
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
            match ready!(Pin::new(&mut self.states).poll_next(cx)) {
                Some(sources) => self.queue_changes(&sources),
                // Cannot be while `registry` lives, which owns the sending side; if it were, the last state would stay.
                None => return Poll::Pending,
            }
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
