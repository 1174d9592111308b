//! Events of a registry for the application around it.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, ready};

use tokio::sync::broadcast;
use tokio_stream::Stream;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::model::Instance;
use crate::untrusted::Quoted;

/// Number of events that a slow receiver may be behind.
const CAPACITY: usize = 1_024;

/// Event of a registry. Returned by [`EurekaServer::events`](crate::EurekaServer::events).
///
/// Prints as a line: `registered ORDERS orders-1 UP`. Instances are as lists show them, so their
/// renewal times are those of their last change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// An instance was registered, or registered again. Also sent for an instance that was copied
    /// from a peer.
    Registered {
        /// The instance as it is registered now.
        instance: Arc<Instance>,
        /// True if it had no lease before.
        is_new: bool,
        /// True if a peer sent the registration.
        replicated: bool,
    },
    /// A lease was renewed by a heartbeat.
    Renewed {
        /// The registered instance.
        instance: Arc<Instance>,
        /// True if a peer sent the heartbeat.
        replicated: bool,
    },
    /// A lease was cancelled, by the instance or by an operator.
    Cancelled {
        /// The instance as it was registered.
        instance: Arc<Instance>,
        /// True if a peer sent the cancellation.
        replicated: bool,
    },
    /// A lease ended because it was not renewed, or to make room in a full registry.
    Evicted {
        /// The instance as it was registered.
        instance: Arc<Instance>,
    },
    /// The status override of an instance was set or deleted. Without an override,
    /// [`overridden_status`](Instance::overridden_status) is UNKNOWN.
    Overridden {
        /// The instance with its new status.
        instance: Arc<Instance>,
    },
    /// Metadata of an instance was changed without a registration.
    MetadataChanged {
        /// The instance with its new metadata.
        instance: Arc<Instance>,
    },
    /// Self-preservation began: expired leases are kept.
    PreservationOn {
        /// Number of expired leases that are kept.
        kept: usize,
    },
    /// Self-preservation ended: expired leases are evicted again.
    PreservationOff,
    /// A peer responds, at first or again.
    PeerUp {
        /// URL of the peer, without credentials.
        peer: Arc<str>,
    },
    /// A peer does not respond, at first or any more.
    PeerDown {
        /// URL of the peer, without credentials.
        peer: Arc<str>,
    },
    /// This receiver was too slow: the number of older events that it has lost.
    Missed(u64),
}

impl fmt::Display for ServerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, instance) = match self {
            Self::Registered { instance, is_new: true, .. } => ("registered", instance),
            Self::Registered { instance, .. } => ("registered again", instance),
            Self::Renewed { instance, .. } => ("renewed", instance),
            Self::Cancelled { instance, .. } => ("cancelled", instance),
            Self::Evicted { instance } => ("evicted", instance),
            Self::Overridden { instance } => ("overridden", instance),
            Self::MetadataChanged { instance } => ("metadata changed", instance),
            Self::PreservationOn { kept } => return write!(f, "self-preservation on, {kept} expired leases kept"),
            Self::PreservationOff => return f.write_str("self-preservation off"),
            Self::PeerUp { peer } => return write!(f, "peer up {}", Quoted(peer)),
            Self::PeerDown { peer } => return write!(f, "peer down {}", Quoted(peer)),
            Self::Missed(events) => return write!(f, "missed {events} events"),
        };
        write!(f, "{what} {} {} {}", Quoted(instance.app()), Quoted(instance.id()), instance.status())
    }
}

/// Sender of the events. It never waits for receivers.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Number of streams. An event without a stream costs one load.
    receivers: AtomicUsize,
    sender: OnceLock<broadcast::Sender<ServerEvent>>,
}

impl Events {
    /// Returns true if there is a stream.
    pub(super) fn is_watched(&self) -> bool {
        self.receivers.load(Relaxed) > 0
    }

    /// Sends an event if there is a stream.
    pub(super) fn send(&self, event: impl FnOnce() -> ServerEvent) {
        if self.is_watched()
            && let Some(sender) = self.sender.get()
        {
            // Without receivers the event is dropped.
            let _ = sender.send(event());
        }
    }

    pub(super) fn subscribe(self: &Arc<Self>) -> ServerEvents {
        let receiver = self.sender.get_or_init(|| broadcast::Sender::new(CAPACITY)).subscribe();
        self.receivers.fetch_add(1, Relaxed);
        ServerEvents { stream: BroadcastStream::new(receiver), events: Arc::downgrade(self) }
    }
}

/// Stream of the events of a registry. Created by
/// [`EurekaServer::events`](crate::EurekaServer::events).
///
/// The events of one instance have the order of its changes. A receiver that is 1,024 events behind
/// loses the oldest ones, and gets their number as [`ServerEvent::Missed`]. The registry never
/// waits for it.
///
/// It ends when the last [`EurekaServer`](crate::EurekaServer) and the last of its routers and
/// services were dropped.
pub struct ServerEvents {
    stream: BroadcastStream<ServerEvent>,
    /// Does not keep the sender, so that the stream ends with the registry.
    events: Weak<Events>,
}

impl Stream for ServerEvents {
    type Item = ServerEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ServerEvent>> {
        let event = ready!(Pin::new(&mut self.stream).poll_next(cx));
        Poll::Ready(event.map(|event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(missed)) => ServerEvent::Missed(missed),
        }))
    }
}

impl Drop for ServerEvents {
    fn drop(&mut self) {
        if let Some(events) = self.events.upgrade() {
            events.receivers.fetch_sub(1, Relaxed);
        }
    }
}

impl fmt::Debug for ServerEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerEvents").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn slow_receiver_gets_the_number_of_events_that_it_has_lost() {
        let events = Arc::<Events>::default();
        events.send(|| unreachable!("there is no receiver"));
        let mut stream = events.subscribe();
        for kept in 0..CAPACITY + 10 {
            events.send(|| ServerEvent::PreservationOn { kept });
        }
        assert_eq!(stream.next().await.map(|event| event.to_string()).as_deref(), Some("missed 10 events"));
        assert!(matches!(stream.next().await, Some(ServerEvent::PreservationOn { kept: 10 })));
        drop(stream);
        events.send(|| unreachable!("the last receiver was dropped"));
    }

    #[tokio::test]
    async fn stream_ends_with_the_registry() {
        let events = Arc::<Events>::default();
        let mut stream = events.subscribe();
        events.send(|| ServerEvent::PreservationOff);
        drop(events);
        assert!(matches!(stream.next().await, Some(ServerEvent::PreservationOff)));
        assert!(stream.next().await.is_none());
    }
}
