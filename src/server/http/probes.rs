//! Health endpoints for load balancers and orchestrators, at the paths of a Spring server.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::json;

use crate::server::http::state::ServerState;

const JSON: &str = "application/json";

/// Returns the routes of the probes. The page at `/` shows `mount`, the path of the registry.
pub(super) fn router(server: ServerState, mount: &str) -> Router {
    let mut router = Router::new();
    for path in ["/health", "/actuator/health", "/actuator/health/readiness"] {
        router = router.route(path, get(readiness)).route(&format!("{path}/"), get(readiness));
    }
    for path in ["/actuator/health/liveness", "/actuator/health/liveness/"] {
        router = router.route(path, get(liveness));
    }
    let registry = format!("{mount}/apps");
    router.route("/", get(move |server| index(server, registry))).with_state(server)
}

/// Responds with health in Spring Boot's format, and with the reason.
async fn readiness(State(server): State<ServerState>) -> Response {
    let open = server.is_open();
    let status = if open { "UP" } else { "OUT_OF_SERVICE" };
    let reason = json!(server.gate_reason());
    let body = format!(
        r#"{{"status":"{status}","components":{{"readinessState":{{"status":"{status}"}},"registry":{{"status":"{status}","details":{{"reason":{reason}}}}}}}}}"#
    );
    respond(open, JSON, body)
}

async fn liveness() -> Response {
    ([(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], r#"{"status":"UP"}"#).into_response()
}

async fn index(State(server): State<ServerState>, registry: String) -> Response {
    let open = server.is_open();
    let state = if open { "open for traffic" } else { "not open for traffic yet" };
    let name = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let reason = server.gate_reason();
    respond(open, "text/plain; charset=utf-8", format!("{name}\n{state}: {reason}\nregistry: {registry}\n"))
}

/// Responds with 200 if the server is open for traffic, else with 503.
fn respond(open: bool, content_type: &'static str, body: String) -> Response {
    let status = if open { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")], body).into_response()
}
