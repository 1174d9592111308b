//! Start of the access control, and the tasks that read its files and keys again.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::field::display;

use super::control::AccessControl;
use super::file;
#[cfg(feature = "access")]
use super::jwt::{self, Jwt, JwtKeys, Source};
#[cfg(all(feature = "access", feature = "peers"))]
use super::key_fetch::{KeyFetch, keys_uri};
use super::pattern::Grant;
use super::policy::{Policy, Row};
use super::settings::{Access, Configured, parse_file, read_file};
use crate::server::audit::{self, Lasting, Ongoing, Quoted};
#[cfg(all(feature = "access", feature = "peers"))]
use crate::server::outbound::Outbound;
use crate::sync::offload;

/// Interval at which the files are compared with their last content.
const FILE_INTERVAL: Duration = Duration::from_secs(5);

/// Running access control with its tasks, which end when they are dropped.
#[derive(Debug)]
pub(in crate::server) struct Started {
    pub(in crate::server) control: Arc<AccessControl>,
    pub(in crate::server) tasks: JoinSet<()>,
    /// Description of who may do what.
    pub(in crate::server) summary: String,
}

impl Access {
    /// Checks all settings and files. Starts nothing.
    ///
    /// # Errors
    /// Returns the first setting that is unusable, without secrets.
    pub(in crate::server) fn check(&self) -> Result<(), String> {
        let Configured {
            #[cfg(feature = "access")]
            jwt,
            ..
        } = self.configured()?;
        #[cfg(feature = "access")]
        jwt.map(keyed).transpose()?;
        Ok(())
    }

    /// Starts the access control. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Returns the first setting that is unusable, without secrets.
    pub(in crate::server) fn start(
        &self,
        #[cfg(all(feature = "access", feature = "peers"))] outbound: &Outbound,
    ) -> Result<Started, String> {
        let configured = self.configured()?;
        let summary = configured.summary();
        let anonymous = configured.anonymous().clone();
        let Configured { rows, file, attempts, anonymous: default_anonymous, .. } = configured;
        let (path, bytes, file_users) = match file {
            Some((path, bytes, users)) => (Some(path), bytes, users),
            None => (None, Vec::new(), file::Users::default()),
        };
        let policy = Policy::with_anonymous(rows.iter().chain(&file_users.rows).cloned(), &anonymous);
        #[cfg(feature = "access")]
        let (jwt, key_file) = match configured.jwt.map(keyed).transpose()? {
            Some((jwt, key_file)) => (Some(jwt), key_file),
            None => (None, None),
        };
        let control = Arc::new(AccessControl::new(
            policy,
            anonymous.anonymous_identity(),
            attempts,
            #[cfg(feature = "access")]
            jwt,
        ));
        let mut tasks = JoinSet::new();
        let users = UsersFile { rows, anonymous: default_anonymous, users: file_users };
        let files = Files {
            control: control.clone(),
            users: path.map(|path| (Watched::new(path, bytes), users)),
            #[cfg(feature = "access")]
            keys: key_file.map(|(path, bytes)| Watched::new(path, bytes)),
        };
        tasks.spawn(files.run());
        #[cfg(all(feature = "access", feature = "peers"))]
        if let Some(config) = control.jwt.as_ref().map(|jwt| &jwt.config)
            && let Source::Url(url) = &config.source
        {
            let fetch = KeyFetch::new(url, config.allows_insecure_url, outbound)?;
            tasks.spawn(fetch.run(control.clone()));
        }
        Ok(Started { control, tasks, summary })
    }
}

/// Path of a file and its content.
#[cfg(feature = "access")]
type Content = (PathBuf, Vec<u8>);

/// Creates the verifier of tokens, with its keys unless they have to be fetched.
#[cfg(feature = "access")]
fn keyed(keys: JwtKeys) -> Result<(Jwt, Option<Content>), String> {
    let jwt = Jwt::new(keys);
    let file = match &jwt.config.source {
        Source::Text(text) => {
            jwt.set_keys(text.as_bytes()).map_err(|cause| format!("the keys of tokens are unusable: {cause}"))?;
            None
        }
        Source::File(path) => {
            let read = read_file(path, jwt::MAX_BYTES);
            let read = read.and_then(|bytes| jwt.set_keys(&bytes).map(|_| (path.clone(), bytes)));
            Some(read.map_err(|cause| format!("cannot read the keys of tokens in {}: {cause}", path.display()))?)
        }
        #[cfg(feature = "peers")]
        Source::Url(url) => {
            keys_uri(url, jwt.config.allows_insecure_url)?;
            None
        }
    };
    Ok((jwt, file))
}

