use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock::wall_clock_ms;
use crate::error::Error;
use crate::model::{Instance, InstanceStatus, LeaseInfo};
use crate::timer::{Backoff, jittered};
use crate::transport::{Renewal, Transport};

/// Does every write of one instance, one after the other, so that their order on the wire is the order of their sending.
pub(super) struct Agent {
    transport: Transport,
    instance: Instance,
    commands: mpsc::Receiver<Command>,
    /// Whether the server has our newest data, as far as we know.
    registered: bool,
    /// Whether a registration was ever sent, so that there may be something to cancel.
    attempted: bool,
    failing_since: Option<Instant>,
    backoff: Backoff,
    /// How long the farewell may take when every handle was dropped without one.
    farewell: Duration,
}

pub(super) enum Command {
    /// Register now, with this status, and say how it went.
    Register(InstanceStatus, oneshot::Sender<Result<(), Error>>),
    /// Take the instance out and end.
    Deregister(oneshot::Sender<Result<(), Error>>),
}

impl Agent {
    /// Starts the task. It registers at once, and again with back-off until it succeeds.
    pub(super) fn spawn(transport: Transport, instance: Instance, farewell: Duration) -> mpsc::Sender<Command> {
        let (sender, commands) = mpsc::channel(4);
        let interval = renewal_interval(&instance);
        let mut agent = Self {
            transport,
            instance,
            commands,
            registered: false,
            attempted: false,
            failing_since: None,
            backoff: Backoff::new(Duration::from_secs(1).min(interval), interval),
            farewell,
        };
        agent.touch();
        agent.instance.last_updated_timestamp = agent.instance.last_dirty_timestamp;
        tokio::spawn(agent.run());
        sender
    }

    async fn run(mut self) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Register(status, done)) => {
                        if self.instance.status != status {
                            self.instance.status = status;
                            self.touch();
                        }
                        let result = self.register().await;
                        next = Instant::now() + self.wait(result.is_ok());
                        // The asker may have given up waiting.
                        let _ = done.send(result);
                    }
                    Some(Command::Deregister(done)) => {
                        let _ = done.send(self.cancel().await);
                        return;
                    }
                    // Every handle was dropped: leave as well as we can.
                    None => {
                        let _ = timeout(self.farewell, self.cancel()).await;
                        return;
                    }
                },
                () = sleep_until(next) => {
                    let result = self.beat().await;
                    if let Err(error) = &result {
                        self.failed(error);
                    }
                    next = Instant::now() + self.wait(result.is_ok());
                }
            }
        }
    }

    /// A heartbeat; a registration where that is owed instead, or where the server answers that it does not know us.
    async fn beat(&mut self) -> Result<(), Error> {
        if !self.registered {
            return self.register().await;
        }
        let dirty = self.instance.last_dirty_timestamp.unwrap_or_default();
        let renewal = self.transport.heartbeat(self.instance.app(), self.instance.id(), self.instance.status, dirty);
        match renewal.await? {
            Renewal::Renewed => {
                self.recovered();
                Ok(())
            }
            Renewal::Unknown => {
                tracing::info!(
                    app = self.instance.app(),
                    instance = self.instance.id(),
                    "lease unknown, registering again"
                );
                // Newer than what any server holds, else it would keep its own copy (client-behaviour H-5).
                self.touch();
                self.register().await
            }
        }
    }

    async fn register(&mut self) -> Result<(), Error> {
        let first = !self.attempted;
        self.attempted = true;
        self.registered = false;
        self.transport.register(&self.instance).await?;
        self.registered = true;
        self.recovered();
        let (app, instance, status) = (self.instance.app(), self.instance.id(), self.instance.status);
        tracing::info!(app, instance, %status, first, "registered");
        Ok(())
    }

    async fn cancel(&mut self) -> Result<(), Error> {
        if !self.attempted {
            return Ok(());
        }
        self.registered = false;
        self.transport.cancel(self.instance.app(), self.instance.id()).await?;
        tracing::info!(app = self.instance.app(), instance = self.instance.id(), "deregistered");
        Ok(())
    }

    /// New data: later than the last, even within a millisecond or after the clock was set back.
    fn touch(&mut self) {
        let last = self.instance.last_dirty_timestamp.unwrap_or_default();
        self.instance.last_dirty_timestamp = Some(wall_clock_ms().max(last + 1));
        self.registered = false;
    }

    fn wait(&mut self, succeeded: bool) -> Duration {
        if !succeeded {
            return self.backoff.next();
        }
        self.backoff.reset();
        jittered(renewal_interval(&self.instance))
    }

    fn failed(&mut self, error: &Error) {
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::warn!(app = self.instance.app(), instance = self.instance.id(), %error, "registry does not hear us");
        }
    }

    fn recovered(&mut self) {
        if let Some(since) = self.failing_since.take() {
            let elapsed = since.elapsed();
            tracing::info!(
                app = self.instance.app(),
                instance = self.instance.id(),
                ?elapsed,
                "registry hears us again"
            );
        }
    }
}

fn renewal_interval(instance: &Instance) -> Duration {
    let seconds = instance.lease.unwrap_or_default().renewal_interval_secs;
    // At least a second, whatever a hand-made instance says.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64).max(1))
}
