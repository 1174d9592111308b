//! Random requests, most of them valid. Applications and ids are few, so that requests affect each
//! other.

use std::fmt;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::odd;

/// Names of applications as in the path. The registry converts them to upper case.
const APPS: [&str; 4] = ["ORDERS", "billing", "Ship", "R-1"];
const STATUSES: [&str; 5] = ["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "UNKNOWN"];
const VIPS: [&str; 4] = ["one", "two", "one,two", "Three"];

/// Application and instance id, as in the registry.
pub(crate) type Key = (String, String);

/// Form of a response: JSON or XML, full or compact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Json,
    Xml,
    CompactJson,
    CompactXml,
}

impl Form {
    fn random(rng: &mut Rng) -> Self {
        pick(rng, &[Self::Json, Self::Json, Self::Json, Self::Xml, Self::CompactJson, Self::CompactXml])
    }

    pub(crate) fn is_compact(self) -> bool {
        matches!(self, Self::CompactJson | Self::CompactXml)
    }

    pub(crate) fn is_xml(self) -> bool {
        matches!(self, Self::Xml | Self::CompactXml)
    }
}

/// Request that is sent to both servers.
#[derive(Clone, Debug)]
pub(crate) struct TestRequest {
    pub(crate) method: &'static str,
    /// Path after the service URL.
    pub(crate) path: String,
    pub(crate) replica: bool,
    pub(crate) form: Form,
    pub(crate) body: Option<Value>,
    /// `true` if the body, an instance, is sent as XML.
    pub(crate) is_xml: bool,
    /// Instances that the request may change.
    pub(crate) touches: Vec<Key>,
    /// Row of `docs/quirks.md` by which the servers differ after this request. The instances are
    /// then cancelled on both.
    pub(crate) quirk: Option<&'static str>,
}

impl fmt::Display for TestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replica = if self.replica { " (replication)" } else { "" };
        let xml = if self.is_xml { " (sent as XML)" } else { "" };
        write!(f, "{} {} as {:?}{replica}{xml}", self.method, self.path, self.form)?;
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}

impl TestRequest {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            replica: false,
            form: Form::Json,
            body: None,
            is_xml: false,
            touches: Vec::new(),
            quirk: None,
        }
    }

    pub(crate) fn list(path: impl Into<String>, form: Form) -> Self {
        Self { form, ..Self::get(path) }
    }

    pub(crate) fn cancel((app, id): &Key) -> Self {
        let path = format!("apps/{app}/{}", escaped(id));
        Self { method: "DELETE", touches: vec![(app.clone(), id.clone())], ..Self::get(path) }
    }

    /// Returns a registration that both servers read alike.
    pub(crate) fn plain(key: &Key) -> Self {
        let body = Some(json!({ "instance": plain(key) }));
        Self { method: "POST", body, ..Self::get(format!("apps/{}", key.0)) }
    }

    pub(crate) fn random(rng: &mut Rng) -> Self {
        match rng.u32(0..1000) {
            0..300 => register(rng),
            300..520 => heartbeat(rng),
            520..570 => Self { replica: rng.bool(), ..Self::cancel(&key(rng).1) },
            570..660 => set_status(rng),
            660..730 => delete_status(rng),
            730..780 => metadata(rng),
            780..850 => {
                let key = key(rng);
                Self { form: Form::random(rng), ..on_instance(rng, "GET", key, "") }
            }
            850..870 => Self::list(format!("instances/{}", escaped(&key(rng).1.1)), Form::random(rng)),
            870..900 => Self::list(format!("apps/{}", pick(rng, &APPS)), Form::random(rng)),
            900..925 => Self::list(pick(rng, &["apps", "apps/"]), Form::random(rng)),
            925..930 => Self::list("apps/delta", Form::random(rng)),
            930..950 => {
                let path = format!("{}/{}", pick(rng, &["vips", "svips"]), pick(rng, &["one", "two", "Three"]));
                Self::list(path, Form::random(rng))
            }
            _ => batch(rng),
        }
    }
}

/// Fetches a single instance, past all caches.
pub(crate) fn single((app, id): &Key) -> TestRequest {
    TestRequest::get(format!("apps/{app}/{}", escaped(id)))
}

pub(super) fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

fn escaped(id: &str) -> String {
    id.replace('%', "%25").replace(' ', "%20")
}

/// Returns an application as in the path, and an instance of it. No id is in two applications
/// (P22).
fn key(rng: &mut Rng) -> (&'static str, Key) {
    let app = pick(rng, &APPS);
    let upper = app.to_uppercase();
    let id = match rng.u32(0..8) {
        0 => format!("{upper} with blank"),
        n => format!("host-{n}:{upper}:80"),
    };
    (app, (upper, id))
}

