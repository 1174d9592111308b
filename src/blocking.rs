//! Work that would block a thread of the runtime.

use tokio::task::{JoinError, spawn_blocking};

/// Bytes that take about a millisecond to decode. More of them are work for [`blocking`].
#[cfg(feature = "client")]
pub(crate) const LARGE: usize = 256 * 1024;

/// Runs this on a blocking thread. It runs to the end, also when the future is dropped, and its
/// panic continues here. It waits while all blocking threads of the runtime are busy.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and this task with it.
        Err(Err(_)) => std::future::pending().await,
    }
}
