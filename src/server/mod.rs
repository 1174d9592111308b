//! The registry server: stock Java clients and servers cannot tell it from their own.
//!
//! It runs inside any axum application, or alone as `tower-eureka serve`.
//!
//! ```no_run
//! use axum::Router;
//! use tokio::net::TcpListener;
//! use tower_eureka::EurekaServer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("127.0.0.1:8761").await?;
//! let registry = EurekaServer::builder().build()?;
//! axum::serve(listener, Router::new().nest("/eureka", registry.router())).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it differs from the Java server
//!
//! * XML needs the feature `xml`. Without it, JSON is also for `*/*` and for no `Accept`, where Java answers XML; who takes nothing but
//!   XML gets 406, and who sends it 415.
//! * Lists have an `ETag`: who sends it back as `If-None-Match` gets 304 and no body while nothing has changed.
//! * An answer is never older than the last change: there is no cache that lags 30 s behind.
//! * In lists, `lastRenewalTimestamp` is that of the instance's last change; a single instance shows the present one.
//! * A status that a heartbeat corrects is published at once, and an override belongs to one application.
//! * Self-preservation counts the instances of this registry, so a small one can evict as well.
//!
//! # What is where
//!
//! `registry` is the core without IO, `bodies` encodes it, `http` answers requests; this module runs the timers.
//!
#![doc = include_str!("../../docs/quirks.md")]

mod bodies;
mod builder;
mod error;
mod http;
mod listen;
mod registry;
#[cfg(test)]
mod tests;
mod timers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::EurekaServerBuilder;
pub use self::error::Error;
pub use self::http::{EurekaService, ResponseFuture};
pub use self::listen::Listener;

use self::bodies::Bodies;
use self::registry::{Registry, Snapshot};
use self::timers::Timers;
use crate::clock::Clock;
use crate::model::{Application, Applications, Instance, app_name};

/// A Eureka registry inside this process. Cheap to clone: all clones and routers share one registry.
///
/// Its timers run as tokio tasks and end when the last clone and the last router are dropped.
#[derive(Clone)]
pub struct EurekaServer(Arc<Inner>);

struct Inner {
    registry: Arc<Registry>,
    bodies: Bodies,
    clock: Clock,
    registration_limit: usize,
    batch_limit: usize,
    _timers: Timers,
}

impl EurekaServer {
    /// Starts with the settings of a stock Spring Cloud server.
    pub fn builder() -> EurekaServerBuilder {
        EurekaServerBuilder::new()
    }

    /// The registry's HTTP face, to be mounted under any path.
    ///
    /// Clients are told the path at which it is mounted: `http://host:port/eureka/` for `Router::new().nest("/eureka", ...)`. Below
    /// that, `apps` and `v2/apps` are the same.
    pub fn router(&self) -> axum::Router {
        http::router(self.clone(), "")
    }

    /// The same as a plain service, for a server that serves nothing else: with the router below `mount`, such as `/eureka`, and a
    /// shorter way to a heartbeat's handler.
    ///
    /// # Panics
    /// When `mount` is neither empty nor begins with a slash.
    pub fn service(&self, mount: &str) -> EurekaService {
        EurekaService::new(self.clone(), mount.trim_end_matches('/'))
    }

    /// Everything that is registered, as `GET apps` answers it.
    pub fn applications(&self) -> Applications {
        applications(&self.0.registry.full())
    }

    /// One instance with its lease as it stands now. The application's name may have any case.
    pub fn instance(&self, app: &str, id: &str) -> Option<Instance> {
        self.0.registry.instance(&app_name(app), id, self.now())
    }

    fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    fn now(&self) -> i64 {
        self.0.clock.now_ms()
    }

    fn uptime(&self) -> Duration {
        self.0.clock.elapsed()
    }

    fn registration_limit(&self) -> usize {
        self.0.registration_limit
    }

    fn batch_limit(&self) -> usize {
        self.0.batch_limit
    }
}

impl fmt::Debug for EurekaServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaServer").field("instances", &self.0.registry.size()).finish_non_exhaustive()
    }
}

fn applications(snapshot: &Snapshot) -> Applications {
    let applications = snapshot.applications.iter().map(|view| {
        let instances = view.records.iter().map(|record| record.instance.clone()).collect();
        Arc::new(Application { name: view.name.clone(), instances })
    });
    Applications {
        version: Some(snapshot.version),
        hash: Some(snapshot.counts.to_string().into()),
        applications: applications.collect(),
    }
}
