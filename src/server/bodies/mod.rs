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
//! encodings at most about 4 × 4 *S*. The read-only cache, where it is on, keeps one more of each answer that was asked for.

mod form;
mod frame;
mod gzip;
mod pieces;
mod read_only;
mod selection;
mod slot;
mod tag;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use self::form::PerVariant;
pub(super) use self::form::{Encoding, Form, Variant};
pub(super) use self::pieces::{AppBlocks, Fragment};
use self::read_only::ReadOnly;
pub(super) use self::selection::By;
use self::selection::{Asked, Selections};
use self::slot::Slot;
use self::tag::{Kind, tag};
use super::registry::{AppView, Registry, Snapshot};
use crate::clock::Clock;

/// What a client can ask to be listed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum List<'a> {
    /// `GET apps`
    All,
    /// `GET apps/delta`
    Delta,
    /// `GET apps/{app}`, upper case.
    Application(Cow<'a, str>),
    /// `GET vips/{vip}` and `GET svips/{vip}`
    Selection(By, Cow<'a, str>),
}

/// A body as it is answered, complete; made once and shared by all who ask.
#[derive(Debug)]
pub(super) struct Body {
    /// Which state it shows: of the registry, of the delta, or of the application.
    pub(super) revision: u64,
    /// The `ETag`. Strong: the same one means the same bytes.
    pub(super) tag: HeaderValue,
    pub(super) bytes: Bytes,
}

/// The answers that were asked for, each kept until it is made anew.
#[derive(Debug)]
pub(super) struct Bodies {
    /// Tells this registry from others, and from itself before a restart: revisions begin anew there.
    run: u64,
    full: Arc<PerVariant<Slot>>,
    delta: Arc<PerVariant<Slot>>,
    selections: Arc<Selections>,
    read_only: Option<ReadOnly>,
}

impl Bodies {
    /// With answers that stay as they are for this long, if it is given.
    pub(super) fn new(read_only: Option<Duration>, clock: Clock) -> Self {
        Self {
            run: RandomState::new().hash_one(0),
            full: Arc::default(),
            delta: Arc::default(),
            selections: Arc::default(),
            read_only: read_only.map(|interval| ReadOnly::new(interval, clock)),
        }
    }

    /// The answer, if it is there already and nothing has changed since. Of selections it knows those in the read-only cache alone.
    pub(super) fn ready(&self, registry: &Registry, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        if let Some(cache) = &self.read_only {
            return cache.at(cache.period(), list, variant);
        }
        match list {
            List::All => self.full.of(variant).at(registry.revision()),
            List::Delta => self.delta.of(variant).at(registry.delta_revision()),
            List::Application(name) => {
                let blocks = &registry.application(name)?.blocks;
                blocks.alone.of(variant).at(blocks.number())
            }
            // Nobody asks: its name would have to be copied first.
            List::Selection(..) => None,
        }
    }

    /// The answer, with every change that was acknowledged before this is called; older ones from the read-only cache alone. `None` if
    /// there is no such application.
    pub(super) async fn get(&self, registry: &Arc<Registry>, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        let Some(cache) = &self.read_only else { return self.latest(registry, list, variant).await };
        let period = cache.period();
        if let Some(body) = cache.at(period, list, variant) {
            return Some(body);
        }
        let body = self.latest(registry, list, variant).await?;
        Some(cache.keep(period, list, variant, body))
    }

    async fn latest(&self, registry: &Arc<Registry>, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        Some(match list {
            List::All => {
                let (slots, wanted) = (&self.full, registry.revision());
                self.applications(slots, wanted, Kind::Registry, registry, Registry::full, variant).await
            }
            List::Delta => {
                let (slots, wanted) = (&self.delta, registry.delta_revision());
                self.applications(slots, wanted, Kind::Delta, registry, Registry::delta, variant).await
            }
            List::Application(name) => self.application(registry.application(name)?, variant).await,
            List::Selection(by, name) => self.selection(registry, Asked::new(*by, name, variant)).await,
        })
    }

    async fn applications(
        &self,
        slots: &Arc<PerVariant<Slot>>,
        wanted: u64,
        kind: Kind,
        registry: &Arc<Registry>,
        snapshot: fn(&Registry) -> Arc<Snapshot>,
        variant: Variant,
    ) -> Arc<Body> {
        let (run, registry, all) = (self.run, registry.clone(), slots.clone());
        let make = move || {
            let Snapshot { revision, version, counts, applications } = &*snapshot(&registry);
            let bytes = pieces::applications(*version, counts, applications, variant);
            all.iter().for_each(|slot| slot.forget_before(*revision));
            Body { revision: *revision, tag: tag(run, kind, *revision, variant), bytes }
        };
        slots.of(variant).get(wanted, make).await
    }

    async fn application(&self, view: Arc<AppView>, variant: Variant) -> Arc<Body> {
        let (run, revision, made_of) = (self.run, view.blocks.number(), view.clone());
        let make = move || Body {
            revision,
            tag: tag(run, Kind::Application, revision, variant),
            bytes: pieces::application(&made_of, variant),
        };
        view.blocks.alone.of(variant).get(revision, make).await
    }

    async fn selection(&self, registry: &Arc<Registry>, asked: Asked) -> Arc<Body> {
        let (run, wanted, slot) = (self.run, registry.revision(), self.selections.slot(&asked));
        let (registry, selections, room) = (registry.clone(), self.selections.clone(), slot.clone());
        let make = move || {
            let snapshot = registry.full();
            let (revision, bytes) = (snapshot.revision, selection::body(&snapshot, &asked));
            selections.made(&asked, &room, bytes.len());
            Body { revision, tag: tag(run, Kind::Registry, revision, asked.variant), bytes }
        };
        slot.get(wanted, make).await
    }
}

impl List<'_> {
    pub(super) fn into_owned(self) -> List<'static> {
        match self {
            Self::All => List::All,
            Self::Delta => List::Delta,
            Self::Application(name) => List::Application(name.into_owned().into()),
            Self::Selection(by, name) => List::Selection(by, name.into_owned().into()),
        }
    }
}
