//! Cost of `Interest::Used`: traffic and instances with 3 of 100 applications of a large registry,
//! compared with a registry that has only those three.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that reports its measurements")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;
use tower::{BoxError, Service};
use tower_eureka::discover::{EurekaDiscover, Selection};
use tower_eureka::transport::{RequestBody, Transport};
use tower_eureka::{Eureka, EurekaServer, Instance, Interest};

const APPLICATIONS: usize = 100;
const PER_APPLICATION: usize = 100;
const USED: usize = 3;
const MINUTES: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// Link to a registry of this crate that counts the bytes in both directions.
#[derive(Clone)]
struct Link {
    router: Router,
    bytes: Arc<AtomicU64>,
}

impl Link {
    fn new(server: &EurekaServer) -> Self {
        Self { router: Router::new().nest("/eureka", server.router()), bytes: Arc::default() }
    }

    fn client(&self, interest: Interest) -> Eureka {
        let builder = Eureka::builder().service_url("http://registry/eureka").interest(interest);
        builder.http_service(self.clone()).build().unwrap()
    }
}

/// Returns the size of headers in HTTP/1.1.
fn size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

impl Service<Request<RequestBody>> for Link {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let sent = request.uri().to_string().len() as u64 + size(request.headers()) + 16;
            let (head, body) = this.router.call(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let received = size(&head.headers) + body.len() as u64 + 17;
            this.bytes.fetch_add(sent + received, Ordering::Relaxed);
            Ok(Response::from_parts(head, Full::new(body)))
        })
    }
}

/// Returns an instance of about 1 KB, most of which cannot be compressed.
fn instance(app: usize, number: usize, build: usize) -> Instance {
    let mut state = (app * 1_000 + number) as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut digits = String::new();
    while digits.len() < 400 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        digits.push_str(&format!("{:x}", state >> 20));
    }
    let builder = Instance::builder(format!("app-{app}")).id(format!("app-{app}-{number}"));
    let builder = builder.ip_addr(format!("10.0.{app}.{number}")).port(8080).lease_duration(MINUTES * 4 * MINUTE);
    builder.metadata("digits", digits).metadata("build", build.to_string()).build().unwrap()
}

async fn registry(applications: usize) -> (EurekaServer, Transport) {
    let server = EurekaServer::builder().read_only_cache(false).build().unwrap();
    let operator = Link::new(&server).client(Interest::All).transport().clone();
    for app in 0..applications {
        for number in 0..PER_APPLICATION {
            operator.register(&instance(app, number, 0)).await.unwrap();
        }
    }
    (server, operator)
}

/// Fetches the three applications. Returns the client, and the streams that keep them in use.
async fn fetched(link: &Link, interest: Interest) -> (Eureka, Vec<EurekaDiscover>) {
    let client = link.client(interest);
    let applications = || (0..USED).map(|app| Selection::app(format!("app-{app}")));
    let streams = applications().map(|app| client.discover(app).unwrap()).collect();
    for application in applications() {
        assert_eq!(client.ready_for(application).await.unwrap().len(), PER_APPLICATION);
    }
    (client, streams)
}

#[tokio::test(start_paused = true)]
async fn three_of_a_hundred_applications_cost_at_most_twice_a_registry_of_three() {
    let ((large, of_large), (small, of_small)) = (registry(APPLICATIONS).await, registry(USED).await);
    // Deltas have the registrations for three minutes.
    sleep(5 * MINUTE).await;
    let (used_link, all_link) = (Link::new(&large), Link::new(&small));
    let (used, _streams) = fetched(&used_link, Interest::Used).await;
    let (all, _others) = fetched(&all_link, Interest::All).await;
    for minute in 0..MINUTES as usize {
        // One of the used applications changes every five minutes, and others do all the time.
        if minute % 5 == 0 {
            let changed = instance(minute / 5 % USED, minute % PER_APPLICATION, minute);
            of_large.register(&changed).await.unwrap();
            of_small.register(&changed).await.unwrap();
        }
        for other in 0..2 {
            let app = USED + (minute * 2 + other) % (APPLICATIONS - USED);
            of_large.register(&instance(app, minute % PER_APPLICATION, minute)).await.unwrap();
        }
        sleep(MINUTE).await;
    }
    let builds = |client: &Eureka| {
        let snapshot = client.snapshot();
        let instances = snapshot.applications().flat_map(|app| app.instances.iter().cloned());
        let mut builds: Vec<_> =
            instances.map(|i| (i.id().to_owned(), i.metadata().get("build").unwrap_or_default().to_owned())).collect();
        builds.sort();
        builds
    };
    assert_eq!(builds(&used), builds(&all));
    assert_eq!(builds(&used).len(), USED * PER_APPLICATION);
    let [used_bytes, all_bytes] = [&used_link, &all_link].map(|link| link.bytes.load(Ordering::Relaxed));
    println!("traffic in {MINUTES} minutes: {used_bytes} bytes of 3 in 100 applications, {all_bytes} of 3 alone");
    assert!(used_bytes <= 2 * all_bytes, "{used_bytes} bytes, {all_bytes} bytes of three alone");
}
