//! Values that all requests of a second share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::sync::offload;

/// Time for which all requests share one value.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Maximum time for which a request waits for others.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Value that all requests of a second share.
#[derive(Debug)]
pub(super) struct PerSecond<T>(Arc<Mutex<Option<(Instant, T)>>>);

impl<T> Default for PerSecond<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + 'static> PerSecond<T> {
    /// Returns the value, or builds it on a blocking thread. Requests at the same time wait for one
    /// that builds it, even if the caller of that one has gone. Returns `None` if that takes too
    /// long.
    pub(super) async fn get(&self, build: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let mut shared = timeout(PATIENCE, self.0.clone().lock_owned()).await.ok()?;
        if let Some((at, value)) = &*shared
            && at.elapsed() < MAX_AGE
        {
            return Some(value.clone());
        }
        let at = Instant::now();
        let built = offload(move || {
            let value = build();
            *shared = Some((at, value.clone()));
            value
        });
        Some(built.await)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn value_is_built_once_although_its_caller_has_gone() {
        let shared = PerSecond::default();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (go, waits) = mpsc::channel::<()>();
        let first = shared.get(move || {
            begun.send(()).unwrap();
            waits.recv().unwrap();
            "first"
        });
        tokio::select! {
            _ = first => unreachable!("it waits"),
            _ = begins => {}
        }
        // The first caller has gone.
        let second = shared.get(|| "second");
        let release = async { go.send(()).unwrap() };
        let (second, ()) = tokio::join!(biased; second, release);
        assert_eq!(second, Some("first"));
    }

    #[tokio::test(start_paused = true)]
    async fn value_is_built_again_after_a_second() {
        let shared = PerSecond::default();
        assert_eq!(shared.get(|| 1).await, Some(1));
        assert_eq!(shared.get(|| 2).await, Some(1));
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(shared.get(|| 3).await, Some(3));
    }
}
