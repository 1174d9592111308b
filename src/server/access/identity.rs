//! Identities: the names, roles and applications of callers.

use std::fmt;
use std::sync::Arc;

use crate::model::app_name;
use crate::server::owner::Owner;

/// Permission of an [`Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Reads lists, instances, the status of the server and its pages.
    Read,
    /// Registers, renews, changes and cancels instances of its own applications.
    Register,
    /// Changes and cancels instances of any application. Includes [`Read`](Self::Read).
    Operate,
    /// Replicates changes of any application, as another registry server does. Includes
    /// [`Read`](Self::Read).
    Peer,
}

impl Role {
    pub(super) const ALL: [Self; 4] = [Self::Read, Self::Register, Self::Operate, Self::Peer];

    fn bit(self) -> u8 {
        1 << self as u8
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Register => "register",
            Self::Operate => "operate",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::server) struct Roles(u8);

impl Roles {
    pub(super) const NONE: Self = Self(0);
    pub(super) const ALL: Self = Self(0b1111);

    /// Reads role names that are separated by commas or blanks. `*` means all roles.
    ///
    /// # Errors
    /// Returns the name that is no role.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::names(text).try_fold(Self::NONE, |roles, name| match Self::named(name) {
            Some(more) => Ok(roles.with(more)),
            None => Err(name.to_owned()),
        })
    }

    /// Returns the names in a text, known or not.
    pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
        text.split([',', ' ', '\t']).filter(|name| !name.is_empty())
    }

    /// Returns the role of this name in any case, or all roles for `*`.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name == "*" {
            return Some(Self::ALL);
        }
        Role::ALL.into_iter().find(|role| role.name().eq_ignore_ascii_case(name)).map(|role| Self(role.bit()))
    }

    /// Returns true if the role is in the set, or is included in one that is.
    pub(super) fn has(self, role: Role) -> bool {
        let included = match role {
            Role::Read => Role::Operate.bit() | Role::Peer.bit(),
            _ => 0,
        };
        self.0 & (role.bit() | included) != 0
    }

    pub(super) fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Returns true if a role of the set changes the registry.
    pub(super) fn may_write(self) -> bool {
        [Role::Register, Role::Operate, Role::Peer].into_iter().any(|role| self.has(role))
    }

    fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.0 & role.bit() != 0)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Role::name).collect();
        f.write_str(if names.is_empty() { "nothing" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Applications that an identity may register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Applications {
    /// All applications that no other identity owns, and that no row of the policy names.
    #[default]
    Unclaimed,
    Named(Arc<[Pattern]>),
}

/// Name of an application in upper case, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Name(Arc<str>),
    Beginning(Arc<str>),
}

impl Pattern {
    /// Reads a name, which may end in `*`.
    pub(super) fn of(name: &str) -> Self {
        match name.strip_suffix('*') {
            Some(beginning) => Self::Beginning(app_name(beginning)),
            None => Self::Name(app_name(name)),
        }
    }

    pub(super) fn covers(&self, app: &str) -> bool {
        match self {
            Self::Name(name) => **name == *app,
            Self::Beginning(beginning) => app.starts_with(&**beginning),
        }
    }
}

impl Applications {
    /// Creates them from names, which may end in `*`. No name, or `*` alone, means all applications
    /// that nobody else has.
    pub(super) fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        match Self::only(names) {
            Self::Named(patterns) if patterns.is_empty() => Self::Unclaimed,
            some => some,
        }
    }

    /// Creates them from names as [`named`](Self::named), where no name means no application.
    pub(super) fn only<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<_> = names.into_iter().map(str::trim).filter(|name| !name.is_empty()).collect();
        if names.contains(&"*") {
            return Self::Unclaimed;
        }
        Self::Named(names.into_iter().map(Pattern::of).collect())
    }

    /// Returns true if the policy names this application.
    pub(super) fn names(&self, app: &str) -> bool {
        match self {
            Self::Unclaimed => false,
            Self::Named(patterns) => patterns.iter().any(|pattern| pattern.covers(app)),
        }
    }
}

impl fmt::Display for Applications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Named(patterns) = self else { return f.write_str("any application that nobody else has") };
        for (n, pattern) in patterns.iter().enumerate() {
            f.write_str(if n > 0 { "," } else { "" })?;
            match pattern {
                Pattern::Name(name) => f.write_str(name)?,
                Pattern::Beginning(beginning) => write!(f, "{beginning}*")?,
            }
        }
        Ok(())
    }
}

