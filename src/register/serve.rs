use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, timeout};

use super::drain::Budget;
use super::shutdown::Running;
use super::{Registrar, Shutdown, drain};

/// What a server gives back when it ends, and what stands for it when it was not waited for any
/// longer.
///
/// `()`, and `Result<T, E>` of a `T` that is one: the outputs of `axum::serve` and of tonic's
/// servers.
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
    /// Runs a server, registered exactly as long as it serves, until `signal` completes; returns
    /// the server's own output.
    ///
    /// `server` gets a future that completes when it has to stop accepting, as
    /// `with_graceful_shutdown` takes it. In order:
    ///
    /// 1. The server is polled. If it ends at once, as one that cannot bind does, its output is
    ///    returned and nothing was registered.
    /// 2. It registers as UP and keeps its lease. A registry that is down keeps nobody from
    ///    serving: registration is repeated with back-off until it succeeds.
    /// 3. `signal` completes: it registers as DOWN (bounded by
    ///    [`registry_timeout`](Self::registry_timeout)).
    /// 4. It serves on until callers know: no new request for the [`quiet_time`](Self::quiet_time),
    ///    at most for [`max_drain`](Self::max_drain). A server that never had a request skips this
    ///    wait. Requests of probes do not count ([`uncounted_paths`](Self::uncounted_paths)).
    /// 5. The server stops accepting and finishes its requests in flight, within the
    ///    [`grace`](Self::grace). Past it it is not waited for any longer, and
    ///    [`ServerOutput::cut_off`] stands for its output; its remaining work ends with the
    ///    process.
    /// 6. The registration is deleted (bounded by [`registry_timeout`](Self::registry_timeout)).
    ///
    /// Steps 3 to 6 share the [`shutdown_timeout`](Self::shutdown_timeout).
    ///
    /// A server that ends by itself is deregistered at once. From step 3 on, a further SIGTERM or
    /// Ctrl-C ends the wait under way: the second one the drain, a third one the grace. One that
    /// comes within 500 milliseconds of the one before is the same one, since supervisors signal a
    /// process and its group. Tokio's handlers for them stay installed for the life of the process.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # let eureka = tower_eureka::Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
    /// let instance = tower_eureka::Instance::builder("orders").port(listener.local_addr()?.port()).build()?;
    /// let registrar = eureka.registrar(instance);
    /// let app = axum::Router::new().layer(registrar.layer());
    /// let signal = tower_eureka::shutdown_signal();
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
        if let Err(error) = self.start() {
            tracing::warn!(%error, "serving without a registration");
        }
        self.warn_of_cut_steps();
        let mut budget = None;
        let output = self.until_stopped(server, signal, running, &mut budget).await;
        let within = budget.map_or(self.config.registry_timeout, |budget| budget.delete(&self.config));
        if let Err(error) = self.deregister_within(within).await {
            tracing::warn!(%error, "cannot deregister, the lease ends by itself");
        }
        output
    }

    /// Steps 3 to 5. The server is polled alongside each of them and may end in any. The budget is
    /// set at the signal.
    async fn until_stopped<S>(
        &self,
        mut server: Pin<&mut S>,
        signal: impl Future<Output = ()>,
        running: Running,
        budget: &mut Option<Budget>,
    ) -> S::Output
    where
        S: Future,
        S::Output: ServerOutput,
    {
        tokio::select! {
            biased;
            output = &mut server => return output,
            () = signal => {}
        }
        let mut signalled = Instant::now();
        let begun = *budget.insert(self.config.begin());
        tracing::info!(app = self.instance().app(), instance = self.instance().id(), "leaving");
        tokio::select! {
            biased;
            output = &mut server => return output,
            () = self.drain_within(&begun) => {}
            () = drain::next_signal(signalled) => {
                signalled = Instant::now();
                tracing::info!("second signal, not waiting for callers");
            }
        }
        drop(running);
        let ended = tokio::select! {
            biased;
            ended = timeout(begun.grace(&self.config), server) => ended.ok(),
            () = drain::next_signal(signalled) => None,
        };
        ended.unwrap_or_else(|| {
            let in_flight = self.shared.lifecycle.in_flight();
            tracing::warn!(in_flight, "requests did not finish in time and are not waited for");
            S::Output::cut_off()
        })
    }

    /// Logs which limits can never be reached, so that none is ignored silently.
    fn warn_of_cut_steps(&self) {
        let (config, total) = (&self.config, self.config.shutdown_timeout);
        for (step, limit) in [
            ("quiet_time", config.quiet_time),
            ("max_drain", config.max_drain),
            ("grace", config.grace),
            ("registry_timeout", config.registry_timeout),
        ] {
            if limit > total {
                tracing::warn!(step, ?limit, shutdown_timeout = ?total, "limit is longer than the whole shutdown and is cut");
            }
        }
    }
}

/// Lets go of the registration when `serve` ends, however it ends.
struct Leave<'a>(&'a Registrar);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
