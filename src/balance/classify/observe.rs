//! Observers of responses.

use std::error::Error as StdError;

use super::error;
use crate::balance::endpoint::Completion;
use crate::balance::outcome::Outcome;

/// Classifies the responses of endpoints, and determines when a call is over.
///
/// The balancer passes every response to its observer together with the call's [`Completion`]. The
/// observer records an [`Outcome`] there. It drops the completion when the call is over: at once,
/// or with a part of the response that it wraps if the response is still being read. Ejection,
/// load, metrics and retries use that one outcome. A call that ends in `Err` is a failure, unless
/// [`observe_error`](Self::observe_error) says otherwise.
///
/// [`HttpResponses`](super::HttpResponses) is the default. Use [`AnyResponse`] for services other
/// than HTTP.
///
/// ```
/// use tower_eureka::balance::{Completion, Observe};
///
/// /// Reply of a cache, which may still be loading.
/// enum Reply {
///     Value(String),
///     Loading,
/// }
///
/// #[derive(Clone)]
/// struct LoadingIsFailing;
///
/// impl Observe<Reply> for LoadingIsFailing {
///     type Response = Reply;
///
///     fn observe(&self, mut completion: Completion, reply: Reply) -> Reply {
///         match reply {
///             Reply::Value(_) => completion.success(),
///             Reply::Loading => completion.failure(),
///         }
///         reply
///     }
/// }
/// ```
pub trait Observe<Res> {
    /// Response that the caller gets: the endpoint's response, or a wrapper that holds the
    /// completion.
    type Response;

    /// Classifies `response` and keeps `completion` until the call is over.
    fn observe(&self, completion: Completion, response: Res) -> Self::Response;

    /// Classifies the error of a call without a response. By default, errors are classified as by
    /// the [`DefaultClassifier`](super::DefaultClassifier).
    ///
    /// It knows the errors of this crate, of hyper, of hyper-util and of the operating system. An
    /// unknown error is a [`Failure`](Outcome::Failure).
    fn observe_error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        error::outcome(error)
    }
}

/// Classifies every response as a success, at which the call ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyResponse;

impl<Res> Observe<Res> for AnyResponse {
    type Response = Res;

    fn observe(&self, completion: Completion, response: Res) -> Res {
        completion.finish();
        response
    }
}