/// Source of the name of an identity. Equal names of different sources are different identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Row of the policy, or code.
    User,
    /// Subject of a JSON Web Token.
    #[cfg_attr(not(feature = "access"), allow(dead_code, reason = "tokens need the feature access"))]
    Subject,
    /// Name in a certificate.
    Certificate,
    /// There are no credentials.
    Anonymous,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Subject => "jwt",
            Self::Certificate => "certificate",
            Self::Anonymous => "anonymous",
        }
    }
}

/// Authenticated caller. Cheap to clone.
///
/// With [access control](super::Access), each request that reaches a handler has it in its
/// extensions. A Tower layer of the user's that authenticates callers by itself inserts one: the
/// registry then ignores the credentials of the request, and decides by these roles.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    name: Arc<str>,
    /// Kind and name.
    key: Arc<str>,
    roles: Roles,
    applications: Applications,
}

impl Identity {
    /// Name of callers without credentials.
    pub(super) const ANONYMOUS: &str = "anonymous";

    /// Creates an identity. It may register all applications that nobody else has, if it has
    /// [`Role::Register`].
    pub fn new(name: impl AsRef<str>, roles: impl IntoIterator<Item = Role>) -> Self {
        Self::of(name.as_ref().into(), roles.into_iter().collect(), Applications::Unclaimed)
    }

    /// Sets the applications that the identity may register. A name may end in `*`, and is the
    /// name of one application otherwise, whatever it contains.
    ///
    /// It may register them even if another identity registered them first.
    pub fn with_applications<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let Inner { name, key, roles, .. } = &*self.0;
        let applications = Applications::named(names);
        Self(Arc::new(Inner { name: name.clone(), key: key.clone(), roles: *roles, applications }))
    }

    pub(super) fn of(name: Arc<str>, roles: Roles, applications: Applications) -> Self {
        Self::of_kind(Kind::User, name, roles, applications)
    }

    pub(super) fn of_kind(kind: Kind, name: Arc<str>, roles: Roles, applications: Applications) -> Self {
        let key = format!("{}:{name}", kind.prefix()).into();
        Self(Arc::new(Inner { name, key, roles, applications }))
    }

    /// Returns the name, such as that of a user.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the roles, without those that are included in others.
    pub fn roles(&self) -> impl Iterator<Item = Role> {
        self.0.roles.iter()
    }

    /// Returns true if the identity has this role, or one that includes it.
    pub fn has(&self, role: Role) -> bool {
        self.0.roles.has(role)
    }

    /// Returns kind and name, such as `user:orders`.
    pub(in crate::server) fn key(&self) -> &Arc<str> {
        &self.0.key
    }

    pub(in crate::server) fn is_anonymous(&self) -> bool {
        self.0.key.starts_with(Kind::Anonymous.prefix())
    }

    /// Returns the owner of the leases that the identity registers. Callers without credentials
    /// share one identity, and so do the clients of a Spring server, which has one user.
    pub(in crate::server) fn owner(&self) -> Owner {
        if self.is_anonymous() || self.has(Role::Peer) { Owner::Anybody } else { Owner::Identity(self.key().clone()) }
    }

    pub(in crate::server) fn shared_name(&self) -> &Arc<str> {
        &self.0.name
    }

    pub(super) fn role_set(&self) -> Roles {
        self.0.roles
    }

    pub(super) fn applications(&self) -> &Applications {
        &self.0.applications
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.0.name).field("roles", &self.0.roles).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_include_others() {
        let roles = |text| Roles::parse(text);
        assert_eq!(roles("*"), Ok(Roles::ALL));
        assert_eq!(roles(" Read, register "), Ok([Role::Read, Role::Register].into_iter().collect()));
        assert_eq!(roles("read,admin"), Err("admin".to_owned()));
        assert_eq!(roles(""), Ok(Roles::NONE));
        for (text, expected) in [
            ("read", [true, false, false, false]),
            ("register", [false, true, false, false]),
            ("operate", [true, false, true, false]),
            ("peer", [true, false, false, true]),
        ] {
            assert_eq!(Role::ALL.map(|role| roles(text).unwrap().has(role)), expected, "{text}");
        }
        assert_eq!(Roles::ALL.to_string(), "read,register,operate,peer");
    }

    #[test]
    fn applications_are_named_in_any_case_and_by_their_beginning() {
        let applications = Applications::named(["orders", " shop-*"]);
        for (app, expected) in [("ORDERS", true), ("ORDERS-2", false), ("SHOP-A", true), ("SHOP", false), ("", false)] {
            assert_eq!(applications.names(app), expected, "{app}");
        }
        for any in [&[""][..], &[], &["*"], &["orders", "*"]] {
            assert_eq!(Applications::named(any.iter().copied()), Applications::Unclaimed, "{any:?}");
        }
        assert_eq!(applications.to_string(), "ORDERS,SHOP-*");
    }
}
