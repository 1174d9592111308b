//! What is counted, with a recorder that keeps it.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::sync::mpsc::UnboundedSender;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::discover::Change;
use tower::util::BoxCloneSyncService;
use tower::{Service as _, ServiceExt, service_fn};
use tower_eureka::balance::{AnyResponse, Attributes, Balance, Ejection, PeakEwma};

/// What a recorder was told, summed up: looking at it begins its sums anew.
struct Told {
    snapshotter: Snapshotter,
    so_far: BTreeMap<String, i64>,
}

impl Told {
    /// Everything so far: `name{label=value,…}` and its value, histograms by how many values they got.
    fn so_far(&mut self) -> &BTreeMap<String, i64> {
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
        let so_far = self.so_far();
        so_far.get(series).copied().unwrap_or_else(|| panic!("no {series} in {so_far:#?}"))
    }
}

/// Runs this with a recorder of its own and paused time.
fn recorded(test: impl AsyncFnOnce(Told)) {
    let recorder = DebuggingRecorder::new();
    let told = Told { snapshotter: recorder.snapshotter(), so_far: BTreeMap::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(told)))
}

#[test]
fn endpoints_picks_ejections_and_calls_are_counted_by_application() {
    recorded(async |mut told| {
        let _balance = some_calls().await;
        assert_eq!(told.value("eureka_endpoints{application=ORDERS,state=available}"), 1);
        assert_eq!(told.value("eureka_endpoints{application=ORDERS,state=out}"), 1);
        assert_eq!(told.value("eureka_endpoints{application=ORDERS,state=probation}"), 0);
        let [good, bad] =
            ["b", "a"].map(|zone| told.value(&format!("eureka_picks_total{{application=ORDERS,zone={zone}}}")));
        assert_eq!(good + bad, 100);
        assert!(bad >= 1);
        assert_eq!(told.value("eureka_ejections_total{application=ORDERS,cause=consecutive_failures}"), 1);
        assert_eq!(told.value("eureka_call_duration_seconds{application=ORDERS,outcome=success}"), good);
        assert_eq!(told.value("eureka_call_duration_seconds{application=ORDERS,outcome=failure}"), bad);
    });
}

type Service = BoxCloneSyncService<(), (), Infallible>;
type Update = Change<u8, Service>;

/// A balancer that is told of its endpoints.
fn balancer(name: &str) -> (UnboundedSender<Result<Update, Infallible>>, Balance<Service, PeakEwma, AnyResponse>) {
    let (tell, updates) = tokio::sync::mpsc::unbounded_channel();
    let builder = Balance::builder(UnboundedReceiverStream::new(updates)).name(name).observer(AnyResponse);
    (tell, builder.ready_timeout(Duration::from_secs(1)).build())
}

fn insert(id: u8) -> Result<Update, Infallible> {
    Ok(Change::Insert(id, BoxCloneSyncService::new(service_fn(async |()| Ok(())))))
}

/// Until the tasks behind the balancers have done what there is to do.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[test]
fn names_that_nobody_has_leave_no_series_behind() {
    recorded(async |mut told| {
        let unknown = "eureka_fail_fast{application=unknown}";
        let mut balances = Vec::new();
        for i in 0..100 {
            let (tell, mut balance) = balancer(&format!("NAME-{i}"));
            assert!(balance.ready().await.unwrap().call(()).await.unwrap_err().is_no_endpoints());
            balances.push((tell, balance));
        }
        assert_eq!(*told.so_far(), BTreeMap::from([(unknown.to_owned(), 100)]));

        // One is somebody after all, and stays known.
        let fails_fast = "eureka_fail_fast{application=NAME-7}";
        let (tell, balance) = &mut balances[7];
        tell.send(insert(1)).unwrap();
        settled().await;
        assert_eq!(told.value("eureka_endpoints{application=NAME-7,state=available}"), 1);
        assert_eq!((told.value(unknown), told.value(fails_fast)), (99, 0));
        let series = told.so_far();
        assert!(series.keys().all(|key| key == unknown || key.contains("{application=NAME-7")), "{series:#?}");
        tell.send(Ok(Change::Remove(1))).unwrap();
        settled().await;
        assert!(balance.ready().await.unwrap().call(()).await.unwrap_err().is_no_endpoints());
        assert_eq!((told.value(unknown), told.value(fails_fast)), (99, 1));

        drop(balances);
        settled().await;
        assert_eq!((told.value(unknown), told.value(fails_fast)), (0, 0));
    });
}

#[test]
fn gauges_of_several_balancers_add_up_and_go_with_them() {
    recorded(async |mut told| {
        let available = "eureka_endpoints{application=ORDERS,state=available}";
        let (one, balance) = balancer("ORDERS");
        let (other, another) = balancer("ORDERS");
        for id in 0..3 {
            one.send(insert(id)).unwrap();
        }
        other.send(insert(0)).unwrap();
        settled().await;
        assert_eq!(told.value(available), 4);
        one.send(Ok(Change::Remove(0))).unwrap();
        settled().await;
        assert_eq!(told.value(available), 3);
        drop(balance);
        settled().await;
        assert_eq!(told.value(available), 1);
        drop(another);
        settled().await;
        assert_eq!(told.value(available), 0);
    });
}

/// A hundred calls to an application one of whose two endpoints fails.
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
