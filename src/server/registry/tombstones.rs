use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::version::Version;
use crate::sync::{Mutex, MutexGuard};

/// Maximum number of tombstones. The oldest is removed for a new one.
const MAX_TOMBSTONES: usize = 50_000;
/// Maximum size of all tombstones. The oldest are removed for new ones.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a tombstone beside the names of its instance.
const OVERHEAD: usize = 256;

/// Versions of recently cancelled instances.
///
/// They are kept only if there are peers, which may not know of a cancellation yet.
#[derive(Debug, Default)]
pub(super) struct Tombstones(Mutex<State>);

/// Tombstones of one application by instance id, each with its number in the order.
type ById = HashMap<Arc<str>, (Version, u64)>;

#[derive(Debug, Default)]
struct State {
    applications: HashMap<Arc<str>, ById>,
    /// Time of insertion, application and instance id, oldest first. An instance that is cancelled
    /// again moves to the end, so that it does not displace others.
    order: BTreeMap<u64, (i64, Arc<str>, Arc<str>)>,
    next: u64,
    /// Total size of the entries in `order`.
    bytes: usize,
}

impl Tombstones {
    pub(super) fn add(&self, version: Version, app: Arc<str>, id: Arc<str>, now: i64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let number = state.next;
        state.next += 1;
        state.bytes += size(&app, &id);
        let ids = state.applications.entry(app.clone()).or_default();
        if let Some((_, old)) = ids.insert(id.clone(), (version, number)) {
            state.bytes -= size(&app, &id);
            state.order.remove(&old);
        }
        state.order.insert(number, (now, app, id));
        while state.order.len() > MAX_TOMBSTONES || state.bytes > MAX_BYTES {
            state.remove_first();
        }
    }

    pub(super) fn get(&self, app: &str, id: &str) -> Option<Version> {
        self.lock().applications.get(app)?.get(id).map(|&(version, _)| version)
    }

    /// Converts the times of all cancellations.
    pub(super) fn map_published(&self, convert: impl Fn(i64) -> i64) {
        for (version, _) in self.lock().applications.values_mut().flat_map(HashMap::values_mut) {
            version.updated = version.updated.map(&convert);
        }
    }

    /// Removes the tombstones that were added before this time.
    pub(super) fn prune(&self, before: i64) {
        let mut state = self.lock();
        while state.order.first_key_value().is_some_and(|(_, &(at, ..))| at < before) {
            state.remove_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

fn size(app: &str, id: &str) -> usize {
    app.len() + id.len() + OVERHEAD
}

impl State {
    fn remove_first(&mut self) {
        let Some((_, (_, app, id))) = self.order.pop_first() else { return };
        self.bytes -= size(&app, &id);
        let Some(ids) = self.applications.get_mut(&app) else { return };
        ids.remove(&id);
        if ids.is_empty() {
            self.applications.remove(&app);
        }
    }
}

#[cfg(test)]
impl Tombstones {
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        let bytes: usize = state.order.values().map(|(_, app, id)| size(app, id)).sum();
        assert_eq!(state.bytes, bytes);
        assert_eq!(state.applications.values().map(HashMap::len).sum::<usize>(), state.order.len());
        state.order.len()
    }
}
