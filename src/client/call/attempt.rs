//! One attempt of a call: its request for the picked instance, and its response.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::HOST;
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Service};

use super::{Call, CallResponse};
use crate::balance::{self, HttpResponses, Picked};
use crate::client::address::{Address, HasAddress};
use crate::client::connection::NewConnection;
use crate::client::options::{CallOptions, HostHeader};
use crate::client::picked::PickedInstance;
use crate::client::replay::AttemptBody;
use crate::error::{Error, Kind};
use crate::time::add_capped;

/// Future of one attempt. Its response has the [`PickedInstance`] as an extension.
#[pin_project]
pub(in crate::client) struct Attempt<E: Service<Request<AttemptBody<B>>>, B> {
    #[pin]
    call: balance::CallFuture<E, Request<AttemptBody<B>>, HttpResponses>,
    /// Taken by the response.
    picked: Option<PickedInstance>,
}

impl<E, B> Call<E, B>
where
    E: Clone + HasAddress + Send + Sync + 'static,
    B: Body<Error: Into<BoxError>>,
{
    /// Starts the attempt with the number `attempts` at the picked instance. Fails with the error
    /// of the user's hook.
    pub(super) fn attempt(&self, endpoint: Picked<E, HttpResponses>) -> Result<Attempt<E, B>, Error>
    where
        E: Service<Request<AttemptBody<B>>, Error: Into<BoxError>>,
    {
        let picked = PickedInstance::new(endpoint.service(), self.attempts);
        self.record_span(&picked);
        let CallOptions { attempts, retry, .. } = self.options();
        let mut request = self.request_for(endpoint.service().address());
        // Services below a layer read this extension. The crate's own connections do not.
        if E::IS_SHARED || attempts.has_hook() {
            request.extensions_mut().insert(picked.clone());
        }
        if !attempts.is_empty() {
            request = match attempts.apply(&picked, &self.request.parts, request) {
                Ok(request) => request,
                Err(error) => {
                    endpoint.cancel();
                    return Err(hook_failed(error, &picked));
                }
            };
        }
        if self.has_lost && !E::IS_SHARED {
            request.extensions_mut().insert(NewConnection);
        }
        let until = retry.attempt_time_limit().map(|time| add_capped(Instant::now(), time));
        let deadline = [self.deadline.instant(), until].into_iter().flatten().min();
        let mut call = endpoint.call_until(request, deadline);
        if E::IS_SHARED {
            call.exclude_readiness_wait();
        }
        Ok(Attempt { call, picked: Some(picked) })
    }

    /// Returns the request for an instance at this address. The crate's own connections complete
    /// its URI if they need that. Services and hooks get the whole URI.
    #[inline]
    fn request_for(&self, address: &Address) -> Request<AttemptBody<B>> {
        let CallOptions { attempts, host, deadline_header, .. } = self.options();
        let is_seen = E::IS_SHARED || !attempts.is_empty();
        let mut request = if is_seen { self.request.for_address(address) } else { self.request.for_connection() };
        let host = if *host == HostHeader::Original { original_host(&self.request.parts) } else { None };
        match host {
            Some(host) if request.version() != Version::HTTP_2 => request.headers_mut().insert(HOST, host),
            _ => request.headers_mut().remove(HOST),
        };
        self.deadline.write_headers(request.headers_mut(), deadline_header.as_ref());
        request
    }

    fn record_span(&self, picked: &PickedInstance) {
        if self.span.is_disabled() {
            return;
        }
        let (scheme, authority) = (picked.scheme(), picked.authority());
        let port = authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 });
        self.span.record("eureka.instance_id", picked.endpoint());
        self.span.record("server.address", authority.host());
        self.span.record("server.port", port);
    }
}

fn hook_failed(error: BoxError, picked: &PickedInstance) -> Error {
    let cause = format!("on_attempt failed: {error}");
    Error::new(Kind::Hook, "call to").app(picked.instance().app()).instance(picked.id()).cause(cause).with_source(error)
}

/// Returns the caller's `host` header, or the name in the URI.
pub(in crate::client) fn original_host(parts: &Parts) -> Option<HeaderValue> {
    parts.headers.get(HOST).cloned().or_else(|| HeaderValue::from_str(parts.uri.host()?).ok())
}

impl<E: Service<Request<AttemptBody<B>>>, B> Attempt<E, B> {
    /// Cancels the attempt, since a hedge was faster. This is no evidence about the instance.
    pub(super) fn cancel_hedge(self: Pin<&mut Self>) {
        self.project().call.cancel_hedge();
    }
}

impl<E, B, RB> Future for Attempt<E, B>
where
    E: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>>,
    RB: Body,
{
    type Output = Result<CallResponse<RB>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // The response stays where it is, since taking it out moves it twice.
        let mut polled = this.call.poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Some(picked) = this.picked.take()
        {
            response.extensions_mut().insert(picked);
        }
        polled
    }
}
