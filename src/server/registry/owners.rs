//! Owners of the leases by application, and numbers of instances and applications of each identity
//! for the limits on them.

use std::collections::HashMap;
use std::sync::Arc;

use super::settings::Settings;
use crate::server::outcome::{Origin, Refused, Registrant};
use crate::server::owner::Owner;
use crate::sync::Mutex;

/// Registrations of each identity. Nothing is recorded without limits and access control.
#[derive(Debug)]
pub(super) struct Owners {
    instances: usize,
    applications: usize,
    is_limited: bool,
    is_tracked: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Registrations by identity.
    counted: HashMap<Arc<str>, Counted>,
    /// Owners of the leases of each application, with their numbers.
    by_app: HashMap<Arc<str>, Vec<(Owner, usize)>>,
}

/// Registrations of one identity.
#[derive(Debug, Default)]
struct Counted {
    instances: usize,
    /// Number of instances by application.
    applications: HashMap<Arc<str>, usize>,
}

impl Owners {
    pub(super) fn new(settings: &Settings) -> Self {
        let [instances, applications] = settings.identity_limits;
        Self {
            instances: instances.unwrap_or(usize::MAX),
            applications: applications.unwrap_or(usize::MAX),
            is_limited: instances.is_some() || applications.is_some(),
            is_tracked: settings.tracks_owners,
            state: Mutex::default(),
        }
    }

    /// Records that an instance of this application changes from one registrant to another, if
    /// there are any. Changes nothing if the new one has reached a limit.
    pub(super) fn transfer(
        &self,
        from: Option<&Registrant>,
        to: Option<&Registrant>,
        app: &Arc<str>,
    ) -> Result<(), Refused> {
        if !self.is_limited && !self.is_tracked {
            return Ok(());
        }
        let mut state = self.state.lock();
        if self.is_limited {
            self.count(&mut state.counted, from.and_then(counted), to.and_then(counted), app)?;
        }
        if self.is_tracked {
            state.track(from.map(|from| &from.owner), to.map(|to| &to.owner), app);
        }
        Ok(())
    }

    /// Records the end of an instance of this application.
    pub(super) fn release(&self, from: &Registrant, app: &Arc<str>) {
        self.transfer(Some(from), None, app).expect("only a new identity has a limit");
    }

    /// Returns the different owners of the leases of an application.
    pub(super) fn of(&self, app: &str) -> Vec<Owner> {
        let state = self.state.lock();
        state.by_app.get(app).map_or_else(Vec::new, |owners| owners.iter().map(|(owner, _)| owner.clone()).collect())
    }

    /// Returns true if a lease has an unknown owner.
    #[cfg(feature = "peers")]
    pub(super) fn has_unknown(&self) -> bool {
        self.state.lock().by_app.values().flatten().any(|(owner, _)| !owner.is_known())
    }

    fn count(
        &self,
        counted: &mut HashMap<Arc<str>, Counted>,
        from: Option<&Arc<str>>,
        to: Option<&Arc<str>>,
        app: &Arc<str>,
    ) -> Result<(), Refused> {
        if from == to {
            return Ok(());
        }
        if let Some(to) = to {
            let known = counted.get(to);
            if known.map_or(0, |known| known.instances) >= self.instances {
                return Err(Refused::IdentityInstances(self.instances));
            }
            let is_new = known.is_none_or(|known| !known.applications.contains_key(app));
            if is_new && known.map_or(0, |known| known.applications.len()) >= self.applications {
                return Err(Refused::IdentityApplications(self.applications));
            }
            let known = counted.entry(to.clone()).or_default();
            known.instances += 1;
            *known.applications.entry(app.clone()).or_default() += 1;
        }
        if let Some(from) = from
            && let Some(known) = counted.get_mut(from)
        {
            known.instances -= 1;
            if let Some(instances) = known.applications.get_mut(app) {
                *instances -= 1;
                if *instances == 0 {
                    known.applications.remove(app);
                }
            }
            if known.instances == 0 {
                counted.remove(from);
            }
        }
        Ok(())
    }
}

