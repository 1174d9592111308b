//! Metrics of balancers and calls, read from a recorder that keeps them.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::sync::mpsc::UnboundedSender;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::discover::Change;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service as _, ServiceExt, service_fn};
use tower_eureka::Instance;
use tower_eureka::balance::{AnyResponse, Attributes, Balance, Ejection, PeakEwma};
use tower_eureka::client::{AttemptBody, Backoff, CallOptions, EurekaLayer, RetryPolicy};
use tower_eureka::model::{Application, Applications};
use tower_eureka::transport::RequestBody;

/// Sums of the recorded values. Each snapshot resets the recorder, so its values are added up.
struct Recorded {
    snapshotter: Snapshotter,
    so_far: BTreeMap<String, i64>,
}

impl Recorded {
    /// Returns all values so far by `name{label=value,…}`. The value of a histogram is its number
    /// of samples.
    fn values(&mut self) -> &BTreeMap<String, i64> {
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let value = match value {
                DebugValue::Counter(count) => count as i64,
                DebugValue::Gauge(value) => value.0 as i64,
                DebugValue::Histogram(values) => values.len() as i64,
            };
            let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            *self.so_far.entry(format!("{}{{{}}}", key.key().name(), labels.join(","))).or_default() += value;
        }
        &self.so_far
    }

    fn value(&mut self, series: &str) -> i64 {
        let so_far = self.values();
        so_far.get(series).copied().unwrap_or_else(|| panic!("no {series} in {so_far:#?}"))
    }
}

/// Runs a test with a recorder of its own and paused time.
fn with_recorder(test: impl AsyncFnOnce(Recorded)) {
    let recorder = DebuggingRecorder::new();
    let recorded = Recorded { snapshotter: recorder.snapshotter(), so_far: BTreeMap::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(recorded)))
}

#[test]
fn endpoints_picks_ejections_and_calls_are_counted_by_application() {
    with_recorder(async |mut recorded| {
        let _balance = some_calls().await;
        assert_eq!(recorded.value("eureka_endpoints{application=ORDERS,state=available}"), 1);
        assert_eq!(recorded.value("eureka_endpoints{application=ORDERS,state=ejected}"), 1);
        assert_eq!(recorded.value("eureka_endpoints{application=ORDERS,state=half_open}"), 0);
        let [good, bad] =
            ["b", "a"].map(|zone| recorded.value(&format!("eureka_picks_total{{application=ORDERS,zone={zone}}}")));
        assert_eq!(good + bad, 100);
        assert!(bad >= 1);
        assert_eq!(recorded.value("eureka_ejections_total{application=ORDERS,cause=consecutive_failures}"), 1);
        assert_eq!(recorded.value("eureka_call_duration_seconds{application=ORDERS,outcome=success}"), good);
        assert_eq!(recorded.value("eureka_call_duration_seconds{application=ORDERS,outcome=failure}"), bad);
    });
}

