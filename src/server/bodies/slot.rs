use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use super::Body;
use crate::blocking::blocking;

/// Room for one answer, the latest, and for one at a time that makes the next. Takes a place only, until someone asks.
#[derive(Debug, Default)]
pub(super) struct Slot(OnceLock<Arc<Room>>);

#[derive(Debug, Default)]
struct Room {
    latest: ArcSwapOption<Body>,
    /// Held while the next is made; all who ask wait for it instead of making it again.
    making: Arc<Mutex<()>>,
}

impl Slot {
    /// The answer, if it shows this revision or a later one.
    pub(super) fn at(&self, revision: u64) -> Option<Arc<Body>> {
        self.0.get()?.at(revision)
    }

    /// The answer at this revision or a later one, made if there is none.
    ///
    /// However fast the registry changes, nobody waits for more than two to be made, since the second was begun later than the call.
    /// What was begun is made to the end and kept, also when the future is dropped.
    pub(super) async fn get(&self, revision: u64, make: impl FnOnce() -> Body + Send + 'static) -> Arc<Body> {
        if let Some(body) = self.at(revision) {
            return body;
        }
        let room = self.0.get_or_init(Arc::default).clone();
        let making = room.making.clone().lock_owned().await;
        if let Some(body) = room.at(revision) {
            return body;
        }
        // The first answer of a large registry compresses all of it.
        blocking(move || {
            let body = Arc::new(make());
            room.latest.store(Some(body.clone()));
            drop(making);
            body
        })
        .await
    }

    pub(super) fn forget_before(&self, revision: u64) {
        if let Some(room) = self.0.get()
            && room.latest.load().as_ref().is_some_and(|body| body.revision < revision)
        {
            room.latest.store(None);
        }
    }

    #[cfg(test)]
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
        Body { revision, tag: HeaderValue::from_static("x"), digest: None, bytes: Bytes::new() }
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
                    slot.get(7, make).await
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
                    assert!(slot.get(wanted, make).await.revision >= wanted);
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
            let mut asking = std::pin::pin!(slot.get(7, move || {
                begins.send(()).unwrap();
                finishes.recv().unwrap();
                body(7)
            }));
            tokio::select! {
                _ = &mut asking => panic!("made before it was to be"),
                begun = begun => begun.unwrap(),
            }
        }
        let mut next = std::pin::pin!(slot.get(7, || panic!("made twice")));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
        finish.send(()).unwrap();
        assert_eq!(next.await.revision, 7);
    }

    #[tokio::test]
    async fn what_fails_to_be_made_is_made_by_the_next() {
        let slot = Arc::new(Slot::default());
        let failing = slot.clone();
        let failed = tokio::spawn(async move { failing.get(1, || panic!("on purpose")).await }).await.unwrap_err();
        assert!(failed.is_panic());
        assert_eq!(slot.get(1, || body(1)).await.revision, 1);
    }

    #[tokio::test]
    async fn what_is_kept_is_answered_until_it_is_too_old() {
        let slot = Slot::default();
        assert_eq!(slot.get(1, || body(2)).await.revision, 2);
        assert_eq!(slot.get(2, || body(3)).await.revision, 2);
        assert!(slot.at(3).is_none());
        slot.forget_before(2);
        assert!(!slot.is_empty());
        slot.forget_before(3);
        assert!(slot.is_empty());
    }
}