impl State {
    fn track(&mut self, from: Option<&Owner>, to: Option<&Owner>, app: &Arc<str>) {
        if from == to {
            return;
        }
        let owners = self.by_app.entry(app.clone()).or_default();
        if let Some(to) = to {
            match owners.iter_mut().find(|(owner, _)| owner == to) {
                Some((_, leases)) => *leases += 1,
                None => owners.push((to.clone(), 1)),
            }
        }
        if let Some(at) = from.and_then(|from| owners.iter().position(|(owner, _)| owner == from)) {
            owners[at].1 -= 1;
            if owners[at].1 == 0 {
                owners.swap_remove(at);
            }
        }
        if owners.is_empty() {
            self.by_app.remove(app);
        }
    }
}

/// Returns the identity that an instance counts for. An instance that a peer replicates counts for
/// none here.
fn counted(registrant: &Registrant) -> Option<&Arc<str>> {
    registrant.identity.as_ref().filter(|_| registrant.origin == Origin::Client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registrant(origin: Origin, name: &str) -> Registrant {
        let key: Arc<str> = format!("user:{name}").into();
        Registrant { identity: Some(key.clone()), owner: Owner::Identity(key), ..origin.into() }
    }

    #[test]
    fn identity_is_limited_in_instances_and_applications_and_released_ones_count_no_more() {
        let owners = Owners::new(&Settings { identity_limits: [Some(3), Some(2)], ..Settings::default() });
        let [alice, bob] = ["alice", "bob"].map(|name| registrant(Origin::Client, name));
        let [a, b, c] = ["A", "B", "C"].map(Arc::<str>::from);
        let add = |who: &Registrant, app| owners.transfer(None, Some(who), app);
        add(&alice, &a).unwrap();
        add(&alice, &b).unwrap();
        assert_eq!(add(&alice, &c), Err(Refused::IdentityApplications(2)));
        add(&alice, &a).unwrap();
        assert_eq!(add(&alice, &a), Err(Refused::IdentityInstances(3)));
        add(&bob, &c).unwrap();
        assert_eq!(owners.transfer(Some(&bob), Some(&alice), &c), Err(Refused::IdentityInstances(3)));
        owners.transfer(Some(&alice), Some(&alice), &a).unwrap();
        owners.transfer(Some(&alice), Some(&bob), &b).unwrap();
        add(&alice, &c).unwrap();
        for (who, app) in [(&alice, &a), (&alice, &a), (&alice, &c), (&bob, &b), (&bob, &c)] {
            owners.release(who, app);
        }
        assert!(owners.state.lock().counted.is_empty());
    }

    #[test]
    fn replicated_instances_do_not_count_for_the_identity_of_the_peer() {
        let owners = Owners::new(&Settings { identity_limits: [Some(1), Some(1)], ..Settings::default() });
        let [peer, client] = [Origin::Replica, Origin::Client].map(|origin| registrant(origin, "node"));
        for app in ["A", "B", "C"] {
            owners.transfer(None, Some(&peer), &app.into()).unwrap();
        }
        owners.transfer(Some(&peer), Some(&client), &"A".into()).unwrap();
        assert_eq!(owners.transfer(None, Some(&client), &"A".into()), Err(Refused::IdentityInstances(1)));
        owners.release(&client, &"A".into());
        owners.release(&peer, &"B".into());
        assert!(owners.state.lock().counted.is_empty());
    }

    #[test]
    fn owners_of_an_application_are_those_of_its_leases() {
        let owners = Owners::new(&Settings { tracks_owners: true, ..Settings::default() });
        let [alice, bob] = ["alice", "bob"].map(|name| registrant(Origin::Client, name));
        let app: Arc<str> = "A".into();
        for (from, to, expected) in [
            (None, Some(&alice), &[&alice][..]),
            (None, Some(&alice), &[&alice]),
            (Some(&alice), Some(&bob), &[&alice, &bob]),
            (Some(&alice), None, &[&bob]),
            (Some(&bob), None, &[]),
        ] {
            owners.transfer(from, to, &app).unwrap();
            assert_eq!(owners.of("A"), expected.iter().map(|who| who.owner.clone()).collect::<Vec<_>>());
        }
        assert!(owners.state.lock().by_app.is_empty());
    }
}
