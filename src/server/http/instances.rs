//! Operations on one instance: register, heartbeat, cancel, status override, metadata update, query
//! (docs/protocol.md, "Operations").

use std::fmt::{self, Display};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;

use super::date::dated;
use super::guard;
use super::intake;
use super::path::{App, Id, Target};
use super::query;
use super::refusals::Chain;
use super::request::{self, Refusal};
use super::response::{self, Format};
use super::scope::{self, Scope};
use super::source;
use crate::model::{self, DataCenter, Instance, InstanceStatus, MAX_METADATA_ENTRIES};
use crate::server::access::Change;
use crate::server::audit::{self, Caller, Quoted};
use crate::server::http::state::ServerState;
use crate::server::outcome::{Origin, Refused, Renewal};

const UNKNOWN_INSTANCE: &str = "unknown instance";
/// Maximum number of values in a registration, unknown members included. An instance has about 40
/// values and its metadata.
const MAX_VALUES: usize = 10_000;
/// `Retry-After` of a registration beyond a limit of the registry, in seconds. Clients register
/// again with their next heartbeat, every 30 seconds.
const FULL_RETRY_SECS: HeaderValue = HeaderValue::from_static("10");
pub(in crate::server) const UNKNOWN_OVERRIDE: &str = "UNKNOWN is not an override: delete the existing override instead";
const NOT_A_NUMBER: &str = "lastDirtyTimestamp is not a whole number";

pub(super) async fn register(
    State(server): State<ServerState>,
    app: Result<App, RawPathParamsRejection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let refused = |response: Response, reason: &dyn Display| server.refusals().response(&parts, response, reason);
    let App(app) = match app {
        Ok(app) => app,
        Err(rejection) => {
            let reason = rejection.to_string();
            return refused(rejection.into_response(), &reason);
        }
    };
    let intake = server.intake();
    let document = match request::document(intake, &parts, body, server.registration_limit()).await {
        Ok(document) => document,
        Err(refusal) => return refused(refusal.response(), &refusal),
    };
    let format = document.format;
    let decoded = document.decode(intake, MAX_VALUES, move |body| match format {
        Format::Json => model::registration(body),
        #[cfg(feature = "xml")]
        Format::Xml => model::xml::registration(body),
    });
    let instance = match decoded.await {
        Ok((Ok(instance), _)) => instance,
        Ok((Err(error), _)) => return refused(Refusal::undecodable(format, &error).response(), &Chain(&error)),
        Err(refusal) => return refused(refusal.response(), &refusal),
    };
    match valid(instance, &app) {
        Ok(instance) => {
            let _claim = match guard::claim(&server, &parts, Change::Register, &app, instance.id()) {
                Ok(claim) => claim,
                Err(response) => return *response,
            };
            let caller = Caller::of(source::origin(&parts.headers), &parts.extensions);
            match server.node().register(instance, &caller) {
                Ok(()) => StatusCode::NO_CONTENT.into_response(),
                Err(error) => refused(error.into_response(), &error),
            }
        }
        Err(invalid) => {
            let response = match &invalid {
                Invalid::Unreadable => Refusal::unreadable(format).response(),
                Invalid::Text(text) => (StatusCode::BAD_REQUEST, text.clone()).into_response(),
            };
            refused(response, &invalid)
        }
    }
}

/// Reason why a registration is refused.
#[derive(Debug)]
pub(in crate::server) enum Invalid {
    /// Java's decoder fails on it.
    Unreadable,
    /// Java responds with this text, which clients print.
    Text(String),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "unknown data center name",
            Self::Text(text) => text,
        })
    }
}

impl IntoResponse for Refused {
    /// Returns the response to a registration. With any of its statuses a Java client tries the
    /// next server, and registers again with its next heartbeat.
    fn into_response(self) -> Response {
        if !self.is_temporary() {
            return (StatusCode::PAYLOAD_TOO_LARGE, self.to_string()).into_response();
        }
        // Not 503, from which proxies conclude that the node is down.
        (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, FULL_RETRY_SECS)], self.to_string()).into_response()
    }
}

/// Returns the status of a refused item of a batch.
pub(super) fn status(refused: Refused) -> StatusCode {
    if refused.is_temporary() { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::PAYLOAD_TOO_LARGE }
}

