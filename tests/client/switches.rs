//! Clients with registration or fetches switched off.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_eureka::Eureka;
use tower_eureka::model::InstanceStatus;

use crate::common::{Reply, Scripted, instance, list};

fn registry() -> Scripted {
    Scripted::new(|asked| match asked.line.starts_with("GET") {
        true => Reply::Json(list(&[instance("orders", "a")])),
        false => Reply::Status(204),
    })
}

#[tokio::test(start_paused = true)]
async fn registrar_with_registration_switched_off_serves_and_drains_and_sends_nothing() {
    let registry = registry();
    let off = |client: tower_eureka::EurekaBuilder| client.build().unwrap().registrar(instance("orders", "a"));
    for handle in [off(registry.client().enabled(false)), off(registry.client().register_with_eureka(false))] {
        handle.register().await.unwrap();
        handle.set_status(InstanceStatus::Down).await.unwrap();
        handle.deregister().await.unwrap();
        let start = Instant::now();
        let served = handle
            .serve(sleep(Duration::from_secs(60)), |shutdown| async move {
                shutdown.await;
                Ok::<(), &str>(())
            })
            .await;
        assert_eq!(served, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 60 + 5, "it waits until callers have been quiet");
    }
    assert!(registry.asked().is_empty(), "{:?}", registry.lines());
}

#[tokio::test(start_paused = true)]
async fn call_by_name_with_fetches_switched_off_fails_at_once_with_the_setting() {
    let registry = registry();
    let builders = [registry.client().enabled(false), registry.client().fetch_registry(false)];
    for (builder, setting) in builders.into_iter().zip(["enabled(false)", "fetch_registry(false)"]) {
        let eureka = builder.build().unwrap();
        let start = Instant::now();
        let client = eureka.http_client::<Full<Bytes>>();
        let request = || Request::get("http://orders/").body(Full::default()).unwrap();
        for _ in 0..2 {
            let error = client.request(request()).await.unwrap_err();
            assert!(error.is_no_endpoints() && error.to_string().contains(setting), "{error}");
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        let mut changes = eureka.discover("orders").unwrap();
        assert!(changes.explain().to_string().contains(setting));
        assert!(timeout(Duration::from_secs(100), changes.next()).await.is_err(), "the stream stays empty and open");
        assert_eq!(eureka.snapshot().instance_count(), 0);
    }
    assert!(registry.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn client_that_is_switched_on_again_registers() {
    let registry = registry();
    let client = registry.client().enabled(false).enabled(true).register_with_eureka(false).register_with_eureka(true);
    client.build().unwrap().registrar(instance("orders", "a")).register().await.unwrap();
    assert!(registry.lines().contains(&"POST /apps/ORDERS".to_owned()));
}

#[tokio::test]
async fn client_that_is_switched_off_needs_no_valid_service_url() {
    for builder in [Eureka::builder(), Eureka::builder().service_url("http://${REGISTRY}/")] {
        assert!(builder.enabled(false).build().is_ok());
    }
    assert!(Eureka::builder().service_url("http://${REGISTRY}/").build().is_err());
    assert!(Eureka::builder().register_with_eureka(false).build().is_err());
}

#[tokio::test(start_paused = true)]
async fn second_server_of_a_registrar_that_is_switched_off_is_called_as_the_first_one() {
    let handle = registry().client().enabled(false).build().unwrap().registrar(instance("orders", "a"));
    let service = handle
        .layer()
        .layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }));
    for _ in 0..2 {
        let called = service.clone();
        let serving = handle.clone().serve(sleep(Duration::from_secs(60)), |shutdown| async move {
            sleep(Duration::from_secs(30)).await;
            let response = called.oneshot(Request::new(())).await.unwrap();
            assert_eq!((response.status(), response.headers().contains_key("connection")), (StatusCode::OK, false));
            shutdown.await;
        });
        serving.await;
    }
}
