//! Decision: may this identity do this?

use std::sync::Arc;

use super::identity::{Applications, Identity, Role};
use super::owners::{Leases, Owners};
use super::policy::Policy;
use super::refusal::Denial;

/// Operation of a request, as far as permissions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Operation<'a> {
    /// Reads the registry, its status or a page.
    Read,
    /// Registers, renews, cancels or changes an instance of an application.
    Change(Change, &'a str),
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

/// Decides about an operation. `is_replica` is true for a change that claims to be replicated.
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
    policy: &Policy,
    owners: &Owners,
    leases: &dyn Leases,
) -> Result<(), Denial> {
    let needs = |role| if identity.has(role) { Ok(()) } else { Err(Denial::Role(role)) };
    match operation {
        Operation::Read => needs(Role::Read),
        Operation::Operate => needs(Role::Operate),
        // A batch may contain any change, so that a peer may send each of them singly as well.
        Operation::Replicate | Operation::Change(..) if identity.has(Role::Peer) => Ok(()),
        Operation::Replicate => Err(Denial::Replication),
        Operation::Change(..) if is_replica => Err(Denial::Replication),
        Operation::Change(Change::Cancel | Change::Modify, _) if identity.has(Role::Operate) => Ok(()),
        Operation::Change(change, app) => {
            needs(Role::Register)?;
            if is_own(identity, app, policy, owners, leases)? {
                return Ok(());
            }
            // An instance that fails over to this node renews and cancels what a peer replicated
            // here.
            if change != Change::Register {
                owners.claim_free(app, identity, leases);
            }
            Ok(())
        }
    }
}

/// Returns true if the policy names the application for the identity, or if the identity owns it.
/// Returns false if nobody has it.
///
/// # Errors
/// Returns the reason for which somebody else has it.
fn is_own(
    identity: &Identity,
    app: &str,
    policy: &Policy,
    owners: &Owners,
    leases: &dyn Leases,
) -> Result<bool, Denial> {
    let shared = || Arc::<str>::from(app);
    match identity.applications() {
        applications if applications.names(app) => return Ok(true),
        Applications::Named(_) => return Err(Denial::Application(shared())),
        Applications::Unclaimed => {}
    }
    if policy.is_reserved(app) {
        return Err(Denial::Reserved(shared()));
    }
    if owners.is_owner(app, identity) {
        return Ok(true);
    }
    match owners.other(app, identity, leases) {
        // An operator may register as any application that it may also change.
        Some(_) if identity.has(Role::Operate) => Ok(true),
        Some(owner) => Err(Denial::Owned { app: shared(), owner }),
        None => Ok(false),
    }
}
