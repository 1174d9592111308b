use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::BoxError;

use super::call::CallFuture;
use super::choose::{Chosen, RequestHead};
use super::clients::{Client, Closing};
use super::connection::{Endpoint, InstanceTransport};
use super::fallback::{self, BoxFallback, Condition, call_or_fall_back};
use super::options::{CallOptions, Http2};
use super::picked::PickedInstance;
use super::routes::Routes;
use super::{InstanceBody, ResponseBody, ResponseFuture};
use crate::balance::Snapshot;
use crate::cache::RegistryCache;
use crate::error::Error;

/// Calls over HTTP/2 to one application, since the URIs of generated gRPC clients have no host.
pub(crate) struct Named<B> {
    pub(super) routes: Arc<Routes<Endpoint<B>>>,
    name: Box<str>,
}

impl<B> Named<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Uses `port_key` if the options set none.
    pub(crate) fn new(
        name: &str,
        port_key: &str,
        registry: Arc<RegistryCache>,
        options: CallOptions,
        ready_timeout: Duration,
        transport: InstanceTransport,
    ) -> Self {
        let port_key: Arc<str> = port_key.into();
        let over_http2 = move |mut options: CallOptions| {
            options.http2 = Http2::Always;
            options.port_key.get_or_insert_with(|| port_key.clone());
            options
        };
        let routes = Routes::with_connections(registry, options, ready_timeout, transport);
        let routes = routes.prepare(Arc::new(over_http2));
        // Starts discovery before the first call. Each call reports an invalid name.
        let _ = routes.route(name, false);
        Self { routes: Arc::new(routes), name: name.into() }
    }

    /// Calls the application. Returns the response with the deadline of its body.
    pub(crate) async fn call(
        &self,
        request: Request<B>,
        fallback: Option<&BoxFallback<B, InstanceBody>>,
        condition: Option<&Condition>,
    ) -> Result<(Response<ResponseBody>, Option<Instant>), Error> {
        let route = self.routes.route(&self.name, false)?;
        let deadline = route.deadline(&request);
        let response = match fallback {
            None if route.is_ready() => CallFuture::new(route, request, deadline).await?,
            None => Box::pin(CallFuture::when_ready(route, request, deadline)).await?,
            Some(fallback) => {
                let response = Box::pin(call_or_fall_back(route, request, deadline, fallback, condition)).await?;
                if response.extensions().get::<PickedInstance>().is_none() {
                    return Ok((response, fallback::limit(deadline.instant())));
                }
                response
            }
        };
        Ok((response, deadline.instant()))
    }

    pub(crate) fn choose(&self, request: &impl RequestHead) -> ResponseFuture<Chosen> {
        self.routes.clone().choose(&self.name, request)
    }

    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        self.routes.snapshots()
    }
}

impl<B> Client for Named<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Does nothing, since the only application was prepared at the start.
    fn preload(&self, _: &str) {}

    fn snapshots(&self) -> Vec<Snapshot> {
        self.routes.snapshots()
    }

    fn drop_idle(&self, idle: Duration) {
        Client::drop_idle(&*self.routes, idle);
    }

    fn close(&self) -> Vec<Box<dyn Closing>> {
        Client::close(&*self.routes)
    }
}

impl<B> fmt::Debug for Named<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("name", &self.name).field("routes", &self.routes).finish()
    }
}
