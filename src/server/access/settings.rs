//! Settings of the access control.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::{self, Users, check_applications, check_user, parse_roles, parse_token};
use super::identity::{Identity, Role, Roles};
#[cfg(feature = "access")]
use super::jwt::JwtKeys;
use super::password::Password;
use super::pattern::{Grant, Wild};
use super::policy::{CertificateRule, Credential, Row};
use crate::config::names::nearest_within;
use crate::regular_file;
use crate::untrusted::Excerpt;

/// Failed attempts of one address that are allowed in a minute.
const ATTEMPTS_PER_MINUTE: u32 = 10;
/// Number of identities that the summary names.
const SHOWN: usize = 20;

/// Access control of a registry server: who may do what.
///
/// Without it, every caller may do everything, as at a stock Spring server. With it, callers
/// without valid credentials have the roles of [`anonymous`](Self::anonymous), which are none by
/// default.
///
/// A setting that is unusable is an error of [`build`](crate::server::EurekaServerBuilder::build).
///
/// ```
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::{Access, Role};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_eureka::server::Error> {
/// let access = Access::new()
///     .user("orders", "{noop}s3cret", [Role::Read, Role::Register])
///     .applications("orders", ["ORDERS"])
///     .token("prometheus", "b7c1e5f0d2a94c8e", [Role::Read]);
/// let registry = EurekaServer::builder().access(access).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[must_use = "access control does nothing until it is set by `EurekaServerBuilder::access`"]
pub struct Access {
    /// Set in code, so that callers are restricted even without an identity.
    is_explicit: bool,
    rows: Vec<Row>,
    file: Option<PathBuf>,
    anonymous: Option<Roles>,
    anonymous_applications: Vec<String>,
    attempts: Option<u32>,
    /// Users of the settings, by name.
    users: BTreeMap<String, UserSettings>,
    spring: SpringUser,
    #[cfg(feature = "access")]
    jwt: Option<JwtKeys>,
    #[cfg(feature = "access")]
    jwt_settings: JwtSettings,
    /// The first unusable setting.
    fault: Option<String>,
}

/// Settings `eureka.server.access.users.<name>.*`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(in crate::server) struct UserSettings {
    pub(in crate::server) password: Option<String>,
    pub(in crate::server) token: Option<String>,
    pub(in crate::server) certificate: Option<String>,
    pub(in crate::server) subject: Option<String>,
    pub(in crate::server) roles: Option<String>,
    pub(in crate::server) applications: String,
}

/// Settings `spring.security.user.*`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(in crate::server) struct SpringUser {
    pub(in crate::server) name: Option<String>,
    pub(in crate::server) password: Option<String>,
    pub(in crate::server) roles: String,
}

/// Settings `eureka.server.access.jwt.*`, and those of Spring's resource servers.
#[cfg(feature = "access")]
#[derive(Clone, Default, PartialEq, Eq)]
pub(in crate::server) struct JwtSettings {
    pub(in crate::server) keys_file: Option<String>,
    #[cfg(feature = "peers")]
    pub(in crate::server) keys_url: Option<String>,
    #[cfg(feature = "peers")]
    pub(in crate::server) allows_insecure_url: bool,
    pub(in crate::server) issuer: Option<String>,
    pub(in crate::server) audiences: Vec<String>,
    pub(in crate::server) roles_claim: Option<String>,
}

/// Policy of the settings, with everything read and checked.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) rows: Vec<Row>,
    pub(super) anonymous: Grant,
    pub(super) file: Option<(PathBuf, Vec<u8>, Users)>,
    pub(super) attempts: u32,
    #[cfg(feature = "access")]
    pub(super) jwt: Option<JwtKeys>,
}

impl Access {
    /// Creates an access control without identities: nobody may do anything.
    pub fn new() -> Self {
        Self { is_explicit: true, ..Self::default() }
    }

    /// Adds a user with a password for HTTP Basic authentication. Users of the same name add
    /// further passwords, each with its own roles.
    ///
    /// The password is an Argon2 hash (`$argon2id$...`), a hash behind `{argon2}` or `{bcrypt}` as
    /// Spring stores it, or plain text, which may stand behind `{noop}`. Hashes need the feature
    /// `access`.
    pub fn user(mut self, name: impl Into<String>, password: &str, roles: impl IntoIterator<Item = Role>) -> Self {
        let name = name.into();
        let credential = check_user(&name).and_then(|()| Password::parse(password)).map(Credential::Password);
        self.add(&name, credential, roles.into_iter().collect());
        self
    }