/// Validates a registration in Java's order, and adds the missing `instance-id` of an Amazon data
/// center (docs/server.md, "Validation of a registration").
pub(in crate::server) fn valid(mut instance: Instance, app: &str) -> Result<Instance, Invalid> {
    let text = |text: &str| Err(Invalid::Text(text.into()));
    if matches!(instance.data_center(), Some(DataCenter::Other(name)) if !name.is_empty()) {
        return Err(Invalid::Unreadable);
    }
    if instance.id().is_empty() {
        return text("Missing instanceId");
    }
    if instance.host_name().is_none() {
        return text("Missing hostname");
    }
    if instance.ip_addr().is_none() {
        return text("Missing ip address");
    }
    if instance.app().is_empty() {
        return text("Missing appName");
    }
    if instance.app() != app {
        return text(&format!("Mismatched appName, expecting {app} but was {}", instance.app()));
    }
    let id = instance.id().to_owned();
    match &mut instance.data_center {
        None => return text("Missing dataCenterInfo"),
        Some(DataCenter::Other(_)) => return text("Missing dataCenterInfo Name"),
        Some(DataCenter::Amazon(metadata)) if metadata.get("instance-id").is_none() => {
            metadata.insert("instance-id", id);
        }
        Some(_) => {}
    }
    Ok(instance)
}

pub(super) async fn heartbeat(
    State(server): State<ServerState>,
    Target { app, id }: Target,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    intake::ignore(server.intake(), &parts, body).await;
    renew(&server, &app, &id, &parts.headers, parts.uri.query(), || Caller::of(Origin::Replica, &parts.extensions))
}

/// Renews a lease, once the body of the heartbeat was read (docs/server.md, "Heartbeat"). `replica`
/// returns the sender of a replicated one.
pub(super) fn renew(
    server: &ServerState,
    app: &str,
    id: &str,
    headers: &HeaderMap,
    query: Option<&str>,
    replica: impl FnOnce() -> Caller,
) -> Response {
    let origin = source::origin(headers);
    let dirty = query::first(query, "lastDirtyTimestamp").map(|text| text.parse::<i64>());
    let known = dirty.as_ref().and_then(|parsed| parsed.as_ref().ok()).copied();
    let renewal = server.node().renew(app, id, known, origin);
    match renewal {
        Renewal::NotFound => {
            tracing::debug!(app = %Quoted(app), instance = %Quoted(id), "heartbeat of unknown instance");
            StatusCode::NOT_FOUND.into_response()
        }
        // Java parses the parameter after it has renewed the lease.
        _ if matches!(dirty, Some(Err(_))) => not_a_number(),
        Renewal::Renewed => StatusCode::OK.into_response(),
        Renewal::SenderIsNewer => {
            if origin == Origin::Replica
                && let Some(word) = query::first(query, "overriddenstatus")
            {
                match word.parse() {
                    Ok(InstanceStatus::Unknown) => {}
                    Ok(status) => {
                        let effect = server.registry().store_override(app, id, status, server.now());
                        audit::override_set(app, id, status, &effect, &replica(), server.registry().changes());
                    }
                    Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
                }
            }
            StatusCode::NOT_FOUND.into_response()
        }
        Renewal::SenderIsOlder(instance) => {
            let copy = Format::of(headers).unwrap_or(Format::Json).instance(&instance);
            // Without the copy, the sender learns the newer state only later.
            let length = copy.body().size_hint().lower().try_into().unwrap_or(usize::MAX);
            let mut response = if server.unsent().has_room_for(length) { copy } else { Response::default() };
            *response.status_mut() = StatusCode::CONFLICT;
            response
        }
    }
}

pub(super) async fn cancel(
    State(server): State<ServerState>,
    Target { app, id }: Target,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    intake::ignore(server.intake(), &parts, body).await;
    let _claim = match guard::claim(&server, &parts, Change::Cancel, &app, &id) {
        Ok(claim) => claim,
        Err(response) => return *response,
    };
    let caller = Caller::of(source::origin(&parts.headers), &parts.extensions);
    let found = server.node().cancel(&app, &id, &caller);
    if !found {
        tracing::debug!(app = %Quoted(&app), instance = %Quoted(&id), origin = %caller, "cancellation of unknown instance");
    }
    response::found(found)
}

pub(super) async fn set_override(
    State(server): State<ServerState>,
    target: Target,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    change_override(&server, target, query.as_deref(), request, None).await
}

pub(super) async fn delete_override(
    State(server): State<ServerState>,
    target: Target,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    change_override(&server, target, query.as_deref(), request, Some(InstanceStatus::Unknown)).await
}

