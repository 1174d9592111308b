//! Decoding of bodies outside of the runtime's worker threads, so that heartbeats do not wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::{Span, dispatcher};

use crate::blocking::blocking;

/// Longest body of the lane for medium ones.
const MEDIUM: usize = 64 * 1024;
/// Maximum time that a body waits for its turn.
const WAIT: Duration = Duration::from_secs(5);

/// Two lanes of work, each of which does one thing at a time on a blocking thread: one for bodies of
/// up to 64 KiB, among them most batches of peers, and one for longer bodies. So neither the number
/// of bodies nor their length takes more than two threads, and long ones do not hold back the others.
#[derive(Debug)]
pub(in crate::server) struct Offload {
    medium: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Default for Offload {
    fn default() -> Self {
        Self { medium: Arc::new(Semaphore::new(1)), long: Arc::new(Semaphore::new(1)) }
    }
}

/// The turn of a body did not come in time.
#[derive(Debug)]
pub(super) struct Busy;

impl Offload {
    /// Does the work for a body of this length once it is its turn.
    ///
    /// # Cancel safety
    /// Dropping the future before the work began means that it is never done. Work that began is
    /// done, and the next one waits for its end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        length: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let lane = if length <= MEDIUM { &self.medium } else { &self.long };
        let turn = tokio::time::timeout(WAIT, lane.clone().acquire_owned()).await.map_err(|_| Busy)?;
        let turn = turn.expect("semaphore is never closed");
        // What is logged there belongs to the request and goes where its other lines go.
        let (log, span) = (dispatcher::get_default(Clone::clone), Span::current());
        Ok(blocking(move || {
            let done = dispatcher::with_default(&log, || span.in_scope(work));
            drop(turn);
            done
        })
        .await)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lane_does_one_thing_at_a_time_and_waiting_has_an_end() {
        let offload = Arc::new(Offload::default());
        let (finish, finished) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let held = offload.clone();
        let first = tokio::spawn(async move {
            let work = move || {
                begin.send(()).unwrap();
                finished.recv().unwrap();
            };
            held.run(MEDIUM + 1, work).await.unwrap();
        });
        begun.await.unwrap();
        // The other lane is free.
        assert_eq!(offload.run(MEDIUM, || 1).await.unwrap(), 1);
        let second = offload.run(MEDIUM + 1, || 2);
        // Paused time stands still while a blocking thread works.
        let advance = async {
            tokio::task::yield_now().await;
            tokio::time::advance(WAIT).await;
        };
        let (second, ()) = tokio::join!(second, advance);
        second.unwrap_err();
        finish.send(()).unwrap();
        first.await.unwrap();
        assert_eq!(offload.run(MEDIUM + 1, || 3).await.unwrap(), 3);
    }
}
