//! Last registrations and last ends of leases, which operators look at.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::Mutex;

/// Number of registrations that are kept, and of ends of leases. It is Java's.
const KEPT: usize = 1_000;

/// Registration, or end of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct PastLease {
    /// Published time in milliseconds since the epoch.
    pub(in crate::server) at: i64,
    pub(in crate::server) app: Arc<str>,
    pub(in crate::server) id: Arc<str>,
}

/// Kind of the end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum End {
    Cancelled { replicated: bool },
    Evicted,
}

/// The last [`KEPT`] registrations and ends of leases, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    registered: Mutex<VecDeque<PastLease>>,
    cancelled: Mutex<VecDeque<(PastLease, End)>>,
}

impl History {
    pub(super) fn registered(&self, at: i64, app: &Arc<str>, id: &Arc<str>) {
        push(&mut self.registered.lock(), PastLease { at, app: app.clone(), id: id.clone() });
    }

    pub(super) fn ended(&self, at: i64, app: &Arc<str>, id: &str, end: End) {
        let past = PastLease { at, app: app.clone(), id: id.into() };
        push(&mut self.cancelled.lock(), (past, end));
    }

    #[cfg_attr(not(test), allow(dead_code, reason = "read by the page of the registry"))]
    pub(super) fn last_registered(&self) -> Vec<PastLease> {
        self.registered.lock().iter().rev().cloned().collect()
    }

    #[cfg_attr(not(test), allow(dead_code, reason = "read by the page of the registry"))]
    pub(super) fn last_cancelled(&self) -> Vec<(PastLease, End)> {
        self.cancelled.lock().iter().rev().cloned().collect()
    }
}

fn push<T>(kept: &mut VecDeque<T>, new: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_thousand_are_kept_and_the_latest_comes_first() {
        let history = History::default();
        for at in 0..1_500 {
            history.registered(at, &"A".into(), &at.to_string().into());
            history.ended(at, &"A".into(), "i", End::Evicted);
        }
        let registered = history.last_registered();
        assert_eq!((registered.len(), registered[0].at, registered[999].at), (1_000, 1_499, 500));
        assert_eq!(&*registered[0].id, "1499");
        assert_eq!(history.last_cancelled().len(), 1_000);
    }
}
