//! Registry servers scripted by a closure, with their responses and faults. They need no socket, so
//! that tests run on paused time. Also instances and lists.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tower::Service;
use tower_eureka::discover::Selection;
use tower_eureka::model::{ActionType, Application, Applications, Instance, InstanceStatus};
use tower_eureka::transport::RequestBody;
use tower_eureka::{Eureka, EurekaBuilder};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Time in which each name is fetched, and no further refresh begins.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// Longest time between two refreshes.
pub(crate) const REFRESH: Duration = Duration::from_secs(35);

/// Listens on a free port, which is returned.
pub(crate) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Request that a scripted server received.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Time since the start of the test.
    pub(crate) at: Duration,
    pub(crate) host: String,
    /// Method, a space, path and query.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Response or fault of a scripted server.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Status(u16),
    Json(String),
    With {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    },
    /// This JSON, after a delay.
    Later(Duration, String),
    /// A head after the first delay, and this JSON after the second one.
    Slowly(Duration, Duration, String),
    /// A head, and this JSON in pieces of about the same size, each after this delay.
    Steadily(Duration, usize, String),
    /// No response.
    Never,
    /// No connection.
    Refused,
    /// A head, and a body that stops after a few bytes without ending.
    Stalls,
    /// A head, and a body without an end.
    Endless,
    /// A head, and a body that ends with an error.
    Breaks,
}

/// HTTP service that responds to each request as the closure decides, and records the requests.
#[derive(Clone)]
pub(crate) struct Scripted {
    start: Instant,
    asked: Arc<Mutex<Vec<Asked>>>,
    respond: Arc<dyn Fn(&Asked) -> Reply + Send + Sync>,
}

impl Scripted {
    pub(crate) fn new(respond: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self { start: Instant::now(), asked: Arc::default(), respond: Arc::new(respond) }
    }

    pub(crate) fn client(&self) -> EurekaBuilder {
        Eureka::builder().service_url("http://registry/eureka").http_service(self.clone())
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns the request lines so far, without the variable parts of heartbeats.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line.split('?').next().unwrap_or_default().to_owned()).collect()
    }

    /// Returns each registration so far, with its time.
    pub(crate) fn registrations(&self) -> Vec<(Duration, Instance)> {
        let registrations = self.asked().into_iter().filter(|asked| asked.line.starts_with("POST"));
        registrations.map(|asked| (asked.at, Instance::from_json(&asked.body).unwrap())).collect()
    }

    /// Returns the `lastDirtyTimestamp` of each registration so far.
    pub(crate) fn registered_versions(&self) -> Vec<i64> {
        self.registrations().iter().map(|(_, sent)| sent.last_dirty_timestamp().unwrap()).collect()
    }

    /// Returns the body of the first registration.
    pub(crate) fn first_registration(&self) -> Bytes {
        let asked = self.asked();
        asked.into_iter().find(|asked| asked.line.starts_with("POST")).expect("there is a registration").body
    }

    /// Waits on paused time until this number of requests has arrived.
    pub(crate) async fn wait_for(&self, count: usize) {
        while self.asked.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Service<Request<RequestBody>> for Scripted {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
            let path = path.strip_prefix("/eureka").unwrap_or(path);
            let asked = Asked {
                at: this.start.elapsed(),
                host: parts.uri.host().unwrap_or_default().to_owned(),
                line: format!("{} {path}", parts.method),
                headers: parts.headers,
                body: body.collect().await.unwrap().to_bytes(),
            };
            let reply = (this.respond)(&asked);
            this.asked.lock().unwrap().push(asked);
            reply.response().await
        })
    }
}

impl Reply {
    async fn response(self) -> io::Result<Response<Body>> {
        let json_type = || vec![("content-type", "application/json".to_owned())];
        let whole = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        let (status, headers, body) = match self {
            Self::Status(status) => (status, Vec::new(), whole(Bytes::new())),
            Self::Json(json) => (200, json_type(), whole(json.into())),
            Self::With { status, headers, body } => (status, headers, whole(body)),
            Self::Later(wait, json) => {
                tokio::time::sleep(wait).await;
                (200, json_type(), whole(json.into()))
            }
            Self::Slowly(head, body, json) => {
                tokio::time::sleep(head).await;
                (200, json_type(), in_pieces(body, 1, &json))
            }
            Self::Steadily(gap, pieces, json) => (200, json_type(), in_pieces(gap, pieces, &json)),
            Self::Never => std::future::pending().await,
            Self::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
            Self::Stalls => (200, Vec::new(), streamed(Ending::Stalls)),
            Self::Endless => (200, Vec::new(), streamed(Ending::Endless)),
            Self::Breaks => (200, Vec::new(), streamed(Ending::Breaks)),
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        Ok(response.body(body).unwrap())
    }
}

/// Returns a body in pieces of about the same size, each after this delay.
fn in_pieces(gap: Duration, pieces: usize, text: &str) -> Body {
    let pieces: Vec<_> = text.as_bytes().chunks(text.len().div_ceil(pieces)).map(Bytes::copy_from_slice).collect();
    let frames = tokio_stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(gap).await;
        Ok(http_body::Frame::data(piece))
    });
    StreamBody::new(frames).boxed_unsync()
}

#[derive(Clone, Copy)]
enum Ending {
    Stalls,
    Endless,
    Breaks,
}

