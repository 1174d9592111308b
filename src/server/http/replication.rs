//! Replication batches of other registry servers (docs/protocol.md, "Replication batch").

use std::collections::HashSet;
use std::fmt::Display;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use super::date::dated;
use super::instances::{status, valid};
use super::intake;
use super::refusals::Chain;
use super::request::{self, Document, Refusal};
use super::response::{self, AcceptsJson};
use crate::model::{
    self, BatchItem, DecodeError, Instance, InstanceStatus, MAX_METADATA_ENTRIES, ReplicationAction,
    ReplicationResponse, ReplicationResult, app_name,
};
use crate::server::audit::{self, Caller, Quoted};
use crate::server::http::state::ServerState;
use crate::server::outcome::{Effect, Origin, RegisterOutcome, Registrant, Renewal};
use crate::server::owner::{Owner, Owners};
use crate::server::unsent::Unsent;
use crate::server::view::weight;
use crate::sync::offload;

/// Header with the id of the registry server that sent a batch.
const NODE_ID: HeaderName = HeaderName::from_static("discoveryidentity-id");
/// Maximum number of changes in a batch of a Java peer.
const USUAL_BATCH: usize = 250;
/// Total weight of the copies in a response above which no further copy is added. 250 common
/// instances have less than half of it.
const COPIES_WEIGHT: usize = 1024 * 1024;
/// Maximum number of changes that are applied on a worker thread of the runtime. A change of one of
/// the longest instances takes a tenth of a millisecond.
const FEW_CHANGES: usize = 32;
/// Maximum number of values in a batch. 10,000 registrations have about 400,000.
const MAX_VALUES: usize = 500_000;

/// Applies a batch. All items count as replicated regardless of the headers, since Java sends none.
pub(super) async fn batch(
    State(server): State<ServerState>,
    accepted: Result<AcceptsJson, Response>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let refused = |response: Response, reason: &dyn Display| server.refusals().response(&parts, response, reason);
    if let Err(response) = accepted {
        return refused(response, &"the response is JSON, which Accept excludes");
    }
    if is_own(&server, &parts.headers) {
        return own(&server, &parts, body).await;
    }
    let intake = server.intake();
    let document = match request::batch(intake, &parts, body, server.batch_limit()).await {
        Ok(document) => document,
        Err(refusal) => return refused(refusal.response(), &refusal),
    };
    let caller = Caller::of(Origin::Replica, &parts.extensions);
    let owners = server.access().map(|_| Owners::of(&parts.headers)).unwrap_or_default();
    match decode_and_apply(&server, document, caller, owners).await {
        Ok(Ok((changes, response))) => {
            changes.log(&parts);
            dated(&server, response::json(response.into()))
        }
        // Java fails later here, when it iterates over the list.
        Ok(Err(error)) if error.lacks_wrapper() => {
            refused(StatusCode::INTERNAL_SERVER_ERROR.into_response(), &Chain(&error))
        }
        Ok(Err(error)) => refused(Refusal::Unreadable.response(), &Chain(&error)),
        Err(refusal) => refused(refusal.response(), &refusal),
    }
}

/// Responds with the owners of all leases, for a peer that copies them. Without access control
/// there are none, and the response is that of a Java server.
pub(super) async fn owners(State(server): State<ServerState>) -> Response {
    if server.access().is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    // Offloaded, since it iterates over all leases.
    let registry = server.registry().clone();
    let json = offload(move || registry.known_owners().to_json()).await;
    dated(&server, response::json(json.into()))
}

/// Decoded batch, with the result of its changes if they were applied on the same thread.
enum Decoded {
    Applied(BatchChanges, Vec<u8>),
    Pending(Vec<BatchItem>),
}

