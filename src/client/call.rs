//! One call: its attempts, until one of them is final.

mod attempt;
mod next;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, Version};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, debug_span};

use self::attempt::Attempt;
use super::address::HasAddress;
use super::deadline::CallDeadline;
use super::failure::is_busy;
use super::options::{CallOptions, Http2};
use super::replay::{AttemptBody, ReplayRequest};
use super::routes::Route;
use crate::balance::{EndpointId, HttpResponses, Picked, ResponseBody};
use crate::error::{Error, Kind};
use crate::time::Backoff;

pub(super) use self::attempt::original_host;

/// Future of a call by name. Picks no instance and opens no span before it is polled.
///
/// The call and its first attempt are stored inline and used in place, since most calls have only
/// one attempt. Retries are boxed, so that calls without them do not pay for them.
#[pin_project]
pub(super) struct CallFuture<E: Service<Request<AttemptBody<B>>>, B, RB> {
    #[pin]
    stage: Stage<E, B, RB>,
    /// Taken by the retries.
    call: Option<Call<E, B>>,
}

/// Progress of a call.
#[allow(clippy::large_enum_variant, reason = "the large variant is the usual one, and the future is boxed")]
#[pin_project(project = StageProj)]
enum Stage<E: Service<Request<AttemptBody<B>>>, B, RB> {
    Start,
    FirstAttempt(#[pin] Attempt<E, B>),
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

pub(super) type CallResponse<RB> = Response<ResponseBody<RB>>;

const POLLED_ONCE: &str = "future is not polled after completion";

impl<E, B, RB> CallFuture<E, B, RB>
where
    E: AttemptService<B, RB>,
    B: Body<Error: Into<BoxError>> + Send + 'static,
    RB: Body + Send + 'static,
{
    #[inline]
    pub(super) fn new(route: Arc<Route<E>>, request: Request<B>, deadline: CallDeadline) -> Self {
        Self { stage: Stage::Start, call: Some(Call::new(route, request, deadline, false)) }
    }

    /// Waits for an instance, then makes the call.
    pub(super) async fn when_ready(
        route: Arc<Route<E>>,
        request: Request<B>,
        deadline: CallDeadline,
    ) -> Result<CallResponse<RB>, Error> {
        route.ready(deadline).await?;
        Self::new(route, request, deadline).await
    }

    /// Opens the span, picks an instance and starts the first attempt.
    ///
    /// Sets the stage in place, since a returned one would be moved a few times.
    fn start(self: Pin<&mut Self>) -> Result<(), Error> {
        let mut this = self.project();
        let call = this.call.as_mut().expect(POLLED_ONCE);
        call.open_span();
        call.check_deadline()?;
        match call.pick() {
            Some(picked) if call.options().retry.hedge_delay().is_none() => {
                call.route.budget.deposit(picked.at());
                call.attempts = 1;
                let attempt = call.span.in_scope(|| call.attempt(picked))?;
                this.stage.set(Stage::FirstAttempt(attempt));
            }
            picked => {
                let mut call = this.call.take().expect(POLLED_ONCE);
                let span = call.span.clone();
                this.stage.set(Stage::retries(span, async move { call.begin(picked).await }));
            }
        }
        Ok(())
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
            let mut this = self.as_mut().project();
            match this.stage.as_mut().project() {
                StageProj::Start => {
                    if let Err(error) = self.as_mut().start() {
                        *self.project().call = None;
                        return Poll::Ready(Err(error));
                    }
                }
                StageProj::FirstAttempt(attempt) => {
                    let call = this.call.as_ref().expect(POLLED_ONCE);
                    let entered = call.span.enter();
                    // A final result is returned where it is, since taking it out moves it twice.
                    let polled = attempt.poll(cx);
                    let Poll::Ready(result) = &polled else { return Poll::Pending };
                    let outcome = call.outcome(result);
                    drop(entered);
                    if outcome == AttemptOutcome::Final {
                        *this.call = None;
                        return polled;
                    }
                    let result = ready!(polled);
                    let mut call = this.call.take().expect(POLLED_ONCE);
                    let span = call.span.clone();
                    this.stage.set(Stage::retries(span, async move { call.run(result, outcome).await }));
                }
                StageProj::Retries(work) => return work.as_mut().poll(cx),
            }
        }
    }
}

impl<E: Service<Request<AttemptBody<B>>>, B, RB> Stage<E, B, RB> {
    fn retries(span: Span, work: impl Future<Output = Result<CallResponse<RB>, Error>> + Send + 'static) -> Self {
        Self::Retries(Box::pin(work.instrument(span)))
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
    /// Number of attempts that were started.
    attempts: u32,
    /// Number of attempts that the instance may have received.
    sent: usize,
    /// True once one of these lost its connection.
    has_lost: bool,
    /// Number of attempts that were not sent.
    unsent: usize,
    /// Number of attempts that an instance did not process.
    refusals: usize,
    /// Number of the latest of these, at one instance.
    refusals_in_a_row: usize,
    /// Set once no connection could be established.
    connect_retry: Option<ConnectRetry>,
    /// Disabled before the first poll.
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
    /// The request was received, and its response asks for another attempt.
    Refused,
    /// The request may have been received, and its connection was lost.
    Lost,
    /// The request may have been received, and no response came in time.
    TimedOut,
}

impl<E: HasAddress + Send + Sync + 'static, B: Body> Call<E, B> {
    /// Makes a call. If `keeps_body`, its body is kept for a fallback, too.
    #[inline]
    pub(super) fn new(route: Arc<Route<E>>, request: Request<B>, deadline: CallDeadline, keeps_body: bool) -> Self {
        let CallOptions { http2, retry, .. } = &*route.options;
        // A shared service may speak HTTP/2 whatever the request says.
        let may_be_http2 = E::IS_SHARED || request.version() == Version::HTTP_2 || *http2 != Http2::AsRequested;
        let replay_bytes = retry.replay_bytes(request.method(), may_be_http2 || keeps_body);
        let request = ReplayRequest::new(request, replay_bytes);
        Self {
            route,
            deadline,
            request,
            latest: None,
            tried: Vec::new(),
            attempts: 0,
            sent: 0,
            has_lost: false,
            unsent: 0,
            refusals: 0,
            refusals_in_a_row: 0,
            connect_retry: None,
            span: Span::none(),
        }
    }

