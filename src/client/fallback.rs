//! Fallback: a service that handles calls that failed.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::time::{Instant, timeout_at};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};
use tracing::debug;

use super::InstanceBody;
use super::call::{AttemptService, Call, CallResponse};
use super::deadline::CallDeadline;
use super::replay::AttemptBody;
use super::routes::Route;
use crate::balance::ResponseBody;
use crate::error::{Error, Kind};
use crate::metrics::Event;
use crate::time::add_capped;

/// Minimum time that a fallback has for its response, even after the deadline of the call.
const MIN_TIME: Duration = Duration::from_secs(1);

/// A fallback service without a type parameter. In an `Arc`, since a clone allocates.
pub(crate) type BoxFallback<B, RB> =
    Arc<Fallback<BoxCloneSyncService<Request<AttemptBody<B>>, Response<RB>, BoxError>>>;

/// A service for failed calls. Public since [`EurekaLayer`](super::EurekaLayer) names it.
#[derive(Clone)]
pub struct Fallback<F>(F);

/// Errors for which a fallback is called.
pub(crate) type Condition = Arc<dyn Fn(&Error) -> bool + Send + Sync>;

impl<F> Fallback<F> {
    pub(crate) fn new(service: F) -> Self {
        Self(service)
    }

    /// Calls the service. Returns `None` if it did not respond in time.
    async fn respond<Req>(&self, request: Req, deadline: CallDeadline) -> Option<Result<F::Response, BoxError>>
    where
        F: Service<Req, Error: Into<BoxError>> + Clone,
    {
        let response = self.0.clone().oneshot(request);
        let response = match limit(deadline.instant()) {
            None => response.await,
            Some(limit) => timeout_at(limit, response).await.ok()?,
        };
        Some(response.map_err(Into::into))
    }
}

/// Boxes the fallback of a client that has connections of its own.
pub(crate) fn boxed<B, F, FB>(service: F) -> BoxFallback<B, InstanceBody>
where
    B: 'static,
    F: Service<Request<AttemptBody<B>>, Response = Response<FB>> + Clone + Send + Sync + 'static,
    F::Future: Send + 'static,
    F::Error: Into<BoxError>,
    FB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let service = service.map_response(|response| response.map(InstanceBody::boxed)).map_err(Into::into);
    Arc::new(Fallback::new(BoxCloneSyncService::new(service)))
}

/// Returns `true` if an application has no instance, also if the deadline passed while the call
/// waited for one.
fn had_no_instance(error: &Error) -> bool {
    let is_reason = |source: &(dyn StdError + 'static)| source.downcast_ref().is_some_and(Error::is_no_endpoints);
    error.is_no_endpoints() || error.is_timeout() && error.source().is_some_and(is_reason)
}

/// Makes a call. If it fails with an error that meets the condition, calls the fallback. Without a
/// condition, calls it if there was no instance.
pub(super) async fn call_or_fall_back<E, B, RB, F>(
    route: Arc<Route<E>>,
    request: Request<B>,
    deadline: CallDeadline,
    fallback: &Fallback<F>,
    condition: Option<&Condition>,
) -> Result<CallResponse<RB>, Error>
where
    E: AttemptService<B, RB>,
    B: Body<Error: Into<BoxError>> + Send + 'static,
    RB: Body + Send + 'static,
    F: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>> + Clone,
{
    let mut call = Call::new(route.clone(), request, deadline, true);
    let error = match call.complete().await {
        Err(error) if condition.map_or_else(|| had_no_instance(&error), |condition| condition(&error)) => error,
        result => return result,
    };
    let Some(request) = call.into_request().await else {
        debug!(app = &*route.name, "fallback not called, since the body of the request was sent and not kept");
        return Err(error);
    };
    debug!(app = &*route.name, %error, "calling the fallback");
    let result = match (fallback.respond(request, deadline).await, error) {
        (Some(Ok(response)), _) => Ok(response.map(ResponseBody::unguarded)),
        (Some(Err(failed)), error) => {
            // The text of its error may contain a URL with secrets.
            let cause = format!("the fallback failed; it was called because of: {}", error.cause_text());
            Err(Error::new(Kind::Call, "call to").app(route.name.clone()).cause(cause).with_source(failed))
        }
        (None, _) => {
            let cause = "no response of the fallback before the deadline of the call";
            Err(Error::new(Kind::Timeout, "call to").app(route.name.clone()).cause(cause))
        }
    };
    route.metrics.record(Event::FellBack { outcome: if result.is_ok() { "success" } else { "failure" } });
    result
}

/// Returns the time limit of a fallback: the deadline of the call, but at least the minimum time.
pub(super) fn limit(deadline: Option<Instant>) -> Option<Instant> {
    deadline.map(|at| at.max(add_capped(Instant::now(), MIN_TIME)))
}

impl<F> fmt::Debug for Fallback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").finish_non_exhaustive()
    }
}