/// Returns an older, equal or newer version, rarely an extreme one. The server's clock is newer
/// than all but `i64::MAX`. One id in seven has versions around zero.
fn version(rng: &mut Rng, (_, id): &Key) -> i64 {
    let least = if id.starts_with("host-1:") { -5 } else { 1_000 };
    seldom(rng, |rng| pick(rng, &[-1, i64::MIN, i64::MAX])).unwrap_or_else(|| least + rng.i64(0..8))
}

fn on_instance(rng: &mut Rng, method: &'static str, (app, key): (&str, Key), rest: &str) -> TestRequest {
    let path = format!("apps/{app}/{}{rest}", escaped(&key.1));
    let touches = if method == "GET" { Vec::new() } else { vec![key] };
    TestRequest { method, touches, replica: rng.u32(0..4) == 0 && method != "GET", ..TestRequest::get(path) }
}

/// Builds a query of the parameters that have a value.
fn query(parameters: &[(&str, Option<String>)]) -> String {
    let pairs = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    let pairs: Vec<_> = pairs.collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Returns a value in three of four cases.
fn often<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    (rng.u32(0..4) > 0).then(|| make(rng))
}

pub(super) fn seldom<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    (rng.u32(0..12) == 0).then(|| make(rng))
}

/// Returns a status for a query, rarely an invalid one.
fn word(rng: &mut Rng) -> String {
    seldom(rng, |rng| pick(rng, &["up", "GONE", ""])).unwrap_or_else(|| pick(rng, &STATUSES)).to_owned()
}

/// Version of the far future.
const FUTURE: &str = "9999999999999";

fn heartbeat(rng: &mut Rng) -> TestRequest {
    let key = key(rng);
    let status = often(rng, word);
    let dirty = often(rng, |rng| {
        seldom(rng, |rng| pick(rng, &["x", "", FUTURE, "-1", "%2B7", "7.0"]).to_owned())
            .unwrap_or_else(|| version(rng, &key.1).to_string())
    });
    let overridden = seldom(rng, |rng| pick(rng, &STATUSES).to_owned());
    let is_future = dirty.as_deref() == Some(FUTURE);
    let parameters = query(&[("status", status), ("lastDirtyTimestamp", dirty), ("overriddenstatus", overridden)]);
    let mut request = on_instance(rng, "PUT", key, &parameters);
    // Java has the instance with a still later version.
    request.quirk = (is_future && request.replica).then_some("D45");
    request
}

fn set_status(rng: &mut Rng) -> TestRequest {
    let key = key(rng);
    let value = Some(word(rng)).filter(|_| rng.u32(0..20) > 0);
    let unknown = value.as_deref() == Some("UNKNOWN");
    let dirty = seldom(rng, |rng| version(rng, &key.1).to_string());
    let parameters = query(&[("value", value), ("lastDirtyTimestamp", dirty)]);
    let mut request = on_instance(rng, "PUT", key, &format!("/status{parameters}"));
    request.quirk = (unknown && !request.replica).then_some("S18");
    request
}

fn delete_status(rng: &mut Rng) -> TestRequest {
    let key = key(rng);
    let value = often(rng, word);
    let dirty = seldom(rng, |rng| version(rng, &key.1).to_string());
    on_instance(rng, "DELETE", key, &format!("/status{}", query(&[("value", value), ("lastDirtyTimestamp", dirty)])))
}

fn metadata(rng: &mut Rng) -> TestRequest {
    let key = key(rng);
    let count = rng.usize(0..4);
    let pairs: Vec<_> =
        (0..count).map(|_| format!("{}={}", pick(rng, &["zone", "a", "value"]), rng.u32(0..9))).collect();
    on_instance(rng, "PUT", key, &format!("/metadata?{}", pairs.join("&")))
}

fn register(rng: &mut Rng) -> TestRequest {
    let (app, key) = key(rng);
    let is_xml = rng.u32(0..5) == 0;
    let (instance, quirk) = instance(rng, &key, is_xml);
    let replica = rng.u32(0..4) == 0;
    let touches = vec![key];
    let body = Some(json!({ "instance": instance }));
    TestRequest { method: "POST", replica, body, is_xml, touches, quirk, ..TestRequest::get(format!("apps/{app}")) }
}

