//! Which of two states of an instance counts, where two registries have it differently; and what remains of those that were cancelled.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::lease::max_silence_ms;
use super::times::believed;
use super::{Refused, Registry, is_repeated, limits};
use crate::model::{Instance, InstanceStatus};
use crate::server::view::Record;
use crate::sync::{Mutex, MutexGuard};

/// Maximum number of endings that are remembered. The oldest is forgotten for one more.
const ENDINGS: usize = 50_000;
/// Maximum number of bytes that they take. The oldest are forgotten for further ones.
const ENDINGS_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that an ending takes beside the names of its instance.
const ENDING_BYTES: usize = 256;

/// Where a state stands in the life of an instance: first by the instance's own count, then by when a registry took it in.
///
/// An ending has a version like any other state: that of the data that ended, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) struct Version {
    dirty: Option<i64>,
    updated: Option<i64>,
}

impl Version {
    pub(in crate::server) fn of(instance: &Instance) -> Self {
        Self { dirty: instance.last_dirty_timestamp, updated: instance.last_updated_timestamp }
    }

    /// The same version, of a clock that is behind by this number of milliseconds.
    pub(in crate::server) fn earlier_by(self, ms: i64) -> Self {
        Self { updated: self.updated.map(|at| at.saturating_sub(ms)), ..self }
    }

    /// The version of an instance that ended then, or right after its last change if a clock that was
    /// ahead has been set back since.
    pub(super) fn ended(instance: &Instance, at: i64) -> Self {
        Self { dirty: instance.last_dirty_timestamp, updated: instance.last_updated_timestamp.max(Some(at)) }
    }

    /// The same with times that are not too far ahead; `ours` is that of the record.
    fn believed(self, ours: Self, now: i64) -> Self {
        let dirty = self.dirty.map(|dirty| believed(dirty, ours.dirty, now));
        Self { dirty, updated: self.updated.map(|updated| believed(updated, None, now)) }
    }
}

/// Whether two registries agree about an instance. Leases are each one's own affair.
pub(in crate::server) fn agree(ours: &Instance, theirs: &Instance) -> bool {
    weight(ours) == weight(theirs) && ours.metadata == theirs.metadata
}

/// Whether theirs is to replace ours. All who compare the same two states choose the same one.
pub(in crate::server) fn replaces(theirs: &Instance, ours: &Instance) -> bool {
    let settled = Version::of(theirs).cmp(&Version::of(ours)).then_with(|| weight(theirs).cmp(&weight(ours)));
    settled.then_with(|| theirs.metadata.iter().cmp(ours.metadata.iter())) == Ordering::Greater
}

fn weight(instance: &Instance) -> (Option<i64>, InstanceStatus, InstanceStatus) {
    (instance.last_dirty_timestamp, instance.status, instance.overridden_status)
}

impl Registry {
    /// Takes over what another registry has of an instance exactly as it is there: its status and override, or the lack of one, as of
    /// its own time. False if what is known here counts more, be it that the instance was cancelled.
    ///
    /// Its lease counts from `since`, or from later if it does so here already.
    pub(in crate::server) fn adopt(&self, mut copy: Instance, since: i64, now: i64) -> Result<bool, Refused> {
        limits::check(&copy, &self.settings)?;
        let (app, id) = (copy.app.clone(), Arc::<str>::from(copy.id()));
        // A copy that is silent itself, or has been cancelled here, is no reason to end others.
        if now.saturating_sub(since) <= max_silence_ms(0) && self.ended(&app, &id).is_none() {
            self.make_room(&copy, now);
        }
        let mut leases = self.shards.write(&app, &id);
        let counts = match leases.get(&app, &id) {
            Some(lease) => {
                self.believe_copy(&mut copy, lease.instance().last_dirty_timestamp, now);
                replaces(&copy, lease.instance())
            }
            None => {
                let ended = self.ended(&app, &id);
                self.believe_copy(&mut copy, ended.and_then(|ended| ended.dirty), now);
                ended < Some(Version::of(&copy))
            }
        };
        if counts {
            let overridden = Some(copy.overridden_status).filter(|&status| status != InstanceStatus::Unknown);
            let duration_secs = self.lease_duration_secs(&mut copy);
            let since = leases.get(&app, &id).map_or(since, |lease| lease.since().max(since));
            // Of one that has no room, the state may be here already.
            let is_known = leases.get(&app, &id).is_some_and(|lease| weight(lease.instance()) == weight(&copy));
            if is_known {
                self.log.check(&id, &Record::new(copy.clone())).inspect_err(|&refused| self.log_full(refused))?;
            }
            self.admit(&mut leases, copy, overridden, duration_secs, since, now)?;
        }
        Ok(counts)
    }

