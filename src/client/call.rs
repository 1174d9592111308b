//! One call: its attempts, until one of them is final.

mod next;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, debug_span};

use super::address::{Address, HasAddress};
use super::deadline::CallDeadline;
use super::failure::is_busy;
use super::options::{CallOptions, HostHeader, Http2};
use super::replay::{AttemptBody, ReplayRequest};
use super::routes::Route;
use crate::balance::{self, EndpointId, HttpResponses, Picked, ResponseBody};
use crate::error::{Error, Kind};
use crate::time::{Backoff, add_capped};

/// Future of a call by name. Does nothing before it is polled.
///
/// The first attempt is stored inline, since most calls have only one. Retries are boxed, so that
/// calls without them do not pay for them.
#[allow(clippy::large_enum_variant, reason = "the large variants are the usual ones, and the future is boxed")]
#[pin_project(project = CallProj)]
pub(super) enum CallFuture<E: Service<Request<AttemptBody<B>>>, B, RB> {
    Start(Option<(Arc<Route<E>>, Request<B>, CallDeadline)>),
    FirstAttempt {
        #[pin]
        attempt: Attempt<E, B>,
        call: Option<Call<E, B>>,
    },
    Retries(Pin<Box<dyn Future<Output = Result<CallResponse<RB>, Error>> + Send>>),
}

/// Alias of the bounds of an endpoint service: an HTTP service at an address.
pub(super) trait AttemptService<B, RB>:
    Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>, Future: Send>
    + HasAddress
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<E, B, RB> AttemptService<B, RB> for E where
    E: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>, Future: Send>
        + HasAddress
        + Clone
        + Send
        + Sync
        + 'static
{
}

type Attempt<E, B> = balance::CallFuture<E, Request<AttemptBody<B>>, HttpResponses>;
type CallResponse<RB> = Response<ResponseBody<RB>>;

const POLLED_ONCE: &str = "future is not polled after completion";

impl<E, B, RB> CallFuture<E, B, RB>
where
    E: AttemptService<B, RB>,
    B: Body<Error: Into<BoxError>> + Send + 'static,
    RB: Body + Send + 'static,
{
    pub(super) fn new(route: Arc<Route<E>>, request: Request<B>, deadline: CallDeadline) -> Self {
        Self::Start(Some((route, request, deadline)))
    }

    /// Waits for an instance, then makes the call.
    pub(super) async fn when_ready(
        route: Arc<Route<E>>,
        request: Request<B>,
        deadline: CallDeadline,
    ) -> Result<CallResponse<RB>, Error> {
        if !route.ready(deadline).await {
            return Err(route.not_ready(deadline));
        }
        Self::new(route, request, deadline).await
    }

    /// Picks an instance and starts the first attempt.
    fn start(route: Arc<Route<E>>, request: Request<B>, deadline: CallDeadline) -> Result<Self, Error> {
        let mut call = Call::new(route, request, deadline);
        if deadline.has_passed() {
            let error = Error::new(Kind::Timeout, "call to").app(call.route.name.clone());
            return Err(error.cause("no time was left for the call"));
        }
        let Some(picked) = call.pick() else {
            let span = call.span.clone();
            return Ok(Self::Retries(Box::pin(call.wait_and_run().instrument(span))));
        };
        call.route.budget.deposit(picked.at());
        Ok(match call.options().retry.hedge_delay() {
            None => Self::FirstAttempt { attempt: call.span.in_scope(|| call.attempt(picked)), call: Some(call) },
            Some(_) => {
                let span = call.span.clone();
                let work = async move {
                    let result = call.attempt_or_hedge(picked).await;
                    let outcome = call.outcome(&result);
                    call.run(result, outcome).await
                };
                Self::Retries(Box::pin(work.instrument(span)))
            }
        })
    }
}

