use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::timeout;

use super::shutdown::Running;
use super::{Registrar, Shutdown, drain};

/// What a server gives back when it ends, and what stands for it when it was not waited for any longer.
///
/// `()`, and `Result<T, E>` of a `T` that is one: the outputs of `axum::serve` and of tonic's servers.
pub trait ServerOutput {
    /// The output of a server that was still busy when its time was over.
    fn cut_off() -> Self;
}

impl ServerOutput for () {
    fn cut_off() {}
}

impl<T: ServerOutput, E> ServerOutput for Result<T, E> {
    fn cut_off() -> Self {
        Ok(T::cut_off())
    }
}

impl Registrar {
    /// Runs a server, registered exactly as long as it serves, until `signal` completes; returns the server's own output.
    ///
    /// `server` gets a future that completes when it has to stop accepting, as `with_graceful_shutdown` takes it. In order:
    ///
    /// 1. The server is polled. If it ends at once, as one that cannot bind does, its output is returned and nothing was registered.
    /// 2. It registers as UP and keeps its lease. A registry that is down keeps nobody from serving: registration is tried again
    ///    with back-off until it succeeds.
    /// 3. `signal` completes: it registers as DOWN (bounded by [`registry_timeout`](Self::registry_timeout)).
    /// 4. It serves on until callers know: no new request for the [`quiet_time`](Self::quiet_time), at most for
    ///    [`max_drain`](Self::max_drain). A server that never had a request skips this wait.
    /// 5. The server is told to stop accepting and finishes its requests in flight, within the [`grace`](Self::grace). Past it
    ///    it is not waited for any longer, and [`ServerOutput::cut_off`] stands for its output; what it still does ends with the process.
    /// 6. The registration is deleted (bounded by [`registry_timeout`](Self::registry_timeout)).
    ///
    /// A server that ends by itself is deregistered at once. From step 3 on, a SIGTERM or Ctrl-C that comes in addition ends the wait
    /// under way: the second one the drain, a third one the grace. Tokio's handlers for them stay installed for the life of the process.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # let eureka = tower_eureka::Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
    /// let instance = tower_eureka::Instance::builder("orders").port(listener.local_addr()?.port()).build()?;
    /// let registrar = eureka.registrar(instance);
    /// let app = axum::Router::new().layer(registrar.layer());
    /// let signal = async { drop(tokio::signal::ctrl_c().await) };
    /// registrar.serve(signal, |shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside a tokio runtime with time and IO enabled.
    ///
    /// # Cancel safety
    /// Dropping the future drops the server and deletes the registration in the background.
    pub async fn serve<F, S>(self, signal: impl Future<Output = ()>, server: F) -> S::Output
    where
        F: FnOnce(Shutdown) -> S,
        S: IntoFuture,
        S::Output: ServerOutput,
    {
        let (running, shutdown) = Shutdown::new();
        let mut server = pin!(server(shutdown).into_future());
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(server.as_mut().poll(cx))).await {
            return output;
        }
        // Also where this future is dropped, or the server panics.
        let _leave = Leave(&self);
        self.start();
        let output = self.until_stopped(server, signal, running).await;
        if let Err(error) = self.deregister().await {
            tracing::warn!(%error, "registration could not be deleted");
        }
        output
    }

    /// Steps 3 to 5. The server is polled alongside each of them and may end in any.
    async fn until_stopped<S>(
        &self,
        mut server: Pin<&mut S>,
        signal: impl Future<Output = ()>,
        running: Running,
    ) -> S::Output
    where
        S: Future,
        S::Output: ServerOutput,
    {
        let leave = async {
            signal.await;
            tracing::info!(app = self.instance().app(), instance = self.instance().id(), "leaving");
            tokio::select! {
                () = self.drain() => {}
                () = drain::next_signal() => tracing::info!("second signal, not waiting for callers"),
            }
        };
        tokio::select! {
            biased;
            output = &mut server => return output,
            () = leave => {}
        }
        drop(running);
        let ended = tokio::select! {
            biased;
            ended = timeout(self.config.grace, server) => ended.ok(),
            () = drain::next_signal() => None,
        };
        ended.unwrap_or_else(|| {
            let in_flight = self.shared.lifecycle.in_flight();
            tracing::warn!(in_flight, "requests did not finish in time and are not waited for");
            S::Output::cut_off()
        })
    }
}

/// Lets go of the registration when `serve` ends, however it ends.
struct Leave<'a>(&'a Registrar);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
