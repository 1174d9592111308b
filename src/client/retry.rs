use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::budget::Budget;

/// When a call is made again, on another instance.
///
/// A call that failed before its first byte was sent (refused, unreachable, connect timeout, TLS) goes to another instance, whatever
/// its method: to three others, then to further ones as long as the budget allows, at most ten.
///
/// A call that its instance stated it did not process (HTTP/2's `GOAWAY` and `REFUSED_STREAM`; RFC 9113, 8.7), or whose connection
/// ended before it took the request, is sent again whatever its method: to the same instance, over a new connection where the old one
/// ended, after two more such refusals to another one, after three at the expense of the budget, and at most eight times. An instance that
/// has no stream left, or asked for calm (`ENHANCE_YOUR_CALM`), is not asked again. None of this counts against the instance.
///
/// A connection lost before the head of the response is tried again by default if the method is idempotent (RFC 9110,
/// 9.2.2: GET, HEAD, OPTIONS, TRACE, PUT, DELETE), as long as the budget allows. Answers are taken as they are, unless
/// [`statuses`](Self::statuses) or [`grpc_codes`](Self::grpc_codes) name them, or [`failed_responses`](Self::failed_responses) are not wanted.
///
/// An instance that was tried is tried again only if there is no other.
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::client::RetryPolicy;
///
/// let policy = RetryPolicy::new().statuses([502, 503, 504]).attempts(3).attempt_timeout(Duration::from_secs(2));
/// ```
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    attempts: usize,
    statuses: Arc<[u16]>,
    grpc_codes: Arc<[i32]>,
    failed_responses: bool,
    all_methods: bool,
    attempt_timeout: Option<Duration>,
    hedge_after: Option<Duration>,
    replay_limit: usize,
    budget: (Duration, u32, f32),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            statuses: Arc::default(),
            grpc_codes: Arc::default(),
            failed_responses: false,
            all_methods: false,
            attempt_timeout: None,
            hedge_after: None,
            replay_limit: 64 << 10,
            budget: (Duration::from_secs(10), 10, 0.2),
        }
    }
}

impl RetryPolicy {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only what was never sent goes to another instance.
    pub fn unsent_only() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// Sets the maximum number of times that a call is sent. Tries that could not connect, or were not processed, are not
    /// counted. Defaults to 3; 1 repeats nothing that was sent.
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Answers with one of these statuses are tried again, if the method allows it. Default none.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// gRPC answers whose head has one of these codes are tried again, such as 14 for `UNAVAILABLE`. All gRPC calls are POST, so
    /// this asks for [`all_methods`](Self::all_methods) as well. Default none.
    ///
    /// A server that fails before it answers anything says so in the head (gRPC: PROTOCOL-HTTP2, "Trailers-Only"). An answer that has
    /// begun is the caller's, and not tried again whatever code its trailers have, even if it has no message (gRPC: proposal A6, on
    /// when retries are valid). Nor is one where the server forbids it by a `grpc-retry-pushback-ms` that is no number from 0 on
    /// (A6, on pushback); a wait that it asks for there counts for that instance.
    #[must_use]
    pub fn grpc_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.grpc_codes = codes.into_iter().collect();
        self
    }

    /// Answers whose head the [classifier](super::CallOptions::classifier) does not take for a success are tried again, if the method
    /// allows it: unless it is your own, those of 429 and 5xx and of gRPC codes that blame the server. Default off.
    #[must_use]
    pub fn failed_responses(mut self) -> Self {
        self.failed_responses = true;
        self
    }

    /// Takes all methods for idempotent: what was received may be done twice. Default only those that are.
    #[must_use]
    pub fn all_methods(mut self) -> Self {
        self.all_methods = true;
        self
    }

    /// How long one try waits for the head of its answer. What took longer counts as failed and is tried again as if the
    /// connection had been lost. Default: as long as the call may take.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// When a call has no answer after this time, it is made on another instance as well, and the first answer counts. Needs an
    /// idempotent method, budget, and a body that has been sent whole. Choose the time that 95 % of the calls take. Default off.
    #[must_use]
    pub fn hedge_after(mut self, delay: Duration) -> Self {
        self.hedge_after = Some(delay);
        self
    }

    /// How many bytes of a request's body are kept to be sent again. A longer one is not sent again. Kept only for calls that may
    /// be, among them all those that HTTP/2 may carry, as a server may not process them. Default 64 KiB.
    #[must_use]
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// How many further tries there may be for each application: this share of its calls in the last `window`, plus so many per
    /// second. Keeps retries from making an outage worse. Default 0.2, 10 and 10 s.
    #[must_use]
    pub fn budget(mut self, share: f32, per_second: u32, window: Duration) -> Self {
        let window = window.clamp(Duration::from_secs(1), Duration::from_secs(60));
        self.budget = (window, per_second, if share.is_nan() { 0.0 } else { share.clamp(0.0, 1000.0) });
        self
    }

    /// Whether what may have been received may be sent again.
    pub(super) fn allows(&self, method: &Method) -> bool {
        self.attempts > 1 && (self.all_methods || is_idempotent(method))
    }

    /// Whether an answer with this head is one to be tried again.
    pub(super) fn should_retry(&self, status: StatusCode, headers: &HeaderMap, failed: impl FnOnce() -> bool) -> bool {
        let number = |value: &HeaderValue| value.to_str().ok()?.parse::<i32>().ok();
        let code = headers.get("grpc-status").and_then(number);
        let is_refused = self.statuses.contains(&status.as_u16())
            || code.is_some_and(|code| self.grpc_codes.contains(&code))
            || self.failed_responses && failed();
        let forbids = |value| number(value).is_none_or(|wait| wait < 0);
        is_refused && !headers.get("grpc-retry-pushback-ms").is_some_and(forbids)
    }

    /// Whether any answer is.
    pub(super) fn inspects_responses(&self) -> bool {
        self.failed_responses || !self.statuses.is_empty() || !self.grpc_codes.is_empty()
    }

    pub(super) fn max_attempts(&self) -> usize {
        self.attempts
    }

    pub(super) fn attempt_time_limit(&self) -> Option<Duration> {
        self.attempt_timeout
    }

    pub(super) fn hedge(&self) -> Option<Duration> {
        self.hedge_after
    }

    /// How much of this call's body is to be kept.
    pub(super) fn replay_bytes(&self, method: &Method, is_http2: bool) -> usize {
        if self.allows(method) || is_http2 { self.replay_limit } else { 0 }
    }

    pub(super) fn new_budget(&self) -> Budget {
        let (window, per_second, share) = self.budget;
        Budget::new(window, per_second, share)
    }
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(policy: &RetryPolicy, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        policy.should_retry(StatusCode::OK, &headers.collect(), || false)
    }

    #[test]
    fn a_grpc_code_counts_in_the_head_and_unless_the_server_forbids_another_try() {
        let policy = RetryPolicy::new().grpc_codes([14]);
        assert!(grpc(&policy, &[("grpc-status", "14")]));
        for head in [&[][..], &[("grpc-status", "13")], &[("grpc-status", "")], &[("grpc-status", "UNAVAILABLE")]] {
            assert!(!grpc(&policy, head), "{head:?}");
        }
        for (pushback, again) in [("0", true), ("250", true), ("-1", false), ("", false), ("soon", false)] {
            let head = [("grpc-status", "14"), ("grpc-retry-pushback-ms", pushback)];
            assert_eq!(grpc(&policy, &head), again, "{pushback}");
        }
    }
}
