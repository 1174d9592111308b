//! Table of the policy: which credentials stand for which identity.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::identity::{Identity, Kind, Pattern};
use super::password::{Password, is_equal};
use super::pattern::{Grant, Wild};
use super::recent::{Key, Keyed};
use super::verifiers::memory_mib;

/// Row of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) grant: Grant,
    pub(super) credential: Credential,
}

impl Row {
    /// Checks the wildcards, that the credential can match a part that the name or an application
    /// stands for, and that there is memory for the verification of its hash.
    ///
    /// # Errors
    /// Returns the reason for which the row is unusable, without secrets.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_within(memory_mib())
    }

    fn check_within(&self, memory_mib: u32) -> Result<(), String> {
        self.grant.check()?;
        if self.grant.name == Identity::ANONYMOUS {
            return Err(
                "this is the name of callers without credentials, whose roles eureka.server.access.anonymous sets"
                    .into(),
            );
        }
        match &self.credential {
            Credential::Subject(subject) if subject.has_several() => {
                Err("the subject of tokens has at most one *".into())
            }
            Credential::Password(password) if password.memory_kib().div_ceil(1024) > memory_mib => Err(format!(
                "its hash takes {} MiB for each log-in, but all log-ins together have {memory_mib} MiB, an eighth of the \
                 memory, or 64 MiB if that is less or unknown: use a hash of at most {} KiB (m), or more memory",
                password.memory_kib().div_ceil(1024),
                memory_mib.saturating_mul(1024)
            )),
            Credential::Password(_) | Credential::Token(_) if self.grant.has_place() => Err(
                "{} stands for a part of a certificate or of the subject of a token, which a password or token lacks"
                    .into(),
            ),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Password(Password),
    /// Bearer token.
    Token(String),
    /// Subject of a JSON Web Token.
    Subject(Wild),
    Certificate(CertificateRule),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(***)"),
            Self::Token(_) => f.write_str("Token(***)"),
            Self::Subject(subject) => f.debug_tuple("Subject").field(subject).finish(),
            Self::Certificate(rule) => f.debug_tuple("Certificate").field(rule).finish(),
        }
    }
}

/// Names that a client certificate must have: `CN=orders,O=Shop` or `DNS=orders.internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateRule(Vec<(String, Wild)>);

impl CertificateRule {
    /// Kinds of names: attributes of the subject, then alternative names.
    const KINDS: [&str; 13] =
        ["CN", "O", "OU", "C", "L", "ST", "DC", "UID", "SERIALNUMBER", "DNS", "URI", "EMAIL", "IP"];

    /// Reads a rule.
    ///
    /// # Errors
    /// Returns the reason for which the text is no rule.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        // A comma behind a backslash belongs to a name, as in O=Shop\, Inc.
        for part in text.replace("\\,", "\0").split(',').map(|part| part.replace('\0', ",")) {
            let (kind, value) = part.split_once('=').unwrap_or((&part, ""));
            let kind = kind.trim().to_ascii_uppercase();
            if !Self::KINDS.contains(&&*kind) || value.trim().is_empty() {
                return Err(format!(
                    "a certificate is described by names such as CN=orders,O=Shop or DNS=orders.internal; the kinds are {}",
                    Self::KINDS.join(", ")
                ));
            }
            names.push((kind, Wild::new(value.trim())));
        }
        if text.matches('*').count() > 1 {
            return Err("the names of a certificate have at most one *".into());
        }
        Ok(Self(names))
    }

    /// Returns the part that the wildcard stands for, or the value of the first name, if the
    /// certificate has all names of the rule.
    fn capture<'n>(&self, names: &'n [(String, String)]) -> Option<&'n str> {
        let mut captured = None;
        for (kind, wild) in &self.0 {
            let found = names.iter().filter(|(known, _)| known == kind).find_map(|(_, value)| wild.capture(value))?;
            if captured.is_none() || wild.is_wild() {
                captured = Some(found);
            }
        }
        captured
    }
}

/// Policy in force.
#[derive(Default)]
pub(super) struct Policy {
    users: HashMap<String, Vec<(Arc<Password>, Identity)>>,
    tokens: Tokens,
    subjects: Vec<(Wild, Grant)>,
    certificates: Vec<(CertificateRule, Grant)>,
    slowest: Option<Arc<Password>>,
    memory_kib: u32,
    reserved: Reserved,
}

