use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, Semaphore};

use super::Body;
use crate::blocking::blocking;
use crate::server::unsent::Unsent;

/// Maximum age of a list while slow clients hold so many others that no new one is made. The lists
/// of a Java server are as old at any time.
const MAX_AGE: Duration = Duration::from_secs(30);

/// Room for one answer, the latest, and for one at a time that makes the next. Takes a place only, until someone asks.
#[derive(Debug, Default)]
pub(super) struct Slot(OnceLock<Arc<Room>>);

#[derive(Debug, Default)]
struct Room {
    latest: ArcSwapOption<Body>,
    /// Held while the next is made; all who ask wait for it instead of making it again.
    making: Arc<Mutex<()>>,
}

/// Conditions under which a body is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Terms<'a> {
    /// One of the few lists that nearly all clients fetch. Without room for its predecessor, it is
    /// made once the predecessor has its maximum age.
    Always,
    /// One of many, of about this size, or 0 if it is known only once it is begun. They are made
    /// only while there is room, and only a few at a time.
    WithRoom { size: usize, turns: &'a Arc<Semaphore> },
}

/// Error of a body that was not made because slow clients hold too many others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct NoRoom;

impl Slot {
    /// The answer, if it shows this revision or a later one.
    pub(super) fn at(&self, revision: u64) -> Option<Arc<Body>> {
        self.0.get()?.at(revision)
    }

    /// Returns the body at this revision or a later one, made if there is none.
    ///
    /// However fast the registry changes, nobody waits for more than two to be made, since the second was begun later than the call.
    /// What was begun is made to the end and kept, also when the future is dropped.
    ///
    /// While the budget of unsent bytes is exhausted, an older body is returned instead of a new
    /// one, unless it has its maximum age.
    pub(super) async fn get(
        &self,
        revision: u64,
        unsent: &Unsent,
        terms: Terms<'_>,
        make: impl FnOnce() -> Result<Body, NoRoom> + Send + 'static,
    ) -> Result<Arc<Body>, NoRoom> {
        if let Some(body) = self.at(revision) {
            return Ok(body);
        }
        let room = self.0.get_or_init(Arc::default).clone();
        let making = room.making.clone().lock_owned().await;
        if let Some(body) = room.at(revision) {
            return Ok(body);
        }
        let older = room.latest.load_full();
        let size = match (&older, terms) {
            (Some(older), _) => older.bytes().len(),
            (None, Terms::WithRoom { size, .. }) => size,
            (None, Terms::Always) => 0,
        };
        if !unsent.has_room_for(size) {
            match (older, terms) {
                (Some(older), _) if older.made.elapsed() < MAX_AGE => return Ok(older),
                (_, Terms::WithRoom { .. }) => return Err(NoRoom),
                (_, Terms::Always) => {}
            }
        }
        let turn = match terms {
            Terms::Always => None,
            Terms::WithRoom { turns, .. } => {
                Some(turns.clone().acquire_owned().await.expect("semaphore is never closed"))
            }
        };
        // The first answer of a large registry compresses all of it.
        let made = blocking(move || {
            let _turn = turn;
            let body = Arc::new(make()?);
            room.latest.store(Some(body.clone()));
            drop(making);
            Ok(body)
        });
        made.await
    }

    pub(super) fn forget_before(&self, revision: u64) {
        if let Some(room) = self.0.get()
            && room.latest.load().as_ref().is_some_and(|body| body.revision < revision)
        {
            room.latest.store(None);
        }
    }

    /// Returns true if there is no body so far, or no longer.
    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_none_or(|room| room.latest.load().is_none())
    }
}

