use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::clock::wall_clock_ms;
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus, LeaseInfo};
use crate::timer::{Backoff, jittered};
use crate::transport::{Renewal, Transport};

/// Does every write of one instance, one after the other, so that their order on the wire is the order of their sending.
pub(super) struct Agent {
    transport: Transport,
    /// The same with short bounds, for the words of a farewell: a server that hangs must not use up the time for all.
    hurried: Transport,
    instance: Instance,
    commands: mpsc::Receiver<Command>,
    /// Whether the server has our newest data, as far as we know.
    registered: bool,
    /// Whether a registration was ever sent, so that there may be something to cancel.
    attempted: bool,
    /// No heartbeat any more, and no registration: only the DELETE is left to be done.
    leaving: bool,
    failing_since: Option<Instant>,
    backoff: Backoff,
    /// How long a farewell may take.
    farewell: Duration,
}

pub(super) enum Command {
    /// Register now, with this status, and say how it went. With haste: within the time of a farewell.
    Register { status: InstanceStatus, haste: bool, done: oneshot::Sender<Result<(), Error>> },
    /// Take the instance out and end. If no server takes it, stay for another try, but send nothing else.
    Deregister(oneshot::Sender<Result<(), Error>>),
}

/// How to reach the task.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) task: JoinHandle<()>,
}

impl Agent {
    /// Starts the task, which begins when the `previous` one has ended. It registers at once, and again with back-off until it
    /// succeeds.
    pub(super) fn spawn(
        transport: Transport,
        instance: Instance,
        farewell: Duration,
        previous: Option<JoinHandle<()>>,
    ) -> Handle {
        let (sender, commands) = mpsc::channel(4);
        let interval = renewal_interval(&instance);
        let mut agent = Self {
            hurried: transport.hurried(farewell),
            transport: transport.in_background(),
            instance,
            commands,
            registered: false,
            attempted: false,
            leaving: false,
            failing_since: None,
            backoff: Backoff::new(Duration::from_secs(1).min(interval), interval),
            farewell,
        };
        agent.touch();
        agent.instance.last_updated_timestamp = agent.instance.last_dirty_timestamp;
        let task = tokio::spawn(async move {
            if let Some(previous) = previous {
                // However it ended, it sends nothing any more.
                let _ = previous.await;
            }
            agent.run().await;
        });
        Handle { commands: sender, task }
    }

    async fn run(mut self) {
        let mut next = Instant::now();
        // What came while a heartbeat was under way: a command, or the end of all handles.
        let mut waiting: Option<Option<Command>> = None;
        loop {
            let command = match waiting.take() {
                Some(command) => command,
                None => tokio::select! {
                    biased;
                    command = self.commands.recv() => command,
                    () = sleep_until(next), if !self.leaving => {
                        match self.beat().await {
                            Beat::Done(result) => {
                                if let Err(error) = &result {
                                    self.failed(error);
                                }
                                next = Instant::now() + self.wait(result.is_ok());
                            }
                            Beat::Interrupted(command) => waiting = Some(command),
                        }
                        continue;
                    }
                },
            };
            match command {
                Some(Command::Register { status, haste, done }) => {
                    if self.instance.status != status {
                        self.instance.status = status;
                        self.touch();
                    }
                    let result = self.register(haste).await;
                    next = Instant::now() + self.wait(result.is_ok());
                    // The asker may have given up waiting.
                    let _ = done.send(result);
                }
                Some(Command::Deregister(done)) => {
                    self.leaving = true;
                    let result = self.cancel().await;
                    let gone = result.is_ok();
                    let _ = done.send(result);
                    if gone {
                        return;
                    }
                }
                // Every handle was dropped: leave as well as we can.
                None => {
                    let _ = self.cancel().await;
                    return;
                }
            }
        }
    }

    /// A heartbeat; a registration where that is owed instead, or where the server answers that it does not know us.
    ///
    /// A heartbeat under way gives way to a command, since a lost one costs nothing. A registration does not: whether it arrived would
    /// be unknown, and it might arrive after what follows.
    async fn beat(&mut self) -> Beat {
        if !self.registered {
            return Beat::Done(self.register(false).await);
        }
        let dirty = self.instance.last_dirty_timestamp.unwrap_or_default();
        let renewal = tokio::select! {
            biased;
            command = self.commands.recv() => return Beat::Interrupted(command),
            renewal = self.transport.heartbeat(
                self.instance.app(),
                self.instance.id(),
                self.instance.status,
                dirty,
            ) => renewal,
        };
        Beat::Done(match renewal {
            Ok(Renewal::Renewed) => {
                self.recovered();
                Ok(())
            }
            Ok(Renewal::Unknown) => {
                tracing::info!(
                    app = self.instance.app(),
                    instance = self.instance.id(),
                    "lease unknown, registering again"
                );
                // Newer than what any server holds, else it would keep its own copy (client-behaviour H-5).
                self.touch();
                self.register(false).await
            }
            Err(error) => Err(error),
        })
    }

    async fn register(&mut self, haste: bool) -> Result<(), Error> {
        self.attempted = true;
        self.registered = false;
        if haste {
            let deadline = Instant::now() + self.farewell;
            timeout_at(deadline, self.hurried.register(&self.instance))
                .await
                .unwrap_or_else(|_| Err(self.too_late("register")))?;
        } else {
            self.transport.register(&self.instance).await?;
        }
        self.registered = true;
        self.recovered();
        let (app, instance, status) = (self.instance.app(), self.instance.id(), self.instance.status);
        tracing::info!(app, instance, %status, "registered");
        Ok(())
    }

    /// Sends the DELETE until a server takes it or the time for a farewell is over.
    async fn cancel(&mut self) -> Result<(), Error> {
        if !self.attempted {
            return Ok(());
        }
        let deadline = Instant::now() + self.farewell;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let cancelled = timeout_at(deadline, self.hurried.cancel(self.instance.app(), self.instance.id())).await;
            let error = match cancelled {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => error,
                Err(_) => return Err(self.too_late("deregister")),
            };
            let pause = backoff.next();
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
        }
        self.attempted = false;
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

    fn too_late(&self, operation: &'static str) -> Error {
        Error::new(Kind::Timeout, operation)
            .app(self.instance.app())
            .instance(self.instance.id())
            .cause(format!("not done within {:?}", self.farewell))
            .advice("the lease ends by itself if the registry stays away")
    }
}

enum Beat {
    Done(Result<(), Error>),
    /// By this command, or by the end of all handles.
    Interrupted(Option<Command>),
}

fn renewal_interval(instance: &Instance) -> Duration {
    let seconds = instance.lease.unwrap_or_default().renewal_interval_secs;
    // At least a second, whatever a hand-made instance says.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64).max(1))
}
