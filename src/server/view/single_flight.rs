use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, Semaphore};

use super::body::Body;
use crate::server::unsent::Unsent;
use crate::sync::offload;

/// Maximum age of a body while slow clients exhaust the budget of unsent bytes and no new body is
/// built. The lists of a Java server are as old at any time.
const MAX_AGE: Duration = Duration::from_secs(30);

/// Single-flight cache cell: holds the latest body while one task builds the next. Allocates on
/// first use.
#[derive(Debug, Default)]
pub(in crate::server) struct SingleFlight(OnceLock<Arc<Cell>>);

#[derive(Debug, Default)]
struct Cell {
    latest: ArcSwapOption<Body>,
    /// Held while the next body is built. Other callers wait for it instead of building the same.
    building: Arc<Mutex<()>>,
}

/// Conditions under which a body is built.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) enum Admission<'a> {
    /// For the few lists that nearly all clients fetch. While the budget is exhausted, the body is
    /// rebuilt once its predecessor has reached the maximum age.
    Always,
    /// For one of many lists. The body is built only within the budget, and with one of a few
    /// permits.
    WithinBudget {
        /// Approximate size of the body, or 0 if it is known only during the build.
        size: usize,
        permits: &'a Arc<Semaphore>,
    },
}

/// Error of a body that was not built since slow clients hold too many response bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct BudgetExhausted;

impl SingleFlight {
    /// Returns the cached body if it shows this revision or a later one.
    pub(in crate::server) fn cached(&self, revision: u64) -> Option<Arc<Body>> {
        self.0.get()?.cached(revision)
    }

    /// Returns the body at this revision or a later one, and builds it if necessary.
    ///
    /// However fast the registry changes, a caller waits for at most two builds, since the second
    /// one starts after the call. A build that has started runs to its end and is cached, even if
    /// the future is dropped.
    ///
    /// While the budget of unsent bytes is exhausted, an older body is returned instead of a new
    /// one, unless it has reached its maximum age.
    pub(in crate::server) async fn get_or_build(
        &self,
        revision: u64,
        unsent: &Unsent,
        admission: Admission<'_>,
        build: impl FnOnce() -> Result<Body, BudgetExhausted> + Send + 'static,
    ) -> Result<Arc<Body>, BudgetExhausted> {
        if let Some(body) = self.cached(revision) {
            return Ok(body);
        }
        let cell = self.0.get_or_init(Arc::default).clone();
        let building = cell.building.clone().lock_owned().await;
        if let Some(body) = cell.cached(revision) {
            return Ok(body);
        }
        let older = cell.latest.load_full();
        let size = match (&older, admission) {
            (Some(older), _) => older.bytes().len(),
            (None, Admission::WithinBudget { size, .. }) => size,
            (None, Admission::Always) => 0,
        };
        if !unsent.has_room_for(size) {
            match (older, admission) {
                (Some(older), _) if older.built.elapsed() < MAX_AGE => return Ok(older),
                (_, Admission::WithinBudget { .. }) => return Err(BudgetExhausted),
                (_, Admission::Always) => {}
            }
        }
        let permit = match admission {
            Admission::Always => None,
            Admission::WithinBudget { permits, .. } => {
                Some(permits.clone().acquire_owned().await.expect("semaphore is never closed"))
            }
        };
        // The first body of a large registry compresses all of it.
        let built = offload(move || {
            let _permit = permit;
            let body = Arc::new(build()?);
            cell.latest.store(Some(body.clone()));
            drop(building);
            Ok(body)
        });
        built.await
    }

    /// Drops the cached body if it shows an earlier revision.
    pub(in crate::server) fn clear_before(&self, revision: u64) {
        if let Some(cell) = self.0.get()
            && cell.latest.load().as_ref().is_some_and(|body| body.revision < revision)
        {
            cell.latest.store(None);
        }
    }

    /// Returns true if no body is cached.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.0.get().is_none_or(|cell| cell.latest.load().is_none())
    }
}

