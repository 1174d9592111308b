//! Differential test: sends the same random requests to a Spring server and to this crate's
//! registry, and compares statuses and bodies.
//!
//! Requests are generated from a seed ([`requests`], with unusual values from [`odd`]). Values that
//! depend on a clock are removed from the responses ([`normal`]). Lists are fetched as JSON and XML
//! ([`xml`]), full and compact. A request for which a difference is documented carries the row of
//! `docs/quirks.md`, and its instances are cancelled on both servers afterwards. Rows about the
//! contents of a response (D14, D34, P31, P35, S4, S7) are recognized by the difference itself. Any
//! other difference fails with the seed.
//!
//! The environment sets `DIFFERENTIAL_REQUESTS` (defaults to 3000) and `DIFFERENTIAL_SEED`
//! (defaults to a random one).

mod normal;
mod odd;
mod requests;
mod xml;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use self::normal::List;
use self::requests::{Form, Key, TestRequest, single};
use super::process::free_port;
use super::rust::Registry;
use super::spring::Server;
use super::{slot, until};

const REQUESTS: u64 = 3_000;
/// Number of requests between two comparisons of the full registry.
const COMPARE_EVERY: u64 = 250;
/// Time limit from the start of this crate's registry to its first list.
const SOON: Duration = Duration::from_secs(20);
/// Number of recent requests to search for those that a failure shows.
const HISTORY: usize = 4_000;

