use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};

#[cfg(feature = "peers")]
use super::call::NODE_ID;
use super::call::{Call, query, segment};
use super::failover::{Manner, Servers};
use super::faults::Unreadable;
use super::stack::{Answer, From, HttpStack};
use super::turns::{Access, MAX_ATTEMPTS};
use crate::config::ServiceUrl;
use crate::error::Error;
#[cfg(feature = "peers")]
use crate::model::ReplicationResponse;
use crate::model::{Application, Applications, DecodeError, Digest, Instance, InstanceStatus};
use crate::sync::{OFFLOAD_THRESHOLD, offload};
use crate::time::Moment;

/// The operations of a registry server, each as one typed call. Cheap to clone.
///
/// Each call goes to the server that responded last, then to the others in their order: at most
/// three in all. Reads and writes have a preferred server of their own, and after about five
/// minutes both return to the first one configured. A server that is unreachable, too slow, broken
/// (5xx), overloaded (408, 429) or not understood is passed over. So is one that refuses: with 401,
/// 403, 405, 407, 410, 421, with a redirect that cannot be followed, with 404 to a registration. A
/// status that speaks of the request itself (400, 409, 412 to 415, 422, 428, and 404 where an
/// instance is changed) is returned at once, and the next write begins at the next server.
///
/// Every call is bounded: per server tried, by the connect and read timeouts together until the
/// head of the response, and by eight read timeouts for its body. All are cancel safe in that
/// dropping a future frees its connection; whether the server got the request is then unknown.
#[derive(Clone)]
pub struct Transport {
    servers: Arc<Servers>,
    stack: HttpStack,
    /// The value by which Java tells clients from servers.
    identity: &'static str,
    /// Appended to the path of a list.
    lists: &'static str,
    /// Appended to the path of the whole registry where that is refused.
    instead: Option<&'static str>,
    background: bool,
}

/// A list, and the evidence of what it continues.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) list: Applications,
    pub(crate) origin: Origin,
    /// Time at which it was requested.
    pub(crate) requested: Moment,
    /// Digest of the registry that the list belongs to.
    pub(crate) digest: Option<Digest>,
    pub(crate) etag: Option<HeaderValue>,
}

/// The whole registry, or the fact that it is still the known one.
#[derive(Debug)]
pub(crate) enum Full {
    Changed(Fetched),
    Unchanged(Origin, Moment),
}

/// The server that responded, as far as that can be seen: the number of its URL, and the place
/// behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    number: usize,
    from: From,
}

#[cfg(test)]
impl Origin {
    /// The server with this number.
    pub(crate) fn of(number: usize) -> Self {
        Self { number, from: From::default() }
    }
}

/// Result of sending a batch to a peer.
#[cfg(feature = "peers")]
#[derive(Debug)]
pub(crate) enum Replicated {
    Applied(ReplicationResponse),
    /// The node that sent it received it, and said so with its id.
    Own,
    /// Something responded with 508, and not with this node's id.
    Loop,
}

/// Result of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease goes on.
    Renewed,
    /// The server does not know the instance, or knows only an older version of it: register again.
    Unknown,
}

impl Transport {
    /// `urls` must not be empty.
    pub(crate) fn new(urls: Vec<ServiceUrl>, stack: HttpStack) -> Self {
        let servers = Arc::new(Servers::new(urls));
        Self { servers, stack, identity: "DefaultClient", lists: "", instead: None, background: false }
    }

    /// The same for a loop: it leaves servers alone that asked for it with `Retry-After`, for at
    /// most five minutes. If all did, an operation fails without a request. A write obeys for a
    /// quarter of the shortest lease that was registered here (of 90 seconds before the first
    /// registration) and then asks one server, so that the lease goes on.
    pub(crate) fn in_background(&self) -> Self {
        Self { background: true, ..self.clone() }
    }

