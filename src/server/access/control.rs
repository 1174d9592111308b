//! Access control of a running server: authenticates callers and decides about their requests.
//!
//! ```text
//!  Authorization ─▶ verified before? ─▶ token, plain password ──────────────▶ identity ─▶ decision
//!                    (recent.rs)     ─▶ hash: on a blocking thread, few at a time ─▲
//!  client certificate ─────────────────────────────────────────────────────────────┤
//!  nothing ─▶ anonymous ───────────────────────────────────────────────────────────┘
//! ```

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Extensions, HeaderMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::attempts::Attempts;
use super::certificate::PeerCertificate;
use super::credentials::{self, Credentials, Malformed};
use super::decision::{Change, Operation, decide};
use super::identity::Identity;
#[cfg(feature = "access")]
use super::jwt::{Jwt, TokenFault};
use super::owners::{Claim, Leases, Owners};
use super::password::Password;
use super::policy::Policy;
use super::recent::{Generation, Key, Recent};
use super::refusal::{Cause, Refusal};
use crate::server::audit::{self, Repeats};
use crate::sync::offload;
use crate::time::wall_clock_ms;

/// Maximum number of credentials that are known to be right, and time for which each is known
/// without being used. Heartbeats come every 30 seconds.
const VERIFIED: usize = 20_000;
const VERIFIED_TIME: Duration = Duration::from_secs(120);
/// Maximum number of credentials that are known to be wrong, and the same time.
const REJECTED: usize = 2_000;
const REJECTED_TIME: Duration = Duration::from_secs(30);
/// Maximum time for which credentials wait for their verification.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of requests that wait for a verification.
const MAX_WAITING: usize = 10_000;
/// Maximum time for which a token or certificate is taken for valid without another look at it.
#[cfg(feature = "access")]
const TOKEN_TIME: Duration = Duration::from_secs(60);

pub(in crate::server) struct AccessControl {
    pub(super) policy: ArcSwap<Policy>,
    anonymous: ArcSwap<Identity>,
    verified: Recent<Identity>,
    rejected: Recent<Refusal>,
    attempts: Attempts,
    /// Permits of the verifications that run at a time.
    verifiers: Arc<Semaphore>,
    /// Places in the queue for such a permit.
    waiting: Arc<Semaphore>,
    owners: Owners,
    #[cfg(feature = "access")]
    pub(super) jwt: Option<Jwt>,
    /// Wakes the task that fetches the keys of tokens.
    #[cfg(feature = "access")]
    pub(super) unknown_key: tokio::sync::Notify,
    log: Repeats,
}

/// Authentication that needs the verification of a password hash.
pub(in crate::server) struct Slow {
    key: Key,
    generation: Generation,
    rejected_generation: Generation,
    user: String,
    password: String,
    address: Option<IpAddr>,
}

/// Result of an authentication without waiting.
pub(in crate::server) enum Authentication {
    Done(Result<Identity, Refusal>),
    Slow(Slow),
}

impl AccessControl {
    pub(super) fn new(
        policy: Policy,
        anonymous: Identity,
        attempts_per_minute: u32,
        #[cfg(feature = "access")] jwt: Option<Jwt>,
    ) -> Self {
        // Half of the cores stay free for requests whose callers are known.
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self {
            policy: ArcSwap::from_pointee(policy),
            anonymous: ArcSwap::from_pointee(anonymous),
            verified: Recent::new(VERIFIED, VERIFIED_TIME),
            rejected: Recent::new(REJECTED, REJECTED_TIME),
            attempts: Attempts::new(attempts_per_minute),
            verifiers: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            owners: Owners::new(),
            #[cfg(feature = "access")]
            jwt,
            #[cfg(feature = "access")]
            unknown_key: tokio::sync::Notify::new(),
            log: Repeats::default(),
        }
    }

    /// Replaces the policy. All callers are authenticated again.
    pub(super) fn set_policy(&self, policy: Policy, anonymous: Identity) {
        self.policy.store(Arc::new(policy));
        self.anonymous.store(Arc::new(anonymous));
        self.forget();
    }

    /// Returns true if callers without credentials may change the registry.
    pub(in crate::server) fn may_anonymous_write(&self) -> bool {
        self.anonymous.load().role_set().may_write()
    }

    /// Forgets which credentials are right and which are wrong.
    pub(super) fn forget(&self) {
        self.verified.clear();
        self.rejected.clear();
    }