    /// Adds a bearer token of 8 to 1,024 ASCII characters without blanks.
    pub fn token(mut self, name: impl Into<String>, token: &str, roles: impl IntoIterator<Item = Role>) -> Self {
        self.add(&name.into(), parse_token(token), roles.into_iter().collect());
        self
    }

    /// Adds clients with a certificate of these names, such as `CN=orders,O=Shop` or
    /// `DNS=orders.internal`. The kinds are attributes of the subject (`CN`, `O`, `OU`, `C`, `L`,
    /// `ST`, `DC`, `UID`, `SERIALNUMBER`) and alternative names (`DNS`, `URI`, `EMAIL`, `IP`).
    ///
    /// One value may contain `*`. The part that it stands for takes the place of `{}` in the name
    /// of the identity and in its [`applications`](Self::applications).
    #[cfg(feature = "access")]
    #[cfg_attr(docsrs, doc(cfg(feature = "access")))]
    pub fn certificate(
        mut self,
        name: impl Into<String>,
        certificate: &str,
        roles: impl IntoIterator<Item = Role>,
    ) -> Self {
        let credential = CertificateRule::parse(certificate).map(Credential::Certificate);
        self.add(&name.into(), credential, roles.into_iter().collect());
        self
    }

    /// Adds the subjects of JSON Web Tokens, which may contain `*` as
    /// [`certificate`](Self::certificate) may. Their roles in the token do not count.
    #[cfg(feature = "access")]
    #[cfg_attr(docsrs, doc(cfg(feature = "access")))]
    pub fn subject(mut self, name: impl Into<String>, subject: &str, roles: impl IntoIterator<Item = Role>) -> Self {
        self.add(&name.into(), Ok(Credential::Subject(Wild::new(subject))), roles.into_iter().collect());
        self
    }

