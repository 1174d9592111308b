//! Task of a registration: its start, its commands and its end.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::agent::{
    Action, Agent, AgentHandle, AgentParts, AgentTask, Change, Command, RunningTask, ShutdownCommand, draining,
    timed_out,
};
use super::registrar::Shared;
use super::vitals::StatusRules;
use super::{Registrar, RegistrarState};
use crate::error::{Error, Kind};
use crate::sync::MutexGuard;

/// Additional time for the task to report that its own time limit was reached.
const TIMEOUT_MARGIN: Duration = Duration::from_millis(20);

/// State of the task that keeps the registration.
#[derive(Debug, Default)]
pub(super) enum AgentState {
    #[default]
    Idle,
    Running(AgentTask),
    /// The task sends the DELETE and nothing else.
    Deregistering(AgentTask),
    /// The task was released, and deregisters the instance by itself.
    Released(RunningTask),
}

impl AgentState {
    fn handle(&self) -> Option<AgentHandle> {
        match self {
            Self::Idle | Self::Released(_) => None,
            Self::Running(agent) | Self::Deregistering(agent) => Some(agent.handle.clone()),
        }
    }
}

impl Registrar {
    /// Changes the record, in the registry as well if the instance is registered.
    pub(super) async fn change(&self, change: Change) -> Result<(), Error> {
        let agent = {
            let state = self.agent();
            match &*state {
                AgentState::Running(_) if self.shared.lifecycle.is_draining() => {
                    return Err(draining("change", &self.instance()));
                }
                AgentState::Running(agent) if !agent.running.is_finished() => agent.handle.clone(),
                _ => {
                    change.apply(&mut self.shared.record.lock());
                    return Ok(());
                }
            }
        };
        self.execute(agent, Action::Change(change)).await
    }

    pub(super) async fn deregister_within(&self, within: Duration) -> Result<(), Error> {
        let handle = {
            let mut state = self.agent();
            *state = match std::mem::take(&mut *state) {
                without @ (AgentState::Idle | AgentState::Released(_)) => {
                    *state = without;
                    if self.shared.off.is_none() {
                        self.shared.lifecycle.state.set(RegistrarState::Deregistered);
                    }
                    return Ok(());
                }
                AgentState::Running(agent) | AgentState::Deregistering(agent) => AgentState::Deregistering(agent),
            };
            state.handle()
        };
        let Some(handle) = handle else { return Ok(()) };
        let (done, result) = oneshot::channel();
        // A closed channel means that the DELETE of another clone has succeeded, or that the task's
        // runtime has ended.
        let deregister = async {
            if handle.shutdown.send(ShutdownCommand::Deregister { within, done }).await.is_ok()
                && let Ok(result) = result.await
            {
                return result;
            }
            if self.shared.lifecycle.state.get() == RegistrarState::Deregistered {
                return Ok(());
            }
            let cause = "the runtime on which it was registered has ended";
            Err(self.error(Kind::Closed, "deregister", cause).advice("the lease expires"))
        };
        // The task has its own time limit, but it may still be busy with the DELETE of another
        // clone.
        timeout(within.saturating_add(TIMEOUT_MARGIN), deregister)
            .await
            .unwrap_or_else(|_| Err(timed_out("deregister", &self.instance(), within)))
    }

    /// Ends the registration as its task would do by itself. Does nothing without a task.
    pub(super) async fn end_registration(&self) -> Result<(), Error> {
        let cancel_timeout = match &*self.agent() {
            AgentState::Running(agent) | AgentState::Deregistering(agent) => agent.cancel_timeout,
            AgentState::Idle | AgentState::Released(_) => return Ok(()),
        };
        match cancel_timeout {
            Some(within) => self.deregister_within(within).await,
            None => {
                self.leave().await;
                Ok(())
            }
        }
    }

    /// Ends the heartbeats without a DELETE.
    pub(super) async fn leave(&self) {
        let Some(handle) = self.agent().handle() else { return };
        let (done, left) = oneshot::channel();
        if handle.shutdown.send(ShutdownCommand::Leave { done }).await.is_ok() {
            let _ = left.await;
        }
    }

    /// Registers the instance as DOWN within this time. A failure is logged.
    pub(super) async fn register_down(&self, within: Duration) {
        let agent = {
            let state = self.agent();
            self.shared.lifecycle.set_draining(true);
            if self.shared.off.is_none() && !matches!(*state, AgentState::Deregistering(_)) {
                self.shared.lifecycle.state.set(RegistrarState::Draining);
            }
            match &*state {
                AgentState::Running(agent) => agent.handle.clone(),
                AgentState::Idle | AgentState::Deregistering(_) | AgentState::Released(_) => return,
            }
        };
        let down = |done| async move { agent.shutdown.send(ShutdownCommand::Down { within, done }).await.is_ok() };
        let registered = timeout(within.saturating_add(TIMEOUT_MARGIN), self.result_of("register", down)).await;
        if let Err(error) = registered.unwrap_or_else(|_| Err(timed_out("register", &self.instance(), within))) {
            tracing::warn!(%error, "cannot register as DOWN, draining nevertheless");
        }
    }

