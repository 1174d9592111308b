//! Tests against real Spring Cloud Eureka servers and clients, each in a process of its own.
//!
//! Each test starts its processes on free ports, waits for conditions (never for a fixed time), and
//! stops its processes even if it fails. The suite needs a JDK 17 and Maven, and takes about ten
//! minutes: `cargo test --all-features --test interop`. Logs are in `target/tmp/interop/`.
#![allow(clippy::print_stderr, reason = "a failed test shows the ends of its logs")]

mod against_spring;
mod command_line;
mod differential;
mod health_pages;
mod http;
mod instances;
mod locked_registry;
mod many_instances;
mod migration;
mod mixed_cluster;
#[expect(clippy::unwrap_used, reason = "the suites share it, and the others allow it")]
#[path = "../support/name_server.rs"]
mod name_server;
mod other_clients;
#[path = "../support/own_address.rs"]
mod own_address;
mod process;
mod provider_status;
mod registry_servers;
mod remote_regions;
mod rolling_restart;
mod rust;
mod service_settings;
mod spring;
mod spring_against_us;

use std::time::Duration;

/// Time between two checks of a condition.
const POLL: Duration = Duration::from_millis(100);

/// Waits until the probe returns a value. Panics with `what` if it returns none within the time
/// limit.
async fn until<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let polls = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(within, polls).await.unwrap_or_else(|_| panic!("not within {within:?}: {what}"))
}

/// Locks the suite: tests run one at a time, since each has up to two JVMs.
async fn exclusive() -> tokio::sync::MutexGuard<'static, ()> {
    static LOCK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    LOCK.lock().await
}
