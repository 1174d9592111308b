use std::sync::{Arc, OnceLock};

use http::{Request, Response, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::InstanceBody;
use super::endpoint::RequestBody;
use super::http2::{CONNECTION_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};
use super::service::{InstanceService, InstanceTransport, failure};
use crate::balance::ResponseBody;
use crate::client::failure::Failure;
use crate::client::replay::{AttemptBody, ReplayRequest};
use crate::connect::Connector;
use crate::error::Error;

/// Client for hosts that are not applications.
///
/// Clones share the connections. Dropping the last clone closes them after the calls in flight.
pub(in crate::client) struct DirectClient<B>(Arc<Clients<B>>);

struct Clients<B> {
    connector: Connector,
    /// Takes the place of connections.
    service: Option<InstanceService>,
    http1: OnceLock<HyperClient<B>>,
    http2: OnceLock<HyperClient<B>>,
}

type HyperClient<B> = Client<Connector, AttemptBody<B>>;

impl<B: RequestBody> DirectClient<B> {
    pub(in crate::client) fn new(transport: &InstanceTransport, prefer_ipv6: Option<bool>) -> Self {
        let InstanceTransport { connector, service } = transport.clone();
        let connector = connector.prefer_ipv6(prefer_ipv6);
        Self(Arc::new(Clients { connector, service, http1: OnceLock::new(), http2: OnceLock::new() }))
    }

    /// Sends a request to the host of its URI.
    pub(in crate::client) async fn send(
        &self,
        request: Request<B>,
    ) -> Result<Response<ResponseBody<InstanceBody>>, Error> {
        let is_http2 = request.version() == Version::HTTP_2;
        let request = ReplayRequest::new(request, 0).into_request();
        // The host alone, since the authority may contain credentials.
        let host = request.uri().host().unwrap_or_default().to_owned();
        if let Some(service) = &self.0.service {
            let sent = service.send(request).await;
            let response = sent.map_err(|error| failure(error).into_error().server(host))?;
            return Ok(response.map(ResponseBody::unguarded));
        }
        let client = if is_http2 { &self.0.http2 } else { &self.0.http1 };
        let sent = client.get_or_init(|| hyper_client(&self.0.connector, is_http2)).request(request).await;
        let response = sent.map_err(|error| Failure::from(error).into_error().server(host))?;
        Ok(response.map(|body| ResponseBody::unguarded(InstanceBody::from(body))))
    }
}

fn hyper_client<B: RequestBody>(connector: &Connector, is_http2: bool) -> HyperClient<B> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_only(is_http2)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build(connector.clone().http2(is_http2))
}

impl<B> Clone for DirectClient<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
