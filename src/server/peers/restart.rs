//! A task that a panic does not end for good.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::time::Backoff;

/// Before a task is started again. Who ran for as long as the last begins with the first again.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Runs what `start` makes to its end; what panicked is started again, after a while. Dropping the future ends it.
pub(in crate::server) async fn restarted<F>(what: &str, start: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pauses = Backoff::new(PAUSE[0], PAUSE[1]);
    loop {
        let began = Instant::now();
        let mut task = JoinSet::new();
        task.spawn(start());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                if began.elapsed() > PAUSE[1] {
                    pauses.reset();
                }
                let pause = pauses.next();
                tracing::error!(what, %error, ?pause, "a task panicked, it is started again");
                sleep(pause).await;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_panics_is_started_again_ever_later() {
        let starts = Arc::new(AtomicU32::new(0));
        let began = Instant::now();
        let counted = starts.clone();
        restarted("a test", move || {
            let starts = counted.clone();
            async move { assert!(starts.fetch_add(1, Ordering::Relaxed) == 3, "this panic is meant") }
        })
        .await;
        assert_eq!(starts.load(Ordering::Relaxed), 4);
        let waited = began.elapsed().as_secs_f64();
        assert!((6.3..7.8).contains(&waited), "1 s, 2 s, 4 s and jitter: {waited}");
    }
}
