//! Reads of the registry.

use std::sync::Arc;

use super::history::{End, PastLease};
use super::lease::Lease;
#[cfg(feature = "peers")]
use super::limits;
#[cfg(feature = "peers")]
use super::listing::Listing;
#[cfg(feature = "prometheus")]
use super::listing::Totals;
use super::state::Registry;
use crate::model::Instance;
use crate::server::events::ServerEvents;
#[cfg(feature = "peers")]
use crate::server::outcome::Refused;
use crate::server::outcome::Registrant;
use crate::server::owner::{Owner, OwnersDocument};
use crate::server::view::{AppView, Snapshot};

impl Registry {
    /// Returns an instance with the current times of its lease. An expired instance is hidden as
    /// soon as it may be evicted.
    pub(in crate::server) fn instance(&self, app: &str, id: &str, now: i64) -> Option<Instance> {
        let leases = self.shards.shard(app, id).read();
        leases.get(app, id).filter(|lease| self.is_visible(lease, now)).map(|lease| self.live_instance(lease))
    }

    /// Returns the instance with this id in the first application by name that has one.
    pub(in crate::server) fn instance_by_id(&self, id: &str, now: i64) -> Option<Instance> {
        let mut app = self.listing.application_of(id, None)?;
        loop {
            if let Some(instance) = self.instance(&app, id, now) {
                return Some(instance);
            }
            app = self.listing.application_of(id, Some(&app))?;
        }
    }

    /// Returns the owner of a lease, or `None` if there is no such lease or no access control.
    pub(in crate::server) fn owner_of(&self, app: &str, id: &str) -> Option<Owner> {
        if !self.settings.tracks_owners {
            return None;
        }
        self.shards.shard(app, id).read().get(app, id).map(|lease| lease.registrant().owner.clone())
    }

    /// Returns the different owners of the leases of an application.
    pub(in crate::server) fn owners_of(&self, app: &str) -> Vec<Owner> {
        self.owners.of(app)
    }

    /// Makes the sender of a heartbeat the owner of a lease whose owner is unknown, until a peer
    /// names the owner.
    pub(in crate::server) fn claim_owner(&self, app: &str, id: &str, owner: &Owner) {
        self.set_owner(app, id, owner, true);
    }

    /// Records the owner of a lease that a peer names, if no other one registered the instance
    /// here.
    pub(in crate::server) fn learn_owner(&self, app: &str, id: &str, owner: &Owner) {
        if owner.is_known() {
            self.set_owner(app, id, owner, false);
        }
    }

    fn set_owner(&self, app: &str, id: &str, owner: &Owner, is_provisional: bool) {
        let is_free = |lease: &Lease| {
            let known = lease.registrant();
            !known.owner.is_known() || known.is_provisional && !is_provisional
        };
        if !self.settings.tracks_owners || !self.shards.shard(app, id).read().get(app, id).is_some_and(is_free) {
            return;
        }
        let mut leases = self.shards.write(app, id);
        let Some(lease) = leases.get_mut(app, id).filter(|lease| is_free(lease)) else { return };
        let before = lease.registrant().clone();
        lease.set_owner(owner.clone(), is_provisional);
        let (after, app) = (lease.registrant(), &lease.instance().app);
        self.owners.transfer(Some(&before), Some(after), app).expect("the identity is the same");
    }

    /// Returns true if the owners of leases are recorded, as with access control.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn tracks_owners(&self) -> bool {
        self.settings.tracks_owners
    }

    /// Returns true if the owner of a lease is unknown.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn lacks_owners(&self) -> bool {
        self.settings.tracks_owners && self.owners.has_unknown()
    }

    /// Returns the owner of a lease as peers may know it.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn certain_owner(&self, app: &str, id: &str) -> Owner {
        if !self.settings.tracks_owners {
            return Owner::Unknown;
        }
        let leases = self.shards.shard(app, id).read();
        leases.get(app, id).map_or(Owner::Unknown, |lease| lease.registrant().certain_owner())
    }

    /// Returns the owners of all leases, as far as they are known and peers may know them.
    pub(in crate::server) fn known_owners(&self) -> OwnersDocument {
        let mut owners = OwnersDocument::default();
        for shard in self.shards.iter() {
            shard.read().iter().for_each(|(app, id, lease)| owners.add(app, id, &lease.registrant().certain_owner()));
        }
        owners
    }

    /// Returns the sender of the registration that an instance has.
    pub(in crate::server) fn registrant(&self, app: &str, id: &str) -> Option<Registrant> {
        self.shards.shard(app, id).read().get(app, id).map(|lease| lease.registrant().clone())
    }

    /// Returns a stream of the events from now on.
    pub(in crate::server) fn subscribe(&self) -> ServerEvents {
        self.events.subscribe()
    }

    /// Returns the last registrations, latest first. At most 1,000 are kept.
    #[allow(dead_code, reason = "read by the page of the registry")]
    pub(in crate::server) fn last_registered(&self) -> Vec<PastLease> {
        self.history.last_registered()
    }

    /// Returns the last cancellations and evictions, latest first. At most 1,000 are kept.
    #[allow(dead_code, reason = "read by the page of the registry")]
    pub(in crate::server) fn last_cancelled(&self) -> Vec<(PastLease, End)> {
        self.history.last_cancelled()
    }

    /// Returns the full list. It is the same `Arc` as long as nothing changes.
    pub(in crate::server) fn full(&self) -> Arc<Snapshot> {
        self.listing.full()
    }

    /// Returns the latest change of each recently changed instance, oldest first. The counts are
    /// those of the whole registry.
    pub(in crate::server) fn delta(&self) -> Arc<Snapshot> {
        self.listing.delta()
    }

    /// Returns an application with at least one instance.
    pub(in crate::server) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        self.listing.application(name)
    }

    /// Returns the published state.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Checks an instance against the limits on a single one.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn check(&self, instance: &Instance) -> Result<(), Refused> {
        limits::check(instance, &self.settings)
    }

    /// Returns the maximum weight of all instances.
    pub(in crate::server) fn size_limit(&self) -> usize {
        self.settings.registry_size_limit
    }

    /// Returns true if an instance of a usual size would be accepted.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn has_room(&self) -> bool {
        self.listing.has_room()
    }

    /// Returns the present numbers of applications, of instances by status and of bytes.
    #[cfg(feature = "prometheus")]
    pub(in crate::server) fn totals(&self) -> Totals {
        self.listing.totals()
    }

    /// Returns the maximum number of instances.
    #[cfg(feature = "prometheus")]
    pub(in crate::server) fn instance_limit(&self) -> usize {
        self.settings.registry_limit
    }

    /// Returns the number of instances.
    pub(in crate::server) fn size(&self) -> usize {
        self.listing.size()
    }

    /// Returns the revision of the [full list](Self::full). It is raised before a change is
    /// acknowledged.
    pub(in crate::server) fn revision(&self) -> u64 {
        self.listing.revision()
    }

    /// Returns the revision of the [delta](Self::delta), which is also raised when old changes are
    /// removed.
    pub(in crate::server) fn delta_revision(&self) -> u64 {
        self.listing.delta_revision()
    }

    pub(super) fn is_visible(&self, lease: &Lease, now: i64) -> bool {
        !(lease.is_expired(0, now) && self.is_expiration_enabled(&lease.instance().app))
    }
}