    /// Opens the span of the call, within the span of the caller who polls.
    fn open_span(&mut self) {
        self.span = debug_span!(
            "eureka.call",
            otel.kind = "client",
            eureka.app = &*self.route.name,
            eureka.instance_id = Empty,
            server.address = Empty,
            server.port = Empty,
        );
    }

    fn options(&self) -> &CallOptions {
        &self.route.options
    }

    fn check_deadline(&self) -> Result<(), Error> {
        if !self.deadline.has_passed() {
            return Ok(());
        }
        let error = Error::new(Kind::Timeout, "call to").app(self.route.name.clone());
        Err(error.cause("no time was left for the call"))
    }

    /// Returns the caller's request, unless its body was sent and not kept.
    pub(super) async fn into_request(self) -> Option<Request<AttemptBody<B>>> {
        self.request.wait_until_repeatable().await.then(|| self.request.into_request())
    }
}

impl<E, B> Call<E, B>
where
    E: Clone + HasAddress + Send + Sync + 'static,
    B: Body<Error: Into<BoxError>>,
{
    /// Waits for an instance, then makes attempts until one is final.
    pub(super) async fn complete<RB>(&mut self) -> Result<CallResponse<RB>, Error>
    where
        RB: Body,
        E: AttemptService<B, RB>,
    {
        self.open_span();
        if !self.route.is_ready() {
            self.route.ready(self.deadline).await?;
        }
        self.check_deadline()?;
        let picked = self.pick();
        let span = self.span.clone();
        self.begin(picked).instrument(span).await
    }

    /// Makes the first attempt and those that follow. Waits for an instance if none was picked.
    async fn begin<RB>(&mut self, picked: Option<Picked<E, HttpResponses>>) -> Result<CallResponse<RB>, Error>
    where
        RB: Body,
        E: AttemptService<B, RB>,
    {
        let picked = match picked {
            Some(picked) => picked,
            None => match self.wait_for_instance().await {
                Some(picked) => picked,
                None => return Err(self.route.balance.no_endpoints_for(&self.request.parts)),
            },
        };
        self.route.budget.deposit(picked.at());
        let result = self.attempt_or_hedge(picked).await;
        let outcome = self.outcome(&result);
        self.run(result, outcome).await
    }

    /// Makes further attempts until one is final.
    async fn run<RB>(
        &mut self,
        mut result: Result<CallResponse<RB>, Error>,
        mut outcome: AttemptOutcome,
    ) -> Result<CallResponse<RB>, Error>
    where
        RB: Body,
        E: AttemptService<B, RB>,
    {
        while let Some(picked) = self.next(outcome).await {
            // A response that is not read holds its connection or stream, which the next attempt
            // may need.
            match result {
                Ok(response) => drop(response),
                Err(error) => debug!(%error, "attempt failed, trying again"),
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
        self.attempts += 1;
        match self.options().retry.hedge_delay() {
            None => self.attempt(picked)?.await,
            Some(delay) => self.hedged(picked, delay).await,
        }
    }

    /// Makes an attempt, and a second one if it takes long. The first acceptable response is
    /// returned.
    async fn hedged<RB>(&mut self, picked: Picked<E, HttpResponses>, delay: Duration) -> Result<CallResponse<RB>, Error>
    where
        RB: Body,
        E: AttemptService<B, RB>,
    {
        let mut first = pin!(self.attempt(picked)?);
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep(delay) => {}
        }
        let retry = &self.options().retry;
        let may_hedge = retry.allows(&self.request.parts.method)
            && self.request.can_repeat()
            && self.sent + 1 < retry.max_attempts();
        let Some(picked) = (if may_hedge { self.pick_hedge() } else { None }) else {
            return first.await;
        };
        self.attempts += 1;
        let Ok(second) = self.attempt(picked) else { return first.await };
        self.sent += 1;
        let mut second = pin!(second);
        // The slower attempt is cancelled, which says nothing about its instance.
        tokio::select! {
            result = &mut first => {
                if !self.is_acceptable(&result) {
                    self.discard(result);
                    return second.await;
                }
                second.as_mut().cancel_hedge();
                result
            }
            result = &mut second => {
                if !self.is_acceptable(&result) {
                    self.discard(result);
                    return first.await;
                }
                first.as_mut().cancel_hedge();
                result
            }
        }
    }

    /// Discards the result of one of two attempts. It does not count as sent if the instance did
    /// not get it.
    fn discard<RB>(&mut self, result: Result<CallResponse<RB>, Error>) {
        if let Err(error) = &result
            && (error.is_unprocessed() || error.kind() == Kind::Connect)
        {
            self.sent -= 1;
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
        match result {
            Ok(_) => AttemptOutcome::Refused,
            Err(error) => match error.kind() {
                Kind::Connect => AttemptOutcome::Unsent,
                Kind::Call => AttemptOutcome::Lost,
                Kind::Timeout => AttemptOutcome::TimedOut,
                _ => AttemptOutcome::Final,
            },
        }
    }
}
