use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::refresher::Refresher;
use super::{Snapshot, local::LocalRegistry};
use crate::config::ClientConfig;
use crate::error::Error;
use crate::model::{Application, Instance};
use crate::tls::Tls;
use crate::transport::Transport;

/// One application as its followers see it; `None` while the registry has no instance of it.
pub(crate) type Followed = Option<Arc<Application>>;

/// The running copy. The task that refreshes it ends with the last handle.
#[derive(Debug)]
pub(crate) struct Registry {
    published: Arc<Published>,
    task: AbortHandle,
}

impl Registry {
    /// Starts to refresh. Needs a tokio runtime.
    pub(crate) fn start(transport: Transport, config: &ClientConfig) -> Arc<Self> {
        let published = Arc::new(Published::default());
        // Long enough for every provider to find a registry that restarted: three of the default heartbeats.
        let local = LocalRegistry::new(Duration::from_secs(90));
        let refresher = Refresher::new(transport, config, local, published.clone());
        let task = tokio::spawn(refresher.run()).abort_handle();
        Arc::new(Self { published, task })
    }

    /// Whether it can still refresh: not if the runtime is gone on which it was started.
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.snapshot.load_full()
    }

    /// Follows one application, given by its upper-case name.
    pub(crate) fn follow(&self, app: &Arc<str>) -> watch::Receiver<Followed> {
        let mut topics = self.published.topics();
        topics.retain(|_, topic| topic.receiver_count() > 0);
        let now = self.published.snapshot.load().applications.get(app).cloned();
        topics.entry(app.clone()).or_insert_with(|| watch::Sender::new(now)).subscribe()
    }

    /// Why there is no instance of this application to call, for an error message.
    pub(crate) fn explain(&self, app: &str) -> String {
        let snapshot = self.snapshot();
        let fetched = self.published.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = match &*fetched {
            Fetched { at: None, error: None } => return "the registry has not been fetched yet".into(),
            Fetched { at: None, error: Some(error) } => return format!("the registry was never fetched: {error}"),
            Fetched { at: Some(at), error: Some(error) } => {
                format!(" (as of {} s ago; since then: {error})", at.elapsed().as_secs())
            }
            Fetched { error: None, .. } => String::new(),
        };
        match snapshot.application(app) {
            Some(application) => {
                let instances: Vec<_> =
                    application.instances.iter().take(10).map(|i| format!("{} {}", i.id(), i.status())).collect();
                let total = application.instances.len();
                let mut up = application.up().peekable();
                if up.peek().is_some() {
                    let secure = |instance: &Instance| Tls::BUILT_IN && instance.https_authority().is_some();
                    let reason = if up.any(|instance| instance.http_authority().is_some() || secure(instance)) {
                        "its instances are only just known"
                    } else if Tls::BUILT_IN {
                        "no instance that is UP offers a port"
                    } else {
                        "no instance that is UP offers a plain HTTP port, and HTTPS needs the feature `tls`"
                    };
                    return format!("{reason}: {}{stale}", instances.join(", "));
                }
                format!("none of its {total} instances is UP: {}{stale}", instances.join(", "))
            }
            None => {
                let known: Vec<_> = snapshot.applications().take(20).map(|application| &*application.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                format!("the registry has no application of that name; it has {known}{stale}")
            }
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the refresher writes and everybody else reads.
#[derive(Debug, Default)]
pub(super) struct Published {
    snapshot: ArcSwap<Snapshot>,
    topics: Mutex<HashMap<Arc<str>, watch::Sender<Followed>>>,
    fetched: Mutex<Fetched>,
}

#[derive(Debug, Default)]
struct Fetched {
    at: Option<Instant>,
    error: Option<Error>,
}

impl Published {
    fn topics(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, watch::Sender<Followed>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps the snapshot, then wakes the followers of the applications that changed. In this order: a follower that comes in
    /// between starts from the new snapshot.
    pub(super) fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(snapshot.clone());
        for (app, topic) in self.topics().iter() {
            let now = snapshot.applications.get(app);
            topic.send_if_modified(|seen| {
                let same = match (seen.as_ref(), now) {
                    (Some(seen), Some(now)) => Arc::ptr_eq(seen, now),
                    (seen, now) => seen.is_none() && now.is_none(),
                };
                if !same {
                    *seen = now.cloned();
                }
                !same
            });
        }
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) =
            Fetched { at: Some(Instant::now()), error: None };
    }

    pub(super) fn failed(&self, error: Error) {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).error = Some(error);
    }
}
