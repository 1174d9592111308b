//! Access control of requests: authentication, the decision about the operation, and the responses
//! to refused requests.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, StatusCode};

use super::path::innermost;
use super::state::ServerState;
use super::{intake, refusals, source};
use crate::model::app_name;
use crate::server::access::{
    AccessControl, Authentication, Change, Claim, Identity, Leases, Operation, Refusal, Target,
};
use crate::server::audit::{self, Quoted};
use crate::server::outcome::Origin;
use crate::server::owner::Owner;
use crate::server::registry::Registry;

/// Resource of a route, as far as permissions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Application,
    Instance,
    /// Override or metadata of an instance.
    Property,
    Batch,
    /// Resource that is read. Other methods are operations.
    Other,
    /// Resource for operators alone.
    #[cfg(feature = "page")]
    Operators,
}

impl Resource {
    fn operation<'a>(self, method: &Method, target: Target<'a>) -> Operation<'a> {
        let change = match (self, method.as_str()) {
            (Self::Batch, _) => return Operation::Replicate,
            #[cfg(feature = "page")]
            (Self::Operators, _) => return Operation::Operate,
            (_, "GET" | "HEAD" | "OPTIONS") => return Operation::Read,
            (Self::Application, "POST") => Change::Register,
            (Self::Instance, "PUT") => Change::Renew,
            (Self::Instance, "DELETE") => Change::Cancel,
            (Self::Property, _) => Change::Modify,
            _ => return Operation::Operate,
        };
        Operation::Change(change, target)
    }
}

impl Leases for Registry {
    fn owner(&self, app: &str, id: &str) -> Option<Owner> {
        self.owner_of(app, id)
    }

    fn owners(&self, app: &str) -> Vec<Owner> {
        self.owners_of(app)
    }

    fn claim(&self, app: &str, id: &str, owner: &Owner) {
        self.claim_owner(app, id, owner);
    }
}

/// Adds the access control to a route.
pub(super) fn route(
    server: &ServerState,
    resource: Resource,
    methods: MethodRouter<ServerState>,
) -> MethodRouter<ServerState> {
    methods.layer(middleware::from_fn_with_state((server.clone(), resource), check))
}

/// Adds the access control to a router outside of the registry: reading needs the role read,
/// everything else the role operate. Health is open to everybody, as at a Spring server.
pub(in crate::server) fn protect(server: &ServerState, router: Router) -> Router {
    router.layer(middleware::from_fn_with_state((server.clone(), Resource::Other), check))
}

/// Adds the access control to a router that needs the role operate for every request.
#[cfg(feature = "page")]
pub(in crate::server) fn protect_for_operators(server: &ServerState, router: Router) -> Router {
    router.layer(middleware::from_fn_with_state((server.clone(), Resource::Operators), check))
}

/// Returns true for the paths that everybody may read.
pub(super) fn is_public(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    matches!(path, "/health" | "/actuator/health" | "/actuator/health/liveness" | "/actuator/health/readiness")
}

async fn check(State((server, resource)): State<(ServerState, Resource)>, request: Request, next: Next) -> Response {
    if resource == Resource::Other && is_public(request.uri().path()) {
        return next.run(request).await;
    }
    let Some(access) = server.access() else {
        return match request.extensions().get::<Identity>() {
            None => next.run(request).await,
            Some(_) => refuse_identity(&server, request).await,
        };
    };
    let (mut parts, body) = request.into_parts();
    let identity = match authenticate(access, &parts.headers, &parts.extensions).await {
        Ok(identity) => identity,
        Err(refusal) => return refuse(&server, &parts, body, &refusal).await,
    };
    let params = RawPathParams::from_request_parts(&mut parts, &()).await;
    let app = params.as_ref().map_or_else(|_| Arc::from(""), |params| app_name(innermost(params, "app")));
    let id = params.as_ref().map_or("", |params| innermost(params, "id"));
    let target = Target { app: &app, id: Some(id).filter(|id| !id.is_empty()) };
    let operation = resource.operation(&parts.method, target);
    if let Err(refusal) = decide(&server, access, &identity, operation, &parts.headers) {
        return refuse(&server, &parts, body, &refusal).await;
    }
    parts.extensions.insert(identity);
    next.run(Request::from_parts(parts, body)).await
}

