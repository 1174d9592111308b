//! A picked endpoint, and the futures of calls to it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project::{pin_project, pinned_drop};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{BoxError, Service};

use super::endpoint::EndpointId;
use super::observe::{Completion, Observe, Outcome};
use crate::error::{Error, Kind};

/// An endpoint picked for one call, which counts as pending there from now on.
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

    /// The id of the endpoint.
    pub(crate) fn endpoint(&self) -> &str {
        self.completion.endpoint()
    }

    /// When it was picked.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn service(&self) -> &S {
        &self.service
    }

    /// Makes the call, now or else as soon as the service is ready for it, and observes how it ends.
    pub(crate) fn call<Req>(self, request: Req) -> CallFuture<S, Req, O>
    where
        S: Service<Req, Error: Into<BoxError>>,
    {
        self.call_until(request, None)
    }

    /// The same, given up at an instant.
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

/// A call to one endpoint. In this order for the sake of the [`Completion`].
#[pin_project(PinnedDrop)]
#[repr(C)]
pub(crate) struct CallFuture<S: Service<Req>, Req, O> {
    completion: Option<Completion>,
    /// Boxed, as most calls have none.
    deadline: Option<Pin<Box<Sleep>>>,
    #[pin]
    stage: Stage<S, Req>,
    observer: O,
    /// Set while the service is at work. Stays set if it panics.
    working: bool,
}

/// What the service does.
#[pin_project(project = StageProj)]
enum Stage<S: Service<Req>, Req> {
    Called(#[pin] S::Future),
    /// It was not ready at once. Boxed, since with the request it is by far the largest, and rare.
    Waiting(Box<(S, Option<Req>)>),
    Failed(Option<BoxError>),
    Over,
}

impl<S: Service<Req, Error: Into<BoxError>>, Req> Stage<S, Req> {
    /// Most services are ready when they are asked: then nothing of the request waits in the future.
    fn begin(mut service: S, request: Req) -> Self {
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Called(service.call(request)),
            Poll::Ready(Err(error)) => Self::Failed(Some(error.into())),
            // Asks again, with a waker.
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

const ONCE: &str = "a future is not polled after completion";

impl<S: Service<Req>, Req, O> CallFuture<S, Req, O> {
    /// Ends the call, since another one that was made beside it was faster. Says nothing about the endpoint.
    pub(crate) fn lose(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.stage.set(Stage::Over);
        if let Some(completion) = this.completion.take() {
            completion.lost();
        }
    }

    /// Until the service is ready, the call is not the endpoint's: its service is that of the others, too.
    pub(crate) fn excuse_wait(&mut self) {
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
            let error = Error::new(Kind::Timeout, "call").cause("no answer before the deadline of the call");
            return Poll::Ready(Err(identify(error, &completion)));
        };
        // With all that it holds, such as a part of the request's body.
        this.stage.set(Stage::Over);
        let mut completion = this.completion.take().expect(ONCE);
        Poll::Ready(match result {
            Ok(response) => Ok(this.observer.observe(completion, response)),
            Err(error) => {
                let outcome = this.observer.observe_error(&*error);
                completion.outcome(outcome);
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
            StateProj::Call(call) => call.poll_call(cx),
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
fn call_error(error: BoxError, outcome: Outcome, completion: &Completion) -> Error {
    let source = match error.downcast::<Error>() {
        Ok(error) => return *error,
        Err(source) => source,
    };
    let (kind, cause) = match outcome {
        Outcome::Unreachable => (Kind::Connect, "the endpoint cannot be connected to"),
        Outcome::GivenUp | Outcome::Success if super::connect::is_callers_fault(&*source) => {
            (Kind::Caller, "the body of the request failed")
        }
        Outcome::GivenUp | Outcome::Success => (Kind::Caller, "the call failed by no fault of the endpoint"),
        Outcome::Unprocessed => (Kind::Unprocessed, "the endpoint did not process the request"),
        Outcome::TimedOut => (Kind::Timeout, "the endpoint did not answer in time"),
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
