//! Endpoints for operators beside health, at the paths of Spring's actuator: the version, and the
//! metrics.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::probes::{JSON, respond};
use crate::server::http::state::ServerState;

/// Returns the routes of the actuator. Without metrics, those of the metrics are missing.
pub(super) fn router(server: ServerState) -> Router {
    #[cfg_attr(not(feature = "prometheus"), allow(unused_mut, reason = "only metrics add routes"))]
    let mut paths = vec!["/actuator/health", "/actuator/info"];
    #[cfg_attr(not(feature = "prometheus"), allow(unused_mut, reason = "only metrics add routes"))]
    let mut router = Router::new().route("/actuator/info", get(info));
    #[cfg(feature = "prometheus")]
    if server.measured().is_enabled() {
        paths.extend(["/actuator/metrics", "/actuator/prometheus"]);
        router = router
            .route("/metrics", get(metrics::text))
            .route("/actuator/prometheus", get(metrics::text))
            .route("/actuator/metrics", get(metrics::names))
            .route("/actuator/metrics/{name}", get(metrics::one));
    }
    paths.push("/actuator");
    let links: serde_json::Map<_, _> = paths
        .into_iter()
        .map(|path| {
            let name = path.rsplit('/').next().filter(|&name| name != "actuator").unwrap_or("self");
            (name.to_owned(), json!({"href": path, "templated": false}))
        })
        .collect();
    let links = json!({"_links": links}).to_string();
    router.route("/actuator", get(async move || respond(true, JSON, links.clone()))).with_state(server)
}

/// Responds with the version and the uptime.
async fn info(State(server): State<ServerState>) -> Response {
    let name = env!("CARGO_PKG_NAME");
    let info = json!({
        "app": {"name": name, "description": env!("CARGO_PKG_DESCRIPTION"), "version": env!("CARGO_PKG_VERSION")},
        "build": {
            "name": name,
            "version": env!("CARGO_PKG_VERSION"),
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            "features": features(),
        },
        "os": {"name": std::env::consts::OS, "arch": std::env::consts::ARCH},
        "process": {"pid": std::process::id(), "uptimeSeconds": server.uptime().as_secs()},
    });
    respond(true, JSON, info.to_string())
}

/// Returns the features that this server was built with.
fn features() -> Vec<&'static str> {
    let features = [
        ("access", cfg!(feature = "access")),
        ("cli", cfg!(feature = "cli")),
        ("dns", cfg!(feature = "dns")),
        ("page", cfg!(feature = "page")),
        ("peers", cfg!(feature = "peers")),
        ("pkcs12", cfg!(feature = "pkcs12")),
        ("prometheus", cfg!(feature = "prometheus")),
        ("tls", cfg!(feature = "tls")),
        ("xml", cfg!(feature = "xml")),
    ];
    features.into_iter().filter(|(_, is_enabled)| *is_enabled).map(|(name, _)| name).collect()
}

#[cfg(feature = "prometheus")]
mod metrics {
    use axum::extract::{Path, RawQuery, State};
    use axum::response::{IntoResponse, Response};
    use http::StatusCode;
    use http::header::RETRY_AFTER;

    use super::{JSON, ServerState, respond};
    use crate::server::http::query;
    use crate::server::metrics;

    /// Responds with all metrics in the text format of Prometheus.
    pub(super) async fn text(State(server): State<ServerState>) -> Response {
        let Some(text) = server.metrics_text().await else { return busy() };
        respond(true, metrics::CONTENT_TYPE, text)
    }

    /// Responds with the names of all metrics.
    pub(super) async fn names(State(server): State<ServerState>) -> Response {
        let Some(families) = server.metric_families().await else { return busy() };
        respond(true, JSON, metrics::names(&families).to_string())
    }

    /// Responds with one metric. The parameters `tag=NAME:VALUE` select some of its samples.
    pub(super) async fn one(
        State(server): State<ServerState>,
        Path(name): Path<String>,
        RawQuery(query): RawQuery,
    ) -> Response {
        let tags = query::pairs(query.as_deref()).filter(|(key, _)| key == "tag").map(|(_, tag)| tag.into_owned());
        let tags: Vec<_> = tags.collect();
        let Some(tags) = tags.iter().map(|tag| tag.split_once(':')).collect::<Option<Vec<_>>>() else {
            return (StatusCode::BAD_REQUEST, "a tag is tag=NAME:VALUE").into_response();
        };
        let Some(families) = server.metric_families().await else { return busy() };
        match metrics::one(&families, server.measured(), &name, &tags) {
            Some(metric) => respond(true, JSON, metric.to_string()),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// Returns the 503 for a request that waited for others too long.
    fn busy() -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "2")], "too many requests for metrics\n").into_response()
    }
}
