//! Calls by name through reqwest.
//!
//! ```text
//! RequestBuilder ─▶ Client ─▶ EurekaService ─ address ─▶ the user's reqwest::Client
//! ```

mod builder;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::reqwest::ResponseBuilderExt;
use http::{Extensions, Method, Response};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::Eureka;
use crate::balance::Snapshot;
use crate::client::{
    AttemptBody, CallOptions, Chosen, EurekaLayer, EurekaService, Fallback, InstanceService, RequestHead,
    ResponseFuture, SharedBody, without_lb,
};
use crate::connect::root_cause;
use crate::error::{Error, Kind};

pub use self::builder::RequestBuilder;

type Request = http::Request<AttemptBody<::reqwest::Body>>;
type FallbackService = BoxCloneSyncService<Request, Response<::reqwest::Body>, BoxError>;

/// reqwest client that calls applications by name: `http://orders/v1/42`.
///
/// Wraps a [`reqwest::Client`], which provides connections, TLS, redirects, cookies and timeouts.
/// Names, choice of the instance, ejection and retries are those of an [`EurekaLayer`]. Requests
/// are built by [`get`](Self::get) and the like, since the `send` of the wrapped client does not
/// resolve names.
///
/// ```no_run
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "http://localhost:8761/eureka/";
/// let eureka = tower_eureka::Eureka::builder().service_url(url).build()?;
/// let client = tower_eureka::reqwest::Client::new(&eureka, reqwest::Client::new());
///
/// let order = serde_json::json!({ "item": "book" });
/// let response =
///     client.post("http://orders/v1").json(&order).timeout(Duration::from_secs(5)).send().await?;
/// println!("{}", response.error_for_status()?.text().await?);
/// # Ok(())
/// # }
/// ```
///
/// A redirect with status 307 or 308 of a request with a body is not followed, since the wrapped
/// client cannot send the body again. The response with that status is returned.
///
/// The [`PickedInstance`](crate::client::PickedInstance) in the extensions of a response is the
/// instance that sent it.
///
/// With an [`instance_service`](crate::EurekaBuilder::instance_service), calls do not reach the
/// wrapped client. Its redirects, cookies and timeouts have no effect then.
#[derive(Clone)]
pub struct Client {
    service: EurekaService<ReqwestService, FallbackService>,
}

