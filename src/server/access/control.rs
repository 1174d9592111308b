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
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Extensions, HeaderMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::attempts::Attempts;
use super::certificate::PeerCertificate;
use super::claims::{Claim, Claims};
use super::credentials::{self, Credentials};
use super::decision::{Leases, Operation, Rules, decide};
use super::identity::{Identity, Role};
#[cfg(feature = "access")]
use super::jwt::{Jwt, TokenFault};
use super::password::Password;
use super::policy::Policy;
use super::recent::{Generation, Key, Recent};
use super::refusal::{Cause, Refusal};
use crate::server::audit::{self, Repeats};
use crate::server::memory;
use crate::sync::offload;
use crate::time::wall_clock_ms;

/// Maximum number of credentials that are known to be right, and time for which each is known
/// without being used. Heartbeats come every 30 seconds.
const VERIFIED: usize = 20_000;
const VERIFIED_TIME: Duration = Duration::from_secs(120);
/// Maximum number of credentials that are known to be wrong, and time for which each is known.
const REJECTED: usize = 2_000;
const REJECTED_TIME: Duration = Duration::from_secs(30);
/// Maximum time for which credentials wait for their verification.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of requests that wait for a verification.
const MAX_WAITING: usize = 10_000;
/// Share of the memory of the process that verifications may use at a time, and its minimum in MiB.
const MEMORY_SHARE: usize = 8;
const MIN_MEMORY_MIB: u32 = 64;
/// Maximum time for which a token counts as valid after its verification.
#[cfg(feature = "access")]
const TOKEN_TIME: Duration = Duration::from_secs(60);

/// Returns the MiB of memory that verifications may use at a time.
pub(super) fn memory_mib() -> u32 {
    static MIB: OnceLock<u32> = OnceLock::new();

    *MIB.get_or_init(|| {
        let limit = memory::limit().map_or(0, |(bytes, _)| bytes);
        u32::try_from(limit / MEMORY_SHARE / (1024 * 1024)).unwrap_or(u32::MAX).max(MIN_MEMORY_MIB)
    })
}

pub(in crate::server) struct AccessControl {
    pub(super) policy: ArcSwap<Policy>,
    anonymous: ArcSwap<Identity>,
    verified: Recent<Verified>,
    rejected: Recent<Refusal>,
    attempts: Attempts,
    /// Permits of the verifications that run at a time.
    verifiers: Arc<Semaphore>,
    /// MiB of memory for them.
    pub(super) memory: Arc<Semaphore>,
    pub(super) memory_mib: u32,
    /// Places in the queue for such a permit.
    waiting: Arc<Semaphore>,
    claims: Claims,
    #[cfg(feature = "access")]
    pub(super) jwt: Option<Jwt>,
    /// Wakes the task that fetches the keys of tokens.
    #[cfg(feature = "access")]
    pub(super) unknown_key: tokio::sync::Notify,
    /// Wakes the task that reads the files again.
    pub(super) reload: tokio::sync::Notify,
    log: Repeats,
}

/// Credentials that were right, and the reason.
#[derive(Debug)]
struct Verified {
    identity: Identity,
    proof: Proof,
}

/// Part of the policy or of the keys that makes credentials right.
#[derive(Debug)]
enum Proof {
    Password {
        user: String,
        password: Arc<Password>,
    },
    Token(String),
    Certificate,
    #[cfg(feature = "access")]
    Jwt,
}

/// Authentication that needs the verification of a password hash.
pub(in crate::server) struct Slow {
    check: Check,
    user: String,
    password: String,
}

/// Credentials that are being checked.
struct Check {
    key: Key,
    /// Generations of the caches of right and of wrong credentials.
    generations: [Generation; 2],
    address: Option<IpAddr>,
}

