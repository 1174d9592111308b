//! Endpoint that was picked, and the futures of calls to it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project::{pin_project, pinned_drop};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{BoxError, Service};

use super::classify::{Observe, is_callers_fault};
use super::endpoint::{Completion, EndpointId};
use super::outcome::Outcome;
use crate::error::{Error, Kind};

/// Endpoint that was picked for one call. The call counts as pending there until this is dropped.
pub(crate) struct Picked<S, O> {
    pub(super) at: Instant,
    pub(super) service: S,
    pub(super) observer: O,
    pub(super) completion: Completion,
}

impl<S, O> Picked<S, O> {
    pub(crate) fn id(&self) -> EndpointId {
        self.completion.id()
    }

    /// Returns the time of the pick.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn service(&self) -> &S {
        &self.service
    }

    /// Ends the call before it was sent. This is no evidence about the endpoint.
    pub(crate) fn cancel(mut self) {
        self.completion.outcome(Outcome::Cancelled);
    }

    /// Returns the handle of the call, for callers that send it themselves.
    pub(crate) fn into_completion(self) -> Completion {
        self.completion
    }

    /// Sends the request once the service is ready, and observes the outcome.
    pub(crate) fn call<Req>(self, request: Req) -> CallFuture<S, Req, O>
    where
        S: Service<Req, Error: Into<BoxError>>,
    {
        self.call_until(request, None)
    }

    /// Does the same with a deadline, after which the call ends with a timeout.
    pub(crate) fn call_until<Req>(self, request: Req, deadline: Option<Instant>) -> CallFuture<S, Req, O>
    where
        S: Service<Req, Error: Into<BoxError>>,
    {
        let mut call = CallFuture {
            stage: Stage::Over,
            observer: self.observer,
            completion: Some(self.completion),
            working: true,
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
        };
        call.stage = Stage::begin(self.service, request);
        call.working = false;
        call
    }
}

/// Call to one endpoint. The order of the fields serves the [`Completion`], which is moved often.
#[pin_project(PinnedDrop)]
#[repr(C)]
pub(crate) struct CallFuture<S: Service<Req>, Req, O> {
    completion: Option<Completion>,
    /// Boxed, as most calls have none.
    deadline: Option<Pin<Box<Sleep>>>,
    #[pin]
    stage: Stage<S, Req>,
    observer: O,
    /// Set while the service runs. Stays set if the service panics.
    working: bool,
}

/// Progress of the service.
#[pin_project(project = StageProj)]
enum Stage<S: Service<Req>, Req> {
    Called(#[pin] S::Future),
    /// The service was not ready at once. Boxed, since this variant is rare and by far the largest
    /// with its request.
    Waiting(Box<(S, Option<Req>)>),
    Failed(Option<BoxError>),
    Over,
}

impl<S: Service<Req, Error: Into<BoxError>>, Req> Stage<S, Req> {
    /// Calls the service if it is ready, so that the future need not hold the request.
    fn begin(mut service: S, request: Req) -> Self {
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Called(service.call(request)),
            Poll::Ready(Err(error)) => Self::Failed(Some(error.into())),
            // Polled again with a waker.
            Poll::Pending => Self::Waiting(Box::new((service, Some(request)))),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &mut Option<Completion>,
    ) -> Poll<Result<S::Response, BoxError>> {
        loop {
            let call = match self.as_mut().project() {
                StageProj::Called(call) => return call.poll(cx).map_err(Into::into),
                StageProj::Waiting(waiting) => {
                    let (service, request) = &mut **waiting;
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    completion.as_mut().expect(ONCE).resume();
                    service.call(request.take().expect(ONCE))
                }
                StageProj::Failed(error) => return Poll::Ready(Err(error.take().expect(ONCE))),
                StageProj::Over => panic!("{ONCE}"),
            };
            self.set(Self::Called(call));
        }
    }
}

const ONCE: &str = "future is not polled after completion";

impl<S: Service<Req>, Req, O> CallFuture<S, Req, O> {
    /// Cancels the call, since a hedge was faster. This is no evidence about the endpoint.
    pub(crate) fn cancel_hedge(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.stage.set(Stage::Over);
        if let Some(completion) = this.completion.take() {
            completion.cancel_hedge();
        }
    }

    /// Excludes the time until the service is ready from the endpoint's measurements: other calls
    /// share that service.
    pub(crate) fn exclude_readiness_wait(&mut self) {
        if let (Stage::Waiting(_) | Stage::Failed(_), Some(completion)) = (&self.stage, &mut self.completion) {
            completion.pause();
        }
    }
}

impl<S, Req, O> CallFuture<S, Req, O>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    O: Observe<S::Response>,
{
    fn poll_call(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<O::Response, Error>> {
        let mut this = self.project();
        *this.working = true;
        let polled = this.stage.as_mut().poll(cx, this.completion);
        *this.working = false;
        let Poll::Ready(result) = polled else {
            let Some(deadline) = this.deadline else { return Poll::Pending };
            ready!(deadline.as_mut().poll(cx));
            this.stage.set(Stage::Over);
            let mut completion = this.completion.take().expect(ONCE);
            completion.outcome(Outcome::TimedOut);
            let error = Error::new(Kind::Timeout, "call").cause("no response before the deadline of the call");
            return Poll::Ready(Err(identify(error, &completion)));
        };
        // Drops all that the stage holds, such as a part of the request's body.
        this.stage.set(Stage::Over);
        let mut completion = this.completion.take().expect(ONCE);
        Poll::Ready(match result {
            Ok(response) => Ok(this.observer.observe(completion, response)),
            Err(error) => {
                let outcome = this.observer.observe_error(&*error);
                completion.lost(outcome);
                Err(call_error(error, outcome, &completion))
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
        self.poll_call(cx)
    }
}

#[pinned_drop]
impl<S: Service<Req>, Req, O> PinnedDrop for CallFuture<S, Req, O> {
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if *this.working
            && let Some(completion) = this.completion.take()
        {
            completion.panicked();
        }
    }
}

/// Future of a call through a [`Balance`](super::Balance).
///
/// Dropping it before it has resolved cancels the call, which is then no longer pending at its
/// endpoint.
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
            StateProj::Call(call) => call.poll_call(cx),
            StateProj::NoEndpoints(error) => Poll::Ready(Err(error.take().expect(ONCE))),
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

/// Adds the endpoint to an error, unless the error is one of this crate's and has it already.
fn call_error(error: BoxError, outcome: Outcome, completion: &Completion) -> Error {
    let source = match error.downcast::<Error>() {
        Ok(error) => return *error,
        Err(source) => source,
    };
    let (kind, cause) = match outcome {
        Outcome::Unreachable => (Kind::Connect, "cannot connect to the endpoint"),
        Outcome::Cancelled | Outcome::Success if is_callers_fault(&*source) => {
            (Kind::Caller, "the body of the request failed")
        }
        Outcome::Cancelled | Outcome::Success => (Kind::Caller, "the call failed for a reason of the caller"),
        Outcome::Unprocessed => (Kind::Unprocessed, "the endpoint did not process the request"),
        Outcome::TimedOut => (Kind::Timeout, "the endpoint did not respond in time"),
        _ => (Kind::Call, "the endpoint failed"),
    };
    identify(Error::new(kind, "call to").cause(cause).with_source(source), completion)
}

fn identify(error: Error, completion: &Completion) -> Error {
    let error = error.instance(completion.instance().clone());
    match completion.app() {
        Some(app) => error.app(app.clone()),
        None => error,
    }
}
