//! Containment of panics in the code of users.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// A future panicked while it was polled. The panic hook has already printed the message, which may
/// hold secrets and is therefore not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs a future to its end. A panic in it ends the future and not the task, so that a loop that
/// runs for the life of the process survives it.
///
/// Values that the future borrows mutably may be left half changed.
///
/// # Errors
/// When the future panics.
pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .map_or_else(|payload| Poll::Ready(Err(dropped(payload))), |polled| polled.map(Ok))
    })
    .await
}

/// Drops the payload of a panic, whose own destructor may panic.
fn dropped(payload: Box<dyn Any + Send>) -> Panicked {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    Panicked
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panicked, see the panic message in the output of the process")
    }
}

impl std::error::Error for Panicked {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn future_that_panics_yields_an_error() {
        assert_eq!(catch_panic(async { 1 }).await, Ok(1));
        assert_eq!(catch_panic(async { panic!("at the first poll") }).await, Err::<(), _>(Panicked));
        let later = async {
            tokio::task::yield_now().await;
            panic!("at the second poll")
        };
        assert_eq!(catch_panic(later).await, Err::<(), _>(Panicked));
    }

    #[tokio::test]
    async fn payload_that_panics_when_dropped_is_contained() {
        struct Mine;
        impl Drop for Mine {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let panics = async { std::panic::panic_any(Mine) };
        assert_eq!(catch_panic(panics).await, Err::<(), _>(Panicked));
    }
}
