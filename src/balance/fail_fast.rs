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
use crate::sync::{Mutex, MutexGuard};

/// Time that calls may wait for a first endpoint, shared by the clones of a balancer.
pub(super) struct FailFast {
    state: Mutex<State>,
    ready_timeout: Mutex<Duration>,
    app: Option<Arc<str>>,
    metrics: Metrics,
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
        Self { state: Mutex::new(State::Idle), ready_timeout: Mutex::new(ready_timeout), app, metrics }
    }

    /// Sets the ready timeout. It counts for calls that begin to wait from now on.
    pub(super) fn set_ready_timeout(&self, timeout: Duration) {
        *self.ready_timeout.lock() = timeout;
    }

    fn ready_timeout(&self) -> Duration {
        *self.ready_timeout.lock()
    }

    /// Begins to wait, and returns the time that is left of the ready timeout.
    pub(super) fn wait(&self) -> Duration {
        let mut state = self.state();
        match *state {
            State::Idle => {
                *state = State::Waiting { since: Instant::now() };
                self.ready_timeout()
            }
            State::Waiting { since } => self.ready_timeout().saturating_sub(since.elapsed()),
            State::Failing { .. } => Duration::ZERO,
        }
    }

    /// Notes that a wait ended without an endpoint. Returns `true` for the first one.
    pub(super) fn enter(&self) -> bool {
        let mut state = self.state();
        let since = match *state {
            // An endpoint was found and removed again while the call waited.
            State::Idle => Instant::now(),
            State::Waiting { since } => since,
            State::Failing { .. } => return false,
        };
        *state = State::Failing { since };
        drop(state);
        self.metrics.record(Event::FailFastEntered);
        let (app, waited) = (self.app.as_deref(), self.ready_timeout());
        tracing::warn!(app, ?waited, "no endpoint, calls fail at once until one is found");
        true
    }

    /// Notes that there are endpoints: the next call without one waits again.
    pub(super) fn leave(&self, endpoints: usize) {
        let before = std::mem::replace(&mut *self.state(), State::Idle);
        if let State::Failing { since } = before {
            let elapsed = since.elapsed().saturating_sub(self.ready_timeout());
            self.metrics.record(Event::FailFastLeft { elapsed });
            tracing::info!(
                app = self.app.as_deref(),
                endpoints,
                ?elapsed,
                "endpoint found, calls no longer fail at once"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
