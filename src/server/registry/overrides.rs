//! Status overrides. See `docs/server.md`, "Status override".

use super::lease::Lease;
use super::state::Registry;
use crate::model::InstanceStatus;
use crate::server::events::ServerEvent;
use crate::server::outcome::{Effect, States};
use crate::server::view::Record;

impl Registry {
    /// Sets a status override.
    pub(in crate::server) fn set_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        dirty: Option<i64>,
        now: i64,
    ) -> Effect {
        self.change_override(app, id, Some(status), status, dirty, now)
    }

    /// Deletes the status override, and sets the given status until the instance registers.
    pub(in crate::server) fn delete_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        dirty: Option<i64>,
        now: i64,
    ) -> Effect {
        self.change_override(app, id, None, status, dirty, now)
    }

    /// Sets or deletes the override, and sets the status.
    fn change_override(
        &self,
        app: &str,
        id: &str,
        to: Option<InstanceStatus>,
        status: InstanceStatus,
        dirty: Option<i64>,
        now: i64,
    ) -> Effect {
        let mut leases = self.shards.write(app, id);
        let lease = leases.get_mut(app, id).filter(|lease| self.is_visible(lease, now));
        let Some(lease) = lease else { return Effect::NotFound };
        lease.renew(self.settings.lease_doubling, now);
        let is_unchanged = match to {
            Some(to) => to == lease.status(),
            None => lease.override_status(now).is_none(),
        };
        if is_unchanged {
            return Effect::Unchanged;
        }
        let before = lease.record().clone();
        lease.set_override(to, now);
        let version = self.override_version(lease, dirty, now);
        self.modify(lease, now, |instance| {
            instance.status = status;
            instance.overridden_status = to.unwrap_or(InstanceStatus::Unknown);
            instance.last_dirty_timestamp = version;
        });
        let states = states(&before, lease.record());
        self.emit(&leases, app, id, |instance| ServerEvent::Overridden { instance });
        Effect::Changed(states)
    }

    /// Stores the override of a replica. The next heartbeat applies it to the status.
    pub(in crate::server) fn store_override(&self, app: &str, id: &str, status: InstanceStatus, now: i64) -> Effect {
        let mut leases = self.shards.write(app, id);
        let Some(lease) = leases.get_mut(app, id) else { return Effect::NotFound };
        if lease.override_status(now) == Some(status) {
            return Effect::Unchanged;
        }
        let before = lease.record().clone();
        lease.set_override(Some(status), now);
        self.modify(lease, now, |instance| instance.overridden_status = status);
        let states = states(&before, lease.record());
        self.emit(&leases, app, id, |instance| ServerEvent::Overridden { instance });
        Effect::Changed(states)
    }

    /// Returns the version of an instance after a change of its override, which may raise it.
    ///
    /// As in Java, a change without a version counts as version 0, so a negative version becomes 0.
    fn override_version(&self, lease: &Lease, dirty: Option<i64>, now: i64) -> Option<i64> {
        let instance = lease.instance();
        let ours = instance.last_dirty_timestamp;
        let dirty = dirty.map_or(0, |dirty| self.clamp(instance.app(), instance.id(), dirty, ours, now));
        ours.max(Some(dirty))
    }
}

fn states(before: &Record, after: &Record) -> States {
    States { before: Some(before.instance.clone()), after: Some(after.instance.clone()) }
}
