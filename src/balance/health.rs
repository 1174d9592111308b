//! Schedule of an endpoint's health checks.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::{jittered, random_part};

/// Part of the interval after which a failed check is repeated.
const RETRY_PART: u32 = 25;

/// Minimum delay of that repetition.
const MIN_RETRY: Duration = Duration::from_millis(100);

/// Health checks of one endpoint: at most one runs at a time.
pub(super) struct Health {
    interval: Duration,
    /// Number of failed checks in a row.
    failed: u32,
    /// Time of the next check. While a check runs, the time at which it counts as lost.
    next: Instant,
    /// Start of the check that runs.
    started: Option<Instant>,
}

impl Health {
    /// Schedules the first check at a random time within the first interval, so that neither
    /// endpoints nor callers are checked in step.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, failed: 0, next: now + random_part(interval), started: None }
    }

    /// Time of the next check.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Checks a new service at once. The result of a check that still runs is ignored.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = Self { interval: self.interval, failed: 0, next: now, started: None };
    }

    /// Notes the start of a check.
    pub(super) fn start(&mut self, now: Instant) {
        self.started = Some(now);
        // The check ends before, unless it panics.
        self.next = now + 2 * self.interval;
    }

    /// Notes the end of the check that started at this time, and schedules the next one. Returns
    /// the number of failures in a row, or `None` if the result is outdated.
    ///
    /// A failure is checked again soon, until as many failed as are needed for an ejection.
    pub(super) fn end(&mut self, started: Instant, healthy: bool, needed: u32, now: Instant) -> Option<u32> {
        if self.started != Some(started) {
            return None;
        }
        self.started = None;
        self.failed = if healthy { 0 } else { self.failed.saturating_add(1) };
        let pause = if (1..needed).contains(&self.failed) {
            (self.interval / RETRY_PART).max(MIN_RETRY)
        } else {
            jittered(self.interval)
        };
        self.next = (started + pause).max(now);
        Some(self.failed)
    }
}