/// Sets an override, or deletes it if `deletes_to` is set: the status that counts if there is no
/// parameter `value`. An unknown instance is reported before an invalid parameter.
async fn change_override(
    server: &ServerState,
    Target { app, id }: Target,
    query: Option<&str>,
    request: Request,
    deletes_to: Option<InstanceStatus>,
) -> Response {
    let (parts, body) = request.into_parts();
    intake::ignore(server.intake(), &parts, body).await;
    let _claim = match guard::claim(server, &parts, Change::Modify, &app, &id) {
        Ok(claim) => claim,
        Err(response) => return *response,
    };
    let caller = Caller::of(source::origin(&parts.headers), &parts.extensions);
    let refused = |response: Response, reason: &dyn Display| server.refusals().response(&parts, response, reason);
    let absent = || refused(scope::absent(server, &app, &id), &UNKNOWN_INSTANCE);
    if server.registry().instance(&app, &id, server.now()).is_none() {
        return absent();
    }
    let bad = |status: StatusCode, text: String| refused((status, text.clone()).into_response(), &text);
    let status = match (query::first(query, "value"), deletes_to) {
        (Some(word), _) => match word.parse() {
            // An instance with the override UNKNOWN would be asked to register by each heartbeat,
            // for ever. It is accepted from replicas, since a Java peer may have accepted it.
            Ok(InstanceStatus::Unknown) if deletes_to.is_none() && caller.origin() == Origin::Client => {
                return bad(StatusCode::BAD_REQUEST, UNKNOWN_OVERRIDE.into());
            }
            Ok(status) => status,
            Err(error) => return bad(StatusCode::INTERNAL_SERVER_ERROR, format!("value {error}")),
        },
        (None, Some(status)) => status,
        (None, None) => return bad(StatusCode::INTERNAL_SERVER_ERROR, "value is missing".into()),
    };
    let Ok(dirty) = query::first(query, "lastDirtyTimestamp").map(|text| text.parse()).transpose() else {
        return refused(not_a_number(), &NOT_A_NUMBER);
    };
    let found = match deletes_to {
        Some(_) => server.node().delete_override(&app, &id, status, dirty, &caller),
        None => server.node().set_override(&app, &id, status, dirty, &caller),
    };
    if found { response::found(true) } else { refused(response::found(false), &UNKNOWN_INSTANCE) }
}

pub(super) async fn merge_metadata(
    State(server): State<ServerState>,
    Target { app, id }: Target,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    intake::ignore(server.intake(), &parts, body).await;
    let pairs = query::pairs(parts.uri.query()).map(|(key, value)| (key.into_owned(), value.into_owned()));
    let mut entries: Vec<_> = pairs.take(MAX_METADATA_ENTRIES + 1).collect();
    // Of several entries with one key the last counts. Of other parameters it is the first.
    entries.reverse();
    let caller = Caller::of(Origin::Client, &parts.extensions);
    let refused = |response: Response, reason: &dyn Display| server.refusals().response(&parts, response, reason);
    if entries.len() > MAX_METADATA_ENTRIES {
        let reason = format!("more than {MAX_METADATA_ENTRIES} metadata entries");
        return refused((StatusCode::PAYLOAD_TOO_LARGE, reason.clone()).into_response(), &reason);
    }
    let _claim = match guard::claim(&server, &parts, Change::Modify, &app, &id) {
        Ok(claim) => claim,
        Err(response) => return *response,
    };
    match server.node().merge_metadata(&app, &id, entries, &caller) {
        Ok(true) => StatusCode::OK.into_response(),
        Ok(false) => refused(scope::absent(&server, &app, &id), &UNKNOWN_INSTANCE),
        Err(error) => refused(error.into_response(), &error),
    }
}

pub(super) async fn one(
    State(server): State<ServerState>,
    format: Format,
    scope: Scope,
    Target { app, id }: Target,
) -> Response {
    let here = server.registry().instance(&app, &id, server.now());
    dated(&server, document(format, here.or_else(|| scope.instance(&server, &app, &id))))
}

pub(super) async fn by_id(State(server): State<ServerState>, format: Format, scope: Scope, Id(id): Id) -> Response {
    let here = server.registry().instance_by_id(&id, server.now());
    dated(&server, document(format, here.or_else(|| scope.instance_by_id(&server, &id))))
}

fn document(format: Format, instance: Option<Instance>) -> Response {
    match instance {
        Some(instance) => format.instance(&instance),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn not_a_number() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, NOT_A_NUMBER).into_response()
}
