//! Batches of what another registry server was told. `protocol` 2.9.

use std::collections::HashSet;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::answer::{self, Accepted};
use super::instances::valid;
use super::request::{self, Refusal};
use crate::model::{
    Instance, InstanceStatus, ReplicationAction, ReplicationItem, ReplicationList, ReplicationResponse,
    ReplicationResult, app_name,
};
use crate::server::EurekaServer;
use crate::server::registry::{Origin, Renewal};

/// What a peer sends at a time.
const USUAL_BATCH: usize = 250;
/// No more copies are answered once they are this long together.
const COPIES_BYTES: usize = 10 * 1024 * 1024;

/// Every item counts as replicated, whatever the headers say: Java sends none.
pub(super) async fn batch(State(server): State<EurekaServer>, _: Accepted, request: Request) -> Response {
    let (Parts { headers, .. }, body) = request.into_parts();
    if is_own(&server, &headers) {
        return StatusCode::LOOP_DETECTED.into_response();
    }
    let body = match request::json(&headers, body, server.batch_limit()).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let list = match ReplicationList::from_json(&body) {
        Ok(list) => list,
        // Java notices only when it goes through the list.
        Err(error) if error.is_unwrapped() => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_) => return Refusal::Unreadable.into_response(),
    };
    let mut results = Vec::with_capacity(list.0.len());
    let mut copies = Copies::default();
    for item in list.0 {
        let mut result = apply(&server, item);
        result.entity = result.entity.filter(|newer| copies.has_room_for(newer));
        results.push(result);
        // Of a batch far beyond the usual, others don't wait for the end.
        if results.len() % USUAL_BATCH == 0 {
            tokio::task::yield_now().await;
        }
    }
    answer::json(ReplicationResponse(results).to_json().into())
}

/// The copies in the answer to a batch: a few bytes of stale heartbeat ask for each, whose length others decide.
#[derive(Default)]
struct Copies {
    told: HashSet<(String, String)>,
    bytes: usize,
}

impl Copies {
    /// Whether this one is to be told, and then it is: one of each instance, as many as a usual batch can ask for.
    fn has_room_for(&mut self, copy: &Instance) -> bool {
        let new = self.told.len() < USUAL_BATCH
            && self.bytes < COPIES_BYTES
            && self.told.insert((copy.app().into(), copy.id().into()));
        if new {
            self.bytes += copy.to_json().len();
        }
        new
    }
}

/// Whether this server sent it to itself, over a URL that it did not know for its own.
fn is_own(server: &EurekaServer, headers: &HeaderMap) -> bool {
    #[cfg(feature = "peers")]
    return headers.get("DiscoveryIdentity-Id").is_some_and(|id| server.node().peers().is_me(id.as_bytes()));
    #[cfg(not(feature = "peers"))]
    {
        let _ = (server, headers);
        false
    }
}

fn apply(server: &EurekaServer, item: ReplicationItem) -> ReplicationResult {
    let (registry, now) = (server.registry(), server.now());
    let (Some(action), Some(app)) = (item.action, &item.app) else { return failed() };
    let app = app_name(app);
    let id = item.id.as_deref().unwrap_or_default();
    match action {
        ReplicationAction::Register => {
            let Some(instance) = item.instance else { return failed() };
            match valid(instance, &app) {
                Ok(instance) => {
                    if let Err(refused) = registry.register(instance, Origin::Replica, now) {
                        tracing::warn!(%app, %id, ?refused, "registration in a replication batch beyond a limit");
                    }
                }
                // Java drops the record as silently as the sender.
                Err(reason) => tracing::warn!(%app, %id, ?reason, "invalid registration in a replication batch"),
            }
            result(StatusCode::OK)
        }
        ReplicationAction::Heartbeat => {
            match registry.renew(&app, id, item.last_dirty_timestamp, Origin::Replica, now) {
                Renewal::Renewed => result(StatusCode::OK),
                Renewal::NotFound => result(StatusCode::NOT_FOUND),
                Renewal::SenderIsNewer => {
                    if let Some(status) = item.overridden_status.filter(|&status| status != InstanceStatus::Unknown) {
                        registry.store_override(&app, id, status, now);
                    }
                    result(StatusCode::NOT_FOUND)
                }
                Renewal::SenderIsOlder(instance) => {
                    ReplicationResult { status: StatusCode::CONFLICT.as_u16(), entity: Some(instance) }
                }
            }
        }
        ReplicationAction::Cancel => found(registry.cancel(&app, id, now)),
        ReplicationAction::StatusUpdate => match item.status {
            Some(status) => found(registry.set_override(&app, id, status, item.last_dirty_timestamp, now)),
            None => failed(),
        },
        ReplicationAction::DeleteStatusOverride => {
            let Some(dirty) = item.last_dirty_timestamp else { return failed() };
            let status = item.status.unwrap_or(InstanceStatus::Unknown);
            found(registry.delete_override(&app, id, status, Some(dirty), now))
        }
    }
}

fn found(found: bool) -> ReplicationResult {
    result(if found { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

fn failed() -> ReplicationResult {
    result(StatusCode::INTERNAL_SERVER_ERROR)
}

fn result(status: StatusCode) -> ReplicationResult {
    ReplicationResult { status: status.as_u16(), entity: None }
}
