use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::RequestBody;
use super::failover::{MAX_ATTEMPTS, Servers, Subject, Unreadable, Verdict};
use super::stack::{Answer, HttpStack};
use crate::blocking::{LARGE, blocking};
use crate::config::ServiceUrl;
use crate::error::Error;
#[cfg(feature = "peers")]
use crate::model::ReplicationResponse;
use crate::model::{Application, Applications, DecodeError, Instance, InstanceStatus};

/// What a path segment cannot hold. The colon stays, as Java clients send it.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// What the value of a query parameter cannot hold.
const QUERY: &AsciiSet = &SEGMENT.add(b'&').add(b'+').add(b'=').add(b'\'');

/// The operations of a registry server, each as one typed call. Cheap to clone.
///
/// Each call goes to the server that answered last, then to the others in their order: at most three in all. A server that
/// is unreachable, too slow, broken (5xx), overloaded (408, 429) or not understood is passed over. One that refuses a write (another
/// 4xx) settles it; a refused read goes to the next.
///
/// Every call is bounded: per server tried, by the connect and read timeouts together until the head of the answer, and by eight
/// read timeouts for its body. All are cancel safe in that dropping a future frees its connection; whether the server got the request
/// is then unknown.
#[derive(Clone)]
pub struct Transport {
    servers: Arc<Servers>,
    stack: HttpStack,
    /// The word by which Java knows clients from servers.
    identity: &'static str,
    /// What follows the path of a list.
    lists: &'static str,
    /// What follows that of the whole registry where this is refused.
    instead: Option<&'static str>,
}

/// What a server says to a heartbeat.
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
        Self { servers, stack, identity: "DefaultClient", lists: "", instead: None }
    }

    /// The same for a registry server that asks others. Ours show it what is registered with them, and not what other regions have.
    #[cfg(feature = "peers")]
    pub(crate) fn for_server(self) -> Self {
        Self { identity: "DefaultServer", ..self }
    }

    /// The same with lists of what is registered with the server, also from Java servers: these show all regions that they know to who names
    /// none, and of those that are named the ones that they know.
    #[cfg(feature = "peers")]
    pub(crate) fn without_other_regions(self) -> Self {
        Self { lists: "?regions=none", ..self }
    }

    /// The same with everything from those who refuse that: a Java server does as long as there is a region that it could never fetch.
    #[cfg(feature = "peers")]
    pub(crate) fn where_it_can_be(self) -> Self {
        Self { instead: Some(""), ..self }
    }

    /// Whether that is what the whole registry was, when it was last fetched.
    #[cfg(feature = "peers")]
    pub(crate) fn got_everything(&self) -> bool {
        self.servers.took_second.load(Ordering::Acquire)
    }

    #[cfg(all(test, feature = "peers"))]
    pub(crate) fn set_got_everything(&self) {
        self.servers.took_second.store(true, Ordering::Release);
    }

    /// The same servers, each with its share of this time.
    pub(crate) fn hurried(&self, within: Duration) -> Self {
        let share = within / self.servers.len().clamp(1, MAX_ATTEMPTS) as u32;
        Self { servers: self.servers.clone(), stack: self.stack.hurried(share), ..*self }
    }

    /// Registers an instance, or registers it again.
    ///
    /// # Errors
    /// When no server took it, or one refused it.
    pub async fn register(&self, instance: &Instance) -> Result<(), Error> {
        let call = Call::instance("register", Method::POST, instance.app(), instance.id());
        let path = format!("apps/{}", segment(instance.app()));
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
        let call = Call::instance("heartbeat", Method::PUT, app, id).accept_not_found();
        let known = self.write(call.suffix(&query)).await?;
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
        let fetch = |query: &str| {
            let call = Call::new("fetch registry", Method::GET).path(format!("apps/{query}"));
            self.read(call, Applications::from_json)
        };
        let (answer, is_second) = match (fetch(self.lists).await, self.instead) {
            (Err(error), Some(instead)) if error.status() == Some(StatusCode::FORBIDDEN.as_u16()) => {
                (fetch(instead).await, true)
            }
            (answer, _) => (answer, false),
        };
        if answer.is_ok() {
            self.servers.took_second.store(is_second, Ordering::Release);
        }
        answer.map(Option::unwrap_or_default)
    }

    /// What changed in the last three minutes. `None` where the server gives no deltas (403, 404): fetch everything then.
    ///
    /// # Errors
    /// When no server gave it.
    pub async fn delta(&self) -> Result<Option<Applications>, Error> {
        let call = Call::new("fetch delta", Method::GET).path(format!("apps/delta{}", self.lists));
        self.read(call.accept_not_found().accept_forbidden(), Applications::from_json).await
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

    /// Tells a peer what was told here: `list` is the body. `sender` is the sender's id, by which a node recognises its own batch.
    #[cfg(feature = "peers")]
    pub(crate) async fn replicate(&self, list: Bytes, sender: &str) -> Result<ReplicationResponse, Error> {
        let call = Call::new("send changes", Method::POST).path("peerreplication/batch/".into());
        let call = Call { peer: Some(sender), body: list, ..call };
        self.read(call, ReplicationResponse::from_json).await.map(Option::unwrap_or_default)
    }

    async fn by_vip(&self, kind: &str, name: &str) -> Result<Applications, Error> {
        let call = Call { app: Some(name), ..Call::new("fetch VIP", Method::GET) };
        let call = call.path(format!("{kind}/{}", segment(name))).accept_not_found();
        self.read(call, Applications::from_json).await.map(Option::unwrap_or_default)
    }

    /// True for success, false for an accepted 404.
    async fn write(&self, call: Call<'_>) -> Result<bool, Error> {
        self.send(call, |answer| async move {
            // A page where an empty answer belongs: somebody else's server says yes to everything.
            if answer.status.is_success() && answer.is_markup() {
                return Err(Unreadable::Markup(answer.content_type));
            }
            Ok(answer.status != StatusCode::NOT_FOUND)
        })
        .await
    }

    /// `None` for an accepted 403 or 404.
    async fn read<T: Send + 'static>(
        &self,
        call: Call<'_>,
        decode: fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, Error> {
        self.send(call, |answer| async move {
            if answer.status.is_client_error() {
                return Ok(None);
            }
            if answer.is_markup() {
                return Err(Unreadable::Markup(answer.content_type));
            }
            let body = answer.body;
            let decoded = if body.len() < LARGE { decode(&body) } else { blocking(move || decode(&body)).await };
            decoded.map(Some).map_err(Unreadable::NotEureka)
        })
        .await
    }

    async fn send<T, F: Future<Output = Result<T, Unreadable>>>(
        &self,
        call: Call<'_>,
        read: impl Fn(Answer) -> F,
    ) -> Result<T, Error> {
        let subject = Subject { operation: call.operation, app: call.app, instance: call.instance };
        let request = |server: &ServiceUrl| call.request(server, self.identity);
        self.servers.send(&self.stack, subject, request, |status| call.judge(status), read).await
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transport").field(&self.servers).finish()
    }
}

