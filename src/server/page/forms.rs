//! Protection of the page's forms against requests that other sites send from the operator's
//! browser.
//!
//! A form has a token that equals a cookie of the same browser. Another site can send a form with
//! the cookie, but cannot read the token. In addition the browser must say that the request comes
//! from the page itself, which also covers cookies that a neighbouring site has set.

use http::header::{COOKIE, HOST, ORIGIN};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

const COOKIE_NAME: &str = "tower-eureka-page";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Number of random bytes of a token.
const BYTES: usize = 16;

/// Token of the forms in one browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token(String);

/// Reason for which a form is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Another site sent it.
    Site,
    /// The browser does not say which site sent it.
    Unknown,
    /// The token is missing, or belongs to an earlier visit.
    Token,
}

impl Foreign {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Site => {
                "the request comes from another site; open the page itself, and if a proxy is in front of it, let \
                 the proxy keep the Host header"
            }
            Self::Unknown => "the request has neither Origin nor Sec-Fetch-Site; scripts use the REST operations",
            Self::Token => "the form is out of date or cookies are off; load the page again and repeat the action",
        }
    }
}

impl Token {
    /// Returns the token of the browser that sent these headers, if it has one.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut cookies = texts.flat_map(|text| text.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        let (_, value) = cookies.find(|(name, _)| *name == COOKIE_NAME)?;
        let is_token = value.len() == 2 * BYTES && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_token.then(|| Self(value.to_owned()))
    }

    /// Creates a token for a browser without one.
    ///
    /// # Errors
    /// Fails if the system has no random numbers.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the header that stores the token in the browser until it is closed.
    ///
    /// It is `Lax`, so that a link to the page in a message finds the cookie. A form of another
    /// site is sent without it. A request over HTTP/1 does not say if it is encrypted.
    pub(super) fn cookie(&self, uri: &Uri) -> HeaderValue {
        let secure = if uri.scheme() == Some(&Scheme::HTTPS) { "; Secure" } else { "" };
        let text = format!("{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Lax{secure}", self.0);
        HeaderValue::from_str(&text).expect("a token is hexadecimal")
    }
}

/// Checks that the page itself sent a form with this token.
pub(super) fn check(headers: &HeaderMap, uri: &Uri, token: &str) -> Result<(), Foreign> {
    check_site(headers, uri)?;
    // Both values come from the sender, so the time of the comparison reveals nothing.
    match Token::of(headers) {
        Some(own) if own.as_str() == token => Ok(()),
        _ => Err(Foreign::Token),
    }
}

/// Checks that the browser sent a request for a page of this server.
fn check_site(headers: &HeaderMap, uri: &Uri) -> Result<(), Foreign> {
    // Scripts cannot set this header. Browsers send it over HTTPS and to the local machine.
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return if site == "same-origin" { Ok(()) } else { Err(Foreign::Site) };
    }
    let origin = headers.get(ORIGIN).ok_or(Foreign::Unknown)?;
    // The host of an HTTP/2 request is part of its URI.
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.or_else(|| headers.get(HOST)?.to_str().ok()).ok_or(Foreign::Unknown)?;
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match origin {
        Some((_, origin)) if origin.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Foreign::Site),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn form_is_accepted_from_the_page_itself_with_the_token_of_the_browser() {
        let token = Token::new().unwrap();
        assert_ne!(token, Token::new().unwrap());
        let uri: Uri = "/page/instance".parse().unwrap();
        let encrypted: Uri = "https://h:8761/page/instance".parse().unwrap();
        for (uri, secure) in [(&uri, false), (&encrypted, true)] {
            assert_eq!(token.cookie(uri).to_str().unwrap().ends_with("; Secure"), secure);
        }
        let cookie = token.cookie(&uri).to_str().unwrap().split(';').next().unwrap().to_owned();
        for (origin, site, expected) in [
            (Some("http://h:8761"), None, Ok(())),
            (Some("https://H:8761"), None, Ok(())),
            (None, Some("same-origin"), Ok(())),
            (Some("https://proxied"), Some("same-origin"), Ok(())),
            (Some("http://h:8761"), Some("cross-site"), Err(Foreign::Site)),
            (None, Some("same-site"), Err(Foreign::Site)),
            (None, Some("none"), Err(Foreign::Site)),
            (Some("http://evil:8761"), None, Err(Foreign::Site)),
            (Some("http://h:8761.evil"), None, Err(Foreign::Site)),
            (Some("http://h"), None, Err(Foreign::Site)),
            (Some("null"), None, Err(Foreign::Site)),
            (None, None, Err(Foreign::Unknown)),
        ] {
            let mut sent = headers(&[("host", "h:8761"), ("cookie", &format!("a=b; {cookie}; c=d"))]);
            origin.map(|origin| sent.insert(ORIGIN, origin.parse().unwrap()));
            site.map(|site| sent.insert(SEC_FETCH_SITE, site.parse().unwrap()));
            assert_eq!(check(&sent, &uri, token.as_str()), expected, "{origin:?} {site:?}");
        }
    }

    #[test]
    fn form_without_the_token_of_the_browser_is_refused() {
        let (token, other) = (Token::new().unwrap(), Token::new().unwrap());
        let uri: Uri = "/page/instance".parse().unwrap();
        let cookie = |value: &str| format!("{COOKIE_NAME}={value}");
        for (cookie, sent) in [
            (cookie(token.as_str()), ""),
            (cookie(token.as_str()), other.as_str()),
            (cookie(""), ""),
            (cookie("x"), "x"),
            (String::new(), token.as_str()),
            (format!("not-{COOKIE_NAME}={}", token.as_str()), token.as_str()),
        ] {
            let headers = headers(&[("sec-fetch-site", "same-origin"), ("cookie", &cookie)]);
            assert_eq!(check(&headers, &uri, sent), Err(Foreign::Token), "{cookie} {sent}");
        }
    }
}
