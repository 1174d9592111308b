//! Comparison of the record in the registry with the own one.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::outcome::may_warn;
use super::{Agent, Interruption, renewal_interval, unless_shut_down};
use crate::model::{Instance, InstanceStatus};
use crate::register::events::RegistrarEvent;
use crate::time::wall_clock_ms;
use crate::transport::Transport;

/// Maximum clock difference for which a newer record in the registry is replaced. A timestamp that
/// is further ahead is not a time.
const MAX_SKEW_MS: i64 = 366 * 24 * 3600 * 1000;
/// Longest time of one read, which delays heartbeats.
const LOOK_TIME: Duration = Duration::from_secs(10);

impl Agent {
    /// Reads the record in the registry. It shows an operator's override, and another process with
    /// the same instance id. Changes go first, and the record is read again after them.
    ///
    /// After the first registration it is also compared with the own record: a process whose clock
    /// was ahead may have left a newer record, which the registry keeps. The own timestamp is then
    /// raised above it, and the instance registers again.
    pub(super) async fn look(&mut self) -> Result<(), Interruption> {
        let read = self.read(self.background.clone());
        let Some(found) = self.attend_during(read).await? else {
            self.look_due = true;
            return Ok(());
        };
        self.compare(found);
        Ok(())
    }

    /// Reads the record in the registry, and returns `true` if there is one. Nothing but a shutdown
    /// interrupts it, and it is sent although the servers ask for a pause of reads, since what
    /// follows depends on the result.
    pub(super) async fn see_record(&mut self) -> Result<bool, Interruption> {
        let read = self.read(self.transport.clone());
        let found = unless_shut_down(&mut self.shutdown, read).await?;
        Ok(self.compare(found))
    }

    /// Returns the record in the registry; `None` if it has none or does not respond in time.
    fn read(&mut self, transport: Transport) -> impl Future<Output = Option<Instance>> + Send + use<> {
        (self.look_due, self.looked) = (false, Some(Instant::now()));
        let own = self.instance.clone();
        let limit = LOOK_TIME.min(renewal_interval(&own) / 2);
        async move { timeout(limit, transport.registered(own.app(), own.id())).await.ok()?.ok()? }
    }

    /// Compares the record in the registry with the own one. Returns `true` if there is one.
    fn compare(&mut self, found: Option<Instance>) -> bool {
        let Some(found) = found else { return false };
        if std::mem::take(&mut self.unverified) {
            self.replace_newer(&found);
        } else {
            self.warn_of_other_process(&found);
        }
        self.see_override(&found);
        true
    }

    /// Registers again with a newer timestamp if the record in the registry is newer.
    fn replace_newer(&mut self, found: &Instance) {
        let (app, instance) = (self.instance.app(), self.instance.id());
        let Some(theirs) = newer_timestamp(found, &self.instance) else {
            if std::mem::take(&mut self.warned_of_clock) {
                tracing::info!(app, instance, "record with the newer timestamp is gone");
            }
            return;
        };
        let ahead = Duration::from_millis(theirs.abs_diff(self.instance.last_dirty_timestamp.unwrap_or_default()));
        if theirs.saturating_sub(wall_clock_ms()) > MAX_SKEW_MS {
            // The clock of this machine may be set later, and the record is compared again then.
            self.unverified = true;
            if !std::mem::replace(&mut self.warned_of_clock, true) {
                tracing::warn!(
                    app,
                    instance,
                    ?ahead,
                    "registry has a record that is newer than the clock of this machine by more than a year, and keeps \
                     it; set the clock, or delete the record there"
                );
            }
            return;
        }
        self.warned_of_clock = false;
        tracing::warn!(
            app,
            instance,
            ?ahead,
            "registry has a newer record of this instance, replacing it (was a clock ahead?)"
        );
        self.instance.last_dirty_timestamp = Some(theirs.saturating_add(1));
        self.registered = false;
        self.request_change();
    }

    /// Logs a warning if another process has registered the same id since: the record is newer than
    /// any that this process has sent, and differs from it.
    fn warn_of_other_process(&mut self, found: &Instance) {
        let (own, metadata) = (&self.instance, self.outgoing().metadata);
        let started = found.lease.map_or(0, |lease| lease.registration_timestamp);
        let known = self.lease_of.as_ref().filter(|(server, _)| self.server.as_ref() == Some(server));
        let restarted = known.is_some_and(|(_, at)| *at != started);
        let differs = found.ip_addr != own.ip_addr
            || found.host_name != own.host_name
            || found.port != own.port
            || found.metadata != metadata;
        let newer = newer_timestamp(found, own);
        if let Some(server) = &self.server {
            self.lease_of = Some((server.clone(), started));
        }
        let Some(theirs) = newer else { return };
        if !(differs || restarted) {
            // An operator's override may raise the timestamp. The next change is newer still.
            if theirs.saturating_sub(wall_clock_ms()) <= MAX_SKEW_MS {
                self.instance.last_dirty_timestamp = Some(theirs);
            }
            return;
        }
        if !may_warn(&mut self.warned_of_other) {
            return;
        }
        let (app, instance) = (self.instance.app(), self.instance.id());
        let other = crate::untrusted::Quoted(found.ip_addr().unwrap_or_default()).to_string();
        tracing::warn!(
            app,
            instance,
            other,
            "another process registers the same instance id; give each an id of its own, with id() or \
             eureka.instance.instance-id"
        );
    }

    fn see_override(&mut self, found: &Instance) {
        let seen = Some(found.overridden_status).filter(|status| *status != InstanceStatus::Unknown);
        let Some(change) = self.overrides.see(seen, self.server.as_ref()) else {
            // The own override may have to be set again.
            if self.change_at.is_none() {
                self.request_change();
            }
            return;
        };
        let (app, instance) = (self.instance.app(), self.instance.id());
        match change {
            Some(status) => tracing::warn!(app, instance, %status, "status overridden by an operator"),
            None => tracing::info!(app, instance, "override removed by an operator"),
        }
        self.send_event(RegistrarEvent::StatusOverridden(change));
        self.show_state();
    }
}

/// Returns the timestamp of a record if it is newer than the own one.
fn newer_timestamp(found: &Instance, own: &Instance) -> Option<i64> {
    found.last_dirty_timestamp.filter(|theirs| *theirs > own.last_dirty_timestamp.unwrap_or_default())
}
