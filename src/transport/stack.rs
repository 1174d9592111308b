use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderName, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::client::legacy::connect::HttpInfo;
use tokio::time::{Instant, timeout};
use tower::util::{BoxCloneSyncService, MapErr, MapResponse};
use tower::{BoxError, Service, ServiceExt};
use tower_http::follow_redirect::policy::{self, Action, Attempt};
use tower_http::follow_redirect::{FollowRedirect, RequestUri};

use super::authorize::{Authorizer, ProxyAuthorization};
use super::body::{BodyReader, Fault, ListBody, ReceivedBody};
use super::errors::SendError;
#[cfg(all(feature = "access", feature = "peers"))]
use super::errors::without_secrets;
use super::request::RequestBody;
use super::response::{Responder, ServerResponse};
use super::server_clock::ResponseDate;
#[cfg(feature = "peers")]
use super::server_clock::ServerClock;
use super::session::Sessions;
use crate::config::ClientConfig;
use crate::connect::{Connector, Names, is_rejected_handshake, port_of};
use crate::panics::catch_panic;
use crate::sync::Mutex;
use crate::time::Moment;

/// Number of received bytes that are processed at once.
const BATCH: usize = 64 * 1024;

type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
type Bottom = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, BoxError>;

/// Times at which the parts of a successful response arrived.
#[derive(Debug, Default)]
pub(super) struct Receipt(Mutex<Option<(Instant, Instant)>>);

impl Receipt {
    /// Returns the time of the head and that of the latest part. `None` before the head.
    pub(super) fn get(&self) -> Option<(Instant, Instant)> {
        *self.0.lock()
    }

    /// Records the head of a successful response.
    fn record(&self) {
        let now = Instant::now();
        *self.0.lock() = Some((now, now));
    }

    /// Records a piece of the body, if the response is successful.
    fn record_piece(&self) {
        if let Some((_, latest)) = &mut *self.0.lock() {
            *latest = Instant::now();
        }
    }
}

/// HTTP client of one transport: sends one request and returns one complete response, within limits
/// of time and size.
///
/// ```text
///  credentials ─ BodyReader ─ FollowRedirect ─ hyper with sessions, or the user's service
/// ```
#[derive(Clone, Debug)]
pub(crate) struct HttpStack {
    service: Bottom,
    head_timeout: Duration,
    read_timeout: Duration,
    body_limit: usize,
    authorizer: Authorizer,
    /// Look-ups of host names; `None` above a service of the user, which may resolve them
    /// differently.
    names: Option<Arc<Names>>,
    /// Connections of hyper; `None` above a service of the user.
    sessions: Option<Sessions>,
    /// Clock that is measured by the responses.
    #[cfg(feature = "peers")]
    server_clock: Option<Arc<ServerClock>>,
}

impl HttpStack {
    /// Creates a stack over hyper with a connection pool of its own.
    pub(crate) fn hyper(config: &ClientConfig) -> Self {
        let connector =
            Connector::new(config.connect_timeout, &config.tls).names(&config.names).through(&config.proxies);
        let sessions = Sessions::new(connector, config.idle_timeout);
        let hyper = ProxyAuthorization::new(sessions.clone(), &config.proxies);
        Self { names: Some(config.names.clone()), sessions: Some(sessions), ..Self::over(hyper, config) }
    }

