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
//!
//! Other regions have fragments and blocks of their own; an application that is in several has them once more. The answers that show them
//! are kept like those of the registry alone, once for those who name no regions and for eight other choices of regions, these as long as
//! somebody asks for them.

mod form;
mod frame;
mod gzip;
#[cfg(feature = "peers")]
mod lately;
mod pieces;
mod read_only;
mod selection;
mod slot;
mod tag;
#[cfg(test)]
mod tests;
#[cfg(feature = "peers")]
mod together;

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
#[cfg(feature = "peers")]
use self::together::{Part, Shown, Together};
#[cfg(feature = "peers")]
use super::regions::{RegionSet, Regions};
use super::registry::{AppView, Registry, Snapshot};
use crate::clock::Clock;
use crate::model::Digest;

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
    /// `GET apps` together with other regions.
    #[cfg(feature = "peers")]
    AllWith(RegionSet),
    /// `GET apps/delta` together with other regions.
    #[cfg(feature = "peers")]
    DeltaWith(RegionSet),
}

/// A body as it is answered, complete; made once and shared by all who ask.
#[derive(Debug)]
pub(super) struct Body {
    /// Which state it shows: of the registry, of the delta, or of the application.
    pub(super) revision: u64,
    /// The `ETag`. Strong: the same one means the same bytes.
    pub(super) tag: HeaderValue,
    /// Digest of what it shows, of the whole registry for a delta. Only where clients can compute the same from the body.
    pub(super) digest: Option<HeaderValue>,
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
    unusual: Option<Box<Unusual>>,
}

/// What most servers don't have, so that they look once whether there is any of it.
#[derive(Debug, Default)]
struct Unusual {
    read_only: Option<ReadOnly>,
    #[cfg(feature = "peers")]
    together: Option<Together>,
}

impl Bodies {
    /// With answers that stay as they are for this long, if it is given.
    pub(super) fn new(read_only: Option<Duration>, clock: Clock) -> Self {
        Self {
            run: RandomState::new().hash_one(0),
            full: Arc::default(),
            delta: Arc::default(),
            selections: Arc::default(),
            unusual: read_only.map(|interval| {
                Box::new(Unusual {
                    read_only: Some(ReadOnly::new(interval, clock)),
                    #[cfg(feature = "peers")]
                    together: None,
                })
            }),
        }
    }

    /// The same with other regions.
    #[cfg(feature = "peers")]
    pub(super) fn with_regions(mut self, regions: Arc<Regions>) -> Self {
        let unusual = self.unusual.get_or_insert_default();
        if let Some(cache) = &mut unusual.read_only {
            cache.usual = regions.fallback();
        }
        unusual.together = Some(Together::new(regions));
        self
    }

    /// The answer, if it is there already and nothing has changed since. Of selections it knows those in the read-only cache alone, and
    /// where there are other regions it knows nothing: the list does not tell yet which of them it is to show.
    pub(super) fn ready(&self, registry: &Registry, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        if let Some(unusual) = &self.unusual {
            return unusual.ready(list, variant);
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
            #[cfg(feature = "peers")]
            List::AllWith(_) | List::DeltaWith(_) => None,
        }
    }

