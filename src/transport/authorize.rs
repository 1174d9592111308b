//! Credentials of requests: those for registry servers, and those for a proxy.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, header};
use tower::Service;

use super::request::RequestBody;
use super::token::{TokenError, Tokens};
use crate::config::{ClientConfig, Credentials};
use crate::connect::Proxies;

/// Adds credentials and the user's own headers to the requests to registry servers.
#[derive(Clone, Debug)]
pub(super) struct Authorizer {
    credentials: Option<Authorization>,
    headers: Arc<[(HeaderName, HeaderValue)]>,
}

#[derive(Clone, Debug)]
enum Authorization {
    Basic(HeaderValue),
    Bearer(Arc<Tokens>),
}

impl Authorizer {
    pub(super) fn new(config: &ClientConfig) -> Self {
        let credentials = config.credentials.as_ref().map(|credentials| match credentials {
            Credentials::Basic(header) => Authorization::Basic(header.clone()),
            Credentials::Bearer(provider) => Authorization::Bearer(Arc::new(Tokens::new(provider.clone()))),
        });
        Self { credentials, headers: config.headers.as_slice().into() }
    }

    /// Adds the credentials, unless the URL of the server had its own. Returns the bearer token
    /// that was added, if it was one.
    ///
    /// # Errors
    /// When there is no bearer token within `bound`.
    pub(super) async fn authorize(
        &self,
        request: &mut Request<RequestBody>,
        bound: Duration,
    ) -> Result<Option<HeaderValue>, TokenError> {
        for (name, value) in &*self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        if request.headers().contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        let (value, token) = match &self.credentials {
            None => return Ok(None),
            Some(Authorization::Basic(value)) => (value.clone(), None),
            Some(Authorization::Bearer(tokens)) => {
                let token = tokens.header(bound, None).await?;
                (token.clone(), Some(token))
            }
        };
        request.headers_mut().insert(header::AUTHORIZATION, value);
        Ok(token)
    }

    /// Returns a new token instead of one that a server rejected, or `None` if there is no other.
    ///
    /// # Errors
    /// As [`authorize`](Self::authorize).
    pub(super) async fn renew(
        &self,
        rejected: &HeaderValue,
        bound: Duration,
    ) -> Result<Option<HeaderValue>, TokenError> {
        let Some(Authorization::Bearer(tokens)) = &self.credentials else { return Ok(None) };
        let renewed = tokens.header(bound, Some(rejected)).await?;
        Ok((renewed != *rejected).then_some(renewed))
    }

    /// Records that a server rejected a token that was just renewed.
    pub(super) async fn refuse(&self, renewed: &HeaderValue) {
        if let Some(Authorization::Bearer(tokens)) = &self.credentials {
            tokens.refuse(renewed).await;
        }
    }

    /// Records that a server accepted the bearer token.
    pub(super) async fn accept(&self) {
        if let Some(Authorization::Bearer(tokens)) = &self.credentials {
            tokens.accept().await;
        }
    }

    /// Returns the names of the user's own headers, which may hold secrets.
    pub(super) fn header_names(&self) -> Arc<[HeaderName]> {
        self.headers.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Service that adds the credentials of the proxy to plain requests. It is below the redirects, so
/// that a host without a proxy does not receive them.
#[derive(Clone, Debug)]
pub(super) struct ProxyAuthorization<S> {
    inner: S,
    proxies: Arc<Proxies>,
}

impl<S> ProxyAuthorization<S> {
    pub(super) fn new(inner: S, proxies: &Proxies) -> Self {
        Self { inner, proxies: Arc::new(proxies.clone()) }
    }
}

impl<S: Service<Request<RequestBody>>> Service<Request<RequestBody>> for ProxyAuthorization<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> S::Future {
        if let Some(value) = self.proxies.authorization(request.uri()) {
            let value = value.clone();
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
        }
        self.inner.call(request)
    }
}
