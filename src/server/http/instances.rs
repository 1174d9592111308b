//! What happens to one instance. `protocol` 2.2 to 2.4, 2.6, 2.7.

use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::answer::{self, Format};
use super::path::{App, Id, Target};
use super::query;
use super::request::{self, Refusal};
use super::scope::{self, Scope};
use crate::model::{self, DataCenter, Instance, InstanceStatus};
use crate::server::EurekaServer;
use crate::server::registry::{Origin, Refused, Renewal};

pub(super) async fn register(State(server): State<EurekaServer>, App(app): App, request: Request) -> Response {
    let (Parts { headers, .. }, body) = request.into_parts();
    let (format, body) = match request::document(&headers, body, server.registration_limit()).await {
        Ok(document) => document,
        Err(refusal) => return refusal.into_response(),
    };
    let decoded = match format {
        Format::Json => model::registration(&body),
        #[cfg(feature = "xml")]
        Format::Xml => model::xml::registration(&body),
    };
    match decoded.map_err(|_| Invalid::Unreadable).and_then(|instance| valid(instance, &app)) {
        Ok(instance) => {
            tracing::trace!(app = instance.app(), id = instance.id(), status = %instance.status(), "register");
            match server.node().register(instance, request::origin(&headers)) {
                Ok(()) => StatusCode::NO_CONTENT.into_response(),
                Err(refused) => refused.into_response(),
            }
        }
        Err(Invalid::Unreadable) => Refusal::unreadable(format).into_response(),
        Err(Invalid::Text(text)) => (StatusCode::BAD_REQUEST, text).into_response(),
    }
}

/// Why a registration is refused.
#[derive(Debug)]
pub(super) enum Invalid {
    /// Java's reader does not get past it.
    Unreadable,
    /// The text that Java answers with. Clients print it.
    Text(String),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::ApplicationFull(limit) => {
                (StatusCode::BAD_REQUEST, format!("the application has {limit} instances, which is the limit"))
            }
            Self::MetadataTooLarge(limit) => {
                (StatusCode::PAYLOAD_TOO_LARGE, format!("the metadata is larger than {limit} bytes"))
            }
        }
        .into_response()
    }
}

/// Checks a registration in Java's order, and gives an Amazon instance the id that its data centre left out.
pub(super) fn valid(mut instance: Instance, app: &str) -> Result<Instance, Invalid> {
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
    State(server): State<EurekaServer>,
    Target { app, id }: Target,
    request: Request,
) -> Response {
    let (Parts { headers, uri, .. }, body) = request.into_parts();
    request::ignore(body).await;
    renew(&server, &app, &id, &headers, uri.query())
}

/// A heartbeat whose body is read.
pub(super) fn renew(server: &EurekaServer, app: &str, id: &str, headers: &HeaderMap, query: Option<&str>) -> Response {
    let origin = request::origin(headers);
    let dirty = query::first(query, "lastDirtyTimestamp").map(|text| text.parse::<i64>());
    let known = dirty.as_ref().and_then(|parsed| parsed.as_ref().ok()).copied();
    let renewal = server.node().renew(app, id, known, origin);
    match renewal {
        Renewal::NotFound => StatusCode::NOT_FOUND.into_response(),
        // Java notices only after it has renewed the lease.
        _ if matches!(dirty, Some(Err(_))) => not_a_number(),
        Renewal::Renewed => StatusCode::OK.into_response(),
        Renewal::SenderIsNewer => {
            if origin == Origin::Replica
                && let Some(word) = query::first(query, "overriddenstatus")
            {
                match word.parse() {
                    Ok(InstanceStatus::Unknown) => {}
                    Ok(status) => server.registry().store_override(app, id, status, server.now()),
                    Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
                }
            }
            StatusCode::NOT_FOUND.into_response()
        }
        Renewal::SenderIsOlder(instance) => {
            let mut response = Format::of(headers).unwrap_or(Format::Json).instance(&instance);
            *response.status_mut() = StatusCode::CONFLICT;
            response
        }
    }
}

pub(super) async fn cancel(
    State(server): State<EurekaServer>,
    Target { app, id }: Target,
    request: Request,
) -> Response {
    let (Parts { headers, .. }, body) = request.into_parts();
    request::ignore(body).await;
    answer::found(server.node().cancel(&app, &id, request::origin(&headers)))
}

pub(super) async fn set_override(
    State(server): State<EurekaServer>,
    target: Target,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    change_override(&server, target, query.as_deref(), request, None).await
}

pub(super) async fn delete_override(
    State(server): State<EurekaServer>,
    target: Target,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    change_override(&server, target, query.as_deref(), request, Some(InstanceStatus::Unknown)).await
}

/// Sets an override, or deletes it if there is a status to go without `value`. An absent instance comes before a bad parameter.
async fn change_override(
    server: &EurekaServer,
    Target { app, id }: Target,
    query: Option<&str>,
    request: Request,
    deletes_to: Option<InstanceStatus>,
) -> Response {
    let (Parts { headers, .. }, body) = request.into_parts();
    request::ignore(body).await;
    let origin = request::origin(&headers);
    if server.registry().instance(&app, &id, server.now()).is_none() {
        return scope::absent(server, &app, &id);
    }
    let status = match (query::first(query, "value"), deletes_to) {
        (Some(word), _) => match word.parse() {
            // The instance would be told with each heartbeat to register, and never get out of it. A Java peer may have taken it.
            Ok(InstanceStatus::Unknown) if deletes_to.is_none() && origin == Origin::Client => {
                return (StatusCode::BAD_REQUEST, "UNKNOWN is no override; delete the one there is").into_response();
            }
            Ok(status) => status,
            Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("value {error}")).into_response(),
        },
        (None, Some(status)) => status,
        (None, None) => return (StatusCode::INTERNAL_SERVER_ERROR, "value is missing").into_response(),
    };
    let Ok(dirty) = query::first(query, "lastDirtyTimestamp").map(|text| text.parse()).transpose() else {
        return not_a_number();
    };
    answer::found(match deletes_to {
        Some(_) => server.node().delete_override(&app, &id, status, dirty, origin),
        None => server.node().set_override(&app, &id, status, dirty, origin),
    })
}

pub(super) async fn merge_metadata(
    State(server): State<EurekaServer>,
    Target { app, id }: Target,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    request::ignore(body).await;
    let pairs = query::pairs(query.as_deref()).map(|(key, value)| (key.into_owned(), value.into_owned()));
    let mut entries: Vec<_> = pairs.collect();
    // Of a parameter that comes twice the first counts; of entries the last.
    entries.reverse();
    match server.node().merge_metadata(&app, &id, entries) {
        Ok(true) => StatusCode::OK.into_response(),
        Ok(false) => scope::absent(&server, &app, &id),
        Err(refused) => refused.into_response(),
    }
}

pub(super) async fn one(
    State(server): State<EurekaServer>,
    format: Format,
    scope: Scope,
    Target { app, id }: Target,
) -> Response {
    let here = server.registry().instance(&app, &id, server.now());
    document(format, here.or_else(|| scope.instance(&server, &app, &id)))
}

pub(super) async fn by_id(State(server): State<EurekaServer>, format: Format, scope: Scope, Id(id): Id) -> Response {
    let here = server.registry().instance_by_id(&id, server.now());
    document(format, here.or_else(|| scope.instance_by_id(&server, &id)))
}

fn document(format: Format, instance: Option<Instance>) -> Response {
    match instance {
        Some(instance) => format.instance(&instance),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn not_a_number() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "lastDirtyTimestamp is not a whole number").into_response()
}