    /// Time for which every server asked to be left alone.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.servers.turns.order(Access::Read, true).err().map(|paused| paused.wait)
    }

    /// The same for a registry server that asks others. Ours show it what is registered with them,
    /// and not what other regions have.
    #[cfg(feature = "peers")]
    pub(crate) fn for_server(self) -> Self {
        Self { identity: "DefaultServer", ..self }
    }

    /// The same with lists of what is registered with the server, also from Java servers: these
    /// show all regions that they know to who names none, and of those that are named the ones that
    /// they know.
    #[cfg(feature = "peers")]
    pub(crate) fn without_other_regions(self) -> Self {
        Self { lists: "?regions=none", ..self }
    }

    /// The same with everything from those who refuse that: a Java server does as long as there is
    /// a region that it could never fetch.
    #[cfg(feature = "peers")]
    pub(crate) fn where_it_can_be(self) -> Self {
        Self { instead: Some(""), ..self }
    }

    /// Returns true if the whole registry was last fetched in its second form, with other regions.
    #[cfg(feature = "peers")]
    pub(crate) fn got_everything(&self) -> bool {
        self.servers.took_second.load(Ordering::Acquire)
    }

    #[cfg(all(test, feature = "peers"))]
    pub(crate) fn set_got_everything(&self) {
        self.servers.took_second.store(true, Ordering::Release);
    }

    /// The same servers, each with its share of this time, whether or not they asked to be left
    /// alone.
    pub(crate) fn hurried(&self, within: Duration) -> Self {
        let share = within / self.servers.len().clamp(1, MAX_ATTEMPTS) as u32;
        Self { servers: self.servers.clone(), stack: self.stack.hurried(share), background: false, ..*self }
    }

    /// Registers an instance, or registers it again.
    ///
    /// # Errors
    /// When no server took it, or one refused it.
    pub async fn register(&self, instance: &Instance) -> Result<(), Error> {
        let call = Call::instance("register", Method::POST, instance.app(), instance.id());
        let path = format!("apps/{}", segment(instance.app()));
        let lease = instance.lease().map_or(0, |lease| lease.duration_secs);
        if let Some(lease) = u64::try_from(lease).ok().filter(|&seconds| seconds > 0) {
            self.servers.turns.note_lease(Duration::from_secs(lease));
        }
        self.write(call.path(path).body(instance.to_json())).await.map(drop)
    }

    /// Tells that an instance lives.
    ///
    /// # Errors
    /// When no server answered with 200 or 404.
    pub async fn heartbeat(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        last_dirty_timestamp: i64,
    ) -> Result<Renewal, Error> {
        let query = format!("?status={status}&lastDirtyTimestamp={last_dirty_timestamp}");
        let call = Call::instance("heartbeat", Method::PUT, app, id).accept_not_found().suffix(&query);
        // A server that hangs would cost a short lease. A heartbeat may reach two servers.
        let stagger = self.background.then(|| self.servers.turns.patience());
        let known = self.send(call, Manner { stagger, ..self.manner() }, written).await?;
        Ok(if known { Renewal::Renewed } else { Renewal::Unknown })
    }

    /// Takes an instance out of the registry. False if it was not there.
    ///
    /// # Errors
    /// When no server answered with 200 or 404.
    pub async fn cancel(&self, app: &str, id: &str) -> Result<bool, Error> {
        self.write(Call::instance("cancel", Method::DELETE, app, id).accept_not_found()).await
    }

    /// Puts a status over the instance's own, until it is removed.
    ///
    /// # Errors
    /// When no server took it; [`Error::is_not_found`] if the instance is unknown.
    pub async fn set_status(&self, app: &str, id: &str, status: InstanceStatus) -> Result<(), Error> {
        let call = Call::instance("set status of", Method::PUT, app, id);
        self.write(call.suffix(&format!("/status?value={status}"))).await.map(drop)
    }

    /// Takes the status back that [`set_status`](Self::set_status) put over the instance's own.
    ///
    /// Its status is UNKNOWN until its next heartbeat makes it register again.
    ///
    /// # Errors
    /// When no server took it; [`Error::is_not_found`] if the instance is unknown.
    pub async fn remove_status(&self, app: &str, id: &str) -> Result<(), Error> {
        let call = Call::instance("remove status of", Method::DELETE, app, id);
        self.write(call.suffix("/status")).await.map(drop)
    }

    /// Like [`set_status`](Self::set_status) and, without a status,
    /// [`remove_status`](Self::remove_status), with the timestamp of the instance's data, as Java
    /// clients send it.
    pub(crate) async fn override_status(
        &self,
        app: &str,
        id: &str,
        status: Option<InstanceStatus>,
        last_dirty_timestamp: i64,
    ) -> Result<(), Error> {
        let call = match status {
            Some(status) => Call::instance("override status of", Method::PUT, app, id)
                .suffix(&format!("/status?value={status}&lastDirtyTimestamp={last_dirty_timestamp}")),
            None => Call::instance("remove status of", Method::DELETE, app, id)
                .suffix(&format!("/status?lastDirtyTimestamp={last_dirty_timestamp}")),
        };
        self.write(call).await.map(drop)
    }

    /// Returns true if the names of the servers are looked up here. A user's service may resolve
    /// them in its own way.
    pub(crate) fn looks_up_names(&self) -> bool {
        self.stack.looks_up_names()
    }

    /// The host names and addresses of the servers, as their URLs have them, with their ports.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        self.servers.hosts()
    }

    /// Adds or replaces metadata entries of an instance. They last until it registers again.
    ///
    /// # Errors
    /// When no server took them; [`Error::is_not_found`] if the instance is unknown.
    pub async fn update_metadata(&self, app: &str, id: &str, entries: &[(&str, &str)]) -> Result<(), Error> {
        let query: Vec<String> =
            entries.iter().map(|(key, value)| format!("{}={}", query(key), query(value))).collect();
        let call = Call::instance("update metadata of", Method::PUT, app, id);
        self.write(call.suffix(&format!("/metadata?{}", query.join("&")))).await.map(drop)
    }

    /// The whole registry.
    ///
    /// # Errors
    /// When no server gave it.
    pub async fn applications(&self) -> Result<Applications, Error> {
        Ok(match self.full(None, None).await? {
            Full::Changed(fetched) => fetched.list,
            Full::Unchanged(..) => Applications::default(),
        })
    }

    /// Fetches the whole registry unless it is still the one with the `known` tag. With a `stagger`
    /// the next server is asked after that time although the one before may still respond.
    pub(crate) async fn full(&self, known: Option<&HeaderValue>, stagger: Option<Duration>) -> Result<Full, Error> {
        let manner = Manner { stagger, ..self.manner() };
        let fetch = |query: &str| {
            let call = Call::new("fetch registry", Method::GET).path(format!("apps/{query}"));
            self.fetch(Call { known: known.cloned(), ..call }, manner)
        };
        let (full, is_second) = match (fetch(self.lists).await, self.instead) {
            (Err(error), Some(instead)) if error.status() == Some(StatusCode::FORBIDDEN.as_u16()) => {
                (fetch(instead).await, true)
            }
            (full, _) => (full, false),
        };
        if full.is_ok() {
            self.servers.took_second.store(is_second, Ordering::Release);
        }
        full
    }

    /// The changes of the last three minutes. `None` where the server gives no deltas (403, 404):
    /// fetch everything then.
    ///
    /// # Errors
    /// When no server gave it.
    pub async fn delta(&self) -> Result<Option<Applications>, Error> {
        Ok(self.changes().await?.map(|fetched| fetched.list))
    }

    /// The same with the evidence of what it continues.
    pub(crate) async fn changes(&self) -> Result<Option<Fetched>, Error> {
        let call = Call::new("fetch delta", Method::GET).path(format!("apps/delta{}", self.lists));
        let call = call.accept_not_found().accept_forbidden();
        Ok(match self.fetch_if_given(call, self.manner()).await? {
            Some(Full::Changed(fetched)) => Some(fetched),
            _ => None,
        })
    }

    /// One application. `None` if the registry has no instance of it.
    ///
    /// # Errors
    /// When no server gave it.
    pub async fn application(&self, app: &str) -> Result<Option<Application>, Error> {
        let path = format!("apps/{}", segment(app));
        let call = Call { app: Some(app), ..Call::new("fetch application", Method::GET) }.path(path).accept_not_found();
        self.read(call, Application::from_json).await
    }

    /// One instance. `None` if the registry does not have it.
    ///
    /// # Errors
    /// When no server gave it.
    pub async fn instance(&self, app: &str, id: &str) -> Result<Option<Instance>, Error> {
        self.read(Call::instance("fetch instance", Method::GET, app, id).accept_not_found(), Instance::from_json).await
    }

    /// The instance as the server has it that took its registration. No other server is asked.
    pub(crate) async fn registered(&self, app: &str, id: &str) -> Result<Option<Instance>, Error> {
        let call = Call::instance("fetch instance", Method::GET, app, id).accept_not_found();
        self.send(call, Manner { look: true, ..self.manner() }, |_, response| async move {
            if response.status.is_client_error() {
                return Ok(None);
            }
            decoded(response, Instance::from_json).await.map(Some)
        })
        .await
    }

    /// The instances of a logical name; none if nobody carries it.
    ///
    /// # Errors
    /// When no server gave them.
    pub async fn vip(&self, name: &str) -> Result<Applications, Error> {
        self.by_vip("vips", name).await
    }

    /// The instances of a logical name for HTTPS; none if nobody carries it.
    ///
    /// # Errors
    /// When no server gave them.
    pub async fn secure_vip(&self, name: &str) -> Result<Applications, Error> {
        self.by_vip("svips", name).await
    }

    /// Sends a batch to a peer: `list` is the body. `sender` is the sender's id, by which a node
    /// recognises its own batch.
    #[cfg(feature = "peers")]
    pub(crate) async fn replicate(&self, list: bytes::Bytes, sender: &str) -> Result<Replicated, Error> {
        let call = Call::new("send changes", Method::POST).path("peerreplication/batch/".into());
        let call = Call { peer: Some(sender), body: list, ..call };
        self.send(call, self.manner(), |_, response| async move {
            if response.status != StatusCode::LOOP_DETECTED {
                return decoded(response, ReplicationResponse::from_json).await.map(Replicated::Applied);
            }
            let is_own = response.headers.get(NODE_ID).is_some_and(|id| id.as_bytes() == sender.as_bytes());
            Ok(if is_own { Replicated::Own } else { Replicated::Loop })
        })
        .await
    }

    /// The whole registry with the evidence of what it is.
    #[cfg(feature = "peers")]
    pub(crate) async fn registry(&self) -> Result<Fetched, Error> {
        let call = Call::new("fetch registry", Method::GET).path(format!("apps/{}", self.lists));
        match self.fetch(call, self.manner()).await? {
            Full::Changed(fetched) => Ok(fetched),
            Full::Unchanged(..) => unreachable!("a request without a tag is never responded to with 304"),
        }
    }

    async fn by_vip(&self, kind: &str, name: &str) -> Result<Applications, Error> {
        let call = Call { app: Some(name), ..Call::new("fetch VIP", Method::GET) };
        let call = call.path(format!("{kind}/{}", segment(name))).accept_not_found();
        self.read(call, Applications::from_json).await.map(Option::unwrap_or_default)
    }

    /// True for success, false for an accepted 404.
    async fn write(&self, call: Call<'_>) -> Result<bool, Error> {
        self.send(call, self.manner(), written).await
    }

    /// `None` for an accepted 403 or 404.
    async fn read<T: Send + 'static>(
        &self,
        call: Call<'_>,
        decode: fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, Error> {
        self.send(call, self.manner(), |_, response| async move {
            if response.status.is_client_error() { Ok(None) } else { decoded(response, decode).await.map(Some) }
        })
        .await
    }

    async fn fetch(&self, call: Call<'_>, manner: Manner) -> Result<Full, Error> {
        let fetched = self.fetch_if_given(call, manner).await?;
        Ok(fetched.expect("a call that accepts neither 403 nor 404 yields a list"))
    }

    /// `None` for an accepted 403 or 404.
    async fn fetch_if_given(&self, call: Call<'_>, manner: Manner) -> Result<Option<Full>, Error> {
        self.send(call, manner, |number, response| async move {
            let (from, requested) = (response.from.clone(), response.requested);
            if response.status == StatusCode::NOT_MODIFIED {
                return Ok(Some(Full::Unchanged(Origin { number, from }, requested)));
            }
            if response.status.is_client_error() {
                return Ok(None);
            }
            let digest = response.headers.get(Digest::HEADER).and_then(Digest::from_header);
            let etag = response.headers.get(header::ETAG).cloned();
            let list = decoded(response, Applications::from_json).await?;
            Ok(Some(Full::Changed(Fetched { list, origin: Origin { number, from }, requested, digest, etag })))
        })
        .await
    }

    async fn send<T, F: Future<Output = Result<T, Unreadable>>>(
        &self,
        call: Call<'_>,
        manner: Manner,
        read: impl Fn(usize, Answer) -> F,
    ) -> Result<T, Error> {
        let call = Call { identity: self.identity, ..call };
        self.servers.send(&self.stack, &call, manner, read).await
    }

    fn manner(&self) -> Manner {
        Manner { background: self.background, ..Manner::default() }
    }
}

