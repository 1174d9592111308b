use tokio::sync::watch;

/// State of a registration, as its [`Registrar`](super::Registrar) sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrarState {
    /// No registry server has accepted a registration yet.
    NotRegistered,
    /// The registry has the instance, and its last heartbeat succeeded.
    Registered,
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
    /// Returns the state after a failed heartbeat or registration.
    pub(super) fn failing(self) -> Self {
        if self == Self::Registered { Self::HeartbeatFailing } else { self }
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