    /// Creates a stack over any HTTP service.
    pub(crate) fn over<S, B>(bottom: S, config: &ClientConfig) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let bottom = MapErr::new(bottom, Into::into as fn(S::Error) -> BoxError);
        let authorizer = Authorizer::new(config);
        let redirected =
            FollowRedirect::with_policy(bottom, Redirects::new(authorizer.header_names(), config.leaves_host));
        let boxed = MapResponse::new(redirected, |response: Response<_>| {
            response.map(|body| UnsyncBoxBody::new(BodyExt::map_err(body, Into::<BoxError>::into)))
        });
        Self {
            service: BoxCloneSyncService::new(boxed),
            head_timeout: config.connect_timeout.saturating_add(config.read_timeout),
            read_timeout: config.read_timeout,
            body_limit: config.body_limit,
            authorizer,
            names: None,
            sessions: None,
            #[cfg(feature = "peers")]
            server_clock: None,
        }
    }

    /// Measures the clock of the server by the responses. The stack must be used for one server
    /// only.
    #[cfg(feature = "peers")]
    pub(crate) fn with_server_clock(self, clock: Arc<ServerClock>) -> Self {
        Self { server_clock: Some(clock), ..self }
    }

    /// Returns the look-ups of host names. `None` above a service of the user, which may resolve
    /// them differently.
    pub(super) fn names(&self) -> Option<&Names> {
        self.names.as_deref()
    }

    /// Closes the idle connections.
    pub(super) fn close_connections(&self) {
        if let Some(sessions) = &self.sessions {
            sessions.clear();
        }
    }

    /// Returns the same stack with a maximum size of a response body, if that is smaller.
    #[cfg(feature = "peers")]
    pub(crate) fn with_max_body(mut self, bytes: usize) -> Self {
        self.body_limit = self.body_limit.min(bytes);
        self
    }

    /// Returns the same stack with shorter timeouts: each is at most this time.
    pub(super) fn with_timeout(&self, max: Duration) -> Self {
        let bound = |timeout: Duration| timeout.min(max);
        Self { head_timeout: bound(self.head_timeout), read_timeout: bound(self.read_timeout), ..self.clone() }
    }

    /// Sends one request with its credentials and reads the complete response. A panic of the
    /// bottom service is returned as an error.
    ///
    /// A bearer token that the server rejects is renewed once, and the request is sent again. While
    /// renewed tokens are rejected as well, they are renewed after ever longer pauses.
    ///
    /// A successful response to a request for a `list` is decoded while it arrives. Its parts are
    /// recorded in `receipt`.
    pub(super) async fn exchange(
        &self,
        mut request: Request<RequestBody>,
        list: Option<&ListBody>,
        receipt: &Receipt,
    ) -> Result<ServerResponse, SendError> {
        let bound = self.head_timeout;
        let token = self.authorizer.authorize(&mut request, bound).await.map_err(SendError::Token)?;
        let Some(token) = token else { return self.caught(request, list, receipt).await };
        let mut again = request.clone();
        let response = self.caught(request, list, receipt).await?;
        // A server to which the request was redirected did not receive the token.
        let is_first = response.responder.authority.as_ref().is_none_or(|host| Some(host) == again.uri().authority());
        if response.status != StatusCode::UNAUTHORIZED || !is_first {
            // A proxy may fail before the token is verified.
            if is_first && !response.status.is_server_error() {
                self.authorizer.accept().await;
            }
            return Ok(response);
        }
        match self.authorizer.renew(&token, bound).await.map_err(SendError::Token)? {
            None => Ok(response),
            Some(renewed) => {
                again.headers_mut().insert(header::AUTHORIZATION, renewed.clone());
                let response = self.caught(again, list, receipt).await?;
                match response.status {
                    StatusCode::UNAUTHORIZED => self.authorizer.refuse(&renewed).await,
                    status if !status.is_server_error() => self.authorizer.accept().await,
                    _ => {}
                }
                Ok(response)
            }
        }
    }

    /// Fetches a document that is no resource of a registry. Redirects are those of the stack.
    ///
    /// # Errors
    /// Returns the cause for a log line, also for a response without success.
    #[cfg(all(feature = "access", feature = "peers"))]
    pub(crate) async fn document(&self, url: &Uri) -> Result<Bytes, String> {
        let request = Request::get(url).header(header::ACCEPT, "application/json");
        let request = request.body(RequestBody::default()).map_err(|error| error.to_string())?;
        match self.exchange(request, None, &Receipt::default()).await {
            Ok(response) if response.status.is_success() => Ok(response.body),
            Ok(response) => {
                let location = response.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
                Err(match location.filter(|_| response.status.is_redirection()) {
                    Some(location) => format!(
                        "the response is {}, a redirect to {} that is not followed",
                        response.status,
                        crate::untrusted::Excerpt(without_secrets(location))
                    ),
                    None => format!("the response is {}", response.status),
                })
            }
            Err(error) => Err(crate::untrusted::Sanitized(error.cause()).to_string()),
        }
    }

    async fn caught(
        &self,
        request: Request<RequestBody>,
        list: Option<&ListBody>,
        receipt: &Receipt,
    ) -> Result<ServerResponse, SendError> {
        catch_panic(self.send(request, list, receipt))
            .await
            .unwrap_or_else(|panicked| Err(SendError::Panicked(panicked)))
    }

    async fn send(
        &self,
        request: Request<RequestBody>,
        list: Option<&ListBody>,
        receipt: &Receipt,
    ) -> Result<ServerResponse, SendError> {
        let requested = Moment::now();
        let response = timeout(self.head_timeout, self.service.clone().oneshot(request))
            .await
            .map_err(|_| SendError::Timeout("no response", self.head_timeout))?
            .map_err(|error| SendError::Service { connecting: is_connect(&error), error })?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            receipt.record();
        }
        let date = ResponseDate::of(head.status, &head.headers, &requested);
        #[cfg(feature = "peers")]
        if let Some((clock, date)) = self.server_clock.as_ref().zip(date) {
            clock.add(date);
        }
        let mut received = 0;
        let authority = head.extensions.get::<RequestUri>().and_then(|uri| uri.0.authority().cloned());
        let responder = Responder { authority, address: head.extensions.get::<HttpInfo>().map(HttpInfo::remote_addr) };
        let reader = match list.filter(|_| head.status.is_success()) {
            Some(list) => BodyReader::decoding(list, self.body_limit),
            None => BodyReader::collecting(self.body_limit),
        };
        // A large body may take longer than the head, but not forever.
        let body_timeout = self.read_timeout.saturating_mul(8);
        let read = timeout(body_timeout, self.read(body, reader, (&mut received, receipt)))
            .await
            .map_err(|_| SendError::Timeout("the body did not end", body_timeout))?;
        let ReceivedBody { bytes: body, list } = match read {
            Ok(received) => received,
            Err(Fault::List(error)) => ReceivedBody { bytes: Bytes::new(), list: Some(Err(error)) },
            Err(Fault::Other(error)) => return Err(error),
        };
        Ok(ServerResponse {
            status: head.status,
            headers: head.headers,
            body,
            list,
            received,
            requested,
            date,
            responder,
        })
    }

    /// Reads a body. Pieces are collected until it is worth to process them on another thread.
    ///
    /// Adds the bytes as they arrive to `received`, and records the times of the pieces.
    async fn read(
        &self,
        mut body: ResponseBody,
        mut reader: BodyReader,
        (received, receipt): (&mut u64, &Receipt),
    ) -> Result<ReceivedBody, Fault> {
        let (mut pieces, mut size) = (Vec::new(), 0);
        loop {
            let frame = timeout(self.read_timeout, body.frame())
                .await
                .map_err(|_| Fault::Other(SendError::Timeout("the body stopped", self.read_timeout)))?;
            match frame {
                None => break,
                Some(Ok(frame)) => {
                    let piece = frame.into_data().unwrap_or_default();
                    receipt.record_piece();
                    size += piece.len();
                    *received += piece.len() as u64;
                    pieces.push(piece);
                }
                Some(Err(error)) => return Err(Fault::Other(SendError::Read(error))),
            }
            if size >= BATCH {
                reader = read_pieces(reader, std::mem::take(&mut pieces)).await?;
                size = 0;
            }
        }
        let reader = read_pieces(reader, pieces).await?;
        caught(reader.finish()).await
    }
}

