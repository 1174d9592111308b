//! Options of the requests of attempts: headers that depend on the instance, and the hook.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{COOKIE, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Request};
use tower::BoxError;
use tracing::debug;

use super::CallOptions;
use crate::balance::INSTANCE_COOKIE;
use crate::client::picked::PickedInstance;
use crate::client::routes::is_secure;
use crate::untrusted::Quoted;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

type OnAttempt = dyn Fn(&PickedInstance, &mut Parts) -> Result<(), BoxError> + Send + Sync;

/// Address of the client on whose behalf a call is made, as an extension of its request.
///
/// With [`CallOptions::x_forwarded`], instances receive it in `X-Forwarded-For`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedFor(pub IpAddr);

/// Options of the requests of attempts.
#[derive(Clone, Default)]
pub(in crate::client) struct AttemptOptions {
    on_attempt: Option<Arc<OnAttempt>>,
    x_forwarded: bool,
    instance_cookie: bool,
    cookie_name: Option<Arc<str>>,
}

impl CallOptions {
    /// Sets a hook that is called for each attempt, after its instance was picked and before its
    /// request is sent. Defaults to none.
    ///
    /// The hook may change the head of the request: add headers that depend on the instance, or
    /// sign it. All other headers are set before, except for the `host` of HTTP/1.1 with
    /// [`HostHeader::Instance`](super::HostHeader::Instance), which has the value of
    /// [`authority`](PickedInstance::authority) without a default port. The host of the URI is the
    /// address of the instance, and the hook must not change it.
    ///
    /// An error of the hook ends the call with [`ErrorKind::Hook`](crate::ErrorKind::Hook). Nothing
    /// is sent then, and the instance is not blamed.
    /// The hook runs within the task of the caller, so it must not block.
    ///
    /// ```
    /// use http::HeaderValue;
    /// use tower_eureka::client::CallOptions;
    ///
    /// let options = CallOptions::new().on_attempt(|picked, request| {
    ///     if let Some(tenant) = picked.instance().metadata().get("tenant") {
    ///         request.headers.insert("x-tenant", HeaderValue::from_str(tenant)?);
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn on_attempt<F>(mut self, hook: F) -> Self
    where
        F: Fn(&PickedInstance, &mut Parts) -> Result<(), BoxError> + Send + Sync + 'static,
    {
        self.attempts.on_attempt = Some(Arc::new(hook));
        self
    }

    /// Sets whether instances receive the host and scheme of the caller's request in
    /// `X-Forwarded-Host` and `X-Forwarded-Proto`. Defaults to `false`.
    ///
    /// The host is that of the `host` header of the request, else the name that is called. If the
    /// request has the extension [`ForwardedFor`], instances receive `X-Forwarded-For` as well.
    /// Values are added after those that the request has, so a gateway on the edge removes these
    /// headers from the requests of its clients before.
    pub fn x_forwarded(mut self, enabled: bool) -> Self {
        self.attempts.x_forwarded = enabled;
        self
    }

    /// Sets whether instances receive their id in a cookie, as with Spring's
    /// `add-service-instance-cookie`. Defaults to `false`.
    ///
    /// An instance that keeps sessions returns the cookie to its client, and
    /// [`Sticky`](crate::balance::Sticky) sends further requests of that client to the same
    /// instance. A gateway may set the cookie of its responses itself, to the
    /// [`endpoint`](PickedInstance::endpoint) of the [`PickedInstance`] in their extensions.
    ///
    /// A cookie with this name in the request is replaced. An id that no cookie can contain, with
    /// blanks for example, is not sent.
    pub fn instance_cookie(mut self, enabled: bool) -> Self {
        self.attempts.instance_cookie = enabled;
        self
    }

    /// Sets the name of the [`instance_cookie`](Self::instance_cookie). Defaults to
    /// `sc-lb-instance-id`, as in [`Sticky::default`](crate::balance::Sticky::default).
    pub fn instance_cookie_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.attempts.cookie_name = Some(name.into());
        self
    }
}

impl AttemptOptions {
    /// Returns `true` if requests are sent as they are.
    pub(in crate::client) fn is_empty(&self) -> bool {
        self.on_attempt.is_none() && !self.x_forwarded && !self.instance_cookie
    }

    /// Returns `true` if the hook may read the extensions of the request.
    pub(in crate::client) fn has_hook(&self) -> bool {
        self.on_attempt.is_some()
    }

