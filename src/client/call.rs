//! One call: its tries, until it is answered or there is no use in sending it again.

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

use super::address::Address;
use super::deadline::CallDeadline;
use super::failure::is_busy;
use super::options::{CallOptions, HostHeader, Http2};
use super::replay::{AttemptBody, ReplayRequest};
use super::routes::{HasAddress, Route};
use crate::balance::{CallFuture, EndpointId, HttpResponses, Picked, ResponseBody};
use crate::clock::LONGEST_WAIT;
use crate::error::{Error, Kind};
use crate::timer::{Backoff, jittered};

/// How long a call goes on looking for an instance that can be connected to.
const CONNECT_BUDGET: Duration = Duration::from_secs(10);

/// Number of further instances that a call that was not sent is tried at without regard to the retry budget.
const FREE_UNSENT: usize = 3;
/// Number of further instances in a row at all.
const MOST_UNSENT: usize = 10;

/// Number of times that a call is sent again without regard to the retry budget after instances stated that they did not process it.
const FREE_REFUSALS: usize = 3;
/// Number of these that go to the same instance.
const REFUSALS_AT_ONE: usize = 2;
/// Number of times that a call is sent again for this reason at all.
const MOST_REFUSALS: usize = 8;
/// Pause before the second of these times. It doubles up to the last.
const FIRST_REFUSAL_PAUSE: Duration = Duration::from_millis(10);
const LAST_REFUSAL_PAUSE: Duration = Duration::from_millis(200);

/// A request on its way to its answer. Nothing happens before it is polled.
///
/// The first try is made in place, as it is the only one of most calls. What may follow it is rare, and boxed: it costs nothing
/// where it is not needed.
#[allow(clippy::large_enum_variant, reason = "the large ones are the usual ones, and all is in a box")]
#[pin_project(project = SendingProj)]
pub(super) enum Sending<E: Service<Request<AttemptBody<B>>>, B, RB> {
    New(Option<(Arc<Route<E>>, Request<B>, CallDeadline)>),
    First {
        #[pin]
        attempt: Attempt<E, B>,
        call: Option<Call<E, B>>,
    },
    Further(Pin<Box<dyn Future<Output = Result<Answer<RB>, Error>> + Send>>),
}

/// An instance that can be called: an HTTP service at an address. Nothing but a name for this.
pub(super) trait Callee<B, RB>:
    Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>, Future: Send>
    + HasAddress
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<E, B, RB> Callee<B, RB> for E where
    E: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>, Future: Send>
        + HasAddress
        + Clone
        + Send
        + Sync
        + 'static
{
}

type Attempt<E, B> = CallFuture<E, Request<AttemptBody<B>>, HttpResponses>;
type Answer<RB> = Response<ResponseBody<RB>>;

const ONCE: &str = "a future is not polled after completion";

impl<E, B, RB> Sending<E, B, RB>
where
    E: Callee<B, RB>,
    B: Body<Error: Into<BoxError>> + Send + 'static,
    RB: Body + Send + 'static,
{
    pub(super) fn new(route: Arc<Route<E>>, request: Request<B>, deadline: CallDeadline) -> Self {
        Self::New(Some((route, request, deadline)))
    }

    /// Waits for a first instance before.
    pub(super) async fn when_ready(
        route: Arc<Route<E>>,
        request: Request<B>,
        deadline: CallDeadline,
    ) -> Result<Answer<RB>, Error> {
        if !route.ready(deadline).await {
            return Err(route.not_ready(deadline));
        }
        Self::new(route, request, deadline).await
    }

    /// Picks an instance and makes the first try.
    fn begin(route: Arc<Route<E>>, request: Request<B>, deadline: CallDeadline) -> Result<Self, Error> {
        let mut call = Call::new(route, request, deadline);
        if deadline.has_passed() {
            let error = Error::new(Kind::Timeout, "call to").app(call.route.name.clone());
            return Err(error.cause("no time was left for the call"));
        }
        let Some(picked) = call.pick() else {
            let span = call.span.clone();
            return Ok(Self::Further(Box::pin(call.wait_and_go_on().instrument(span))));
        };
        call.route.budget.deposit(picked.at());
        Ok(match call.options().retry.hedge() {
            None => Self::First { attempt: call.span.in_scope(|| call.attempt(picked)), call: Some(call) },
            Some(_) => {
                let span = call.span.clone();
                let work = async move {
                    let result = call.try_at(picked).await;
                    let verdict = call.verdict(&result);
                    call.go_on(result, verdict).await
                };
                Self::Further(Box::pin(work.instrument(span)))
            }
        })
    }
}

