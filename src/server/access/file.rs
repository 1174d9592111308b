//! File of users: the table of the policy as text.
//!
//! ```text
//! # name     credential                     roles           applications
//! admin      $argon2id$v=19$m=19456,t=2...  operate
//! orders     {bcrypt}$2a$10$...             read,register   ORDERS
//! ci         {token}s3cr3t                  read
//! svc-{}     {certificate}CN=*,O=Shop       read,register   {}
//! {}         {jwt}system:*                  read,register
//! anonymous  -                              read
//! ```

use super::identity::{Identity, Roles};
use super::password::Password;
use super::pattern::{Grant, Wild};
use super::policy::{CertificateRule, Credential, Row};

/// Maximum size of a file in bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// Minimum length of a bearer token.
pub(super) const MIN_TOKEN: usize = 8;
/// Maximum length of a bearer token.
pub(super) const MAX_TOKEN: usize = 1024;

/// Content of a file of users.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Users {
    pub(super) rows: Vec<Row>,
    /// Roles and applications of callers without credentials, if the file has a row about them.
    pub(super) anonymous: Option<Grant>,
}

/// Reads the content of a file.
///
/// # Errors
/// Returns the reason for which the file is unusable, with the number of the line. It contains no
/// secret.
pub(super) fn parse(text: &str) -> Result<Users, String> {
    let mut users = Users::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |cause: String| format!("line {}: {cause}", number + 1);
        let columns = columns(line).map_err(fail)?;
        let (name, credential, roles, applications): (_, _, _, &str) = match &*columns {
            [name, credential, roles] => (name, credential, roles, ""),
            [name, credential, roles, applications] => (name, credential, roles, &**applications),
            _ => {
                return Err(fail(format!(
                    "{} columns, expected name, credential, roles and optionally applications, separated by blanks",
                    columns.len()
                )));
            }
        };
        // The column may hold a part of a credential, so that its text is not shown.
        let roles = parse_roles(roles).map_err(|_| fail(ROLES.into()))?;
        check_applications(applications).map_err(fail)?;
        if name == Identity::ANONYMOUS {
            let grant = Grant::anonymous(roles, applications);
            if credential != "-" || grant.has_place() {
                return Err(fail("anonymous has the credential - and applications without {}".into()));
            }
            grant.check().map_err(fail)?;
            users.anonymous = Some(grant);
            continue;
        }
        let credential = parse_credential(name, credential).map_err(fail)?;
        let row = Row { grant: Grant::new(name, roles, applications), credential };
        row.check().map_err(fail)?;
        users.rows.push(row);
    }
    // An empty file is more likely a mistake than the wish to lock everybody out.
    if users.rows.is_empty() { Err("there is no user in it".into()) } else { Ok(users) }
}

/// Reason for which a column is no roles.
const ROLES: &str = "the third column is no list of roles, which are read, register, operate, peer or *; a credential \
                     with blanks stands in double quotes";

pub(super) fn parse_roles(text: &str) -> Result<Roles, String> {
    let roles = Roles::parse(text)
        .map_err(|name| format!("\"{name}\" is no role, expected read, register, operate, peer or *"))?;
    if roles.is_empty() {
        Err("there is no role, expected read, register, operate, peer or *".into())
    } else {
        Ok(roles)
    }
}

/// Checks that a text that is not blank names an application. `,` is what two variables that are
/// not set leave.
pub(super) fn check_applications(text: &str) -> Result<(), String> {
    let names_none = Roles::names(text).next().is_none();
    if names_none && !text.trim().is_empty() { Err("the list names no application".into()) } else { Ok(()) }
}

fn parse_credential(name: &str, text: &str) -> Result<Credential, String> {
    if let Some(token) = text.strip_prefix("{token}") {
        return parse_token(token);
    }
    if let Some(subject) = text.strip_prefix("{jwt}") {
        return if subject.is_empty() {
            Err("{jwt} needs the subject of the tokens, which may contain one *".into())
        } else {
            Ok(Credential::Subject(Wild::new(subject)))
        };
    }
    if let Some(names) = text.strip_prefix("{certificate}") {
        return CertificateRule::parse(names).map(Credential::Certificate);
    }
    if !Password::is_explicit(text) {
        return Err(
            "the credential has no encoding: it is an Argon2 hash, or begins with {argon2}, {bcrypt}, {noop}, \
                    {token}, {jwt} or {certificate}"
                .into(),
        );
    }
    check_user(name)?;
    Password::parse(text).map(Credential::Password)
}