/// Decodes a batch and applies its changes.
///
/// The changes are applied on the thread that decodes them, unless their number makes them slow for
/// the length of the batch. So neither a long batch nor a short one that changes many long
/// instances blocks a worker thread of the runtime.
async fn decode_and_apply(
    server: &ServerState,
    document: Document,
    caller: Caller,
    owners: Owners,
) -> Result<Result<(BatchChanges, Vec<u8>), DecodeError>, Refusal> {
    let (intake, receiver, is_long) = (server.intake(), server.clone(), document.is_long());
    let (sender, known) = (caller.clone(), owners.clone());
    let decode = move |body: &[u8]| -> Result<Decoded, DecodeError> {
        let items = model::batch(body)?;
        if !is_long && items.iter().filter(|item| is_change(item)).count() > FEW_CHANGES {
            return Ok(Decoded::Pending(items));
        }
        let (changes, response) = apply(receiver, sender, known, items);
        Ok(Decoded::Applied(changes, response))
    };
    let (decoded, charge) = document.decode(intake, MAX_VALUES, decode).await?;
    let items = match decoded {
        Ok(Decoded::Applied(changes, response)) => return Ok(Ok((changes, response))),
        Ok(Decoded::Pending(items)) => items,
        Err(error) => return Ok(Err(error)),
    };
    let (source, receiver) = (charge.source(), server.clone());
    let work = move || {
        let applied = apply(receiver, caller, owners, items);
        drop(charge);
        applied
    };
    Ok(Ok(intake.offload.run_long(source, work).await?))
}

/// Returns true for an item whose length is no measure of its work, since it may change an instance
/// of any length. A registration is as long as its instance.
fn is_change(BatchItem { item, .. }: &BatchItem) -> bool {
    match item.action {
        Some(ReplicationAction::Heartbeat) => item.overridden_status.is_some(),
        Some(ReplicationAction::Register) | None => false,
        Some(_) => true,
    }
}

/// Applies the items of a batch. Returns the counted changes and the response.
fn apply(server: ServerState, caller: Caller, owners: Owners, items: Vec<BatchItem>) -> (BatchChanges, Vec<u8>) {
    server.node().follow_wall_clock();
    let mut results = Vec::with_capacity(items.len());
    // Only the copies depend on the budget of unsent bytes. The results are always sent, since the
    // items were applied.
    let mut copies = Copies::default();
    let unsent = server.unsent().clone();
    let mut changes = BatchChanges::new(server, caller);
    for (item, owner) in items.into_iter().zip(owners.into_each()) {
        let mut result = changes.apply(item, owner);
        result.entity = result.entity.filter(|newer| copies.add(newer, &unsent));
        results.push(result);
    }
    (changes, ReplicationResponse(results).to_json())
}

/// Copies of newer instances in the response to a batch. They are bounded, since an outdated
/// heartbeat of a few bytes requests each of them, and clients determine their lengths.
#[derive(Default)]
struct Copies {
    sent: HashSet<(String, String)>,
    weight: usize,
}

impl Copies {
    /// Adds a copy and returns true if there is room for it: at most one per instance, as many as a
    /// usual batch has items, and none beyond the budget of unsent bytes.
    fn add(&mut self, copy: &Instance, unsent: &Unsent) -> bool {
        let new = self.sent.len() < USUAL_BATCH
            && self.weight < COPIES_WEIGHT
            && self.sent.insert((copy.app().into(), copy.id().into()));
        if !new {
            return false;
        }
        let weight = self.weight + weight(copy);
        let has_room = unsent.has_room_for(weight);
        if has_room {
            self.weight = weight;
        }
        has_room
    }
}

