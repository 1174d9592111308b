//! Random operations on the registry, and a consumer that receives lost, stale, repeated,
//! incomplete and wrong responses: no application that is never empty at the registry is ever empty
//! at the consumer, and once the responses are right, the consumer has the registry's instances.
//!
//! `EUREKA_MODEL_SEED` repeats a failure.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use ::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::{BoxError, ServiceExt, service_fn};

use super::*;
use crate::cache::{Refresher, Snapshot};
use crate::config::{ClientConfig, ServiceUrl};
use crate::model::{LeaseInfo, Metadata};
use crate::server::outcome::Origin;
use crate::sync::Mutex;
use crate::transport::{HttpStack, RequestBody, Transport};

const OPERATIONS: usize = 100_000;
const OPERATIONS_PER_REFRESH: usize = 50;
/// Refreshes between two times of right responses.
const REFRESHES_PER_RUN: usize = 100;
/// Refreshes with right responses until the states are compared: longer than a lease is held, and
/// than the interval of verifications.
const QUIET_REFRESHES: usize = 32;

/// The first two applications never lose their last instance.
const APPS: [&str; 5] = ["STEADY", "ROLLING", "ORDERS", "STOCK", "BILLING"];
const STEADY: usize = 2;
const IDS: [&str; 4] = ["a", "b", "c", "d"];

type Recorded = (StatusCode, HeaderMap, Bytes);

/// Way from the consumer to the registry.
struct Wire {
    router: Router,
    random: Mutex<fastrand::Rng>,
    /// True while responses are right.
    is_quiet: AtomicBool,
    /// True if the registry sends digests.
    has_digests: AtomicBool,
    /// Earlier responses by path.
    sent: Mutex<HashMap<String, Vec<Recorded>>>,
}

impl Wire {
    async fn respond(&self, mut request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, BoxError> {
        request.headers_mut().remove(header::ACCEPT_ENCODING);
        let path = request.uri().path().to_owned();
        let response = self.router.clone().oneshot(request).await?;
        let (mut head, body) = response.into_parts();
        if !self.has_digests.load(Ordering::Relaxed) {
            head.headers.remove("eureka-digest");
            head.headers.remove(header::ETAG);
        }
        let right = (head.status, head.headers, body.collect().await?.to_bytes());
        let mut sent = self.sent.lock();
        let earlier = sent.entry(path.clone()).or_default();
        if earlier.len() == 12 {
            earlier.remove(0);
        }
        earlier.push(right.clone());
        if self.is_quiet.load(Ordering::Relaxed) {
            return Ok(response_of(right));
        }
        let mut random = self.random.lock();
        let (has_digests, (status, headers, body)) = (self.has_digests.load(Ordering::Relaxed), right);
        let wrong = match random.u8(..20) {
            0 => return Err("connection reset".into()),
            1 => (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), Bytes::new()),
            2 => (StatusCode::OK, HeaderMap::new(), "<html>login</html>".into()),
            3 => (status, headers, body.slice(..body.len() / 2)),
            // Repeated.
            4 | 5 => earlier[earlier.len().saturating_sub(2)].clone(),
            // Stale. Without digests, counts may match by chance.
            6 | 7 if has_digests => earlier[random.usize(..earlier.len())].clone(),
            8..=10 if has_digests && path.ends_with("/delta") && status.is_success() => {
                (status, headers, incomplete(&body, &mut random).into())
            }
            11 if has_digests => {
                let mut headers = headers;
                headers.insert("eureka-digest", "v1=0123456789abcdef".parse()?);
                (status, headers, body)
            }
            _ => (status, headers, body),
        };
        Ok(response_of(wrong))
    }
}