impl Cell {
    fn cached(&self, revision: u64) -> Option<Arc<Body>> {
        self.latest.load_full().filter(|body| body.revision >= revision)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn body(revision: u64) -> Body {
        Body::new(revision, HeaderValue::from_static("x"), None, Bytes::new(), &unsent(usize::MAX))
    }

    fn unsent(limit: usize) -> Arc<Unsent> {
        Arc::new(Unsent::bounded(limit))
    }

    async fn get(cell: &SingleFlight, revision: u64, build: impl FnOnce() -> Body + Send + 'static) -> Arc<Body> {
        cell.get_or_build(revision, &unsent(usize::MAX), Admission::Always, move || Ok(build())).await.unwrap()
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_build() {
        let (cell, built) = (Arc::new(SingleFlight::default()), Arc::new(AtomicUsize::new(0)));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let (cell, built) = (cell.clone(), built.clone());
                tokio::spawn(async move {
                    let build = move || {
                        built.fetch_add(1, SeqCst);
                        body(7)
                    };
                    get(&cell, 7, build).await
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().revision, 7);
        }
        assert_eq!(built.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn waiters_under_constant_change_share_the_next_build() {
        let (cell, built) = (Arc::new(SingleFlight::default()), Arc::new(AtomicUsize::new(0)));
        let calls: Vec<_> = (1..=50)
            .map(|wanted| {
                let (cell, built) = (cell.clone(), built.clone());
                tokio::spawn(async move {
                    // Each call follows a change. The first build starts before the other calls.
                    let build = move || body(if built.fetch_add(1, SeqCst) == 0 { 1 } else { 50 });
                    assert!(get(&cell, wanted, build).await.revision >= wanted);
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(built.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn build_without_waiters_runs_to_its_end_and_is_cached() {
        let cell = SingleFlight::default();
        let (start, started) = tokio::sync::oneshot::channel();
        let (finish, finishes) = std::sync::mpsc::channel();
        {
            let mut calls = std::pin::pin!(get(&cell, 7, move || {
                start.send(()).unwrap();
                finishes.recv().unwrap();
                body(7)
            }));
            tokio::select! {
                _ = &mut calls => panic!("built too early"),
                started = started => started.unwrap(),
            }
        }
        let mut next = std::pin::pin!(get(&cell, 7, || panic!("built twice")));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
        finish.send(()).unwrap();
        assert_eq!(next.await.revision, 7);
    }

    #[tokio::test]
    async fn build_that_panicked_is_repeated_by_the_next_caller() {
        let cell = Arc::new(SingleFlight::default());
        let failing = cell.clone();
        let failed = tokio::spawn(async move { get(&failing, 1, || panic!("on purpose")).await }).await.unwrap_err();
        assert!(failed.is_panic());
        assert_eq!(get(&cell, 1, || body(1)).await.revision, 1);
    }

    #[tokio::test]
    async fn cached_body_is_returned_until_it_is_cleared() {
        let cell = SingleFlight::default();
        assert_eq!(get(&cell, 1, || body(2)).await.revision, 2);
        assert_eq!(get(&cell, 2, || body(3)).await.revision, 2);
        assert!(cell.cached(3).is_none());
        cell.clear_before(2);
        assert!(!cell.is_empty());
        cell.clear_before(3);
        assert!(cell.is_empty());
    }

    /// Returns a body whose size counts in this budget.
    fn large(revision: u64, size: usize, unsent: &Arc<Unsent>) -> Body {
        Body::new(revision, HeaderValue::from_static("x"), None, vec![0; size].into(), unsent)
    }

    const SIZE: usize = 100_000;

    #[tokio::test(start_paused = true)]
    async fn exhausted_budget_returns_the_older_body_until_a_slow_client_is_gone() {
        let (cell, unsent) = (SingleFlight::default(), unsent(3 * SIZE));
        let fetch = async |revision| {
            let budget = unsent.clone();
            cell.get_or_build(revision, &unsent, Admission::Always, move || Ok(large(revision, SIZE, &budget)))
                .await
                .unwrap()
        };
        let mut slow: Vec<_> = Vec::new();
        for revision in 1..=3 {
            slow.push(fetch(revision).await.bytes().clone());
        }
        assert_eq!(unsent.bytes(), 2 * SIZE, "the cell keeps the latest");
        let fourth = fetch(4).await;
        slow.push(fourth.bytes().clone());
        drop(fourth);
        for revision in 5..100 {
            assert_eq!(fetch(revision).await.revision, 4);
        }
        assert_eq!(unsent.bytes(), 3 * SIZE);
        slow.remove(0);
        assert_eq!(fetch(100).await.revision, 100);
        drop(slow);
        assert_eq!(unsent.bytes(), 0);
    }

    #[tokio::test]
    async fn exhausted_budget_without_a_listener_refuses_nothing_and_returns_the_newest() {
        let (unsent, permits) = (Arc::new(Unsent::new(SIZE)), Arc::new(Semaphore::new(1)));
        unsent.add(10 * SIZE);
        let within_budget = Admission::WithinBudget { size: SIZE, permits: &permits };
        let cell = SingleFlight::default();
        for revision in 1..=2 {
            for admission in [within_budget, Admission::Always] {
                let budget = unsent.clone();
                let built =
                    cell.get_or_build(revision, &unsent, admission, move || Ok(large(revision, SIZE, &budget))).await;
                assert_eq!(built.map(|body| body.revision), Ok(revision));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exhausted_budget_never_returns_a_body_of_its_maximum_age() {
        let (cell, unsent, permits) = (SingleFlight::default(), unsent(SIZE), Arc::new(Semaphore::new(1)));
        let fetch = async |admission, revision| {
            let budget = unsent.clone();
            let built =
                cell.get_or_build(revision, &unsent, admission, move || Ok(large(revision, SIZE, &budget))).await;
            built.map(|body| body.revision)
        };
        let within_budget = Admission::WithinBudget { size: SIZE, permits: &permits };
        assert_eq!(fetch(within_budget, 1).await, Ok(1));
        unsent.add(2 * SIZE);
        tokio::time::advance(MAX_AGE - Duration::from_millis(1)).await;
        assert_eq!([fetch(Admission::Always, 2).await, fetch(within_budget, 2).await], [Ok(1); 2]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(fetch(within_budget, 2).await, Err(BudgetExhausted));
        assert_eq!(fetch(Admission::Always, 2).await, Ok(2));
        assert_eq!(fetch(Admission::Always, 3).await, Ok(2), "rebuilt once per maximum age");
        let other = SingleFlight::default();
        let build = || Ok(body(1));
        assert_eq!(other.get_or_build(1, &unsent, within_budget, build).await.err(), Some(BudgetExhausted));
        assert!(other.get_or_build(1, &unsent, Admission::Always, build).await.is_ok());
    }
}
