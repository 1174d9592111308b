//! Requests of the agent: registration, heartbeat, override, DOWN and DELETE.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::overrides::Due;
use super::{Agent, Done, Interruption, Outcome, draining, timed_out, unless_shut_down};
use crate::error::Error;
use crate::metrics::DrainPhase;
use crate::model::InstanceStatus;
use crate::register::address::AddressState;
use crate::register::events::RegistrarEvent;
use crate::register::state::RegistrarState;
use crate::time::{Backoff, add_capped};
use crate::transport::{Renewal, Transport};

impl Agent {
    /// Sends all changes, and informs the callers that wait for them.
    pub(super) async fn sync_and_record(&mut self) -> Result<(), Interruption> {
        let result = self.sync().await?;
        self.change_at = None;
        match &result {
            Err(error) if self.known && !self.is_closing() => self.change_failed(error),
            _ => self.record(&result),
        }
        if result.is_ok() {
            self.change_succeeded();
        }
        self.inform(result);
        Ok(())
    }

    /// Sends the result of a change to the callers that wait for it.
    pub(super) fn inform(&mut self, result: Result<(), Error>) {
        // A caller may have stopped waiting.
        let Some(last) = self.waiting.pop() else { return };
        for waiter in self.waiting.drain(..) {
            let _ = waiter.done.send(result.as_ref().map_or_else(|error| Err(error.without_source()), |()| Ok(())));
        }
        let _ = last.done.send(result);
    }

    /// Sends a heartbeat, and after it the changes that the registry does not have.
    pub(super) async fn renew_and_record(&mut self) -> Result<(), Interruption> {
        let Some(result) = self.renew().await? else { return Ok(()) };
        self.record(&result);
        let is_missing = !self.is_in_sync() || !self.waiting.is_empty();
        if result.is_ok() && is_missing && self.change_at.is_none() {
            return self.sync_and_record().await;
        }
        Ok(())
    }

    /// Brings the record and the override in the registry up to date.
    async fn sync(&mut self) -> Outcome {
        // A caller who waits needs a result now, even if the servers ask for a pause.
        let transport = if self.waiting.is_empty() { self.background.clone() } else { self.transport.clone() };
        if !self.known
            && let Err(error) = self.register(&transport).await?
        {
            return Ok(Err(error));
        }
        let due = self.due_override();
        if due == Some(Due::Remove) {
            if let Err(error) = self.change_override(&transport, Due::Remove).await? {
                return Ok(Err(error));
            }
            // The status of the instance is UNKNOWN until it registers.
            self.mark_changed();
        }
        // The mark goes before the override, which a crash may leave behind.
        if matches!(due, Some(Due::Set(_))) && !self.is_marked() {
            self.mark_changed();
        }
        if !self.registered
            && let Err(error) = self.register(&transport).await?
        {
            return Ok(Err(error));
        }
        match due {
            Some(due @ Due::Set(_)) => self.change_override(&transport, due).await,
            _ => Ok(Ok(())),
        }
    }

    /// Sends a heartbeat. Returns `None` if a change goes first, since a heartbeat can be repeated.
    async fn renew(&mut self) -> Result<Option<Result<(), Error>>, Interruption> {
        let (transport, instance, (status, dirty)) = (self.background.clone(), self.instance.clone(), self.sent);
        let start = Instant::now();
        let renewal = transport.heartbeat(instance.app(), instance.id(), status, dirty);
        let Some(renewal) = self.attend_during(renewal).await? else { return Ok(None) };
        self.measure(start, renewal.as_ref().err());
        match renewal {
            Ok(Renewal::Renewed) => {
                self.on_renewed();
                Ok(Some(Ok(())))
            }
            Ok(Renewal::Unknown) => self.register_again().await.map(Some),
            Err(error) => Ok(Some(Err(error))),
        }
    }

    /// Registers again after a heartbeat that the registry did not know.
    async fn register_again(&mut self) -> Outcome {
        let (app, instance) = (self.instance.app().to_owned(), self.instance.id().to_owned());
        // A server responds like this as well after an operator has removed an override. Only a
        // record that is gone gets its override back.
        if self.overrides.is_some() && self.see_record().await? {
            tracing::info!(app, instance, "override removed, registering again");
        } else {
            tracing::info!(app, instance, "lease lost, registering again");
            self.send_event(RegistrarEvent::LeaseLost);
            self.metrics.reregistered();
            self.lifecycle.set_renewed(false);
            self.known = false;
            self.overrides.lost();
            self.doubt_address();
        }
        // A server that has a record with the same timestamp would keep its own one.
        self.mark_changed();
        let transport = self.background.clone();
        self.register(&transport).await
    }

