//! Health endpoints for load balancers and orchestrators, at the paths and in the format of a
//! Spring server.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use crate::server::http::state::ServerState;
use crate::server::registry::Renewals;

pub(super) const JSON: &str = "application/json";
const UP: &str = "UP";
const OUT_OF_SERVICE: &str = "OUT_OF_SERVICE";
/// Status of a component that an operator should look at. Unlike DOWN, it leaves the server UP.
const UNKNOWN: &str = "UNKNOWN";

/// Returns the routes of the probes. The page at `/` shows `mount`, the path of the registry.
pub(super) fn router(server: ServerState, mount: &str) -> Router {
    let mut router = Router::new();
    for path in ["/health", "/actuator/health"] {
        router = router.route(path, get(health)).route(&format!("{path}/"), get(health));
    }
    for path in ["/actuator/health/readiness", "/actuator/health/readiness/"] {
        router = router.route(path, get(readiness));
    }
    for path in ["/actuator/health/liveness", "/actuator/health/liveness/"] {
        router = router.route(path, get(liveness));
    }
    let registry = format!("{mount}/apps");
    router
        .route("/actuator/health/{component}", get(component))
        .route("/", get(move |server| index(server, registry)))
        .with_state(server)
}

/// Responds with the health of all components. The status of the server is its readiness.
async fn health(State(server): State<ServerState>) -> Response {
    let (status, components) = (readiness_status(&server), public_components(&server));
    let components = Value::from(components);
    let body = format!(r#"{{"status":"{status}","components":{components},"groups":["liveness","readiness"]}}"#);
    respond(server.is_ready(), JSON, body)
}

/// Responds with the readiness, and with its reason.
async fn readiness(State(server): State<ServerState>) -> Response {
    let (status, mut all) = (readiness_status(&server), public_components(&server));
    all.retain(|name, _| matches!(name.as_str(), "readinessState" | "registry"));
    let components = Value::from(all);
    respond(server.is_ready(), JSON, format!(r#"{{"status":"{status}","components":{components}}}"#))
}

async fn liveness() -> Response {
    respond(true, JSON, r#"{"status":"UP"}"#.to_owned())
}

/// Responds with the health of one component.
async fn component(State(server): State<ServerState>, Path(name): Path<String>) -> Response {
    match components(&server).get(&name) {
        Some(component) => respond(component["status"] != OUT_OF_SERVICE, JSON, component.to_string()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn readiness_status(server: &ServerState) -> &'static str {
    if server.is_ready() { UP } else { OUT_OF_SERVICE }
}

/// Returns the components as everybody may see them: without details if there is access control.
fn public_components(server: &ServerState) -> Map<String, Value> {
    let mut components = components(server);
    if server.access().is_some() {
        for component in components.values_mut().filter_map(Value::as_object_mut) {
            component.remove("details");
        }
    }
    components
}

fn components(server: &ServerState) -> Map<String, Value> {
    let ready = readiness_status(server);
    let mut components = Map::new();
    let mut add = |name: &str, component: Value| components.insert(name.to_owned(), component);
    add("livenessState", json!({"status": UP}));
    add("readinessState", json!({"status": ready}));
    add("ping", json!({"status": UP}));
    let details = json!({"reason": server.readiness_reason(), "instances": server.registry().size()});
    add("registry", json!({"status": ready, "details": details}));
    add("selfPreservation", self_preservation(server));
    let replicas = server.replicas();
    if !replicas.is_empty() {
        let is_complete = replicas.iter().all(|(_, available)| *available);
        let state = |available| if available { UP } else { "DOWN" };
        let details: Map<_, _> =
            replicas.iter().map(|(url, available)| (url.to_string(), state(*available).into())).collect();
        add("peers", json!({"status": if is_complete { UP } else { UNKNOWN }, "details": details}));
    }
    components
}

/// Returns the state of self-preservation. While it is active, the lists may show instances that
/// are gone.
fn self_preservation(server: &ServerState) -> Value {
    let registry = server.registry();
    let (preservation, Renewals { last_minute, threshold, .. }) = (registry.preservation(), registry.renewals());
    let details = json!({
        "state": preservation.state(),
        "preservedApplications": preservation.to_string(),
        "renewsLastMinute": last_minute,
        "renewsThreshold": threshold,
    });
    json!({"status": if preservation.is_active() { UNKNOWN } else { UP }, "details": details})
}

async fn index(State(server): State<ServerState>, registry: String) -> Response {
    let ready = server.is_ready();
    let state = if ready { "open for traffic" } else { "not open for traffic yet" };
    let name = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let reason = server.readiness_reason();
    respond(ready, "text/plain; charset=utf-8", format!("{name}\n{state}: {reason}\nregistry: {registry}\n"))
}

/// Responds with 200 if the server is ready, else with 503.
pub(super) fn respond(ready: bool, content_type: &'static str, body: impl Into<Body>) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")], body.into()).into_response()
}
