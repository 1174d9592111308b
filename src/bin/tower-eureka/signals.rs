//! Signals that stop the server, or make it read its certificates, users and keys again.

use std::io;
use std::time::Duration;

/// Time within which further signals count as the first one. Some supervisors signal both the
/// process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(50);

const HANG_UP: &str = "SIGHUP";
const RELOAD: &str = "SIGUSR1";

/// Effect of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGUSR1. SIGHUP stops the server, as it does in Java: a terminal that closes sends it, too.
    Reload,
    Stop(Received),
}

/// Signal that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) name: &'static str,
    number: u8,
}

impl Received {
    /// Returns the exit code by which shells report a process that this signal ended.
    pub(crate) fn exit_code(self) -> u8 {
        128 + self.number
    }
}

/// Receiver of SIGTERM, SIGINT, SIGHUP, SIGQUIT and SIGUSR1. On systems other than Unix, of Ctrl-C.
#[derive(Debug)]
pub(crate) struct Signals(Inner);

impl Signals {
    /// Receives signals from now on. SIGHUP stays ignored if the parent ignored it, as `nohup`
    /// does.
    pub(crate) fn listen() -> io::Result<Self> {
        Inner::listen().map(Self)
    }

    /// Completes after the next signal and those that count as the same.
    ///
    /// Not safe to cancel: a dropped future may lose a signal.
    pub(crate) async fn first(&mut self) -> Signal {
        let first = self.0.next().await;
        if first.name == RELOAD {
            return Signal::Reload;
        }
        let together = async {
            loop {
                self.0.next().await;
            }
        };
        let _: Result<(), _> = tokio::time::timeout(SAME_SIGNAL, together).await;
        Signal::Stop(first)
    }

    /// Waits for a step of the start. Returns the signal if one stops the server first.
    ///
    /// A signal that arrives once the step is complete remains for [`first`](Self::first).
    pub(crate) async fn while_starting<T>(&mut self, step: impl Future<Output = T>) -> Result<T, Received> {
        tokio::select! {
            biased;
            signal = self.stop() => Err(signal),
            done = step => Ok(done),
        }
    }

    /// Completes at the first signal that stops the server.
    ///
    /// Safe to cancel: a dropped future has received no such signal.
    async fn stop(&mut self) -> Received {
        loop {
            let signal = self.0.next().await;
            if signal.name != RELOAD {
                return signal;
            }
        }
    }

    /// Completes at the next signal that stops the server, except SIGHUP, which is ignored: shells
    /// and the kernel send it again when a terminal closes.
    pub(crate) async fn second(&mut self) -> Received {
        loop {
            let signal = self.0.next().await;
            if ![HANG_UP, RELOAD].contains(&signal.name) {
                return signal;
            }
            tracing::info!(signal = signal.name, "signal ignored, already stopping");
        }
    }
}

#[cfg(unix)]
#[derive(Debug)]
struct Inner([Option<(tokio::signal::unix::Signal, Received)>; 5]);

#[cfg(unix)]
impl Inner {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let listen = |kind: SignalKind, name| -> io::Result<_> {
            let number = kind.as_raw_value() as u8;
            if name == HANG_UP && is_ignored(number) {
                return Ok(None);
            }
            Ok(Some((signal(kind)?, Received { name, number })))
        };
        Ok(Self([
            listen(SignalKind::terminate(), "SIGTERM")?,
            listen(SignalKind::interrupt(), "SIGINT")?,
            listen(SignalKind::hangup(), HANG_UP)?,
            listen(SignalKind::quit(), "SIGQUIT")?,
            listen(SignalKind::user_defined1(), RELOAD)?,
        ]))
    }

    async fn next(&mut self) -> Received {
        std::future::poll_fn(|cx| {
            for (signal, received) in self.0.iter_mut().flatten() {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*received);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Returns `true` if the parent process ignored this signal. Always `false` on systems other than
/// Linux.
#[cfg(unix)]
fn is_ignored(number: u8) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (number - 1) & 1 == 1
}

#[cfg(not(unix))]
#[derive(Debug)]
struct Inner;

#[cfg(not(unix))]
impl Inner {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Received {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "cannot listen for Ctrl-C");
            std::future::pending::<()>().await;
        }
        Received { name: "Ctrl-C", number: 2 }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use tokio::signal::unix::{SignalKind, signal};
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn signal_during_a_step_that_completes_next_stops_the_start() {
        let mut signals = Signals::listen().unwrap();
        let mut received = signal(SignalKind::terminate()).unwrap();
        let step = async {
            let killed = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
            assert!(killed.success());
            // A paused clock stands still while there is something to do.
            tokio::select! {
                _ = received.recv() => {}
                () = async { loop { yield_now().await } } => {}
            }
            yield_now().await;
        };
        assert_eq!(signals.while_starting(step).await, Err(Received { name: "SIGTERM", number: 15 }));
    }
}
