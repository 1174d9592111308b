//! The same random requests to a Spring server and to ours, one after the other: same status codes, same registries.
//!
//! A seed makes the requests ([`requests`], with [`odd`] values in them); what only a clock decides is taken out of the
//! responses ([`normal`]). Lists come as JSON and XML ([`xml`]), full and compact. Where the two differ on purpose, the request
//! carries the row of `docs/quirks.md`, and what it touched is taken out of both before the next one; rows about what a
//! response shows (D14, D34, P31, P35, S4, S7) are told by what differs. Anything else fails with the seed.
//! `DIFFERENTIAL_REQUESTS` (3000) and `DIFFERENTIAL_SEED` (random) are read from the environment.

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
use self::requests::{Asked, Form, Key, single};
use super::process::free_port;
use super::rust::Registry;
use super::spring::Server;
use super::{alone, until};

const REQUESTS: u64 = 3_000;
/// Requests between two looks at the whole registry.
const LOOK: u64 = 250;
/// From the start of ours to its first list.
const SOON: Duration = Duration::from_secs(20);
/// Requests that a failure shows of what the failed one touched.
const HISTORY: usize = 4_000;

#[tokio::test]
async fn random_requests_find_only_documented_differences() {
    let _turn = alone().await;
    let requests = from_environment("DIFFERENTIAL_REQUESTS").unwrap_or(REQUESTS);
    let seed = from_environment("DIFFERENTIAL_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("differential: DIFFERENTIAL_SEED={seed} DIFFERENTIAL_REQUESTS={requests}");
    // Nothing expires by time: leases are renewed all the time, the delta keeps what it has.
    let still = [
        "--eureka.server.enable-self-preservation=false",
        "--eureka.server.eviction-interval-timer-in-ms=86400000",
        "--eureka.server.retention-time-in-m-s-in-delta-queue=86400000",
    ]
    .map(String::from);
    let java = Server::start_with("differential-spring", free_port(), &still).await;
    let by_itself = [
        "--eureka.client.register-with-eureka=false",
        "--eureka.client.fetch-registry=false",
        "--eureka.server.wait-time-in-ms-when-sync-empty=0",
    ]
    .map(String::from);
    let mut ours = Registry::start_with("differential-ours", "127.0.0.1:0", &[still, by_itself].concat()).await;
    let mut pair = Pair::new(seed, java.url.clone(), ours.url.clone());
    until("ours answers", SOON, async || super::http::text(&format!("{}apps", ours.url)).await).await;

    let mut rng = fastrand::Rng::with_seed(seed);
    for number in 1..=requests {
        pair.try_one(Asked::random(&mut rng)).await;
        if number % LOOK == 0 {
            for path in ["apps", "apps/delta"] {
                for form in [Form::Json, Form::CompactJson, Form::Xml, Form::CompactXml] {
                    pair.try_one(Asked::list(path, form)).await;
                }
            }
        }
    }
    ours.process.assert_runs();
    eprintln!("differential: {requests} requests, decided differences met: {:?}", pair.met);
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// A status and a body without what only a clock decides.
#[derive(Debug)]
struct Answer {
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
    /// How often each row of `docs/quirks.md` was met.
    met: BTreeMap<&'static str, usize>,
}

impl Pair {
    fn new(seed: u64, java: String, ours: String) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { seed, java, ours, client, history: VecDeque::new(), touched: VecDeque::new(), met: BTreeMap::new() }
    }

    async fn try_one(&mut self, asked: Asked) {
        let (mut java, mut ours) = self.ask(&asked).await;
        self.history.push_back(format!("{asked}\n      {} {}", java.status, ours.status));
        self.touched.push_back(asked.touches.clone());
        if self.history.len() > HISTORY {
            self.history.pop_front();
            self.touched.pop_front();
        }
        if let Some(row) = asked.quirk {
            let expected = match (row, java.status.as_u16(), ours.status.as_u16()) {
                ("D15", java, own) => (java, own) == (400, 200),
                ("S18", java, own) => [(200, 400), (404, 404)].contains(&(java, own)),
                // Refused for another reason, or by Java alone.
                (row, java, own) if odd::REFUSED.contains(&row) => java == own || (java == 400 && own < 300),
                (_, java, own) => java == own,
            };
            if !expected {
                self.fail(&asked, &java, &ours);
            }
            self.meet(row);
            for key in &asked.touches {
                // The delta tells of the last registration only.
                for asked in [Asked::cancel(key), Asked::plain(key), Asked::cancel(key)] {
                    self.ask(&asked).await;
                }
            }
            return;
        }
        self.forget_repeated(&asked, &mut java, &ours);
        self.forget_overtaken(&asked, &mut java, &mut ours);
        self.forget_narrowed(&asked, &mut java, &ours);
        if self.alike(&java, &ours) {
            return;
        }
        let (Some(java_list), Some(our_list)) = (List::of(&java.body), List::of(&ours.body)) else {
            self.fail(&asked, &java, &ours);
        };
        let mut stale = false;
        for key in java_list.differing(&our_list) {
            if !self.is_stale(&asked, &key, &our_list).await {
                eprintln!("{}", java_list.difference(&our_list, &key));
                self.show(&key);
                self.fail(&asked, &java, &ours);
            }
            stale = true;
        }
        if stale {
            self.meet("S4");
        } else if java.status != ours.status || java_list.head != our_list.head {
            self.fail(&asked, &java, &ours);
        }
    }

    /// The answer to a batch has a copy at each stale heartbeat of an instance from Java, from ours at the first (D34).
    /// They are the same, unless another item changed the instance meanwhile (S7).
    fn forget_repeated(&mut self, asked: &Asked, java: &mut Answer, ours: &Answer) {
        let java = java.body.get_mut("responseList").and_then(Value::as_array_mut);
        let (Some(java), Some(ours)) = (java, ours.body.get("responseList").and_then(Value::as_array)) else { return };
        let keys = &asked.touches;
        if java.len() != keys.len() || ours.len() != keys.len() {
            return;
        }
        for (first, told) in ours.iter().enumerate() {
            let Some(told) = told.get("responseEntity") else { continue };
            let later: Vec<_> = (first + 1..keys.len()).filter(|&at| keys[at] == keys[first]).collect();
            let changed = later.iter().any(|&at| ours[at]["statusCode"] != 409);
            for at in later {
                let is_told =
                    |copy: &Value| copy.is_object() && (changed || normal::alike(copy, told, &mut BTreeSet::new()));
                let repeats = java[at]["statusCode"] == 409 && java[at].get("responseEntity").is_some_and(is_told);
                if repeats && ours[at] == json!({ "statusCode": 409 }) {
                    java[at] = ours[at].clone();
                    self.meet("D34");
                }
            }
        }
    }

    /// In the answer to a batch Java shows records as they are at its end, also to items before those that changed them (S7).
    fn forget_overtaken(&mut self, asked: &Asked, java: &mut Answer, ours: &mut Answer) {
        for (at, key) in asked.touches.iter().enumerate() {
            if asked.touches[at + 1..].contains(key) {
                let entity = |answer: &mut Answer| {
                    answer.body.pointer_mut(&format!("/responseList/{at}/responseEntity")).map(Value::take)
                };
                if entity(java) != entity(ours) {
                    self.meet("S7");
                }
            }
        }
    }

    /// The XML of a single instance has only the statuses of the first version of the protocol in Java (P35).
    fn forget_narrowed(&mut self, asked: &Asked, java: &mut Answer, ours: &Answer) {
        let (Some(java), Some(own)) =
            (java.body.pointer_mut("/instance/status"), ours.body.pointer("/instance/status"))
        else {
            return;
        };
        if asked.form.is_xml() && *java == "DOWN" && (*own == "OUT_OF_SERVICE" || *own == "UNKNOWN") {
            *java = own.clone();
            self.meet("P35");
        }
    }

    /// Whether it is only Java's list that is old: looked at one by one the two agree, and ours lists what it then shows.
    async fn is_stale(&mut self, asked: &Asked, key: &Key, ours: &List) -> bool {
        let (java, own) = self.ask(&single(key)).await;
        let listed = ours.instances.get(key);
        let expected = own.body.get("instance").filter(|instance| normal::is_listed(&asked.path, instance));
        let expected = expected.map(|instance| normal::shown(asked.form, instance));
        self.alike(&java, &own) && listed == expected.as_ref()
    }

    /// The same, but for what is decided of single members.
    fn alike(&mut self, java: &Answer, ours: &Answer) -> bool {
        if java.status != ours.status {
            return false;
        }
        let mut rows = BTreeSet::new();
        let alike = normal::alike(&java.body, &ours.body, &mut rows);
        rows.into_iter().filter(|_| alike).for_each(|row| self.meet(row));
        alike
    }

    async fn ask(&self, asked: &Asked) -> (Answer, Answer) {
        tokio::join!(self.answer(&self.java, asked), self.answer(&self.ours, asked))
    }

    async fn answer(&self, base: &str, asked: &Asked) -> Answer {
        let mut request = Request::builder().method(asked.method).uri(format!("{base}{}", asked.path));
        request = request.header("Accept", if asked.form.is_xml() { "application/xml" } else { "application/json" });
        if asked.form.is_compact() {
            request = request.header("X-Eureka-Accept", "compact");
        }
        if asked.replica {
            request = request.header("x-netflix-discovery-replication", "true");
        }
        let body = match &asked.body {
            Some(body) if asked.is_xml => {
                request = request.header("Content-Type", "application/xml");
                Bytes::from(xml::instance(&body["instance"]).replace(odd::LAST_METADATA, "metadata"))
            }
            Some(body) => {
                request = request.header("Content-Type", "application/json");
                Bytes::from(body.to_string().replace(odd::LAST_METADATA, "metadata"))
            }
            None => Bytes::new(),
        };
        let response = self.client.request(request.body(Full::new(body)).expect("a good request")).await;
        let (head, body) = response.unwrap_or_else(|error| panic!("{asked} at {base}: {error}")).into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        // The words of a refusal are nobody's business.
        let counts = head.status.is_success() || head.status == StatusCode::CONFLICT;
        let body = match std::str::from_utf8(&body) {
            Ok(body) if counts && body.starts_with('<') => xml::value(body).unwrap_or_default(),
            Ok(body) if counts => serde_json::from_str(body).unwrap_or_default(),
            _ => Value::Null,
        };
        Answer { status: head.status, body: normal::normal(body) }
    }

    fn meet(&mut self, row: &'static str) {
        *self.met.entry(row).or_default() += 1;
    }

    fn show(&self, key: &Key) {
        let of_key = self.history.iter().zip(&self.touched).filter(|(_, touched)| touched.contains(key));
        let lines: Vec<_> = of_key.map(|(line, _)| line).collect();
        lines[lines.len().saturating_sub(20)..].iter().for_each(|line| eprintln!("  {line}"));
    }

    fn fail(&self, asked: &Asked, java: &Answer, ours: &Answer) -> ! {
        eprintln!("before it:");
        asked.touches.iter().for_each(|key| self.show(key));
        panic!(
            "DIFFERENTIAL_SEED={}: {asked}\nJava: {} {}\nours: {} {}",
            self.seed, java.status, java.body, ours.status, ours.body
        );
    }
}
