use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::server::view::AppView;
use crate::sync::{Mutex, MutexGuard};

/// Cache of applications that were merged from several regions, by the parts that each consists of.
///
/// Combinations of regions that show the same parts of an application share it and its encoded
/// forms. An entry lives as long as a list shows it.
#[derive(Debug, Default)]
pub(super) struct Merged(Mutex<HashMap<Box<[u64]>, Weak<AppView>>>);

impl Merged {
    /// Returns the application that is merged from exactly these parts.
    pub(super) fn get_or_merge(&self, parts: &[&Arc<AppView>], merge: impl FnOnce() -> Arc<AppView>) -> Arc<AppView> {
        let key: Box<[u64]> = parts.iter().map(|part| part.blocks.number()).collect();
        let mut entries = self.lock();
        if let Some(known) = entries.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let merged = merge();
        entries.insert(key, Arc::downgrade(&merged));
        merged
    }

    pub(super) fn evict_unused(&self) {
        self.lock().retain(|_, view| view.strong_count() > 0);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<[u64]>, Weak<AppView>>> {
        self.0.lock()
    }
}
