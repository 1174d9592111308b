//! Health checks of instances.

use std::sync::Arc;
use std::time::Duration;

use super::CallOptions;

/// Health checks of instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::client) struct HealthCheck {
    /// Interval. Without one there are no checks.
    pub(in crate::client) interval: Option<Duration>,
    /// Path and port that replace those of the registered URLs.
    pub(in crate::client) target: CheckTarget,
}

/// Path and port of health checks, as far as they replace those of the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::client) struct CheckTarget {
    pub(in crate::client) path: Option<Arc<str>>,
    pub(in crate::client) port: Option<u16>,
}

impl CallOptions {
    /// Checks the health of each instance at this interval, and does not call unhealthy ones.
    /// Defaults to off: instances that are UP in the registry are called.
    ///
    /// A check is a GET of the instance's `healthCheckUrl`, or `secureHealthCheckUrl` if it has one
    /// and is called over TLS; [`health_check_path`](Self::health_check_path) sets another URL. A
    /// 2xx response means healthy. Redirects are not followed. An instance without such a URL
    /// counts as healthy. See
    /// [`Builder::health_check`](crate::balance::Builder::health_check).
    ///
    /// The registered URL is used as it is, so anyone who can register an instance chooses the URLs
    /// that this process requests. Every caller checks every instance, which is many requests if
    /// there are many of both.
    ///
    /// Spring's health checks, if enabled, request `/actuator/health` at the called address every
    /// 25 seconds and accept only status 200. If no instance is healthy, Spring fails calls,
    /// contrary to its documentation. This client then calls all instances.
    ///
    /// Has no effect below an [`EurekaLayer`](crate::client::EurekaLayer), which has no connections
    /// of its own.
    pub fn health_check(mut self, interval: Duration) -> Self {
        self.health_check.interval = Some(interval);
        self
    }

    /// Sends [health checks](Self::health_check) to this path at the address at which the instance
    /// is called, whatever URL it registered. Defaults to the registered URL.
    ///
    /// An empty path switches health checks off, as in Spring.
    pub fn health_check_path(mut self, path: impl Into<Arc<str>>) -> Self {
        self.health_check.target.path = Some(path.into());
        self
    }

    /// Sends [health checks](Self::health_check) to this port of the host at which the instance is
    /// called. Defaults to the port of the URL.
    ///
    /// Without a [path](Self::health_check_path), the path is `/actuator/health`.
    pub fn health_check_port(mut self, port: u16) -> Self {
        self.health_check.target.port = Some(port);
        self
    }
}

impl HealthCheck {
    /// Returns the interval. `None` if there are no checks.
    pub(in crate::client) fn interval(&self) -> Option<Duration> {
        let is_off = self.target.path.as_deref().is_some_and(|path| path.trim().is_empty());
        self.interval.filter(|_| !is_off)
    }
}

impl CheckTarget {
    /// Returns the path at which instances are checked, and the port unless it is that of calls.
    /// `None` if the registered URLs are requested.
    pub(in crate::client) fn replaced(&self) -> Option<(String, Option<u16>)> {
        const SPRING: &str = "/actuator/health";
        match (&self.path, self.port) {
            (None, None) => None,
            (path, port) => {
                let path = path.as_deref().unwrap_or(SPRING).trim();
                let slash = if path.starts_with('/') { "" } else { "/" };
                Some((format!("{slash}{path}"), port))
            }
        }
    }
}
