use std::net::SocketAddr;
#[cfg(feature = "peers")]
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpInfo;
use tokio::time::timeout;
use tower::util::{BoxCloneSyncService, MapErr, MapResponse};
use tower::{BoxError, Service, ServiceExt};
use tower_http::decompression::Decompression;
use tower_http::follow_redirect::policy::{self, Action, Attempt};
use tower_http::follow_redirect::{FollowRedirect, RequestUri};

#[cfg(feature = "peers")]
use super::dates::ServerClock;
use super::gunzip;
use super::session::Sessions;
use crate::config::ClientConfig;
use crate::connect::{Connector, is_rejected_handshake};
use crate::panics::{Panicked, catch_panic};
use crate::time::{Moment, wall_clock_ms};

/// The body of a request to a registry server.
pub type RequestBody = Full<Bytes>;

type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
type Bottom = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, BoxError>;

/// Everything below the choice of the server: one request out, one bounded response back.
#[derive(Clone, Debug)]
pub(crate) struct HttpStack {
    service: Bottom,
    head_timeout: Duration,
    read_timeout: Duration,
    body_limit: usize,
    /// True if the bottom is ours.
    own: bool,
    /// Reads the dates of the responses.
    #[cfg(feature = "peers")]
    server_clock: Option<Arc<ServerClock>>,
}

/// A whole response, unpacked.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Time at which the request was sent.
    pub(super) requested: Moment,
    /// Origin of the response, as far as it can be seen.
    pub(super) from: From,
}

/// The place behind a service URL that responded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct From {
    /// Host and port after all redirects.
    authority: Option<Authority>,
    /// Address of the connection. Only hyper tells it.
    address: Option<SocketAddr>,
}

impl Answer {
    /// Returns true for a page for people.
    pub(super) fn is_markup(&self) -> bool {
        self.content_type().starts_with("text/html") || self.body.trim_ascii_start().starts_with(b"<")
    }

    pub(super) fn content_type(&self) -> &str {
        self.header(header::CONTENT_TYPE).unwrap_or_default()
    }

    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Time for which the server asks to be left alone, in seconds or as a date. A date is compared
    /// with the server's own clock where the response shows it.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.header(header::RETRY_AFTER)?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = self.header(header::DATE).and_then(date_ms).unwrap_or_else(wall_clock_ms);
        Some(Duration::from_millis(date_ms(text)?.saturating_sub(now).try_into().unwrap_or(0)))
    }
}

/// Reason for which there is no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The bottom service failed; if it is hyper, before or after the connection stood.
    Send { error: BoxError, connecting: bool },
    /// Nothing came for so long.
    Timeout(&'static str, Duration),
    /// The body broke off or cannot be unpacked.
    Read(BoxError),
    /// The body is larger than this when unpacked.
    TooLarge(usize),
    /// The bottom service, which may be the user's, panicked.
    Panicked(Panicked),
}

impl HttpStack {
    /// Over hyper, with its own pool of connections.
    pub(crate) fn hyper(config: &ClientConfig) -> Self {
        let own = Sessions::new(Connector::new(config.connect_timeout, &config.tls));
        Self { own: true, ..Self::over(own, config) }
    }

