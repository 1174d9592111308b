//! Probes and health checks that run in the background.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::balance::endpoint::EndpointId;

/// Time limit of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of a health check, unless its interval is shorter.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of health checks at the same time.
const MAX_CHECKS: usize = 16;

/// Running probes and health checks.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) probes: TaskSet,
    pub(super) checks: TaskSet,
}

/// Tasks of one kind. Dropping it aborts them.
#[derive(Default)]
pub(super) struct TaskSet(JoinSet<Ended>);

/// Result of a probe or a health check.
pub(super) struct Ended {
    pub(super) id: EndpointId,
    pub(super) started: Instant,
    pub(super) success: bool,
}

impl Tasks {
    /// Number of health checks that may still be started.
    pub(super) fn check_capacity(&self) -> usize {
        MAX_CHECKS.saturating_sub(self.checks.0.len())
    }

    pub(super) fn start_probe<F>(&mut self, id: EndpointId, now: Instant, probe: F)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.probes.start(id, now, PROBE_TIMEOUT, probe);
    }

    pub(super) fn start_check<F>(&mut self, id: EndpointId, now: Instant, interval: Duration, check: F)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.checks.start(id, now, CHECK_TIMEOUT.min(interval), check);
    }
}

impl TaskSet {
    fn start<F>(&mut self, id: EndpointId, started: Instant, limit: Duration, task: F)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.0.spawn(async move { Ended { id, started, success: timeout(limit, task).await.unwrap_or(false) } });
    }

    /// Waits for the next task to end. Returns `None` if it panicked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        match self.0.join_next().await {
            Some(ended) => ended.ok(),
            None => std::future::pending().await,
        }
    }
}
