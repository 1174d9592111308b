//! Owners of the leases of a peer. Its lists do not have them, since they are those of a Java
//! server. `docs/protocol-extensions.md`, "Owners of leases".

use std::time::Duration;

use tokio::time::timeout;

use super::CHUNK;
use crate::server::node::Node;
use crate::server::owner::ListedOwners;
use crate::server::replication::Peer;
use crate::sync::offload;

/// Maximum time for the owners of one peer. Reconciliation tries again.
const LIMIT: Duration = Duration::from_secs(5);

/// Fetches the owners of the leases of a peer. Returns none if this node has no access control, or
/// if the peer is a Java server or does not send them.
pub(super) async fn fetch(node: &Node, peer: &Peer) -> ListedOwners {
    if !node.registry().tracks_owners() {
        return ListedOwners::default();
    }
    let fetched = match timeout(LIMIT, peer.owners()).await {
        Ok(Ok(None)) => return ListedOwners::default(),
        Ok(Ok(Some(json))) => offload(move || ListedOwners::from_json(&json)).await,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no response within {LIMIT:?}")),
    };
    fetched.unwrap_or_else(|error| {
        tracing::debug!(peer = %peer.url().as_str(), %error, "cannot fetch the owners of leases from a peer");
        ListedOwners::default()
    })
}

/// Records the owners of leases whose owners are unknown here, or claimed the lease by a heartbeat.
/// An owner that registered the instance here stays, whatever a peer sends.
pub(super) async fn learn(node: &Node, owners: &ListedOwners) {
    for (seen, (app, id, owner)) in owners.iter().enumerate() {
        if seen % CHUNK == CHUNK - 1 {
            tokio::task::yield_now().await;
        }
        node.registry().learn_owner(app, id, owner);
    }
}
