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
//!
//! Bodies that no cache has any more live until their last reader has taken them. [`Unsent`] counts their bytes. While they are too many,
//! readers get the latest body instead of a new one, see [`Slot::get`].

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
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::form::PerVariant;
pub(super) use self::form::{Encoding, Form, Variant};
pub(super) use self::pieces::{AppBlocks, Fragment};
use self::read_only::ReadOnly;
pub(super) use self::selection::By;
use self::selection::{Asked, Selections};
pub(super) use self::slot::NoRoom;
use self::slot::{Slot, Terms};
use self::tag::{Kind, tag};
#[cfg(feature = "peers")]
use self::together::{Part, Shown, Together};
#[cfg(feature = "peers")]
use super::regions::{RegionSet, Regions};
use super::registry::{AppView, Registry, Snapshot};
use super::unsent::{Cached, Unsent};
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
    cached: Cached,
    made: Instant,
}

impl Body {
    fn new(revision: u64, tag: HeaderValue, digest: Option<HeaderValue>, bytes: Bytes, unsent: &Arc<Unsent>) -> Self {
        Self { revision, tag, digest, cached: unsent.cached(bytes), made: Instant::now() }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.cached.bytes
    }
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
    unsent: Arc<Unsent>,
    /// Turns to make a body that is one of many.
    turns: Arc<Semaphore>,
}

/// Maximum number of bodies that are made at a time, of those that are one of many.
const TURNS: usize = 4;

/// Length of an instance in a list, about, where that of a list must be known before it is made.
const INSTANCE_BYTES: usize = 1024;

/// What most servers don't have, so that they look once whether there is any of it.
#[derive(Debug, Default)]
struct Unusual {
    read_only: Option<ReadOnly>,
    #[cfg(feature = "peers")]
    together: Option<Together>,
}

impl Bodies {
    /// Creates an empty cache, with bodies that stay as they are for this long, if it is given.
    pub(super) fn new(read_only: Option<Duration>, clock: Clock, unsent: Arc<Unsent>) -> Self {
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
            unsent,
            turns: Arc::new(Semaphore::new(TURNS)),
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

    /// Returns the body, with every change that was acknowledged before this is called. Older ones come from the read-only cache, and
    /// while slow clients have exhausted the budget of unsent bytes, from the latest one that was made, which is at most 30 seconds old.
    /// `None` if there is no such application.
    ///
    /// # Errors
    /// When the budget is exhausted and there is no such body.
    pub(super) async fn get(
        &self,
        registry: &Arc<Registry>,
        list: &List<'_>,
        variant: Variant,
    ) -> Result<Option<Arc<Body>>, NoRoom> {
        let Some(cache) = self.unusual.as_ref().and_then(|unusual| unusual.read_only.as_ref()) else {
            return self.latest(registry, list, variant).await;
        };
        let period = cache.period();
        if let Some(body) = cache.at(period, list, variant) {
            return Ok(Some(body));
        }
        let body = self.latest(registry, list, variant).await?;
        Ok(body.map(|body| cache.keep(period, list, variant, body)))
    }

    async fn latest(
        &self,
        registry: &Arc<Registry>,
        list: &List<'_>,
        variant: Variant,
    ) -> Result<Option<Arc<Body>>, NoRoom> {
        let made = match list {
            List::All => {
                let (wanted, registry) = (registry.revision(), registry.clone());
                let snapshot = move || registry.full();
                self.applications(&self.full, wanted, Kind::Registry, snapshot, variant, Terms::Always, ()).await
            }
            List::Delta => {
                let (wanted, registry) = (registry.delta_revision(), registry.clone());
                let snapshot = move || registry.delta();
                self.applications(&self.delta, wanted, Kind::Delta, snapshot, variant, Terms::Always, ()).await
            }
            List::Application(name) => match self.find(registry, name) {
                Some(view) => self.application(view, variant).await,
                None => return Ok(None),
            },
            List::Selection(by, name) => self.selection(registry, Asked::new(*by, name, variant)).await,
            #[cfg(feature = "peers")]
            List::AllWith(set) => return self.shown(registry, *set, Part::Full, variant).await,
            #[cfg(feature = "peers")]
            List::DeltaWith(set) => return self.shown(registry, *set, Part::Delta, variant).await,
        };
        made.map(Some)
    }

    /// Terms of a body that is one of many, with so many instances.
    fn with_room(&self, instances: usize) -> Terms<'_> {
        Terms::WithRoom { size: instances.saturating_mul(INSTANCE_BYTES), turns: &self.turns }
    }