/// Static tokens by a keyed hash.
#[derive(Default)]
struct Tokens {
    keyed: Keyed,
    identities: HashMap<Key, (String, Identity)>,
}

impl Tokens {
    fn add(&mut self, token: String, identity: Identity) {
        self.identities.insert(self.keyed.key(&*token), (token, identity));
    }

    fn get(&self, sent: &str) -> Option<&Identity> {
        let (token, identity) = self.identities.get(&self.keyed.key(sent))?;
        is_equal(token, sent).then_some(identity)
    }
}

/// Applications that rows name, which only their identities may register.
#[derive(Default)]
struct Reserved {
    names: HashSet<Arc<str>>,
    beginnings: Vec<Arc<str>>,
}

impl Reserved {
    fn covers(&self, app: &str) -> bool {
        self.names.contains(app) || self.beginnings.iter().any(|beginning| app.starts_with(&**beginning))
    }
}

impl Extend<Pattern> for Reserved {
    fn extend<I: IntoIterator<Item = Pattern>>(&mut self, patterns: I) {
        for pattern in patterns {
            match pattern {
                Pattern::Name(name) => {
                    self.names.insert(name);
                }
                Pattern::Beginning(beginning) if self.beginnings.contains(&beginning) => {}
                Pattern::Beginning(beginning) => self.beginnings.push(beginning),
            }
        }
    }
}

impl Policy {
    /// Creates a policy of rows, and of the applications of callers without credentials.
    pub(super) fn with_anonymous(rows: impl IntoIterator<Item = Row>, anonymous: &Grant) -> Self {
        let mut policy = Self::new(rows);
        policy.reserved.extend(anonymous.reserved());
        policy
    }

    pub(super) fn new(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut policy = Self::default();
        for Row { grant, credential } in rows {
            policy.reserved.extend(grant.reserved());
            match credential {
                Credential::Password(password) => {
                    let (identity, password) = (grant.identity(Kind::User, ""), Arc::new(password));
                    policy.memory_kib = policy.memory_kib.max(password.memory_kib());
                    if policy.slowest.as_ref().map_or(0, |slowest| slowest.cost()) < password.cost() {
                        policy.slowest = Some(password.clone());
                    }
                    policy.users.entry(grant.name).or_default().push((password, identity));
                }
                Credential::Token(token) => policy.tokens.add(token, grant.identity(Kind::User, "")),
                Credential::Subject(subject) => policy.subjects.push((subject, grant)),
                Credential::Certificate(rule) => policy.certificates.push((rule, grant)),
            }
        }
        policy
    }

    /// Returns the passwords of a user. Each may have other roles.
    pub(super) fn passwords(&self, user: &str) -> &[(Arc<Password>, Identity)] {
        self.users.get(user).map_or(&[], Vec::as_slice)
    }

    /// Returns the password whose verification takes longest, if any takes long. Each failure
    /// includes one such verification, so that its time shows neither whether there is such a user
    /// nor how the password is stored.
    pub(super) fn slowest(&self) -> Option<&Password> {
        self.slowest.as_deref()
    }

    /// Returns the maximum memory of one verification in KiB.
    pub(super) fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Returns the identity of a static token. The time shows nothing about the tokens of others,
    /// and does not depend on their number.
    pub(super) fn token(&self, sent: &str) -> Option<&Identity> {
        self.tokens.get(sent)
    }

    #[cfg_attr(not(feature = "access"), allow(dead_code, reason = "tokens need the feature access"))]
    pub(super) fn subject(&self, subject: &str) -> Option<Identity> {
        self.subjects.iter().find_map(|(wild, grant)| Some(grant.identity(Kind::Subject, wild.capture(subject)?)))
    }

    pub(super) fn certificate(&self, names: &[(String, String)]) -> Option<Identity> {
        self.certificates.iter().find_map(|(rule, grant)| Some(grant.identity(Kind::Certificate, rule.capture(names)?)))
    }

