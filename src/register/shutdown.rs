use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

/// Completes when a server has to stop accepting. What [`Registrar::serve`](super::Registrar::serve) hands to it.
///
/// Each clone completes. Polled again afterwards it is still complete.
pub struct Shutdown {
    stopping: watch::Receiver<bool>,
    states: WatchStream<bool>,
}

impl Shutdown {
    pub(super) fn new() -> (watch::Sender<bool>, Self) {
        let (trigger, stopping) = watch::channel(false);
        let states = WatchStream::new(stopping.clone());
        (trigger, Self { stopping, states })
    }
}

impl Future for Shutdown {
    type Output = ();

    /// Also completes when the serving future was dropped: nobody would trigger it any more.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(Pin::new(&mut self.states).poll_next(cx)) {
                Some(false) => {}
                Some(true) | None => return Poll::Ready(()),
            }
        }
    }
}

impl Clone for Shutdown {
    fn clone(&self) -> Self {
        let stopping = self.stopping.clone();
        Self { states: WatchStream::new(stopping.clone()), stopping }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("stopping", &*self.stopping.borrow()).finish()
    }
}
