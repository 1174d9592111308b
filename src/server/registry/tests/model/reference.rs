//! Reference implementation of the rules in `docs/server.md`: one map, one list of changes, no
//! cache, no lock.
//!
//! It uses only the types of the model. Comments mark where it deviates from Java, as the registry
//! does.

use std::collections::BTreeMap;

use super::measures::{clamped, rule, take_larger, texts, weight};
use crate::model::{ActionType, Instance, InstanceStatus, LeaseInfo, StatusCounts};
use crate::server::outcome::{Origin, Refused, Renewal};
use crate::server::registry::Settings;

const HOUR_MS: i64 = 3_600_000;

/// Application and instance id.
pub(super) type Key = (String, String);

#[derive(Debug)]
pub(super) struct Reference {
    settings: Settings,
    leases: BTreeMap<Key, Lease>,
    /// Time and state of each change, at most one per instance.
    changes: Vec<(i64, Key, Instance)>,
    renewals: u64,
    renewals_last_minute: u64,
    evicted_at: Option<i64>,
    /// Silent leases of the last searches in the order of eviction, and the times of the searches.
    silent: BTreeMap<Among, (Vec<Key>, i64)>,
    /// Time of the last search in an application.
    searched_at: Option<i64>,
    /// Applications that the last run preserved. `None` means all.
    preserved: Option<Vec<String>>,
    /// Number of changes to the full list.
    pub(super) full_changes: u64,
    delta_is_new: bool,
    deltas: i64,
}

/// Instances of which one gives way: of a full application, of those that are alone in theirs, or
/// any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Among {
    All,
    Application(String),
    Alone,
}

#[derive(Clone, Debug)]
struct Lease {
    /// State at the last change, which lists show.
    listed: Instance,
    /// Override, and the time at which it was last written or read.
    overridden: Option<(InstanceStatus, i64)>,
    duration_ms: i64,
    last_update: i64,
    renewed_at: i64,
    registered_at: i64,
    first_registered_at: i64,
    was_renewed: bool,
}

