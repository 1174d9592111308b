//! The start of a node: it copies what a peer has, and answers lists when they are worth believing. `server-behaviour` 9.2 to 9.4.
//!
//! Unlike Java it asks the peers itself, one after the other and for everything, where Java looks into the copy of its embedded client,
//! which by default holds only what is UP.

use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until};

use crate::server::audit::Shown;
use crate::server::node::Node;
use crate::timer::jittered;

/// Registrations between two pauses, in which others get their turn.
const CHUNK: usize = 100;

/// Copies, and opens the node: with a copy at once, without one at this time.
pub(super) async fn begin(node: &Arc<Node>, opens_at: Instant) {
    let settings = &node.peers().settings;
    let attempts = settings.copy_attempts;
    if node.peers().is_alone() || !settings.copy || (attempts > 0 && copy(node).await > 0) {
        node.peers().open();
        return;
    }
    let waiting = async {
        let wait = opens_at.saturating_duration_since(Instant::now());
        tracing::warn!(?wait, "no peer had anything to copy: lists are refused with 403 until open for traffic");
        sleep_until(opens_at).await;
        node.peers().open();
    };
    let trying = async {
        for _ in 1..attempts {
            sleep(jittered(settings.copy_pause)).await;
            if settings.source.is_some() && node.peers().list.load().is_empty() {
                node.peers().refresh().await;
            }
            if copy(node).await > 0 {
                node.peers().open();
                return;
            }
        }
    };
    tokio::join!(waiting, trying);
}

/// Takes in what the first peer that has something has. How many instances that were.
async fn copy(node: &Arc<Node>) -> usize {
    let peers = node.peers().list.load_full();
    for peer in peers.iter().filter(|peer| !peer.is_me()) {
        let url = peer.url().as_str();
        let began = Instant::now();
        let applications = match peer.applications().await {
            Ok(applications) => applications,
            Err(error) => {
                tracing::info!(peer = %url, %error, "nothing to copy from this peer");
                continue;
            }
        };
        let mut copied = 0;
        for instance in applications.applications.iter().flat_map(|application| &application.instances) {
            copied += 1;
            // Clients may have said something here meanwhile, also that they leave. A list shows leases as of the last change: they begin anew.
            let now = node.now();
            if let Err(refused) = node.registry().adopt((**instance).clone(), now, now) {
                let (app, id) = (Shown(instance.app()), Shown(instance.id()));
                tracing::warn!(%app, instance = %id, peer = %url, error = %refused, "cannot copy an instance from a peer");
            }
            if copied % CHUNK == 0 {
                tokio::task::yield_now().await;
            }
        }
        if copied > 0 {
            tracing::info!(peer = %url, copied, elapsed = ?began.elapsed(), "copied a peer's registry");
            return copied;
        }
    }
    0
}