impl<E, B, RB> Future for Sending<E, B, RB>
where
    E: Callee<B, RB>,
    B: Body<Error: Into<BoxError>> + Send + 'static,
    RB: Body + Send + 'static,
{
    type Output = Result<Answer<RB>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                SendingProj::New(new) => {
                    let (route, request, deadline) = new.take().expect(ONCE);
                    Self::begin(route, request, deadline)?
                }
                SendingProj::First { attempt, call } => {
                    let first = call.as_ref().expect(ONCE);
                    let entered = first.span.enter();
                    let result = ready!(attempt.poll(cx));
                    let verdict = first.verdict(&result);
                    drop(entered);
                    let call = call.take().expect(ONCE);
                    if verdict == Verdict::LastWord {
                        return Poll::Ready(result);
                    }
                    let span = call.span.clone();
                    Self::Further(Box::pin(call.go_on(result, verdict).instrument(span)))
                }
                SendingProj::Further(work) => return work.as_mut().poll(cx),
            };
            self.set(next);
        }
    }
}

/// A call on its way through its tries.
pub(super) struct Call<E, B> {
    route: Arc<Route<E>>,
    deadline: CallDeadline,
    request: ReplayRequest<B>,
    /// Where the last try went.
    latest: Option<EndpointId>,
    /// Where those before it went.
    tried: Vec<EndpointId>,
    /// How often the request was sent, as far as it can have been received.
    sent: usize,
    /// Number of tries that were not sent.
    unsent: usize,
    /// Number of tries that the instance did not process: of the call, and of these the latest in a row at one instance.
    refusals: usize,
    refusals_here: usize,
    /// Set while no connection comes about.
    unconnected: Option<Unconnected>,
    span: Span,
}