/// Reads the response to a write: true for success, false for an accepted 404.
async fn written(_: usize, response: Answer) -> Result<bool, Unreadable> {
    // A page where an empty response belongs: another kind of server accepts everything.
    if response.status.is_success() && response.is_markup() {
        return Err(Unreadable::Markup(response.content_type().to_owned()));
    }
    Ok(response.status != StatusCode::NOT_FOUND)
}

/// Decodes a body, a large one on a blocking thread.
async fn decoded<T: Send + 'static>(
    response: Answer,
    decode: fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<T, Unreadable> {
    if response.is_markup() {
        return Err(Unreadable::Markup(response.content_type().to_owned()));
    }
    let body = response.body;
    let decoded = if body.len() < OFFLOAD_THRESHOLD { decode(&body) } else { offload(move || decode(&body)).await };
    decoded.map_err(Unreadable::NotEureka)
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
    async fn a_large_answer_is_decoded_where_nobody_waits() {
        for (length, here) in [(OFFLOAD_THRESHOLD - 1, true), (OFFLOAD_THRESHOLD, false)] {
            let answer = move |_: Request<RequestBody>| async move {
                Ok::<_, Infallible>(Response::new(RequestBody::new(vec![b' '; length].into())))
            };
            let stack = HttpStack::over(service_fn(answer), &ClientConfig::default());
            let transport = Transport::new(ServiceUrl::parse_list("http://registry/").unwrap(), stack);
            let decode: fn(&[u8]) -> Result<ThreadId, DecodeError> = |_| Ok(thread::current().id());
            let read = transport.read(Call::new("fetch", Method::GET), decode).await.unwrap();
            assert_eq!(read == Some(thread::current().id()), here, "{length} bytes");
        }
    }

    #[tokio::test]
    async fn decoder_that_panics_is_a_fault_of_the_server() {
        for length in [OFFLOAD_THRESHOLD - 1, OFFLOAD_THRESHOLD] {
            let answer = move |_: Request<RequestBody>| async move {
                Ok::<_, Infallible>(Response::new(RequestBody::new(vec![b' '; length].into())))
            };
            let stack = HttpStack::over(service_fn(answer), &ClientConfig::default());
            let transport = Transport::new(ServiceUrl::parse_list("http://registry/").unwrap(), stack);
            let decode: fn(&[u8]) -> Result<(), DecodeError> = |_| panic!("on purpose");
            let error = transport.read(Call::new("fetch", Method::GET), decode).await.unwrap_err();
            assert!(error.to_string().contains("reading the response panicked"), "{error}");
        }
    }
}
