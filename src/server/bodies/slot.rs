use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use super::Body;

/// Room for one answer, the latest, and for one at a time that makes the next.
#[derive(Debug, Default)]
pub(super) struct Slot {
    latest: ArcSwapOption<Body>,
    /// Held by the one that makes the next; the others wait for it instead of making it again.
    making: Mutex<()>,
}

impl Slot {
    /// The answer, if it shows this revision or a later one.
    pub(super) fn at(&self, revision: u64) -> Option<Arc<Body>> {
        self.latest.load_full().filter(|body| body.revision >= revision)
    }

    /// The answer at this revision or a later one, made if there is none; and whether it was made for this call.
    ///
    /// However fast the registry changes, nobody waits for more than two to be made, since the second was begun later than the call.
    /// Dropping the future leaves it to the next to make it.
    pub(super) async fn get(&self, revision: u64, make: impl FnOnce() -> Body + Send + 'static) -> (Arc<Body>, bool) {
        if let Some(body) = self.at(revision) {
            return (body, false);
        }
        let _making = self.making.lock().await;
        if let Some(body) = self.at(revision) {
            return (body, false);
        }
        let body = Arc::new(blocking(make).await);
        self.latest.store(Some(body.clone()));
        (body, true)
    }

    pub(super) fn forget_before(&self, revision: u64) {
        if self.latest.load().as_ref().is_some_and(|body| body.revision < revision) {
            self.latest.store(None);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.latest.load().is_none()
    }
}

/// The first answer of a large registry compresses all of it: too long for a thread that others wait for.
async fn blocking<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(make).await {
        Ok(made) => made,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn body(revision: u64) -> Body {
        Body { revision, tag: HeaderValue::from_static("x"), bytes: Bytes::new() }
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
                    slot.get(7, make).await.0
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
                    assert!(slot.get(wanted, make).await.0.revision >= wanted);
                })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
        assert_eq!(made.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn what_is_kept_is_answered_until_it_is_too_old() {
        let slot = Slot::default();
        assert!(slot.get(1, || body(2)).await.1);
        assert_eq!(slot.get(2, || body(3)).await.0.revision, 2);
        assert!(slot.at(3).is_none());
        slot.forget_before(2);
        assert!(!slot.is_empty());
        slot.forget_before(3);
        assert!(slot.is_empty());
    }
}