    /// Starts the health checks and the task that keeps the registration, if they do not run.
    /// Returns `None` if registration is switched off, and an error if the instance is draining.
    pub(super) fn start(&self) -> Result<Option<AgentHandle>, Error> {
        let Shared { transport, record, lifecycle, monitors, routes, off, .. } = &*self.shared;
        let instance = self.instance();
        monitors.lock().start(lifecycle, &instance);
        if let Some(setting) = off {
            // An earlier server may have ended.
            lifecycle.set_draining(false);
            lifecycle.stopping.reset();
            let (app, instance) = (instance.app(), instance.id());
            tracing::info!(app, instance, "registration is switched off by {setting}");
            return Ok(None);
        }
        let mut state = self.agent();
        let previous = match std::mem::take(&mut *state) {
            AgentState::Running(agent) if !agent.running.is_finished() => {
                let handle = agent.handle.clone();
                *state = AgentState::Running(agent);
                return if lifecycle.is_draining() { Err(draining("register", &instance)) } else { Ok(Some(handle)) };
            }
            AgentState::Running(agent) | AgentState::Deregistering(agent) => Some(agent.running),
            AgentState::Released(running) => Some(running),
            AgentState::Idle => None,
        };
        if let Some(previous) = &previous {
            previous.supersede();
        }
        lifecycle.set_draining(false);
        lifecycle.stopping.reset();
        lifecycle.state.set(RegistrarState::NotRegistered);
        let settings = &self.settings;
        if settings.expects_health && !lifecycle.vitals.has_checks() {
            tracing::info!("eureka.client.healthcheck.enabled has no effect without a check, see Registrar::health");
        }
        let parts = AgentParts {
            transport: transport.clone(),
            published: record.clone(),
            lifecycle: lifecycle.clone(),
            routes: routes.clone(),
            rules: StatusRules {
                initial: settings.initial_status,
                enabled_on_start: settings.enabled_on_start,
                maps_health: settings.health_sets_status,
                manual: None,
            },
            update_interval: settings.update_interval,
            cancel_timeout: settings.unregister_on_shutdown.then_some(self.config.registry_timeout),
        };
        let agent = Agent::spawn(parts, previous);
        let handle = agent.handle.clone();
        *state = AgentState::Running(agent);
        Ok(Some(handle))
    }

    /// Drops the handle of the task, which then deregisters the instance by itself.
    pub(super) fn release(&self) {
        let mut state = self.agent();
        *state = match std::mem::take(&mut *state) {
            AgentState::Running(agent) => AgentState::Released(agent.running),
            other => other,
        };
    }

    /// Sends a command to the task that runs, and waits for its result. Does nothing if
    /// registration is switched off.
    pub(super) async fn execute_if_running(&self, action: Action) -> Result<(), Error> {
        match self.running_or_error(action.operation())? {
            Some(agent) => self.execute(agent, action).await,
            None => Ok(()),
        }
    }

    /// Sends a command to the task and waits for its result.
    pub(super) async fn execute(&self, agent: AgentHandle, action: Action) -> Result<(), Error> {
        let operation = action.operation();
        let send = |done| async move { agent.normal.send(Command { action, done }).await.is_ok() };
        self.result_of(operation, send).await
    }

    /// Sends a command and waits for its result. The handle in `send` is dropped before the wait,
    /// so that the task notices when all handles were dropped.
    async fn result_of<F: Future<Output = bool>>(
        &self,
        operation: &'static str,
        send: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> F,
    ) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        if !send(done).await {
            return Err(self.not_registered(operation));
        }
        result.await.map_err(|_| self.not_registered(operation))?
    }

    /// Returns the channels to the task; `None` if registration is switched off.
    fn running_or_error(&self, operation: &'static str) -> Result<Option<AgentHandle>, Error> {
        let state = self.agent();
        match &*state {
            _ if self.shared.off.is_some() => Ok(None),
            AgentState::Running(_) if self.shared.lifecycle.is_draining() => Err(draining(operation, &self.instance())),
            AgentState::Running(agent) => Ok(Some(agent.handle.clone())),
            AgentState::Idle | AgentState::Deregistering(_) | AgentState::Released(_) => {
                Err(self.not_registered(operation))
            }
        }
    }

    fn agent(&self) -> MutexGuard<'_, AgentState> {
        self.shared.agent.lock()
    }

    fn not_registered(&self, operation: &'static str) -> Error {
        self.error(Kind::Closed, operation, "the instance is not registered").advice("call register() first")
    }

    pub(super) fn error(&self, kind: Kind, operation: &'static str, cause: impl Into<String>) -> Error {
        let instance = self.instance();
        Error::new(kind, operation).app(instance.app.clone()).instance(instance.id()).cause(cause)
    }
}
