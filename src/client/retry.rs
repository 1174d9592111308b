use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::backoff::Backoff;
use super::budget::Budget;

/// Policy that decides when a call is attempted again, and at which instance.
///
/// The defaults are safe for all methods: a request that may have been received is repeated only if
/// its method is idempotent. Three cases are distinguished:
///
/// - **Unsent**: the attempt failed before its first byte was sent (refused, unreachable, connect
///   timeout, TLS, or two new HTTP/1.1 connections that were closed at once). Up to ten other
///   instances are tried, whatever the method. The first three are free of the
///   [budget](Self::budget).
/// - **Unprocessed**: the instance stated that it did not process the request (HTTP/2's `GOAWAY`
///   and `REFUSED_STREAM`, and `HTTP_1_1_REQUIRED` for a request that can be sent over HTTP/1.1;
///   RFC 9113, 8.7), or its connection ended before it took the request. The request is sent again
///   up to eight times, whatever the method: twice to the same instance, then to another one. The
///   first three are free of the budget. An instance without a free stream, or that sent
///   `ENHANCE_YOUR_CALM`, is not tried again. None of this counts as a failure of the instance.
/// - **Lost**: the connection was lost before the head of the response. The call is attempted again
///   within the budget and the number of [attempts](Self::attempts) if its method is idempotent
///   (RFC 9110, 9.2.2: GET, HEAD, OPTIONS, TRACE, PUT, DELETE). Over HTTP/1.1, the next attempts
///   use new connections, since a server often closes its idle ones together. Tomcat closes an
///   HTTP/2 connection with all its streams, without `GOAWAY`, when it receives the rest of a body
///   that its service did not wait for.
///
/// Responses are returned as they are, unless [`statuses`](Self::statuses),
/// [`grpc_codes`](Self::grpc_codes) or [`failed_responses`](Self::failed_responses) select them for
/// another attempt. An instance that was tried is tried again only if there is no other. An attempt
/// after a response or a lost connection begins at once, unless there is a
/// [back-off](Self::backoff).
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::client::RetryPolicy;
///
/// let policy = RetryPolicy::new()
///     .statuses([502, 503, 504])
///     .attempts(3)
///     .attempt_timeout(Duration::from_secs(2));
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
    backoff: Option<Backoff>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: Self::ATTEMPTS,
            statuses: Arc::default(),
            grpc_codes: Arc::default(),
            failed_responses: false,
            all_methods: false,
            attempt_timeout: None,
            hedge_after: None,
            replay_limit: 64 << 10,
            budget: (Duration::from_secs(10), 10, 0.2),
            backoff: None,
        }
    }
}

impl RetryPolicy {
    /// Default of [`attempts`](Self::attempts).
    pub(crate) const ATTEMPTS: usize = 3;

