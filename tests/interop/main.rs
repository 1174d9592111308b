//! Tests against real Spring Cloud Eureka servers and clients, each in a process of its own.
//!
//! Each test starts its processes on free ports, waits for conditions (never for a fixed time), and
//! stops its processes even if it fails. The suite needs a JDK 17 and Maven, and takes about
//! ten minutes: `cargo test --all-features --test interop -- --test-threads=64`. All tests are
//! started, so that the longest ones begin at once, and wait for a slot. Logs are in
//! `target/tmp/interop/`.
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

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

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

/// Waits until a test may start its processes: up to three JVMs.
///
/// Tests that wait for minutes and need little CPU time take no slot, so that all others run beside
/// them.
async fn slot() -> SemaphorePermit<'static> {
    static SLOTS: LazyLock<Semaphore> = LazyLock::new(|| {
        // Tests wait more than they compute.
        Semaphore::new(2 * available_parallelism().map_or(1, NonZero::get))
    });
    SLOTS.acquire().await.expect("semaphore is never closed")
}
