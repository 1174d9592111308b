//! Keys of requests: the values by which policies choose endpoints.

use std::fmt::Debug;

use http::header::{COOKIE, HeaderMap, HeaderName};
use http::request::Parts;

use crate::balance::stable_hash::{hash, mix};

/// Extracts a key from a request, for [`RendezvousHash`](super::RendezvousHash),
/// [`Sticky`](super::Sticky) and [`ByLabel`](super::ByLabel).
///
/// Implemented by [`FromHeader`], [`FromCookie`] and closures that return `Option<&str>`. A closure
/// that returns a hash is passed to [`RendezvousHash::by`](super::RendezvousHash::by).
///
/// ```
/// use http::Request;
/// use tower_eureka::balance::{ExtractKey, RendezvousHash, RequestKey};
///
/// /// Takes the tenant from a path such as `/tenants/blue/orders`.
/// #[derive(Clone)]
/// struct TenantInPath;
///
/// impl<B> ExtractKey<Request<B>> for TenantInPath {
///     fn extract<'r>(&'r self, request: &'r Request<B>) -> Option<RequestKey<'r>> {
///         let rest = request.uri().path().strip_prefix("/tenants/")?;
///         rest.split('/').next().map(RequestKey::from)
///     }
/// }
///
/// let by_tenant = RendezvousHash::new(TenantInPath);
/// # let _ = by_tenant;
/// ```
pub trait ExtractKey<Req: ?Sized>: Send + Sync {
    /// Returns the key, or `None` if the request has none. An empty key is none as well.
    fn extract<'r>(&'r self, request: &'r Req) -> Option<RequestKey<'r>>;
}

/// Key of a request: text, bytes, or a hash.
///
/// [`Sticky`](super::Sticky) and [`ByLabel`](super::ByLabel) need text and ignore other keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey<'r>(Repr<'r>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repr<'r> {
    Bytes(&'r [u8]),
    Hash(HashKey),
}

impl<'r> RequestKey<'r> {
    /// Returns the key as text, if it is not empty.
    #[inline]
    pub fn as_str(&self) -> Option<&'r str> {
        match self.0 {
            Repr::Bytes(bytes) => std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()),
            Repr::Hash(_) => None,
        }
    }

    /// Returns the hash of the key, if the key is not empty.
    #[inline]
    pub fn to_hash(&self) -> Option<HashKey> {
        match self.0 {
            Repr::Bytes([]) => None,
            Repr::Bytes(bytes) => Some(HashKey::from(bytes)),
            Repr::Hash(hash) => Some(hash),
        }
    }
}

impl<'r> From<&'r str> for RequestKey<'r> {
    fn from(key: &'r str) -> Self {
        Self(Repr::Bytes(key.as_bytes()))
    }
}

impl<'r> From<&'r [u8]> for RequestKey<'r> {
    fn from(key: &'r [u8]) -> Self {
        Self(Repr::Bytes(key))
    }
}

impl From<HashKey> for RequestKey<'_> {
    fn from(key: HashKey) -> Self {
        Self(Repr::Hash(key))
    }
}

/// Hash of a key, made of text, bytes or a number.
///
/// Its value is the same on every machine and in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(pub(super) u64);

impl HashKey {
    pub(crate) fn to_u64(self) -> u64 {
        self.0
    }
}

impl From<&str> for HashKey {
    fn from(key: &str) -> Self {
        Self(hash(key.as_bytes()))
    }
}

impl From<&[u8]> for HashKey {
    fn from(key: &[u8]) -> Self {
        Self(hash(key))
    }
}

impl From<u64> for HashKey {
    fn from(key: u64) -> Self {
        Self(mix(key))
    }
}

impl<Req: ?Sized, F> ExtractKey<Req> for F
where
    F: Fn(&Req) -> Option<&str> + Send + Sync,
{
    fn extract<'r>(&'r self, request: &'r Req) -> Option<RequestKey<'r>> {
        self(request).map(RequestKey::from)
    }
}

/// Closure that returns the hash of a key. Public since
/// [`RendezvousHash::by`](super::RendezvousHash::by) names it.
#[derive(Clone, Copy, Debug)]
pub struct HashFn<F>(pub(super) F);

impl<Req: ?Sized, F> ExtractKey<Req> for HashFn<F>
where
    F: Fn(&Req) -> Option<HashKey> + Send + Sync,
{
    fn extract<'r>(&'r self, request: &'r Req) -> Option<RequestKey<'r>> {
        (self.0)(request).map(RequestKey::from)
    }
}

/// Extracts the value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromHeader(HeaderName);

