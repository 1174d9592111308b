use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, timeout};

use super::drain::Budget;
use super::shutdown::Running;
use super::{Registrar, Shutdown, drain};

/// Output of a server that [`Registrar::serve`] runs.
///
/// Implemented for `()` and for `Result<T, E>` with such a `T`, which covers `axum::serve` and
/// tonic's servers. Implement it for a server with another output.
pub trait ServerOutput {
    /// Returns the output of a server that did not end within the grace time.
    fn timed_out() -> Self;
}

impl ServerOutput for () {
    fn timed_out() {}
}

impl<T: ServerOutput, E> ServerOutput for Result<T, E> {
    fn timed_out() -> Self {
        Ok(T::timed_out())
    }
}

impl Registrar {
    /// Runs a server until `signal` completes, keeps it registered while it serves, and returns the
    /// server's output.
    ///
    /// `server` is called with a future that completes when the server has to stop accepting; pass
    /// it to `with_graceful_shutdown`. The steps are:
    ///
    /// 1. Poll the server. If it ends at once, for example because it cannot bind, return its
    ///    output and register nothing.
    /// 2. Register as UP and renew the lease. If the registry is unavailable, the server serves
    ///    nevertheless, and registration is repeated with back-off.
    /// 3. When `signal` completes, register as DOWN, within the
    ///    [`registry_timeout`](Self::registry_timeout).
    /// 4. Keep serving until no new request has come for the [`quiet_time`](Self::quiet_time), at
    ///    most for [`max_drain`](Self::max_drain). A server that was never called skips this wait.
    ///    Requests to the [`uncounted_paths`](Self::uncounted_paths), such as probes, do not count.
    /// 5. Stop accepting and finish the requests in flight, within the [`grace`](Self::grace) time.
    ///    After that the server is no longer polled, and [`ServerOutput::timed_out`] replaces its
    ///    output. Tasks that it has spawned end with the process.
    /// 6. Delete the registration, within the [`registry_timeout`](Self::registry_timeout).
    ///
    /// Steps 3 to 6 share the [`shutdown_timeout`](Self::shutdown_timeout). A server that ends by
    /// itself is deregistered at once.
    ///
    /// From step 3 on, a further SIGTERM or Ctrl-C ends the current wait: the second one ends the
    /// drain, and the third one the grace time. A signal within 500 milliseconds of the one before
    /// counts as the same, since supervisors signal a process and its group. Tokio's signal
    /// handlers stay installed for the life of the process.
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
    /// If the future is dropped, the server is dropped and the registration is deleted in the
    /// background.
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
        // Also if this future is dropped or the server panics.
        let _release = ReleaseOnDrop(&self);
        if let Err(error) = self.start() {
            tracing::warn!(%error, "serving without a registration");
        }
        self.warn_of_cut_steps();
        let mut budget = None;
        let output = self.until_stopped(server, signal, running, &mut budget).await;
        let within = budget.map_or(self.config.registry_timeout, |budget| budget.delete(&self.config));
        if let Err(error) = self.deregister_within(within).await {
            tracing::warn!(%error, "cannot deregister, the lease will expire");
        }
        output
    }

    /// Runs steps 3 to 5. The server is polled during each of them and may end in any of them. The
    /// budget is set at the signal.
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
        let budget = *budget.insert(self.config.begin());
        tracing::info!(app = self.instance().app(), instance = self.instance().id(), "draining");
        tokio::select! {
            biased;
            output = &mut server => return output,
            () = self.drain_within(&budget) => {}
            () = drain::next_signal(signalled) => {
                signalled = Instant::now();
                tracing::info!("second signal, ending the drain");
            }
        }
        self.shared.lifecycle.stopping.begin();
        drop(running);
        let ended = tokio::select! {
            biased;
            ended = timeout(budget.grace(&self.config), server) => ended.ok(),
            () = drain::next_signal(signalled) => None,
        };
        ended.unwrap_or_else(|| {
            let in_flight = self.shared.lifecycle.in_flight();
            tracing::warn!(in_flight, "requests in flight did not finish in time");
            S::Output::timed_out()
        })
    }

    /// Logs the limits that exceed the whole shutdown, so that none is ignored silently.
    fn warn_of_cut_steps(&self) {
        let (config, total) = (&self.config, self.config.shutdown_timeout);
        for (step, limit) in [
            ("quiet_time", config.quiet_time),
            ("max_drain", config.max_drain),
            ("grace", config.grace),
            ("registry_timeout", config.registry_timeout),
        ] {
            if limit > total {
                tracing::warn!(step, ?limit, shutdown_timeout = ?total, "limit exceeds shutdown_timeout and is reduced to it");
            }
        }
    }
}

/// Guard that releases the registration when `serve` ends in any way.
struct ReleaseOnDrop<'a>(&'a Registrar);

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}