#[tokio::test]
async fn random_requests_find_only_documented_differences() {
    let _slot = slot().await;
    let requests = from_environment("DIFFERENTIAL_REQUESTS").unwrap_or(REQUESTS);
    let seed = from_environment("DIFFERENTIAL_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("differential: DIFFERENTIAL_SEED={seed} DIFFERENTIAL_REQUESTS={requests}");
    // Nothing expires: there is no eviction, and the delta keeps all entries.
    let no_expiry = [
        "--eureka.server.enable-self-preservation=false",
        "--eureka.server.eviction-interval-timer-in-ms=86400000",
        "--eureka.server.retention-time-in-m-s-in-delta-queue=86400000",
    ]
    .map(String::from);
    let java = Server::start_with("differential-spring", free_port(), &no_expiry).await;
    let standalone = [
        "--eureka.client.register-with-eureka=false",
        "--eureka.client.fetch-registry=false",
        "--eureka.server.wait-time-in-ms-when-sync-empty=0",
    ]
    .map(String::from);
    let mut ours = Registry::start_with("differential-ours", "127.0.0.1:0", &[no_expiry, standalone].concat()).await;
    let mut pair = Pair::new(seed, java.url.clone(), ours.url.clone());
    until("ours responds", SOON, async || super::http::text(&format!("{}apps", ours.url)).await).await;

    let mut rng = fastrand::Rng::with_seed(seed);
    for number in 1..=requests {
        pair.compare(TestRequest::random(&mut rng)).await;
        if number % COMPARE_EVERY == 0 {
            for path in ["apps", "apps/delta"] {
                for form in [Form::Json, Form::CompactJson, Form::Xml, Form::CompactXml] {
                    pair.compare(TestRequest::list(path, form)).await;
                }
            }
        }
    }
    ours.process.assert_runs();
    eprintln!("differential: {requests} requests, documented differences seen: {:?}", pair.seen);
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// Status, and body without values that depend on a clock.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    body: Value,
}

struct Pair {
    seed: u64,
    java: String,
    ours: String,
    client: Client<HttpConnector, Full<Bytes>>,
    history: VecDeque<String>,
    touched: VecDeque<Vec<Key>>,
    /// Number of differences by row of `docs/quirks.md`.
    seen: BTreeMap<&'static str, usize>,
}

impl Pair {
    fn new(seed: u64, java: String, ours: String) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { seed, java, ours, client, history: VecDeque::new(), touched: VecDeque::new(), seen: BTreeMap::new() }
    }

    async fn compare(&mut self, request: TestRequest) {
        let (mut java, mut ours) = self.send(&request).await;
        self.history.push_back(format!("{request}\n      {} {}", java.status, ours.status));
        self.touched.push_back(request.touches.clone());
        if self.history.len() > HISTORY {
            self.history.pop_front();
            self.touched.pop_front();
        }
        if let Some(row) = request.quirk {
            let expected = match (row, java.status.as_u16(), ours.status.as_u16()) {
                ("D15", java, own) => (java, own) == (400, 200),
                ("D45", java, own) => java == own || (java, own) == (409, 200),
                ("S18", java, own) => [(200, 400), (404, 404)].contains(&(java, own)),
                // Both refuse it for another reason, or only Java refuses it.
                (row, java, own) if odd::REFUSED.contains(&row) => java == own || (java == 400 && own < 300),
                (_, java, own) => java == own,
            };
            if !expected {
                self.fail(&request, &java, &ours);
            }
            self.record(row);
            for key in &request.touches {
                // The delta has only the last state of an instance.
                for request in [TestRequest::cancel(key), TestRequest::plain(key), TestRequest::cancel(key)] {
                    self.send(&request).await;
                }
            }
            return;
        }
        self.accept_repeated(&request, &mut java, &ours);
        self.accept_later(&request, &mut java, &mut ours);
        self.accept_version_1(&request, &mut java, &ours);
        if self.alike(&java, &ours) {
            return;
        }
        let (Some(java_list), Some(our_list)) = (List::of(&java.body), List::of(&ours.body)) else {
            self.fail(&request, &java, &ours);
        };
        let mut stale = false;
        for key in java_list.differing(&our_list) {
            if !self.is_stale(&request, &key, &our_list).await {
                eprintln!("{}", java_list.difference(&our_list, &key));
                self.show(&key);
                self.fail(&request, &java, &ours);
            }
            stale = true;
        }
        if stale {
            self.record("S4");
        } else if java.status != ours.status || java_list.head != our_list.head {
            self.fail(&request, &java, &ours);
        }
    }

    /// Accepts entities that only Java repeats: it sends one for each stale heartbeat of a batch,
    /// this crate one per instance (D34). They are equal, unless another item changed the instance
    /// (S7).
    fn accept_repeated(&mut self, request: &TestRequest, java: &mut Reply, ours: &Reply) {
        let java = java.body.get_mut("responseList").and_then(Value::as_array_mut);
        let (Some(java), Some(ours)) = (java, ours.body.get("responseList").and_then(Value::as_array)) else { return };
        let keys = &request.touches;
        if java.len() != keys.len() || ours.len() != keys.len() {
            return;
        }
        for (first, entity) in ours.iter().enumerate() {
            let Some(entity) = entity.get("responseEntity") else { continue };
            let later: Vec<_> = (first + 1..keys.len()).filter(|&at| keys[at] == keys[first]).collect();
            let changed = later.iter().any(|&at| ours[at]["statusCode"] != 409);
            for at in later {
                let is_equal =
                    |copy: &Value| copy.is_object() && (changed || normal::alike(copy, entity, &mut BTreeSet::new()));
                let repeats = java[at]["statusCode"] == 409 && java[at].get("responseEntity").is_some_and(is_equal);
                if repeats && ours[at] == json!({ "statusCode": 409 }) {
                    java[at] = ours[at].clone();
                    self.record("D34");
                }
            }
        }
    }

    /// Accepts later states: in the response to a batch Java writes the records as they are at its
    /// end, also for items before the last change (S7).
    fn accept_later(&mut self, request: &TestRequest, java: &mut Reply, ours: &mut Reply) {
        for (at, key) in request.touches.iter().enumerate() {
            if request.touches[at + 1..].contains(key) {
                let entity = |reply: &mut Reply| {
                    reply.body.pointer_mut(&format!("/responseList/{at}/responseEntity")).map(Value::take)
                };
                if entity(java) != entity(ours) {
                    self.record("S7");
                }
            }
        }
    }

    /// Accepts the statuses of protocol version 1, which Java writes to the XML of single instances
    /// (P35).
    fn accept_version_1(&mut self, request: &TestRequest, java: &mut Reply, ours: &Reply) {
        let (Some(java), Some(own)) =
            (java.body.pointer_mut("/instance/status"), ours.body.pointer("/instance/status"))
        else {
            return;
        };
        if request.form.is_xml() && *java == "DOWN" && (*own == "OUT_OF_SERVICE" || *own == "UNKNOWN") {
            *java = own.clone();
            self.record("P35");
        }
    }

    /// Returns `true` if only Java's list is outdated: both have the same single instance, and this
    /// crate's list equals it.
    async fn is_stale(&mut self, request: &TestRequest, key: &Key, ours: &List) -> bool {
        let (java, own) = self.send(&single(key)).await;
        let listed = ours.instances.get(key);
        let expected = own.body.get("instance").filter(|instance| normal::is_listed(&request.path, instance));
        let expected = expected.map(|instance| normal::in_form(request.form, instance));
        self.alike(&java, &own) && listed == expected.as_ref()
    }

    /// Returns `true` if the responses are equal, apart from documented differences of single
    /// members.
    fn alike(&mut self, java: &Reply, ours: &Reply) -> bool {
        if java.status != ours.status {
            return false;
        }
        let mut rows = BTreeSet::new();
        let alike = normal::alike(&java.body, &ours.body, &mut rows);
        rows.into_iter().filter(|_| alike).for_each(|row| self.record(row));
        alike
    }

    async fn send(&self, request: &TestRequest) -> (Reply, Reply) {
        tokio::join!(self.request(&self.java, request), self.request(&self.ours, request))
    }

    async fn request(&self, base: &str, request: &TestRequest) -> Reply {
        let mut builder = Request::builder().method(request.method).uri(format!("{base}{}", request.path));
        builder = builder.header("Accept", if request.form.is_xml() { "application/xml" } else { "application/json" });
        if request.form.is_compact() {
            builder = builder.header("X-Eureka-Accept", "compact");
        }
        if request.replica {
            builder = builder.header("x-netflix-discovery-replication", "true");
        }
        let body = match &request.body {
            Some(body) if request.is_xml => {
                builder = builder.header("Content-Type", "application/xml");
                Bytes::from(xml::instance(&body["instance"]).replace(odd::LAST_METADATA, "metadata"))
            }
            Some(body) => {
                builder = builder.header("Content-Type", "application/json");
                Bytes::from(body.to_string().replace(odd::LAST_METADATA, "metadata"))
            }
            None => Bytes::new(),
        };
        let response = self.client.request(builder.body(Full::new(body)).expect("request is valid")).await;
        let (head, body) = response.unwrap_or_else(|error| panic!("{request} at {base}: {error}")).into_parts();
        let body = body.collect().await.expect("body is complete").to_bytes();
        // Bodies of errors are not compared.
        let counts = head.status.is_success() || head.status == StatusCode::CONFLICT;
        let body = match std::str::from_utf8(&body) {
            Ok(body) if counts && body.starts_with('<') => xml::value(body).unwrap_or_default(),
            Ok(body) if counts => serde_json::from_str(body).unwrap_or_default(),
            _ => Value::Null,
        };
        Reply { status: head.status, body: normal::normal(body) }
    }

    fn record(&mut self, row: &'static str) {
        *self.seen.entry(row).or_default() += 1;
    }

    fn show(&self, key: &Key) {
        let of_key = self.history.iter().zip(&self.touched).filter(|(_, touched)| touched.contains(key));
        let lines: Vec<_> = of_key.map(|(line, _)| line).collect();
        lines[lines.len().saturating_sub(20)..].iter().for_each(|line| eprintln!("  {line}"));
    }

    fn fail(&self, request: &TestRequest, java: &Reply, ours: &Reply) -> ! {
        eprintln!("before it:");
        request.touches.iter().for_each(|key| self.show(key));
        panic!(
            "DIFFERENTIAL_SEED={}: {request}\nJava: {} {}\nours: {} {}",
            self.seed, java.status, java.body, ours.status, ours.body
        );
    }
}
