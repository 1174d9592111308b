//! Registry servers that a verb asks, and the credentials for them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use tower_eureka::model::InstanceStatus;
use tower_eureka::{BearerToken, Eureka, EurekaBuilder, Settings};

use super::failure::Failure;
use super::resolve::resolve;
use super::text::parse_name;

/// Variable with the credentials.
pub(crate) const CREDENTIALS: &str = "TOWER_EUREKA_CREDENTIALS";
/// Maximum size of a file with credentials.
const MAX_CREDENTIALS: u64 = 64 * 1024;
/// Maximum time to connect to a server.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// URLs of registry servers, which may have credentials. `Debug` does not show them.
#[derive(Clone)]
pub(crate) struct Urls(pub(crate) String);

impl FromStr for Urls {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Registry servers, separated by commas, tried in this order [default:
    /// EUREKA_CLIENT_SERVICEURL_DEFAULTZONE, else http://localhost:8761/eureka/]
    #[arg(long, value_name = "URLS", help_heading = "Registry")]
    url: Option<Urls>,

    #[command(flatten)]
    pub(crate) access: Access,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Access {
    /// File with USER:PASSWORD or "Bearer TOKEN" [default: variable TOWER_EUREKA_CREDENTIALS]
    #[arg(long, value_name = "FILE", help_heading = "Registry")]
    pub(crate) credentials: Option<PathBuf>,

    /// Longest wait for a response, and for its next part
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, help_heading = "Registry")]
    pub(crate) timeout: Duration,
}

impl Target {
    /// Returns a client for the servers.
    pub(crate) fn client(&self, settings: &[String]) -> Result<Eureka, Failure> {
        self.access.client(self.url.as_ref(), settings)
    }
}

impl Access {
    /// Returns a client for these servers, or for those of the settings. The settings of a client
    /// apply as well, for example those of TLS and proxies.
    pub(crate) fn client(&self, urls: Option<&Urls>, settings: &[String]) -> Result<Eureka, Failure> {
        Ok(self.builder(urls, settings)?.build()?)
    }

    /// Returns the builder of such a client.
    pub(crate) fn builder(&self, urls: Option<&Urls>, settings: &[String]) -> Result<EurekaBuilder, Failure> {
        let settings = Settings::builder().arguments(settings).without_files().load().map_err(Failure::usage)?;
        let mut builder = Eureka::builder_from(&settings)?
            .enabled(true)
            .shuffle_servers(false)
            .connect_timeout(self.timeout.min(CONNECT_LIMIT))
            .read_timeout(self.timeout)
            .resolver(|host: &str| resolve(host.to_owned()));
        if let Some(Urls(urls)) = urls {
            if urls.trim().is_empty() {
                return Err(Failure::usage("the URL is empty; write it like http://localhost:8761/eureka/"));
            }
            builder = builder.service_url(urls);
        }
        Ok(match self.credentials()? {
            None => builder,
            Some(Credentials::Basic(user, password)) => builder.basic_auth(user, password),
            Some(Credentials::Bearer(token)) => builder.bearer_token(move || {
                let token = BearerToken::new(token.clone());
                async { Ok::<_, std::convert::Infallible>(token) }
            }),
        })
    }

    fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        if let Some(path) = &self.credentials {
            let text = read(path).map_err(|why| {
                Failure::usage(format_args!(
                    "cannot read the credentials in {}: {why}; the file has one line, USER:PASSWORD or Bearer TOKEN",
                    path.display()
                ))
            })?;
            let parsed = Credentials::parse(&text);
            return parsed.map(Some).map_err(|why| Failure::usage(format_args!("{}: {why}", path.display())));
        }
        match std::env::var(CREDENTIALS) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => {
                Credentials::parse(&text).map(Some).map_err(|why| Failure::usage(format_args!("{CREDENTIALS}: {why}")))
            }
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(_) => Err(Failure::usage(format_args!("{CREDENTIALS} is no Unicode text"))),
        }
    }
}

/// Reads a small file.
fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_CREDENTIALS).read_to_string(&mut text)?;
    Ok(text)
}

#[derive(PartialEq, Eq)]
enum Credentials {
    Basic(String, String),
    Bearer(String),
}

impl Credentials {
    /// Parses one line. No error contains a part of it.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let line = lines.next().ok_or("the credentials are empty; expected USER:PASSWORD or Bearer TOKEN")?;
        if lines.next().is_some() {
            return Err("the credentials have more than one line; expected USER:PASSWORD or Bearer TOKEN");
        }
        if let Some((scheme, token)) = line.trim().split_once(' ')
            && scheme.eq_ignore_ascii_case("bearer")
        {
            let token = token.trim();
            let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
            return if is_token {
                Ok(Self::Bearer(token.into()))
            } else {
                Err("the bearer token has other characters than visible ASCII")
            };
        }
        let (user, password) = line.split_once(':').ok_or("expected USER:PASSWORD or Bearer TOKEN")?;
        Ok(Self::Basic(user.trim_start().into(), password.into()))
    }
}

/// Parses a number of seconds above 0, such as `2.5`, of at most a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let expected = || "expected seconds above 0 and up to 86400, such as 5 or 0.5".to_owned();
    let number: f64 = text.trim_end_matches('s').parse().map_err(|_| expected())?;
    let duration = Duration::try_from_secs_f64(number).map_err(|_| expected())?;
    if duration.is_zero() || number > 86_400.0 { Err(expected()) } else { Ok(duration) }
}

/// Parses a status that an operator may set, in any case and with dashes.
pub(crate) fn status(text: &str) -> Result<InstanceStatus, String> {
    let name = text.to_ascii_uppercase().replace('-', "_");
    match name.parse() {
        Ok(InstanceStatus::Unknown) | Err(_) => Err("expected UP, DOWN, STARTING or OUT_OF_SERVICE".into()),
        Ok(status) => Ok(status),
    }
}

/// Parses the name of an application or an instance as the verbs print it.
#[allow(clippy::unnecessary_wraps, reason = "clap takes parsers that may fail")]
pub(crate) fn named(text: &str) -> Result<String, String> {
    Ok(parse_name(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_one_line() {
        let basic = |user: &str, password: &str| Some(Credentials::Basic(user.into(), password.into()));
        for (text, expected) in [
            ("admin:p:w\n", basic("admin", "p:w")),
            ("\n admin: p w \r\n\n", basic("admin", " p w ")),
            ("admin:", basic("admin", "")),
            ("Bearer abc.def\n", Some(Credentials::Bearer("abc.def".into()))),
            ("bearer  x", Some(Credentials::Bearer("x".into()))),
            ("Bearer a b", None),
            ("Bearer ", None),
            ("", None),
            ("\n\n", None),
            ("a:b\nc:d", None),
            ("admin", None),
        ] {
            assert!(Credentials::parse(text).ok() == expected, "{text:?}");
        }
    }

    #[test]
    fn seconds_and_statuses_are_checked() {
        for (text, expected) in [("5", Some(5_000)), ("0.5", Some(500)), ("30s", Some(30_000)), ("0", None)] {
            assert_eq!(seconds(text).ok(), expected.map(Duration::from_millis), "{text}");
        }
        for text in ["-1", "NaN", "inf", "86401", "1e300", "", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(status("out-of-service"), Ok(InstanceStatus::OutOfService));
        assert!(status("UNKNOWN").is_err() && status("OFF").is_err());
    }

    #[test]
    fn debug_shows_no_url() {
        assert_eq!(format!("{:?}", Urls("http://u:secret@h/".into())), "***");
    }
}