/// One operation: what to send, and which statuses answer it.
struct Call<'a> {
    operation: &'static str,
    app: Option<&'a str>,
    instance: Option<&'a str>,
    method: Method,
    path: String,
    body: Bytes,
    accepts_404: bool,
    accepts_403: bool,
    /// The id of the registry server that speaks, where it matters which.
    peer: Option<&'a str>,
}

impl<'a> Call<'a> {
    fn new(operation: &'static str, method: Method) -> Self {
        let (path, body) = (String::new(), Bytes::new());
        Self {
            operation,
            app: None,
            instance: None,
            method,
            path,
            body,
            accepts_404: false,
            accepts_403: false,
            peer: None,
        }
    }

    fn instance(operation: &'static str, method: Method, app: &'a str, id: &'a str) -> Self {
        let path = format!("apps/{}/{}", segment(&crate::model::app_name(app)), segment(id));
        Self { app: Some(app), instance: Some(id), path, ..Self::new(operation, method) }
    }

    fn path(self, path: String) -> Self {
        Self { path, ..self }
    }

    fn suffix(mut self, suffix: &str) -> Self {
        self.path.push_str(suffix);
        self
    }

    fn body(self, json: Vec<u8>) -> Self {
        Self { body: json.into(), ..self }
    }

    fn accept_not_found(self) -> Self {
        Self { accepts_404: true, ..self }
    }

    fn accept_forbidden(self) -> Self {
        Self { accepts_403: true, ..self }
    }

    fn request(&self, server: &ServiceUrl, identity: &'static str) -> Result<Request<RequestBody>, http::Error> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(format!("{}{}", server.as_str(), self.path))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("tower-eureka/", env!("CARGO_PKG_VERSION")))
            // What Java clients and servers say of themselves; it exempts from the server's rate limit on fetches.
            .header("DiscoveryIdentity-Name", identity);
        if let Some(sender) = self.peer {
            request = request.header("DiscoveryIdentity-Version", "1.0").header("DiscoveryIdentity-Id", sender);
        }
        if let Some(authorization) = server.authorization() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(RequestBody::new(self.body.clone()))
    }

    /// Reads go to the next server wherever that may help. A write that a server refuses (4xx) is refused by all.
    fn judge(&self, status: StatusCode) -> Verdict {
        match status.as_u16() {
            200..=299 => Verdict::Final,
            404 if self.accepts_404 => Verdict::Final,
            403 if self.accepts_403 => Verdict::Final,
            408 | 429 => Verdict::NextServer,
            400..=499 if self.method != Method::GET => Verdict::Refused,
            _ => Verdict::NextServer,
        }
    }
}

fn segment(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, SEGMENT)
}

fn query(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, QUERY)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::thread::{self, ThreadId};

    use http::Response;
    use tower::service_fn;

    use super::*;
    use crate::config::ClientConfig;

    #[tokio::test]
    async fn a_large_answer_is_decoded_where_nobody_waits() {
        for (length, here) in [(LARGE - 1, true), (LARGE, false)] {
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
}