    /// Returns true if a row names the application.
    pub(super) fn is_reserved(&self, app: &str) -> bool {
        self.reserved.covers(app)
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Roles;
    use super::*;

    fn row(credential: Credential, name: &str, applications: &str) -> Row {
        Row { grant: Grant::new(name, Roles::ALL, applications), credential }
    }

    #[test]
    fn certificate_matches_by_all_names_of_a_rule() {
        let names = |text: &str| -> Vec<(String, String)> {
            let pairs = text.split(',').filter_map(|name| name.split_once('='));
            pairs.map(|(kind, value)| (kind.to_owned(), value.to_owned())).collect()
        };
        let rule = |text: &str| row(Credential::Certificate(CertificateRule::parse(text).unwrap()), "{}", "{}");
        let policy = Policy::new([
            rule("cn=*, O=Shop"),
            rule("DNS=*.internal"),
            rule("URI=spiffe://shop/*"),
            rule(r"CN=*, O=Shop\, Inc."),
        ]);
        for (certificate, expected) in [
            ("CN=orders,O=Shop", Some("orders")),
            ("O=Shop,CN=orders", Some("orders")),
            ("CN=orders,O=Other", None),
            ("CN=orders", None),
            ("CN=x,DNS=a.example,DNS=orders.internal", Some("orders")),
            ("URI=spiffe://shop/orders", Some("orders")),
            ("CN=spiffe://shop/orders", None),
            ("", None),
            ("CN=orders,O=Shop; Inc.", Some("orders")),
        ] {
            let mut names = names(certificate);
            names.iter_mut().for_each(|(_, value)| *value = value.replace(';', ","));
            let identity = policy.certificate(&names);
            assert_eq!(identity.as_ref().map(Identity::name), expected, "{certificate}");
        }
    }

    #[test]
    fn unusable_certificate_rules_are_refused() {
        for text in ["", "orders", "CN=", "XX=orders", "CN=*,DNS=*"] {
            assert!(CertificateRule::parse(text).is_err(), "{text}");
        }
    }

    #[cfg(feature = "access")]
    #[test]
    fn hash_that_takes_more_memory_than_all_log_ins_have_is_refused_with_both_figures() {
        let hash = "$argon2id$v=19$m=65537,t=1,p=1$c2l4dGVlbiBieXRlIHNsdA$Ugd28M4s4i5w2GrDjrPQEa2uTvvWx07VxpTip4nkf0U";
        let row = row(Credential::Password(Password::parse(hash).unwrap()), "a", "");
        assert_eq!(row.check_within(65), Ok(()));
        let error = row.check_within(64).unwrap_err();
        assert!(error.contains("takes 65 MiB") && error.contains("have 64 MiB") && !error.contains("c2l4"), "{error}");
        assert!(error.contains("at most 65536 KiB"), "{error}");
    }

    #[test]
    fn user_has_several_passwords_and_tokens_are_compared_whole() {
        let password = |text| Credential::Password(Password::parse(text).unwrap());
        let policy = Policy::new([
            row(password("old"), "a", ""),
            row(password("new"), "a", ""),
            row(Credential::Token("token".into()), "ci", "ORDERS"),
        ]);
        assert_eq!(policy.passwords("a").len(), 2);
        assert!(policy.passwords("A").is_empty());
        assert_eq!(policy.token("token").map(Identity::name), Some("ci"));
        assert_eq!(policy.token("toke"), None);
        assert!(policy.is_reserved("ORDERS") && !policy.is_reserved("BILLING"));
        let again = Policy::new(["a", "b"].map(|name| row(Credential::Token("token".into()), name, "")));
        assert_eq!(again.token("token").map(Identity::name), Some("b"), "the last row of a token counts");
    }

    #[test]
    fn reserved_applications_are_names_and_beginnings() {
        let password = |text| Credential::Password(Password::parse(text).unwrap());
        let rows = [("a", "ORDERS,SHOP-*"), ("b", "SHOP-*,CART"), ("c", "*")];
        let policy = Policy::new(rows.map(|(name, applications)| row(password("x"), name, applications)));
        for (app, expected) in
            [("ORDERS", true), ("ORDERS-2", false), ("SHOP-A", true), ("SHOP", false), ("CART", true), ("", false)]
        {
            assert_eq!(policy.is_reserved(app), expected, "{app}");
        }
        assert_eq!(policy.reserved.beginnings.len(), 1);
    }
}