    /// Over any HTTP service.
    pub(crate) fn over<S, B>(bottom: S, config: &ClientConfig) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let bottom = MapErr::new(bottom, Into::into as fn(S::Error) -> BoxError);
        let redirected = FollowRedirect::with_policy(bottom, Redirects::default());
        let unpacked = Decompression::new(redirected);
        let boxed = MapResponse::new(unpacked, |response: Response<_>| {
            response.map(|body| UnsyncBoxBody::new(BodyExt::map_err(body, Into::<BoxError>::into)))
        });
        Self {
            service: BoxCloneSyncService::new(boxed),
            head_timeout: config.connect_timeout.saturating_add(config.read_timeout),
            read_timeout: config.read_timeout,
            body_limit: config.body_limit,
            own: false,
            #[cfg(feature = "peers")]
            server_clock: None,
        }
    }

    /// The same service for one server, whose clock is read from its responses.
    #[cfg(feature = "peers")]
    pub(crate) fn with_server_clock(self, clock: Arc<ServerClock>) -> Self {
        Self { server_clock: Some(clock), ..self }
    }

    pub(super) fn looks_up_names(&self) -> bool {
        self.own
    }

    /// The same service with no more than this time for a response.
    pub(super) fn hurried(&self, within: Duration) -> Self {
        let bound = |timeout: Duration| timeout.min(within);
        Self { head_timeout: bound(self.head_timeout), read_timeout: bound(self.read_timeout), ..self.clone() }
    }

    /// Sends one request and reads its response to the end, within the bounds of time and size. A
    /// panic of the bottom service is an error of this request.
    pub(super) async fn exchange(&self, request: Request<RequestBody>) -> Result<Answer, Failure> {
        catch_panic(self.send(request)).await.unwrap_or_else(|panicked| Err(Failure::Panicked(panicked)))
    }

    async fn send(&self, request: Request<RequestBody>) -> Result<Answer, Failure> {
        let requested = Moment::now();
        let response = timeout(self.head_timeout, self.service.clone().oneshot(request))
            .await
            .map_err(|_| Failure::Timeout("no answer", self.head_timeout))?
            .map_err(|error| Failure::Send { connecting: is_connect(&error), error })?;
        let (head, body) = response.into_parts();
        #[cfg(feature = "peers")]
        if let Some(clock) = &self.server_clock {
            clock.note(&head.headers, &requested);
        }
        let from = From {
            authority: head.extensions.get::<RequestUri>().and_then(|uri| uri.0.authority().cloned()),
            address: head.extensions.get::<HttpInfo>().map(HttpInfo::remote_addr),
        };
        // A body may take longer than its head, but not for ever.
        let body_timeout = self.read_timeout.saturating_mul(8);
        let body = timeout(body_timeout, self.read(body))
            .await
            .map_err(|_| Failure::Timeout("the body did not end", body_timeout))??;
        let body = gunzip::unpacked(body, self.body_limit).await?;
        Ok(Answer { status: head.status, headers: head.headers, body, requested, from })
    }

    async fn read(&self, body: ResponseBody) -> Result<Bytes, Failure> {
        let mut body = Limited::new(body, self.body_limit);
        let mut bytes = BytesMut::new();
        loop {
            let frame = timeout(self.read_timeout, body.frame())
                .await
                .map_err(|_| Failure::Timeout("the body stopped", self.read_timeout))?;
            match frame {
                None => return Ok(bytes.freeze()),
                Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                    return Err(Failure::TooLarge(self.body_limit));
                }
                Some(Err(error)) => return Err(Failure::Read(error)),
            }
        }
    }
}

/// Milliseconds since the epoch of a date in a header.
pub(super) fn date_ms(text: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    since.as_millis().try_into().ok()
}

fn is_connect(error: &BoxError) -> bool {
    let refused = is_rejected_handshake(&**error);
    refused || error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|e| e.is_connect())
}

/// Follows up to five redirects; credentials stay with the first host.
///
/// A write is followed only where its method and body stay the same (307, 308): the other statuses
/// would turn it into a GET, whose response says nothing of the write.
#[derive(Clone)]
struct Redirects {
    limit: policy::Limited,
    credentials: policy::FilterCredentials,
    is_get: bool,
}

impl Default for Redirects {
    fn default() -> Self {
        let (limit, credentials) = (policy::Limited::new(5), policy::FilterCredentials::new());
        Self { limit, credentials, is_get: true }
    }
}

impl<E> policy::Policy<RequestBody, E> for Redirects {
    fn redirect(&mut self, attempt: &Attempt<'_>) -> Result<Action, E> {
        let keeps = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !self.is_get && !keeps {
            return Ok(Action::Stop);
        }
        let _: Action = policy::Policy::<RequestBody, E>::redirect(&mut self.credentials, attempt)?;
        policy::Policy::<RequestBody, E>::redirect(&mut self.limit, attempt)
    }

    fn on_request(&mut self, request: &mut Request<RequestBody>) {
        self.is_get = request.method() == http::Method::GET;
        policy::Policy::<RequestBody, E>::on_request(&mut self.credentials, request);
    }

    fn clone_body(&self, body: &RequestBody) -> Option<RequestBody> {
        Some(body.clone())
    }
}