impl<E, B, RB> Future for CallFuture<E, B, RB>
where
    E: AttemptService<B, RB>,
    B: Body<Error: Into<BoxError>> + Send + 'static,
    RB: Body + Send + 'static,
{
    type Output = Result<CallResponse<RB>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                CallProj::Start(new) => {
                    let (route, request, deadline) = new.take().expect(POLLED_ONCE);
                    Self::start(route, request, deadline)?
                }
                CallProj::FirstAttempt { attempt, call } => {
                    let first = call.as_ref().expect(POLLED_ONCE);
                    let entered = first.span.enter();
                    let result = ready!(attempt.poll(cx));
                    let outcome = first.outcome(&result);
                    drop(entered);
                    let call = call.take().expect(POLLED_ONCE);
                    if outcome == AttemptOutcome::Final {
                        return Poll::Ready(result);
                    }
                    let span = call.span.clone();
                    Self::Retries(Box::pin(call.run(result, outcome).instrument(span)))
                }
                CallProj::Retries(work) => return work.as_mut().poll(cx),
            };
            self.set(next);
        }
    }
}

/// State of a call across its attempts.
pub(super) struct Call<E, B> {
    route: Arc<Route<E>>,
    deadline: CallDeadline,
    request: ReplayRequest<B>,
    /// Endpoint of the latest attempt.
    latest: Option<EndpointId>,
    /// Endpoints of earlier attempts.
    tried: Vec<EndpointId>,
    /// Number of attempts that the instance may have received.
    sent: usize,
    /// Number of attempts that were not sent.
    unsent: usize,
    /// Number of attempts that an instance did not process.
    refusals: usize,
    /// Number of the latest of these, at one instance.
    refusals_in_a_row: usize,
    /// Set once no connection could be established.
    connect_retry: Option<ConnectRetry>,
    span: Span,
}

struct ConnectRetry {
    since: Instant,
    /// Pauses between rounds in which no instance could be reached.
    backoff: Backoff,
}

/// Outcome of an attempt, which decides whether another one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptOutcome {
    /// The result is returned to the caller.
    Final,
    /// Nothing was sent.
    Unsent,
    /// The instance did not process the request. A busy instance gets no further attempt.
    Unprocessed { is_busy: bool },
    /// The request may have been received. Contains the reason for another attempt.
    Sent(&'static str),
}

impl<E: HasAddress + Send + Sync + 'static, B: Body> Call<E, B> {
    fn new(route: Arc<Route<E>>, request: Request<B>, deadline: CallDeadline) -> Self {
        let span = debug_span!(
            "eureka.call",
            otel.kind = "client",
            eureka.app = &*route.name,
            eureka.instance_id = Empty,
            server.address = Empty,
            server.port = Empty,
        );
        let CallOptions { http2, retry, .. } = &*route.options;
        // A shared service may speak HTTP/2 whatever the request says.
        let may_be_http2 = E::IS_SHARED || request.version() == Version::HTTP_2 || *http2 != Http2::AsRequested;
        let replay_bytes = retry.replay_bytes(request.method(), may_be_http2);
        let request = ReplayRequest::new(request, replay_bytes);
        Self {
            route,
            deadline,
            request,
            latest: None,
            tried: Vec::new(),
            sent: 0,
            unsent: 0,
            refusals: 0,
            refusals_in_a_row: 0,
            connect_retry: None,
            span,
        }
    }

    fn options(&self) -> &CallOptions {
        &self.route.options
    }
}