/// File that is read again when it changes. Its content is compared, since a mounted secret is
/// replaced by a link with any time.
struct Watched {
    path: PathBuf,
    /// Content that is in force.
    bytes: Vec<u8>,
    /// Other content at the last read. It takes effect once it is read again, since a file that is
    /// being written may be usable up to the end of a line.
    next: Option<Vec<u8>>,
    fault: Ongoing,
    /// Error of the last read, if it failed.
    error: Option<String>,
}

impl Watched {
    fn new(path: PathBuf, bytes: Vec<u8>) -> Self {
        Self { path, bytes, next: None, fault: Ongoing::default(), error: None }
    }

    /// Reads the file. If its content changed, `apply` puts it in force, at once if the file is
    /// known to be complete.
    ///
    /// An error is logged if it differs from the last one, and if somebody who completed the file
    /// waits for the result. Otherwise it is logged once a minute.
    async fn read(
        &mut self,
        max_bytes: usize,
        what: &str,
        is_complete: bool,
        apply: impl FnOnce(&[u8]) -> Result<Applied, String>,
    ) {
        let path = self.path.clone();
        let read = offload(move || read_file(&path, max_bytes)).await;
        let applied = match read {
            Ok(bytes) if bytes == self.bytes => Ok(None),
            Ok(bytes) if !is_complete && self.next.as_ref() != Some(&bytes) => {
                self.next = Some(bytes);
                return;
            }
            Ok(bytes) => apply(&bytes).map(|applied| Some((applied, bytes))),
            Err(cause) => Err(cause),
        };
        self.next = None;
        let file = self.path.display();
        match applied {
            Err(error) => {
                let is_new = is_complete || self.error.as_ref() != Some(&error);
                let fault = if is_new { self.fault.occurred_anew() } else { self.fault.occurred() };
                if let Some(Lasting { count, elapsed }) = fault {
                    tracing::warn!(%file, %error, count, ?elapsed, "{what} unusable, the ones before stay");
                }
                self.error = Some(error);
                return;
            }
            Ok(None) => {}
            Ok(Some((Applied { before, after, added, removed }, bytes))) => {
                let [added, removed] = [added, removed].map(|names| names.map(display));
                tracing::info!(target: audit::TARGET, %file, before, after, added, removed, "{what} read again");
                self.bytes = bytes;
            }
        }
        self.error = None;
        if let Some(Lasting { count, elapsed }) = self.fault.ended() {
            tracing::info!(%file, count, ?elapsed, "{what} usable again");
        }
    }
}

/// Change that the new content of a file makes: the number of entries before and after, and for
/// users which ones were added and removed.
struct Applied {
    before: usize,
    after: usize,
    added: Option<Names>,
    removed: Option<Names>,
}

/// Descriptions of rows of the policy, without secrets.
struct Names(Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        audit::list(f, self.0.iter().map(|name| Quoted(name).to_string()))
    }
}

/// Part of the policy that does not come from the file, and the content of the file in force.
struct UsersFile {
    rows: Vec<Row>,
    anonymous: Grant,
    users: file::Users,
}

impl UsersFile {
    /// Puts the new content of the file in force.
    fn replace(&mut self, users: file::Users, control: &AccessControl) -> Applied {
        let anonymous = users.anonymous.as_ref().unwrap_or(&self.anonymous);
        let policy = Policy::with_anonymous(self.rows.iter().chain(&users.rows).cloned(), anonymous);
        let was_open = control.may_anonymous_write();
        control.set_policy(policy, anonymous.anonymous_identity());
        if control.may_anonymous_write() && !was_open {
            tracing::warn!("everybody who reaches this server may change the registry, as the file of users says");
        }
        let old = std::mem::replace(&mut self.users, users);
        let new = &self.users;
        Applied {
            before: old.rows.len(),
            after: new.rows.len(),
            added: Some(self.only_in(new, &old)),
            removed: Some(self.only_in(&old, new)),
        }
    }

    /// Describes what the first content has and the second one has not. A password that changed is
    /// such a difference.
    fn only_in(&self, users: &file::Users, other: &file::Users) -> Names {
        let mut known: HashMap<&str, Vec<&Row>> = HashMap::new();
        for row in &other.rows {
            known.entry(&row.grant.name).or_default().push(row);
        }
        let is_known = |row: &&Row| known.get(&*row.grant.name).is_some_and(|rows| rows.contains(row));
        let mut names: Vec<_> =
            users.rows.iter().filter(|row| !is_known(row)).map(|row| row.grant.to_string()).collect();
        let [grant, before] = [users, other].map(|users| users.anonymous.as_ref().unwrap_or(&self.anonymous));
        if grant != before {
            names.push(grant.to_string());
        }
        Names(names)
    }
}