/// Responds to a batch that this server sent to itself with 508 and its id, by which the sender
/// recognizes its own response. Closes the connection, since behind a load balancer the next one
/// may lead to another node.
async fn own(server: &ServerState, parts: &Parts, body: Body) -> Response {
    intake::ignore(server.intake(), parts, body).await;
    let mut response = StatusCode::LOOP_DETECTED.into_response();
    if let Some(id) = parts.headers.get(NODE_ID) {
        response.headers_mut().insert(NODE_ID, id.clone());
    }
    if parts.version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns true if this server sent the batch to itself, at a URL that it did not recognize as its
/// own.
fn is_own(server: &ServerState, headers: &HeaderMap) -> bool {
    #[cfg(feature = "peers")]
    return headers.get(NODE_ID).is_some_and(|id| server.node().replication().is_own_id(id.as_bytes()));
    #[cfg(not(feature = "peers"))]
    {
        let _ = (server, headers);
        false
    }
}

/// Applies the items of a batch and counts the changes.
struct BatchChanges {
    server: ServerState,
    caller: Caller,
    registered: usize,
    cancelled: usize,
    overrides: usize,
    invalid: usize,
    /// The first invalid item and the reason.
    reason: Option<String>,
}

impl BatchChanges {
    fn new(server: ServerState, caller: Caller) -> Self {
        let caller = caller.batched();
        Self { server, caller, registered: 0, cancelled: 0, overrides: 0, invalid: 0, reason: None }
    }

    fn apply(&mut self, BatchItem { item, too_much_metadata }: BatchItem, owner: Owner) -> ReplicationResult {
        let (registry, now) = (self.server.registry(), self.server.now());
        let id = item.id.as_deref().unwrap_or_default();
        let (Some(action), Some(app)) = (item.action, &item.app) else {
            let missing = if item.action.is_some() { "appName" } else { "action" };
            return self.incomplete(item.app.as_deref().unwrap_or_default(), id, missing);
        };
        let app = app_name(app);
        match action {
            ReplicationAction::Register => {
                let Some(instance) = item.instance else { return self.incomplete(&app, id, "instanceInfo") };
                if too_much_metadata {
                    let reason = format_args!("more than {MAX_METADATA_ENTRIES} metadata entries");
                    self.invalid(&app, id, &reason);
                    return result(StatusCode::PAYLOAD_TOO_LARGE);
                }
                let status = match valid(instance, &app) {
                    Ok(instance) => self.register(instance, owner),
                    // Java ignores an invalid registration without an error, and so does the
                    // sender.
                    Err(reason) => {
                        self.invalid(&app, id, &reason);
                        StatusCode::OK
                    }
                };
                result(status)
            }
            ReplicationAction::Heartbeat => {
                registry.learn_owner(&app, id, &owner);
                match registry.renew(&app, id, item.last_dirty_timestamp, Origin::Replica, now) {
                    Renewal::Renewed => result(StatusCode::OK),
                    Renewal::NotFound => result(StatusCode::NOT_FOUND),
                    Renewal::SenderIsNewer => {
                        if let Some(status) = item.overridden_status.filter(|&s| s != InstanceStatus::Unknown) {
                            let effect = registry.store_override(&app, id, status, now);
                            audit::override_set(&app, id, status, &effect, &self.caller, registry.changes());
                            self.overridden(&effect);
                        }
                        result(StatusCode::NOT_FOUND)
                    }
                    Renewal::SenderIsOlder(instance) => {
                        ReplicationResult { status: StatusCode::CONFLICT.as_u16(), entity: Some(instance) }
                    }
                }
            }
            ReplicationAction::Cancel => {
                let Some(before) = registry.cancel_from(&app, id, Origin::Replica, now) else { return found(false) };
                self.cancelled += 1;
                audit::cancelled(&app, id, before, &self.caller, registry.changes());
                found(true)
            }
            ReplicationAction::StatusUpdate => {
                let Some(status) = item.status else { return self.incomplete(&app, id, "status") };
                let effect = registry.set_override(&app, id, status, item.last_dirty_timestamp, now);
                audit::override_set(&app, id, status, &effect, &self.caller, registry.changes());
                self.overridden(&effect);
                found(effect.is_found())
            }
            ReplicationAction::DeleteStatusOverride => {
                let Some(dirty) = item.last_dirty_timestamp else {
                    return self.incomplete(&app, id, "lastDirtyTimestamp");
                };
                let status = item.status.unwrap_or(InstanceStatus::Unknown);
                let effect = registry.delete_override(&app, id, status, Some(dirty), now);
                audit::override_deleted(&app, id, status, &effect, &self.caller, registry.changes());
                self.overridden(&effect);
                found(effect.is_found())
            }
        }
    }

    fn register(&mut self, instance: Instance, owner: Owner) -> StatusCode {
        let registrant = Registrant { owner, ..self.caller.registrant() };
        let (app, id) = (instance.app.clone(), instance.id().to_owned());
        match self.server.registry().register(instance, registrant, self.server.now()) {
            Ok(registered) => {
                self.registered +=
                    usize::from(matches!(registered.outcome, RegisterOutcome::New | RegisterOutcome::Changed));
                audit::registered(&app, &id, &registered, &self.caller, self.server.registry().changes());
                registered.refused.map_or(StatusCode::OK, status)
            }
            Err(refused) => {
                self.invalid(&app, &id, &refused);
                status(refused)
            }
        }
    }

    fn invalid(&mut self, app: &str, id: &str, reason: &dyn Display) {
        self.invalid += 1;
        self.reason.get_or_insert_with(|| format!("{}/{}: {reason}", Quoted(app), Quoted(id)));
    }

    /// Responds to an item that lacks a member as Java does, where it makes the item fail.
    fn incomplete(&mut self, app: &str, id: &str, member: &str) -> ReplicationResult {
        self.invalid(app, id, &format_args!("the item has no {member}, or an unusable one"));
        result(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn overridden(&mut self, effect: &Effect) {
        self.overrides += usize::from(effect.is_changed());
    }

    /// Logs the changes of the batch and its invalid items, if there are any.
    fn log(self, parts: &Parts) {
        let Self { caller: origin, registered, cancelled, overrides, invalid, .. } = self;
        if registered + cancelled + overrides > 0 {
            audit::batch_applied(&origin, [registered, cancelled, overrides], self.server.registry().changes());
        }
        if let Some(reason) = self.reason {
            self.server.refusals().items(parts, invalid, &reason);
        }
    }
}

fn found(found: bool) -> ReplicationResult {
    result(if found { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

fn result(status: StatusCode) -> ReplicationResult {
    ReplicationResult { status: status.as_u16(), entity: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_whose_length_is_no_measure_of_its_work_is_a_change() {
        let is_change = |item: &str| {
            let items = model::batch(format!(r#"{{"replicationList":[{item}]}}"#).as_bytes()).unwrap();
            super::is_change(&items[0])
        };
        for (item, expected) in [
            (r#"{"action":"Heartbeat","status":"UP"}"#, false),
            (r#"{"action":"Heartbeat","overriddenStatus":"DOWN"}"#, true),
            (r#"{"action":"Register","instanceInfo":{"app":"A"}}"#, false),
            (r#"{"action":"StatusUpdate","status":"DOWN"}"#, true),
            (r#"{"action":"DeleteStatusOverride"}"#, true),
            (r#"{"action":"Cancel"}"#, true),
        ] {
            assert_eq!(is_change(item), expected, "{item}");
        }
    }

    #[test]
    fn response_has_no_copies_while_the_budget_is_exhausted() {
        let unsent = Unsent::bounded(100_000);
        let copy = |id: &str| Instance::builder("A").id(id).host_name("h").ip_addr("1.1.1.1").port(80).build().unwrap();
        let mut copies = Copies::default();
        assert!(copies.add(&copy("1"), &unsent) && !copies.add(&copy("1"), &unsent));
        unsent.add(200_000);
        assert!(!copies.add(&copy("2"), &unsent));
        unsent.remove(200_000);
        assert!(copies.add(&copy("3"), &unsent));
    }
}
