//! Answer bodies, assembled from pieces that are each encoded once per change and shared by all answers.
//!
//! ```text
//!  Record ── Fragment: its text ─┐
//!                                ├─▶ AppView ── AppBlocks: deflated, CRC-32 ─┐
//!  Record ── Fragment            ┘                                           ├─▶ one answer per revision, `Bytes`
//!                                    AppView ── AppBlocks ───────────────────┘
//! ```
//!
//! There is one set of pieces for each [`Form`]: JSON and XML, full and compact. The first answer after a change costs the application
//! that changed, plus copying; all further ones cost nothing. A piece is made when its form is first asked for, and lives with what
//! it was made of; a form that nobody asks for costs nothing but empty places.
//!
//! # Memory
//!
//! Per form that is asked for, with *S* the length of the whole registry in it: *S* for the fragments; the length of one gzip answer
//! (about *S* / 20) for the blocks; per encoding asked for, the latest full answer and the latest delta, whose predecessors go when
//! any newer one is made; and per encoding, the answers for single applications, in all not more than one full answer. Answers for
//! VIPs share 32 MiB. So JSON by gzip alone, which is what Java clients ask for, costs little more than *S*, and four forms in both
//! encodings at most about 4 × 4 *S*.

mod form;
mod frame;
mod gzip;
mod pieces;
mod selection;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::Mutex;

use self::form::PerVariant;
pub(super) use self::form::{Encoding, Form, Variant};
pub(super) use self::pieces::{AppBlocks, Fragment};
pub(super) use self::selection::By;
use self::selection::{Asked, Selections};
use super::registry::{AppView, Registry, Snapshot};

/// The answers that everybody asks for, each kept until the registry changes.
#[derive(Debug)]
pub(super) struct Bodies {
    run: u64,
    full: Answers,
    delta: Answers,
    selections: Selections,
}

/// A body, and which state of the registry it shows.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) revision: u64,
    pub(super) bytes: Bytes,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            run: RandomState::new().hash_one(0),
            full: Answers::default(),
            delta: Answers::default(),
            selections: Selections::default(),
        }
    }
}

impl Bodies {
    /// Tells this registry from others, and from itself before a restart: revisions begin anew there.
    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// The body of `GET apps`.
    pub(super) async fn full(&self, registry: &Arc<Registry>, variant: Variant) -> Body {
        self.full.get(registry, variant, Registry::revision, Registry::full).await
    }

    /// The body of `GET apps/delta`.
    pub(super) async fn delta(&self, registry: &Arc<Registry>, variant: Variant) -> Body {
        self.delta.get(registry, variant, Registry::delta_revision, Registry::delta).await
    }

    /// The body of `GET vips/{name}` or `GET svips/{name}`.
    pub(super) async fn selection(&self, registry: &Arc<Registry>, by: By, name: &str, variant: Variant) -> Body {
        let asked = Asked { by, name: name.into(), variant };
        let revision = registry.revision();
        if let Some(bytes) = self.selections.at(revision, &asked) {
            return Body { revision, bytes };
        }
        let (registry, wanted) = (registry.clone(), asked.clone());
        let body = blocking(move || {
            let snapshot = registry.full();
            Body { revision: snapshot.revision, bytes: selection::body(&snapshot, &wanted) }
        });
        let body = body.await;
        self.selections.keep(body.revision, asked, body.bytes.clone());
        body
    }
}

/// The body of `GET apps/{app}`.
pub(super) async fn application(view: &Arc<AppView>, variant: Variant) -> Body {
    let revision = view.blocks.number();
    if let Some(bytes) = view.blocks.alone.of(variant).get() {
        return Body { revision, bytes: bytes.clone() };
    }
    let view = view.clone();
    let made = move || view.blocks.alone.of(variant).get_or_init(|| pieces::application(&view, variant)).clone();
    Body { revision, bytes: blocking(made).await }
}

/// The latest of each variant.
#[derive(Debug, Default)]
struct Answers(PerVariant<Answer>);

#[derive(Debug, Default)]
struct Answer {
    latest: ArcSwapOption<Body>,
    /// Held by the one that makes the next; the others wait for it instead of making it again.
    making: Mutex<()>,
}

impl Answers {
    async fn get(
        &self,
        registry: &Arc<Registry>,
        variant: Variant,
        revision: fn(&Registry) -> u64,
        snapshot: fn(&Registry) -> Arc<Snapshot>,
    ) -> Body {
        let answer = self.0.of(variant);
        if let Some(body) = answer.at(revision(registry)) {
            return body;
        }
        let _making = answer.making.lock().await;
        // Somebody else may have made it meanwhile; what counts is the registry as it was when this request came, or later.
        if let Some(body) = answer.at(revision(registry)) {
            return body;
        }
        let registry = registry.clone();
        let made = blocking(move || {
            let Snapshot { revision, version, counts, applications } = &*snapshot(&registry);
            Body { revision: *revision, bytes: pieces::applications(*version, counts, applications, variant) }
        });
        let made = made.await;
        self.0.iter().for_each(|answer| answer.forget_before(made.revision));
        answer.latest.store(Some(Arc::new(made.clone())));
        made
    }
}

impl Answer {
    fn at(&self, revision: u64) -> Option<Body> {
        self.latest.load().as_ref().filter(|latest| latest.revision == revision).map(|latest| Body::clone(latest))
    }

    fn forget_before(&self, revision: u64) {
        if self.latest.load().as_ref().is_some_and(|latest| latest.revision < revision) {
            self.latest.store(None);
        }
    }
}

/// The first answer of a large registry compresses all of it: too long for a thread that others wait for.
async fn blocking<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(make).await {
        Ok(made) => made,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
