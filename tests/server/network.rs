//! Nodes and a network in memory between them, so that a cluster runs with paused time.

use std::collections::{HashMap, HashSet};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::{Service, ServiceExt, service_fn};
use tower_eureka::EurekaServer;
use tower_eureka::model::Instance;
use tower_eureka::server::{EurekaServerBuilder, Eviction, Limits, Node as NodeSettings, Peers, Regions};
use tower_eureka::transport::RequestBody;

pub(crate) const ORDER: &str = "h:orders:1";
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Time in which a change reaches all nodes.
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// Hosts by name, and the connections between them.
#[derive(Clone, Default)]
pub(crate) struct Network(pub(crate) Arc<Mutex<Wires>>);

#[derive(Default)]
pub(crate) struct Wires {
    pub(crate) hosts: HashMap<String, Router>,
    /// Pairs of sender and receiver whose requests get no response.
    cut: HashSet<(String, String)>,
    /// Hosts that panic when they send their next batch.
    panics: HashSet<String>,
    batches: Vec<Batch>,
}

/// Replication batch from one host to another.
pub(crate) struct Batch {
    from: String,
    to: String,
    body: Value,
}

/// Settings of a node under test.
pub(crate) struct Setup {
    peers: Peers,
    node: NodeSettings,
    regions: Regions,
    eviction: Eviction,
    limits: Limits,
    /// Applied after the others.
    last: Box<dyn FnOnce(EurekaServerBuilder) -> EurekaServerBuilder>,
}

impl Setup {
    pub(crate) fn with(self, last: impl FnOnce(EurekaServerBuilder) -> EurekaServerBuilder + 'static) -> Self {
        Self { last: Box::new(last), ..self }
    }

    pub(crate) fn peers(self, change: impl FnOnce(Peers) -> Peers) -> Self {
        Self { peers: change(self.peers), ..self }
    }

    pub(crate) fn node(self, change: impl FnOnce(NodeSettings) -> NodeSettings) -> Self {
        Self { node: change(self.node), ..self }
    }

    pub(crate) fn regions(self, change: impl FnOnce(Regions) -> Regions) -> Self {
        Self { regions: change(self.regions), ..self }
    }

    pub(crate) fn eviction(self, change: impl FnOnce(Eviction) -> Eviction) -> Self {
        Self { eviction: change(self.eviction), ..self }
    }

    pub(crate) fn limits(self, change: impl FnOnce(Limits) -> Limits) -> Self {
        Self { limits: change(self.limits), ..self }
    }

    fn builder(self) -> EurekaServerBuilder {
        let Self { peers, node, regions, eviction, limits, last } = self;
        let builder = EurekaServer::builder().port(8761).peers(peers).node(node).regions(regions);
        last(builder.eviction(eviction).limits(limits))
    }
}

/// HTTP service of a host, which sends its requests through the network.
#[derive(Clone)]
pub(crate) struct Link {
    network: Network,
    from: String,
}

impl Network {
    /// Creates a node whose peer URLs are those of all given hosts, its own included.
    pub(crate) fn node(&self, name: &str, all: &[&str]) -> Node {
        self.node_with(name, all, |setup| {
            setup.node(|node| node.register(false)).peers(|peers| peers.wait_when_empty(Duration::ZERO))
        })
    }

    pub(crate) fn node_with(&self, name: &str, all: &[&str], configure: impl FnOnce(Setup) -> Setup) -> Node {
        let urls: Vec<_> = all.iter().map(|host| format!("http://{host}:8761/eureka/")).collect();
        let link = self.link(name);
        let setup = Setup {
            peers: Peers::new().url(urls.join(",")).http_service(link),
            node: NodeSettings::new().host_name(name).ip_addr("192.0.2.1").id(name),
            regions: Regions::new(),
            eviction: Eviction::new(),
            limits: Limits::new(),
            last: Box::new(|builder| builder),
        };
        let server = configure(setup).builder().build().unwrap();
        let router = Router::new().nest("/eureka", server.router());
        self.host(name, router.clone());
        Node { name: name.into(), server, router }
    }

    /// Returns the HTTP service of a host.
    pub(crate) fn link(&self, from: &str) -> Link {
        Link { network: self.clone(), from: from.into() }
    }

    /// Removes a host, so that connections to it are refused.
    pub(crate) fn kill(&self, name: &str) {
        self.0.lock().unwrap().hosts.remove(name);
    }

    pub(crate) fn cut(&self, a: &str, b: &str) {
        self.silence(a, b);
        self.silence(b, a);
    }

    /// Drops the requests from one host to another. The other direction continues to work.
    pub(crate) fn silence(&self, from: &str, to: &str) {
        self.0.lock().unwrap().cut.insert((from.into(), to.into()));
    }

    /// Connects two hosts again.
    pub(crate) fn join(&self, a: &str, b: &str) {
        let mut wires = self.0.lock().unwrap();
        wires.cut.retain(|(from, to)| !([from, to] == [a, b] || [from, to] == [b, a]));
    }

    /// Makes the task panic that sends the next batch of this host.
    pub(crate) fn panic(&self, from: &str) {
        self.0.lock().unwrap().panics.insert(from.into());
    }

    /// Adds the host of this name, or replaces it.
    pub(crate) fn host(&self, name: &str, router: Router) {
        self.0.lock().unwrap().hosts.insert(name.into(), router);
    }

