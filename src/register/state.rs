use tokio::sync::watch;

use crate::model::InstanceStatus;

/// State of a registration, as its [`Registrar`](super::Registrar) sees it.
///
/// The status is the effective one: an override in the registry, else the instance's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrarState {
    /// No registry server has accepted a registration yet.
    NotRegistered,
    /// The registry has the instance as STARTING, and its last heartbeat succeeded.
    Starting,
    /// The registry has the instance as UP, and its last heartbeat succeeded.
    Registered,
    /// The registry has the instance as DOWN, and its last heartbeat succeeded.
    Down,
    /// An override in the registry makes the instance OUT_OF_SERVICE, and its last heartbeat
    /// succeeded.
    OutOfService,
    /// The registry had the instance, but the last heartbeat or registration failed. It is
    /// repeated.
    HeartbeatFailing,
    /// The drain has begun: the instance is registered as DOWN, if the registry responds, and still
    /// serves. Its status can no longer be set.
    Draining,
    /// The instance was deregistered. If the DELETE failed, its lease expires. Nothing is sent
    /// until it is registered again.
    Deregistered,
    /// Registration is switched off. Nothing is sent.
    Disabled,
}

impl RegistrarState {
    /// Returns `true` if the registry has the instance, in any status, and its last heartbeat
    /// succeeded.
    pub fn is_registered(self) -> bool {
        matches!(self, Self::Starting | Self::Registered | Self::Down | Self::OutOfService)
    }

    /// Returns the state of an instance that is registered with this effective status.
    pub(super) fn registered(status: InstanceStatus) -> Self {
        match status {
            InstanceStatus::Up => Self::Registered,
            InstanceStatus::Down => Self::Down,
            InstanceStatus::OutOfService => Self::OutOfService,
            InstanceStatus::Starting | InstanceStatus::Unknown => Self::Starting,
        }
    }

    /// Returns the state after a failed heartbeat or registration.
    pub(super) fn failing(self) -> Self {
        if self.is_registered() { Self::HeartbeatFailing } else { self }
    }
}

/// State that the registrar and its task share.
#[derive(Debug)]
pub(super) struct StateCell(watch::Sender<RegistrarState>);

impl StateCell {
    pub(super) fn new(state: RegistrarState) -> Self {
        Self(watch::Sender::new(state))
    }

    pub(super) fn set(&self, state: RegistrarState) {
        self.0.send_if_modified(|now| std::mem::replace(now, state) != state);
    }

    /// Sets the state, unless it no longer belongs to the caller. Returns `true` if it has changed.
    pub(super) fn set_unless(&self, state: RegistrarState, superseded: impl FnOnce() -> bool) -> bool {
        // The check holds the lock, so that the state of a successor is not replaced.
        self.0.send_if_modified(|now| !superseded() && std::mem::replace(now, state) != state)
    }

    /// Changes the state, unless it is one that only a new registration can end.
    pub(super) fn change(&self, change: impl FnOnce(RegistrarState) -> RegistrarState) {
        self.0.send_if_modified(|now| match *now {
            RegistrarState::Draining | RegistrarState::Deregistered | RegistrarState::Disabled => false,
            before => {
                *now = change(before);
                *now != before
            }
        });
    }

    pub(super) fn get(&self) -> RegistrarState {
        *self.0.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<RegistrarState> {
        self.0.subscribe()
    }
}