impl FromHeader {
    /// Creates an extractor for the header with this name.
    ///
    /// # Panics
    ///
    /// Panics if the name is not a valid header name.
    pub fn new<N>(name: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: Debug,
    {
        Self(name.try_into().expect("name of the header is valid"))
    }

    pub(super) fn from_static(name: &'static str) -> Self {
        Self(HeaderName::from_static(name))
    }
}

impl<Req: Head> ExtractKey<Req> for FromHeader {
    fn extract<'r>(&'r self, request: &'r Req) -> Option<RequestKey<'r>> {
        request.headers().get(&self.0).map(|value| RequestKey::from(value.as_bytes()))
    }
}

/// Extracts the value of a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromCookie(Box<str>);

impl FromCookie {
    /// Creates an extractor for the cookie with this name, in the case that the client sends. A
    /// request without the cookie has no key.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self(name.into())
    }
}

impl<Req: Head> ExtractKey<Req> for FromCookie {
    fn extract<'r>(&'r self, request: &'r Req) -> Option<RequestKey<'r>> {
        // HTTP/2 may split cookies over several headers (RFC 9113, section 8.2.3).
        let headers = request.headers().get_all(COOKIE).iter();
        // Another cookie may have bytes that are no text.
        let cookies = headers.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let cookies = cookies.filter_map(|cookie| std::str::from_utf8(cookie).ok()?.trim().split_once('='));
        let mut values = cookies.filter(|(name, _)| **name == *self.0).map(|(_, value)| unquote(value));
        values.find(|value| !value.is_empty()).map(RequestKey::from)
    }
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Request with headers: the whole request, or its head without the body.
pub trait Head: sealed::Sealed {
    /// Returns the headers.
    fn headers(&self) -> &HeaderMap;
}

impl<B> Head for http::Request<B> {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

impl Head for Parts {
    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

mod sealed {
    pub trait Sealed {}

    impl<B> Sealed for http::Request<B> {}

    impl Sealed for http::request::Parts {}
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn text<'r, Req>(key: &'r impl ExtractKey<Req>, request: &'r Req) -> Option<&'r str> {
        key.extract(request).and_then(|key| key.as_str())
    }

    #[test]
    fn header_is_found_in_a_request_and_in_its_parts() {
        let header = FromHeader::new("X-Tenant");
        let found = request(&[("x-tenant", "blue")]);
        assert_eq!(text(&header, &found), Some("blue"));
        assert_eq!(header.extract(&found).and_then(|key| key.to_hash()), Some(HashKey::from("blue")));
        assert_eq!(text(&header, &found.into_parts().0), Some("blue"));
        let empty = request(&[("x-tenant", "")]);
        assert_eq!(text(&header, &empty), None);
        assert_eq!(header.extract(&empty).and_then(|key| key.to_hash()), None);
        assert_eq!(text(&header, &request(&[])), None);
    }

    #[test]
    fn cookie_is_found_among_others() {
        let cookie = FromCookie::new("id");
        let select = |headers: &[(&str, &str)]| text(&cookie, &request(headers)).map(str::to_owned);
        assert_eq!(select(&[("cookie", "a=1; id=host:app:80; b=2")]).as_deref(), Some("host:app:80"));
        assert_eq!(select(&[("cookie", "a=1"), ("cookie", "id=\"x=y\"")]).as_deref(), Some("x=y"));
        assert_eq!(select(&[("cookie", "xid=1; id; id=; idx=2")]), None);
        assert_eq!(select(&[]), None);
        let mut latin1 = request(&[]);
        latin1.headers_mut().insert(COOKIE, HeaderValue::from_bytes(b"name=Andr\xe9; id=x").unwrap());
        assert_eq!(text(&cookie, &latin1), Some("x"));
    }

    #[test]
    fn closure_extracts_text_or_a_hash() {
        fn tenant(request: &Request<()>) -> Option<&str> {
            request.uri().path().strip_prefix("/tenants/")
        }
        let at = |uri: &str| Request::get(uri).body(()).unwrap();
        assert_eq!(text(&tenant, &at("/tenants/blue")), Some("blue"));
        assert_eq!(text(&tenant, &at("/tenants/")), None);
        let hash = HashFn(|_: &Request<()>| Some(HashKey::from(7)));
        let (request, key) = (at("/"), Some(HashKey::from(7)));
        assert_eq!((text(&hash, &request), hash.extract(&request).and_then(|key| key.to_hash())), (None, key));
    }

    #[test]
    #[should_panic(expected = "name of the header is valid")]
    fn invalid_header_name_panics() {
        FromHeader::new("no header");
    }
}
