/// Waits for SIGTERM or Ctrl-C, which ask a process to stop.
///
/// Suits [`Registrar::serve`](crate::register::Registrar::serve) and every other server that takes
/// a shutdown future. Elsewhere than on Unix it waits for Ctrl-C alone.
///
/// Tokio's handlers are installed at the first poll and stay installed for the life of the process,
/// so from then on neither signal ends the process by itself. A handler that cannot be installed is
/// logged as an error, and its signal keeps its default action.
///
/// # Panics
/// Outside a tokio runtime with IO enabled.
///
/// # Cancel safety
/// A future that is dropped loses at most a signal that has already arrived.
pub async fn shutdown_signal() {
    #[cfg(unix)]
    tokio::select! {
        () = interrupt() => {}
        () = terminate() => {}
    }
    #[cfg(not(unix))]
    interrupt().await;
}

async fn interrupt() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::error!(%error, "cannot listen for Ctrl-C");
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
async fn terminate() {
    use tokio::signal::unix::{SignalKind, signal};

    match signal(SignalKind::terminate()) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM");
            std::future::pending::<()>().await;
        }
    }
}