async fn read_pieces(reader: BodyReader, pieces: Vec<Bytes>) -> Result<BodyReader, Fault> {
    caught(reader.push(pieces)).await
}

/// Returns a panic of the decoder as an error.
async fn caught<T>(reading: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    catch_panic(reading).await.unwrap_or_else(|panicked| Err(Fault::Other(SendError::DecoderPanicked(panicked))))
}

fn is_connect(error: &BoxError) -> bool {
    let rejected = is_rejected_handshake(&**error);
    // The error of a user's service, if nothing wraps it.
    let refused = error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    rejected || refused || error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|e| e.is_connect())
}

/// Policy that follows up to five redirects and sends credentials to the first host only, the
/// user's own headers included.
///
/// A redirect of a write is followed only if the status preserves method and body (307, 308). Other
/// statuses would turn the write into a GET. Without `leaves_host`, a redirect to another host,
/// port or scheme is not followed.
#[derive(Clone)]
struct Redirects {
    limit: policy::Limited,
    credentials: policy::FilterCredentials,
    own_headers: Arc<[HeaderName]>,
    leaves_host: bool,
    left_origin: bool,
    is_get: bool,
}

impl Redirects {
    fn new(own_headers: Arc<[HeaderName]>, leaves_host: bool) -> Self {
        let (limit, credentials) = (policy::Limited::new(5), policy::FilterCredentials::new());
        Self { limit, credentials, own_headers, leaves_host, left_origin: false, is_get: true }
    }
}

impl<E> policy::Policy<RequestBody, E> for Redirects {
    fn redirect(&mut self, attempt: &Attempt<'_>) -> Result<Action, E> {
        let keeps = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !self.is_get && !keeps {
            return Ok(Action::Stop);
        }
        self.left_origin |= origin(attempt.previous()) != origin(attempt.location());
        if self.left_origin && !self.leaves_host {
            return Ok(Action::Stop);
        }
        let _: Action = policy::Policy::<RequestBody, E>::redirect(&mut self.credentials, attempt)?;
        policy::Policy::<RequestBody, E>::redirect(&mut self.limit, attempt)
    }

    fn on_request(&mut self, request: &mut Request<RequestBody>) {
        self.is_get = request.method() == http::Method::GET;
        policy::Policy::<RequestBody, E>::on_request(&mut self.credentials, request);
        if self.left_origin {
            for name in &*self.own_headers {
                request.headers_mut().remove(name);
            }
        }
    }

    fn clone_body(&self, body: &RequestBody) -> Option<RequestBody> {
        Some(body.clone())
    }
}

/// Returns the scheme, host and port of a URI.
fn origin(uri: &Uri) -> (Option<&Scheme>, Option<&str>, u16) {
    (uri.scheme(), uri.host(), port_of(uri))
}
