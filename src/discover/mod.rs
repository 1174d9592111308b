//! The instances of one application as a [`tower::discover::Discover`] stream.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tower::discover::Change;

use crate::model::{Application, Instance};
use crate::registry::Registry;

/// Follows the instances of one application that are UP: an insert for each that comes, a remove for each that goes.
///
/// A real [`Discover`](tower::discover::Discover): what tower's balancer takes, and ours. The key is the instance's id. It never
/// errs and never ends, starts with what is known, and wakes only when this application changes. A reader that lags sees the
/// newest state, not every step to it.
///
/// An instance is inserted again only if something changed that matters to a connection or a choice: its host, address, ports,
/// metadata or data centre. Renewed leases and new timestamps are no event.
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
    app: Arc<str>,
    states: WatchStream<Option<Arc<Application>>>,
    inserted: HashMap<Arc<str>, Arc<Instance>>,
    changes: VecDeque<Change<Arc<str>, Arc<Instance>>>,
    /// Keeps the registry refreshed as long as somebody follows it.
    registry: Arc<Registry>,
}

impl EurekaDiscover {
    pub(crate) fn new(registry: Arc<Registry>, app: Arc<str>) -> Self {
        let states = WatchStream::new(registry.follow(&app));
        Self { app, states, inserted: HashMap::new(), changes: VecDeque::new(), registry }
    }

    /// The application, upper case.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Says, whenever it is asked, why the application has no instance that takes calls. Made for
    /// [`Balance`](crate::balance::Balance)'s error.
    pub fn explainer(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let (registry, app) = (self.registry.clone(), self.app.clone());
        move || registry.explain(&app)
    }

    /// Queues what leads from the inserted instances to this state: first what comes, then what goes, so that a reader that
    /// stops in between still has somewhere to go.
    fn queue_changes(&mut self, state: Option<&Application>) {
        let up: HashMap<&str, &Arc<Instance>> =
            state.into_iter().flat_map(Application::up).map(|instance| (instance.id(), instance)).collect();
        for (id, instance) in &up {
            if self.inserted.get(*id).is_none_or(|known| matters(known, instance)) {
                let key = Arc::<str>::from(*id);
                self.inserted.insert(key.clone(), (*instance).clone());
                self.changes.push_back(Change::Insert(key, (*instance).clone()));
            }
        }
        self.inserted.retain(|id, _| {
            let stays = up.contains_key(&**id);
            if !stays {
                self.changes.push_back(Change::Remove(id.clone()));
            }
            stays
        });
    }
}

/// Whether a connection or a choice made for the one may be wrong for the other.
fn matters(known: &Instance, now: &Instance) -> bool {
    known.host_name != now.host_name
        || known.ip_addr != now.ip_addr
        || known.port != now.port
        || known.secure_port != now.secure_port
        || known.metadata != now.metadata
        || known.data_center != now.data_center
}

impl Stream for EurekaDiscover {
    type Item = Result<Change<Arc<str>, Arc<Instance>>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            match ready!(Pin::new(&mut self.states).poll_next(cx)) {
                Some(state) => self.queue_changes(state.as_deref()),
                // Cannot be while `registry` lives, which owns the sending side; if it were, the last state would stay.
                None => return Poll::Pending,
            }
        }
    }
}

impl fmt::Debug for EurekaDiscover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaDiscover").field("app", &self.app).field("instances", &self.inserted.len()).finish()
    }
}
