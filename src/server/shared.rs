//! Values that requests share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
#[cfg(any(feature = "page", feature = "prometheus"))]
use tokio::time::Instant;
use tokio::time::timeout;

use crate::sync::offload;

/// Time for which all requests share one value.
#[cfg(any(feature = "page", feature = "prometheus"))]
const MAX_AGE: Duration = Duration::from_secs(1);
/// Maximum time for which a request waits for others.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Value that requests share, with the version that it was read at.
#[derive(Debug)]
pub(super) struct SharedValue<V, T>(Arc<Mutex<Option<(V, T)>>>);

impl<V, T> Default for SharedValue<V, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<V: Send + 'static, T: Clone + Send + 'static> SharedValue<V, T> {
    /// Returns the value if its version is current, or reads both on a blocking thread. Requests at
    /// the same time wait for one that reads it, even if the caller of that one has gone. Returns
    /// `None` if that takes too long.
    pub(super) async fn get(
        &self,
        is_current: impl FnOnce(&V) -> bool,
        read: impl FnOnce() -> (V, T) + Send + 'static,
    ) -> Option<T> {
        let mut shared = timeout(PATIENCE, self.0.clone().lock_owned()).await.ok()?;
        if let Some((version, value)) = &*shared
            && is_current(version)
        {
            return Some(value.clone());
        }
        Some(offload(move || shared.insert(read()).1.clone()).await)
    }
}

/// Value that all requests of a second share.
#[cfg(any(feature = "page", feature = "prometheus"))]
#[derive(Debug)]
pub(super) struct PerSecond<T>(SharedValue<Instant, T>);

#[cfg(any(feature = "page", feature = "prometheus"))]
impl<T> Default for PerSecond<T> {
    fn default() -> Self {
        Self(SharedValue::default())
    }
}

#[cfg(any(feature = "page", feature = "prometheus"))]
impl<T: Clone + Send + 'static> PerSecond<T> {
    /// Returns the value, or builds it on a blocking thread, as [`SharedValue::get`] does.
    pub(super) async fn get(&self, build: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.0.get(|at| at.elapsed() < MAX_AGE, || (Instant::now(), build())).await
    }
}

#[cfg(all(test, any(feature = "page", feature = "prometheus")))]
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