impl Reference {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            leases: BTreeMap::new(),
            changes: Vec::new(),
            renewals: 0,
            renewals_last_minute: 0,
            evicted_at: None,
            silent: BTreeMap::new(),
            searched_at: None,
            preserved: None,
            full_changes: 0,
            delta_is_new: true,
            deltas: 0,
        }
    }

    /// "Registration". The limits deviate from Java, and so does the known instance that grows in a
    /// full registry: it keeps its data, with the new state.
    pub(super) fn register(
        &mut self,
        mut incoming: Instance,
        origin: Origin,
        now: i64,
    ) -> Result<Option<Refused>, Refused> {
        let Settings { metadata_limit, name_limit, instance_size_limit, lease_limit_secs, .. } = self.settings;
        for (what, name) in [("application name", incoming.app()), ("instance id", incoming.id())] {
            if name.len() > name_limit {
                return Err(Refused::NameTooLong(what, name_limit));
            }
        }
        let text: String = incoming.metadata.iter().flat_map(|(key, value)| [key, value]).collect();
        if text.len() > metadata_limit {
            return Err(Refused::MetadataTooLarge(metadata_limit));
        }
        if texts(&incoming).iter().map(String::len).sum::<usize>() + 96 * incoming.metadata.len() > instance_size_limit
        {
            return Err(Refused::InstanceTooLarge(instance_size_limit));
        }
        let key = (incoming.app().to_owned(), incoming.id().to_owned());
        self.reclaim(&key, &incoming, now);
        let ours = self.dirty(&key);
        incoming.last_dirty_timestamp = Some(incoming.last_dirty_timestamp.map_or(now, |at| clamped(at, ours, now)));
        if let Some(lease) = &mut incoming.lease {
            lease.duration_secs = lease.duration_secs.min(lease_limit_secs);
        }
        let announced = incoming.lease.map_or(0, |lease| lease.duration_secs);
        let duration_ms = i64::from(if announced > 0 { announced } else { 90.min(lease_limit_secs) }) * 1000;
        let overridden = self.read_override(&key, now);
        let old = self.leases.get(&key);

        let mut registrant = incoming;
        if let Some(old) = old
            && old.listed.last_dirty_timestamp > registrant.last_dirty_timestamp
        {
            registrant = old.listed.clone();
        }
        let mut entry = overridden;
        if entry.is_none() && registrant.overridden_status != InstanceStatus::Unknown {
            entry = Some(registrant.overridden_status);
        }
        if let Some(status) = entry {
            registrant.overridden_status = status;
        }
        let old_status = old.map(|old| old.listed.status);
        registrant.status = rule(registrant.status, entry, old_status, origin);

        let mut info = registrant.lease.unwrap_or_default();
        info.registration_timestamp = now;
        info.last_renewal_timestamp = now;
        info.eviction_timestamp = 0;
        info.service_up_timestamp = old.map_or(0, |old| old.service_up());
        if registrant.status == InstanceStatus::Up && info.service_up_timestamp == 0 {
            info.service_up_timestamp = now;
        }
        registrant.lease = Some(info);
        registrant.action = Some(ActionType::Added);
        registrant.last_updated_timestamp = Some(now);
        registrant.is_coordinating_discovery_server = false;
        let refused = self.has_room(&key, &registrant).err();
        if let Some(refused) = refused {
            let Some(old) = self.leases.get(&key) else { return Err(refused) };
            registrant = Instance {
                metadata: old.listed.metadata.clone(),
                last_updated_timestamp: old.listed.last_updated_timestamp,
                ..registrant
            };
        }
        let overridden = entry.map(|status| (status, now));
        let old = self.leases.get(&key);
        let (first_registered_at, was_renewed) =
            old.map_or((now, false), |old| (old.first_registered_at, old.is_renewed()));
        self.leases.insert(
            key.clone(),
            Lease {
                listed: registrant.clone(),
                overridden,
                duration_ms,
                last_update: now,
                renewed_at: now,
                registered_at: now,
                first_registered_at,
                was_renewed,
            },
        );
        self.changed(key, registrant, now);
        Ok(refused)
    }

    /// "Heartbeat". A corrected status is published, unlike in Java (quirk S5).
    pub(super) fn renew(&mut self, key: &Key, dirty: Option<i64>, origin: Origin, now: i64) -> Renewal {
        if !self.leases.contains_key(key) {
            return Renewal::NotFound;
        }
        let entry = self.read_override(key, now);
        let present = self.leases[key].listed.status;
        let status = rule(present, entry, Some(present), origin);
        if status == InstanceStatus::Unknown {
            return Renewal::NotFound;
        }
        self.renewals += 1;
        self.touch(key, now);
        if status != present {
            self.modify(key, now, |instance| instance.status = status);
        }
        let lease = &self.leases[key];
        let ours = lease.listed.last_dirty_timestamp;
        match (dirty.map(|dirty| clamped(dirty, ours, now)), ours) {
            (Some(theirs), Some(ours)) if theirs > ours => Renewal::SenderIsNewer,
            (Some(theirs), Some(ours)) if theirs < ours && origin == Origin::Replica => {
                Renewal::SenderIsOlder(lease.live().into())
            }
            _ => Renewal::Renewed,
        }
    }

    /// "Cancellation"
    pub(super) fn cancel(&mut self, key: &Key, now: i64) -> bool {
        let Some(lease) = self.leases.remove(key) else { return false };
        self.removed(key, lease.live(), now);
        true
    }

    /// "Eviction", "Limits": the published lease has ended
    fn evict_one(&mut self, key: &Key, now: i64) {
        let lease = self.leases.remove(key).expect("is registered");
        let (mut instance, latest) = (lease.live(), now - lease.duration_ms - 1);
        instance.lease = instance
            .lease
            .map(|info| LeaseInfo { last_renewal_timestamp: info.last_renewal_timestamp.min(latest), ..info });
        self.removed(key, instance, now);
    }

    fn removed(&mut self, key: &Key, mut instance: Instance, now: i64) {
        instance.action = Some(ActionType::Deleted);
        instance.last_updated_timestamp = Some(now);
        instance.lease = instance.lease.map(|info| LeaseInfo { eviction_timestamp: now, ..info });
        self.changed(key.clone(), instance, now);
    }

    /// "Status override": PUT
    pub(super) fn set_override(&mut self, key: &Key, status: InstanceStatus, dirty: Option<i64>, now: i64) -> bool {
        if self.instance(key, now).is_none() {
            return false;
        }
        self.touch(key, now);
        if self.leases[key].listed.status != status {
            self.write_override(key, Some(status), now);
            self.modify(key, now, |instance| {
                instance.status = status;
                instance.overridden_status = status;
                take_larger(instance, dirty, now);
            });
        }
        true
    }

    /// "Status override": DELETE
    pub(super) fn delete_override(&mut self, key: &Key, status: InstanceStatus, dirty: Option<i64>, now: i64) -> bool {
        if self.instance(key, now).is_none() {
            return false;
        }
        self.touch(key, now);
        if self.read_override(key, now).is_some() {
            self.write_override(key, None, now);
            self.modify(key, now, |instance| {
                instance.status = status;
                instance.overridden_status = InstanceStatus::Unknown;
                take_larger(instance, dirty, now);
            });
        }
        true
    }

    /// Override of a replica. It is published, unlike in Java, so that lists and single instances
    /// agree.
    pub(super) fn store_override(&mut self, key: &Key, status: InstanceStatus, now: i64) {
        if self.leases.contains_key(key) && self.read_override(key, now) != Some(status) {
            self.write_override(key, Some(status), now);
            self.modify(key, now, |instance| instance.overridden_status = status);
        }
    }

    /// "Metadata"
    pub(super) fn merge_metadata(
        &mut self,
        key: &Key,
        entries: &[(String, String)],
        now: i64,
    ) -> Result<bool, Refused> {
        if self.instance(key, now).is_none() {
            return Ok(false);
        }
        let mut instance = self.leases[key].listed.clone();
        for (name, value) in entries {
            instance.metadata.insert(name.as_str(), value.as_str());
        }
        match self.register(instance, Origin::Client, now)? {
            None => Ok(true),
            Some(refused) => Err(refused),
        }
    }

    /// "Lease": an expired instance is hidden if it may be evicted.
    pub(super) fn instance(&self, key: &Key, now: i64) -> Option<Instance> {
        let lease = self.leases.get(key)?;
        let hidden = lease.is_expired(0, now) && self.is_expiration_enabled(&key.0);
        (!hidden).then(|| lease.live())
    }

    pub(super) fn instance_by_id(&self, id: &str, now: i64) -> Option<Instance> {
        self.leases.keys().filter(|key| key.1 == id).find_map(|key| self.instance(key, now))
    }

    /// "Eviction"
    pub(super) fn evict(&mut self, rng: &mut fastrand::Rng, now: i64) -> usize {
        let previous = self.evicted_at.replace(now);
        self.update_preserved(now);
        let interval = self.settings.eviction_interval.as_millis() as i64;
        let compensation = previous.map_or(0, |previous| (now - previous - interval).max(0));
        let expired = self.leases.iter().filter(|(_, lease)| lease.is_expired(compensation, now));
        let mut expired: Vec<Key> = expired.map(|(key, _)| key.clone()).collect();
        expired.retain(|(app, _)| self.is_expiration_enabled(app));
        let size = self.leases.len();
        let n = expired.len().min(self.limit(size));
        for i in 0..n {
            let j = rng.usize(i..expired.len());
            expired.swap(i, j);
            self.evict_one(&expired[i].clone(), now);
        }
        n
    }

    /// "Self-preservation": measured rate
    pub(super) fn end_minute(&mut self) {
        self.renewals_last_minute = std::mem::take(&mut self.renewals);
    }

    /// "Self-preservation", with the size of the registry as the number of instances (quirks S11 to
    /// S13).
    pub(super) fn is_expiration_enabled(&self, app: &str) -> bool {
        if self.settings.self_preservation && self.settings.preservation_by_application {
            return self.preserved.as_ref().is_some_and(|preserved| !preserved.iter().any(|name| name == app));
        }
        let per_minute = 60.0 / self.settings.expected_renewal_interval.as_secs_f64();
        let threshold = self.leases.len() as f64 * per_minute * self.settings.renewal_percent_threshold;
        let threshold = threshold.trunc() as u64;
        !self.settings.self_preservation || threshold > 0 && self.renewals_last_minute > threshold
    }

    /// "Self-preservation" by application: each application alone, then all others together.
    fn update_preserved(&mut self, now: i64) {
        let count = |chosen: &dyn Fn(&str) -> bool| {
            let chosen: Vec<_> = self.leases.iter().filter(|((app, _), _)| chosen(app)).collect();
            (chosen.len(), chosen.iter().filter(|(_, lease)| lease.is_silent(now)).count())
        };
        let replaced = |app: &str| {
            let of_app = || self.leases.iter().filter(|((other, _), _)| other == app).map(|(_, lease)| lease);
            let gone: Vec<_> = of_app().filter(|lease| lease.is_silent(now)).map(|lease| lease.renewed_at).collect();
            let Some(&since) = gone.iter().min() else { return 0 };
            of_app().filter(|lease| !lease.is_silent(now) && lease.service_up() > since).count().min(gone.len())
        };
        let mut preserved: Vec<String> = self.leases.keys().map(|(app, _)| app.clone()).collect();
        preserved.dedup();
        let mut others = preserved.clone();
        preserved.retain(|app| {
            let (all, silent) = count(&|other| other == app);
            silent - replaced(app) > self.limit(all)
        });
        others.retain(|app| !preserved.contains(app));
        let (all, silent) = count(&|app| others.iter().any(|name| name == app));
        let came: usize = others.iter().map(|app| replaced(app)).sum();
        let nothing_goes = silent - came > self.limit(all) || silent == all;
        self.preserved = (!nothing_goes).then_some(preserved);
    }

    /// "Eviction": limit of a run
    fn limit(&self, size: usize) -> usize {
        size - (size as f64 * self.settings.renewal_percent_threshold).trunc() as usize
    }

    /// "Delta": retention.
    pub(super) fn prune(&mut self, now: i64) {
        let oldest = now - self.settings.delta_retention.as_millis() as i64;
        let old = self.changes.iter().take_while(|(at, ..)| *at < oldest).count();
        self.changes.drain(..old);
        self.delta_is_new |= old > 0;
    }

    /// Full list: the instances of each application by id.
    pub(super) fn full(&self) -> BTreeMap<String, Vec<Instance>> {
        let mut applications = BTreeMap::<String, Vec<Instance>>::new();
        for ((app, _), lease) in &self.leases {
            applications.entry(app.clone()).or_default().push(lease.listed.clone());
        }
        applications
    }

    /// Version and entries of the delta: the changes of each application, oldest first.
    pub(super) fn delta(&mut self) -> (i64, BTreeMap<String, Vec<Instance>>) {
        if std::mem::take(&mut self.delta_is_new) {
            self.deltas += 1;
        }
        let mut applications = BTreeMap::<String, Vec<Instance>>::new();
        for (_, (app, _), instance) in &self.changes {
            applications.entry(app.clone()).or_default().push(instance.clone());
        }
        (self.deltas, applications)
    }

    pub(super) fn counts(&self) -> StatusCounts {
        self.leases.values().map(|lease| lease.listed.status).collect()
    }

    /// Apps hash.
    pub(super) fn hash(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for lease in self.leases.values() {
            *counts.entry(lease.listed.status.as_str()).or_default() += 1;
        }
        counts.iter().map(|(name, count)| format!("{name}_{count}_")).collect()
    }

    /// Checks the limits of the registry. A known instance that does not grow never exceeds them.
    /// New instances may not use the last sixteenth of the size, and known ones not the last half
    /// of it.
    fn has_room(&self, key: &Key, registrant: &Instance) -> Result<(), Refused> {
        let Settings { application_limit, applications_limit, registry_limit, registry_size_limit, .. } = self.settings;
        let members = self.leases.keys().filter(|(app, _)| *app == key.0).count();
        let old = self.leases.get(key).map(|old| weight(&old.listed));
        if old.is_some_and(|old| weight(registrant) <= old) {
            return Ok(());
        }
        if old.is_none() && members >= application_limit {
            return Err(Refused::ApplicationFull(application_limit));
        }
        if members == 0 && self.full().len() >= applications_limit {
            return Err(Refused::TooManyApplications(applications_limit));
        }
        if old.is_none() && self.leases.len() >= registry_limit {
            return Err(Refused::RegistryFull(registry_limit));
        }
        let application = if members == 0 { 1024 } else { 0 };
        let kept = registry_size_limit / if old.is_none() { 16 } else { 32 };
        if self.weight() - old.unwrap_or(0) + weight(registrant) + application > registry_size_limit - kept {
            return Err(Refused::RegistryTooLarge(registry_size_limit));
        }
        Ok(())
    }

    /// In a full registry or application, evicts as many silent instances as a new one needs. They
    /// are searched at most once per second, and in applications ten times. Java has no such rule.
    fn reclaim(&mut self, key: &Key, incoming: &Instance, now: i64) {
        if self.leases.contains_key(key) {
            return;
        }
        let among = match self.has_room(key, incoming) {
            Err(Refused::ApplicationFull(_)) => Among::Application(key.0.clone()),
            Err(Refused::TooManyApplications(_)) => Among::Alone,
            Err(_) => Among::All,
            Ok(()) => return,
        };
        if self.end_silent(key, incoming, &among, now) {
            return;
        }
        let is_recent = |at: i64, interval| (now - at).abs() < interval;
        let is_application = matches!(among, Among::Application(_));
        if self.silent.get(&among).is_some_and(|(_, at)| is_recent(*at, 1_000))
            || is_application && self.searched_at.is_some_and(|at| is_recent(at, 100))
        {
            return;
        }
        let mut silent: Vec<_> = self.leases.iter().filter(|(_, lease)| lease.gives_way(now)).collect();
        silent.retain(|(key, _)| self.is_among(&among, key));
        silent.sort_by_key(|(_, lease)| (lease.is_renewed(), lease.silent_since()));
        let silent = silent.into_iter().map(|(key, _)| key.clone()).collect();
        self.silent.insert(among.clone(), (silent, now));
        if is_application {
            self.searched_at = Some(now);
        }
        self.end_silent(key, incoming, &among, now);
    }

    fn is_among(&self, among: &Among, key: &Key) -> bool {
        match among {
            Among::All => true,
            Among::Application(app) => *app == key.0,
            Among::Alone => self.leases.keys().filter(|(app, _)| *app == key.0).count() == 1,
        }
    }

    /// Evicts the first silent leases that suffice. Returns false if all of them do not.
    fn end_silent(&mut self, key: &Key, incoming: &Instance, among: &Among, now: i64) -> bool {
        let Settings { registry_limit, registry_size_limit, .. } = self.settings;
        let application = if self.leases.keys().any(|(app, _)| *app == key.0) { 0 } else { 1024 };
        let needed = self.weight() + application + weight(incoming);
        let is_met = |ended: &[Key]| {
            let freed: usize = ended.iter().map(|key| weight(&self.leases[key].listed)).sum();
            self.leases.len() - ended.len() < registry_limit
                && needed - freed <= registry_size_limit - registry_size_limit / 16
                && (*among == Among::All || !ended.is_empty())
        };
        let Some((silent, searched_at)) = self.silent.remove(among) else { return false };
        let mut ended = Vec::new();
        let mut left = silent.into_iter();
        while !is_met(&ended) {
            let Some(next) = left.next() else {
                self.silent.insert(among.clone(), (ended, searched_at));
                return false;
            };
            if self.is_among(among, &next) && self.leases.get(&next).is_some_and(|lease| lease.gives_way(now)) {
                ended.push(next);
            }
        }
        self.silent.insert(among.clone(), (left.collect(), searched_at));
        for key in ended {
            self.evict_one(&key, now);
        }
        true
    }

    /// Weight of all listed instances and applications.
    pub(super) fn weight(&self) -> usize {
        let instances: usize = self.leases.values().map(|lease| weight(&lease.listed)).sum();
        instances + 1024 * self.full().len()
    }

    /// Registered version of an instance.
    pub(super) fn dirty(&self, key: &Key) -> Option<i64> {
        self.leases.get(key)?.listed.last_dirty_timestamp
    }

    /// Override, which ends an hour after it was last read or written. Its key is application and
    /// id (quirk S19).
    fn read_override(&mut self, key: &Key, now: i64) -> Option<InstanceStatus> {
        let (status, read_at) = self.leases.get_mut(key)?.overridden.as_mut()?;
        if now - *read_at > HOUR_MS {
            return None;
        }
        *read_at = now;
        Some(*status)
    }

    fn write_override(&mut self, key: &Key, status: Option<InstanceStatus>, now: i64) {
        if let Some(lease) = self.leases.get_mut(key) {
            lease.overridden = status.map(|status| (status, now));
        }
    }

    fn touch(&mut self, key: &Key, now: i64) {
        let doubling = self.settings.lease_doubling;
        if let Some(lease) = self.leases.get_mut(key) {
            lease.last_update = if doubling { now + lease.duration_ms } else { now };
            lease.renewed_at = now;
        }
    }

    fn modify(&mut self, key: &Key, now: i64, change: impl FnOnce(&mut Instance)) {
        let Some(lease) = self.leases.get_mut(key) else { return };
        let mut instance = lease.live();
        change(&mut instance);
        instance.action = Some(ActionType::Modified);
        instance.last_updated_timestamp = Some(now);
        if let Some(info) = &mut instance.lease
            && instance.status == InstanceStatus::Up
            && info.service_up_timestamp == 0
        {
            info.service_up_timestamp = now;
        }
        lease.listed = instance.clone();
        self.changed(key.clone(), instance, now);
    }

    fn changed(&mut self, key: Key, instance: Instance, now: i64) {
        self.changes.retain(|(_, other, _)| *other != key);
        self.changes.push((now, key, instance));
        let Settings { registry_size_limit, .. } = self.settings;
        let room = registry_size_limit.saturating_sub(self.weight()).min(registry_size_limit / 4);
        let is_deletion = |(_, _, instance): &(_, _, Instance)| instance.action == Some(ActionType::Deleted);
        let weight = |change: &(_, _, Instance)| if is_deletion(change) { weight(&change.2) } else { 0 };
        while self.changes.iter().map(weight).sum::<usize>() > room {
            let oldest = self.changes.iter().position(is_deletion).expect("something weighs");
            self.changes.remove(oldest);
        }
        self.full_changes += 1;
        self.delta_is_new = true;
    }
}

