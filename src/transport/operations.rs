use std::borrow::Cow;
use std::fmt;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
#[cfg(feature = "peers")]
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode};

use super::errors::InvalidResponse;
use super::failover::{Race, SendOptions, Servers};
use super::lists::Full;
#[cfg(feature = "peers")]
use super::request::NODE_ID;
use super::request::{Operation, query, segment};
use super::response::ServerResponse;
use super::server_order::{Access, LastWrite, MAX_SERVERS};
use super::servers::RegistryServer;
use super::stack::HttpStack;
use crate::config::{ListedServer, ServerSettings, ServiceUrl};
use crate::error::Error;
#[cfg(feature = "peers")]
use crate::model::ReplicationResponse;
use crate::model::{Application, Applications, DecodeError, Instance, InstanceStatus, Known};
use crate::sync::{OFFLOAD_THRESHOLD, offload};

/// Client for the REST operations of registry servers, with failover. Cheap to clone.
///
/// # Failover
///
/// An operation is sent to the server that responded last, then to the others: those of the own
/// zone first, each zone in random order, at most three in total. Only the first fetch of a client
/// tries all servers. Reads and writes have a preferred server each. After a
/// [session](crate::EurekaBuilder::session_duration) of about 20 minutes both begin at a random
/// server again. A server that failed is left out for five minutes, or until
/// [most servers](crate::EurekaBuilder::quarantine_threshold) have failed.
///
/// The next server is tried if a server is unreachable, times out, fails (5xx), is overloaded (408,
/// 429), responds with an invalid body, or rejects the client (401, 403, 405, 407, 410, 421, 404
/// for a registration, a redirect that cannot be followed). A status about the request itself (400,
/// 409, 412 to 415, 422, 428, and 404 for a change of an instance) is returned at once. The next
/// write then starts at the next server.
///
/// # Timeouts and cancellation
///
/// For each server, the connect and read timeouts together limit the time until the response head,
/// and eight read timeouts limit the time of the body. Dropping a future closes its connection. It
/// is then unknown whether the server received the request.
#[derive(Clone)]
pub struct Transport {
    pub(super) servers: Arc<Servers>,
    stack: HttpStack,
    /// Value of `DiscoveryIdentity-Name`, by which Java distinguishes clients from servers.
    identity: &'static str,
    /// Query of lists.
    pub(super) list_query: Cow<'static, str>,
    /// Query of the whole registry if the server rejects `list_query` with 403.
    pub(super) fallback_query: Option<&'static str>,
    /// True if deltas use the fallback after the whole registry did.
    pub(super) deltas_fall_back: bool,
    /// Last write of the background loop to which the operations belong, if they do.
    background: Option<Arc<LastWrite>>,
}

/// Result of sending a batch to a peer.
#[cfg(feature = "peers")]
#[derive(Debug)]
pub(crate) enum Replicated {
    Applied(ReplicationResponse),
    /// The batch came back to the node that sent it, which responded with its own id.
    Own,
    /// The response was 508 without the id of this node.
    Loop,
}

/// Result of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease was renewed.
    Renewed,
    /// The server does not know the instance, or has an older version of it. The instance must be
    /// registered again.
    Unknown,
}

impl Transport {
    /// Creates a transport for these servers, which are tried in this order. `urls` must not be
    /// empty.
    pub(crate) fn new(urls: Vec<ServiceUrl>, stack: HttpStack) -> Self {
        let settings = ServerSettings { shuffle: false, ..ServerSettings::default() };
        let list = urls.into_iter().map(|url| ListedServer { url, zone: "".into(), rank: 0 });
        Self::with_servers(&settings, list.collect(), stack)
    }

