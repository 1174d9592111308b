//! Decision: may this identity do this?

use super::identity::{Applications, Identity, Role};
use super::policy::Policy;
use super::refusal::Denial;
use crate::server::owner::Owner;

/// Operation of a request, as far as permissions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Operation<'a> {
    /// Reads the registry, its status or a page.
    Read,
    /// Registers, renews, cancels or changes an instance.
    Change(Change, Target<'a>),
    /// Sends a batch of changes.
    Replicate,
    /// Changes something else.
    Operate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Change {
    Register,
    Renew,
    Cancel,
    /// Sets or deletes an override, or merges metadata.
    Modify,
}

/// Instance of a change. The id of a registration is unknown until its body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Target<'a> {
    pub(in crate::server) app: &'a str,
    pub(in crate::server) id: Option<&'a str>,
}

/// Leases of the registry, as far as ownership needs them.
pub(in crate::server) trait Leases {
    /// Returns the owner of a lease, or `None` if there is no such lease.
    fn owner(&self, app: &str, id: &str) -> Option<Owner>;

    /// Returns the different owners of the leases of an application.
    fn owners(&self, app: &str) -> Vec<Owner>;

    /// Makes an identity the owner of a lease whose owner is unknown.
    fn claim(&self, app: &str, id: &str, owner: &Owner);
}

/// Rules by which a decision is made.
pub(super) struct Rules<'a> {
    pub(super) policy: &'a Policy,
    pub(super) leases: &'a dyn Leases,
    /// Identity of callers without credentials.
    pub(super) anonymous: &'a Identity,
}

impl Rules<'_> {
    /// Returns true if callers without credentials may register an application that no row names,
    /// so that leases with an unknown owner may be theirs.
    fn is_open(&self, app: &str) -> bool {
        let applications = self.anonymous.applications();
        self.anonymous.has(Role::Register) && (*applications == Applications::Unclaimed || applications.names(app))
    }
}

/// Decides about an operation. `is_replica` is true for a change that claims to be replicated.
/// Returns true for a heartbeat that makes the identity the owner of a lease whose owner is
/// unknown.
///
/// | operation | read | register | operate | peer |
/// |---|---|---|---|---|
/// | read | yes | no | yes | yes |
/// | register, renew | no | own | no | yes |
/// | cancel, override, metadata | no | own | yes | yes |
/// | replicate | no | no | no | yes |
pub(super) fn decide(
    identity: &Identity,
    operation: Operation<'_>,
    is_replica: bool,
    rules: &Rules<'_>,
) -> Result<bool, Denial> {
    let needs = |role| if identity.has(role) { Ok(()) } else { Err(Denial::Role(role)) };
    match operation {
        Operation::Read => needs(Role::Read).map(|()| false),
        Operation::Operate => needs(Role::Operate).map(|()| false),
        // A batch may contain any change, so that a peer may send each of them singly as well.
        Operation::Replicate | Operation::Change(..) if identity.has(Role::Peer) => Ok(false),
        Operation::Replicate => Err(Denial::Replication),
        Operation::Change(..) if is_replica => Err(Denial::Replication),
        Operation::Change(Change::Cancel | Change::Modify, _) if identity.has(Role::Operate) => Ok(false),
        Operation::Change(change, target) => {
            needs(Role::Register)?;
            own(identity, change, target, rules)
        }
    }
}

/// Decides about a change of an instance by an identity that may register. Returns true for a
/// heartbeat that makes it the owner.
fn own(identity: &Identity, change: Change, Target { app, id }: Target<'_>, rules: &Rules<'_>) -> Result<bool, Denial> {
    let is_named = identity.applications().names(app);
    match identity.applications() {
        _ if is_named => {}
        Applications::Named(_) => return Err(Denial::Application(app.into())),
        Applications::Unclaimed if rules.policy.is_reserved(app) => return Err(Denial::Reserved(app.into())),
        Applications::Unclaimed => {}
    }
    // The id is in the body, after which the claim decides again.
    let Some(id) = id else { return Ok(false) };
    let is_own = |owner: &Owner| matches!(owner, Owner::Identity(key) if key == identity.key());
    let may_claim = || matches!(identity.owner(), Owner::Identity(_));
    if is_named {
        let is_unknown = || rules.leases.owner(app, id) == Some(Owner::Unknown);
        return Ok(change == Change::Renew && may_claim() && is_unknown());
    }
    let may_change = |owner: &Owner| match owner {
        // An operator may register as any application that it may also change.
        _ if is_own(owner) || identity.has(Role::Operate) => Ok(()),
        Owner::Identity(key) => Err(Denial::Owned { app: app.into(), owner: key.clone() }),
        Owner::Server => Err(Denial::Server(app.into())),
        Owner::Anybody | Owner::Unknown => Ok(()),
    };
    let allowed = match rules.leases.owner(app, id) {
        Some(Owner::Unknown) if change == Change::Renew => {
            let is_other = |owner: &Owner| !is_own(owner) && matches!(owner, Owner::Identity(_) | Owner::Server);
            return Ok(may_claim() && !rules.leases.owners(app).iter().any(is_other));
        }
        Some(Owner::Unknown) if !rules.is_open(app) => rules.leases.owners(app).iter().try_for_each(may_change),
        Some(owner) => may_change(&owner),
        None if change == Change::Register => {
            let owners = rules.leases.owners(app);
            if owners.iter().any(is_own) { Ok(()) } else { owners.iter().try_for_each(may_change) }
        }
        // There is nothing to change.
        None => Ok(()),
    };
    allowed.map(|()| false)
}