#[test]
fn pauses_before_retries_are_recorded() {
    with_recorder(async |mut recorded| {
        let instance = Instance::builder("orders").id("a").ip_addr("10.0.0.1").port(1).build().unwrap();
        let orders = Application { name: "ORDERS".into(), instances: vec![instance.into()] };
        let mut list = Applications { version: Some(1), hash: None, applications: vec![orders.into()] };
        list.hash = Some(list.counts().to_string().into());
        let list = Bytes::from(list.to_json());
        let registry = service_fn(move |_: http::Request<RequestBody>| {
            let response = http::Response::builder().header("content-type", "application/json");
            std::future::ready(Ok::<_, Infallible>(response.body(Full::from(list.clone())).unwrap()))
        });
        let eureka = tower_eureka::Eureka::builder().service_url("http://registry/eureka").http_service(registry);
        let below = service_fn(|_: http::Request<AttemptBody<Full<Bytes>>>| {
            let response = http::Response::builder().status(503).body(Full::<Bytes>::default()).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let second = Duration::from_secs(1);
        let retry = RetryPolicy::new().statuses([503]).backoff(Backoff::new(second, second));
        let layer = EurekaLayer::new(&eureka.build().unwrap()).options(CallOptions::new().retry(retry));
        let request = http::Request::get("http://orders/").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(layer.layer(below).oneshot(request).await.unwrap().status(), 503);
        assert_eq!(recorded.value("eureka_retries_total{application=ORDERS,reason=refused}"), 2);
        assert_eq!(recorded.value("eureka_retry_pause_seconds{application=ORDERS}"), 2);
    });
}

#[test]
fn fallbacks_are_counted_by_application_and_outcome() {
    with_recorder(async |mut recorded| {
        let registry = service_fn(|_: http::Request<RequestBody>| {
            let list = Applications { version: Some(1), hash: Some("".into()), applications: Vec::new() };
            let response = http::Response::builder().header("content-type", "application/json");
            std::future::ready(Ok::<_, Infallible>(response.body(Full::from(list.to_json())).unwrap()))
        });
        let eureka = tower_eureka::Eureka::builder().service_url("http://registry/eureka").http_service(registry);
        let fallback =
            service_fn(async |request: http::Request<AttemptBody<Full<Bytes>>>| match request.uri().path() {
                "/good" => Ok(http::Response::new(Full::<Bytes>::default())),
                _ => Err("the cache is cold"),
            });
        let client = eureka.build().unwrap().http_client::<Full<Bytes>>().fallback(fallback);
        for (name, path) in [("one", "good"), ("two", "good"), ("three", "bad")] {
            let request = http::Request::get(format!("http://{name}/{path}")).body(Full::default()).unwrap();
            assert_eq!(client.request(request).await.is_ok(), path == "good");
        }
        assert_eq!(recorded.value("eureka_fallbacks_total{application=unknown,outcome=success}"), 2);
        assert_eq!(recorded.value("eureka_fallbacks_total{application=unknown,outcome=failure}"), 1);
    });
}

#[test]
fn registration_is_recorded_by_instance_and_server() {
    with_recorder(async |mut recorded| {
        let beats = std::sync::Arc::new(AtomicUsize::new(0));
        let registry = service_fn(move |request: http::Request<RequestBody>| {
            // The second heartbeat finds no lease, and the third one fails.
            let beat = if request.method() == http::Method::PUT { beats.fetch_add(1, Ordering::Relaxed) } else { 0 };
            let status = [200, 404, 500].get(beat).copied().unwrap_or(200);
            let response = http::Response::builder().status(status).body(Full::<Bytes>::default()).unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        let url = "http://user:secret@registry/eureka/";
        let eureka = tower_eureka::Eureka::builder().service_url(url).http_service(registry).build().unwrap();
        let instance = Instance::builder("orders").id("a").ip_addr("10.0.0.1").port(80).build().unwrap();
        let handle = eureka.registrar(instance);
        handle.register().await.unwrap();
        tokio::time::sleep(Duration::from_secs(110)).await;
        let of = |name: &str| format!("{name}{{application=ORDERS,instance=a}}");
        assert_eq!(recorded.value(&of("eureka_registered")), 1);
        assert!((0..34).contains(&recorded.value(&of("eureka_lease_age_seconds"))));
        assert_eq!(recorded.value(&of("eureka_reregistrations_total")), 1);
        assert_eq!(recorded.value(&of("eureka_requests_in_flight")), 0);
        let beats = |outcome: &str| {
            let labels = format!("application=ORDERS,instance=a,server=http://registry/eureka/,outcome={outcome}");
            format!("eureka_heartbeat_duration_seconds{{{labels}}}")
        };
        assert!(recorded.value(&beats("success")) >= 5);
        assert_eq!(recorded.value(&beats("failure")), 1);
        let server = "eureka_registry_server{application=ORDERS,instance=a,server=http://registry/eureka/}";
        assert_eq!(recorded.value(server), 1);
        assert!(recorded.values().keys().all(|series| !series.contains("secret")));

        let signal = tokio::time::sleep(Duration::from_secs(1));
        handle.serve(signal, |shutdown| shutdown).await;
        assert_eq!(recorded.value(&of("eureka_drain_duration_seconds")), 1);
    });
}

type Service = BoxCloneSyncService<(), (), Infallible>;
type Update = Change<u8, Service>;

/// Returns a balancer and the channel of its endpoint updates.
fn balancer(name: &str) -> (UnboundedSender<Result<Update, Infallible>>, Balance<Service, PeakEwma, AnyResponse>) {
    let (tell, updates) = tokio::sync::mpsc::unbounded_channel();
    let builder = Balance::builder(UnboundedReceiverStream::new(updates)).name(name).observer(AnyResponse);
    (tell, builder.ready_timeout(Duration::from_secs(1)).build())
}

fn insert(id: u8) -> Result<Update, Infallible> {
    Ok(Change::Insert(id, BoxCloneSyncService::new(service_fn(async |()| Ok(())))))
}

/// Waits until the tasks of the balancers are idle.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[test]
fn unknown_names_create_no_series() {
    with_recorder(async |mut recorded| {
        let unknown = "eureka_fail_fast{application=unknown}";
        let mut balances = Vec::new();
        for i in 0..100 {
            let (tell, mut balance) = balancer(&format!("NAME-{i}"));
            assert!(balance.ready().await.unwrap().call(()).await.unwrap_err().is_no_endpoints());
            balances.push((tell, balance));
        }
        assert_eq!(*recorded.values(), BTreeMap::from([(unknown.to_owned(), 100)]));

        // One name gets an endpoint and keeps its series.
        let fails_fast = "eureka_fail_fast{application=NAME-7}";
        let (tell, balance) = &mut balances[7];
        tell.send(insert(1)).unwrap();
        settled().await;
        assert_eq!(recorded.value("eureka_endpoints{application=NAME-7,state=available}"), 1);
        assert_eq!((recorded.value(unknown), recorded.value(fails_fast)), (99, 0));
        let series = recorded.values();
        assert!(series.keys().all(|key| key == unknown || key.contains("{application=NAME-7")), "{series:#?}");
        tell.send(Ok(Change::Remove(1))).unwrap();
        settled().await;
        assert!(balance.ready().await.unwrap().call(()).await.unwrap_err().is_no_endpoints());
        assert_eq!((recorded.value(unknown), recorded.value(fails_fast)), (99, 1));

        drop(balances);
        settled().await;
        assert_eq!((recorded.value(unknown), recorded.value(fails_fast)), (0, 0));
    });
}

#[test]
fn gauges_of_several_balancers_are_summed_and_withdrawn_when_dropped() {
    with_recorder(async |mut recorded| {
        let available = "eureka_endpoints{application=ORDERS,state=available}";
        let (one, balance) = balancer("ORDERS");
        let (other, another) = balancer("ORDERS");
        for id in 0..3 {
            one.send(insert(id)).unwrap();
        }
        other.send(insert(0)).unwrap();
        settled().await;
        assert_eq!(recorded.value(available), 4);
        one.send(Ok(Change::Remove(0))).unwrap();
        settled().await;
        assert_eq!(recorded.value(available), 3);
        drop(balance);
        settled().await;
        assert_eq!(recorded.value(available), 1);
        drop(another);
        settled().await;
        assert_eq!(recorded.value(available), 0);
    });
}

/// Makes a hundred calls to an application with one failing endpoint of two.
async fn some_calls() -> impl Sized {
    let endpoints = ["a", "b"].map(|zone| Ok::<_, Infallible>(Change::Insert(zone, zone)));
    let mut balance = Balance::builder(tokio_stream::iter(endpoints).chain(tokio_stream::pending()))
        .name("ORDERS")
        .endpoint(|&zone: &&str| {
            service_fn(move |()| async move { if zone == "a" { Err("as asked") } else { Ok(zone) } })
        })
        .attributes(|&zone| Attributes::new().with_zone(zone))
        .ejection(Ejection::new().consecutive_failures(1))
        .observer(AnyResponse)
        .build();
    for _ in 0..100 {
        let _ = balance.ready().await.unwrap().call(()).await;
        tokio::task::yield_now().await;
    }
    balance
}

#[test]
fn registry_is_recorded_with_its_age_size_fetches_and_lag() {
    with_recorder(async |mut recorded| {
        let fetches = std::sync::Arc::new(AtomicUsize::new(0));
        let registry = service_fn(move |_: http::Request<RequestBody>| {
            let fetch = fetches.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, Infallible>(registry_response(fetch)) }
        });
        let url = "http://user:secret@registry/eureka/";
        let eureka = tower_eureka::Eureka::builder().service_url(url).http_service(registry).build().unwrap();
        eureka.ready().await.unwrap();
        let fetches = |outcome: &str| {
            format!("eureka_registry_fetch_duration_seconds{{outcome={outcome},server=http://registry/eureka/}}")
        };
        assert_eq!(recorded.value(&fetches("full")), 1);
        assert_eq!(recorded.value("eureka_registry_applications{}"), 1);
        assert_eq!(recorded.value("eureka_registry_instances{status=UP}"), 1);
        assert_eq!(recorded.value("eureka_registry_stale{}"), 0);
        assert!(recorded.value("eureka_registry_received_bytes_total{}") > 100);
        assert!(!recorded.values().contains_key("eureka_registry_propagation_seconds{}"), "nothing is new yet");

        // A delta with a wrong hash, and the full list with a new instance.
        eureka.refresh().await.unwrap();
        assert_eq!((recorded.value(&fetches("delta")), recorded.value(&fetches("full"))), (1, 2));
        assert_eq!(recorded.value("eureka_registry_mismatches_total{}"), 1);
        assert_eq!(recorded.value("eureka_registry_propagation_seconds{}"), 1);

        eureka.refresh().await.unwrap_err();
        assert_eq!(recorded.value(&fetches("failure")), 1);
        assert_eq!(recorded.value("eureka_registry_stale{}"), 1);
        assert_eq!(recorded.value("eureka_registry_pauses_total{server=http://registry/eureka/}"), 1);
        assert!(recorded.values().keys().all(|series| !series.contains("secret")));
    });
}

#[test]
fn age_of_the_registry_grows_while_a_fetch_hangs() {
    with_recorder(async |mut recorded| {
        let registry = service_fn(|_: http::Request<RequestBody>| {
            std::future::pending::<Result<http::Response<Full<Bytes>>, Infallible>>()
        });
        let url = "http://registry/eureka/";
        let eureka = tower_eureka::Eureka::builder().service_url(url).http_service(registry).build().unwrap();
        eureka.snapshot();
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(recorded.value("eureka_registry_age_seconds{}"), 10);
    });
}

/// Returns the response to a fetch: one instance, a delta that does not match, two instances, and
/// then pauses.
fn registry_response(fetch: usize) -> http::Response<Full<Bytes>> {
    let instance = |id: u64| {
        let port = r#"{"$":80,"@enabled":"true"}"#;
        let address = format!(r#""app":"ORDERS","ipAddr":"10.0.0.{id}","port":{port},"status":"UP""#);
        format!(r#"{{"instanceId":"{id}",{address},"lastUpdatedTimestamp":"{}"}}"#, 1_000_000 + id)
    };
    let (hash, instances) = match fetch {
        0 => ("UP_1_", vec![instance(1)]),
        1 => ("UP_9_", vec![]),
        2 => ("UP_2_", vec![instance(1), instance(2)]),
        _ => {
            let paused = http::Response::builder().status(429).header("retry-after", "60");
            return paused.body(Full::default()).unwrap();
        }
    };
    let applications = match &instances[..] {
        [] => String::new(),
        instances => format!(r#"{{"name":"ORDERS","instance":[{}]}}"#, instances.join(",")),
    };
    let list = format!(r#""versions__delta":"1","apps__hashcode":"{hash}","application":[{applications}]"#);
    let body = format!(r#"{{"applications":{{{list}}}}}"#);
    http::Response::builder().header("content-type", "application/json").body(Full::from(body)).unwrap()
}