    /// Returns true if there is such an instance and a copy of a registration would change it.
    ///
    /// A version that is too far ahead is not believed, so a peer that believes it calls its data newer
    /// with each heartbeat. An override here stays whatever the copy says of none.
    pub(in crate::server) fn is_changed_by(&self, copy: &Instance, now: i64) -> bool {
        let Some(ours) = self.instance(copy.app(), copy.id(), now) else { return false };
        let sent = Version::of(copy).believed(Version::of(&ours), self.at(now).published());
        if sent.dirty != ours.last_dirty_timestamp {
            return true;
        }
        let mut result = copy.clone();
        if copy.overridden_status == InstanceStatus::Unknown && ours.overridden_status != InstanceStatus::Unknown {
            (result.status, result.overridden_status) = (ours.status, ours.overridden_status);
        }
        !is_repeated(&ours, &result)
    }

    /// Ends a lease as another registry ended it, as of its time. False if what is known here counts more.
    pub(in crate::server) fn adopt_ending(&self, app: &str, id: &str, ending: Version, now: i64) -> bool {
        let mut leases = self.shards.write(app, id);
        let Some(ours) = leases.get(app, id).map(|lease| Version::of(lease.instance())) else { return false };
        let ending = ending.believed(ours, now);
        if ours > ending {
            return false;
        }
        let Some(lease) = leases.remove(app, id) else { return false };
        self.withdraw(&lease, id, ending.updated.unwrap_or(self.at(now).published()), now);
        self.remember_ending(ending, &lease.instance().app, id, now);
        true
    }

    pub(super) fn remember_ending(&self, ending: Version, app: &Arc<str>, id: &str, now: i64) {
        if !self.settings.ending_retention.is_zero() {
            self.endings.add(ending, app.clone(), id.into(), now);
        }
    }

    /// The state in which an instance was cancelled lately, by whomever.
    pub(in crate::server) fn ended(&self, app: &str, id: &str) -> Option<Version> {
        self.endings.of(app, id)
    }
}

/// What was cancelled lately. Kept only where there are other registries that may not know it yet.
#[derive(Debug, Default)]
pub(super) struct Endings(Mutex<Remembered>);

/// The endings in one application by id, each with its place in the order.
type EndingsOf = HashMap<Arc<str>, (Version, u64)>;

#[derive(Debug, Default)]
struct Remembered {
    applications: HashMap<Arc<str>, EndingsOf>,
    /// Oldest first, each with the time since which it is remembered. An instance that ends again moves
    /// to the end, so that it takes no room of others.
    order: BTreeMap<u64, (i64, Arc<str>, Arc<str>)>,
    next: u64,
    /// Bytes of what is in the order.
    bytes: usize,
}

impl Endings {
    fn add(&self, ending: Version, app: Arc<str>, id: Arc<str>, now: i64) {
        let mut guard = self.lock();
        let remembered = &mut *guard;
        let number = remembered.next;
        remembered.next += 1;
        remembered.bytes += ending_bytes(&app, &id);
        let ids = remembered.applications.entry(app.clone()).or_default();
        if let Some((_, old)) = ids.insert(id.clone(), (ending, number)) {
            remembered.bytes -= ending_bytes(&app, &id);
            remembered.order.remove(&old);
        }
        remembered.order.insert(number, (now, app, id));
        while remembered.order.len() > ENDINGS || remembered.bytes > ENDINGS_BYTES {
            remembered.forget_first();
        }
    }