pub(super) fn parse_token(token: &str) -> Result<Credential, String> {
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) || !is_plain {
        return Err(format!("a token has {MIN_TOKEN} to {MAX_TOKEN} ASCII characters without blanks"));
    }
    Ok(Credential::Token(token.into()))
}

/// Checks the name of a user with a password.
pub(super) fn check_user(name: &str) -> Result<(), String> {
    match name {
        "" => Err("the name of the user is empty".into()),
        _ if name.contains(':') => Err("the name of a user has no colon, since it ends the name in a request".into()),
        _ if name.len() > 256 => Err("the name of a user has at most 256 bytes".into()),
        _ => Ok(()),
    }
}

/// Splits a line at its blanks. A column in double quotes may contain blanks.
fn columns(line: &str) -> Result<Vec<String>, String> {
    let mut columns = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (column, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a quoted column has no end")?,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        columns.push(column.to_owned());
        if !rest.starts_with('"') || after.is_empty() || after.starts_with(char::is_whitespace) {
            rest = after.trim_start();
        } else {
            return Err("a quoted column is followed by a blank".into());
        }
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_read() {
        let users = parse(
            "# comment\n\n\
             admin     {noop}secret                 operate\r\n\
             admin     {noop}second                 operate\n\
             \"my ci\"   {token}0123456789            read\n\
             svc-{}    \"{certificate}CN=*,O=My Shop\" read,register {}\n\
             {}        {jwt}system:*                read,register ORDERS,SHOP-*\n\
             anonymous - read\n",
        )
        .unwrap();
        let names: Vec<_> = users.rows.iter().map(|row| row.grant.name.as_str()).collect();
        assert_eq!(names, ["admin", "admin", "my ci", "svc-{}", "{}"]);
        assert_eq!(users.rows[4].grant.applications, ["ORDERS", "SHOP-*"]);
        assert_eq!(users.anonymous, Some(Grant::anonymous(Roles::parse("read").unwrap(), "")));
    }

    #[test]
    fn unusable_files_are_refused_with_the_line_and_without_secrets() {
        for (text, expected) in [
            ("", "no user"),
            ("# only a comment\nanonymous - read\n", "no user"),
            ("a {noop}hunter2", "line 1: 2 columns"),
            ("\n\na {noop}hunter2 read X Y", "line 3: 5 columns"),
            ("a {noop}hunter2 admin", "line 1: the third column is no list of roles"),
            ("a {noop}hunter2 ,", "no list of roles"),
            ("a operate {noop}hunter2", "no list of roles"),
            ("a {noop}my hunter2 read", "no list of roles"),
            ("a hunter2 read", "no encoding"),
            ("a {pbkdf2}hunter2 read", "{pbkdf2} is not supported"),
            ("a {token}short read", "8 to 1024"),
            ("a {certificate}hunter2 read", "described by names"),
            ("a {jwt} read", "needs the subject"),
            ("a {noop}hunter2 read {}*", "{} stands for"),
            ("a-{} {token}hunter2hunter2 read", "{} stands for"),
            ("a:b {noop}hunter2 read", "no colon"),
            ("\"a {noop}hunter2 read", "no end"),
            ("\"a\"b {noop}hunter2 read", "followed by a blank"),
            ("anonymous {noop}hunter2 read", "anonymous has the credential -"),
            ("anonymous - register {}", "anonymous has the credential -"),
            ("anonymous - register *-A", "* stands at the end"),
            ("a {noop}hunter2 read *-BILLING", "* stands at the end"),
            ("a {noop}hunter2 read SHOP*-API,CART", "* stands at the end"),
            ("a {noop}hunter2 read ,", "names no application"),
            ("anonymous - register ,", "names no application"),
            ("a {jwt}system:*:* read", "at most one *"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
