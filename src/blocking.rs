//! Work that would keep others on the same thread of the runtime waiting.

use tokio::task::{JoinError, spawn_blocking};

/// Bytes that take about a millisecond to decode. More of them are work for [`blocking`].
#[cfg(feature = "client")]
pub(crate) const LARGE: usize = 256 * 1024;

/// Does it on a thread of its own. It is done to the end, also when the future is dropped; a panic goes on here. It waits as long as the
/// runtime has no such thread to spare.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and this task with it.
        Err(Err(_)) => std::future::pending().await,
    }
}
