//! Calls by name through reqwest.
//!
//! ```text
//! reqwest::Request ─▶ Client ─▶ EurekaService ─ address ─▶ the user's reqwest::Client
//! ```

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::reqwest::ResponseBuilderExt;
use http::Response;
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::Eureka;
use crate::client::{AttemptBody, CallOptions, EurekaLayer, EurekaService};
use crate::error::{Error, Kind};

type Request = http::Request<AttemptBody<::reqwest::Body>>;

/// reqwest client that calls applications by name: `http://orders/v1/42`.
///
/// Wraps a [`reqwest::Client`], which provides connections, TLS, redirects,
/// cookies and timeouts. Names, choice of the instance, ejection and retries are those of an
/// [`EurekaLayer`]. Build requests with [`get_ref`](Self::get_ref) and send them with
/// [`execute`](Self::execute), since reqwest's own `send` does not resolve names.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "http://localhost:8761/eureka/";
/// let eureka = tower_eureka::Eureka::builder().service_url(url).build()?;
/// let client = tower_eureka::reqwest::Client::new(&eureka, reqwest::Client::new());
///
/// let request = client.get_ref().get("http://orders/v1/42").build()?;
/// println!("{}", client.execute(request).await?.text().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    service: EurekaService<ReqwestService>,
}

impl Client {
    /// Creates a client that sends requests through `client`, with the default [`CallOptions`].
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
        Self { service: EurekaLayer::new(eureka).options(options).layer(ReqwestService(client)) }
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

    /// Returns the wrapped client, which builds requests.
    pub fn get_ref(&self) -> &::reqwest::Client {
        &self.service.get_ref().0
    }

    /// Sends a request to an instance of the application that its URL names.
    ///
    /// The [timeout](reqwest::Request::timeout) of the request is also the deadline of the call:
    /// it limits all attempts together until the head of the response. reqwest applies it to each
    /// attempt as well, including the response body.
    ///
    /// # Errors
    /// If no instance could be called, none responded, the deadline passed, or the URL does not
    /// name an application. A response with an error status is not an error.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn execute(&self, request: ::reqwest::Request) -> Result<::reqwest::Response, Error> {
        let invalid =
            |error: ::reqwest::Error| Error::new(Kind::Config, "call").cause("invalid HTTP request").with_source(error);
        let timeout = request.timeout().copied();
        let mut request = http::Request::try_from(request).map_err(invalid)?;
        if let Some(timeout) = timeout {
            request.extensions_mut().insert(crate::client::Deadline::within(timeout));
        }
        let (mut parts, body) = self.service.clone().oneshot(request).await?.into_parts();
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

/// Wraps an error. A failure after a redirect says nothing about the instance, which had received
/// the request.
fn wrap_error(error: ::reqwest::Error, sent_to: &::reqwest::Url) -> BoxError {
    let is_same_host =
        error.url().is_none_or(|url| (url.host_str(), url.port()) == (sent_to.host_str(), sent_to.port()));
    if is_same_host {
        return error.into();
    }
    let cause = format!("the request failed after a redirect: {}", error.without_url());
    Error::new(Kind::Call, "call").cause(cause).into()
}

/// The user's client as a service over `http` types.
#[derive(Clone, Debug)]
struct ReqwestService(::reqwest::Client);

impl Service<Request> for ReqwestService {
    type Response = Response<::reqwest::Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let request = ::reqwest::Request::try_from(request.map(::reqwest::Body::wrap))?;
            let url = request.url().clone();
            let response = client.execute(request).await.map_err(|error| wrap_error(error, &url))?;
            let final_url = FinalUrl(response.url().clone());
            let mut response = Response::from(response);
            response.extensions_mut().insert(final_url);
            Ok(response)
        })
    }
}
