//! Proxies between a client and its registry servers.
//!
//! A plain request is sent to the proxy as it is, with its whole URI. A TLS connection goes through
//! a tunnel (`tunnel.rs`), so the proxy sees the host and port only. `direct.rs` holds the hosts
//! that are connected to without a proxy.

mod direct;
mod tunnel;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::uri::Scheme;
use http::{HeaderValue, Uri};

pub(crate) use direct::Direct;
pub(super) use tunnel::tunnel;

use super::uri::port_of;
use crate::secret::{basic, basic_of_userinfo};

/// Proxies by the scheme of the request, and the hosts that need none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    direct: Direct,
}

/// Proxy of one setting.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Name of the setting, such as `HTTPS_PROXY`.
    setting: Cow<'static, str>,
    /// Address of the proxy, or the reason why the setting is unusable.
    target: Result<Target, &'static str>,
}

/// Address and credentials of a proxy.
#[derive(Clone)]
pub(crate) struct Target {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Proxies {
    /// Reads the variables that curl and others read: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY`, or their forms in lower case.
    ///
    /// In a CGI process, `HTTP_PROXY` is a header of the caller and is not read.
    pub(crate) fn from_env(lookup: &dyn Fn(&str) -> Option<String>) -> Self {
        let find = |upper: &'static str| {
            [Cow::Borrowed(upper), Cow::Owned(upper.to_ascii_lowercase())].into_iter().find_map(|name| {
                let value = lookup(&name).filter(|value| !value.trim().is_empty())?;
                Some((name, value))
            })
        };
        let proxy =
            |upper| find(upper).map(|(name, url)| Arc::new(Proxy { setting: name, target: Target::parse(&url) }));
        let all = proxy("ALL_PROXY");
        let is_cgi = lookup("REQUEST_METHOD").is_some();
        let direct = find("NO_PROXY").map(|(_, hosts)| Direct::default().with(&hosts)).unwrap_or_default();
        let http = if is_cgi { None } else { proxy("HTTP_PROXY") };
        Self { http: http.or_else(|| all.clone()), https: proxy("HTTPS_PROXY").or(all), direct }
    }

    /// Uses this proxy for all schemes. The hosts that need none stay the same.
    ///
    /// # Errors
    /// With the reason, without any part of the URL, when it is unusable.
    pub(crate) fn with_url(self, setting: &'static str, url: &str) -> Result<Self, &'static str> {
        Ok(self.with_target(setting, Target::parse(url)?))
    }

    /// Uses the proxy at this host and port for all schemes.
    ///
    /// # Errors
    /// With the reason when the host is invalid.
    pub(crate) fn with_host(
        self,
        setting: &'static str,
        host: &str,
        port: u16,
        credentials: Option<(&str, &str)>,
    ) -> Result<Self, &'static str> {
        if host.contains(['/', '@', '?', '#']) {
            return Err("only the name or address of the host is expected");
        }
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        let uri = format!("http://{host}:{port}/").parse().map_err(|_| "it is not the name or address of a host")?;
        let authorization = credentials.map(|(user, password)| basic(user, password));
        Ok(self.with_target(setting, Target { uri, authorization }))
    }

    fn with_target(self, setting: &'static str, target: Target) -> Self {
        let proxy = Arc::new(Proxy { setting: setting.into(), target: Ok(target) });
        Self { http: Some(proxy.clone()), https: Some(proxy), ..self }
    }

    /// Uses the proxy of other settings. The hosts that need none stay the same.
    pub(crate) fn with_same_proxy(self, other: &Self) -> Self {
        Self { http: other.http.clone(), https: other.https.clone(), ..self }
    }

    /// Replaces the hosts that are connected to without a proxy.
    pub(crate) fn with_direct(self, direct: Direct) -> Self {
        Self { direct, ..self }
    }

    /// Returns `true` if there is no proxy at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// Returns the proxy for requests to this URI, or `None` if they are sent directly.
    pub(crate) fn of(&self, uri: &Uri) -> Option<&Proxy> {
        let proxy = if uri.scheme() == Some(&Scheme::HTTPS) { &self.https } else { &self.http };
        let proxy = proxy.as_deref()?;
        (!self.direct.contains(uri.host()?, port_of(uri))).then_some(proxy)
    }

    /// Returns the credentials that a plain request to this URI carries for its proxy. The proxy of
    /// an https URI receives them when the tunnel is opened.
    pub(crate) fn authorization(&self, uri: &Uri) -> Option<&HeaderValue> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.of(uri)?.target.as_ref().ok()?.authorization.as_ref()
    }
}

impl Proxy {
    /// Returns the address of the proxy.
    ///
    /// # Errors
    /// With the setting and the reason when it is unusable.
    pub(crate) fn target(&self) -> Result<&Target, String> {
        self.target.as_ref().map_err(|why| {
            let setting = &self.setting;
            format!("{setting} is unusable: {why} (write it like http://proxy.example:3128)")
        })
    }

    pub(crate) fn setting(&self) -> &str {
        &self.setting
    }
}