/// Task that reads the files again, and flushes the log.
struct Files {
    control: Arc<AccessControl>,
    users: Option<(Watched, UsersFile)>,
    #[cfg(feature = "access")]
    keys: Option<Watched>,
}

impl Files {
    async fn run(mut self) {
        let mut ticks = interval_at(Instant::now() + FILE_INTERVAL, FILE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let control = &self.control;
            let is_complete = tokio::select! {
                _ = ticks.tick() => false,
                () = control.reload.notified() => true,
            };
            control.flush_log();
            if let Some((file, users)) = &mut self.users {
                let apply = |bytes: &[u8]| Ok(users.replace(parse_file(bytes)?, control));
                file.read(file::MAX_BYTES, "users", is_complete, apply).await;
            }
            #[cfg(feature = "access")]
            if let (Some(file), Some(jwt)) = (&mut self.keys, &control.jwt) {
                let apply = |bytes: &[u8]| {
                    let before = jwt.key_count();
                    let after = jwt.set_keys(bytes)?;
                    control.forget_tokens();
                    Ok(Applied { before, after, added: None, removed: None })
                };
                file.read(jwt::MAX_BYTES, "keys of tokens", is_complete, apply).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// File in the folder for temporary files, which is removed at the end.
    struct TempFile(PathBuf);

    impl TempFile {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("tower-eureka-access-{name}-{}", std::process::id())))
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0, text).unwrap();
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[tokio::test]
    async fn changed_file_takes_effect_once_two_reads_agree_or_if_it_is_complete() {
        let file = TempFile::new("twice");
        let (mut watched, applied) = (Watched::new(file.0.clone(), b"a".to_vec()), RefCell::new(Vec::new()));
        for (text, is_complete, expected) in [
            ("a", false, ""),
            ("b", false, ""),
            ("b", false, "b"),
            ("c", false, ""),
            ("d", false, ""),
            ("b", false, ""),
            ("d", false, ""),
            ("d", false, "d"),
            ("d", true, ""),
            ("e", true, "e"),
        ] {
            file.write(text);
            let apply = |bytes: &[u8]| {
                applied.borrow_mut().extend_from_slice(bytes);
                Ok(Applied { before: 1, after: 1, added: None, removed: None })
            };
            watched.read(10, "users", is_complete, apply).await;
            assert_eq!(applied.take(), expected.as_bytes(), "{text} {is_complete}");
        }
    }

    #[cfg(all(feature = "access", any(feature = "tls", feature = "peers")))]
    #[tokio::test(start_paused = true)]
    async fn error_is_logged_if_it_is_new_or_if_the_file_is_complete() {
        let (log, _guard) = crate::server::captured_log::Log::start(tracing::Level::INFO);
        let file = TempFile::new("errors");
        let mut watched = Watched::new(file.0.clone(), b"right".to_vec());
        let mut logged = 0;
        for (text, is_complete, expected) in [
            ("first", false, ""),
            ("first", false, "error=not first count=1"),
            ("first", false, ""),
            ("first", false, ""),
            ("second", true, "error=not second count=3"),
            ("second", true, "error=not second count=4"),
            ("third", false, ""),
            ("third", false, "error=not third count=5"),
            ("right", false, "users usable again"),
            ("third", false, ""),
            ("third", false, "error=not third count=1"),
        ] {
            file.write(text);
            let apply = |bytes: &[u8]| Err(format!("not {}", String::from_utf8_lossy(bytes)));
            watched.read(10, "users", is_complete, apply).await;
            let all = log.text();
            let new = &all[logged..];
            assert!(new.contains(expected) && expected.is_empty() == new.is_empty(), "{text} {is_complete}: {new}");
            logged = all.len();
        }
    }

    #[tokio::test]
    async fn reload_reads_the_users_at_once() {
        let file = TempFile::new("reload");
        file.write("a {noop}pass-a read\n");
        let server = crate::EurekaServer::builder().access(Access::new().users_file(&file.0)).build().unwrap();
        let control = server.state.access().unwrap().clone();
        file.write("anonymous - register\nb {noop}pass-b read\n");
        assert!(!control.may_anonymous_write());
        server.reload().await;
        let applied = async {
            while !control.may_anonymous_write() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), applied).await.unwrap();
    }
}
