//! The judgement of HTTP and gRPC answers: head, body and trailers.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use http_body::Body;
use tower_http::classify::{
    ClassifiedResponse, ClassifyEos, ClassifyResponse, GrpcCode, GrpcEosErrorsAsFailures, GrpcErrorsAsFailures,
    ServerErrorsAsFailures,
};

use super::observe::{Completion, Observe};
use crate::body::{BodyGuard, GuardedBody};

/// Judges HTTP answers, gRPC included; the call goes on until the end of the body.
///
/// Failures are
///
/// - a status of 5xx;
/// - with a `content-type` of `application/grpc`, a `grpc-status`, in the head or in the trailers, that blames the server:
///   `UNKNOWN`, `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS` or one unheard of;
/// - a body that breaks off with an error.
///
/// The latency is that of the head, the call is pending until the body has ended or was dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpResponses;

/// The body of an answer that went through a balancer: keeps the call pending until it ends.
pub type ResponseBody<B> = GuardedBody<B, HttpCompletion>;

/// The [`Completion`] of an HTTP call whose head has arrived.
#[derive(Debug)]
pub struct HttpCompletion {
    completion: Completion,
    /// Set while a gRPC status is still to come.
    grpc: Option<GrpcEosErrorsAsFailures>,
}

impl<B: Body> Observe<Response<B>> for HttpResponses {
    type Response = Response<ResponseBody<B>>;

    fn observe(&self, mut completion: Completion, response: Response<B>) -> Self::Response {
        let mut grpc = None;
        let failed = is_server_error(&response)
            || is_grpc(&response)
                && match blame_server().classify_response(&response) {
                    ClassifiedResponse::Ready(verdict) => verdict.is_err(),
                    ClassifiedResponse::RequiresEos(classify) => {
                        grpc = Some(classify);
                        false
                    }
                };
        if failed {
            completion.failure();
        } else {
            completion.success();
        }
        response.map(|body| GuardedBody::new(body, HttpCompletion { completion, grpc }))
    }
}

impl BodyGuard for HttpCompletion {
    fn on_trailers(&mut self, trailers: &HeaderMap) {
        if self.grpc.take().is_some_and(|classify| classify.classify_eos(Some(trailers)).is_err()) {
            self.completion.failure();
        }
    }

    fn on_error(&mut self) {
        self.completion.failure();
    }
}

fn is_server_error<B>(response: &Response<B>) -> bool {
    matches!(ServerErrorsAsFailures::new().classify_response(response), ClassifiedResponse::Ready(Err(_)))
}

fn is_grpc<B>(response: &Response<B>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The codes by which a caller's own mistake or wish is told are no fault of the instance.
fn blame_server() -> GrpcErrorsAsFailures {
    [
        GrpcCode::Cancelled,
        GrpcCode::InvalidArgument,
        GrpcCode::NotFound,
        GrpcCode::AlreadyExists,
        GrpcCode::PermissionDenied,
        GrpcCode::FailedPrecondition,
        GrpcCode::Aborted,
        GrpcCode::OutOfRange,
        GrpcCode::Unimplemented,
        GrpcCode::Unauthenticated,
    ]
    .into_iter()
    .fold(GrpcErrorsAsFailures::new(), GrpcErrorsAsFailures::with_success)
}