    /// Authenticates a caller, unless that needs the verification of a hash.
    pub(in crate::server) fn authenticate_now(&self, headers: &HeaderMap, extensions: &Extensions) -> Authentication {
        if let Some(identity) = extensions.get::<Identity>() {
            return Authentication::Done(Ok(identity.clone()));
        }
        let address = audit::address(extensions).map(|address| audit::network(address.ip()));
        let value = match credentials::header(headers) {
            Ok(Some(value)) => value,
            Ok(None) => return Authentication::Done(self.without_header(extensions)),
            Err(malformed) => return Authentication::Done(Err(self.malformed(malformed, address))),
        };
        let key = self.verified.key(value);
        if let Some(identity) = self.verified.get(key) {
            return Authentication::Done(Ok(identity));
        }
        let (generation, rejected_generation) = (self.verified.generation(), self.rejected.generation());
        if let Some(refusal) = self.rejected.get(key) {
            return Authentication::Done(Err(refusal));
        }
        if let Some(wait) = address.and_then(|address| self.attempts.wait(address)) {
            return Authentication::Done(Err(Refusal::TooMany(wait)));
        }
        let result = match credentials::parse(value) {
            Ok(Credentials::Basic { user, password }) => {
                let slow = Slow { key, generation, rejected_generation, user, password, address };
                if self.is_slow(&slow.user) {
                    return Authentication::Slow(slow);
                }
                return Authentication::Done(self.verify(&slow));
            }
            Ok(Credentials::Bearer(token)) => self.token(token),
            Err(malformed) => Err(Refusal::wrong(Cause::Malformed(malformed))),
        };
        let result = match result {
            Ok((identity, valid_for)) => {
                let expires = valid_for.map(|time| Instant::now() + time);
                self.verified.insert(key, identity.clone(), expires, generation);
                Ok(identity)
            }
            Err(refusal) => Err(self.rejected(key, refusal, address, rejected_generation)),
        };
        Authentication::Done(result)
    }

