//! Access control of a running server: authenticates callers and decides about their requests.
//!
//! ```text
//!  Authorization ─▶ verified before? ─▶ token, plain password ──────────────▶ identity ─▶ decision
//!                    (recent.rs)     ─▶ hash, signature: on a blocking thread ────▲
//!                                       (verifiers.rs), few at a time            │
//!  client certificate ─────────────────────────────────────────────────────────────┤
//!  nothing ─▶ anonymous ───────────────────────────────────────────────────────────┘
//! ```

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Extensions, HeaderMap};
use tokio::time::Instant;

use super::attempts::{Attempts, Name};
use super::certificate::PeerCertificate;
use super::claims::{Claim, Claims};
use super::credentials::{self, Credentials, Sent};
use super::decision::{Leases, Operation, Rules, Target, decide};
use super::identity::Identity;
#[cfg(feature = "access")]
use super::jwt::{self, Jwt, TokenFault};
use super::password::Password;
use super::policy::Policy;
use super::recent::{Generation, Key, Recent};
use super::refusal::{Cause, Failure, Refusal};
use super::verifiers::Verifiers;
use crate::server::audit::{self, Repeats};
use crate::sync::offload;
use crate::time::wall_clock_ms;

/// Maximum number of passwords, and of tokens and certificates, that are known to be right, and
/// time for which each is known without being used. Heartbeats come every 30 seconds.
const VERIFIED: usize = 20_000;
const VERIFIED_TIME: Duration = Duration::from_secs(120);
/// Maximum number of credentials that are known to be wrong, and time for which each is known.
const REJECTED: usize = 2_000;
const REJECTED_TIME: Duration = Duration::from_secs(30);

pub(in crate::server) struct AccessControl {
    pub(super) policy: ArcSwap<Policy>,
    anonymous: ArcSwap<Identity>,
    /// Tokens and certificates that are right.
    verified: Recent<Verified>,
    /// Passwords that are right. Many tokens do not remove them, since their verification takes
    /// long.
    passwords: Recent<Verified>,
    rejected: Recent<Refusal>,
    attempts: Attempts,
    pub(super) hashes: Verifiers,
    /// Tokens with a wrong signature. They have a count of their own, so that guesses of passwords
    /// do not exclude the tokens of an address.
    #[cfg(feature = "access")]
    forgeries: Attempts,
    #[cfg(feature = "access")]
    pub(super) signatures: Verifiers,
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
    Jwt(jwt::Verified),
}

/// Authentication that needs the verification of a password hash or of a signature.
pub(in crate::server) struct Slow {
    check: Check,
    credentials: SlowCredentials,
}

enum SlowCredentials {
    Password {
        user: String,
        password: String,
    },
    #[cfg(feature = "access")]
    Token(String),
}

/// Credentials that are being checked.
struct Check {
    key: Key,
    is_password: bool,
    /// Name that a failure counts for.
    name: Name,
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
        Self {
            policy: ArcSwap::from_pointee(policy),
            anonymous: ArcSwap::from_pointee(anonymous),
            verified: Recent::new(VERIFIED, VERIFIED_TIME),
            passwords: Recent::new(VERIFIED, VERIFIED_TIME),
            rejected: Recent::new(REJECTED, REJECTED_TIME),
            attempts: Attempts::new(attempts_per_minute),
            hashes: Verifiers::new(),
            #[cfg(feature = "access")]
            forgeries: Attempts::new(attempts_per_minute),
            #[cfg(feature = "access")]
            signatures: Verifiers::new(),
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
        let is_unchanged = |Verified { identity, proof }: &Verified| match proof {
            Proof::Password { user, password } => {
                policy.passwords(user).iter().any(|row| (&row.0, &row.1) == (password, identity))
            }
            Proof::Token(token) => policy.token(token) == Some(identity),
            // It is read again without a wait.
            Proof::Certificate => false,
            #[cfg(feature = "access")]
            Proof::Jwt(token) => signed_identity(&policy, token) == *identity,
        };
        self.verified.retain(is_unchanged);
        self.passwords.retain(is_unchanged);
        self.rejected.retain(|_| false);
    }

