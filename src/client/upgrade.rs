//! Upgrades by name: WebSockets, and other protocols that begin as HTTP/1.1.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::UPGRADE;
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ResponseBody;
use super::picked::PickedInstance;
use crate::error::{Error, Kind};

/// Connection to an instance that switched to another protocol, such as a WebSocket. Returned by
/// [`HttpClient::upgrade`](super::HttpClient::upgrade).
///
/// The call counts as pending at its instance until the connection is dropped, so that further
/// calls go to instances with fewer connections.
pub struct Upgraded {
    io: TokioIo<hyper::upgrade::Upgraded>,
    response: Response<()>,
    /// Holds the call's place in the balancer.
    _body: ResponseBody,
}

impl Upgraded {
    /// Returns the head of the response, such as `sec-websocket-protocol`.
    ///
    /// Its extensions hold the [`PickedInstance`].
    pub fn response(&self) -> &Response<()> {
        &self.response
    }

    /// Returns the instance at the other end. `None` for a host that is not an application.
    pub fn picked(&self) -> Option<&PickedInstance> {
        self.response.extensions().get()
    }
}

/// Parses the URI of a call by name. Unlike `Uri`, accepts the form `lb:ws://orders/chat` of Spring
/// Cloud Gateway, which is the same as `ws://orders/chat`.
///
/// # Errors
/// If the text is not a URI.
///
/// ```
/// use tower_eureka::client::parse_uri;
///
/// # fn main() -> Result<(), tower_eureka::Error> {
/// assert_eq!(parse_uri("lb:ws://orders/chat")?, "ws://orders/chat");
/// assert_eq!(parse_uri("lb://orders/1")?, "lb://orders/1");
/// # Ok(())
/// # }
/// ```
pub fn parse_uri(text: &str) -> Result<Uri, Error> {
    // The text may contain secrets.
    without_lb(text).parse().map_err(|error: http::uri::InvalidUri| {
        let advice = "write http://orders/path";
        Error::new(Kind::Config, "call").cause(format!("the URI is invalid: {error}")).advice(advice)
    })
}

/// Removes the `lb:` before another scheme.
pub(crate) fn without_lb(text: &str) -> &str {
    match text.split_at_checked(3) {
        Some((lb, rest)) if lb.eq_ignore_ascii_case("lb:") && !rest.starts_with("//") => rest,
        _ => text,
    }
}

/// Replaces `ws` and `wss` by the schemes of HTTP, for hosts that are not applications.
pub(super) fn with_http_scheme<B>(mut request: Request<B>) -> Request<B> {
    let scheme = match request.uri().scheme_str() {
        Some("ws") => Scheme::HTTP,
        Some("wss") => Scheme::HTTPS,
        _ => return request,
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme);
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path form a URI");
    request
}

/// Checks that a request asks for an upgrade.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Error> {
    let invalid = |cause: &str, advice| {
        let app = request.uri().host().unwrap_or_default();
        Err(Error::new(Kind::Config, "upgrade connection to").app(app).cause(cause).advice(advice))
    };
    if !request.headers().contains_key(UPGRADE) {
        let advice = "set the headers connection and upgrade, or let a WebSocket library build the request";
        return invalid("the request has no header upgrade", advice);
    }
    if request.version() != Version::HTTP_11 {
        return invalid("only HTTP/1.1 has upgrades", "send the request as HTTP/1.1");
    }
    Ok(())
}

/// Waits until the connection of a response is free for the other protocol.
pub(super) async fn finish(name: &str, response: Response<ResponseBody>) -> Result<Upgraded, Error> {
    let (parts, body) = response.into_parts();
    let mut response = Response::from_parts(parts, ());
    let failed = |kind, response: &Response<()>| {
        let error = Error::new(kind, "upgrade connection to").app(name);
        match response.extensions().get::<PickedInstance>() {
            Some(picked) => error.instance(picked.id()).server(picked.authority().as_str()),
            None => error,
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let cause = format!("the response has status {status} instead of 101");
        return Err(failed(Kind::Status(status.as_u16()), &response).cause(cause));
    }
    match hyper::upgrade::on(&mut response).await {
        Ok(io) => Ok(Upgraded { io: TokioIo::new(io), response, _body: body }),
        Err(error) => {
            let cause = format!("the connection was lost after the response: {error}");
            Err(failed(Kind::Call, &response).cause(cause).with_source(error))
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("picked", &self.picked()).finish_non_exhaustive()
    }
}
