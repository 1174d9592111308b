//! Numbers of instances and applications of each identity, for the limits on them.

use std::collections::HashMap;
use std::sync::Arc;

use super::settings::Settings;
use crate::server::outcome::Refused;
use crate::sync::Mutex;

/// Registrations of each identity. Nothing is counted without limits.
#[derive(Debug)]
pub(super) struct Owners {
    instances: usize,
    applications: usize,
    is_limited: bool,
    owned: Mutex<HashMap<Arc<str>, Owned>>,
}

/// Registrations of one identity.
#[derive(Debug, Default)]
struct Owned {
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
            owned: Mutex::default(),
        }
    }

    /// Moves an instance of this application from one identity to another, if there are any.
    /// Changes nothing if the new one has reached a limit.
    pub(super) fn transfer(
        &self,
        from: Option<&Arc<str>>,
        to: Option<&Arc<str>>,
        app: &Arc<str>,
    ) -> Result<(), Refused> {
        if !self.is_limited || from == to {
            return Ok(());
        }
        let mut owned = self.owned.lock();
        if let Some(to) = to {
            let known = owned.get(to);
            if known.map_or(0, |known| known.instances) >= self.instances {
                return Err(Refused::IdentityInstances(self.instances));
            }
            let is_new = known.is_none_or(|known| !known.applications.contains_key(app));
            if is_new && known.map_or(0, |known| known.applications.len()) >= self.applications {
                return Err(Refused::IdentityApplications(self.applications));
            }
            let owned = owned.entry(to.clone()).or_default();
            owned.instances += 1;
            *owned.applications.entry(app.clone()).or_default() += 1;
        }
        if let Some(from) = from
            && let Some(known) = owned.get_mut(from)
        {
            known.instances -= 1;
            if let Some(instances) = known.applications.get_mut(app) {
                *instances -= 1;
                if *instances == 0 {
                    known.applications.remove(app);
                }
            }
            if known.instances == 0 {
                owned.remove(from);
            }
        }
        Ok(())
    }

    /// Removes an instance of this application from its identity.
    pub(super) fn release(&self, from: Option<&Arc<str>>, app: &Arc<str>) {
        self.transfer(from, None, app).expect("only a new identity has a limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_limited_in_instances_and_applications_and_released_ones_count_no_more() {
        let owners = Owners::new(&Settings { identity_limits: [Some(3), Some(2)], ..Settings::default() });
        let [alice, bob] = ["alice", "bob"].map(Arc::<str>::from);
        let [a, b, c] = ["A", "B", "C"].map(Arc::<str>::from);
        let add = |who: &Arc<str>, app| owners.transfer(None, Some(who), app);
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
            owners.release(Some(who), app);
        }
        assert!(owners.owned.lock().is_empty());
    }
}
