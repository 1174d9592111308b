//! Calls by name through reqwest.
//!
//! ```text
//!  reqwest::Request ─▶ Client ─▶ EurekaService ─ aimed at an instance ─▶ Reqwest ─▶ the user's reqwest::Client
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

/// A [client of reqwest](::reqwest::Client) that calls applications by name: `http://orders/v1/42`.
///
/// Connections, TLS, redirects, cookies and timeouts are those of the client that it was made from; names, the choice of the instance,
/// ejection and further tries are those of an [`EurekaLayer`]. Make requests with [`get_ref`](Self::get_ref) and send them with
/// [`execute`](Self::execute), since reqwest's own `send` knows nothing of names.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let eureka = tower_eureka::Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
/// let client = tower_eureka::reqwest::Client::new(&eureka, reqwest::Client::new());
///
/// let request = client.get_ref().get("http://orders/v1/42").header("accept", "application/json").build()?;
/// println!("{}", client.execute(request).await?.text().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    service: EurekaService<Reqwest>,
}

impl Client {
    /// Calls through `client`, with the default [`CallOptions`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(eureka: &Eureka, client: ::reqwest::Client) -> Self {
        Self::with_options(eureka, client, CallOptions::default())
    }

    /// The same with other options.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_options(eureka: &Eureka, client: ::reqwest::Client, options: CallOptions) -> Self {
        Self { service: EurekaLayer::new(eureka).options(options).layer(Reqwest(client)) }
    }

    /// The client below, to make requests with.
    pub fn get_ref(&self) -> &::reqwest::Client {
        &self.service.get_ref().0
    }

    /// Sends a request to an instance of the application that its URL names.
    ///
    /// # Errors
    /// When no instance could be called or none answered. An answer of whatever status is none.
    ///
    /// # Cancel safety
    /// Dropping it drops the call.
    pub async fn execute(&self, request: ::reqwest::Request) -> Result<::reqwest::Response, Error> {
        let invalid = |error: ::reqwest::Error| {
            Error::new(Kind::Config, "call").cause("this is no HTTP request").with_source(error)
        };
        let timeout = request.timeout().copied();
        let mut request = http::Request::try_from(request).map_err(invalid)?;
        if let Some(timeout) = timeout {
            request.extensions_mut().insert(crate::client::Deadline::within(timeout));
        }
        let (mut parts, body) = self.service.clone().oneshot(request).await?.into_parts();
        let url = parts.extensions.remove::<Asked>();
        let mut response = http::response::Builder::new();
        if let Some(Asked(url)) = url {
            response = response.url(url);
        }
        let mut response = response.body(::reqwest::Body::wrap(body)).expect("nothing of it was parsed");
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

/// Where an answer came from, after redirects.
#[derive(Clone)]
struct Asked(::reqwest::Url);

/// A connection that failed after a redirect says nothing of the instance, which has the request by then.
fn elsewhere(error: ::reqwest::Error, aimed: &::reqwest::Url) -> BoxError {
    let there = error.url().is_none_or(|url| (url.host_str(), url.port()) == (aimed.host_str(), aimed.port()));
    if there {
        return error.into();
    }
    let cause = format!("the request was redirected, and then failed: {}", error.without_url());
    Error::new(Kind::Call, "call").cause(cause).into()
}

/// Reqwest as a service of the vocabulary that the rest of this crate speaks.
#[derive(Clone, Debug)]
struct Reqwest(::reqwest::Client);

impl Service<Request> for Reqwest {
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
            let aimed = request.url().clone();
            let response = client.execute(request).await.map_err(|error| elsewhere(error, &aimed))?;
            let url = response.url().clone();
            let mut response = Response::from(response);
            response.extensions_mut().insert(Asked(url));
            Ok(response)
        })
    }
}
