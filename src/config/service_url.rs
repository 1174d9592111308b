use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Uri};

use crate::error::{Error, Kind};
use crate::secret::basic_of_userinfo;

/// Maximum length of a URL in bytes, without its credentials. Lists of servers may come from DNS.
const MAX_LENGTH: usize = 1024;

/// URL of a registry server: `http://host:8761/eureka/`. Credentials are stored separately and
/// never displayed.
#[derive(Clone)]
pub(crate) struct ServiceUrl {
    base: Arc<str>,
    secure: bool,
    authorization: Option<HeaderValue>,
}

impl ServiceUrl {
    /// Parses a comma-separated list, as in `service-url.defaultZone`, and drops duplicates.
    ///
    /// No error contains a part of the list that may belong to a password.
    pub(crate) fn parse_list(list: &str) -> Result<Vec<Self>, Error> {
        let pieces: Vec<&str> = list.split(',').map(str::trim).filter(|piece| !piece.is_empty()).collect();
        let split = pieces.iter().skip(1).position(|piece| !has_scheme(piece));
        if split.is_some_and(|at| pieces[at + 1..].iter().any(|piece| piece.contains('@'))) {
            // A password was split at its comma. Only the text after the last `@` is surely not
            // part of it.
            let rest = pieces.iter().rev().find(|piece| piece.contains('@')).copied().unwrap_or_default();
            return Err(invalid(shown(rest), COMMA));
        }
        let mut urls: Vec<Self> = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            // A piece without a scheme may be part of a password that was split.
            let shown = shown(piece).filter(|_| index == 0 || has_scheme(piece));
            let url = Self::parse(piece, shown)?;
            Self::merge(&mut urls, [url]);
        }
        Ok(urls)
    }

    /// Appends the URLs that the list does not yet contain.
    pub(crate) fn merge(urls: &mut Vec<Self>, more: impl IntoIterator<Item = Self>) {
        for url in more {
            if urls.iter().all(|known| known.base != url.base) {
                urls.push(url);
            }
        }
    }

    /// Parses one URL and appends a slash if it has none, since relative paths are appended to it.
    /// Errors contain no more of the text than `shown`.
    fn parse(text: &str, shown: Option<&str>) -> Result<Self, Error> {
        let invalid = |cause| invalid(shown, cause);
        if text.contains("${") {
            return Err(invalid("contains a placeholder: ${...} is not resolved here, write the value itself"));
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Err(invalid("without http:// in front")) };
        let secure = match &*scheme.to_ascii_lowercase() {
            "http" => false,
            "https" => true,
            "" => return Err(invalid("without http:// in front")),
            _ => return Err(invalid("only http and https are supported")),
        };
        if rest.contains("://") {
            return Err(invalid("contains two URLs: separate them by commas"));
        }
        // Credentials end at the last `@`, so that a password may contain an unescaped one.
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        if place.len() > MAX_LENGTH {
            return Err(invalid("longer than 1,024 bytes"));
        }
        // Unescaped, these characters would end the authority early.
        if credentials.is_some_and(|credentials| credentials.contains(|c| !is_raw(c))) {
            return Err(invalid(CREDENTIALS));
        }
        if place.is_empty() || place.starts_with(['/', '?', '#', ':']) {
            return Err(invalid("without a host"));
        }
        let uri: Uri =
            format!("http://{place}").parse().map_err(|e| invalid("not a URL").with_source(http::Error::from(e)))?;
        if place.contains('#') || uri.query().is_some() {
            return Err(invalid("with a query or fragment, but paths are appended to it"));
        }
        if uri.path().contains(';') {
            return Err(invalid("contains a semicolon: separate URLs by commas"));
        }
        let host = uri.authority().ok_or_else(|| invalid("without a host"))?.as_str();
        if host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']') && port.parse::<u16>().is_err()) {
            return Err(invalid("with an invalid port"));
        }
        let (scheme, default_port) = if secure { ("https", ":443") } else { ("http", ":80") };
        // Two spellings of one URL are one server.
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(default_port).unwrap_or(&host);
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            base: format!("{scheme}://{host}{path}/").into(),
            secure,
            authorization: credentials.map(basic_of_userinfo).transpose().map_err(|()| invalid(CREDENTIALS))?,
        })
    }

    /// Returns the URL without credentials. It ends in a slash.
    pub(crate) fn as_str(&self) -> &Arc<str> {
        &self.base
    }

    /// Returns the host, without the brackets of an IPv6 address, and the port.
    pub(crate) fn host_and_port(&self) -> (String, u16) {
        let default = if self.secure { 443 } else { 80 };
        let uri: Option<Uri> = self.base.parse().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        let port = uri.as_ref().and_then(Uri::port_u16).unwrap_or(default);
        (host.trim_start_matches('[').trim_end_matches(']').to_owned(), port)
    }

    /// Returns the URL with an address as the host, in place of the name.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        let scheme = if self.secure { "https" } else { "http" };
        let uri: Option<Uri> = self.base.parse().ok();
        let path = uri.as_ref().map_or("/", Uri::path);
        Self { base: format!("{scheme}://{address}{path}").into(), ..self.clone() }
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

