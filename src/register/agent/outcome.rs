//! Results of the agent's requests: state, schedule, log, events and metrics.

use std::time::Duration;

use tokio::time::Instant;

use super::{Agent, renewal_interval};
use crate::error::{Error, Kind};
use crate::model::InstanceStatus;
use crate::register::address::AddressState;
use crate::register::events::RegistrarEvent;
use crate::register::state::RegistrarState;
use crate::time::{jittered, lengthened};
use crate::transport::is_overload;

/// Time between two warnings about the same lasting failure.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);
/// Shortest time between two reads of the record in the registry.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

impl Agent {
    /// Sets the time of the next heartbeat. An overloaded registry gets no more heartbeats than a
    /// healthy one.
    pub(super) fn schedule(&mut self, result: &Result<(), Error>) {
        let wait = match result {
            Ok(()) => {
                self.backoff.reset();
                jittered(renewal_interval(&self.instance))
            }
            Err(error) => {
                let pause = self.backoff.next();
                self.pause_after(error, pause)
            }
        };
        self.next = Instant::now() + wait;
    }

    /// Returns the delay after a failure: the rest of the pause if nothing was sent, and at least
    /// an interval if the registry is overloaded.
    fn pause_after(&self, error: &Error, pause: Duration) -> Duration {
        match error.retry_after() {
            Some(rest) if error.is_paused() => lengthened(rest),
            _ if self.is_overload(error) => pause.max(jittered(renewal_interval(&self.instance))),
            _ => pause,
        }
    }

    /// Returns `true` if the registry is overloaded. Before the registration, 503 is what proxies
    /// send for a registry that starts.
    fn is_overload(&self, error: &Error) -> bool {
        error.status().is_some_and(|status| is_overload(status) && (status != 503 || self.known))
    }

    pub(super) fn on_registered(&mut self) {
        (self.registered, self.known, self.look_due) = (true, true, true);
        self.change_failing = false;
        self.sent = (self.instance.status, self.instance.last_dirty_timestamp.unwrap_or_default());
        self.lease_of = None;
        self.note_mark();
        if self.instance.status == InstanceStatus::Up {
            self.lifecycle.set_listed();
        }
        let is_new = match std::mem::replace(&mut self.address, AddressState::Confirmed) {
            AddressState::New => true,
            AddressState::Unconfirmed => self.published.lock().ip_addr != self.instance.ip_addr,
            AddressState::Confirmed => false,
        };
        if is_new {
            self.routes.check_registered(&self.transport, &self.instance);
        }
        *self.published.lock() = self.instance.clone();
        self.on_success();
        let (app, instance, status) = (self.instance.app(), self.instance.id(), self.instance.status);
        tracing::info!(app, instance, %status, "registered");
        self.send_event(RegistrarEvent::Registered(status));
    }

    pub(super) fn on_renewed(&mut self) {
        self.look_due |= self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL);
        self.on_success();
        self.send_event(RegistrarEvent::Renewed);
    }

    /// Records the result of a heartbeat or registration, and schedules the next one.
    pub(super) fn record(&mut self, result: &Result<(), Error>) {
        if let Err(error) = result {
            self.on_failure(error);
        }
        self.schedule(result);
    }

    /// Records that the registry, which has the instance, did not accept a change or an override.
    /// It is repeated with a back-off of its own, so that heartbeats go on at their own times.
    pub(super) fn change_failed(&mut self, error: &Error) {
        let what = if self.registered { "override" } else { "change" };
        if error.is_not_found() && self.warned_of_change.is_none() {
            // The heartbeat shows whether the lease is lost.
            self.next = Instant::now();
        }
        if may_warn(&mut self.warned_of_change) {
            let (app, instance) = (self.instance.app(), self.instance.id());
            tracing::warn!(app, instance, %error, "{what} failed, retrying");
        }
        if !self.registered {
            self.change_failing = true;
            self.show_failure();
        }
        let pause = self.retry.next();
        self.change_at = Some(Instant::now() + self.pause_after(error, pause));
    }

    /// Records that the registry has all changes.
    pub(super) fn change_succeeded(&mut self) {
        self.retry.reset();
        self.warned_of_change = None;
    }

    /// Shows a failure in the state, and sends an event when it begins.
    fn show_failure(&self) {
        let before = self.lifecycle.state.get();
        self.lifecycle.state.change(RegistrarState::failing);
        if before.is_registered() {
            self.send_event(RegistrarEvent::HeartbeatFailed);
        }
    }

    fn on_failure(&mut self, error: &Error) {
        if matches!(error.kind(), Kind::Connect | Kind::Timeout | Kind::Call) {
            self.doubt_address();
        }
        self.lifecycle.set_unreachable(true);
        self.show_failure();
        self.publish_metrics();
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if !may_warn(&mut self.warned) {
            return;
        }
        let (app, instance, elapsed) = (self.instance.app(), self.instance.id(), since.elapsed());
        if self.succeeded {
            tracing::warn!(app, instance, ?elapsed, %error, "heartbeat failed");
        } else {
            tracing::warn!(app, instance, ?elapsed, %error, "registration failed, retrying");
        }
    }

    fn on_success(&mut self) {
        self.lifecycle.set_renewed(true);
        self.lifecycle.set_unreachable(false);
        self.show_state();
        self.note_server();
        self.publish_metrics();
        let since = self.failing_since.take();
        if since.is_some() {
            self.warned = None;
        }
        if std::mem::replace(&mut self.succeeded, true)
            && let Some(since) = since
        {
            let (app, instance, elapsed) = (self.instance.app(), self.instance.id(), since.elapsed());
            tracing::info!(app, instance, ?elapsed, "heartbeat recovered");
        }
    }

    /// Shows the effective status of the instance in the state, unless a change fails.
    pub(super) fn show_state(&self) {
        if self.change_failing {
            return;
        }
        let own = self.sent.0;
        // A registry believes DOWN and STARTING in spite of an override.
        let is_up = own == InstanceStatus::Up;
        let status = self.overrides.effective().filter(|_| is_up).unwrap_or(own);
        self.lifecycle.state.change(|_| RegistrarState::registered(status));
    }

    /// Compares the server of the last write with the one before.
    pub(super) fn note_server(&mut self) {
        let Some(now) = self.transport.writer() else { return };
        if self.server.as_ref() == Some(&now) {
            return;
        }
        self.metrics.server(self.server.as_deref(), &now);
        if let Some(from) = self.server.replace(now.clone()) {
            let (app, instance) = (self.instance.app(), self.instance.id());
            tracing::info!(app, instance, server = %now, before = %from, "registry server changed");
            self.send_event(RegistrarEvent::FailedOver { from, to: now });
        }
    }

    /// Records the time of a heartbeat or registration.
    pub(super) fn measure(&self, start: Instant, error: Option<&Error>) {
        let server = match error {
            Some(error) => error.server_url().map(Into::into),
            None => self.transport.writer(),
        };
        self.metrics.heartbeat(server.as_deref(), start.elapsed(), error.is_none());
    }

    pub(super) fn publish_metrics(&self) {
        self.metrics.lease(self.lifecycle.is_renewing(), self.lifecycle.lease_age());
        self.metrics.in_flight(self.lifecycle.in_flight());
    }
}

/// Returns `true` at most once per interval.
pub(super) fn may_warn(warned: &mut Option<Instant>) -> bool {
    let may = warned.is_none_or(|warned| warned.elapsed() >= WARNING_INTERVAL);
    if may {
        *warned = Some(Instant::now());
    }
    may
}
