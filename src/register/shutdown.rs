use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

/// Future that completes when a server has to stop accepting. Created by
/// [`Registrar::serve`](super::Registrar::serve).
///
/// All clones complete, and they may be polled again afterwards.
pub struct Shutdown {
    stopping: watch::Receiver<()>,
    stopped: WatchStream<()>,
}

/// Stops the server when dropped.
pub(super) struct Running(#[allow(dead_code, reason = "only its drop is observed")] watch::Sender<()>);

impl Shutdown {
    pub(super) fn new() -> (Running, Self) {
        let (running, stopping) = watch::channel(());
        let stopped = WatchStream::from_changes(stopping.clone());
        (Running(running), Self { stopping, stopped })
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(Pin::new(&mut self.stopped).poll_next(cx)).is_some() {}
        Poll::Ready(())
    }
}

impl Clone for Shutdown {
    fn clone(&self) -> Self {
        let stopping = self.stopping.clone();
        Self { stopped: WatchStream::from_changes(stopping.clone()), stopping }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("stopping", &self.stopping.has_changed().is_err()).finish()
    }
}
