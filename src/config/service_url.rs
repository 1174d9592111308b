use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::error::{Error, Kind};

/// Where a registry server answers: `http://host:8761/eureka/`. Credentials are kept apart and are never shown.
#[derive(Clone)]
pub(crate) struct ServiceUrl {
    base: Arc<str>,
    secure: bool,
    authorization: Option<HeaderValue>,
}

impl ServiceUrl {
    /// Reads a comma-separated list, as `service-url.defaultZone` holds it. A URL that comes twice counts once.
    pub(crate) fn parse_list(list: &str) -> Result<Vec<Self>, Error> {
        let mut urls: Vec<Self> = Vec::new();
        for url in list.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let url = Self::parse(url)?;
            Self::merge(&mut urls, [url]);
        }
        Ok(urls)
    }

    /// Appends what is not there yet.
    pub(crate) fn merge(urls: &mut Vec<Self>, more: impl IntoIterator<Item = Self>) {
        for url in more {
            if urls.iter().all(|known| known.base != url.base) {
                urls.push(url);
            }
        }
    }

    /// A base without a slash at its end gets one: relative paths follow.
    fn parse(text: &str) -> Result<Self, Error> {
        // Nothing of the text is shown that may belong to a password.
        let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        let unusable = |cause: &str| {
            Error::new(Kind::Config, "read service URL")
                .server(shown)
                .cause(cause)
                .advice("write it like http://localhost:8761/eureka/")
        };
        let uri: Uri = text.parse().map_err(|e| unusable("not a URL").with_source(http::Error::from(e)))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(unusable("only http and https can be called")),
            None => return Err(unusable("without http:// in front")),
        };
        let authority = uri.authority().ok_or_else(|| unusable("without a host"))?;
        if authority.host().is_empty() {
            return Err(unusable("without a host"));
        }
        // A password with a raw slash, hash or question mark ends the authority early.
        if uri.path().contains('@') || text.contains('#') || uri.query().is_some_and(|query| query.contains('@')) {
            return Err(unusable("with unusable credentials: percent-encode what is not a letter or digit in them"));
        }
        if uri.query().is_some() {
            return Err(unusable("with a query: paths are appended to it"));
        }
        let (credentials, host) = match authority.as_str().rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority.as_str()),
        };
        if host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']') && port.parse::<u16>().is_err()) {
            return Err(unusable("with a port that is no number"));
        }
        let scheme = if secure { "https" } else { "http" };
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            base: format!("{scheme}://{host}{path}/").into(),
            secure,
            authorization: credentials.map(basic).transpose().map_err(|()| unusable("with unusable credentials"))?,
        })
    }

    /// The URL without credentials, ending in a slash.
    pub(crate) fn as_str(&self) -> &Arc<str> {
        &self.base
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

/// The header for `user:password`, split at the first colon. (Java clients send nothing if the password holds another.)
fn basic(credentials: &str) -> Result<HeaderValue, ()> {
    let decode = |text| percent_decode_str(text).decode_utf8().map_err(drop);
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let plain = format!("{}:{}", decode(user)?, decode(password)?);
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(plain))).map_err(drop)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_completed_and_freed_of_doubles() {
        let urls = ServiceUrl::parse_list("http://a:1/eureka, http://b/eureka/,http://a:1/eureka/,").unwrap();
        let bases: Vec<_> = urls.iter().map(|url| &**url.as_str()).collect();
        assert_eq!(bases, ["http://a:1/eureka/", "http://b/eureka/"]);
        assert_eq!(&**ServiceUrl::parse("http://a").unwrap().as_str(), "http://a/");
    }

    #[test]
    fn credentials_become_a_header_and_are_never_shown() {
        let url = ServiceUrl::parse("http://u:a%40:b@host/eureka").unwrap();
        assert_eq!(&**url.as_str(), "http://host/eureka/");
        // base64 of "u:a@:b"
        assert_eq!(url.authorization().unwrap(), "Basic dTphQDpi");
        assert!(!format!("{url:?} {:?}", url.authorization()).contains("dTphQDpi"));

        for url in [
            "ftp://user:secret@host/",
            "http://user:sec/secret@host/eureka",
            "http://user:s#secret@host/",
            "http://user:s?secret@host/",
            "http://user:secret@host:x/",
        ] {
            let error = ServiceUrl::parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("sec"), "{error:?}");
        }
    }

    #[test]
    fn an_unusable_url_says_why() {
        for (url, why) in [
            ("localhost:8761/eureka", "not a URL"),
            ("/eureka", "without http:// in front"),
            ("ftp://host/", "only http and https"),
            ("http://host/eureka?x=1", "with a query"),
            ("http://", "not a URL"),
            ("http://ho st/", "not a URL"),
        ] {
            let error = ServiceUrl::parse(url).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{url}: {error}");
            assert!(error.to_string().contains("http://localhost:8761/eureka/"), "{error}");
        }
    }
}