impl Lease {
    fn live(&self) -> Instance {
        let mut instance = self.listed.clone();
        instance.lease = instance.lease.map(|info| LeaseInfo { last_renewal_timestamp: self.last_update, ..info });
        instance
    }

    fn service_up(&self) -> i64 {
        self.listed.lease.map_or(0, |info| info.service_up_timestamp)
    }

    fn is_expired(&self, compensation: i64, now: i64) -> bool {
        now > self.last_update + self.duration_ms + compensation
    }

    /// A heartbeat was received since the first registration.
    fn is_renewed(&self) -> bool {
        self.was_renewed || self.renewed_at > self.registered_at
    }

    fn silent_since(&self) -> i64 {
        if self.is_renewed() { self.renewed_at } else { self.first_registered_at }
    }

    fn gives_way(&self, now: i64) -> bool {
        let silence = now - self.silent_since();
        self.is_expired(0, now) || silence > (self.duration_ms / 3).max(2 * self.interval_ms()).clamp(90_000, 600_000)
    }

    fn is_silent(&self, now: i64) -> bool {
        self.is_expired(0, now) || now - self.renewed_at > 2 * self.interval_ms()
    }

    fn interval_ms(&self) -> i64 {
        let announced = self.listed.lease.map_or(0, |info| info.renewal_interval_secs);
        i64::from(if announced > 0 { announced } else { 30 }) * 1000
    }
}