    /// Creates a transport for a list of servers, which must not be empty. It is ignored if the
    /// settings have a source of servers.
    pub(crate) fn with_servers(settings: &ServerSettings, list: Vec<ListedServer>, stack: HttpStack) -> Self {
        let servers = Arc::new(Servers::new(settings, list));
        Self {
            servers,
            stack,
            identity: "DefaultClient",
            list_query: "".into(),
            fallback_query: None,
            deltas_fall_back: false,
            background: None,
        }
    }

    /// Returns the same transport for a background loop, which obeys `Retry-After` for at most five
    /// minutes. Reads and writes are paused separately.
    ///
    /// While all servers are paused, an operation fails without a request. A write obeys for at
    /// most a quarter of the shortest lease registered through this transport (90 seconds before
    /// the first registration), counted from the last write of the loop. One server is then tried,
    /// so that the lease does not expire. Each instance needs a loop of its own; clones share one.
    pub(crate) fn in_background(&self) -> Self {
        Self { background: Some(Arc::default()), ..self.clone() }
    }

    /// Returns the remaining time if the reads of all servers are paused by `Retry-After`.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.servers.order.select(Access::Read, Some(&LastWrite::default())).err().map(|paused| paused.wait)
    }

    /// Returns the same transport for a registry server. Other servers of this crate then respond
    /// with their own instances only, without those of other regions.
    #[cfg(feature = "peers")]
    pub(crate) fn for_server(self) -> Self {
        Self { identity: "DefaultServer", ..self }
    }

    /// Returns the same transport with lists restricted to the instances registered at the server.
    ///
    /// Java servers include all regions that they know unless the query names some. This query
    /// names one that does not exist.
    #[cfg(feature = "peers")]
    pub(crate) fn without_other_regions(self) -> Self {
        Self { list_query: "?regions=none".into(), ..self }
    }

    /// Returns the same transport with a fallback to the unfiltered list. A Java server rejects the
    /// filtered one as long as it has a region that it never fetched.
    #[cfg(feature = "peers")]
    pub(crate) fn with_unfiltered_fallback(self) -> Self {
        Self { fallback_query: Some(""), ..self }
    }

    /// Returns `true` if the last fetch of the whole registry fell back to the unfiltered list,
    /// which includes other regions.
    #[cfg(feature = "peers")]
    pub(crate) fn fell_back(&self) -> bool {
        self.servers.fell_back.load(Ordering::Acquire)
    }

    #[cfg(all(test, feature = "peers"))]
    pub(crate) fn set_fell_back(&self) {
        self.servers.fell_back.store(true, Ordering::Release);
    }

    /// Returns a transport for the same servers whose operations take at most this time. The
    /// servers share the time equally, and `Retry-After` is ignored.
    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        let share = timeout / self.servers.len().clamp(1, MAX_SERVERS) as u32;
        Self { stack: self.stack.with_timeout(share), background: None, ..self.clone() }
    }

    /// Registers an instance. An instance that is registered already is replaced.
    ///
    /// If a server does not respond, the next one is tried while the attempt is pending: after one
    /// second, or sooner if there are more than three servers. The first that accepts the instance
    /// gets the next writes. The others may have received the registration as well, which does no
    /// harm in a cluster.
    ///
    /// # Errors
    /// When no server accepts the registration, or one rejects it.
    pub async fn register(&self, instance: &Instance) -> Result<(), Error> {
        let operation = Operation::instance("register", Method::POST, instance.app(), instance.id());
        let path = format!("apps/{}", segment(instance.app()));
        let lease = instance.lease().map_or(0, |lease| lease.duration_secs);
        if let Some(lease) = u64::try_from(lease).ok().filter(|&seconds| seconds > 0) {
            self.servers.order.record_lease(Duration::from_secs(lease));
        }
        let operation = operation.path(path).body(instance.to_json());
        self.send(operation, SendOptions { race: Some(Race::registration()), ..self.options() }, read_written).await?;
        Ok(())
    }

    /// Renews the lease of an instance.
    ///
    /// # Errors
    /// When no server responds with 200 or 404.
    pub async fn heartbeat(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        last_dirty_timestamp: i64,
    ) -> Result<Renewal, Error> {
        let query = format!("?status={status}&lastDirtyTimestamp={last_dirty_timestamp}");
        let operation = Operation::instance("heartbeat", Method::PUT, app, id).accept_not_found().suffix(&query);
        // A server that does not respond could cost a short lease. A second heartbeat does no harm.
        let stagger = self.background.is_some().then(|| self.servers.order.quarter_lease());
        let known = self.send(operation, SendOptions { stagger, ..self.options() }, read_written).await?;
        Ok(if known { Renewal::Renewed } else { Renewal::Unknown })
    }

    /// Cancels the lease of an instance, which removes it from the registry. Returns `false` if the
    /// instance was not registered.
    ///
    /// # Errors
    /// When no server responds with 200 or 404.
    pub async fn cancel(&self, app: &str, id: &str) -> Result<bool, Error> {
        self.write(Operation::instance("cancel", Method::DELETE, app, id).accept_not_found()).await
    }

    /// Sets a status that overrides the instance's own until it is removed.
    ///
    /// # Errors
    /// When no server accepts the change. [`Error::is_not_found`] is true if the instance is
    /// unknown.
    pub async fn set_status(&self, app: &str, id: &str, status: InstanceStatus) -> Result<(), Error> {
        let operation = Operation::instance("set status of", Method::PUT, app, id);
        self.write(operation.suffix(&format!("/status?value={status}"))).await.map(drop)
    }

    /// Removes the status that [`set_status`](Self::set_status) set.
    ///
    /// The status of the instance is `UNKNOWN` until its next heartbeat, which makes it register
    /// again.
    ///
    /// # Errors
    /// When no server accepts the change. [`Error::is_not_found`] is true if the instance is
    /// unknown.
    pub async fn remove_status(&self, app: &str, id: &str) -> Result<(), Error> {
        let operation = Operation::instance("remove status of", Method::DELETE, app, id);
        self.write(operation.suffix("/status")).await.map(drop)
    }

    /// Sets or, if `status` is `None`, removes an override, with the timestamp of the instance's
    /// data as Java clients send it.
    pub(crate) async fn override_status(
        &self,
        app: &str,
        id: &str,
        status: Option<InstanceStatus>,
        last_dirty_timestamp: i64,
    ) -> Result<(), Error> {
        let operation = match status {
            Some(status) => Operation::instance("override status of", Method::PUT, app, id)
                .suffix(&format!("/status?value={status}&lastDirtyTimestamp={last_dirty_timestamp}")),
            None => Operation::instance("remove status of", Method::DELETE, app, id)
                .suffix(&format!("/status?lastDirtyTimestamp={last_dirty_timestamp}")),
        };
        self.write(operation).await.map(drop)
    }

    /// Returns `true` if the connector of this crate resolves the names of the servers. A user's
    /// service may resolve them differently.
    pub(crate) fn resolves_names(&self) -> bool {
        self.stack.names().is_some()
    }

    /// Returns the addresses of a host name by the resolver of the client, within this time. The
    /// result is empty if the look-up fails, or a service of the user sends the requests.
    pub(crate) async fn addresses(&self, host: &str, limit: Duration) -> Vec<IpAddr> {
        match self.stack.names() {
            Some(names) => names.all(host, limit).await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// Closes the idle connections to registry servers. A later operation opens a new one.
    pub(crate) fn close_connections(&self) {
        self.stack.close_connections();
    }

    /// Returns the URL, without credentials, of the server that completed the last write.
    pub(crate) fn writer(&self) -> Option<Arc<str>> {
        self.servers.writer()
    }

    /// Returns the host and the port of each service URL. A host is a name or an address. The
    /// result is empty before the first look-up of the servers.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        self.servers.hosts()
    }

    /// Returns the number of servers.
    pub(crate) fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// Begins the next read at another server than this one, if there is one.
    pub(crate) fn leave_reader(&self, url: &str) {
        self.servers.order.leave(Access::Read, url);
    }

    /// Waits until the servers are known, if they are looked up. Returns after a look-up that
    /// failed as well.
    pub(crate) async fn find_servers(&self) {
        // The next operation returns the error.
        let _ = self.servers.find(Operation::new("find registry servers", Method::GET).subject()).await;
    }

    /// Returns the servers with their states, in the order of the list.
    pub(crate) fn registry_servers(&self) -> Vec<RegistryServer> {
        self.servers.status()
    }

    /// Returns the servers in the order of the list, each with a transport that asks no other. They
    /// tell whether a change has reached every server.
    ///
    /// The result is empty before the first request if the servers are looked up.
    ///
    /// ```
    /// # async fn example(eureka: tower_eureka::Eureka) -> Result<(), tower_eureka::Error> {
    /// for (server, transport) in eureka.transport().each_server() {
    ///     let instance = transport.instance("ORDERS", "orders-1").await?;
    ///     println!("{}: {:?}", server.url(), instance.map(|instance| instance.status()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn each_server(&self) -> Vec<(RegistryServer, Self)> {
        let urls = self.servers.order.urls();
        let alone = |server: RegistryServer| {
            let url = urls.iter().find(|url| **url.as_str() == *server.url())?.clone();
            let Self { servers, .. } = Self::new(vec![url], self.stack.clone());
            Some((server, Self { servers, background: None, ..self.clone() }))
        };
        self.registry_servers().into_iter().filter_map(alone).collect()
    }

    /// Adds or replaces metadata entries of an instance, until it is registered again.
    ///
    /// # Errors
    /// When no server accepts the change. [`Error::is_not_found`] is true if the instance is
    /// unknown.
    pub async fn update_metadata(&self, app: &str, id: &str, entries: &[(&str, &str)]) -> Result<(), Error> {
        let query: Vec<String> =
            entries.iter().map(|(key, value)| format!("{}={}", query(key), query(value))).collect();
        let operation = Operation::instance("update metadata of", Method::PUT, app, id);
        self.write(operation.suffix(&format!("/metadata?{}", query.join("&")))).await.map(drop)
    }

    /// Fetches the whole registry.
    ///
    /// # Errors
    /// When no server sends it.
    pub async fn applications(&self) -> Result<Applications, Error> {
        Ok(match self.full(None, None, &Known::default()).await? {
            Full::Changed(fetched) => fetched.list,
            Full::Unchanged(..) => Applications::default(),
        })
    }

    /// Fetches the changes of the last three minutes. Returns `None` if the server offers no deltas
    /// (403, 404, 405, 410, 501). The whole registry must be fetched then.
    ///
    /// # Errors
    /// When no server sends it.
    pub async fn delta(&self) -> Result<Option<Applications>, Error> {
        Ok(self.changes().await?.map(|fetched| fetched.list))
    }

    /// Fetches one application. Returns `None` if the registry has no instance of it.
    ///
    /// # Errors
    /// When no server sends it.
    pub async fn application(&self, app: &str) -> Result<Option<Application>, Error> {
        let path = format!("apps/{}", segment(app));
        let operation = Operation { app: Some(app), ..Operation::new("fetch application", Method::GET) }
            .path(path)
            .accept_not_found();
        self.read(operation, Application::from_json).await
    }

    /// Fetches one instance. Returns `None` if the registry does not have it.
    ///
    /// # Errors
    /// When no server sends it.
    pub async fn instance(&self, app: &str, id: &str) -> Result<Option<Instance>, Error> {
        self.read(Operation::instance("fetch instance", Method::GET, app, id).accept_not_found(), Instance::from_json)
            .await
    }

    /// Fetches one instance. All servers are tried within this time: the next one while the
    /// previous ones have not responded. It does not end by itself then.
    pub(crate) async fn instance_within(&self, app: &str, id: &str, time: Duration) -> Result<Option<Instance>, Error> {
        let operation = Operation::instance("fetch instance", Method::GET, app, id).accept_not_found();
        let options = SendOptions { race: Some(Race::record(time)), ..self.options() };
        self.read_with(operation, options, Instance::from_json).await
    }

    /// Fetches an instance from the server that accepted its registration, and from no other.
    pub(crate) async fn registered(&self, app: &str, id: &str) -> Result<Option<Instance>, Error> {
        let operation = Operation::instance("fetch instance", Method::GET, app, id).accept_not_found();
        let operation = Operation { identity: self.identity, ..operation };
        let read = |_: &ServiceUrl, response| decode_found(response, Instance::from_json);
        self.servers.ask_writer(&self.stack, &operation, self.background.is_some(), read).await
    }

    /// Fetches the instances with a VIP address. The result is empty if there are none.
    ///
    /// # Errors
    /// When no server sends them.
    pub async fn vip(&self, name: &str) -> Result<Applications, Error> {
        self.by_vip("vips", name).await
    }

    /// Fetches the instances with a secure VIP address, the one for HTTPS. The result is empty if
    /// there are none.
    ///
    /// # Errors
    /// When no server sends them.
    pub async fn secure_vip(&self, name: &str) -> Result<Applications, Error> {
        self.by_vip("svips", name).await
    }

    /// Sends a batch of changes to a peer. `sender` is the id of this node, by which it recognises
    /// a batch that comes back.
    #[cfg(feature = "peers")]
    pub(crate) async fn replicate(
        &self,
        batch: bytes::Bytes,
        header: Option<(http::HeaderName, http::HeaderValue)>,
        sender: &str,
    ) -> Result<Replicated, Error> {
        let operation = Operation::new("send changes", Method::POST).path("peerreplication/batch/".into());
        let operation = Operation { peer: Some(sender), body: batch, header, ..operation };
        self.send(operation, self.options(), |_, response| async move {
            if response.status != StatusCode::LOOP_DETECTED {
                return decode_body(response, ReplicationResponse::from_json).await.map(Replicated::Applied);
            }
            let is_own = response.headers.get(NODE_ID).is_some_and(|id| id.as_bytes() == sender.as_bytes());
            Ok(if is_own { Replicated::Own } else { Replicated::Loop })
        })
        .await
    }

    /// Fetches the owners of the leases of a peer as JSON. Returns `None` if it has no such
    /// resource, as a Java server.
    #[cfg(feature = "peers")]
    pub(crate) async fn owners(&self) -> Result<Option<bytes::Bytes>, Error> {
        let operation = Operation::new("fetch owners of leases", Method::GET).path("peerreplication/owners".into());
        self.send(operation.accept_not_found(), self.options(), |_, response| async move {
            Ok((response.status == StatusCode::OK).then_some(response.body))
        })
        .await
    }

    async fn by_vip(&self, kind: &str, name: &str) -> Result<Applications, Error> {
        let operation = Operation { app: Some(name), ..Operation::new("fetch VIP", Method::GET) };
        // Servers respond to an unknown VIP address with 200 and an empty list.
        let operation = operation.path(format!("{kind}/{}", segment(name)));
        self.read(operation, Applications::from_json).await.map(Option::unwrap_or_default)
    }

    /// Returns `true` for a success and `false` for an accepted 404.
    pub(super) async fn write(&self, operation: Operation<'_>) -> Result<bool, Error> {
        self.send(operation, self.options(), read_written).await
    }

    /// Returns `None` for an accepted 404.
    async fn read<T: Send + 'static>(
        &self,
        operation: Operation<'_>,
        decode: fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, Error> {
        self.read_with(operation, self.options(), decode).await
    }

    async fn read_with<T: Send + 'static>(
        &self,
        operation: Operation<'_>,
        options: SendOptions<'_>,
        decode: fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, Error> {
        self.send(operation, options, |_, response| decode_found(response, decode)).await
    }

    pub(super) async fn send<T, F: Future<Output = Result<T, InvalidResponse>>>(
        &self,
        operation: Operation<'_>,
        options: SendOptions<'_>,
        read: impl Fn(&ServiceUrl, ServerResponse) -> F,
    ) -> Result<T, Error> {
        let operation = Operation { identity: self.identity, ..operation };
        self.servers.send(&self.stack, &operation, options, read).await
    }

    pub(super) fn options(&self) -> SendOptions<'_> {
        SendOptions { background: self.background.as_deref(), ..SendOptions::default() }
    }
}

