//! What is counted, with a recorder that keeps it.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio_stream::StreamExt;
use tower::discover::Change;
use tower::{Service, ServiceExt, service_fn};
use tower_eureka::balance::{AnyResponse, Attributes, Balance, Ejection};

/// Everything so far: `name{label=value,…}` and its value, histograms by how many values they got.
fn counted(snapshotter: &Snapshotter) -> BTreeMap<String, u64> {
    let value = |value| match value {
        DebugValue::Counter(count) => count,
        DebugValue::Gauge(value) => value.0 as u64,
        DebugValue::Histogram(values) => values.len() as u64,
    };
    let name = |key: &metrics::Key| {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        format!("{}{{{}}}", key.name(), labels.join(","))
    };
    let snapshot = snapshotter.snapshot().into_vec().into_iter();
    snapshot.map(|(key, _, _, debug)| (name(key.key()), value(debug))).collect()
}

#[test]
fn endpoints_picks_ejections_and_calls_are_counted_by_application() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(some_calls()));

    let counted = counted(&snapshotter);
    let value = |name: &str| counted.get(name).copied().unwrap_or_else(|| panic!("no {name} in {counted:#?}"));
    assert_eq!(value("eureka_endpoints{application=ORDERS,state=available}"), 1);
    assert_eq!(value("eureka_endpoints{application=ORDERS,state=out}"), 1);
    assert_eq!(value("eureka_endpoints{application=ORDERS,state=probation}"), 0);
    let (good, bad) = (
        value("eureka_picks_total{application=ORDERS,zone=b}"),
        value("eureka_picks_total{application=ORDERS,zone=a}"),
    );
    assert_eq!(good + bad, 100);
    assert!(bad >= 1);
    assert_eq!(value("eureka_ejections_total{application=ORDERS,cause=consecutive_failures}"), 1);
    assert_eq!(value("eureka_call_duration_seconds{application=ORDERS,outcome=success}"), good);
    assert_eq!(value("eureka_call_duration_seconds{application=ORDERS,outcome=failure}"), bad);
    assert_eq!(value("eureka_fail_fast{application=NOBODY}"), 1);
}

/// A hundred calls to an application one of whose two endpoints fails, and one to an application without any.
async fn some_calls() {
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
    let nobody =
        tokio_stream::pending::<Result<Change<u8, tower::util::BoxCloneSyncService<(), (), Infallible>>, Infallible>>();
    let nobody =
        Balance::builder(nobody).name("NOBODY").observer(AnyResponse).ready_timeout(Duration::from_secs(1)).build();
    assert!(nobody.oneshot(()).await.unwrap_err().is_no_endpoints());
}