    /// Sets the applications that the identity of this name may register, which was added before,
    /// or callers without credentials for `anonymous`. A name may end in `*`. Only identities with
    /// this application may then register it.
    ///
    /// Defaults to all applications that nobody else has.
    pub fn applications<'a>(mut self, name: &str, applications: impl IntoIterator<Item = &'a str>) -> Self {
        let applications: Vec<_> = applications.into_iter().map(str::to_owned).collect();
        if name == Identity::ANONYMOUS {
            self.anonymous_applications = applications;
            return self;
        }
        let mut found = false;
        for row in self.rows.iter_mut().filter(|row| row.grant.name == name) {
            row.grant.applications.clone_from(&applications);
            found = true;
        }
        if !found {
            self.fail(format!("the applications of {name} are set, but there is no such identity"));
        }
        self
    }

    /// Reads further identities from a file, which is read again when it changes. Its format is
    /// described in `docs/access.md`.
    ///
    /// A changed file that is missing, empty or unusable is logged, and the identities before stay.
    pub fn users_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Accepts JSON Web Tokens that are signed by these keys.
    #[cfg(feature = "access")]
    #[cfg_attr(docsrs, doc(cfg(feature = "access")))]
    pub fn jwt(mut self, keys: JwtKeys) -> Self {
        self.jwt = Some(keys);
        self
    }

    /// Sets the roles of callers without credentials. Defaults to none. Callers with wrong
    /// credentials never have them.
    pub fn anonymous(mut self, roles: impl IntoIterator<Item = Role>) -> Self {
        self.anonymous = Some(roles.into_iter().collect());
        self
    }

    /// Sets the number of failed attempts within a minute after which further ones of the same
    /// address, or the same /64 of IPv6, with the same user name get 429. With ten times as many of
    /// an address, all of its further ones do. Defaults to 10. Zero means no limit.
    ///
    /// Callers whose credentials were verified within the last two minutes are not affected.
    pub fn failed_attempts_per_minute(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    pub(in crate::server) fn spring_with(mut self, change: impl FnOnce(&mut SpringUser)) -> Self {
        change(&mut self.spring);
        self
    }

    pub(in crate::server) fn user_with(mut self, name: &str, change: impl FnOnce(&mut UserSettings)) -> Self {
        change(self.users.entry(name.to_owned()).or_default());
        self
    }

    #[cfg(feature = "access")]
    pub(in crate::server) fn jwt_with(mut self, change: impl FnOnce(&mut JwtSettings)) -> Self {
        change(&mut self.jwt_settings);
        self
    }

    /// Sets the roles of callers without credentials from a setting.
    ///
    /// # Errors
    /// When a name is no role.
    pub(in crate::server) fn anonymous_named(mut self, roles: &str) -> Result<Self, String> {
        let roles =
            if roles.is_empty() || roles.eq_ignore_ascii_case("none") { Roles::NONE } else { parse_roles(roles)? };
        self.anonymous = Some(roles);
        Ok(self)
    }

    /// Returns true if a setting restricts callers.
    pub(in crate::server) fn is_enabled(&self) -> bool {
        #[cfg(feature = "access")]
        if self.jwt.is_some() || self.jwt_settings != JwtSettings::default() {
            return true;
        }
        let has_settings = !self.users.is_empty() || self.spring != SpringUser::default();
        self.is_explicit
            || has_settings
            || !self.rows.is_empty()
            || self.file.is_some()
            || self.anonymous.is_some()
            || self.fault.is_some()
    }

    /// Reads the file of users and checks all settings.
    ///
    /// # Errors
    /// Returns the first setting that is unusable, without secrets.
    pub(super) fn configured(&self) -> Result<Configured, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let mut rows = self.rows.clone();
        rows.extend(self.spring.row()?);
        for (name, user) in &self.users {
            rows.extend(user.rows(name)?);
        }
        for row in &rows {
            row.check().map_err(|cause| format!("the identity {} is unusable: {cause}", row.grant.name))?;
        }
        let anonymous = Grant {
            applications: self.anonymous_applications.clone(),
            ..Grant::anonymous(self.anonymous.unwrap_or(Roles::NONE), "")
        };
        anonymous.check_anonymous().map_err(|cause| format!("the identity anonymous is unusable: {cause}"))?;
        let file = self.file.as_ref().map(|path| {
            let read = read_file(path, file::MAX_BYTES).and_then(|bytes| Ok((parse_file(&bytes)?, bytes)));
            read.map(|(users, bytes)| (path.clone(), bytes, users))
                .map_err(|cause| format!("cannot read the users in {}: {cause}", path.display()))
        });
        Ok(Configured {
            rows,
            anonymous,
            file: file.transpose()?,
            attempts: self.attempts.unwrap_or(ATTEMPTS_PER_MINUTE),
            #[cfg(feature = "access")]
            jwt: match &self.jwt {
                Some(keys) => Some(keys.clone()),
                None => self.jwt_settings.keys()?,
            },
        })
    }

    fn add(&mut self, name: &str, credential: Result<Credential, String>, roles: Roles) {
        match credential {
            Ok(credential) => self.rows.push(Row { grant: Grant::new(name, roles, ""), credential }),
            Err(cause) => self.fail(format!("the identity {name} is unusable: {cause}")),
        }
    }

    fn fail(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

impl SpringUser {
    /// Returns the row of the one user of a Spring server, who may do everything there.
    fn row(&self) -> Result<Option<Row>, String> {
        if *self == Self::default() {
            return Ok(None);
        }
        // Spring invents a password and logs it.
        let Some(password) = &self.password else {
            return Err("spring.security.user is set without spring.security.user.password: set it".into());
        };
        let name = self.name.as_deref().unwrap_or("user");
        let unusable = |cause| format!("spring.security.user is unusable: {cause}");
        check_user(name).map_err(unusable)?;
        let password = Password::parse(password).map_err(unusable)?;
        let roles = spring_roles(&self.roles).map_err(unusable)?;
        Ok(Some(Row { grant: Grant::new(name, roles, ""), credential: Credential::Password(password) }))
    }
}

/// Returns the roles of a Spring user: those of this registry among the names, or all roles if none
/// of the names is a role here.
///
/// # Errors
/// Returns the name that is nearly a role.
fn spring_roles(text: &str) -> Result<Roles, String> {
    let (mut roles, mut foreign) = (Roles::NONE, Vec::new());
    for name in Roles::names(text) {
        match Roles::named(name) {
            Some(more) => roles = roles.with(more),
            None => foreign.push(name),
        }
    }
    for name in foreign {
        // Two edits lead from the usual USER to peer, and from OPERATOR to operate.
        if let Some(nearest) = nearest_within(name, Role::ALL.map(Role::name), 1) {
            return Err(format!(
                "{:?} is no role; did you mean {nearest}? Names that resemble no role are ignored",
                Excerpt(name).to_string()
            ));
        }
    }
    Ok(if roles.is_empty() { Roles::ALL } else { roles })
}

impl UserSettings {
    fn rows(&self, name: &str) -> Result<Vec<Row>, String> {
        let unusable = |cause| format!("eureka.server.access.users.{name} is unusable: {cause}");
        check_applications(&self.applications).map_err(unusable)?;
        let roles = self.roles.as_deref().unwrap_or("read,register");
        let grant = Grant::new(name, parse_roles(roles).map_err(unusable)?, &self.applications);
        let password = self.password.as_ref().map(|password| {
            check_user(name)?;
            Password::parse(password).map(Credential::Password)
        });
        let token = self.token.as_deref().map(parse_token);
        let certificate =
            self.certificate.as_deref().map(|text| CertificateRule::parse(text).map(Credential::Certificate));
        let subject = self.subject.as_deref().map(|text| Ok(Credential::Subject(Wild::new(text))));
        let credentials = [password, token, certificate, subject].into_iter().flatten();
        let rows = credentials.map(|credential| Ok(Row { grant: grant.clone(), credential: credential? }));
        let rows = rows.collect::<Result<Vec<_>, String>>().map_err(unusable)?;
        if rows.is_empty() {
            return Err(unusable("it has no password, token, certificate or subject".into()));
        }
        Ok(rows)
    }
}

#[cfg(feature = "access")]
impl JwtSettings {
    fn keys(&self) -> Result<Option<JwtKeys>, String> {
        if *self == Self::default() {
            return Ok(None);
        }
        #[cfg(feature = "peers")]
        let url = self.keys_url.as_ref();
        #[cfg(not(feature = "peers"))]
        let url: Option<&String> = None;
        let mut keys = match (&self.keys_file, url) {
            (Some(_), Some(_)) => {
                return Err("eureka.server.access.jwt has both keys-file and keys-url: remove one".into());
            }
            (Some(file), None) => JwtKeys::file(file),
            #[cfg(feature = "peers")]
            (None, Some(url)) => JwtKeys::url(url).allow_insecure_url(self.allows_insecure_url),
            _ => {
                return Err("tokens need their keys: set eureka.server.access.jwt.keys-file or \
                            eureka.server.access.jwt.keys-url"
                    .into());
            }
        };
        if let Some(issuer) = &self.issuer {
            keys = keys.issuer(issuer);
        }
        if let Some(claim) = &self.roles_claim {
            keys = keys.roles_claim(claim);
        }
        Ok(Some(self.audiences.iter().fold(keys, |keys, audience| keys.audience(audience))))
    }
}

impl Configured {
    /// Describes who may do what, in one line without secrets.
    pub(super) fn summary(&self) -> String {
        let from_file = self.file.iter().flat_map(|(.., users)| &users.rows);
        let mut known: Vec<String> = Vec::new();
        for Row { grant, .. } in self.rows.iter().chain(from_file) {
            let line = grant.to_string();
            if !known.contains(&line) {
                known.push(line);
            }
        }
        let more = known.len().saturating_sub(SHOWN);
        known.truncate(SHOWN);
        if more > 0 {
            known.push(format!("{more} further identities"));
        }
        #[cfg(feature = "access")]
        if self.jwt.is_some() {
            known.push("JSON Web Tokens have the roles in them".into());
        }
        known.push(self.anonymous().to_string());
        known.join("; ")
    }

    pub(super) fn anonymous(&self) -> &Grant {
        self.file.as_ref().and_then(|(.., users)| users.anonymous.as_ref()).unwrap_or(&self.anonymous)
    }
}

/// Reads a file of at most this size.
///
/// # Errors
/// Returns the cause for a log line.
pub(super) fn read_file(path: &Path, max_bytes: usize) -> Result<Vec<u8>, String> {
    use std::io::Read;

    let mut bytes = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    let file = regular_file::open(path).map_err(|error| error.to_string())?;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > max_bytes { Err(format!("it has more than {max_bytes} bytes")) } else { Ok(bytes) }
}

/// Reads the content of a file of users.
pub(super) fn parse_file(bytes: &[u8]) -> Result<Users, String> {
    file::parse(std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?)
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("is_enabled", &self.is_enabled())
            .field("users_file", &self.file)
            .finish_non_exhaustive()
    }
}
