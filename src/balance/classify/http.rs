//! Classification of HTTP and gRPC responses: head, body and trailers.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;

use super::error;
use super::observe::Observe;
use crate::balance::endpoint::Completion;
use crate::balance::outcome::Outcome;
use crate::body::{BodyGuard, GuardedBody};
use crate::retry_after::retry_after;

/// Classifies a response by its head and trailers, or an error in its place.
///
/// It is the only classifier for ejection, retries, metrics and traces. It may be called more than
/// once for the same response and should return the same result.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_eureka::balance::{ClassifyHttp, DefaultClassifier, HttpResponses, Outcome};
///
/// /// Classifies 404 as a failure: the application returns it while it loads its data.
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
    /// Classifies the head of a response.
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome;

    /// Classifies the trailers of a gRPC response whose head was a success. Defaults to
    /// [`DefaultClassifier`].
    fn trailers(&self, trailers: &HeaderMap) -> Outcome {
        DefaultClassifier.trailers(trailers)
    }

    /// Classifies the error of a call without a response. Defaults to [`DefaultClassifier`], which
    /// knows the errors of this crate, of hyper-util and of the operating system, but not those of
    /// a service of your own.
    ///
    /// An [`Unreachable`](Outcome::Unreachable) request was never sent: a call by name goes to
    /// another instance, whatever its method. A [`Cancelled`](Outcome::Cancelled) one, or a
    /// [`Success`](Outcome::Success) in spite of the error, is not retried. Errors of this crate's
    /// own connections state what was sent; for them the result of this method counts for the
    /// endpoint only.
    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        DefaultClassifier.error(error)
    }
}

/// Default classifier for HTTP and gRPC.
///
/// Statuses 5xx are failures and 429 is an overload, each with the seconds of `Retry-After`. With a
/// `content-type` of `application/grpc` the `grpc-status` counts, in the head or in the trailers:
///
/// | code | outcome |
/// |---|---|
/// | `UNKNOWN`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`, unknown codes | failure |
/// | `RESOURCE_EXHAUSTED` | overload |
/// | `DEADLINE_EXCEEDED` | timeout: the caller's time was over |
/// | `OK`, and codes that blame the caller | success |
///
/// A failure or overload has the time of `grpc-retry-pushback-ms`.
///
/// An error is a failure, unless its chain of sources says more:
///
/// | error | outcome |
/// |---|---|
/// | no connection was established | unreachable |
/// | the body of the request failed | cancelled |
/// | HTTP/2 `GOAWAY` or `REFUSED_STREAM` | unprocessed |
/// | the connection ended before it took the request | unprocessed |
/// | HTTP/2 `ENHANCE_YOUR_CALM` | overload |
/// | a time limit of this crate or of reqwest passed | timeout |
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultClassifier;

impl ClassifyHttp for DefaultClassifier {
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        head_outcome(status, headers, is_grpc(headers))
    }

    fn trailers(&self, trailers: &HeaderMap) -> Outcome {
        grpc_outcome(trailers)
    }

    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        error::outcome(error)
    }
}

const GRPC_STATUS: &str = "grpc-status";

/// Observes HTTP responses, including gRPC. The call lasts until the end of the body.
///
/// A [`ClassifyHttp`] classifies heads, trailers and errors, by default [`DefaultClassifier`]. A
/// body that ends with an error is a failure, and so is a gRPC response that ends without a status.
///
/// The latency is the time until the head. The call is pending until the body has ended or was
/// dropped. The body of a response with status 101 is empty, and counts as pending until it is
/// dropped.
#[derive(Clone, Default)]
pub struct HttpResponses {
    /// `None` is the default classifier, which costs nothing to clone.
    classify: Option<Arc<dyn ClassifyHttp>>,
}

impl HttpResponses {
    /// Creates an observer with this classifier, which decides from the head of a response or the
    /// error whether a call failed. `HttpResponses::default()` has the
    /// [`DefaultClassifier`](super::DefaultClassifier).
    pub fn new(classify: impl ClassifyHttp) -> Self {
        Self { classify: Some(Arc::new(classify)) }
    }

    /// Classifies the head of a response.
    pub(crate) fn head<B>(&self, response: &Response<B>) -> Outcome {
        self.outcome(response.status(), response.headers(), is_grpc(response.headers()))
    }

    fn outcome(&self, status: StatusCode, headers: &HeaderMap, is_grpc: bool) -> Outcome {
        match &self.classify {
            None => head_outcome(status, headers, is_grpc),
            Some(classify) => classify.head(status, headers),
        }
    }
}

impl fmt::Debug for HttpResponses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponses").field("default", &self.classify.is_none()).finish()
    }
}

/// Body of a response through a balancer. Keeps the call pending until the body ends.
pub type ResponseBody<B> = GuardedBody<B, HttpCompletion>;

/// [`Completion`] of an HTTP call whose head has arrived. Public since [`ResponseBody`] names it.
#[derive(Debug)]
pub struct HttpCompletion {
    completion: Completion,
    /// Set while trailers are to be classified.
    trailers: Option<HttpResponses>,
}

impl HttpCompletion {
    /// Returns the id of the endpoint, as [`Candidates::id`](crate::balance::Candidates::id) does.
    pub fn endpoint(&self) -> &str {
        self.completion.endpoint()
    }
}

impl<B: Body> Observe<Response<B>> for HttpResponses {
    type Response = Response<ResponseBody<B>>;

    fn observe(&self, mut completion: Completion, response: Response<B>) -> Self::Response {
        let (status, headers) = (response.status(), response.headers());
        let is_grpc = is_grpc(headers);
        let outcome = self.outcome(status, headers, is_grpc);
        if matches!(outcome, Outcome::TimedOut | Outcome::Cancelled | Outcome::Unprocessed) {
            completion.record_activity();
        }
        completion.outcome(outcome);
        let to_come = is_grpc && outcome.is_success() && !headers.contains_key(GRPC_STATUS);
        let trailers = to_come.then(|| self.clone());
        let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
        response.map(|body| {
            let guard = HttpCompletion { completion, trailers };
            if is_upgrade { GuardedBody::kept(body, guard) } else { GuardedBody::new(body, guard) }
        })
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
        let Some(observer) = self.trailers.take() else { return };
        let outcome = match &observer.classify {
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
        self.completion.lost(Outcome::Failure { retry_after: None });
    }
}

/// Returns `true` for gRPC: `application/grpc` with or without a format, but not
/// `application/grpc-web`, which has no trailers.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

fn head_outcome(status: StatusCode, headers: &HeaderMap, is_grpc: bool) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Overloaded { retry_after: retry_after(headers) },
        status if status.is_server_error() => Outcome::Failure { retry_after: retry_after(headers) },
        _ if is_grpc && headers.contains_key(GRPC_STATUS) => grpc_outcome(headers),
        _ => Outcome::Success,
    }
}

/// Codes that blame the caller are no fault of the instance.
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

// Status codes of gRPC (gRPC's list "Status codes and their use"). 5 to 7 are NOT_FOUND,
// ALREADY_EXISTS and PERMISSION_DENIED, 9 to 12 are FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE and
// UNIMPLEMENTED.
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