    /// Forgets which tokens are right and which are wrong, after their keys have changed.
    #[cfg(feature = "access")]
    pub(super) fn forget_tokens(&self) {
        self.verified.retain(|verified| !matches!(verified.proof, Proof::Jwt(_)));
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

    /// Authenticates a caller, unless that needs the verification of a hash or of a signature.
    pub(in crate::server) fn authenticate_now(&self, headers: &HeaderMap, extensions: &Extensions) -> Authentication {
        if let Some(identity) = extensions.get::<Identity>() {
            return Authentication::Done(Ok(identity.clone()));
        }
        let address = audit::address(extensions).map(|address| audit::network(address.ip()));
        let sent = match credentials::header(headers).and_then(|value| value.map(credentials::split).transpose()) {
            Ok(Some(sent)) => sent,
            Ok(None) => return Authentication::Done(self.without_header(extensions)),
            Err(malformed) => return Authentication::Done(Err(Refusal::wrong(Cause::Malformed(malformed)))),
        };
        let (key, is_password) = (self.verified.key(sent), matches!(sent, Sent::Basic(_)));
        if let Some(result) = self.remembered(key, is_password) {
            return Authentication::Done(result);
        }
        let generations = self.generations(is_password);
        let mut check = Check { key, is_password, name: Name::NONE, address };
        let result = match credentials::decode(sent) {
            Ok(Credentials::Basic { user, password }) => {
                check.name = self.attempts.name(&user);
                if let Err(refusal) = check_attempts(&self.attempts, address, check.name) {
                    return Authentication::Done(Err(refusal));
                }
                let policy = self.policy.load();
                let plain = |known: &Password| !known.is_slow() && known.verify(&password);
                match right(&policy, &user, plain) {
                    Some(found) => Ok(found),
                    None if policy.slowest().is_some() => {
                        let credentials = SlowCredentials::Password { user, password };
                        return Authentication::Slow(Slow { check, credentials });
                    }
                    None => Err(wrong_password(&policy, &user)),
                }
            }
            Ok(Credentials::Bearer(token)) => {
                #[cfg(feature = "access")]
                match self.jwt.as_ref().map(|jwt| jwt.check_header(token)) {
                    Some(Ok(())) => {
                        if let Err(refusal) = check_attempts(&self.forgeries, address, Name::NONE) {
                            return Authentication::Done(Err(refusal));
                        }
                        let credentials = SlowCredentials::Token(token.into());
                        return Authentication::Slow(Slow { check, credentials });
                    }
                    Some(Err(fault)) => self.static_token(token, self.refused_token(fault), address),
                    None => self.static_token(token, Refusal::wrong(Cause::Token), address),
                }
                #[cfg(not(feature = "access"))]
                self.static_token(token, Refusal::wrong(Cause::Token), address)
            }
            Err(malformed) => Err(Refusal::wrong(Cause::Malformed(malformed))),
        };
        Authentication::Done(self.remember(&check, generations, result))
    }

    /// Verifies a password hash or a signature on a blocking thread, once one of the few permits is
    /// free.
    ///
    /// # Cancel safety
    /// A verification that has begun runs to its end, and its result is remembered.
    pub(in crate::server) async fn authenticate(self: &Arc<Self>, slow: Slow) -> Result<Identity, Refusal> {
        let (attempts, permits) = match &slow.credentials {
            SlowCredentials::Password { .. } => {
                let memory_kib = self.policy.load().memory_kib();
                (&self.attempts, self.hashes.permits(slow.check.address, memory_kib.max(1)).await?)
            }
            #[cfg(feature = "access")]
            SlowCredentials::Token(_) => (&self.forgeries, self.signatures.permits(slow.check.address, 0).await?),
        };
        // Many callers share one password. The first verification counts for all that waited.
        if let Some(result) = self.remembered(slow.check.key, slow.check.is_password) {
            return result;
        }
        // The failures of the requests that waited meanwhile count as well.
        check_attempts(attempts, slow.check.address, slow.check.name)?;
        let access = self.clone();
        offload(move || {
            let _permits = permits;
            access.verify(&slow)
        })
        .await
    }

    /// Decides about the operation of an authenticated caller. A heartbeat makes the caller the
    /// owner of a lease whose owner is unknown.
    pub(in crate::server) fn decide(
        &self,
        identity: &Identity,
        operation: Operation<'_>,
        is_replica: bool,
        leases: &dyn Leases,
    ) -> Result<(), Refusal> {
        let claims = || self.decided(identity, operation, is_replica, leases);
        if claims()?
            && let Operation::Change(_, Target { app, id: Some(id) }) = operation
        {
            let _claim = self.claims.lock(app);
            // Another identity may have become an owner meanwhile.
            if claims()? {
                leases.claim(app, id, &identity.owner());
            }
        }
        Ok(())
    }

    /// Returns true for a heartbeat that makes the caller the owner of the lease.
    fn decided(
        &self,
        identity: &Identity,
        operation: Operation<'_>,
        is_replica: bool,
        leases: &dyn Leases,
    ) -> Result<bool, Refusal> {
        let (policy, anonymous) = (self.policy.load(), self.anonymous.load());
        let rules = Rules { policy: &policy, leases, anonymous: &anonymous };
        let denied = match decide(identity, operation, is_replica, &rules) {
            Ok(claims) => return Ok(claims),
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
        self.decided(identity, operation, is_replica, leases)?;
        Ok(Some(claim))
    }

    /// Returns the number of suppressed log lines about this refusal, if one is to be written now.
    ///
    /// Callers choose the names in a refusal and many addresses of one network, so that neither
    /// makes it another refusal. Refused reads, such as probes, do not suppress refused changes.
    pub(in crate::server) fn log(&self, refusal: &Refusal, is_read: bool, address: Option<IpAddr>) -> Option<u64> {
        let host = address.map_or_else(|| "an unknown host".into(), |address| audit::network(address).to_string());
        let (access, status) = (if is_read { "read" } else { "change" }, refusal.status().as_u16());
        self.log.pass(format_args!("{access} by {host} refused with {status}: {}", refusal.kind()))
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
        if let Some(identity) = self.known(key, false) {
            return Some(identity);
        }
        let generation = self.verified.generation();
        let identity = self.policy.load().certificate(&certificate.names().names)?;
        let verified = Verified { identity: identity.clone(), proof: Proof::Certificate };
        self.verified.insert(key, verified, None, generation);
        Some(identity)
    }

    /// Returns the result of credentials that were checked before.
    fn remembered(&self, key: Key, is_password: bool) -> Option<Result<Identity, Refusal>> {
        self.known(key, is_password).map(Ok).or_else(|| self.rejected.get(key, |refusal| Err(refusal.clone())))
    }

    /// Returns the identity of credentials that were right before.
    fn known(&self, key: Key, is_password: bool) -> Option<Identity> {
        let known = self.right(is_password);
        known.get(key, |verified| verified.is_valid().then(|| verified.identity.clone()))?
    }

    /// Returns the cache of right credentials of a kind.
    fn right(&self, is_password: bool) -> &Recent<Verified> {
        if is_password { &self.passwords } else { &self.verified }
    }

    /// Returns the generations of the caches. To be taken before the policy and the keys are read.
    fn generations(&self, is_password: bool) -> [Generation; 2] {
        [self.right(is_password).generation(), self.rejected.generation()]
    }

    /// Verifies slow credentials and remembers the result.
    fn verify(&self, Slow { check, credentials }: &Slow) -> Result<Identity, Refusal> {
        // The users and the keys may have changed while the request waited.
        let generations = self.generations(check.is_password);
        let result = match credentials {
            SlowCredentials::Password { user, password } => self.hashed(user, password),
            #[cfg(feature = "access")]
            SlowCredentials::Token(token) => self.signed(token, check.address),
        };
        self.remember(check, generations, result)
    }

    fn hashed(&self, user: &str, password: &str) -> Result<Verified, Refusal> {
        let policy = self.policy.load();
        right(&policy, user, |known| known.verify(password)).ok_or_else(|| {
            let tried = policy.passwords(user).iter().map(|(known, _)| known.cost()).max().unwrap_or(0);
            if let Some(slowest) = policy.slowest().filter(|slowest| slowest.cost() > tried) {
                slowest.verify(password);
            }
            wrong_password(&policy, user)
        })
    }

    /// Returns the identity of a token with a usable header.
    #[cfg(feature = "access")]
    fn signed(&self, token: &str, address: Option<IpAddr>) -> Result<Verified, Refusal> {
        let jwt = self.jwt.as_ref().expect("a token is verified only if there are keys");
        match jwt.verify(token) {
            Ok(token) => {
                Ok(Verified { identity: signed_identity(&self.policy.load(), &token), proof: Proof::Jwt(token) })
            }
            Err(fault) => self.static_token(token, self.refused_token(fault), address),
        }
    }

    /// Returns the refusal of a token with a fault.
    #[cfg(feature = "access")]
    fn refused_token(&self, fault: TokenFault) -> Refusal {
        if matches!(fault, TokenFault::NoKeys | TokenFault::UnknownKey) {
            self.unknown_key.notify_one();
        }
        match fault {
            TokenFault::NoKeys => Refusal::Busy("the keys of tokens were not fetched yet"),
            fault => Refusal::wrong(Cause::Jwt(fault)),
        }
    }

    /// Returns the identity of a token that the policy has, or the refusal of any other.
    fn static_token(&self, token: &str, refusal: Refusal, address: Option<IpAddr>) -> Result<Verified, Refusal> {
        // A valid signature is accepted from any address, since nobody guesses it.
        if refusal.failure() == Some(Failure::Guess) {
            check_attempts(&self.attempts, address, Name::NONE)?;
        }
        let identity = self.policy.load().token(token).ok_or(refusal)?.clone();
        Ok(Verified { identity, proof: Proof::Token(token.into()) })
    }

    /// Remembers the result of a check, and counts a failure.
    fn remember(
        &self,
        check: &Check,
        [verified_generation, rejected_generation]: [Generation; 2],
        result: Result<Verified, Refusal>,
    ) -> Result<Identity, Refusal> {
        let Check { key, is_password, name, address } = *check;
        match result {
            Ok(verified) => {
                let identity = verified.identity.clone();
                self.right(is_password).insert(key, verified, None, verified_generation);
                Ok(identity)
            }
            Err(refusal) => {
                let attempts = match refusal.failure() {
                    Some(Failure::Guess) => Some(&self.attempts),
                    #[cfg(feature = "access")]
                    Some(Failure::Forgery) => Some(&self.forgeries),
                    None => None,
                };
                if let (Some(attempts), Some(address)) = (attempts, address) {
                    attempts.failed(address, name);
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
}

impl Verified {
    /// Returns false once a token is expired.
    fn is_valid(&self) -> bool {
        #[cfg(feature = "access")]
        if let Proof::Jwt(token) = &self.proof {
            return wall_clock_ms() < token.valid_until_ms;
        }
        true
    }
}

/// Fails if an address has used up its attempts.
fn check_attempts(attempts: &Attempts, address: Option<IpAddr>, name: Name) -> Result<(), Refusal> {
    match address.and_then(|address| attempts.wait(address, name)) {
        Some(wait) => Err(Refusal::TooMany(wait)),
        None => Ok(()),
    }
}

/// Returns the row of the user whose password is right.
fn right(policy: &Policy, user: &str, is_right: impl Fn(&Password) -> bool) -> Option<Verified> {
    let (password, identity) = policy.passwords(user).iter().find(|(known, _)| is_right(known))?;
    let proof = Proof::Password { user: user.into(), password: password.clone() };
    Some(Verified { identity: identity.clone(), proof })
}

/// Returns the identity of a verified token: that of its row in the policy, or of its claims.
#[cfg(feature = "access")]
fn signed_identity(policy: &Policy, token: &jwt::Verified) -> Identity {
    policy.subject(&token.subject).unwrap_or_else(|| token.identity())
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