impl Target {
    /// Parses a URL. Without a scheme it is `http`, as in curl. Errors contain no part of it.
    fn parse(url: &str) -> Result<Self, &'static str> {
        let url = url.trim();
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err("connections to the proxy itself cannot use TLS, only http:// is supported");
            }
            Some(_) => return Err("only http:// proxies are supported"),
            None => url,
        };
        // Credentials end at the last `@`, so that a password may contain an unescaped one.
        let (userinfo, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.is_empty() || place.starts_with(':') {
            return Err("it has no host");
        }
        if place.contains(['/', '?', '#']) {
            return Err("it has a path or query");
        }
        let uri: Uri = format!("http://{place}/").parse().map_err(|_| "it is not a URL")?;
        let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']') && !matches!(port.parse(), Ok(1..=u16::MAX)))
        {
            return Err("its port is invalid");
        }
        let authorization = userinfo.map(basic_of_userinfo).transpose();
        let authorization = authorization.map_err(|()| "its credentials are not UTF-8 after percent-decoding")?;
        Ok(Self { uri, authorization })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

/// Displays host and port, without credentials.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uri.host().unwrap_or_default(), self.uri.port_u16().unwrap_or(80))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(proxies: &Proxies, uri: &str) -> Option<String> {
        proxies.of(&uri.parse().unwrap()).map(|proxy| match proxy.target() {
            Ok(target) => target.to_string(),
            Err(why) => why,
        })
    }

    fn from_env(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_env(&|asked| {
            variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_name_the_proxy_by_scheme() {
        let some = |text: &str| Some(text.to_owned());
        let proxies = from_env(&[("HTTP_PROXY", "http://a:1"), ("https_proxy", "b:2/"), ("ALL_PROXY", "c:3")]);
        assert_eq!(shown(&proxies, "http://registry/"), some("a:1"));
        assert_eq!(shown(&proxies, "https://registry/"), some("b:2"));
        let proxies = from_env(&[("all_proxy", "http://[::1]"), ("HTTPS_PROXY", " ")]);
        assert_eq!(shown(&proxies, "https://registry/"), some("[::1]:80"));
        assert!(from_env(&[]).is_empty());
        assert_eq!(shown(&from_env(&[("HTTP_PROXY", "a:1"), ("REQUEST_METHOD", "GET")]), "http://registry/"), None);
    }

    #[test]
    fn hosts_of_no_proxy_and_loopback_are_connected_to_directly() {
        let proxies = from_env(&[("HTTP_PROXY", "a:1"), ("NO_PROXY", "corp.example,10.0.0.0/8")]);
        for direct in [
            "http://localhost:8761/",
            "http://127.1.2.3/",
            "http://[::1]/",
            "http://x.corp.example/",
            "http://10.9.9.9/",
        ] {
            assert_eq!(shown(&proxies, direct), None, "{direct}");
        }
        assert!(shown(&proxies, "http://registry/").is_some());
        let proxies = proxies.with_direct(Direct::only(""));
        assert!(shown(&proxies, "http://localhost:8761/").is_some());
    }

    #[test]
    fn credentials_of_a_proxy_are_sent_with_plain_requests_only() {
        let proxies = Proxies::default().with_url("proxy()", "http://user:pa%3Ass@proxy:3128").unwrap();
        let of = |uri: &str| proxies.authorization(&uri.parse().unwrap()).cloned();
        assert_eq!(of("http://registry/"), Some(basic("user", "pa:ss")));
        assert_eq!(of("https://registry/"), None);
        assert_eq!(of("http://localhost/"), None);
        let by_key = Proxies::default().with_host("key", "proxy", 3128, Some(("user", "pa:ss"))).unwrap();
        assert_eq!(by_key.authorization(&"http://registry/".parse().unwrap()), Some(&basic("user", "pa:ss")));
    }

    #[test]
    fn unusable_proxy_is_an_error_with_the_setting_and_without_the_password() {
        for (url, why) in [
            ("socks5://user:secret@host:1080", "only http:// proxies"),
            ("https://user:secret@host:443", "only http:// is supported"),
            ("http://user:secret@", "no host"),
            ("http://user:secret@host:99999", "port is invalid"),
            ("http://user:secret@host:0", "port is invalid"),
            ("http://user:secret@host:x", "port is invalid"),
            ("http://user:secret@host/path", "path or query"),
            ("http://user:secret%ff@host", "UTF-8"),
            ("http://user:secret@ho st", "not a URL"),
        ] {
            let error = shown(&from_env(&[("HTTP_PROXY", url)]), "http://registry/").unwrap();
            assert!(error.starts_with("HTTP_PROXY is unusable") && error.contains(why), "{url}: {error}");
            let text = format!("{error} {:?}", from_env(&[("HTTP_PROXY", url)]));
            assert!(!text.contains("secret") && !text.contains("user"), "{text}");
        }
        assert!(Proxies::default().with_host("key", "http://host", 1, None).is_err());
        assert!(Proxies::default().with_host("key", "ho st", 1, None).is_err());
    }
}