    /// Returns the default policy: at most three attempts of a request with an idempotent method if
    /// the connection is lost, without repetition after a response. Requests that were not sent go
    /// to another instance whatever their method.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a policy that repeats only requests that were not sent or not processed.
    pub fn unsent_only() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// Sets the maximum number of attempts that an instance may have received, the first one
    /// included. Attempts that could not connect, or were not processed, are not counted. Defaults
    /// to 3, and is at least 1.
    ///
    /// With 1, no request that may have been received is repeated.
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Repeats calls whose response has one of these statuses, if their method is idempotent.
    /// Defaults to none.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// Repeats gRPC calls whose response head has one of these codes, such as 14 for `UNAVAILABLE`.
    /// Defaults to none.
    ///
    /// All gRPC calls are POST, so this has no effect without [`all_methods`](Self::all_methods).
    /// The head has a code if the server failed before it sent a message (gRPC: PROTOCOL-HTTP2,
    /// "Trailers-Only"). A response that has started is returned, whatever the code in its trailers
    /// (gRPC: proposal A6, on when retries are valid).
    ///
    /// A server forbids another attempt by a `grpc-retry-pushback-ms` that is not a number of at
    /// least 0 (A6, on pushback). A delay in this header applies to that instance only.
    #[must_use]
    pub fn grpc_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.grpc_codes = codes.into_iter().collect();
        self
    }

    /// Repeats calls whose response head the [classifier](super::CallOptions::classifier) does not
    /// count as a success, if their method is idempotent. Defaults to off.
    ///
    /// The default classifier counts 429, 5xx, and gRPC codes that blame the server as failures.
    #[must_use]
    pub fn failed_responses(mut self) -> Self {
        self.failed_responses = true;
        self
    }

    /// Treats all methods as idempotent. A request that was received may then be processed twice.
    /// Defaults to off.
    #[must_use]
    pub fn all_methods(self) -> Self {
        self.set_all_methods(true)
    }

    pub(crate) fn set_all_methods(mut self, all_methods: bool) -> Self {
        self.all_methods = all_methods;
        self
    }

    /// Sets the time limit of one attempt, until the head of its response. An attempt that takes
    /// longer counts as lost. Defaults to no limit.
    ///
    /// The deadline of the call applies as well.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sends the request to a second instance as well if there is no response after this time. The
    /// first response that needs no retry is returned, and the other attempt is cancelled. Defaults
    /// to off.
    ///
    /// A hedge needs an idempotent method, another available instance, budget, and a body that was
    /// sent completely within the [`replay_limit`](Self::replay_limit). It counts as one of the
    /// [`attempts`](Self::attempts). Choose the 95th percentile of the call's latency.
    #[must_use]
    pub fn hedge_after(mut self, delay: Duration) -> Self {
        self.hedge_after = Some(delay);
        self
    }

    /// Sets the maximum number of bytes of a request body that are buffered for further attempts.
    /// Requests with a longer body are sent once. Defaults to 64 KiB.
    ///
    /// Bodies are buffered only for calls that may be repeated. Those include all calls that HTTP/2
    /// may carry, since a server may not process them.
    #[must_use]
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// Sets the retry budget of each application: retries may add this share of the calls in the
    /// last `window`, plus `per_second`. Defaults to a share of 0.2, 10 retries per second, and 10
    /// seconds.
    ///
    /// The budget keeps retries from making an outage worse. The window is limited to 1 to 60
    /// seconds.
    #[must_use]
    pub fn budget(mut self, share: f32, per_second: u32, window: Duration) -> Self {
        let window = window.clamp(Duration::from_secs(1), Duration::from_secs(60));
        self.budget = (window, per_second, if share.is_nan() { 0.0 } else { share.clamp(0.0, 1000.0) });
        self
    }

    /// Pauses before an attempt that follows a response or a lost connection. Defaults to off.
    ///
    /// If the pause would last until the deadline of the call or longer, there is no further
    /// attempt, and the result of the last one is returned. A request that was not sent or not
    /// processed is sent again without this pause. A hedge has its own
    /// [delay](Self::hedge_after).
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Attempts again at once. This is the default.
    #[must_use]
    pub fn without_backoff(mut self) -> Self {
        self.backoff = None;
        self
    }

    /// Returns the pause after this number of attempts.
    pub(super) fn pause(&self, attempts: usize) -> Duration {
        self.backoff.map_or(Duration::ZERO, |backoff| backoff.pause(attempts))
    }

    /// Returns `true` if the budget equals that of another policy.
    pub(super) fn has_budget_of(&self, other: &Self) -> bool {
        self.budget == other.budget
    }

    /// Returns `true` if a request that may have been received may be sent again.
    pub(super) fn allows(&self, method: &Method) -> bool {
        self.attempts > 1 && (self.all_methods || is_idempotent(method))
    }

    /// Returns `true` if a response with this head asks for another attempt.
    pub(super) fn should_retry(&self, status: StatusCode, headers: &HeaderMap, failed: impl FnOnce() -> bool) -> bool {
        let number = |value: &HeaderValue| value.to_str().ok()?.parse::<i32>().ok();
        let code = headers.get("grpc-status").and_then(number);
        let is_selected = self.statuses.contains(&status.as_u16())
            || code.is_some_and(|code| self.grpc_codes.contains(&code))
            || self.failed_responses && failed();
        let forbids = |value| number(value).is_none_or(|wait| wait < 0);
        is_selected && !headers.get("grpc-retry-pushback-ms").is_some_and(forbids)
    }

    /// Returns `true` if any response can ask for another attempt.
    pub(super) fn inspects_responses(&self) -> bool {
        self.failed_responses || !self.statuses.is_empty() || !self.grpc_codes.is_empty()
    }

    pub(super) fn max_attempts(&self) -> usize {
        self.attempts
    }

    pub(super) fn attempt_time_limit(&self) -> Option<Duration> {
        self.attempt_timeout
    }

    pub(super) fn hedge_delay(&self) -> Option<Duration> {
        self.hedge_after
    }

    /// Number of bytes of the call's body to buffer.
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
    fn grpc_code_in_the_head_is_retried_unless_pushback_forbids_it() {
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
