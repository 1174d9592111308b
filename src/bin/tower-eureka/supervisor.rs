//! Notifications for systemd about the state of the process (`Type=notify`, `WatchdogSec=`). They
//! do nothing under another supervisor.

use std::convert::Infallible;
use std::net::SocketAddr;

use tower_eureka::EurekaServer;

#[cfg(not(target_os = "linux"))]
use self::elsewhere::{notify, watchdog};
#[cfg(target_os = "linux")]
use self::systemd::{notify, watchdog};

/// State of the process, as a supervisor shows it.
#[derive(Clone, Copy, Debug)]
enum State<'a> {
    Ready(&'a str),
    Stopping,
    Alive,
}

/// Reports that the listener is open.
pub(crate) fn ready(address: SocketAddr) {
    notify(State::Ready(&format!("listening on {address}")));
}

/// Reports that the process stops.
pub(crate) fn stopping() {
    notify(State::Stopping);
}

/// Reports twice per watchdog time that the process is alive: its runtime polls tasks, and the
/// registry responds. Without a watchdog it waits for ever.
pub(crate) async fn watch(registry: &EurekaServer) -> Infallible {
    let Some(limit) = watchdog() else { return std::future::pending().await };
    let mut interval = tokio::time::interval(limit / 2);
    loop {
        interval.tick().await;
        // Takes a lock of the registry, which would wait for ever if the registry were stuck.
        let _ = registry.instance("watchdog", "watchdog");
        notify(State::Alive);
    }
}

#[cfg(target_os = "linux")]
mod systemd {
    use std::time::Duration;

    use sd_notify::NotifyState;

    use super::State;

    pub(super) fn notify(state: State<'_>) {
        let states = match state {
            State::Ready(status) => &[NotifyState::Ready, NotifyState::Status(status)][..],
            State::Stopping => &[NotifyState::Stopping],
            State::Alive => &[NotifyState::Watchdog],
        };
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, ?state, "cannot notify systemd");
        }
    }

    pub(super) fn watchdog() -> Option<Duration> {
        sd_notify::watchdog_enabled().filter(|limit| *limit >= Duration::from_millis(2))
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::time::Duration;

    use super::State;

    pub(super) fn notify(_: State<'_>) {}

    pub(super) fn watchdog() -> Option<Duration> {
        None
    }
}