async fn authenticate(
    access: &Arc<AccessControl>,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Identity, Refusal> {
    match access.authenticate_now(headers, extensions) {
        Authentication::Done(result) => result,
        Authentication::Slow(slow) => access.authenticate(slow).await,
    }
}

/// Decides about the operation of an authenticated caller.
pub(super) fn decide(
    server: &ServerState,
    access: &AccessControl,
    identity: &Identity,
    operation: Operation<'_>,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let is_replica = source::origin(headers) == Origin::Replica;
    access.decide(identity, operation, is_replica, &**server.registry())
}

/// Decides about the change of an instance once its body was read, since another identity may have
/// registered the instance meanwhile. The change must be applied while the claim is held.
///
/// # Errors
/// Returns the response to a caller that may not change the instance.
pub(super) fn claim<'s>(
    server: &'s ServerState,
    parts: &Parts,
    change: Change,
    app: &str,
    id: &str,
) -> Result<Option<Claim<'s>>, Box<Response>> {
    let (Some(access), Some(identity)) = (server.access(), parts.extensions.get::<Identity>()) else { return Ok(None) };
    let is_replica = source::origin(&parts.headers) == Origin::Replica;
    let operation = Operation::Change(change, Target { app, id: Some(id) });
    let claim = access.claim(identity, operation, is_replica, &**server.registry());
    claim.map_err(|refusal| Box::new(refused(server, parts, &refusal)))
}

/// Maximum time for the rest of the body of a refused request. A client that is still sending then
/// may not see the response, since the connection is closed.
const REFUSED_BODY_TIME: Duration = Duration::from_secs(1);

/// Logs a refusal, reads the body of the request so that the connection can be used again, and
/// returns the response.
pub(super) async fn refuse(server: &ServerState, parts: &Parts, body: Body, refusal: &Refusal) -> Response {
    intake::ignore_within(server.intake(), REFUSED_BODY_TIME, parts, body).await;
    refused(server, parts, refusal)
}

/// Refuses a request into which a layer of the user's inserted an identity, although the registry
/// has no access control that would decide by its roles.
pub(super) async fn refuse_identity(server: &ServerState, request: Request) -> Response {
    const REASON: &str = "the request has an Identity, but the registry has no access control that decides by it: \
                          call EurekaServerBuilder::access(Access::new())";
    let (parts, body) = request.into_parts();
    intake::ignore_within(server.intake(), REFUSED_BODY_TIME, &parts, body).await;
    let response = with_text(&parts.method, StatusCode::INTERNAL_SERVER_ERROR, format!("{REASON}\n"));
    server.refusals().response(&parts, response, &REASON)
}

/// Returns a response with a text. Jersey clients fail on a body in the response to a heartbeat.
fn with_text(method: &Method, status: StatusCode, text: String) -> Response {
    if *method == Method::PUT {
        return status.into_response();
    }
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// Logs a refusal and returns the response.
pub(super) fn refused(server: &ServerState, parts: &Parts, refusal: &Refusal) -> Response {
    let status = refusal.status();
    let address = audit::address(&parts.extensions).map(|address| address.ip());
    let suppressed = server.access().and_then(|access| access.log(refusal, parts.method.is_safe(), address));
    if let Some(suppressed) = suppressed {
        let origin = refusals::caller(parts);
        let (method, path) = (Quoted(parts.method.as_str()), Quoted(parts.uri.path()));
        tracing::warn!(%method, %path, %origin, status = status.as_u16(), error = %refusal, suppressed, "access refused");
    }
    let mut response = with_text(&parts.method, status, refusal.public() + "\n");
    let headers = response.headers_mut();
    if let Some(challenge) = refusal.challenge() {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = refusal.retry_after() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_depends_on_resource_and_method() {
        const TARGET: Target<'_> = Target { app: "A", id: Some("i") };
        for (resource, method, expected) in [
            (Resource::Application, Method::GET, Operation::Read),
            (Resource::Application, Method::POST, Operation::Change(Change::Register, TARGET)),
            (Resource::Application, Method::PUT, Operation::Operate),
            (Resource::Instance, Method::PUT, Operation::Change(Change::Renew, TARGET)),
            (Resource::Instance, Method::DELETE, Operation::Change(Change::Cancel, TARGET)),
            (Resource::Instance, Method::PATCH, Operation::Operate),
            (Resource::Property, Method::DELETE, Operation::Change(Change::Modify, TARGET)),
            (Resource::Batch, Method::GET, Operation::Replicate),
            (Resource::Batch, Method::POST, Operation::Replicate),
            (Resource::Other, Method::HEAD, Operation::Read),
            (Resource::Other, Method::POST, Operation::Operate),
        ] {
            assert_eq!(resource.operation(&method, TARGET), expected, "{resource:?} {method}");
        }
    }

    #[test]
    fn only_health_is_public() {
        for path in ["/health", "/actuator/health/", "/actuator/health/readiness"] {
            assert!(is_public(path), "{path}");
        }
        for path in ["/", "/actuator", "/actuator/health/x", "/actuator/%68ealth", "//health", "/metrics", "/health//"]
        {
            assert!(!is_public(path), "{path}");
        }
    }
}
