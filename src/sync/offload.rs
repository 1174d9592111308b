use tokio::task::{JoinError, spawn_blocking};

/// Size in bytes from which a body is decoded on a blocking thread. Decoding this many bytes takes
/// about a millisecond.
#[cfg(feature = "client")]
pub(crate) const OFFLOAD_THRESHOLD: usize = 256 * 1024;

/// Runs a closure on a blocking thread, so that the other tasks of this worker thread are not
/// delayed.
///
/// The closure runs to its end, also if the future is dropped. A panic of the closure is resumed
/// here. While all blocking threads of the runtime are busy, the closure is queued.
pub(crate) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(output) => output,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down, and drops this task as well.
        Err(Err(_)) => std::future::pending().await,
    }
}
