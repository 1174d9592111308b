use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request};
use tokio::time::Instant;

use crate::balance::is_grpc;
use crate::error::{Error, Kind};

/// By when a call must have its answer: an extension of the request.
///
/// Covers all that happens until the head of the answer has come: waiting for an instance, connecting, trying another one. Without
/// one, and without a [deadline header](super::CallOptions::deadline_header) or `grpc-timeout`, a call takes as long as its
/// instance does.
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::client::Deadline;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let request = http::Request::get("http://orders/42").extension(Deadline::within(Duration::from_millis(800))).body(());
/// # assert!(request.is_ok());
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now, at most a year.
    pub fn within(time: Duration) -> Self {
        Self(Instant::now() + time.min(crate::time::LONGEST_WAIT))
    }

    /// At this instant.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// When it is.
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// How long a call waits for an instance of its application that can be reached, instead of the
/// [ready timeout](crate::EurekaBuilder::ready_timeout): an extension of the request. Zero fails at once; a wait like this goes on
/// also where others already fail at once, and where all instances refuse connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub Duration);

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How the time left travels with a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallDeadline {
    deadline: Option<Instant>,
    is_grpc: bool,
    ready_timeout: Option<Duration>,
}

impl CallDeadline {
    /// What the request says: the earliest of what its extension, `grpc-timeout` and `header` (in milliseconds) name, or else
    /// `default`.
    pub(super) fn of<B>(request: &Request<B>, header: Option<&HeaderName>, default: Option<Duration>) -> Self {
        let told = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        let within = |time: Duration| Deadline::within(time).0;
        let grpc = request.headers().get(GRPC_TIMEOUT).and_then(grpc_timeout).map(within);
        let millis = |value: &HeaderValue| value.to_str().ok()?.trim().parse().ok().map(Duration::from_millis);
        let plain = header.and_then(|name| request.headers().get(name)).and_then(millis).map(within);
        let deadline = [told, grpc, plain].into_iter().flatten().min().or_else(|| default.map(within));
        let is_grpc = grpc.is_some() || is_grpc(request.headers());
        let ready_timeout = request.extensions().get::<WaitForReady>().map(|wait| wait.0);
        Self { deadline, is_grpc, ready_timeout }
    }

    /// Waits so long for an instance unless the request says otherwise.
    pub(super) fn with_ready_timeout(self, default: Option<Duration>) -> Self {
        Self { ready_timeout: self.ready_timeout.or(default), ..self }
    }

    pub(super) fn instant(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller would wait for an instance, if it said so.
    pub(super) fn ready_timeout(&self) -> Option<Duration> {
        self.ready_timeout
    }

    /// What is left of the time, for what can wait at most so long.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Gives something up when the time is over.
    pub(super) async fn enforce<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some(deadline) = self.deadline else { return work.await };
        let late = |_| Error::new(Kind::Timeout, "call").cause("no answer before the deadline of the call");
        tokio::time::timeout_at(deadline, work).await.map_err(late)?
    }

    /// Whether the time is over.
    pub(super) fn has_passed(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// Passes on what is left, where there is a header for it: `header` for plain HTTP, in milliseconds.
    pub(super) fn write_headers(&self, headers: &mut HeaderMap, header: Option<&HeaderName>) {
        let Some(left) = self.remaining() else { return };
        // Rounded up, so that the other side does not give up before this one. At least one: zero would say that there is no use
        // in trying.
        let millis = left.as_nanos().div_ceil(1_000_000).clamp(1, 99_999_999);
        if self.is_grpc {
            // Eight digits at most (gRPC: PROTOCOL-HTTP2, "Timeout").
            headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(format!("{millis}m")).expect("digits are a header"));
        } else if let Some(name) = header {
            headers.insert(name.clone(), HeaderValue::from(millis as u64));
        }
    }
}

/// gRPC's `Timeout`: up to eight digits and a unit. What is malformed says nothing.
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
    async fn the_earliest_deadline_counts_and_what_is_left_is_passed_on() {
        let header = HeaderName::from_static("x-timeout-ms");
        let mut request = request(&[("x-timeout-ms", "700")]);
        request.extensions_mut().insert(Deadline::within(Duration::from_secs(1)));
        let deadline = CallDeadline::of(&request, Some(&header), None);
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
    async fn grpc_has_a_header_of_its_own() {
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
            let deadline = CallDeadline::of(&request, None, None);
            assert_eq!(deadline.remaining().map(|left| left.as_millis()), left, "{text}");
        }
        let mut request = self::request(&[("grpc-timeout", "2S")]);
        let deadline = CallDeadline::of(&request, None, Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_millis(500)).await;
        deadline.write_headers(request.headers_mut(), None);
        assert_eq!(request.headers()["grpc-timeout"], "1500m");
    }
}
