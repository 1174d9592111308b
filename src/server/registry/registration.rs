//! Registration of instances. See `docs/server.md`, "Registration".

use super::lease::{Lease, UpSince};
use super::shards::Leases;
use super::state::Registry;
use super::times::lease_duration_secs;
use super::{limits, rules};
use crate::model::{ActionType, Instance, InstanceStatus};
use crate::server::audit;
use crate::server::events::ServerEvent;
use crate::server::outcome::{Origin, Refused, RegisterOutcome, Registered, Registrant, States};

impl Registry {
    /// Registers an instance, or replaces the data of a known one. See `docs/server.md`,
    /// "Registration".
    pub(in crate::server) fn register(
        &self,
        incoming: Instance,
        registrant: impl Into<Registrant>,
        now: i64,
    ) -> Result<Registered, Refused> {
        self.reclaim(&incoming, now);
        let registrant = registrant.into();
        let (app, id, origin) = (incoming.app.clone(), incoming.shared_id(), registrant.origin);
        let mut leases = self.shards.write(&app, &id);
        let registered = self.register_in(&mut leases, incoming, registrant, origin, now);
        self.count_refusal(&registered);
        let registered = registered?;
        if matches!(registered.outcome, RegisterOutcome::Stale { .. }) {
            return Ok(registered);
        }
        self.history.registered(self.at(now).published(), &app, &id);
        let (is_new, replicated) = (registered.outcome == RegisterOutcome::New, origin == Origin::Replica);
        self.emit(&leases, &app, &id, |instance| ServerEvent::Registered { instance, is_new, replicated });
        Ok(registered)
    }

    fn count_refusal(&self, registered: &Result<Registered, Refused>) {
        if let Err(refused) | Ok(Registered { refused: Some(refused), .. }) = registered {
            self.changes().counts().add_refused(*refused);
        }
    }

    fn register_in(
        &self,
        leases: &mut Leases,
        mut incoming: Instance,
        registrant: Registrant,
        origin: Origin,
        now: i64,
    ) -> Result<Registered, Refused> {
        limits::check(&incoming, &self.settings)?;
        let published = self.at(now).published();
        let duration_secs = lease_duration_secs(&mut incoming, &self.settings);
        let old = leases.get(&incoming.app, incoming.id());
        let ours = old.and_then(|old| old.last_dirty_timestamp());
        let sent = incoming.last_dirty_timestamp.unwrap_or(published);
        let sent = self.clamp(incoming.app(), incoming.id(), sent, ours, now);
        incoming.last_dirty_timestamp = Some(sent);
        let (mut instance, registrant) = match old {
            // A late or repeated request must not undo a newer registration.
            Some(old) if old.last_dirty_timestamp() > incoming.last_dirty_timestamp => {
                (old.instance().clone(), old.registrant().clone())
            }
            Some(old) => {
                let is_newer = old.last_dirty_timestamp() < incoming.last_dirty_timestamp;
                (incoming, old.registrant().replaced_by(registrant, is_newer))
            }
            None => (incoming, registrant),
        };
        let overridden = old
            .and_then(|old| old.override_status(now))
            .or_else(|| Some(instance.overridden_status).filter(|&status| status != InstanceStatus::Unknown));
        if let Some(status) = overridden {
            instance.overridden_status = status;
        }
        let own = instance.status;
        instance.status = rules::status(own, overridden, old.map(|old| old.status()), origin);
        instance.last_updated_timestamp = Some(published);
        let outcome = match old.map(Lease::instance) {
            None => RegisterOutcome::New,
            Some(&Instance { last_dirty_timestamp: Some(ours), .. }) if ours > sent => {
                RegisterOutcome::Stale { ours, sent }
            }
            Some(old) if audit::is_enabled() && is_unchanged(old, &instance) => RegisterOutcome::Unchanged,
            Some(_) => RegisterOutcome::Changed,
        };
        let kept = Some(own).filter(|&own| own != instance.status && overridden.is_none());
        let status = instance.status;
        let is_logged = audit::is_enabled() && matches!(outcome, RegisterOutcome::New | RegisterOutcome::Changed);
        let state = |lease: &Lease| lease.record().instance.clone();
        let before = old.filter(|_| is_logged).map(state);
        let key = is_logged.then(|| (instance.app.clone(), instance.shared_id()));
        let refused = self.admit(leases, instance, registrant, overridden, duration_secs, now, now)?;
        let after = key.and_then(|(app, id)| leases.get(&app, &id).map(state));
        Ok(Registered { status, outcome, kept, refused, states: States { before, after } })
    }

