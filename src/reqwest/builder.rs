//! Builder of requests that are sent by name.

use std::fmt;
use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Version};
use serde::Serialize;

use super::{Client, invalid};
use crate::client::{Deadline, WaitForReady};
use crate::error::Error;

/// Builder of a request that is sent by name. Created by [`Client::get`] and the like.
///
/// The methods are those of reqwest's [`RequestBuilder`](::reqwest::RequestBuilder). Unlike there,
/// [`send`](Self::send) resolves names. An invalid value is an error of `send`.
#[must_use = "a request does nothing until `send`"]
pub struct RequestBuilder {
    client: Client,
    request: ::reqwest::RequestBuilder,
    extensions: Extensions,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, request: ::reqwest::RequestBuilder) -> Self {
        Self { client, request, extensions: Extensions::new() }
    }

    /// Adds a header.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K, Error: Into<http::Error>>,
        HeaderValue: TryFrom<V, Error: Into<http::Error>>,
    {
        self.map(|request| request.header(name, value))
    }

    /// Sets headers. They replace headers with the same names.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.map(|request| request.headers(headers))
    }

    /// Sets Basic credentials.
    pub fn basic_auth(self, user: impl fmt::Display, password: Option<impl fmt::Display>) -> Self {
        self.map(|request| request.basic_auth(user, password))
    }

    /// Sets a bearer token.
    pub fn bearer_auth(self, token: impl fmt::Display) -> Self {
        self.map(|request| request.bearer_auth(token))
    }

    /// Adds parameters to the query: `.query(&[("page", "2")])`.
    pub fn query<T: Serialize + ?Sized>(self, query: &T) -> Self {
        self.map(|request| request.query(query))
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<::reqwest::Body>) -> Self {
        self.map(|request| request.body(body))
    }

    /// Sets a JSON body and its `content-type`.
    pub fn json<T: Serialize + ?Sized>(self, json: &T) -> Self {
        self.map(|request| request.json(json))
    }

    /// Sets the fields of a form as the body, and its `content-type`.
    pub fn form<T: Serialize + ?Sized>(self, form: &T) -> Self {
        self.map(|request| request.form(form))
    }

    /// Sets the version of HTTP.
    pub fn version(self, version: Version) -> Self {
        self.map(|request| request.version(version))
    }

    /// Sets the time limit of all attempts together until the head of the response, and of each
    /// attempt including the response body.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|request| request.timeout(timeout))
    }

    /// Sets the deadline of the call, until the head of the response. The response body is not
    /// limited by it.
    pub fn deadline(self, deadline: Deadline) -> Self {
        self.extension(deadline)
    }

    /// Sets the maximum time to wait for a reachable instance; see [`WaitForReady`].
    pub fn wait_for_ready(self, timeout: Duration) -> Self {
        self.extension(WaitForReady(timeout))
    }

    /// Adds an extension, which policies and hooks of the
    /// [`CallOptions`](crate::client::CallOptions) can read.
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        self.extensions.insert(extension);
        self
    }

    /// Changes the request with reqwest's own builder, which has more methods with more features of
    /// reqwest: `.map(|request| request.multipart(form))`.
    pub fn map(self, change: impl FnOnce(::reqwest::RequestBuilder) -> ::reqwest::RequestBuilder) -> Self {
        Self { request: change(self.request), ..self }
    }

    /// Builds the request, without the deadline and other extensions.
    ///
    /// # Errors
    /// If the URL or another value is invalid.
    pub fn build(self) -> Result<::reqwest::Request, Error> {
        self.request.build().map_err(invalid)
    }

    /// Sends the request to an instance of the application that its URL names.
    ///
    /// # Errors
    /// As for [`Client::execute`], and if the URL or another value is invalid.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn send(self) -> Result<::reqwest::Response, Error> {
        let request = self.request.build().map_err(invalid)?;
        self.client.execute_with(request, self.extensions).await
    }
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder").field("client", &self.client).finish_non_exhaustive()
    }
}
