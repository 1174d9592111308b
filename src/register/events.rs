use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::broadcast;
use tokio_stream::Stream;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::model::InstanceStatus;

/// Number of events that a slow receiver may be behind.
const CAPACITY: usize = 64;

/// Event in the life of a registration. Returned by [`Registrar::events`](super::Registrar::events).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrarEvent {
    /// A registry server accepted a registration with this own status.
    Registered(InstanceStatus),
    /// The lease was renewed.
    Renewed,
    /// A heartbeat or registration failed, after one that succeeded. It is repeated.
    HeartbeatFailed,
    /// The registry no longer had the instance, which is registered again. Also sent if an operator
    /// has removed an override that was not seen before, since the registry then responds in the
    /// same way.
    LeaseLost,
    /// Another registry server accepted a request: the one before failed, or its session ended.
    /// The URLs hold no credentials.
    FailedOver {
        /// Server of the requests before.
        from: Arc<str>,
        /// Server of the requests from now on.
        to: Arc<str>,
    },
    /// An operator set a status that overrides the own one, or removed it (`None`).
    StatusOverridden(Option<InstanceStatus>),
    /// The registration was deleted, or left to expire.
    Deregistered,
    /// This receiver was too slow: the number of older events that it has lost.
    Missed(u64),
}

/// Sender of events. It never waits for receivers.
pub(super) struct Events(broadcast::Sender<RegistrarEvent>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }
}

impl Events {
    pub(super) fn send(&self, event: RegistrarEvent) {
        // Without receivers the event is dropped.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> RegistrarEvents {
        RegistrarEvents(BroadcastStream::new(self.0.subscribe()))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("receivers", &self.0.receiver_count()).finish()
    }
}

/// Stream of the events of a registration. Created by
/// [`Registrar::events`](super::Registrar::events).
///
/// It ends when the last [`Registrar`](super::Registrar) and the last of its layers were dropped.
pub struct RegistrarEvents(BroadcastStream<RegistrarEvent>);

impl Stream for RegistrarEvents {
    type Item = RegistrarEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RegistrarEvent>> {
        let event = ready!(Pin::new(&mut self.0).poll_next(cx));
        Poll::Ready(event.map(|event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(missed)) => RegistrarEvent::Missed(missed),
        }))
    }
}

impl fmt::Debug for RegistrarEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrarEvents").finish_non_exhaustive()
    }
}
