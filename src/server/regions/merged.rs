use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::server::view::AppView;
use crate::sync::{Mutex, MutexGuard};

/// Applications that were put together of several, by what each was made of, as long as anything shows them.
///
/// So those choices of regions that show the same of an application share it, and what was encoded of it.
#[derive(Debug, Default)]
pub(super) struct Merged(Mutex<HashMap<Box<[u64]>, Weak<AppView>>>);

impl Merged {
    /// The application that is made of these, and of nothing else.
    pub(super) fn of(&self, parts: &[&Arc<AppView>], make: impl FnOnce() -> Arc<AppView>) -> Arc<AppView> {
        let key: Box<[u64]> = parts.iter().map(|part| part.blocks.number()).collect();
        let mut all = self.lock();
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let made = make();
        all.insert(key, Arc::downgrade(&made));
        made
    }

    pub(super) fn forget_unused(&self) {
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