impl Client {
    /// Creates a client that sends requests through `client`, with the options of the settings; see
    /// [`Eureka::call_options`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(eureka: &Eureka, client: ::reqwest::Client) -> Self {
        Self::with_options(eureka, client, eureka.call_options())
    }

    /// Creates a client that sends requests through `client`, with these options.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_options(eureka: &Eureka, client: ::reqwest::Client, options: CallOptions) -> Self {
        let service = EurekaLayer::new(eureka)
            .options(options)
            .layer(ReqwestService { client, instances: eureka.instance_service() });
        Self { service: service.with_fallback(None) }
    }

    /// Replaces the options of this client and its clones, as
    /// [`HttpClient::set_options`](crate::client::HttpClient::set_options) does.
    pub fn set_options(&self, options: CallOptions) {
        self.service.set_options(options);
    }

    /// Changes the options of this client and its clones, as
    /// [`HttpClient::update_options`](crate::client::HttpClient::update_options) does.
    pub fn update_options(&self, change: impl Fn(CallOptions) -> CallOptions) {
        self.service.update_options(change);
    }

    /// Sets a service that handles failed calls, such as a cache or another site. It is called for
    /// calls to applications without an instance; see
    /// [`HttpClient::fallback`](crate::client::HttpClient::fallback) and
    /// [`fallback_on`](Self::fallback_on).
    ///
    /// The service receives the caller's request.
    #[must_use]
    pub fn fallback<F>(self, fallback: F) -> Self
    where
        F: Service<::reqwest::Request, Response = ::reqwest::Response> + Clone + Send + Sync + 'static,
        F::Future: Send + 'static,
        F::Error: Into<BoxError>,
    {
        let service = tower::service_fn(move |request: Request| {
            let fallback = fallback.clone();
            async move {
                let response = fallback.oneshot(from_http(request)?).await;
                Ok::<_, BoxError>(into_http(response.map_err(|error| without_url(error.into()))?))
            }
        });
        let fallback = Fallback::new(BoxCloneSyncService::new(service));
        Self { service: self.service.with_fallback(Some(fallback)) }
    }

    /// Sets the errors for which the [fallback](Self::fallback) is called, as
    /// [`HttpClient::fallback_on`](crate::client::HttpClient::fallback_on) does. Defaults to
    /// calls to applications without an instance.
    #[must_use]
    pub fn fallback_on(self, condition: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        Self { service: self.service.with_condition(Arc::new(condition)) }
    }

    /// Returns the wrapped client. Requests that its own methods send go to hosts, not to
    /// applications.
    pub fn get_ref(&self) -> &::reqwest::Client {
        &self.service.get_ref().client
    }

    /// Starts a GET request: `client.get("http://orders/v1/42").send()`.
    pub fn get(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Starts a POST request.
    pub fn post(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Starts a PUT request.
    pub fn put(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Starts a PATCH request.
    pub fn patch(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Starts a DELETE request.
    pub fn delete(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Starts a HEAD request.
    pub fn head(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// Starts a request with this method.
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> RequestBuilder {
        let request = self.get_ref().request(method, without_lb(url.as_ref()));
        RequestBuilder::new(self.clone(), request)
    }

    /// Sends a request to an instance of the application that its URL names.
    ///
    /// The [timeout](reqwest::Request::timeout) of the request is also the deadline of the call:
    /// it limits all attempts together until the head of the response. reqwest applies it to each
    /// attempt as well, including the response body. [`RequestBuilder::deadline`] and
    /// [`RequestBuilder::wait_for_ready`] set other limits.
    ///
    /// # Errors
    /// If no instance could be called, none responded, the deadline passed, or the URL does not
    /// name an application. A response with an error status is not an error.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn execute(&self, request: ::reqwest::Request) -> Result<::reqwest::Response, Error> {
        self.execute_with(request, Extensions::new()).await
    }

    async fn execute_with(
        &self,
        request: ::reqwest::Request,
        extensions: Extensions,
    ) -> Result<::reqwest::Response, Error> {
        let timeout = request.timeout().copied();
        let mut request = http::Request::try_from(request).map_err(invalid)?;
        request.extensions_mut().extend(extensions);
        if let Some(timeout) = timeout {
            let within = crate::client::Deadline::within(timeout);
            let earlier = request.extensions().get().map_or(within, |set| within.min(*set));
            request.extensions_mut().insert(earlier);
        }
        let (mut parts, body) = self.service.clone().call(request).await?.into_parts();
        let url = parts.extensions.remove::<FinalUrl>();
        let mut response = http::response::Builder::new();
        if let Some(FinalUrl(url)) = url {
            response = response.url(url);
        }
        let mut response = response.body(::reqwest::Body::wrap(body)).expect("builder without parsed parts is valid");
        *response.status_mut() = parts.status;
        *response.version_mut() = parts.version;
        *response.headers_mut() = parts.headers;
        response.extensions_mut().extend(parts.extensions);
        Ok(response.into())
    }

    /// Chooses an instance of an application as [`Eureka::choose`] does, with the options,
    /// instances and measurements of this client.
    pub fn choose(&self, name: impl AsRef<str>, request: &impl RequestHead) -> ResponseFuture<Chosen> {
        self.service.choose(name, request)
    }

    /// Returns a snapshot of the instances of each application that was called.
    ///
    /// Each snapshot displays as a table.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.service.snapshots()
    }
}

/// Error of a request that cannot be built. It does not contain the URL, which may hold secrets.
fn invalid(error: ::reqwest::Error) -> Error {
    let error = error.without_url();
    let cause = format!("invalid HTTP request: {}", root_cause(&error));
    Error::new(Kind::Config, "call").cause(cause).with_source(error)
}

/// Converts a request for the wrapped client. The error does not contain its URL.
fn from_http(request: Request) -> Result<::reqwest::Request, ::reqwest::Error> {
    ::reqwest::Request::try_from(request.map(::reqwest::Body::wrap)).map_err(::reqwest::Error::without_url)
}

/// Converts a response of the wrapped client, and keeps its URL.
fn into_http(response: ::reqwest::Response) -> Response<::reqwest::Body> {
    let final_url = FinalUrl(response.url().clone());
    let mut response = Response::from(response);
    response.extensions_mut().insert(final_url);
    response
}

impl Service<::reqwest::Request> for Client {
    type Response = ::reqwest::Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<::reqwest::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::reqwest::Request) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.execute(request).await })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("service", &self.service).finish()
    }
}

/// URL of the response, after redirects.
#[derive(Clone)]
struct FinalUrl(::reqwest::Url);

/// Wraps an error, without its URL. A failed connection after a redirect says nothing about the
/// instance, which had received the request.
fn wrap_error(error: ::reqwest::Error, sent_to: &::reqwest::Url) -> BoxError {
    let is_same_host =
        error.url().is_none_or(|url| (url.host_str(), url.port()) == (sent_to.host_str(), sent_to.port()));
    let error = error.without_url();
    if is_same_host {
        return error.into();
    }
    let kind = if error.is_timeout() { Kind::Timeout } else { Kind::Call };
    Error::new(kind, "call").cause(format!("the request failed after a redirect: {error}")).into()
}

/// Removes the URL from an error of reqwest.
fn without_url(error: BoxError) -> BoxError {
    error.downcast::<::reqwest::Error>().map_or_else(|other| other, |error| error.without_url().into())
}

/// The user's client as a service over `http` types.
#[derive(Clone)]
struct ReqwestService {
    client: ::reqwest::Client,
    /// Takes the place of the client's connections.
    instances: Option<InstanceService>,
}

/// Sends a request through the service in the place of connections.
async fn send_to_service(instances: InstanceService, request: Request) -> Result<Response<::reqwest::Body>, BoxError> {
    let url = ::reqwest::Url::parse(&request.uri().to_string())?;
    let mut response = instances.send(request).await?.map(|body| ::reqwest::Body::wrap(SharedBody::from(body)));
    response.extensions_mut().insert(FinalUrl(url));
    Ok(response)
}

impl Service<Request> for ReqwestService {
    type Response = Response<::reqwest::Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if let Some(instances) = &self.instances {
            return Box::pin(send_to_service(instances.clone(), request));
        }
        let client = self.client.clone();
        Box::pin(async move {
            let request = from_http(request)?;
            let url = request.url().clone();
            Ok(into_http(client.execute(request).await.map_err(|error| wrap_error(error, &url))?))
        })
    }
}
