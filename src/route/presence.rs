//! Tells calls that wait at an instance when it has left the registry for too long.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::clock::LONGEST_WAIT;

/// Presence of one instance in the registry.
#[derive(Debug)]
pub(super) struct Presence {
    grace: Duration,
    is_over: AtomicBool,
    ended: Notify,
}

impl Presence {
    pub(super) fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Self { grace: grace.min(LONGEST_WAIT), is_over: AtomicBool::new(false), ended: Notify::new() })
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    /// Waits until the instance has been away for the grace time.
    pub(super) async fn ended(&self) {
        let mut ended = pin!(self.ended.notified());
        ended.as_mut().enable();
        if !self.is_over.load(Ordering::SeqCst) {
            ended.await;
        }
    }
}

/// Kept as long as the instance is in the registry. The instance has left when this is dropped.
#[derive(Debug)]
pub(super) struct Membership(pub(super) Arc<Presence>);

impl Drop for Membership {
    fn drop(&mut self) {
        // Without a runtime no call waits.
        let Ok(runtime) = Handle::try_current() else { return };
        let presence = self.0.clone();
        runtime.spawn(async move {
            sleep(presence.grace).await;
            presence.is_over.store(true, Ordering::SeqCst);
            presence.ended.notify_waiters();
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn presence_ends_a_grace_time_after_the_instance_left() {
        let (presence, start) = (Presence::new(Duration::from_secs(30)), Instant::now());
        drop(Membership(presence.clone()));
        presence.ended().await;
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        presence.ended().await;
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }
}
