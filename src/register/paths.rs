use std::sync::Arc;

use http::Uri;

use crate::model::Instance;

/// Paths of probes and metrics, which do not count as calls unless the user says otherwise.
const UNCOUNTED: &[&str] = &[
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
        Self::new(UNCOUNTED.iter().copied())
    }
}

impl Paths {
    pub(super) fn new(paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(paths.into_iter().map(|path| path.into().into_boxed_str()).collect())
    }

    /// These paths, and those of the instance's health checks.
    pub(super) fn and_health_checks(&self, instance: &Instance) -> Self {
        let urls = [instance.health_check_url(), instance.secure_health_check_url()];
        let paths = urls.into_iter().flatten().filter_map(|url| url.parse::<Uri>().ok());
        // The root is where callers call.
        let paths = paths.map(|uri| uri.path().to_owned()).filter(|path| path != "/");
        Self::new(self.0.iter().map(|path| path.to_string()).chain(paths))
    }

    /// Returns `true` if the path is one of them. One that ends in `/*` stands for all below it.
    pub(super) fn contain(&self, path: &str) -> bool {
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
    fn probes_and_the_registered_health_check_do_not_count() {
        let instance = Instance::builder("orders").ip_addr("10.0.0.1").port(80);
        let instance = instance.health_check_url("http://10.0.0.1:80/orders/up?x=1").build().unwrap();
        let paths = Paths::default().and_health_checks(&instance);
        for path in ["/actuator/health/readiness", "/healthz", "/grpc.health.v1.Health/Check", "/orders/up"] {
            assert!(paths.contain(path), "{path}");
        }
        for path in ["/", "/healthy", "/orders", "/orders/up/1", "/actuator", "/v1/health"] {
            assert!(!paths.contain(path), "{path}");
        }
        assert!(!Paths::new(["/probe"]).contain("/health"));
    }
}
