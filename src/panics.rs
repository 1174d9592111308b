//! Catches panics of user code.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Error of a future that panicked. It does not keep the message, which may hold secrets. The panic
/// hook has printed it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs a future to completion and catches its panic, so that loops that run for the lifetime of
/// the process survive it.
///
/// Values that the future borrows mutably may be in an inconsistent state after a panic.
///
/// # Errors
/// When the future panics.
pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .map_or_else(|payload| Poll::Ready(Err(drop_payload(payload))), |polled| polled.map(Ok))
    })
    .await
}

/// Drops the payload of a panic. Its destructor may panic as well.
fn drop_payload(payload: Box<dyn Any + Send>) -> Panicked {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    Panicked
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panicked (see the panic message in the output of the process)")
    }
}

impl std::error::Error for Panicked {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn future_that_panics_returns_an_error() {
        assert_eq!(catch_panic(async { 1 }).await, Ok(1));
        assert_eq!(catch_panic(async { panic!("at the first poll") }).await, Err::<(), _>(Panicked));
        let later = async {
            tokio::task::yield_now().await;
            panic!("at the second poll")
        };
        assert_eq!(catch_panic(later).await, Err::<(), _>(Panicked));
    }

    #[tokio::test]
    async fn payload_that_panics_when_dropped_is_caught() {
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let panics = async { std::panic::panic_any(Payload) };
        assert_eq!(catch_panic(panics).await, Err::<(), _>(Panicked));
    }
}