    /// Has the address of the instance detected again, since the machine may be in another network.
    pub(super) fn doubt_address(&mut self) {
        if self.address == AddressState::Confirmed {
            self.address = AddressState::Unconfirmed;
        }
    }

    /// Registers again if the instance has another address, although its lease is alive.
    pub(super) async fn relocate(&mut self) -> Result<(), Interruption> {
        let resolved = self.routes.resolve(&self.transport, &self.instance, self.address);
        let found = unless_shut_down(&mut self.shutdown, resolved).await?;
        if found.is_some_and(|found| found.ip_addr != self.instance.ip_addr) {
            // The registration detects the address as well.
            self.mark_changed();
            self.request_change();
        } else {
            self.address = AddressState::Confirmed;
        }
        Ok(())
    }

    /// Registers the instance, unless a shutdown command interrupts it.
    ///
    /// The interrupted registration may still arrive after a later one. The registry then drops it,
    /// since its timestamp is older.
    async fn register(&mut self, transport: &Transport) -> Outcome {
        self.registered = false;
        let resolved = self.routes.resolve(transport, &self.instance, self.address);
        let found = unless_shut_down(&mut self.shutdown, resolved).await?;
        if let Some(found) = found {
            // A registry that has the instance keeps its record under the id that it has.
            let has_lease = self.succeeded || self.address == AddressState::Unconfirmed;
            self.instance = if has_lease { found.with_id_of(&self.instance) } else { found };
        }
        self.recall().await?;
        self.attempted = true;
        let mut instance = self.outgoing();
        if !self.known {
            instance.overridden_status = self.overrides.carried().unwrap_or(InstanceStatus::Unknown);
        }
        let start = Instant::now();
        let result = unless_shut_down(&mut self.shutdown, transport.register(&instance)).await?;
        self.measure(start, result.as_ref().err());
        if result.is_ok() {
            self.on_registered();
        }
        Ok(result)
    }

    /// Registers as DOWN.
    pub(super) async fn down(&mut self, within: Duration, done: Done) -> ControlFlow<Interruption> {
        self.change_at = None;
        if self.cancelling {
            let _ = done.send(Err(draining("register", &self.instance)));
            return ControlFlow::Continue(());
        }
        if self.instance.status != InstanceStatus::Down {
            self.instance.status = InstanceStatus::Down;
            self.mark_changed();
        }
        let deadline = add_capped(Instant::now(), within);
        self.await_stray(within / 4).await;
        // No look-up of the address here, since it would use up the time limit.
        (self.attempted, self.registered, self.unverified, self.look_due) = (true, false, false, false);
        let (transport, instance) = (self.transport.with_timeout(within), self.outgoing());
        let result = tokio::select! {
            biased;
            command = self.shutdown.recv() => {
                let _ = done.send(Err(draining("register", &self.instance)));
                return ControlFlow::Break(command);
            }
            result = timeout_at(deadline, transport.register(&instance)) => result,
        };
        let result = result.unwrap_or_else(|_| Err(timed_out("register", &self.instance, within)));
        if result.is_ok() {
            self.on_registered();
        }
        self.schedule(&result);
        let _ = done.send(result);
        ControlFlow::Continue(())
    }

    /// Sends the DELETE until a server accepts it or the time limit is reached.
    pub(super) async fn cancel(&mut self, within: Duration) -> Result<(), Error> {
        self.cancelling = true;
        if !self.attempted {
            self.left();
            return Ok(());
        }
        self.metrics.drain_phase(DrainPhase::Deregistering);
        let transport = self.transport.with_timeout(within);
        let deadline = add_capped(Instant::now(), within);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let cancelled = timeout_at(deadline, transport.cancel(self.instance.app(), self.instance.id())).await;
            let error = match cancelled {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => error,
                Err(_) => {
                    self.left();
                    return Err(timed_out("deregister", &self.instance, within));
                }
            };
            let pause = backoff.next();
            if Instant::now() + pause >= deadline {
                self.left();
                return Err(error);
            }
            sleep(pause).await;
        }
        self.attempted = false;
        self.left();
        tracing::info!(app = self.instance.app(), instance = self.instance.id(), "deregistered");
        Ok(())
    }

    /// Ends without a DELETE.
    pub(super) fn leave(&mut self) {
        self.cancelling = true;
        if self.attempted {
            let (app, instance) = (self.instance.app(), self.instance.id());
            tracing::info!(app, instance, "left without a DELETE, the lease will expire");
        }
        self.left();
    }

    fn left(&mut self) {
        self.metrics.drain_phase(DrainPhase::Serving);
        self.lifecycle.set_renewed(false);
        let superseded = || self.superseded.load(Ordering::SeqCst);
        if self.lifecycle.state.set_unless(RegistrarState::Deregistered, superseded) {
            self.send_event(RegistrarEvent::Deregistered);
        }
        self.publish_metrics();
    }
}
