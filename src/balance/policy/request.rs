//! What policies read of a request, whatever its type.

use std::fmt::Debug;

use http::header::{COOKIE, HeaderMap, HeaderName};
use http::request::Parts;

/// A request with headers: whole, or without its body.
pub trait Head: sealed::Sealed {
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

/// Where in a request a value is found.
pub trait Select<Req: ?Sized>: Send + Sync {
    /// Never an empty one.
    fn select<'r>(&'r self, request: &'r Req) -> Option<&'r str>;
}

/// A closure finds it.
impl<Req: ?Sized, F> Select<Req> for F
where
    F: Fn(&Req) -> Option<&str> + Send + Sync,
{
    fn select<'r>(&'r self, request: &'r Req) -> Option<&'r str> {
        self(request).filter(|value| !value.is_empty())
    }
}

/// A value in a header of the request. An empty one is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromHeader(HeaderName);

impl FromHeader {
    pub(super) fn new<N>(name: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: Debug,
    {
        Self(name.try_into().expect("the caller gives the name of a header, as documented"))
    }

    pub(super) fn from_static(name: &'static str) -> Self {
        Self(HeaderName::from_static(name))
    }

    /// The bytes, which need not be text.
    pub(super) fn bytes<'r>(&self, request: &'r impl Head) -> Option<&'r [u8]> {
        request.headers().get(&self.0).map(|value| value.as_bytes()).filter(|value| !value.is_empty())
    }
}

impl<Req: Head> Select<Req> for FromHeader {
    fn select<'r>(&'r self, request: &'r Req) -> Option<&'r str> {
        std::str::from_utf8(self.bytes(request)?).ok()
    }
}

/// A value in a cookie of the request. An empty one is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromCookie(Box<str>);

impl FromCookie {
    pub(super) fn new(name: impl Into<Box<str>>) -> Self {
        Self(name.into())
    }
}

impl<Req: Head> Select<Req> for FromCookie {
    fn select<'r>(&'r self, request: &'r Req) -> Option<&'r str> {
        // HTTP/2 may split cookies over several headers (RFC 9113, 8.2.3).
        let headers = request.headers().get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies = headers.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        let mut values = cookies.filter(|(name, _)| **name == *self.0).map(|(_, value)| unquote(value));
        values.find(|value| !value.is_empty())
    }
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn finds_a_header_in_a_request_and_in_its_parts() {
        let header = FromHeader::new("X-Tenant");
        let found = request(&[("x-tenant", "blue")]);
        assert_eq!(header.select(&found), Some("blue"));
        assert_eq!(header.select(&found.into_parts().0), Some("blue"));
        assert_eq!(header.select(&request(&[("x-tenant", "")])), None);
        assert_eq!(header.select(&request(&[])), None);
    }

    #[test]
    fn finds_a_cookie_among_others() {
        let cookie = FromCookie::new("id");
        let select = |headers: &[(&str, &str)]| cookie.select(&request(headers)).map(str::to_owned);
        assert_eq!(select(&[("cookie", "a=1; id=host:app:80; b=2")]).as_deref(), Some("host:app:80"));
        assert_eq!(select(&[("cookie", "a=1"), ("cookie", "id=\"x=y\"")]).as_deref(), Some("x=y"));
        assert_eq!(select(&[("cookie", "xid=1; id; id=; idx=2")]), None);
        assert_eq!(select(&[]), None);
    }

    #[test]
    fn finds_what_a_closure_finds() {
        fn select<'r>(select: &'r impl Select<Request<()>>, request: &'r Request<()>) -> Option<&'r str> {
            select.select(request)
        }
        fn tenant(request: &Request<()>) -> Option<&str> {
            request.uri().path().strip_prefix("/tenants/")
        }
        let at = |uri: &str| Request::get(uri).body(()).unwrap();
        assert_eq!(select(&tenant, &at("/tenants/blue")), Some("blue"));
        assert_eq!(select(&tenant, &at("/tenants/")), None);
    }

    #[test]
    #[should_panic(expected = "name of a header")]
    fn a_name_that_is_none_panics() {
        FromHeader::new("no header");
    }
}