    fn of(&self, app: &str, id: &str) -> Option<Version> {
        self.lock().applications.get(app)?.get(id).map(|&(version, _)| version)
    }

    /// Forgets what ended before this time.
    pub(super) fn prune(&self, before: i64) {
        let mut remembered = self.lock();
        while remembered.order.first_key_value().is_some_and(|(_, &(at, ..))| at < before) {
            remembered.forget_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock()
    }
}

fn ending_bytes(app: &str, id: &str) -> usize {
    app.len() + id.len() + ENDING_BYTES
}

impl Remembered {
    fn forget_first(&mut self) {
        let Some((_, (_, app, id))) = self.order.pop_first() else { return };
        self.bytes -= ending_bytes(&app, &id);
        let Some(ids) = self.applications.get_mut(&app) else { return };
        ids.remove(&id);
        if ids.is_empty() {
            self.applications.remove(&app);
        }
    }
}

#[cfg(test)]
impl Endings {
    /// Number of endings that are remembered.
    pub(super) fn len(&self) -> usize {
        let remembered = self.lock();
        let bytes: usize = remembered.order.values().map(|(_, app, id)| ending_bytes(app, id)).sum();
        assert_eq!(remembered.bytes, bytes);
        assert_eq!(remembered.applications.values().map(HashMap::len).sum::<usize>(), remembered.order.len());
        remembered.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Origin, Settings};
    use super::*;

    fn copy(status: InstanceStatus, updated: i64) -> Instance {
        let mut instance =
            Instance::builder("APP").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        instance.status = status;
        (instance.last_dirty_timestamp, instance.last_updated_timestamp) = (Some(1), Some(updated));
        instance
    }

    #[test]
    fn an_ending_that_is_taken_over_keeps_its_time() {
        let ending_retention = std::time::Duration::from_secs(600);
        let registry = Registry::new(Settings { ending_retention, ..Settings::default() });
        registry.register(copy(InstanceStatus::Up, 100), Origin::Client, 100).unwrap();
        let ending = Version { dirty: Some(1), updated: Some(200) };
        assert!(registry.adopt_ending("APP", "i", ending, 900));
        assert_eq!(registry.ended("APP", "i"), Some(ending));
        let shown = Version::of(&registry.delta().applications[0].records[0].instance);
        assert_eq!(shown, ending, "so that the next node takes over the same");
        assert_eq!(registry.adopt(copy(InstanceStatus::Down, 200), 900, 900), Ok(false), "it ended with that");
        assert_eq!(registry.adopt(copy(InstanceStatus::Down, 300), 900, 900), Ok(true), "newer than the ending");
    }

    #[test]
    fn copy_with_a_version_far_ahead_changes_nothing_but_what_differs() {
        const YEARS: i64 = 5 * 365 * 24 * 3_600_000;
        let registry = Registry::new(Settings::default());
        let ahead = |change: fn(&mut Instance)| {
            let mut copy = copy(InstanceStatus::Up, 100);
            copy.last_dirty_timestamp = Some(YEARS);
            change(&mut copy);
            copy
        };
        assert!(!registry.is_changed_by(&ahead(|_| {}), 100), "it is not here");
        registry.register(ahead(|_| {}), Origin::Client, 100).unwrap();
        assert!(registry.instance("APP", "i", 100).unwrap().last_dirty_timestamp < Some(YEARS));
        assert!(!registry.is_changed_by(&ahead(|_| {}), 200));
        assert!(registry.is_changed_by(&ahead(|copy| copy.status = InstanceStatus::Down), 200));
        assert!(registry.is_changed_by(&ahead(|copy| copy.host_name = Some("other".into())), 200));
        let newer = ahead(|copy| copy.last_dirty_timestamp = Some(24 * 3_600_000 + 150));
        assert!(registry.is_changed_by(&newer, 200), "it can be believed");
        registry.set_override("APP", "i", InstanceStatus::OutOfService, None, 300);
        assert!(!registry.is_changed_by(&ahead(|_| {}), 400), "an override stays");
    }
}
