//! Answer bodies, assembled from pieces that are each encoded once per change and shared by all answers.
//!
//! ```text
//!  Record ── Fragment: its JSON ─┐
//!                                ├─▶ AppView ── AppBlocks: deflated, CRC-32 ─┐
//!  Record ── Fragment            ┘                                           ├─▶ one answer per revision, `Bytes`
//!                                    AppView ── AppBlocks ───────────────────┘
//! ```
//!
//! The first answer after a change costs the application that changed, plus copying; all further ones cost nothing. A piece is made
//! when first asked for, and lives with what it was made of.

mod gzip;
mod json;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::Mutex;

use self::gzip::Block;
use super::registry::{AppView, Registry, Snapshot};
use crate::model::{InstanceStatus, StatusCounts};

/// How a body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// An instance's JSON, without a wrapper.
#[derive(Debug, Default)]
pub(super) struct Fragment(OnceLock<Bytes>);

/// What was encoded of an application.
#[derive(Debug, Default)]
pub(super) struct AppBlocks {
    /// The application as it stands in a list, compressed.
    deflated: OnceLock<Block>,
    /// The answer that holds this application alone.
    identity: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

/// The answers that everybody asks for, each kept until the registry changes.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    full: Answers,
    delta: Answers,
}

#[derive(Debug, Default)]
struct Answers {
    identity: Answer,
    gzip: Answer,
}

#[derive(Debug, Default)]
struct Answer {
    latest: ArcSwapOption<(u64, Bytes)>,
    /// Held by the one that makes the next; the others wait for it instead of making it again.
    making: Mutex<()>,
}

impl Bodies {
    /// The body of `GET apps`.
    pub(super) async fn full(&self, registry: &Arc<Registry>, encoding: Encoding) -> Bytes {
        self.full.of(encoding).get(registry, encoding, Registry::revision, Registry::full).await
    }

    /// The body of `GET apps/delta`.
    pub(super) async fn delta(&self, registry: &Arc<Registry>, encoding: Encoding) -> Bytes {
        self.delta.of(encoding).get(registry, encoding, Registry::delta_revision, Registry::delta).await
    }
}

impl Answers {
    fn of(&self, encoding: Encoding) -> &Answer {
        match encoding {
            Encoding::Identity => &self.identity,
            Encoding::Gzip => &self.gzip,
        }
    }
}

impl Answer {
    async fn get(
        &self,
        registry: &Arc<Registry>,
        encoding: Encoding,
        revision: fn(&Registry) -> u64,
        snapshot: fn(&Registry) -> Arc<Snapshot>,
    ) -> Bytes {
        if let Some(body) = self.at(revision(registry)) {
            return body;
        }
        let _making = self.making.lock().await;
        // Somebody else may have made it meanwhile; what counts is the registry as it was when this request came, or later.
        if let Some(body) = self.at(revision(registry)) {
            return body;
        }
        let registry = registry.clone();
        // The first answer of a large registry compresses all of it: too long for a thread that others wait for.
        let made = tokio::task::spawn_blocking(move || {
            let snapshot = snapshot(&registry);
            let body = json::applications(snapshot.version, &snapshot.counts, &snapshot.applications, encoding);
            Arc::new((snapshot.revision, body))
        });
        let made = match made.await {
            Ok(made) => made,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.latest.store(Some(made.clone()));
        made.1.clone()
    }

    fn at(&self, revision: u64) -> Option<Bytes> {
        self.latest.load().as_ref().filter(|latest| latest.0 == revision).map(|latest| latest.1.clone())
    }
}

/// The body of `GET apps/{app}`.
pub(super) fn application(view: &AppView, encoding: Encoding) -> Bytes {
    let place = match encoding {
        Encoding::Identity => &view.blocks.identity,
        Encoding::Gzip => &view.blocks.gzip,
    };
    place.get_or_init(|| json::application(view, encoding)).clone()
}

/// The body of `GET vips/{vip}` and its like: the instances that `matches` picks, with a hash of their own.
pub(super) fn selection(
    snapshot: &Snapshot,
    encoding: Encoding,
    matches: impl Fn(&crate::model::Instance) -> bool,
) -> Bytes {
    /// A VIP is not a registry, which clients tell by this.
    const VERSION: i64 = -1;
    let selected: Vec<_> = snapshot.applications.iter().filter_map(|view| select(view, &matches)).collect();
    let counts: StatusCounts =
        selected.iter().flat_map(|view| &view.records).map(|r| -> InstanceStatus { r.instance.status }).collect();
    json::applications(VERSION, &counts, &selected, encoding)
}

/// The part of an application that matches: usually all of it, whose blocks exist already, or nothing.
fn select(view: &Arc<AppView>, matches: impl Fn(&crate::model::Instance) -> bool) -> Option<Arc<AppView>> {
    let records: Vec<_> = view.records.iter().filter(|record| matches(&record.instance)).cloned().collect();
    match records.len() {
        0 => None,
        all if all == view.records.len() => Some(view.clone()),
        _ => Some(AppView::new(view.name.clone(), records)),
    }
}