/// Identity of right credentials, and the time for which they may be remembered.
type Found = (Verified, Option<Duration>);

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
        let memory_mib = memory_mib();
        Self {
            policy: ArcSwap::from_pointee(policy),
            anonymous: ArcSwap::from_pointee(anonymous),
            verified: Recent::new(VERIFIED, VERIFIED_TIME),
            rejected: Recent::new(REJECTED, REJECTED_TIME),
            attempts: Attempts::new(attempts_per_minute),
            verifiers: Arc::new(Semaphore::new(cores)),
            memory: Arc::new(Semaphore::new(memory_mib as usize)),
            memory_mib,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            claims: Claims::new(),
            #[cfg(feature = "access")]
            jwt,
            #[cfg(feature = "access")]
            unknown_key: tokio::sync::Notify::new(),
            reload: tokio::sync::Notify::new(),
            log: Repeats::default(),
        }
    }

    /// Replaces the policy. The credentials of unchanged rows stay known, so that a new user does
    /// not make all others wait for a verification.
    pub(super) fn set_policy(&self, policy: Policy, anonymous: Identity) {
        let policy = Arc::new(policy);
        self.policy.store(policy.clone());
        self.anonymous.store(Arc::new(anonymous));
        self.verified.retain(|Verified { identity, proof }| match proof {
            Proof::Password { user, password } => {
                policy.passwords(user).iter().any(|row| (&row.0, &row.1) == (password, identity))
            }
            Proof::Token(token) => policy.token(token) == Some(identity),
            // They are verified without a wait.
            _ => false,
        });
        self.rejected.retain(|_| false);
    }

    /// Forgets which tokens are right and which are wrong, after their keys have changed.
    #[cfg(feature = "access")]
    pub(super) fn forget_tokens(&self) {
        self.verified.retain(|verified| !matches!(verified.proof, Proof::Jwt));
        self.rejected.retain(|refusal| !matches!(refusal, Refusal::Wrong { cause: Cause::Jwt(_), .. }));
    }

    /// Reads the files of users and keys again now.
    pub(in crate::server) fn reload(&self) {
        self.reload.notify_one();
    }

    /// Returns true if callers without credentials may change the registry.
    pub(in crate::server) fn may_anonymous_write(&self) -> bool {
        self.anonymous.load().role_set().may_write()
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
            Err(malformed) => {
                self.failed(address);
                return Authentication::Done(Err(Refusal::wrong(Cause::Malformed(malformed))));
            }
        };
        let key = self.verified.key(value);
        if let Some(identity) = self.known(key) {
            return Authentication::Done(Ok(identity));
        }
        let generations = [self.verified.generation(), self.rejected.generation()];
        if let Some(refusal) = self.rejected.get(key, Refusal::clone) {
            return Authentication::Done(Err(refusal));
        }
        let check = Check { key, generations, address };
        let result = match credentials::parse(value) {
            Ok(Credentials::Basic { user, password }) => {
                if let Err(refusal) = self.check_attempts(address) {
                    return Authentication::Done(Err(refusal));
                }
                let policy = self.policy.load();
                let plain = |known: &Password| !known.is_slow() && known.verify(&password);
                match right(&policy, &user, plain) {
                    Some(found) => Ok(found),
                    None if policy.slowest().is_some() => {
                        return Authentication::Slow(Slow { check, user, password });
                    }
                    None => Err(wrong_password(&policy, &user)),
                }
            }
            Ok(Credentials::Bearer(token)) => self.token(token, address),
            Err(malformed) => self.check_attempts(address).and(Err(Refusal::wrong(Cause::Malformed(malformed)))),
        };
        Authentication::Done(self.remember(&check, result))
    }

    /// Verifies a password hash on a blocking thread, once one of the few permits is free.
    ///
    /// # Cancel safety
    /// A verification that has begun runs to its end, and its result is remembered.
    pub(in crate::server) async fn authenticate(self: &Arc<Self>, slow: Slow) -> Result<Identity, Refusal> {
        const BUSY: Refusal = Refusal::Busy("too many log-ins at the same time");
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| BUSY)?;
        let permits = timeout(VERIFY_TIMEOUT, self.permits()).await.map_err(|_| BUSY)?;
        drop(place);
        // Many callers share one password. The first verification counts for all that waited.
        if let Some(identity) = self.known(slow.check.key) {
            return Ok(identity);
        }
        if let Some(refusal) = self.rejected.get(slow.check.key, Refusal::clone) {
            return Err(refusal);
        }
        // The failures of the requests that waited meanwhile count as well.
        self.check_attempts(slow.check.address)?;
        let access = self.clone();
        offload(move || {
            let _permits = permits;
            access.verify(&slow)
        })
        .await
    }

    /// Waits for a thread and the memory of one verification.
    async fn permits(&self) -> [OwnedSemaphorePermit; 2] {
        // A policy has no hash that needs more (`Row::check`).
        let mib = self.policy.load().memory_kib().div_ceil(1024).clamp(1, self.memory_mib);
        let verifier = self.verifiers.clone().acquire_owned().await.expect("semaphore is never closed");
        let memory = self.memory.clone().acquire_many_owned(mib).await.expect("semaphore is never closed");
        [verifier, memory]
    }

    /// Decides about the operation of an authenticated caller.
    pub(in crate::server) fn decide(
        &self,
        identity: &Identity,
        operation: Operation<'_>,
        is_replica: bool,
        leases: &dyn Leases,
    ) -> Result<(), Refusal> {
        let (policy, anonymous_registers) = (self.policy.load(), self.anonymous.load().has(Role::Register));
        let rules = Rules { policy: &policy, leases, anonymous_registers };
        let denied = match decide(identity, operation, is_replica, &rules) {
            Ok(()) => return Ok(()),
            Err(denial) => denial,
        };
        // A caller without credentials may have forgotten them.
        if identity.is_anonymous() {
            return Err(Refusal::Missing { certificate: None });
        }
        Err(Refusal::forbidden(identity, denied))
    }

    /// Decides about a change once its body was read. The change must be applied while the claim is
    /// held.
    ///
    /// # Errors
    /// Returns the reason for which the identity may not change the instance.
    pub(in crate::server) fn claim(
        &self,
        identity: &Identity,
        operation: Operation<'_>,
        is_replica: bool,
        leases: &dyn Leases,
    ) -> Result<Option<Claim<'_>>, Refusal> {
        let Operation::Change(_, target) = operation else { return Ok(None) };
        let claim = self.claims.lock(target.app);
        self.decide(identity, operation, is_replica, leases)?;
        Ok(Some(claim))
    }

    /// Returns the number of suppressed log lines about this refusal, if one is to be written now.
    ///
    /// Callers choose the names in a refusal and many addresses of one network, so that neither
    /// makes it another refusal.
    pub(in crate::server) fn log(&self, refusal: &Refusal, address: Option<IpAddr>) -> Option<u64> {
        let host = address.map_or_else(|| "an unknown host".into(), |address| audit::network(address).to_string());
        self.log.pass(format_args!("access of {host} refused with {}: {}", refusal.status().as_u16(), refusal.kind()))
    }

    /// Logs the refusals that have ended. Must be called periodically.
    pub(super) fn flush_log(&self) {
        self.log.flush();
    }

    fn without_header(&self, extensions: &Extensions) -> Result<Identity, Refusal> {
        let certificate = extensions.get::<PeerCertificate>();
        // Without the feature, certificates are not read.
        if let Some(certificate) = certificate.filter(|_| cfg!(feature = "access")) {
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
        if let Some(identity) = self.known(key) {
            return Some(identity);
        }
        let generation = self.verified.generation();
        let identity = self.policy.load().certificate(&certificate.names().names)?;
        let verified = Verified { identity: identity.clone(), proof: Proof::Certificate };
        self.verified.insert(key, verified, None, generation);
        Some(identity)
    }

    /// Returns the identity of credentials that were right before.
    fn known(&self, key: Key) -> Option<Identity> {
        self.verified.get(key, |verified| verified.identity.clone())
    }

    /// Verifies a password and remembers the result.
    fn verify(&self, slow: &Slow) -> Result<Identity, Refusal> {
        let policy = self.policy.load();
        let found = right(&policy, &slow.user, |known| known.verify(&slow.password));
        let result = found.ok_or_else(|| {
            let tried = policy.passwords(&slow.user).iter().map(|(known, _)| known.cost()).max().unwrap_or(0);
            if let Some(slowest) = policy.slowest().filter(|slowest| slowest.cost() > tried) {
                slowest.verify(&slow.password);
            }
            wrong_password(&policy, &slow.user)
        });
        self.remember(&slow.check, result)
    }

    /// Returns the identity of a bearer token.
    fn token(&self, token: &str, address: Option<IpAddr>) -> Result<Found, Refusal> {
        let policy = self.policy.load();
        #[cfg_attr(not(feature = "access"), expect(unused_mut, reason = "only a JWT changes it"))]
        let mut refusal = Refusal::wrong(Cause::Token);
        #[cfg(feature = "access")]
        if let Some(jwt) = &self.jwt {
            match jwt.verify(token) {
                Ok(token) => {
                    let identity = policy.subject(&token.subject).unwrap_or_else(|| token.identity());
                    return Ok((Verified { identity, proof: Proof::Jwt }, Some(token.valid_for.min(TOKEN_TIME))));
                }
                Err(TokenFault::NoKeys) => {
                    self.unknown_key.notify_one();
                    refusal = Refusal::Busy("the keys of tokens were not fetched yet");
                }
                Err(fault) => {
                    if fault == TokenFault::UnknownKey {
                        self.unknown_key.notify_one();
                    }
                    refusal = Refusal::wrong(Cause::Jwt(fault));
                }
            }
        }
        // A valid signature is accepted from any address, since nobody guesses it.
        if refusal.is_guess() {
            self.check_attempts(address)?;
        }
        let identity = policy.token(token).ok_or(refusal)?.clone();
        Ok((Verified { identity, proof: Proof::Token(token.into()) }, None))
    }

    /// Fails if an address has used up its attempts.
    fn check_attempts(&self, address: Option<IpAddr>) -> Result<(), Refusal> {
        match address.and_then(|address| self.attempts.wait(address)) {
            Some(wait) => Err(Refusal::TooMany(wait)),
            None => Ok(()),
        }
    }

    /// Remembers the result of a check, and counts a failure.
    fn remember(&self, check: &Check, result: Result<Found, Refusal>) -> Result<Identity, Refusal> {
        let Check { key, generations: [verified_generation, rejected_generation], address } = *check;
        match result {
            Ok((verified, valid_for)) => {
                let (identity, expires) = (verified.identity.clone(), valid_for.map(|time| Instant::now() + time));
                self.verified.insert(key, verified, expires, verified_generation);
                Ok(identity)
            }
            Err(refusal) => {
                if refusal.is_guess() {
                    self.failed(address);
                }
                // A token with an unknown key may be valid once its key was fetched.
                if refusal.is_lasting() {
                    let expires = Some(Instant::now() + REJECTED_TIME);
                    self.rejected.insert(key, refusal.clone(), expires, rejected_generation);
                }
                Err(refusal)
            }
        }
    }

    fn failed(&self, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.attempts.failed(address);
        }
    }
}

/// Returns the row of the user whose password is right.
fn right(policy: &Policy, user: &str, is_right: impl Fn(&Password) -> bool) -> Option<Found> {
    let (password, identity) = policy.passwords(user).iter().find(|(known, _)| is_right(known))?;
    let proof = Proof::Password { user: user.into(), password: password.clone() };
    Some((Verified { identity: identity.clone(), proof }, None))
}

fn wrong_password(policy: &Policy, user: &str) -> Refusal {
    let is_known = !policy.passwords(user).is_empty();
    Refusal::Wrong { cause: Cause::Password, user: is_known.then(|| user.into()) }
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessControl").finish_non_exhaustive()
    }
}