    /// The answer, with every change that was acknowledged before this is called; older ones from the read-only cache alone. `None` if
    /// there is no such application.
    pub(super) async fn get(&self, registry: &Arc<Registry>, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        let Some(cache) = self.unusual.as_ref().and_then(|unusual| unusual.read_only.as_ref()) else {
            return self.latest(registry, list, variant).await;
        };
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
                let (wanted, registry) = (registry.revision(), registry.clone());
                self.applications(&self.full, wanted, Kind::Registry, move || registry.full(), variant, ()).await
            }
            List::Delta => {
                let (wanted, registry) = (registry.delta_revision(), registry.clone());
                self.applications(&self.delta, wanted, Kind::Delta, move || registry.delta(), variant, ()).await
            }
            List::Application(name) => self.application(self.find(registry, name)?, variant).await,
            List::Selection(by, name) => self.selection(registry, Asked::new(*by, name, variant)).await,
            #[cfg(feature = "peers")]
            List::AllWith(set) => self.shown(registry, *set, Part::Full, variant).await?,
            #[cfg(feature = "peers")]
            List::DeltaWith(set) => self.shown(registry, *set, Part::Delta, variant).await?,
        })
    }

    /// A list that shows these regions.
    #[cfg(feature = "peers")]
    async fn shown(&self, registry: &Arc<Registry>, set: RegionSet, part: Part, variant: Variant) -> Option<Arc<Body>> {
        let together = self.together()?;
        // Once: what changes while one waits for a turn, the next answer shows.
        let wanted = together.revision(registry, set, part);
        let ready = |shown: Arc<Shown>| shown.slots(part).of(variant).at(wanted);
        if let Some(body) = together.known(set).and_then(ready) {
            return Some(body);
        }
        let (shown, turn) = together.of(set).await;
        let (slots, registry) = (shown.slots(part).clone(), registry.clone());
        let snapshot = move || shown.snapshot(&registry, part);
        Some(self.applications(&slots, wanted, part.kind(set), snapshot, variant, turn).await)
    }

    /// `turn` is kept until the answer is made.
    async fn applications(
        &self,
        slots: &Arc<PerVariant<Slot>>,
        wanted: u64,
        kind: Kind,
        snapshot: impl FnOnce() -> Arc<Snapshot> + Send + 'static,
        variant: Variant,
        turn: impl Send + 'static,
    ) -> Arc<Body> {
        let (run, all) = (self.run, slots.clone());
        let make = move || {
            let _turn = turn;
            let Snapshot { revision, version, counts, digest, applications } = &*snapshot();
            let bytes = pieces::applications(*version, counts, applications, variant);
            all.iter().for_each(|slot| slot.forget_before(*revision));
            let digest = header(variant, || *digest);
            Body { revision: *revision, tag: tag(run, kind, *revision, variant), digest, bytes }
        };
        slots.of(variant).get(wanted, make).await
    }

    /// An application that is registered here, else one that other regions have.
    fn find(&self, registry: &Registry, name: &str) -> Option<Arc<AppView>> {
        let here = registry.application(name);
        #[cfg(feature = "peers")]
        let here = here.or_else(|| self.together()?.application(name));
        here
    }

    #[cfg(feature = "peers")]
    fn together(&self) -> Option<&Together> {
        self.unusual.as_ref()?.together.as_ref()
    }

    async fn application(&self, view: Arc<AppView>, variant: Variant) -> Arc<Body> {
        let (run, revision, made_of) = (self.run, view.blocks.number(), view.clone());
        let make = move || Body {
            revision,
            tag: tag(run, Kind::Application, revision, variant),
            digest: header(variant, || pieces::digest(std::slice::from_ref(&made_of))),
            bytes: pieces::application(&made_of, variant),
        };
        view.blocks.alone.of(variant).get(revision, make).await
    }

    async fn selection(&self, registry: &Arc<Registry>, asked: Asked) -> Arc<Body> {
        let registry = registry.clone();
        #[cfg(feature = "peers")]
        if let Some(together) = self.together()
            && let Some(shown) = together.usual()
        {
            let wanted = together.revision(&registry, shown.set, Part::Full);
            return self.selected(wanted, move || shown.snapshot(&registry, Part::Full), asked).await;
        }
        self.selected(registry.revision(), move || registry.full(), asked).await
    }

    async fn selected(
        &self,
        wanted: u64,
        snapshot: impl FnOnce() -> Arc<Snapshot> + Send + 'static,
        asked: Asked,
    ) -> Arc<Body> {
        let (run, slot) = (self.run, self.selections.slot(&asked));
        let (selections, room) = (self.selections.clone(), slot.clone());
        let make = move || {
            let snapshot = snapshot();
            let revision = snapshot.revision;
            let (bytes, digest) = selection::body(&snapshot, &asked);
            selections.made(&asked, &room, bytes.len());
            let digest = header(asked.variant, || digest);
            Body { revision, tag: tag(run, Kind::Registry, revision, asked.variant), digest, bytes }
        };
        slot.get(wanted, make).await
    }
}

/// The header with a digest. Compact lists lack what it is computed over, and XML cannot write every text.
fn header(variant: Variant, digest: impl FnOnce() -> Digest) -> Option<HeaderValue> {
    (variant.form == Form::Json).then(|| digest().to_header())
}

impl Unusual {
    fn ready(&self, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        #[cfg(feature = "peers")]
        if self.together.is_some() {
            return None;
        }
        let cache = self.read_only.as_ref()?;
        cache.at(cache.period(), list, variant)
    }
}

impl List<'_> {
    pub(super) fn into_owned(self) -> List<'static> {
        match self {
            Self::All => List::All,
            Self::Delta => List::Delta,
            Self::Application(name) => List::Application(name.into_owned().into()),
            Self::Selection(by, name) => List::Selection(by, name.into_owned().into()),
            #[cfg(feature = "peers")]
            Self::AllWith(set) => List::AllWith(set),
            #[cfg(feature = "peers")]
            Self::DeltaWith(set) => List::DeltaWith(set),
        }
    }
}