    /// Writes the headers for the instance, and calls the hook. Fails with the error of the hook.
    pub(in crate::client) fn apply<B>(
        &self,
        picked: &PickedInstance,
        original: &Parts,
        request: Request<B>,
    ) -> Result<Request<B>, BoxError> {
        let (mut parts, body) = request.into_parts();
        if self.x_forwarded {
            write_forwarded(original, &mut parts);
        }
        if self.instance_cookie {
            write_cookie(self.cookie_name.as_deref().unwrap_or(INSTANCE_COOKIE), picked.endpoint(), &mut parts);
        }
        if let Some(hook) = &self.on_attempt {
            hook(picked, &mut parts)?;
        }
        Ok(Request::from_parts(parts, body))
    }
}

fn write_forwarded(original: &Parts, parts: &mut Parts) {
    if let Some(ForwardedFor(client)) = original.extensions.get() {
        let client = HeaderValue::try_from(client.to_string()).expect("IP address is a valid header value");
        parts.headers.append(X_FORWARDED_FOR, client);
    }
    if let Some(host) = crate::client::call::original_host(original) {
        parts.headers.append(X_FORWARDED_HOST, host);
    }
    let proto = if is_secure(&original.uri) == Some(true) { "https" } else { "http" };
    parts.headers.append(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
}

/// Adds a cookie to those of the request, in one header.
fn write_cookie(name: &str, id: &str, parts: &mut Parts) {
    // RFC 6265, section 4.1.1.
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
    if !id.bytes().all(is_allowed) {
        debug!(instance = %Quoted(id), "instance cookie not sent, since no cookie can contain the id");
        return;
    }
    let mut cookies = Vec::new();
    for value in parts.headers.get_all(COOKIE) {
        let others = value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        for cookie in others.filter(|cookie| !cookie.is_empty() && !has_name(cookie, name)) {
            cookies.extend_from_slice(cookie);
            cookies.extend_from_slice(b"; ");
        }
    }
    cookies.extend_from_slice(name.as_bytes());
    cookies.push(b'=');
    cookies.extend_from_slice(id.as_bytes());
    match HeaderValue::from_bytes(&cookies) {
        Ok(cookies) => _ = parts.headers.insert(COOKIE, cookies),
        Err(_) => debug!(name = %Quoted(name), "instance cookie not sent, since its name is invalid"),
    }
}

fn has_name(cookie: &[u8], name: &str) -> bool {
    let end = cookie.iter().position(|byte| *byte == b'=').unwrap_or(cookie.len());
    cookie[..end].trim_ascii_end() == name.as_bytes()
}

impl fmt::Debug for AttemptOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptOptions")
            .field("on_attempt", &self.on_attempt.is_some())
            .field("x_forwarded", &self.x_forwarded)
            .field("instance_cookie", &self.instance_cookie)
            .field("instance_cookie_name", &self.cookie_name)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let request = Request::get("http://orders/1");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn values(parts: &Parts, name: HeaderName) -> Vec<&str> {
        parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn cookie_of_the_instance_replaces_one_with_its_name() {
        for (cookies, expected) in [
            (&[][..], &["id=host:orders:80"][..]),
            (&[("cookie", "a=1; b=2")], &["a=1; b=2; id=host:orders:80"]),
            (&[("cookie", "id=gone; a=1;"), ("cookie", "ida=3")], &["a=1; ida=3; id=host:orders:80"]),
        ] {
            let mut parts = parts(cookies);
            write_cookie("id", "host:orders:80", &mut parts);
            assert_eq!(values(&parts, COOKIE), expected);
        }
    }

    #[test]
    fn id_that_no_cookie_can_contain_is_not_sent() {
        for id in ["a b", "a;b", "a\"b", "ä", "a\n"] {
            let mut parts = parts(&[("cookie", "a=1")]);
            write_cookie("id", id, &mut parts);
            assert_eq!(values(&parts, COOKIE), ["a=1"], "{id:?}");
        }
    }

    #[test]
    fn forwarded_values_follow_those_of_the_request() {
        let mut original = parts(&[("x-forwarded-host", "edge"), ("host", "shop.example:8443")]);
        original.extensions.insert(ForwardedFor(IpAddr::from([192, 0, 2, 1])));
        let mut sent = original.clone();
        write_forwarded(&original, &mut sent);
        assert_eq!(values(&sent, X_FORWARDED_HOST), ["edge", "shop.example:8443"]);
        assert_eq!(values(&sent, X_FORWARDED_PROTO), ["http"]);
        assert_eq!(values(&sent, X_FORWARDED_FOR), ["192.0.2.1"]);
        let mut original = parts(&[]);
        original.uri = "wss://orders/chat".parse().unwrap();
        let mut sent = original.clone();
        write_forwarded(&original, &mut sent);
        assert_eq!(values(&sent, X_FORWARDED_HOST), ["orders"]);
        assert_eq!(values(&sent, X_FORWARDED_PROTO), ["https"]);
        assert!(!sent.headers.contains_key(X_FORWARDED_FOR));
    }
}
