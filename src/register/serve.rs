use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, timeout};

use super::drain::Budget;
use super::shutdown::Running;
use super::{Registrar, ServerOutput, Shutdown, drain};
use crate::error::Error;
use crate::metrics::DrainPhase;

impl Registrar {
    /// Runs a server until `signal` completes, keeps it registered while it serves, and returns the
    /// server's output.
    ///
    /// `server` is called with a future that completes when the server has to stop accepting; pass
    /// it to `with_graceful_shutdown`. The steps are:
    ///
    /// 1. Poll the server. If it ends at once, for example because it cannot bind, return its
    ///    output and register nothing.
    /// 2. Register, as UP or as STARTING (see [`ready_when`](Self::ready_when)), and renew the
    ///    lease. If the registry is unavailable, the server serves
    ///    nevertheless, and registration is repeated with back-off.
    /// 3. When `signal` completes, register as DOWN, within the
    ///    [`registry_timeout`](Self::registry_timeout).
    /// 4. Keep serving until no new request has come for the [`quiet_time`](Self::quiet_time), at
    ///    most for [`max_drain`](Self::max_drain). A server that was never called waits for the quiet
    ///    time, since callers may have it in their lists. It skips this wait if it was never UP in
    ///    the registry.
    ///    Requests to the [`uncounted_paths`](Self::uncounted_paths), such as probes, do not count.
    /// 5. Stop accepting and finish the requests in flight, within the [`grace`](Self::grace) time.
    ///    After that the server is no longer polled, and [`ServerOutput::timed_out`] replaces its
    ///    output. Tasks that it has spawned end with the process.
    /// 6. Delete the registration, within the [`registry_timeout`](Self::registry_timeout), unless
    ///    [`unregister_on_shutdown`](Self::unregister_on_shutdown) is off.
    ///
    /// Steps 3 to 6 share the [`shutdown_timeout`](Self::shutdown_timeout). A server that ends by
    /// itself is deregistered at once, or registered as DOWN if it is not to be deregistered.
    ///
    /// From step 3 on, a further SIGTERM or Ctrl-C ends the current wait: the second one ends the
    /// drain, and the third one the grace time. A signal within 500 milliseconds of the last one
    /// that counted is ignored, since supervisors signal a process and its group. Tokio's signal
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
    /// Several servers under one instance are one future: join them, and give each a clone of the
    /// shutdown future.
    ///
    /// ```no_run
    /// # async fn example(registrar: tower_eureka::register::Registrar) -> std::io::Result<()> {
    /// # let signal = tower_eureka::shutdown_signal();
    /// # let (app, admin) = (axum::Router::new(), axum::Router::new());
    /// let public = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    /// let private = tokio::net::TcpListener::bind("127.0.0.1:8081").await?;
    /// registrar
    ///     .serve(signal, |shutdown| async move {
    ///         let admin = axum::serve(private, admin).with_graceful_shutdown(shutdown.clone());
    ///         let app = axum::serve(public, app).with_graceful_shutdown(shutdown);
    ///         tokio::try_join!(app.into_future(), admin.into_future())
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside a tokio runtime with time and IO enabled. Also if
    /// [`enforce_registration`](Self::enforce_registration) is on and the first registration fails;
    /// see [`try_serve`](Self::try_serve).
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
        match self.try_serve(signal, server).await {
            Ok(output) => output,
            Err(error) => panic!("{error} (the registration is enforced; use try_serve for an error)"),
        }
    }

    /// Runs a server as [`serve`](Self::serve) does, and returns the error of an
    /// [enforced](Self::enforce_registration) registration that failed.
    ///
    /// # Errors
    /// If [`enforce_registration`](Self::enforce_registration) is on and the first registration
    /// fails. The server was dropped then, and what may have been registered is deleted.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and IO enabled.
    ///
    /// # Cancel safety
    /// That of [`serve`](Self::serve).
    pub async fn try_serve<F, S>(self, signal: impl Future<Output = ()>, server: F) -> Result<S::Output, Error>
    where
        F: FnOnce(Shutdown) -> S,
        S: IntoFuture,
        S::Output: ServerOutput,
    {
        let (running, shutdown) = Shutdown::new();
        let mut server = pin!(server(shutdown).into_future());
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(server.as_mut().poll(cx))).await {
            return Ok(output);
        }
        // Also if this future is dropped or the server panics.
        let _release = ReleaseOnDrop(&self);
        self.warn_of_cut_steps();
        if let Err(error) = self.start() {
            tracing::warn!(%error, "serving without a registration");
        }
        let (mut signal, mut signalled) = (pin!(signal), false);
        if self.settings.enforce_registration {
            // The server may end and the signal may come while it registers.
            let ended = tokio::select! {
                biased;
                output = &mut server => Some(Ok(output)),
                () = &mut signal => {
                    signalled = true;
                    None
                }
                result = self.register() => result.err().map(Err),
            };
            if let Some(result) = ended {
                self.end(None).await;
                return result;
            }
        }
        let signal = async {
            if !signalled {
                signal.await;
            }
        };
        let mut budget = None;
        let output = self.until_stopped(server, signal, running, &mut budget).await;
        self.end(budget).await;
        Ok(output)
    }

    /// Ends the registration. Without a budget there was no drain.
    async fn end(&self, budget: Option<Budget>) {
        let registry_timeout = self.config.registry_timeout;
        if self.settings.unregister_on_shutdown {
            let within = budget.map_or(registry_timeout, |budget| budget.delete(&self.config));
            if let Err(error) = self.deregister_within(within).await {
                tracing::warn!(%error, "cannot deregister, the lease will expire");
            }
        } else {
            if budget.is_none() {
                self.register_down(registry_timeout).await;
            }
            self.leave().await;
        }
        self.shared.metrics.drain_phase(DrainPhase::Serving);
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
        let start = Instant::now();
        let mut signalled = start;
        let (budget, metrics) = (*budget.insert(self.config.begin()), &self.shared.metrics);
        tracing::info!(app = self.instance().app(), instance = self.instance().id(), "draining");
        metrics.drain_phase(DrainPhase::Draining);
        tokio::select! {
            biased;
            output = &mut server => return output,
            () = self.drain_within(&budget) => {}
            () = drain::next_signal(signalled) => {
                signalled = Instant::now();
                tracing::info!("second signal, ending the drain");
            }
        }
        metrics.drained(start.elapsed());
        metrics.drain_phase(DrainPhase::Finishing);
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

    /// Logs the limits that exceed the whole shutdown or the orchestrator's grace period, so that
    /// none is ignored silently.
    fn warn_of_cut_steps(&self) {
        let (config, total) = (&self.config, self.config.shutdown_timeout);
        if let Some(grace) = config.termination_grace.filter(|grace| *grace <= total) {
            tracing::warn!(
                termination_grace = ?grace,
                shutdown_timeout = ?total,
                "the orchestrator may kill the process before its shutdown ends; reduce shutdown_timeout or raise the \
                 orchestrator's grace period"
            );
        }
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