const CREDENTIALS: &str =
    "with invalid credentials: percent-encode each of their characters that is not a letter or digit (%2F for a slash)";
const COMMA: &str = "with a comma in the credentials: percent-encode it as %2C";

fn invalid(shown: Option<&str>, cause: &str) -> Error {
    Error::new(Kind::Config, "read service URL")
        .server(shown.unwrap_or("(not shown, it may contain a password)"))
        .cause(cause)
        .advice("write it like http://localhost:8761/eureka/")
}

fn has_scheme(piece: &str) -> bool {
    piece.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Returns `true` if credentials may contain this character unescaped.
fn is_raw(c: char) -> bool {
    c.is_ascii_graphic()
        && !matches!(c, '/' | '?' | '#' | '[' | ']' | '\\' | '^' | '|' | '{' | '}' | '<' | '>' | '"' | '`')
}

/// Returns the part of a URL that can be displayed: host, port and path, without credentials, query
/// and fragment. `None` if the URL has another form, so that a part of it may belong to a password.
pub(crate) fn shown(url: &str) -> Option<&str> {
    let place = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    let place = place.split(['?', '#']).next().unwrap_or_default();
    let authority = place.split_once("://").map_or(place, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, ""),
    };
    let bare = |host: &str| !host.contains(':') || host.starts_with('[') && host.ends_with(']');
    let visible = place.chars().all(|c| c.is_ascii_alphanumeric() || "-._~/:[]%".contains(c));
    (!host.is_empty() && bare(host) && visible && port.chars().all(|c| c.is_ascii_digit())).then_some(place)
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<ServiceUrl, Error> {
        ServiceUrl::parse_list(url).map(|mut urls| urls.remove(0))
    }

    #[test]
    fn list_is_split_completed_and_deduplicated() {
        let urls = ServiceUrl::parse_list("http://a:1/eureka, http://b/eureka/,\nhttp://a:1/eureka/,").unwrap();
        let bases: Vec<_> = urls.iter().map(|url| &**url.as_str()).collect();
        assert_eq!(bases, ["http://a:1/eureka/", "http://b/eureka/"]);
        assert_eq!(&**parse("http://a").unwrap().as_str(), "http://a/");
        let urls =
            ServiceUrl::parse_list("http://A:80/x,http://a/x/,https://a:443/x,https://A/x,http://a:443/x").unwrap();
        let bases: Vec<_> = urls.iter().map(|url| &**url.as_str()).collect();
        assert_eq!(bases, ["http://a/x/", "https://a/x/", "http://a:443/x/"], "spellings of one URL are one server");
        assert_eq!(&**parse("http://[::80]/").unwrap().as_str(), "http://[::80]/");
        assert_eq!(&**parse("HTTPS://[::1]:8761/eureka").unwrap().as_str(), "https://[::1]:8761/eureka/");
    }

    #[test]
    fn credentials_become_a_header_and_are_not_displayed() {
        let url = parse("http://u:a%40:b@host/eureka").unwrap();
        assert_eq!(&**url.as_str(), "http://host/eureka/");
        // base64 of "u:a@:b"
        assert_eq!(url.authorization().unwrap(), "Basic dTphQDpi");
        assert!(!format!("{url:?} {:?}", url.authorization()).contains("dTphQDpi"));
        for (raw, encoded) in [("u:p@ss", "u:p%40ss"), ("u:a%2Cb", "u:a%2cb"), ("u:1!$&'()*+;=~", "u:1%21$&'()*+;=~")] {
            let [raw, encoded] = [raw, encoded].map(|user| parse(&format!("http://{user}@host/")).unwrap());
            assert_eq!(raw.authorization(), encoded.authorization());
        }
    }

    /// Each URL contains the password, or a part of it, in a text that begins with `se` or ends
    /// with `et`.
    #[test]
    fn invalid_url_is_an_error_without_any_part_of_the_password() {
        for url in [
            "ftp://user:secret@host/",
            "http://user:sec/secret@host/eureka",
            "http://user:s#secret@host/",
            "http://user:s?secret@host/",
            "http://user:secret@host:x/",
            "http://user:secr,et@host/",
            "http://user:se,cr,et@host/",
            "http://user:12,34secret@host/",
            "http://a/eureka,http://user:secr,et@host/",
            "http://user:secr,et@host/,http://b/eureka",
            "http://user:se@secret:x,et@host/",
            "http://user:sec ret@host/",
            "http://user:sec\nret@host/",
            "http://user:sec\tret@host/",
            "http://user:secret",
            "http://user:secret/eureka",
            "http://user:secr,et",
            "http://user:12,secret",
            "http://user:secret@",
            "user:secret@host:8761/",
            "user:secret",
            "http:/user:secret@host/",
            "http:user:secret@host/",
            "http://user:^secret@host/",
            "http://user:|secret{}@host/",
            "http://user:s\u{e4}secret@host/",
            "http://user:\\secret@host/",
            "http://user:secret%ff@host/",
            "http://user:secret@host/;http://user:secret@other/",
            "http://user:secret@host/ http://user:secret@other/",
            "http://user:secret@host/eureka?token=secret",
            "http://host/eureka?token=secret",
            "http://user:secret@ho st/",
            "://user:secret@host/",
            "http://user:p://secret@host/",
            "http://user:secret@${HOST}/",
            "http://user:${PASSWORD:secret}@host/",
        ] {
            let error = ServiceUrl::parse_list(url).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(error.is_config() && !text.contains("se,") && !text.contains("sec"), "{url}: {text}");
            assert!(!text.contains("et@") && !text.contains("user"), "{url}: {text}");
        }
    }

    #[test]
    fn invalid_credentials_are_an_error_with_the_advice_to_encode_them() {
        for url in ["http://u:a b@h/", "http://u:a|b@h/", "http://u:a/b@h/", "http://u:a?b@h/", "http://u:\u{e4}@h/"] {
            assert!(parse(url).unwrap_err().to_string().contains("percent-encode"), "{url}");
        }
        let error = parse("http://u:a,b@reg.example.test:8761/eureka/").unwrap_err().to_string();
        assert!(error.contains("%2C") && error.contains("reg.example.test:8761/eureka/"), "{error}");
    }

    #[test]
    fn invalid_url_is_an_error_with_its_reason() {
        for (url, why) in [
            ("localhost:8761/eureka", "without http:// in front"),
            ("/eureka", "without http:// in front"),
            ("ftp://host/", "only http and https"),
            ("http://host/eureka?x=1", "with a query"),
            ("http://", "without a host"),
            ("http://:8761/eureka", "without a host"),
            ("http://ho st/", "not a URL"),
            ("http://${HOST}:8761/eureka/", "placeholder"),
            ("http://u:${PASSWORD}@host/", "placeholder"),
            ("http://host:87x/", "with an invalid port"),
            ("http://a:1/eureka/;http://b:1/eureka/", "separate them by commas"),
            ("http://a:1/eureka/ http://b:1/eureka/", "separate them by commas"),
            ("http://a:1/eureka/;", "separate URLs by commas"),
            ("http://a/eureka,b/eureka", "without http:// in front"),
            (&format!("http://{}/", "a".repeat(1024)), "longer than 1,024 bytes"),
        ] {
            let error = ServiceUrl::parse_list(url).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{url}: {error}");
            assert!(error.to_string().contains("http://localhost:8761/eureka/"), "{error}");
        }
    }

    #[test]
    fn displayed_part_of_a_url_has_no_credentials_and_no_query() {
        for (url, expected) in [
            ("http://u:p@host/a?b=c#d", Some("host/a")),
            ("http://u:p?w@host/a", Some("host/a")),
            ("https://host:8761/eureka/", Some("https://host:8761/eureka/")),
            ("http://[::1]:8761/", Some("http://[::1]:8761/")),
            ("http://user:secret", None),
            ("http://user:secret:1/", None),
            ("/login?next=x", None),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }
}
