//! A service of the user that takes the place of connections, for tests without sockets.

use std::future::Future;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

use super::InstanceBody;
use crate::balance::{Outcome, outcome_of};
use crate::client::failure::Failure;
use crate::connect::Connector;

/// Request body that an [`instance_service`](crate::EurekaBuilder::instance_service) receives.
pub type InstanceRequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Way to the instances: connections, unless there is a service in their place.
#[derive(Clone)]
pub(crate) struct InstanceTransport {
    pub(crate) connector: Connector,
    pub(crate) service: Option<InstanceService>,
}

/// Service that handles the requests for all instances.
#[derive(Clone)]
pub(crate) struct InstanceService(BoxCloneSyncService<Request<InstanceRequestBody>, Response<InstanceBody>, BoxError>);

impl InstanceService {
    pub(crate) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<InstanceRequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let service = service.map_response(|response| response.map(InstanceBody::boxed)).map_err(Into::into);
        Self(BoxCloneSyncService::new(service))
    }

    /// Sends a request to the instance at the authority of its URI. The host header is set as a
    /// connection would.
    pub(crate) fn send<B>(
        &self,
        mut request: Request<B>,
    ) -> impl Future<Output = Result<Response<InstanceBody>, BoxError>> + Send + use<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        if request.version() == Version::HTTP_2 {
            request.headers_mut().remove(HOST);
        } else if let Some(host) = host(&request) {
            request.headers_mut().entry(HOST).or_insert(host);
        }
        self.0.clone().oneshot(request.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = request.uri().authority()?.as_str();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    HeaderValue::from_str(host).ok()
}

/// Body that threads can share, as reqwest requires. Only its owner reads it.
#[cfg(feature = "reqwest")]
pub(crate) struct SharedBody(crate::sync::Mutex<InstanceBody>);

#[cfg(feature = "reqwest")]
impl From<InstanceBody> for SharedBody {
    fn from(body: InstanceBody) -> Self {
        Self(crate::sync::Mutex::new(body))
    }
}

#[cfg(feature = "reqwest")]
impl Body for SharedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        std::pin::Pin::new(self.0.get_mut()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.lock().size_hint()
    }
}

/// Classifies an error of the service as the error of a connection.
pub(super) fn failure(error: BoxError) -> Failure {
    match outcome_of(&*error) {
        Outcome::Unreachable => Failure::Unsent(error),
        Outcome::Unprocessed => Failure::Unprocessed(error),
        _ => Failure::Lost(error),
    }
}
