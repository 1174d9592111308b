//! A registry inside a process, with its page and probes, and with the feature `prometheus` its
//! metrics:
//!
//! ```sh
//! cargo run --example registry --all-features   # then open http://127.0.0.1:8761/
//! ```
//!
//! `PORT` sets the port. Properties such as `eureka.server.limits.instances` come from variables.
//! With peers, the node syncs up at the start, and sends them what is queued at SIGTERM or Ctrl-C.
#![allow(clippy::print_stdout, reason = "an example prints to stdout")]

use std::time::Duration;

use tokio::net::TcpListener;
use tower_eureka::{EurekaServer, shutdown_signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = EurekaServer::builder().from_env()?.build()?;
    let port = std::env::var("PORT").map_or(Ok(8761), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/eureka/", listener.local_addr()?);
    let stopping = registry.clone();
    let stop = async move {
        shutdown_signal().await;
        stopping.leave(Duration::from_secs(5)).await;
    };
    registry.listener(listener).serve(registry.service("/eureka").with_probes().with_page(), stop).await;
    // Changes of the last requests.
    registry.leave(Duration::from_secs(5)).await;
    Ok(())
}
