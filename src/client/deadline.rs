use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request};
use tokio::time::Instant;

use crate::balance::is_grpc;
use crate::error::{Error, Kind};
use crate::time::add_capped;

/// Deadline of a call, as an extension of its request.
///
/// The deadline covers everything until the head of the response: waiting for an instance,
/// connecting, and further attempts. In a gRPC channel it also covers the response until its end.
///
/// The earliest of this deadline, the [deadline header](super::CallOptions::deadline_header) and
/// `grpc-timeout` counts. A call without any of them has the limit of
/// [`CallOptions::timeout`](super::CallOptions::timeout). By default that is no limit.
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::client::Deadline;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let deadline = Deadline::within(Duration::from_millis(800));
/// let request = http::Request::get("http://orders/42").extension(deadline).body(());
/// # assert!(request.is_ok());
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline after this time from now. The time is at most a year.
    pub fn within(time: Duration) -> Self {
        Self(add_capped(Instant::now(), time))
    }

    /// Returns the deadline at this instant.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// Returns the instant of the deadline.
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// Maximum time that a call waits for a reachable instance, as an extension of its request.
///
/// Replaces the [ready timeout](crate::EurekaBuilder::ready_timeout) for this call. The call waits
/// even if other calls already fail fast, and while all instances refuse connections. It never
/// waits beyond its [`Deadline`]. Zero fails at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub Duration);

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Time limits of one call, as its request and the options set them.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallDeadline {
    at: Option<Instant>,
    /// True for calls of gRPC that have a deadline.
    is_grpc: bool,
    ready_timeout: Option<Duration>,
}

impl CallDeadline {
    /// Reads the limits of a request.
    ///
    /// The deadline is the earliest of the extension, `grpc-timeout`, and `header` in milliseconds.
    /// Without any, it is `default`. Times count from `now`, which is called if there is one.
    pub(super) fn of<B>(
        request: &Request<B>,
        now: impl Fn() -> Instant,
        header: Option<&HeaderName>,
        default: Option<Duration>,
    ) -> Self {
        let extension = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        let within = |time: Duration| add_capped(now(), time);
        let grpc = request.headers().get(GRPC_TIMEOUT).and_then(grpc_timeout).map(within);
        let millis = |value: &HeaderValue| value.to_str().ok()?.trim().parse().ok().map(Duration::from_millis);
        let plain = header.and_then(|name| request.headers().get(name)).and_then(millis).map(within);
        let at = [extension, grpc, plain].into_iter().flatten().min().or_else(|| default.map(within));
        let is_grpc = grpc.is_some() || (at.is_some() && is_grpc(request.headers()));
        let ready_timeout = request.extensions().get::<WaitForReady>().map(|wait| wait.0);
        Self { at, is_grpc, ready_timeout }
    }

    /// Sets the time to wait for an instance, unless the request sets one.
    pub(super) fn with_ready_timeout(self, default: Option<Duration>) -> Self {
        Self { ready_timeout: self.ready_timeout.or(default), ..self }
    }

    pub(super) fn instant(&self) -> Option<Instant> {
        self.at
    }

    /// Maximum time to wait for an instance, if set.
    pub(super) fn ready_timeout(&self) -> Option<Duration> {
        self.ready_timeout
    }

    /// Time left until the deadline.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Runs a future until the deadline. Fails with a timeout after it.
    pub(super) async fn enforce<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some(at) = self.at else { return work.await };
        let late = |_| Error::new(Kind::Timeout, "call").cause("no response before the deadline of the call");
        tokio::time::timeout_at(at, work).await.map_err(late)?
    }

    /// Returns `true` after the deadline.
    pub(super) fn has_passed(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// Writes the remaining time into `grpc-timeout`, or for plain HTTP into `header` in
    /// milliseconds.
    pub(super) fn write_headers(&self, headers: &mut HeaderMap, header: Option<&HeaderName>) {
        let Some(left) = self.remaining() else { return };
        // Rounded up, so that the server does not stop before the caller. At least one, since zero
        // would mean that the deadline has passed.
        let millis = left.as_nanos().div_ceil(1_000_000).clamp(1, 99_999_999);
        if self.is_grpc {
            // At most eight digits (gRPC: PROTOCOL-HTTP2, "Timeout").
            headers.insert(
                GRPC_TIMEOUT,
                HeaderValue::try_from(format!("{millis}m")).expect("digits are a valid header value"),
            );
        } else if let Some(name) = header {
            headers.insert(name.clone(), HeaderValue::from(millis as u64));
        }
    }
}

/// Parses gRPC's `Timeout`: up to eight digits and a unit. Returns `None` if malformed.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let request = headers.iter().fold(Request::get("/"), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_is_the_earliest_and_the_remaining_time_is_sent() {
        let header = HeaderName::from_static("x-timeout-ms");
        let mut request = request(&[("x-timeout-ms", "700")]);
        request.extensions_mut().insert(Deadline::within(Duration::from_secs(1)));
        let deadline = CallDeadline::of(&request, Instant::now, Some(&header), None);
        assert_eq!(deadline.remaining(), Some(Duration::from_millis(700)));
        tokio::time::advance(Duration::from_millis(200)).await;
        deadline.write_headers(request.headers_mut(), Some(&header));
        assert_eq!(request.headers()["x-timeout-ms"], "500");
        assert!(!request.headers().contains_key("grpc-timeout"));
        tokio::time::advance(Duration::from_secs(5)).await;
        deadline.write_headers(request.headers_mut(), Some(&header));
        assert_eq!(request.headers()["x-timeout-ms"], "1");
    }

    #[tokio::test(start_paused = true)]
    async fn grpc_deadline_is_read_from_and_sent_as_grpc_timeout() {
        for (text, left) in [
            ("2S", Some(2_000)),
            ("150m", Some(150)),
            ("99999999H", Some(crate::time::LONGEST_WAIT.as_millis())),
            ("2000000u", Some(2_000)),
            ("123456789m", None),
            ("-1S", None),
            ("m", None),
            ("", None),
            ("5", None),
            ("ä", None),
        ] {
            let mut request = self::request(&[("content-type", "application/grpc")]);
            request.headers_mut().insert(GRPC_TIMEOUT, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            let deadline = CallDeadline::of(&request, Instant::now, None, None);
            assert_eq!(deadline.remaining().map(|left| left.as_millis()), left, "{text}");
        }
        let mut request = self::request(&[("grpc-timeout", "2S")]);
        let deadline = CallDeadline::of(&request, Instant::now, None, Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_millis(500)).await;
        deadline.write_headers(request.headers_mut(), None);
        assert_eq!(request.headers()["grpc-timeout"], "1500m");
    }
}
