//! Fail-fast: calls fail at once after a first wait for an endpoint was in vain.
//!
//! ```text
//!            a call waits             ready timeout
//!   ┌──────┐ ──────────▶ ┌─────────┐ ─────────────▶ ┌─────────┐
//!   │ Idle │             │ Waiting │                │ Failing │  calls fail at once
//!   └──────┘ ◀────────── └─────────┘                └─────────┘
//!       ▲     an endpoint is found                       │
//!       └────────────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{Event, Metrics};
use crate::sync::Mutex;

/// Time that calls may wait for a first endpoint, shared by the clones of a balancer.
pub(super) struct FailFast {
    wait: Mutex<Wait>,
    app: Option<Arc<str>>,
    metrics: Metrics,
}

struct Wait {
    state: State,
    ready_timeout: Duration,
}

#[derive(Clone, Copy)]
enum State {
    /// No call waits.
    Idle,
    /// Calls wait. The timeout counts from the first of them, so that a cancelled call has
    /// waited for the later ones as well.
    Waiting { since: Instant },
    /// The timeout has elapsed, and there is still no endpoint.
    Failing { since: Instant },
}

impl FailFast {
    pub(super) fn new(ready_timeout: Duration, app: Option<Arc<str>>, metrics: Metrics) -> Self {
        Self { wait: Mutex::new(Wait { state: State::Idle, ready_timeout }), app, metrics }
    }

    /// Sets the ready timeout. It counts for calls that begin to wait from now on.
    pub(super) fn set_ready_timeout(&self, timeout: Duration) {
        self.wait.lock().ready_timeout = timeout;
    }

    /// Begins to wait, and returns the time that is left of the ready timeout.
    pub(super) fn wait(&self) -> Duration {
        let Wait { state, ready_timeout } = &mut *self.wait.lock();
        match *state {
            State::Idle => {
                *state = State::Waiting { since: Instant::now() };
                *ready_timeout
            }
            State::Waiting { since } => ready_timeout.saturating_sub(since.elapsed()),
            State::Failing { .. } => Duration::ZERO,
        }
    }

    /// Notes that a wait ended without an endpoint. Returns `true` for the first one.
    pub(super) fn enter(&self) -> bool {
        let mut wait = self.wait.lock();
        let since = match wait.state {
            // An endpoint was found and removed again while the call waited.
            State::Idle => Instant::now(),
            State::Waiting { since } => since,
            State::Failing { .. } => return false,
        };
        wait.state = State::Failing { since };
        let waited = wait.ready_timeout;
        drop(wait);
        self.metrics.record(Event::FailFastEntered);
        let app = self.app.as_deref();
        tracing::warn!(app, ?waited, "no endpoint, calls fail at once until one is found");
        true
    }

    /// Notes that there are endpoints: the next call without one waits again.
    pub(super) fn leave(&self, endpoints: usize) {
        let mut wait = self.wait.lock();
        let (before, ready_timeout) = (std::mem::replace(&mut wait.state, State::Idle), wait.ready_timeout);
        drop(wait);
        if let State::Failing { since } = before {
            let elapsed = since.elapsed().saturating_sub(ready_timeout);
            self.metrics.record(Event::FailFastLeft { elapsed });
            tracing::info!(
                app = self.app.as_deref(),
                endpoints,
                ?elapsed,
                "endpoint found, calls no longer fail at once"
            );
        }
    }
}
