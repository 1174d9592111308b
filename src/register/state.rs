use tokio::sync::watch;

/// State of a registration, as its [`Registrar`](super::Registrar) sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrarState {
    /// No server of the registry has taken the registration yet.
    NotRegistered,
    /// The registry has the instance, and its last heartbeat succeeded.
    Registered,
    /// The registry had the instance, and the last heartbeat or registration failed. It is
    /// repeated.
    HeartbeatFailing,
    /// The instance leaves: it is registered as DOWN and still serves. Its status cannot be set any
    /// more.
    Draining,
    /// The instance has left. Nothing is sent until it is registered again.
    Deregistered,
    /// Registration is switched off. Nothing is ever sent.
    Disabled,
}

impl RegistrarState {
    /// The state after a failure.
    pub(super) fn failing(self) -> Self {
        if self == Self::Registered { Self::HeartbeatFailing } else { self }
    }
}

/// The state, for the handles and the task behind them.
#[derive(Debug)]
pub(super) struct StateCell(watch::Sender<RegistrarState>);

impl StateCell {
    pub(super) fn new(state: RegistrarState) -> Self {
        Self(watch::Sender::new(state))
    }

    pub(super) fn set(&self, state: RegistrarState) {
        self.0.send_if_modified(|now| std::mem::replace(now, state) != state);
    }

    /// Changes the state, unless it is an end that only a new registration leaves.
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