impl Room {
    fn at(&self, revision: u64) -> Option<Arc<Body>> {
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

    async fn get(slot: &Slot, revision: u64, make: impl FnOnce() -> Body + Send + 'static) -> Arc<Body> {
        slot.get(revision, &unsent(usize::MAX), Terms::Always, move || Ok(make())).await.unwrap()
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one() {
        let (slot, made) = (Arc::new(Slot::default()), Arc::new(AtomicUsize::new(0)));
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let (slot, made) = (slot.clone(), made.clone());
                tokio::spawn(async move {
                    let make = move || {
                        made.fetch_add(1, SeqCst);
                        body(7)
                    };
                    get(&slot, 7, make).await
                })
            })
            .collect();
        for asked in asking {
            assert_eq!(asked.await.unwrap().revision, 7);
        }
        assert_eq!(made.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn under_constant_change_those_who_wait_share_the_next() {
        let (slot, made) = (Arc::new(Slot::default()), Arc::new(AtomicUsize::new(0)));
        let asking: Vec<_> = (1..=50)
            .map(|wanted| {
                let (slot, made) = (slot.clone(), made.clone());
                tokio::spawn(async move {
                    // Each comes with a change of its own; the first body is begun before the others come.
                    let make = move || body(if made.fetch_add(1, SeqCst) == 0 { 1 } else { 50 });
                    assert!(get(&slot, wanted, make).await.revision >= wanted);
                })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
        assert_eq!(made.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn what_was_begun_is_kept_though_nobody_waits_any_more() {
        let slot = Slot::default();
        let (begins, begun) = tokio::sync::oneshot::channel();
        let (finish, finishes) = std::sync::mpsc::channel();
        {
            let mut asking = std::pin::pin!(get(&slot, 7, move || {
                begins.send(()).unwrap();
                finishes.recv().unwrap();
                body(7)
            }));
            tokio::select! {
                _ = &mut asking => panic!("made before it was to be"),
                begun = begun => begun.unwrap(),
            }
        }
        let mut next = std::pin::pin!(get(&slot, 7, || panic!("made twice")));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
        finish.send(()).unwrap();
        assert_eq!(next.await.revision, 7);
    }

    #[tokio::test]
    async fn what_fails_to_be_made_is_made_by_the_next() {
        let slot = Arc::new(Slot::default());
        let failing = slot.clone();
        let failed = tokio::spawn(async move { get(&failing, 1, || panic!("on purpose")).await }).await.unwrap_err();
        assert!(failed.is_panic());
        assert_eq!(get(&slot, 1, || body(1)).await.revision, 1);
    }

    #[tokio::test]
    async fn what_is_kept_is_answered_until_it_is_too_old() {
        let slot = Slot::default();
        assert_eq!(get(&slot, 1, || body(2)).await.revision, 2);
        assert_eq!(get(&slot, 2, || body(3)).await.revision, 2);
        assert!(slot.at(3).is_none());
        slot.forget_before(2);
        assert!(!slot.is_empty());
        slot.forget_before(3);
        assert!(slot.is_empty());
    }

    /// A body of a size that counts in this budget.
    fn large(revision: u64, size: usize, unsent: &Arc<Unsent>) -> Body {
        Body::new(revision, HeaderValue::from_static("x"), None, vec![0; size].into(), unsent)
    }

    const SIZE: usize = 100_000;

    #[tokio::test(start_paused = true)]
    async fn exhausted_budget_returns_the_older_body_until_a_slow_client_is_gone() {
        let (slot, unsent) = (Slot::default(), unsent(3 * SIZE));
        let fetch = async |revision| {
            let budget = unsent.clone();
            slot.get(revision, &unsent, Terms::Always, move || Ok(large(revision, SIZE, &budget))).await.unwrap()
        };
        let mut slow: Vec<_> = Vec::new();
        for revision in 1..=3 {
            slow.push(fetch(revision).await.bytes().clone());
        }
        assert_eq!(unsent.bytes(), 2 * SIZE, "the slot keeps the latest");
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
        let (unsent, turns) = (Arc::new(Unsent::new(SIZE)), Arc::new(Semaphore::new(1)));
        unsent.add(10 * SIZE);
        let one_of_many = Terms::WithRoom { size: SIZE, turns: &turns };
        let slot = Slot::default();
        for revision in 1..=2 {
            for terms in [one_of_many, Terms::Always] {
                let budget = unsent.clone();
                let made = slot.get(revision, &unsent, terms, move || Ok(large(revision, SIZE, &budget))).await;
                assert_eq!(made.map(|body| body.revision), Ok(revision));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exhausted_budget_never_returns_a_body_of_its_maximum_age() {
        let (slot, unsent, turns) = (Slot::default(), unsent(SIZE), Arc::new(Semaphore::new(1)));
        let fetch = async |terms, revision| {
            let budget = unsent.clone();
            let made = slot.get(revision, &unsent, terms, move || Ok(large(revision, SIZE, &budget))).await;
            made.map(|body| body.revision)
        };
        let one_of_many = Terms::WithRoom { size: SIZE, turns: &turns };
        assert_eq!(fetch(one_of_many, 1).await, Ok(1));
        unsent.add(2 * SIZE);
        tokio::time::advance(MAX_AGE - Duration::from_millis(1)).await;
        assert_eq!([fetch(Terms::Always, 2).await, fetch(one_of_many, 2).await], [Ok(1); 2]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(fetch(one_of_many, 2).await, Err(NoRoom));
        assert_eq!(fetch(Terms::Always, 2).await, Ok(2));
        assert_eq!(fetch(Terms::Always, 3).await, Ok(2), "once in this time");
        let other = Slot::default();
        let make = || Ok(body(1));
        assert_eq!(other.get(1, &unsent, one_of_many, make).await.err(), Some(NoRoom));
        assert!(other.get(1, &unsent, Terms::Always, make).await.is_ok());
    }
}
