//! REST operations of a registry as an axum router (docs/protocol.md, "Operations").
//!
//! Handlers parse the request, call one operation of the registry and respond with exactly the
//! status of a Java server. A refused request changes nothing in the registry.
//!
//! | module | content |
//! |---|---|
//! | `applications` | lists: the registry, the delta, one application, VIPs |
//! | `instances` | one instance: registration, heartbeat, cancellation, overrides, metadata |
//! | `info` | the server itself: status, overrides, auto scaling groups |
//! | `replication` | batches from other registry servers |
//! | `operation` | the operation of a request by its method and path, for layers of users |
//! | `path`, `query`, `request` | extractors: names, parameters, headers, request bodies |
//! | `intake`, `source`, `offload` | budget of request bodies in flight, and their decoding on other threads |
//! | `json_scan`, `decompress` | limits of a document: depth, number of values, gzip |
//! | `refusals`, `fallback` | log of refused requests; requests that no operation handles |
//! | `scope` | regions that a response includes |
//! | `probes`, `actuator` | health, version and metrics for load balancers and operators |
//! | `guard` | access control of requests |
//! | `state` | parts of the server that the operations share |
//! | `service` | the registry as a service, and the fast path |
//! | `throttle` | rate limits |
//! | `date` | the time of responses that peers measure |
//! | `response`, `if_none_match` | responses, content negotiation, conditional requests |

mod actuator;
mod applications;
mod date;
mod decompress;
mod fallback;
mod guard;
mod if_none_match;
mod info;
mod instances;
mod intake;
mod json_scan;
mod offload;
mod operation;
mod path;
mod probes;
mod query;
mod refusals;
mod replication;
mod request;
mod response;
mod scope;
mod service;
mod source;
mod state;
mod throttle;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, Route, get, post, put};
use tower::layer::layer_fn;
use tower::service_fn;

#[cfg(feature = "page")]
pub(super) use self::date::http_date;
use self::guard::Resource;
#[cfg(feature = "page")]
pub(super) use self::guard::{protect, protect_for_operators};
#[cfg(feature = "page")]
pub(super) use self::if_none_match::matches as etag_matches;
#[cfg(feature = "page")]
pub(super) use self::info::{application_stats, general_stats, uptime_text};
pub(super) use self::instances::{Invalid, UNKNOWN_OVERRIDE, valid};
pub(super) use self::intake::Intake;
pub use self::operation::{Describe, DescribeLayer, Operation, OperationKind};
#[cfg(feature = "page")]
pub(super) use self::query::pairs;
pub(super) use self::refusals::Refusals;
#[cfg(feature = "page")]
pub(super) use self::response::accepts_gzip;
use self::service::Dispatch;
pub use self::service::{RegistryService, ResponseFuture};
pub(super) use self::state::{Parts, ServerState};

/// Suffixes of a client's base URL. Netflix clients append a version, which may be any word as in
/// Java. fargo doubles the slash of a base URL that ends in one.
const PREFIXES: [&str; 4] = ["", "/{version}", "/", "/{version}/"];

/// Routes for operators and their tools, without those of the registry: health, version and
/// metrics. `mount` is the path of the registry.
pub(super) fn management(server: ServerState, mount: &str) -> Router {
    let router = probes::router(server.clone(), mount).merge(actuator::router(server.clone()));
    guard::protect(&server, router)
}

/// Health endpoints alone.
pub(super) fn health(server: ServerState, mount: &str) -> Router {
    guard::protect(&server, probes::router(server.clone(), mount))
}

/// Adds the rate limit of each address to a router, if there is one.
pub(super) fn limit_senders(server: &ServerState, router: Router) -> Router {
    match server.rate_limits() {
        Some(_) => router.layer(from_fn_with_state(server.clone(), throttle::limit_senders)),
        None => router,
    }
}

/// Returns the router of the operations, for a caller that applies the rate limits.
fn routes(server: ServerState, mount: &str) -> Router {
    let resources: [(&str, Resource, MethodRouter<ServerState>); 13] = [
        ("/apps", Resource::Other, get(applications::all)),
        ("/apps/delta", Resource::Other, get(applications::delta)),
        ("/apps/{app}", Resource::Application, get(applications::one).post(instances::register)),
        (
            "/apps/{app}/{id}",
            Resource::Instance,
            get(instances::one).put(instances::heartbeat).delete(instances::cancel),
        ),
        (
            "/apps/{app}/{id}/status",
            Resource::Property,
            put(instances::set_override).delete(instances::delete_override),
        ),
        ("/apps/{app}/{id}/metadata", Resource::Property, put(instances::merge_metadata)),
        ("/instances/{id}", Resource::Other, get(instances::by_id)),
        ("/vips/{vip}", Resource::Other, get(applications::by_vip)),
        ("/svips/{vip}", Resource::Other, get(applications::by_secure_vip)),
        ("/peerreplication/batch", Resource::Batch, post(replication::batch)),
        ("/peerreplication/owners", Resource::Batch, get(replication::owners)),
        ("/asg/{name}/status", Resource::Other, put(info::asg)),
        ("/status", Resource::Other, get(info::status)),
    ];
    let resources = resources.map(|(path, resource, methods)| (path, guard::route(&server, resource, methods)));
    let overrides = guard::route(&server, Resource::Other, get(info::overrides));
    let mut router = Router::new().route(&format!("{mount}/serverinfo/statusoverrides"), overrides);
    for prefix in PREFIXES {
        for (path, methods) in &resources {
            let path = format!("{mount}{prefix}{path}");
            router = router.route(&path, methods.clone()).route(&format!("{path}/"), methods.clone());
        }
    }
    router.method_not_allowed_fallback(fallback::not_allowed).with_state(server)
}

/// Returns the router for a server of the user's.
pub(super) fn embedded_router(server: &ServerState) -> Router {
    let known = server.clone();
    routes(server.clone(), "").route_layer(layer_fn(move |route: Route| {
        // Shared, since a clone of a route clones its layers.
        let dispatch = Arc::new(Dispatch::before(known.clone(), route));
        service_fn(move |request| dispatch.call(request))
    }))
}