    /// Verifies a password hash on a blocking thread, once one of the few permits is free.
    ///
    /// # Cancel safety
    /// A verification that has begun runs to its end, and its result is remembered.
    pub(in crate::server) async fn authenticate(self: &Arc<Self>, slow: Slow) -> Result<Identity, Refusal> {
        const BUSY: Refusal = Refusal::Busy("too many log-ins at the same time");
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| BUSY)?;
        let permit = timeout(VERIFY_TIMEOUT, self.verifiers.clone().acquire_owned()).await.map_err(|_| BUSY)?;
        let permit = permit.expect("semaphore is never closed");
        drop(place);
        // Many callers share one password. The first verification counts for all that waited.
        if let Some(identity) = self.verified.get(slow.key) {
            return Ok(identity);
        }
        if let Some(refusal) = self.rejected.get(slow.key) {
            return Err(refusal);
        }
        // The failures of the requests that waited meanwhile count as well.
        if let Some(wait) = slow.address.and_then(|address| self.attempts.wait(address)) {
            return Err(Refusal::TooMany(wait));
        }
        let access = self.clone();
        offload(move || {
            let _permit: OwnedSemaphorePermit = permit;
            access.verify(&slow)
        })
        .await
    }

    /// Decides about the operation of an authenticated caller.
    pub(in crate::server) fn decide(
        &self,
        identity: &Identity,
        operation: Operation<'_>,
        is_replica: bool,
        leases: &dyn Leases,
    ) -> Result<(), Refusal> {
        let denied = match decide(identity, operation, is_replica, &self.policy.load(), &self.owners, leases) {
            Ok(()) => return Ok(()),
            Err(denial) => denial,
        };
        // A caller without credentials may have forgotten them.
        if Identity::eq(identity, &self.anonymous.load()) {
            return Err(Refusal::Missing { certificate: None });
        }
        Err(Refusal::forbidden(identity, denied))
    }

    /// Makes the identity the owner of an application that it registers, if nobody else is. The
    /// registration must be applied while the claim is held.
    ///
    /// # Errors
    /// Another identity has registered the application since the first decision.
    pub(in crate::server) fn claim(
        &self,
        identity: &Identity,
        app: &str,
        is_replica: bool,
        leases: &dyn Leases,
    ) -> Result<Claim<'_>, Refusal> {
        let claim = self.owners.lock(app);
        self.decide(identity, Operation::Change(Change::Register, app), is_replica, leases)?;
        // What a peer replicates has no owner until its client comes here.
        if !is_replica {
            self.owners.claim_free(app, identity, leases);
        }
        Ok(claim)
    }

    /// Returns the number of suppressed log lines about this refusal, if one is to be written now.
    pub(in crate::server) fn log(&self, refusal: &Refusal, host: &str) -> Option<u64> {
        self.log.pass(format_args!("access of {host} refused with {}: {refusal}", refusal.status().as_u16()))
    }

    /// Logs the refusals that have ended. Must be called periodically.
    pub(super) fn flush_log(&self) {
        self.log.flush();
    }

    fn without_header(&self, extensions: &Extensions) -> Result<Identity, Refusal> {
        let certificate = extensions.get::<PeerCertificate>();
        if let Some(certificate) = certificate {
            if !certificate.names().is_valid_at(wall_clock_ms() / 1000) {
                return Err(Refusal::wrong(Cause::ExpiredCertificate));
            }
            if let Some(identity) = self.certificate(certificate) {
                return Ok(identity);
            }
        }
        let anonymous = self.anonymous.load();
        if anonymous.role_set().is_empty() {
            return Err(Refusal::Missing { certificate: certificate.map(PeerCertificate::subject) });
        }
        Ok(Identity::clone(&anonymous))
    }

    fn certificate(&self, certificate: &PeerCertificate) -> Option<Identity> {
        let key = self.verified.key(certificate.der());
        if let Some(identity) = self.verified.get(key) {
            return Some(identity);
        }
        let generation = self.verified.generation();
        let identity = self.policy.load().certificate(&certificate.names().names)?;
        self.verified.insert(key, identity.clone(), None, generation);
        Some(identity)
    }

    /// Returns true if the password of this user takes long to verify. The password of an unknown
    /// user takes as long.
    fn is_slow(&self, user: &str) -> bool {
        let policy = self.policy.load();
        match policy.passwords(user) {
            [] => policy.decoy().is_some(),
            passwords => passwords.iter().any(|(password, _)| password.is_slow()),
        }
    }

    /// Verifies a password and remembers the result.
    fn verify(&self, slow: &Slow) -> Result<Identity, Refusal> {
        let policy = self.policy.load();
        let passwords = policy.passwords(&slow.user);
        if passwords.is_empty() {
            policy.decoy().map(|decoy| decoy.verify(&slow.password));
        }
        let is_right = |password: &Password| password.verify(&slow.password);
        if let Some((_, identity)) = passwords.iter().find(|(password, _)| is_right(password)) {
            self.verified.insert(slow.key, identity.clone(), None, slow.generation);
            return Ok(identity.clone());
        }
        let user = (!passwords.is_empty()).then(|| Arc::from(&*slow.user));
        let refusal = Refusal::Wrong { cause: Cause::Password, user };
        Err(self.rejected(slow.key, refusal, slow.address, slow.rejected_generation))
    }

    /// Returns the identity of a token, and the time for which it may be remembered.
    fn token(&self, token: &str) -> Result<(Identity, Option<Duration>), Refusal> {
        let policy = self.policy.load();
        if let Some(identity) = policy.token(token) {
            return Ok((identity.clone(), None));
        }
        #[cfg(feature = "access")]
        if let Some(jwt) = &self.jwt {
            return match jwt.verify(token) {
                Ok(verified) => {
                    let identity = policy.subject(&verified.subject).unwrap_or_else(|| verified.identity());
                    Ok((identity, Some(verified.valid_for.min(TOKEN_TIME))))
                }
                Err(TokenFault::NoKeys) => {
                    self.unknown_key.notify_one();
                    Err(Refusal::Busy("the keys of tokens were not fetched yet"))
                }
                Err(fault) => {
                    if fault == TokenFault::UnknownKey {
                        self.unknown_key.notify_one();
                    }
                    Err(Refusal::wrong(Cause::Jwt(fault)))
                }
            };
        }
        Err(Refusal::wrong(Cause::Token))
    }

    /// Remembers wrong credentials and counts the failure.
    fn rejected(&self, key: Key, refusal: Refusal, address: Option<IpAddr>, generation: Generation) -> Refusal {
        if !matches!(refusal, Refusal::Wrong { .. }) {
            return refusal;
        }
        if let Some(address) = address {
            self.attempts.failed(address);
        }
        // A token with an unknown key may be valid once its key was fetched.
        if refusal.is_lasting() {
            self.rejected.insert(key, refusal.clone(), None, generation);
        }
        refusal
    }

    fn malformed(&self, malformed: Malformed, address: Option<IpAddr>) -> Refusal {
        if let Some(address) = address {
            self.attempts.failed(address);
        }
        Refusal::wrong(Cause::Malformed(malformed))
    }
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessControl").finish_non_exhaustive()
    }
}