fn plain((app, id): &Key) -> Map<String, Value> {
    let class = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo";
    let members = [
        ("instanceId", json!(id)),
        ("app", json!(app)),
        ("hostName", json!("127.0.0.1")),
        ("ipAddr", json!("127.0.0.1")),
        ("dataCenterInfo", json!({"@class": class, "name": "MyOwn"})),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns the instance of a registration, and the row if the servers read it differently.
fn instance(rng: &mut Rng, key: &Key, is_xml: bool) -> (Value, Option<&'static str>) {
    let mut quirk = None;
    let mut members = plain(key);
    let mut put = |name: &str, value: Value| members.insert(name.into(), value);
    if rng.bool() {
        put("app", json!(key.0.to_lowercase()));
    }
    if rng.bool() {
        put(
            "dataCenterInfo",
            json!({"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "Netflix"}),
        );
    }
    if let Some(status) = often(rng, |rng| pick(rng, &STATUSES)) {
        put("status", json!(status));
    }
    if rng.u32(0..40) == 0 {
        put("status", json!(pick(rng, &["up", "Down", "out_of_service"])));
        // Java reads any case in XML.
        quirk = (!is_xml).then_some("P5");
    } else if rng.u32(0..40) == 0 {
        put("status", json!("GONE"));
    }
    if rng.u32(0..10) == 0 {
        put(pick(rng, &["overriddenStatus", "overriddenstatus"]), json!(pick(rng, &STATUSES)));
    }
    if let Some(version) = often(rng, |rng| version(rng, key)) {
        put("lastDirtyTimestamp", if rng.bool() { json!(version) } else { json!(version.to_string()) });
    }
    if rng.bool() {
        put("port", json!({"$": rng.u16(1..), "@enabled": pick(rng, &["true", "false"])}));
        put("securePort", json!({"$": rng.u16(1..).to_string(), "@enabled": pick(rng, &["true", "false"])}));
    }
    if rng.bool() {
        put("vipAddress", json!(pick(rng, &VIPS)));
        put("secureVipAddress", json!(pick(rng, &VIPS)));
    }
    if rng.bool() {
        let (interval, duration) = (pick(rng, &[0, -1, 5, 30]), pick(rng, &[0, -1, 600, 3_600, 86_400]));
        put("leaseInfo", json!({"renewalIntervalInSecs": interval, "durationInSecs": duration}));
    }
    if rng.bool() {
        put("metadata", json!({"zone": "z", "n": rng.u32(0..5).to_string()}));
    }
    if rng.u32(0..4) == 0 {
        put("appGroupName", json!("Group"));
        put("homePageUrl", json!("http://127.0.0.1/"));
        put("statusPageUrl", json!("http://127.0.0.1/info"));
        put("healthCheckUrl", json!("http://127.0.0.1/health"));
        put("countryId", json!(pick(rng, &[1, 7])));
    }
    if !is_xml {
        quirk = odd::values(rng, &mut members).or(quirk);
    }
    if rng.u32(0..12) == 0 {
        odd::id(rng, &mut members, &key.1, is_xml);
    } else if rng.u32(0..15) == 0 {
        members.remove(pick(rng, &["instanceId", "app", "hostName", "ipAddr", "dataCenterInfo"]));
        if !members.contains_key("instanceId") {
            // Otherwise the host name would be the id.
            members.remove("hostName");
        }
    } else if rng.u32(0..30) == 0 {
        members.insert("app".into(), json!("OTHER"));
    }
    (Value::Object(members), quirk)
}

fn batch(rng: &mut Rng) -> TestRequest {
    let (mut items, mut touches, mut quirk) = (Vec::new(), Vec::new(), None);
    for _ in 0..rng.usize(0..6) {
        let (app, key) = key(rng);
        let mut item = Map::new();
        let action = pick(
            rng,
            &["Register", "Register", "Heartbeat", "Heartbeat", "Cancel", "StatusUpdate", "DeleteStatusOverride"],
        );
        item.insert("action".into(), json!(action));
        item.insert("appName".into(), json!(if action == "Register" { key.0.as_str() } else { app }));
        item.insert("id".into(), json!(key.1));
        if let Some(version) = often(rng, |rng| version(rng, &key)) {
            item.insert("lastDirtyTimestamp".into(), json!(version));
        }
        if action == "StatusUpdate" || rng.bool() {
            item.insert("status".into(), json!(pick(rng, &STATUSES)));
        }
        if rng.u32(0..6) == 0 {
            item.insert("overriddenStatus".into(), json!(pick(rng, &STATUSES)));
        }
        if action == "Register" {
            let (instance, read_differently) = instance(rng, &key, false);
            let nameless = instance.get("app").is_none().then_some("D15");
            let refused = read_differently.filter(|row| odd::REFUSED.contains(row));
            quirk = nameless.or(refused).or(quirk).or(read_differently);
            item.insert("instanceInfo".into(), instance);
        }
        items.push(Value::Object(item));
        touches.push(key);
    }
    let path = pick(rng, &["peerreplication/batch", "peerreplication/batch/"]);
    TestRequest {
        method: "POST",
        body: Some(json!({ "replicationList": items })),
        touches,
        quirk,
        ..TestRequest::get(path)
    }
}