    /// Creates a lease that counts from `since`, in place of the one that the instance has.
    ///
    /// A known instance that grows in a full registry keeps its data, with the new status and
    /// version. Then the reason is returned.
    #[allow(clippy::too_many_arguments, reason = "the parts of a lease and two times")]
    pub(super) fn admit(
        &self,
        leases: &mut Leases,
        mut instance: Instance,
        registrant: Registrant,
        overridden: Option<InstanceStatus>,
        duration_secs: i32,
        since: i64,
        now: i64,
    ) -> Result<Option<Refused>, Refused> {
        let (app, id) = (instance.app.clone(), instance.shared_id());
        instance.action = Some(ActionType::Added);
        // This server decides by itself which instance it is.
        instance.is_coordinating_discovery_server = self.settings.own_id.as_ref() == Some(&id);
        let at = self.at(now);
        let old = leases.get(&app, &id);
        let up_since = match old.map(Lease::up_since).unwrap_or_default() {
            never if never.is_never() && instance.status == InstanceStatus::Up => UpSince::new(at),
            earlier => earlier,
        };
        let mut lease = Lease::new(instance, registrant, overridden, duration_secs, up_since, since, at);
        self.owners.transfer(old.map(Lease::registrant), Some(lease.registrant()), &app)?;
        if let Some(old) = old {
            lease.continues(old);
        }
        let put = self.listing.put_within_limits(id.clone(), lease.record().clone(), now);
        if let Err(refused) = put {
            self.capacity.log_full(refused, &self.listing);
            let Some(old) = old else {
                self.owners.release(lease.registrant(), &app);
                return Err(refused);
            };
            lease.keep_data_of(old.instance());
            self.listing.put(id.clone(), lease.record().clone(), now);
        }
        leases.insert(app, id, lease);
        Ok(put.err())
    }

    /// Merges entries into the metadata, as a registration. Returns `None` if there is no such
    /// instance.
    pub(in crate::server) fn merge_metadata(
        &self,
        app: &str,
        id: &str,
        entries: Vec<(String, String)>,
        now: i64,
    ) -> Result<Option<Registered>, Refused> {
        let mut leases = self.shards.write(app, id);
        let Some(lease) = leases.get(app, id).filter(|lease| self.is_visible(lease, now)) else { return Ok(None) };
        let (mut instance, registrant) = (lease.instance().clone(), lease.registrant().clone());
        instance.metadata.extend(entries);
        let is_same = instance.metadata == lease.instance().metadata;
        let registered = self.register_in(&mut leases, instance, registrant, Origin::Client, now);
        self.count_refusal(&registered);
        let mut registered = registered?;
        // While changes are not logged, a registration is not compared.
        if is_same && registered.outcome == RegisterOutcome::Changed && !audit::is_enabled() {
            registered.outcome = RegisterOutcome::Unchanged;
        }
        if let Some(refused) = registered.refused {
            return Err(refused);
        }
        self.emit(&leases, app, id, |instance| ServerEvent::MetadataChanged { instance });
        Ok(Some(registered))
    }
}

/// Returns true if a registration equals the known instance, except for times.
///
/// It copies nothing, since it runs for each registration.
pub(super) fn is_unchanged(known: &Instance, sent: &Instance) -> bool {
    let Instance {
        // Equal, or the id of the data centre, which is compared.
        instance_id: _,
        app: _,
        host_name,
        ip_addr,
        sid,
        status,
        overridden_status,
        port,
        secure_port,
        country_id,
        data_center,
        metadata,
        app_group,
        home_page_url,
        status_page_url,
        health_check_url,
        secure_health_check_url,
        vip_address,
        secure_vip_address,
        asg_name,
        lease: _,
        is_coordinating_discovery_server: _,
        last_updated_timestamp: _,
        last_dirty_timestamp: _,
        action: _,
        local: _,
        generation: _,
        fingerprint: _,
    } = known;
    (status, overridden_status, metadata, data_center)
        == (&sent.status, &sent.overridden_status, &sent.metadata, &sent.data_center)
        && (host_name, ip_addr, port, secure_port) == (&sent.host_name, &sent.ip_addr, &sent.port, &sent.secure_port)
        && (vip_address, secure_vip_address) == (&sent.vip_address, &sent.secure_vip_address)
        && (home_page_url, status_page_url) == (&sent.home_page_url, &sent.status_page_url)
        && (health_check_url, secure_health_check_url) == (&sent.health_check_url, &sent.secure_health_check_url)
        && (sid, country_id, app_group, asg_name) == (&sent.sid, &sent.country_id, &sent.app_group, &sent.asg_name)
}