impl<E, B> Call<E, B>
where
    E: Clone + HasAddress + Send + Sync + 'static,
    B: Body<Error: Into<BoxError>>,
{
    /// Waits for an instance, then runs the attempts.
    async fn wait_and_run<RB>(mut self) -> Result<CallResponse<RB>, Error>
    where
        RB: Body,
        E: AttemptService<B, RB>,
    {
        let Some(picked) = self.wait_for_instance().await else {
            return Err(self.route.balance.no_endpoints_for(&self.request.parts));
        };
        self.route.budget.deposit(picked.at());
        let result = self.attempt_or_hedge(picked).await;
        let outcome = self.outcome(&result);
        self.run(result, outcome).await
    }

    /// Makes further attempts until one is final.
    async fn run<RB>(
        mut self,
        mut result: Result<CallResponse<RB>, Error>,
        mut outcome: AttemptOutcome,
    ) -> Result<CallResponse<RB>, Error>
    where
        RB: Body,
        E: AttemptService<B, RB>,
    {
        while let Some(picked) = self.next(outcome).await {
            if let Err(error) = result {
                debug!(%error, "attempt failed, trying again");
            }
            result = self.attempt_or_hedge(picked).await;
            outcome = self.outcome(&result);
        }
        result
    }

    async fn attempt_or_hedge<RB>(&mut self, picked: Picked<E, HttpResponses>) -> Result<CallResponse<RB>, Error>
    where
        RB: Body,
        E: AttemptService<B, RB>,
    {
        match self.options().retry.hedge_delay() {
            None => self.attempt(picked).await,
            Some(delay) => self.hedged(picked, delay).await,
        }
    }

    /// Starts one attempt at the picked instance.
    fn attempt(&self, picked: Picked<E, HttpResponses>) -> Attempt<E, B>
    where
        E: Service<Request<AttemptBody<B>>, Error: Into<BoxError>>,
    {
        let CallOptions { host, deadline_header, retry, .. } = self.options();
        let address = picked.service().address();
        let mut request = self.request.for_address(address);
        let host = if *host == HostHeader::Original { original_host(&self.request.parts) } else { None };
        match host {
            Some(host) if request.version() != Version::HTTP_2 => request.headers_mut().insert(HOST, host),
            _ => request.headers_mut().remove(HOST),
        };
        self.deadline.write_headers(request.headers_mut(), deadline_header.as_ref());
        if !self.span.is_disabled() {
            let Address { scheme, authority } = address;
            let port = authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 });
            self.span.record("eureka.instance_id", picked.endpoint());
            self.span.record("server.address", authority.host());
            self.span.record("server.port", port);
        }
        let until = retry.attempt_time_limit().map(|time| add_capped(Instant::now(), time));
        let deadline = [self.deadline.instant(), until].into_iter().flatten().min();
        let mut attempt = picked.call_until(request, deadline);
        if E::IS_SHARED {
            attempt.exclude_readiness_wait();
        }
        attempt
    }

    /// Makes an attempt, and a second one if it takes long. The first acceptable response is
    /// returned.
    async fn hedged<RB>(&mut self, picked: Picked<E, HttpResponses>, delay: Duration) -> Result<CallResponse<RB>, Error>
    where
        RB: Body,
        E: AttemptService<B, RB>,
    {
        let mut first = pin!(self.attempt(picked));
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep(delay) => {}
        }
        let retry = &self.options().retry;
        let may_hedge = retry.allows(&self.request.parts.method)
            && self.request.can_repeat()
            && self.sent + 1 < retry.max_attempts();
        let Some(picked) = (if may_hedge && self.withdraw_budget("hedge") { self.pick_available() } else { None })
        else {
            return first.await;
        };
        self.sent += 1;
        let mut second = pin!(self.attempt(picked));
        // The slower attempt is cancelled, which says nothing about its instance.
        tokio::select! {
            result = &mut first => {
                if !self.is_acceptable(&result) {
                    return second.await;
                }
                second.as_mut().cancel_hedge();
                result
            }
            result = &mut second => {
                if !self.is_acceptable(&result) {
                    return first.await;
                }
                first.as_mut().cancel_hedge();
                result
            }
        }
    }

    /// Returns `true` for a response that the retry policy accepts.
    fn is_acceptable<RB>(&self, result: &Result<CallResponse<RB>, Error>) -> bool {
        let Ok(response) = result else { return false };
        let CallOptions { retry, responses, .. } = self.options();
        if !retry.inspects_responses() {
            return true;
        }
        !retry.should_retry(response.status(), response.headers(), || !responses.head(response).is_success())
    }

    /// Classifies the result of an attempt.
    fn outcome<RB>(&self, result: &Result<CallResponse<RB>, Error>) -> AttemptOutcome {
        if self.is_acceptable(result) || self.deadline.has_passed() {
            return AttemptOutcome::Final;
        }
        if let Err(error) = result
            && error.is_unprocessed()
        {
            return AttemptOutcome::Unprocessed { is_busy: is_busy(error) };
        }
        if !self.request.can_repeat() {
            return AttemptOutcome::Final;
        }
        match result {
            Ok(_) => AttemptOutcome::Sent("refused"),
            Err(error) => match error.kind() {
                Kind::Connect => AttemptOutcome::Unsent,
                Kind::Call | Kind::Timeout => AttemptOutcome::Sent("lost"),
                _ => AttemptOutcome::Final,
            },
        }
    }
}

/// Returns the caller's `host` header, or the name in the URI.
fn original_host(parts: &Parts) -> Option<HeaderValue> {
    parts.headers.get(HOST).cloned().or_else(|| HeaderValue::from_str(parts.uri.host()?).ok())
}
