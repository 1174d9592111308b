//! A picked endpoint, and the futures of calls to it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower::util::Oneshot;
use tower::{BoxError, Service};

use super::endpoint::EndpointId;
use super::observe::{Completion, Observe};
use crate::error::{Error, Kind};

/// An endpoint picked for one call, which counts as pending there from now on.
pub(crate) struct Picked<S, O> {
    pub(super) id: EndpointId,
    pub(super) service: S,
    pub(super) observer: O,
    pub(super) completion: Completion,
}

impl<S, O> Picked<S, O> {
    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    pub(crate) fn service(&self) -> &S {
        &self.service
    }

    /// Makes the call as soon as the service is ready for it, and observes how it ends.
    pub(crate) fn call<Req>(self, request: Req) -> CallFuture<S, Req, O>
    where
        S: Service<Req>,
    {
        CallFuture {
            inner: Oneshot::new(self.service, request),
            observer: self.observer,
            completion: Some(self.completion),
        }
    }
}

type Failed = (BoxError, Completion);

/// A call to one endpoint.
#[pin_project]
pub(crate) struct CallFuture<S: Service<Req>, Req, O> {
    #[pin]
    inner: Oneshot<S, Req>,
    observer: O,
    completion: Option<Completion>,
}

impl<S, Req, O> CallFuture<S, Req, O>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    O: Observe<S::Response>,
{
    /// Hands the completion over with an error, for what it knows of the endpoint.
    fn poll_call(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<O::Response, Failed>> {
        let this = self.project();
        // Stays said if the service panics, which drops the completion.
        this.completion.iter_mut().for_each(|completion| completion.polled(true));
        let result = this.inner.poll(cx);
        this.completion.iter_mut().for_each(|completion| completion.polled(false));
        let result = ready!(result);
        let mut completion = this.completion.take().expect("the inner future panics when polled after completion");
        Poll::Ready(match result {
            Ok(response) => Ok(this.observer.observe(completion, response)),
            Err(error) => {
                let error = error.into();
                completion.outcome(this.observer.observe_error(&*error));
                Err((error, completion))
            }
        })
    }
}

impl<S, Req, O> Future for CallFuture<S, Req, O>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    O: Observe<S::Response>,
{
    type Output = Result<O::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_call(cx).map_err(|(error, completion)| call_error(error, &completion))
    }
}

/// The answer of a [`Balance`](super::Balance) to one request.
///
/// Dropping it before the answer gives the call up; the endpoint is no longer charged with it.
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req, O>(#[pin] State<S, Req, O>);

#[pin_project(project = StateProj)]
enum State<S: Service<Req>, Req, O> {
    Call(#[pin] CallFuture<S, Req, O>),
    NoEndpoints(Option<Error>),
}

impl<S: Service<Req>, Req, O> ResponseFuture<S, Req, O> {
    pub(super) fn call(call: CallFuture<S, Req, O>) -> Self {
        Self(State::Call(call))
    }

    pub(super) fn no_endpoints(error: Error) -> Self {
        Self(State::NoEndpoints(Some(error)))
    }
}

impl<S, Req, O> Future for ResponseFuture<S, Req, O>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    O: Observe<S::Response>,
{
    type Output = Result<O::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            StateProj::Call(call) => call.poll_call(cx).map_err(|(error, completion)| call_error(error, &completion)),
            StateProj::NoEndpoints(error) => Poll::Ready(Err(error.take().expect("polled after completion"))),
        }
    }
}

impl<S: Service<Req>, Req, O> fmt::Debug for ResponseFuture<S, Req, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ResponseFuture");
        match &self.0 {
            State::Call(call) => debug.field("call", &call.completion),
            State::NoEndpoints(error) => debug.field("error", error),
        };
        debug.finish_non_exhaustive()
    }
}

/// An error that is one of ours already says what is to say.
fn call_error(error: BoxError, completion: &Completion) -> Error {
    let source = match error.downcast::<Error>() {
        Ok(error) => return *error,
        Err(source) => source,
    };
    let error = Error::new(Kind::Call, "call to").instance(completion.instance().clone());
    let error = error.cause("the endpoint failed").with_source(source);
    match completion.app() {
        Some(app) => error.app(app.clone()),
        None => error,
    }
}