    /// A list that shows these regions.
    #[cfg(feature = "peers")]
    async fn shown(
        &self,
        registry: &Arc<Registry>,
        set: RegionSet,
        part: Part,
        variant: Variant,
    ) -> Result<Option<Arc<Body>>, NoRoom> {
        let Some(together) = self.together() else { return Ok(None) };
        // Once: what changes while one waits for a turn, the next answer shows.
        let wanted = together.revision(registry, set, part);
        let ready = |shown: Arc<Shown>| shown.slots(part).of(variant).at(wanted);
        if let Some(body) = together.known(set).and_then(ready) {
            return Ok(Some(body));
        }
        let (shown, turn) = together.of(set).await;
        // A turn is for choices that are not the usual one, of which there are many.
        let terms = if turn.is_none() { Terms::Always } else { self.with_room(registry.size()) };
        let (slots, registry) = (shown.slots(part).clone(), registry.clone());
        let snapshot = move || shown.snapshot(&registry, part);
        self.applications(&slots, wanted, part.kind(set), snapshot, variant, terms, turn).await.map(Some)
    }

    /// `turn` is kept until the answer is made.
    #[allow(clippy::too_many_arguments, reason = "each of the three callers has all of them")]
    async fn applications(
        &self,
        slots: &Arc<PerVariant<Slot>>,
        wanted: u64,
        kind: Kind,
        snapshot: impl FnOnce() -> Arc<Snapshot> + Send + 'static,
        variant: Variant,
        terms: Terms<'_>,
        turn: impl Send + 'static,
    ) -> Result<Arc<Body>, NoRoom> {
        let (run, all, unsent) = (self.run, slots.clone(), self.unsent.clone());
        let make = move || {
            let _turn = turn;
            let Snapshot { revision, version, counts, digest, applications } = &*snapshot();
            let bytes = pieces::applications(*version, counts, applications, variant);
            // Without room, the others are what their readers get for a while.
            if !unsent.is_exhausted() {
                all.iter().for_each(|slot| slot.forget_before(*revision));
            }
            let digest = header(variant, || *digest);
            Ok(Body::new(*revision, tag(run, kind, *revision, variant), digest, bytes, &unsent))
        };
        slots.of(variant).get(wanted, &self.unsent, terms, make).await
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

    async fn application(&self, view: Arc<AppView>, variant: Variant) -> Result<Arc<Body>, NoRoom> {
        let (run, revision, made_of) = (self.run, view.blocks.number(), view.clone());
        let unsent = self.unsent.clone();
        let make = move || {
            let digest = header(variant, || pieces::digest(std::slice::from_ref(&made_of)));
            let bytes = pieces::application(&made_of, variant);
            Ok(Body::new(revision, tag(run, Kind::Application, revision, variant), digest, bytes, &unsent))
        };
        let terms = self.with_room(view.records.len());
        view.blocks.alone.of(variant).get(revision, &self.unsent, terms, make).await
    }

    async fn selection(&self, registry: &Arc<Registry>, asked: Asked) -> Result<Arc<Body>, NoRoom> {
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
    ) -> Result<Arc<Body>, NoRoom> {
        let (run, slot) = (self.run, self.selections.slot(&asked));
        let (selections, room, unsent) = (self.selections.clone(), slot.clone(), self.unsent.clone());
        let make = move || {
            let snapshot = snapshot();
            let revision = snapshot.revision;
            let selected = selection::selected(&snapshot, &asked);
            let instances: usize = selected.iter().map(|view| view.records.len()).sum();
            if room.is_empty() && !unsent.has_room_for(instances.saturating_mul(INSTANCE_BYTES)) {
                return Err(NoRoom);
            }
            let (bytes, digest) = selection::body(&selected, asked.variant);
            selections.made(&asked, &room, bytes.len());
            let digest = header(asked.variant, || digest);
            Ok(Body::new(revision, tag(run, Kind::Registry, revision, asked.variant), digest, bytes, &unsent))
        };
        // The number of instances is known once they are selected.
        slot.get(wanted, &self.unsent, self.with_room(0), make).await
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
