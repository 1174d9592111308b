//! Real Spring Cloud Eureka servers and clients against ours, in processes of their own.
//!
//! Each scenario starts what it needs on free ports, waits for conditions (never for a time alone), and leaves nothing
//! running, also when it fails. It needs a JDK 17 and Maven, and about three minutes:
//! `cargo test --all-features --test interop`. The logs stay in `target/tmp/interop/`.
#![allow(clippy::print_stderr, reason = "a failed scenario shows the ends of its logs")]

mod against_spring;
mod differential;
mod http;
mod instances;
mod mixed_cluster;
mod other_clients;
mod process;
mod remote_regions;
mod rust;
mod spring;
mod spring_against_us;

use std::time::Duration;

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(100);

/// Waits until the probe finds what it looks for, and fails with this sentence if it does not within the bound.
async fn until<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let look = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(within, look).await.unwrap_or_else(|_| panic!("not within {within:?}: {what}"))
}

/// One scenario at a time: each has up to two JVMs.
async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}
