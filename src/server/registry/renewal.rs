//! Renewal of leases by heartbeats. See `docs/server.md`, "Heartbeat".

use std::sync::Arc;

use super::lease::Lease;
use super::state::Registry;
use super::times::clamped;
use crate::model::InstanceStatus;
use crate::server::events::ServerEvent;
use crate::server::outcome::{Origin, Renewal};

impl Registry {
    /// Renews a lease. `dirty` is the version of the sender's data. See `docs/server.md`,
    /// "Heartbeat".
    ///
    /// Unlike in Java, a status that an override changes here is published at once (quirk P31).
    pub(in crate::server) fn renew(
        &self,
        app: &str,
        id: &str,
        dirty: Option<i64>,
        origin: Origin,
        now: i64,
    ) -> Renewal {
        let dirty = dirty.filter(|_| self.settings.compare_versions);
        let shard = self.shards.shard(app, id);
        let renewal = {
            let leases = shard.read();
            let Some(lease) = leases.get(app, id) else { return Renewal::NotFound };
            let status = lease.effective_status(origin, now);
            if status == InstanceStatus::Unknown {
                return Renewal::NotFound;
            }
            (status == lease.status()).then(|| {
                lease.renew(self.settings.lease_doubling, now);
                self.emit_renewed(lease, origin);
                self.compare(lease, dirty, origin, now)
            })
        };
        let renewal = match renewal {
            Some(renewal) => renewal,
            // Rare: the status has to change. That needs the write lock, and all checks are
            // repeated.
            None => {
                let mut leases = shard.write();
                let Some(lease) = leases.get_mut(app, id) else { return Renewal::NotFound };
                let status = lease.effective_status(origin, now);
                if status == InstanceStatus::Unknown {
                    return Renewal::NotFound;
                }
                lease.renew(self.settings.lease_doubling, now);
                if status != lease.status() {
                    self.modify(lease, now, |instance| instance.status = status);
                }
                self.emit_renewed(lease, origin);
                self.compare(lease, dirty, origin, now)
            }
        };
        shard.count_renewal();
        renewal
    }

    /// Sends the event of a renewal. Without a subscriber it costs one load.
    fn emit_renewed(&self, lease: &Lease, origin: Origin) {
        self.events.send(|| ServerEvent::Renewed {
            instance: lease.record().instance.clone(),
            replicated: origin == Origin::Replica,
        });
    }

    /// Compares versions after a renewal.
    fn compare(&self, lease: &Lease, dirty: Option<i64>, origin: Origin, now: i64) -> Renewal {
        let Some(dirty) = dirty else { return Renewal::Renewed };
        let ours = lease.last_dirty_timestamp();
        let dirty = clamped(dirty, ours, self.at(now).published());
        let ours = ours.unwrap_or(dirty);
        if dirty > ours {
            Renewal::SenderIsNewer
        } else if dirty < ours && origin == Origin::Replica {
            Renewal::SenderIsOlder(Arc::new(self.live_instance(lease)))
        } else {
            Renewal::Renewed
        }
    }
}
