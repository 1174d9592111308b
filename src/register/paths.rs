use std::sync::Arc;

use http::Uri;

use crate::model::Instance;

/// Paths of probes and metrics, which by default do not count as calls.
const DEFAULT_PATHS: &[&str] = &[
    "/health",
    "/health/*",
    "/healthz",
    "/healthz/*",
    "/healthcheck",
    "/livez",
    "/livez/*",
    "/readyz",
    "/readyz/*",
    "/metrics",
    "/actuator/health",
    "/actuator/health/*",
    "/actuator/prometheus",
    "/grpc.health.v1.Health/*",
];

/// Paths whose requests do not count as calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Paths(Arc<[Box<str>]>);

impl Default for Paths {
    fn default() -> Self {
        Self::new(DEFAULT_PATHS.iter().copied())
    }
}

impl Paths {
    pub(super) fn new(paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(paths.into_iter().map(|path| path.into().into_boxed_str()).collect())
    }

    /// Adds the paths of the instance's health check URLs.
    pub(super) fn with_health_checks(&self, instance: &Instance) -> Self {
        let urls = [instance.health_check_url(), instance.secure_health_check_url()];
        let paths = urls.into_iter().flatten().filter_map(|url| url.parse::<Uri>().ok());
        // The root path also receives calls.
        let paths = paths.map(|uri| uri.path().to_owned()).filter(|path| path != "/");
        Self::new(self.0.iter().map(|path| path.to_string()).chain(paths))
    }

    /// Returns `true` if one of the paths matches. A path that ends in `/*` matches all paths below
    /// it.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == &**known,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_paths_contain_probes_and_the_registered_health_check() {
        let instance = Instance::builder("orders").ip_addr("10.0.0.1").port(80);
        let instance = instance.health_check_url("http://10.0.0.1:80/orders/up?x=1").build().unwrap();
        let paths = Paths::default().with_health_checks(&instance);
        for path in ["/actuator/health/readiness", "/healthz", "/grpc.health.v1.Health/Check", "/orders/up"] {
            assert!(paths.contains(path), "{path}");
        }
        for path in ["/", "/healthy", "/orders", "/orders/up/1", "/actuator", "/v1/health"] {
            assert!(!paths.contains(path), "{path}");
        }
        assert!(!Paths::new(["/probe"]).contains("/health"));
    }
}
