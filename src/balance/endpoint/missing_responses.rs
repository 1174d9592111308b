//! Calls without a response at endpoints that responded to others meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::timestamp::Timestamp;

/// Time after such a call in which silent calls count less.
const RECENT: Duration = Duration::from_secs(10);

/// Number of further silent calls in a row that are required in that time.
const FURTHER: u32 = 1;

/// Time of the latest call that was given up although its endpoint responded to other calls
/// meanwhile, for all endpoints of a balancer.
///
/// Such a call shows that callers give up some calls wherever they are sent, such as long polls.
/// Then more silent calls in a row are needed as evidence against an endpoint, since chance may
/// have sent it nothing else for a moment.
#[derive(Debug, Default)]
pub(crate) struct MissingResponses(AtomicU64);

impl MissingResponses {
    pub(super) fn record(&self, now: Timestamp) {
        self.0.store(now.nanos(), Ordering::Relaxed);
    }

    /// Returns the number of silent calls in a row that are evidence, where `calls` are without
    /// such a call.
    pub(super) fn required(&self, calls: u32, now: Timestamp) -> u32 {
        let latest = self.0.load(Ordering::Relaxed);
        let is_recent = latest != 0 && now.nanos().saturating_sub(latest) < RECENT.as_nanos() as u64;
        if is_recent { calls.saturating_add(FURTHER) } else { calls }
    }
}