struct Unconnected {
    since: Instant,
    /// Between rounds in which no instance could be reached.
    pauses: Backoff,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// With what the caller is to get.
    LastWord,
    /// Without anything sent.
    Unsent,
    /// With the request not processed. A busy instance is left alone.
    Unprocessed { is_busy: bool },
    /// With the request received, or perhaps, and this reason to send it again.
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
        let kept_bytes = retry.kept_bytes(request.method(), may_be_http2);
        let request = ReplayRequest::new(request, kept_bytes);
        Self {
            route,
            deadline,
            request,
            latest: None,
            tried: Vec::new(),
            sent: 0,
            unsent: 0,
            refusals: 0,
            refusals_here: 0,
            unconnected: None,
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
    /// Makes the call once there is an instance, for a caller that waits for one.
    async fn wait_and_go_on<RB>(mut self) -> Result<Answer<RB>, Error>
    where
        RB: Body,
        E: Callee<B, RB>,
    {
        let Some(picked) = self.wait_for_instance().await else {
            return Err(self.route.balance.no_endpoints_for(&self.request.parts));
        };
        self.route.budget.deposit(picked.at());
        let result = self.try_at(picked).await;
        let verdict = self.verdict(&result);
        self.go_on(result, verdict).await
    }

    /// What follows a try that was not the last word.
    async fn go_on<RB>(
        mut self,
        mut result: Result<Answer<RB>, Error>,
        mut verdict: Verdict,
    ) -> Result<Answer<RB>, Error>
    where
        RB: Body,
        E: Callee<B, RB>,
    {
        while let Some(picked) = self.next(verdict).await {
            if let Err(error) = result {
                debug!(%error, "trying another instance");
            }
            result = self.try_at(picked).await;
            verdict = self.verdict(&result);
        }
        result
    }

    async fn try_at<RB>(&mut self, picked: Picked<E, HttpResponses>) -> Result<Answer<RB>, Error>
    where
        RB: Body,
        E: Callee<B, RB>,
    {
        match self.options().retry.hedge() {
            None => self.attempt(picked).await,
            Some(delay) => self.hedged(picked, delay).await,
        }
    }

    /// One try.
    fn attempt(&self, picked: Picked<E, HttpResponses>) -> Attempt<E, B>
    where
        E: Service<Request<AttemptBody<B>>, Error: Into<BoxError>>,
    {
        let CallOptions { host, deadline_header, retry, .. } = self.options();
        let address = picked.service().address();
        let mut request = self.request.request(address);
        let kept_host = if *host == HostHeader::Kept { written_host(&self.request.parts) } else { None };
        match kept_host {
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
        let until = retry.attempt_time_limit().map(|time| Instant::now() + time.min(LONGEST_WAIT));
        let deadline = [self.deadline.instant(), until].into_iter().flatten().min();
        let mut attempt = picked.call_until(request, deadline);
        if E::IS_SHARED {
            attempt.excuse_wait();
        }
        attempt
    }

    /// One try, and another one beside it if that takes long: the first good answer counts.
    async fn hedged<RB>(&mut self, picked: Picked<E, HttpResponses>, delay: Duration) -> Result<Answer<RB>, Error>
    where
        RB: Body,
        E: Callee<B, RB>,
    {
        let mut first = pin!(self.attempt(picked));
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep(delay) => {}
        }
        let retry = &self.options().retry;
        let may = retry.allows(&self.request.parts.method)
            && self.request.can_repeat()
            && self.sent + 1 < retry.most_attempts();
        let Some(picked) = (if may && self.may_spend("hedge") { self.pick_available() } else { None }) else {
            return first.await;
        };
        self.sent += 1;
        let mut second = pin!(self.attempt(picked));
        // The one that loses is ended here, as that says nothing about its instance.
        tokio::select! {
            result = &mut first => {
                if !self.is_good(&result) {
                    return second.await;
                }
                second.as_mut().lose();
                result
            }
            result = &mut second => {
                if !self.is_good(&result) {
                    return first.await;
                }
                first.as_mut().lose();
                result
            }
        }
    }

    /// Whether this is an answer that the policy takes.
    fn is_good<RB>(&self, result: &Result<Answer<RB>, Error>) -> bool {
        let Ok(answer) = result else { return false };
        let CallOptions { retry, responses, .. } = self.options();
        if !retry.inspects_responses() {
            return true;
        }
        !retry.refuses(answer.status(), answer.headers(), || !responses.head(answer).is_success())
    }

    /// What there is to do after this.
    fn verdict<RB>(&self, result: &Result<Answer<RB>, Error>) -> Verdict {
        if self.is_good(result) || self.deadline.has_passed() {
            return Verdict::LastWord;
        }
        if let Err(error) = result
            && error.is_unprocessed()
        {
            return Verdict::Unprocessed { is_busy: is_busy(error) };
        }
        if !self.request.can_repeat() {
            return Verdict::LastWord;
        }
        match result {
            Ok(_) => Verdict::Sent("refused"),
            Err(error) => match error.kind() {
                Kind::Connect => Verdict::Unsent,
                Kind::Call | Kind::Timeout => Verdict::Sent("lost"),
                _ => Verdict::LastWord,
            },
        }
    }

    /// The next instance to try, if there is any use in that.
    async fn next(&mut self, verdict: Verdict) -> Option<Picked<E, HttpResponses>> {
        let reason = match verdict {
            Verdict::LastWord => return None,
            Verdict::Unsent => return Box::pin(self.next_reachable()).await,
            Verdict::Unprocessed { is_busy } => return Box::pin(self.next_after_refusal(is_busy)).await,
            Verdict::Sent(reason) => reason,
        };
        self.sent += 1;
        let retry = &self.options().retry;
        let may = retry.allows(&self.request.parts.method) && self.sent < retry.most_attempts();
        if !may || !self.may_spend(reason) {
            return None;
        }
        self.pick().or_else(|| {
            // It may have been the connection, not the instance, that was at its end.
            self.tried.clear();
            self.pick()
        })
    }

    /// The next instance for a request that was not sent. Where none is left, a caller who waits for one to be ready waits for one
    /// that can be reached, too.
    async fn next_reachable(&mut self) -> Option<Picked<E, HttpResponses>> {
        let ready_timeout = self.deadline.ready_timeout().unwrap_or_default();
        if self.unconnected().since.elapsed() >= CONNECT_BUDGET.max(ready_timeout) {
            return None;
        }
        self.unsent += 1;
        if self.unsent <= MOST_UNSENT
            && self.may_retry("unsent", self.unsent <= FREE_UNSENT)
            && let Some(picked) = self.pick()
        {
            return Some(picked);
        }
        self.wait_for_instance().await
    }

    /// Waits for an instance as long as the caller wants, with a pause before each is tried again.
    async fn wait_for_instance(&mut self) -> Option<Picked<E, HttpResponses>> {
        let ready_timeout = self.deadline.ready_timeout().unwrap_or_default();
        loop {
            let unconnected = self.unconnected();
            let left = ready_timeout.saturating_sub(unconnected.since.elapsed());
            let pause = unconnected.pauses.next();
            let left = self.deadline.remaining().map_or(left, |deadline| deadline.min(left));
            if left.is_zero() {
                return None;
            }
            if self.route.is_ready() {
                sleep(pause.min(left)).await;
            } else {
                self.route.balance.ready(Some(left)).await;
            }
            self.tried.clear();
            self.latest = None;
            if let Some(picked) = self.pick() {
                return Some(picked);
            }
        }
    }

    fn unconnected(&mut self) -> &mut Unconnected {
        self.unconnected.get_or_insert_with(|| {
            let pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
            Unconnected { since: Instant::now(), pauses }
        })
    }

    /// The next instance for a request that was sent and not processed: the same one, over another connection if that was at its end.
    /// After several refusals, or where it is busy, another one.
    async fn next_after_refusal(&mut self, is_busy: bool) -> Option<Picked<E, HttpResponses>> {
        self.refusals += 1;
        self.refusals_here += 1;
        if self.refusals > MOST_REFUSALS
            || !self.request.wait_until_repeatable().await
            || !self.may_retry("unprocessed", self.refusals <= FREE_REFUSALS)
        {
            return None;
        }
        if self.refusals > 1 {
            sleep(pause_after(self.refusals, self.deadline.remaining())).await;
        }
        if !is_busy
            && self.refusals_here <= REFUSALS_AT_ONE
            && let Some(latest) = self.latest
            && let Some(picked) = self.route.balance.pick_again(latest)
        {
            return Some(picked);
        }
        self.refusals_here = 0;
        let picked = self.pick();
        if picked.is_some() || is_busy {
            return picked;
        }
        self.tried.clear();
        self.pick()
    }

    /// Returns `true` if a request that was not received may be sent once more, at the expense of the budget unless that is
    /// free.
    fn may_retry(&self, reason: &'static str, is_free: bool) -> bool {
        if is_free {
            self.route.meters.retried(reason);
        }
        is_free || self.may_spend(reason)
    }

    /// Whether there is budget for one more try.
    fn may_spend(&self, reason: &'static str) -> bool {
        let may = self.route.budget.withdraw(Instant::now());
        if may {
            self.route.meters.retried(reason);
        } else {
            self.route.meters.over_budget();
        }
        may
    }

    /// An instance beside the one that is being tried. None that was ejected: it would only be faster to fail.
    fn pick_available(&mut self) -> Option<Picked<E, HttpResponses>> {
        self.tried.extend(self.latest.take());
        let picked = self.route.balance.pick_available(&self.request.parts, &self.tried)?;
        self.latest = Some(picked.id());
        Some(picked)
    }

    fn pick(&mut self) -> Option<Picked<E, HttpResponses>> {
        self.tried.extend(self.latest.take());
        let picked = self.route.balance.pick(&self.request.parts, &self.tried)?;
        self.latest = Some(picked.id());
        Some(picked)
    }
}

/// Pause after so many refusals, with jitter and within the time that is left.
fn pause_after(refusals: usize, left: Option<Duration>) -> Duration {
    let pause = FIRST_REFUSAL_PAUSE.saturating_mul(1 << (refusals - 2)).min(LAST_REFUSAL_PAUSE);
    let pause = jittered(pause);
    left.map_or(pause, |left| left.min(pause))
}

/// The `host` header that the caller wrote, or else the name in the URI.
fn written_host(parts: &Parts) -> Option<HeaderValue> {
    parts.headers.get(HOST).cloned().or_else(|| HeaderValue::from_str(parts.uri.host()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_refusals_have_jitter_with_and_without_a_deadline() {
        for left in [None, Some(Duration::from_secs(60))] {
            let pauses: Vec<_> = (0..20).map(|_| pause_after(4, left)).collect();
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{left:?}: {pauses:?}");
        }
        assert_eq!(pause_after(2, Some(Duration::ZERO)), Duration::ZERO);
    }
}
