//! Restart of tasks that panic.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::time::Backoff;

/// Minimum and maximum pause before a task is restarted. A task that ran for longer than the
/// maximum begins with the minimum again.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Runs the future that `start` creates to completion, and creates another one after a panic.
///
/// # Cancel safety
/// Dropping the future aborts the running task.
pub(in crate::server) async fn supervise<F>(task: &str, start: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pauses = Backoff::new(PAUSE[0], PAUSE[1]);
    loop {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        tasks.spawn(start());
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                if began.elapsed() > PAUSE[1] {
                    pauses.reset();
                }
                let pause = pauses.next();
                tracing::error!(task, %error, ?pause, "task panicked, restarting it");
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
    async fn task_that_panics_is_restarted_after_growing_pauses() {
        let starts = Arc::new(AtomicU32::new(0));
        let began = Instant::now();
        let counted = starts.clone();
        supervise("a test", move || {
            let starts = counted.clone();
            async move { assert!(starts.fetch_add(1, Ordering::Relaxed) == 3, "panics on purpose") }
        })
        .await;
        assert_eq!(starts.load(Ordering::Relaxed), 4);
        let waited = began.elapsed().as_secs_f64();
        assert!((6.3..7.8).contains(&waited), "1 s, 2 s, 4 s and jitter: {waited}");
    }
}