/// Reads the response to a write. Returns `true` for a success and `false` for an accepted 404.
fn read_written(_: &ServiceUrl, response: ServerResponse) -> Ready<Result<bool, InvalidResponse>> {
    // A page instead of an empty body comes from another kind of server.
    if response.status.is_success() && response.is_markup() {
        return ready(Err(InvalidResponse::Markup(response.content_type().to_owned())));
    }
    ready(Ok(response.status != StatusCode::NOT_FOUND))
}

/// Decodes a response. Returns `None` for a 404 that the operation accepts.
async fn decode_found<T: Send + 'static>(
    response: ServerResponse,
    decode: fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<Option<T>, InvalidResponse> {
    if response.status.is_client_error() { Ok(None) } else { decode_body(response, decode).await.map(Some) }
}

/// Decodes a body, on a blocking thread if it is large.
async fn decode_body<T: Send + 'static>(
    response: ServerResponse,
    decode: fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<T, InvalidResponse> {
    if response.is_markup() {
        return Err(InvalidResponse::Markup(response.content_type().to_owned()));
    }
    let body = response.body;
    let decoded = if body.len() < OFFLOAD_THRESHOLD { decode(&body) } else { offload(move || decode(&body)).await };
    decoded.map_err(InvalidResponse::NotEureka)
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transport").field(&self.servers).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::thread::{self, ThreadId};

    use http::{Request, Response};
    use tower::service_fn;

    use super::*;
    use crate::config::ClientConfig;
    use crate::transport::RequestBody;

    #[tokio::test]
    async fn large_response_is_decoded_on_a_blocking_thread() {
        for (length, here) in [(OFFLOAD_THRESHOLD - 1, true), (OFFLOAD_THRESHOLD, false)] {
            let respond = move |_: Request<RequestBody>| async move {
                Ok::<_, Infallible>(Response::new(RequestBody::new(vec![b' '; length].into())))
            };
            let stack = HttpStack::over(service_fn(respond), &ClientConfig::default());
            let transport = Transport::new(ServiceUrl::parse_list("http://registry/").unwrap(), stack);
            let decode: fn(&[u8]) -> Result<ThreadId, DecodeError> = |_| Ok(thread::current().id());
            let read = transport.read(Operation::new("fetch", Method::GET), decode).await.unwrap();
            assert_eq!(read == Some(thread::current().id()), here, "{length} bytes");
        }
    }

    #[tokio::test]
    async fn decoder_that_panics_returns_an_error_of_the_attempt() {
        for length in [OFFLOAD_THRESHOLD - 1, OFFLOAD_THRESHOLD] {
            let respond = move |_: Request<RequestBody>| async move {
                Ok::<_, Infallible>(Response::new(RequestBody::new(vec![b' '; length].into())))
            };
            let stack = HttpStack::over(service_fn(respond), &ClientConfig::default());
            let transport = Transport::new(ServiceUrl::parse_list("http://registry/").unwrap(), stack);
            let decode: fn(&[u8]) -> Result<(), DecodeError> = |_| panic!("from the test");
            let error = transport.read(Operation::new("fetch", Method::GET), decode).await.unwrap_err();
            assert!(error.to_string().contains("reading the response panicked"), "{error}");
        }
    }
}
