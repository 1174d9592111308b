//! The judgement of HTTP and gRPC answers: head, body and trailers.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;

use super::observe::{Completion, Observe, Outcome};
use crate::body::{BodyGuard, GuardedBody};

/// Says what an answer, by its head and its trailers, or an error in its place tells of the endpoint. The one classifier for
/// ejection, retries, metrics and traces. It may be asked more than once about the same answer, and should say the same.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_eureka::balance::{ClassifyHttp, DefaultClassifier, HttpResponses, Outcome};
///
/// /// An application that answers 404 while it loads its data.
/// struct NotFoundIsFailing;
///
/// impl ClassifyHttp for NotFoundIsFailing {
///     fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
///         match status {
///             StatusCode::NOT_FOUND => Outcome::Failure { retry_after: None },
///             _ => DefaultClassifier.head(status, headers),
///         }
///     }
/// }
///
/// let observer = HttpResponses::new(NotFoundIsFailing);
/// ```
pub trait ClassifyHttp: Send + Sync + 'static {
    /// Judges the head of an answer.
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome;

    /// Judges the trailers of a gRPC answer whose head was a success. By default as [`DefaultClassifier`] does.
    fn trailers(&self, trailers: &HeaderMap) -> Outcome {
        DefaultClassifier.trailers(trailers)
    }

    /// Judges the error of a call that got no answer. By default as [`DefaultClassifier`] does, which knows the errors of this crate,
    /// of hyper-util and of the operating system, but not what a service of your own has to say.
    ///
    /// What is [`Unreachable`](Outcome::Unreachable) was never sent: by name it goes to another instance, whatever its method. What is
    /// [`GivenUp`](Outcome::GivenUp) or a [`Success`](Outcome::Success) in spite of the error is not tried again. An error of this crate's
    /// own connections says itself what was sent; the judgement counts for the endpoint alone.
    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        DefaultClassifier.error(error)
    }
}

/// A status of 5xx is a failure, 429 an overload, each with what `Retry-After` says in seconds. With a `content-type` of
/// `application/grpc` the `grpc-status` counts, in the head or in the trailers: codes that blame the server are failures
/// (`UNKNOWN`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`, and any unheard of), `RESOURCE_EXHAUSTED` is an
/// overload, `DEADLINE_EXCEEDED` means that the caller's time was over, and what blames the caller is a success. An error is a failure, unless it says in its chain of sources that no
/// connection came about, or that it was the body of the request that failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultClassifier;

impl ClassifyHttp for DefaultClassifier {
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        let retry_after = || Some(Duration::from_secs(headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?));
        match status {
            StatusCode::TOO_MANY_REQUESTS => Outcome::Overloaded { retry_after: retry_after() },
            status if status.is_server_error() => Outcome::Failure { retry_after: retry_after() },
            _ if is_grpc(headers) && headers.contains_key(GRPC_STATUS) => grpc_outcome(headers),
            _ => Outcome::Success,
        }
    }

    fn trailers(&self, trailers: &HeaderMap) -> Outcome {
        grpc_outcome(trailers)
    }

    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        super::connect::outcome(error)
    }
}

const GRPC_STATUS: &str = "grpc-status";

/// Judges HTTP answers, gRPC included; the call goes on until the end of the body.
///
/// What the head, the trailers and errors say is up to a [`ClassifyHttp`], by default [`DefaultClassifier`]. A body that breaks off with
/// an error is a failure, and so is a gRPC answer that ends without a status.
///
/// The latency is that of the head, the call is pending until the body has ended or was dropped.
#[derive(Clone, Default)]
pub struct HttpResponses {
    /// `None` for the default, which then costs nothing to clone.
    classify: Option<Arc<dyn ClassifyHttp>>,
}

impl HttpResponses {
    /// Judges by another classifier.
    pub fn new(classify: impl ClassifyHttp) -> Self {
        Self { classify: Some(Arc::new(classify)) }
    }

    /// What the head of an answer says.
    pub(crate) fn head<B>(&self, response: &Response<B>) -> Outcome {
        let (status, headers) = (response.status(), response.headers());
        match &self.classify {
            None => DefaultClassifier.head(status, headers),
            Some(classify) => classify.head(status, headers),
        }
    }
}

impl fmt::Debug for HttpResponses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponses").field("default", &self.classify.is_none()).finish()
    }
}

/// The body of an answer that went through a balancer: keeps the call pending until it ends.
pub type ResponseBody<B> = GuardedBody<B, HttpCompletion>;

/// The [`Completion`] of an HTTP call whose head has arrived.
#[derive(Debug)]
pub struct HttpCompletion {
    completion: Completion,
    /// Set while trailers are to be judged.
    trailers: Option<HttpResponses>,
}

impl HttpCompletion {
    /// The id of the endpoint that answers: the instance's, where instances are balanced.
    pub fn endpoint(&self) -> &str {
        self.completion.endpoint()
    }
}

impl<B: Body> Observe<Response<B>> for HttpResponses {
    type Response = Response<ResponseBody<B>>;

    fn observe(&self, mut completion: Completion, response: Response<B>) -> Self::Response {
        let outcome = self.head(&response);
        if matches!(outcome, Outcome::TimedOut | Outcome::GivenUp | Outcome::Unprocessed) {
            completion.sign_of_life();
        }
        completion.outcome(outcome);
        let to_come =
            outcome.is_success() && is_grpc(response.headers()) && !response.headers().contains_key(GRPC_STATUS);
        let trailers = to_come.then(|| self.clone());
        response.map(|body| GuardedBody::new(body, HttpCompletion { completion, trailers }))
    }

    fn observe_error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        match &self.classify {
            None => DefaultClassifier.error(error),
            Some(classify) => classify.error(error),
        }
    }
}

impl BodyGuard for HttpCompletion {
    fn on_trailers(&mut self, trailers: &HeaderMap) {
        let Some(judge) = self.trailers.take() else { return };
        let outcome = match &judge.classify {
            None => DefaultClassifier.trailers(trailers),
            Some(classify) => classify.trailers(trailers),
        };
        if !outcome.is_success() {
            self.completion.outcome(outcome);
        }
    }

    fn on_end(&mut self) {
        if self.trailers.take().is_some() {
            self.completion.failure();
        }
    }

    fn on_error(&mut self) {
        self.completion.failure();
    }
}

/// Whether this is gRPC: `application/grpc`, with a format or without, and not `application/grpc-web`, which has no trailers.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The codes by which a caller's own mistake or wish is told are no fault of the instance.
fn grpc_outcome(headers: &HeaderMap) -> Outcome {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text(GRPC_STATUS).and_then(|code| code.parse::<i32>().ok());
    let retry_after = text("grpc-retry-pushback-ms").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    match code {
        Some(
            OK | CANCELLED | INVALID_ARGUMENT | NOT_FOUND..=PERMISSION_DENIED | FAILED_PRECONDITION..=UNIMPLEMENTED,
        ) => Outcome::Success,
        Some(UNAUTHENTICATED) => Outcome::Success,
        Some(RESOURCE_EXHAUSTED) => Outcome::Overloaded { retry_after },
        // The deadline is the caller's, and the call may be a long poll.
        Some(DEADLINE_EXCEEDED) => Outcome::TimedOut,
        _ => Outcome::Failure { retry_after },
    }
}

// gRPC's status codes (grpc: doc/statuscodes.md); 5 to 7 are NOT_FOUND, ALREADY_EXISTS and PERMISSION_DENIED, 9 to 12
// FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE and UNIMPLEMENTED.
const OK: i32 = 0;
const CANCELLED: i32 = 1;
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;
