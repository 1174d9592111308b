//! Owners of applications: the first identity that registered an application here keeps it until
//! its last lease ends.

use std::collections::HashMap;
use std::sync::Arc;

use super::identity::Identity;
use crate::sync::{Mutex, MutexGuard, RwLock};

/// Number of owners from which those without a lease are removed now and then.
const MIN_PRUNED: usize = 1024;
/// Number of locks for registrations. Those of different applications seldom wait for each other.
const LOCKS: usize = 64;

/// Applications of the registry, as far as ownership needs them.
pub(in crate::server) trait Leases {
    /// Returns true if the application has at least one lease.
    fn has(&self, app: &str) -> bool;
}

#[derive(Debug)]
pub(super) struct Owners {
    owners: RwLock<Table>,
    locks: Box<[Mutex<()>]>,
}

#[derive(Debug, Default)]
struct Table {
    by_app: HashMap<Arc<str>, Arc<str>>,
    /// Number of owners at which those without a lease are removed next.
    prune_at: usize,
}

/// Registration that is being applied. Other registrations of the application wait for it, so that
/// two identities cannot register a new one at the same time.
#[derive(Debug)]
#[must_use = "the registration must be applied while the claim is held"]
pub(in crate::server) struct Claim<'o>(#[allow(dead_code, reason = "held for its lock")] MutexGuard<'o, ()>);

impl Owners {
    pub(super) fn new() -> Self {
        let table = Table { by_app: HashMap::new(), prune_at: MIN_PRUNED };
        Self { owners: RwLock::new(table), locks: (0..LOCKS).map(|_| Mutex::new(())).collect() }
    }

    /// Returns the owner of an application, if it is another identity and the application still has
    /// a lease.
    pub(super) fn other(&self, app: &str, identity: &Identity, leases: &dyn Leases) -> Option<Arc<str>> {
        let owner = self.owners.read().by_app.get(app).filter(|owner| ***owner != *identity.name())?.clone();
        leases.has(app).then_some(owner)
    }

    /// Makes the identity the owner, if the application has none.
    pub(super) fn claim_free(&self, app: &str, identity: &Identity, leases: &dyn Leases) {
        let is_owned =
            |table: &Table| table.by_app.get(app).is_some_and(|owner| **owner == *identity.name() || leases.has(app));
        if is_owned(&self.owners.read()) {
            return;
        }
        let mut table = self.owners.write();
        if is_owned(&table) {
            return;
        }
        if table.by_app.len() >= table.prune_at {
            table.by_app.retain(|app, _| leases.has(app));
            table.prune_at = MIN_PRUNED.max(2 * table.by_app.len());
        }
        table.by_app.insert(app.into(), identity.shared_name().clone());
    }

    /// Locks an application until its registration is applied.
    pub(super) fn lock(&self, app: &str) -> Claim<'_> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        app.hash(&mut hasher);
        Claim(self.locks[hasher.finish() as usize % LOCKS].lock())
    }

    pub(super) fn is_owner(&self, app: &str, identity: &Identity) -> bool {
        self.owners.read().by_app.get(app).is_some_and(|owner| **owner == *identity.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::identity::Role;
    use super::*;

    struct Known(HashSet<String>);

    impl Leases for Known {
        fn has(&self, app: &str) -> bool {
            self.0.contains(app)
        }
    }

    fn identity(name: &str) -> Identity {
        Identity::new(name, [Role::Register])
    }

    #[test]
    fn application_stays_with_its_first_owner_until_its_last_lease_ends() {
        let (owners, [a, b]) = (Owners::new(), ["a", "b"].map(identity));
        let mut leases = Known(HashSet::from(["ORDERS".to_owned()]));
        owners.claim_free("ORDERS", &a, &leases);
        owners.claim_free("ORDERS", &b, &leases);
        assert_eq!(owners.other("ORDERS", &a, &leases), None);
        assert_eq!(owners.other("ORDERS", &b, &leases).as_deref(), Some("a"));
        leases.0.clear();
        assert_eq!(owners.other("ORDERS", &b, &leases), None);
        owners.claim_free("ORDERS", &b, &leases);
        leases.0.insert("ORDERS".into());
        assert_eq!(owners.other("ORDERS", &a, &leases).as_deref(), Some("b"));
    }

    #[test]
    fn owners_without_a_lease_do_not_accumulate() {
        let owners = Owners::new();
        let leases = Known(HashSet::from(["APP-7".to_owned()]));
        for n in 0..10 * MIN_PRUNED {
            owners.claim_free(&format!("APP-{n}"), &identity("a"), &leases);
        }
        assert!(owners.owners.read().by_app.len() <= MIN_PRUNED + 1);
        assert!(owners.is_owner("APP-7", &identity("a")));
    }
}