fn response_of((status, mut headers, body): Recorded) -> Response<Full<Bytes>> {
    headers.remove(header::CONTENT_LENGTH);
    let mut response = Response::new(Full::new(body));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

/// Removes random instances from a list.
fn incomplete(body: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(body).unwrap();
    for application in json["applications"]["application"].as_array_mut().unwrap() {
        application["instance"].as_array_mut().unwrap().retain(|_| random.u8(..3) > 0);
    }
    serde_json::to_vec(&json).unwrap()
}

/// Registry that is changed at random.
struct Changed {
    server: EurekaServer,
    random: fastrand::Rng,
    dirty: i64,
    /// Applications that had no instance at some time.
    was_empty: [bool; APPS.len()],
}

impl Changed {
    fn operate(&mut self) {
        let (registry, now) = (self.server.registry().clone(), self.server.now());
        let at = self.random.usize(..APPS.len());
        let (app, id) = (APPS[at], IDS[self.random.usize(..IDS.len())]);
        let is_last = || registry.application(app).is_none_or(|view| view.records.len() < 2);
        let status = InstanceStatus::ALL[self.random.usize(..InstanceStatus::ALL.len())];
        match self.random.u8(..10) {
            0..=3 => self.register(app, id, status),
            // A deployment: another instance takes the place of this one.
            4 if app == "ROLLING" => {
                let next = IDS[self.random.usize(..IDS.len())];
                self.register(app, next, InstanceStatus::Up);
                if !is_last() {
                    registry.cancel(app, id, now);
                }
            }
            4 | 5 if at >= STEADY || !is_last() => drop(registry.cancel(app, id, now)),
            6 => drop(registry.set_override(app, id, status, None, now)),
            7 => drop(registry.delete_override(app, id, status, None, now)),
            8 => {
                let value = self.random.u8(..).to_string();
                let _ = registry.merge_metadata(app, id, vec![("key".into(), value)], now);
            }
            _ => drop(registry.renew(app, id, None, Origin::Client, now)),
        }
        self.note_empty();
    }

    /// Records the applications that are empty now.
    fn note_empty(&mut self) {
        for (app, was_empty) in APPS.iter().zip(&mut self.was_empty) {
            *was_empty |= self.server.registry().application(app).is_none();
        }
    }

    fn register(&mut self, app: &str, id: &str, status: InstanceStatus) {
        self.dirty += 1;
        let metadata: Metadata = [("key", self.random.u8(..).to_string())].into_iter().collect();
        let instance = Instance {
            instance_id: Some(id.into()),
            host_name: Some("h".into()),
            ip_addr: Some("10.0.0.1".into()),
            status,
            lease: Some(LeaseInfo::default()),
            last_dirty_timestamp: Some(self.dirty),
            metadata,
            ..Instance::bare(app.into())
        };
        self.server.registry().register(instance, Origin::Client, self.server.now()).unwrap();
    }

    /// Renews all leases. Some instances fall silent unless `all` is set.
    fn renew(&mut self, all: bool) {
        for (at, app) in APPS.iter().enumerate() {
            for id in IDS {
                if all || at < STEADY || self.random.u8(..10) > 0 {
                    self.server.registry().renew(app, id, None, Origin::Client, self.server.now());
                }
            }
        }
    }

    fn instances(&self) -> Instances {
        instances(self.server.applications().applications.iter().flat_map(|application| &application.instances))
    }
}

/// Relevant data of each instance.
type Instances = BTreeMap<(String, String), (InstanceStatus, InstanceStatus, Metadata, Option<i64>)>;

fn instances<'a>(instances: impl Iterator<Item = &'a Arc<Instance>>) -> Instances {
    let row = |instance: &Arc<Instance>| {
        let data =
            (instance.status, instance.overridden_status, instance.metadata.clone(), instance.last_dirty_timestamp);
        ((instance.app().to_owned(), instance.id().to_owned()), data)
    };
    instances.map(row).collect()
}

#[tokio::test(start_paused = true)]
async fn consumer_agrees_with_the_registry_after_random_operations_and_faults() {
    let seed = std::env::var("EUREKA_MODEL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("EUREKA_MODEL_SEED={seed}");
    fastrand::seed(seed);
    let server = EurekaServer::builder().eviction(Eviction::new().self_preservation(false)).build().unwrap();
    let wire = Arc::new(Wire {
        router: Router::new().nest("/eureka", server.router()),
        random: Mutex::new(fastrand::Rng::with_seed(seed)),
        is_quiet: AtomicBool::new(true),
        has_digests: AtomicBool::new(true),
        sent: Mutex::default(),
    });
    let (random, dirty) = (fastrand::Rng::with_seed(seed ^ 1), server.now());
    let mut registry = Changed { server, random, dirty, was_empty: [false; APPS.len()] };
    for app in APPS {
        registry.register(app, "a", InstanceStatus::Up);
    }
    let config = ClientConfig::default();
    let served = wire.clone();
    let respond = service_fn(move |request| {
        let served = served.clone();
        async move { served.respond(request).await }
    });
    let stack = HttpStack::over(respond, &config);
    let transport = Transport::new(ServiceUrl::parse_list("http://registry/eureka/").unwrap(), stack);
    let mut refresher = Refresher::new(transport, &config);
    let mut seen = refresher.next().await.0.unwrap();

    for refresh in 0..OPERATIONS / OPERATIONS_PER_REFRESH {
        for _ in 0..OPERATIONS_PER_REFRESH {
            registry.operate();
        }
        registry.renew(false);
        wire.is_quiet.store(false, Ordering::Relaxed);
        refresh_once(&mut refresher, &mut seen, &mut registry).await;
        if refresh % REFRESHES_PER_RUN == REFRESHES_PER_RUN - 1 {
            wire.is_quiet.store(true, Ordering::Relaxed);
            for _ in 0..QUIET_REFRESHES {
                registry.renew(true);
                refresh_once(&mut refresher, &mut seen, &mut registry).await;
            }
            let there = instances(seen.applications().flat_map(|application| &application.instances));
            assert_eq!(there, registry.instances(), "after refresh {refresh}");
            // The next run has the other kind of registry.
            wire.has_digests.fetch_not(Ordering::Relaxed);
            wire.sent.lock().clear();
        }
    }
    assert!(registry.was_empty[STEADY..].iter().all(|was_empty| *was_empty), "others were empty");
}

/// Refreshes once, and waits for the time of the next refresh.
async fn refresh_once(refresher: &mut Refresher, seen: &mut Snapshot, registry: &mut Changed) {
    let (refreshed, wait) = refresher.next().await;
    if let Ok(snapshot) = refreshed {
        *seen = snapshot;
    }
    registry.note_empty();
    for (app, was_empty) in APPS.iter().zip(registry.was_empty) {
        let is_empty = seen.application(app).is_none_or(|application| application.instances.is_empty());
        assert!(was_empty || !is_empty, "{app} is empty");
    }
    tokio::time::sleep(wait).await;
    registry.note_empty();
}