fn streamed(ending: Ending) -> Body {
    let mut sent = 0;
    let frames = std::iter::repeat_with(move || {
        sent += 1;
        match ending {
            Ending::Breaks if sent > 3 => Err(io::Error::other("connection reset")),
            _ => Ok(http_body::Frame::data(Bytes::from(vec![b' '; 64 * 1024]))),
        }
    });
    match ending {
        Ending::Stalls => {
            StreamBody::new(tokio_stream::iter(frames.take(1)).chain(tokio_stream::pending())).boxed_unsync()
        }
        _ => StreamBody::new(tokio_stream::iter(frames)).boxed_unsync(),
    }
}

/// Instances of a registry that works. They may change while it is served.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) instances: Arc<Mutex<BTreeMap<String, Instance>>>,
}

impl Memory {
    pub(crate) fn of(instances: impl IntoIterator<Item = Instance>) -> Self {
        let memory = Self::default();
        instances.into_iter().for_each(|instance| memory.put(instance));
        memory
    }

    pub(crate) fn put(&self, instance: Instance) {
        self.instances.lock().unwrap().insert(instance.id().to_owned(), instance);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.instances.lock().unwrap().remove(id);
    }

    pub(crate) fn full(&self) -> Reply {
        Reply::Json(list(&self.instances.lock().unwrap().values().cloned().collect::<Vec<_>>()))
    }

    /// Returns a server that responds to each request with all instances.
    pub(crate) fn serve(&self) -> Scripted {
        let memory = self.clone();
        Scripted::new(move |_| memory.full())
    }
}

/// Returns a body of two frames, `one` and `two`.
pub(crate) fn two_frames() -> impl http_body::Body<Data = Bytes, Error = std::convert::Infallible> {
    let frames = ["one", "two"].map(|text| Ok(http_body::Frame::data(Bytes::from(text))));
    StreamBody::new(tokio_stream::iter(frames))
}

/// Returns the JSON of a full response with these instances.
pub(crate) fn list(instances: &[Instance]) -> String {
    let mut by_app = BTreeMap::<String, Vec<Arc<Instance>>>::new();
    for instance in instances {
        by_app.entry(instance.app().to_owned()).or_default().push(Arc::new(instance.clone()));
    }
    let applications: Vec<_> =
        by_app.into_iter().map(|(name, instances)| Arc::new(Application { name: name.into(), instances })).collect();
    let mut list = Applications { version: Some(1), hash: None, applications };
    list.hash = Some(list.counts().to_string().into());
    String::from_utf8(list.to_json()).unwrap()
}

/// Returns the JSON of a delta with these entries, their actions, and the hash that the server
/// claims.
pub(crate) fn delta(entries: &[(Instance, ActionType)], hash: &str) -> String {
    let json = list(&entries.iter().map(|(instance, _)| instance.clone()).collect::<Vec<_>>());
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json["applications"]["apps__hashcode"] = hash.into();
    for application in json["applications"]["application"].as_array_mut().unwrap() {
        for instance in application["instance"].as_array_mut().unwrap() {
            let id = instance["instanceId"].as_str().unwrap();
            let action = entries.iter().find(|(known, _)| known.id() == id).unwrap().1;
            instance["actionType"] = action.as_str().into();
        }
    }
    json.to_string()
}

/// Instance of `orders` at this port of this machine.
pub(crate) fn at(id: &str, port: u16) -> Instance {
    Instance::builder("orders").id(id).ip_addr("127.0.0.1").port(port).build().unwrap()
}

/// Returns an UP instance of an application.
pub(crate) fn instance(app: &str, id: &str) -> Instance {
    Instance::builder(app).id(id).ip_addr("127.0.0.1").port(1).build().unwrap()
}

/// Returns an UP instance with these VIP addresses.
pub(crate) fn with_vips(app: &str, id: &str, vips: &str) -> Instance {
    Instance::builder(app).id(id).ip_addr("127.0.0.1").port(1).vip_address(vips).build().unwrap()
}

/// Returns an UP instance in an availability zone of AWS.
pub(crate) fn in_zone(app: &str, id: &str, zone: &str) -> Instance {
    edited(&instance(app, id), |json| {
        json["dataCenterInfo"] = serde_json::json!({
            "@class": "com.netflix.appinfo.AmazonInfo",
            "name": "Amazon",
            "metadata": { "availability-zone": zone, "instance-id": id },
        });
    })
}

/// Returns the instance with another status.
pub(crate) fn with_status(instance: &Instance, status: InstanceStatus) -> Instance {
    edited(instance, |json| json["status"] = status.as_str().into())
}

pub(crate) fn down(instance: &Instance) -> Instance {
    with_status(instance, InstanceStatus::Down)
}

/// Returns the instance with changed members of its JSON.
pub(crate) fn edited(instance: &Instance, edit: impl FnOnce(&mut serde_json::Value)) -> Instance {
    let mut json: serde_json::Value = serde_json::from_slice(&instance.to_json()).unwrap();
    edit(&mut json["instance"]);
    Instance::from_json(json.to_string().as_bytes()).unwrap()
}

/// Returns the sorted ids of the selected instances.
pub(crate) fn ids(client: &Eureka, selection: impl Into<Selection>) -> Vec<String> {
    let mut ids: Vec<_> =
        selection.into().instances(&client.snapshot()).iter().map(|instance| instance.id().to_owned()).collect();
    ids.sort();
    ids
}
