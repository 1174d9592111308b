//! Queues for the decoding of bodies, so that heartbeats do not wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Span, dispatcher};

use super::source::Source;
use crate::server::places::{Places, Waiter};
use crate::sync::offload;

/// Maximum length of a body in the medium lane. It is decoded in about a millisecond.
pub(super) const MEDIUM: usize = 64 * 1024;
/// Maximum time that a body waits for its turn.
const WAIT: Duration = Duration::from_secs(5);

/// Two lanes of work, each of which processes one body at a time. So bodies of any number and
/// length occupy at most two threads, and long bodies do not delay the others.
///
/// The medium lane is for bodies of up to 64 KiB, among them most batches of peers. It works on the
/// runtime's threads, since a change of thread costs more than such a batch. The long lane works on
/// a blocking thread.
#[derive(Debug, Default)]
pub(in crate::server) struct Offload {
    medium: Arc<Lane>,
    long: Arc<Lane>,
}

/// Queue in which each source has one position at a time, so that the bodies of one source do not
/// wait for all bodies of another.
#[derive(Debug)]
struct Lane {
    turn: Arc<Semaphore>,
    places: Places<Source>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), places: Places::default() }
    }
}

impl Lane {
    async fn turn(&self, source: Source) -> Result<Turn, Busy> {
        // A free permit means that nobody waits, since the semaphore is fair.
        if let Ok(turn) = self.turn.clone().try_acquire_owned() {
            return Ok(Turn { _turn: turn, _place: None });
        }
        tokio::time::timeout(WAIT, self.queued(source)).await.map_err(|_| Busy)
    }

    async fn queued(&self, source: Source) -> Turn {
        let waiter = self.places.waiter(source);
        let place = waiter.place().await;
        let turn = self.turn.clone().acquire_owned().await.expect("semaphore is never closed");
        Turn { _turn: turn, _place: Some((place, waiter)) }
    }
}

/// Permit to work in a lane. The fields are dropped in this order.
struct Turn {
    _turn: OwnedSemaphorePermit,
    /// `None` if the body did not wait.
    _place: Option<(OwnedSemaphorePermit, Waiter<Source>)>,
}

/// Error of a body whose turn did not come in time.
#[derive(Debug)]
pub(super) struct Busy;

impl Offload {
    /// Runs the work for a body of the medium lane on this thread, in its turn.
    ///
    /// # Cancel safety
    /// The work does not run if the future is dropped before it begins.
    pub(super) async fn run_medium<T>(&self, source: Source, work: impl FnOnce() -> T) -> Result<T, Busy> {
        let turn = self.medium.turn(source).await?;
        let done = work();
        drop(turn);
        Ok(done)
    }

    /// Runs the work for a body of the long lane on a blocking thread, in its turn.
    ///
    /// # Cancel safety
    /// The work does not run if the future is dropped before it begins. Otherwise it runs to its
    /// end, and the next body waits for it.
    pub(super) async fn run_long<T: Send + 'static>(
        &self,
        source: Source,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let turn = self.long.turn(source).await?;
        // Log lines of the work belong to the request's subscriber and span.
        let (log, span) = (dispatcher::get_default(Clone::clone), Span::current());
        Ok(offload(move || {
            let done = dispatcher::with_default(&log, || span.in_scope(work));
            drop(turn);
            done
        })
        .await)
    }
}

#[cfg(test)]
impl Offload {
    /// Occupies the medium lane.
    pub(super) fn hold_medium(&self) -> OwnedSemaphorePermit {
        self.medium.turn.clone().try_acquire_owned().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lane_processes_one_body_at_a_time_and_others_time_out() {
        let offload = Arc::new(Offload::default());
        let (finish, finished) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let held = offload.clone();
        let first = tokio::spawn(async move {
            let work = move || {
                begin.send(()).unwrap();
                finished.recv().unwrap();
            };
            held.run_long(Source::default(), work).await.unwrap();
        });
        begun.await.unwrap();
        // The other lane is free.
        assert_eq!(offload.run_medium(Source::default(), || 1).await.unwrap(), 1);
        let second = offload.run_long(Source::default(), || 2);
        // Paused time does not advance by itself while a blocking thread works.
        let advance = async {
            tokio::task::yield_now().await;
            tokio::time::advance(WAIT).await;
        };
        let (second, ()) = tokio::join!(second, advance);
        second.unwrap_err();
        finish.send(()).unwrap();
        first.await.unwrap();
        assert_eq!(offload.run_long(Source::default(), || 3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn source_with_one_body_waits_for_one_body_of_another_source() {
        let lane = Arc::<Lane>::default();
        let (one, other) = (Source::default(), Source::of(&http::Extensions::new()));
        assert_eq!(one, other, "unknown senders count as one");
        let mut extensions = http::Extensions::new();
        extensions.insert(axum::extract::ConnectInfo(std::net::SocketAddr::from(([10, 0, 0, 1], 1))));
        let other = Source::of(&extensions);
        let first = lane.queued(one).await;
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        for source in [one, one, other] {
            let (lane, done) = (lane.clone(), done.clone());
            tokio::spawn(async move {
                let turn = lane.turn(source).await.unwrap();
                done.send(source).unwrap();
                drop(turn);
            });
        }
        tokio::task::yield_now().await;
        drop(first);
        drop(done);
        let mut sources = Vec::new();
        while let Some(source) = order.recv().await {
            sources.push(source);
        }
        assert_eq!(sources, [other, one, one]);
        assert!(lane.places.is_empty());
    }
}