    /// Puts a proxy before a node that responds to batches with this status while the switch is on.
    pub(crate) fn refusing_batches(&self, node: &Node, status: StatusCode) -> Switch {
        let (switch, router) = (Switch::default(), node.router.clone());
        let is_on = switch.clone();
        self.proxy(node, move |request| {
            let refused = is_on.0.load(Relaxed) && request.uri().path().contains("peerreplication");
            if refused { Router::new().fallback(move || async move { status }) } else { router.clone() }
        });
        switch
    }

    /// Puts a proxy before a node that passes on batches only.
    pub(crate) fn only_batches(&self, node: &Node) {
        let router = node.router.clone();
        self.proxy(node, move |request| match request.uri().path().contains("peerreplication") {
            true => router.clone(),
            false => Router::new().fallback(|| async { StatusCode::INTERNAL_SERVER_ERROR }),
        });
    }

    fn proxy(&self, node: &Node, choose: impl Fn(&Request<Body>) -> Router + Clone + Send + Sync + 'static) {
        let proxy = service_fn(move |request: Request<Body>| choose(&request).oneshot(request));
        self.host(&node.name, Router::new().fallback_service(proxy));
    }

    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// Returns `from>to action id` for each item of each batch so far.
    pub(crate) fn sent(&self) -> Vec<String> {
        let wires = self.0.lock().unwrap();
        let lines = wires.batches.iter().flat_map(|Batch { from, to, body }| {
            let items = body["replicationList"].as_array().unwrap();
            items.iter().map(move |item| {
                format!("{from}>{to} {} {}", item["action"].as_str().unwrap(), item["id"].as_str().unwrap())
            })
        });
        lines.collect()
    }

    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().batches.clear();
    }

    /// Returns the first batch from one host to another.
    pub(crate) fn batch(&self, from: &str, to: &str) -> Value {
        let wires = self.0.lock().unwrap();
        wires.batches.iter().find(|batch| batch.from == from && batch.to == to).unwrap().body.clone()
    }
}

/// Switch of a proxy, off at first.
#[derive(Clone, Default)]
pub(crate) struct Switch(Arc<AtomicBool>);

impl Switch {
    pub(crate) fn set(&self, is_on: bool) {
        self.0.store(is_on, Relaxed);
    }
}

impl Service<Request<RequestBody>> for Link {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let Self { network, from } = self.clone();
        Box::pin(async move {
            let to = request.uri().host().unwrap().to_owned();
            if network.0.lock().unwrap().cut.contains(&(from.clone(), to.clone())) {
                return std::future::pending().await;
            }
            let Some(router) = network.0.lock().unwrap().hosts.get(&to).cloned() else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            if parts.uri.path().ends_with("/batch/") {
                let panics = network.0.lock().unwrap().panics.remove(&from);
                assert!(!panics, "panics on purpose");
                let body: Value = serde_json::from_slice(&body).unwrap();
                // An empty batch only identifies the receiver.
                if body["replicationList"] != json!([]) {
                    network.0.lock().unwrap().batches.push(Batch { from, to, body });
                }
            }
            Ok(router.oneshot(Request::from_parts(parts, Body::from(body))).await.unwrap())
        })
    }
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) server: EurekaServer,
    pub(crate) router: Router,
}

impl Node {
    pub(crate) async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> StatusCode {
        let request = Request::builder().method(method).uri(format!("/eureka/{path}"));
        let request = request.header("content-type", "application/json").header("accept", "application/json");
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap().status()
    }

    pub(crate) async fn empty(&self, method: &str, path: &str) -> StatusCode {
        self.send(method, path, Body::empty()).await
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let request = Request::get(format!("/eureka/{path}")).header("accept", "application/json");
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    pub(crate) async fn register(&self, id: &str, dirty: i64) {
        assert_eq!(self.send("POST", "apps/ORDERS", document(id, dirty)).await, StatusCode::NO_CONTENT);
    }

    pub(crate) async fn heartbeat(&self, id: &str, dirty: i64) -> StatusCode {
        self.empty("PUT", &format!("apps/ORDERS/{id}?status=UP&lastDirtyTimestamp={dirty}")).await
    }

    pub(crate) fn order(&self, id: &str) -> Option<Instance> {
        self.server.instance("ORDERS", id)
    }

    /// Returns the parts of all instances on which all nodes have to agree.
    pub(crate) fn view(&self) -> Vec<String> {
        let applications = self.server.applications();
        let instances = applications.applications.iter().flat_map(|a| &a.instances);
        let line = |i: &Arc<Instance>| {
            let metadata: Vec<_> = i.metadata().iter().map(|(key, value)| format!("{key}={value}")).collect();
            let (status, overridden, dirty) = (i.status(), i.overridden_status(), i.last_dirty_timestamp());
            format!("{} {status} {overridden} {dirty:?} {}", i.id(), metadata.join(","))
        };
        instances.map(line).collect()
    }
}

pub(crate) fn document(id: &str, dirty: i64) -> String {
    json!({ "instance": {
        "instanceId": id, "hostName": "h", "app": "ORDERS", "ipAddr": "10.0.0.1", "status": "UP",
        "port": { "$": 80, "@enabled": "true" }, "securePort": { "$": 443, "@enabled": "false" },
        "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
        "lastDirtyTimestamp": dirty.to_string(),
    }})
    .to_string()
}

pub(crate) async fn soon() {
    tokio::time::sleep(SOON).await;
}
