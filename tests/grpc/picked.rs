//! The picked instance of gRPC calls, fallbacks, and choices without a call.

use std::time::Duration;

use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tower::service_fn;
use tower_eureka::Error;
use tower_eureka::client::{CallOptions, PickedInstance};
use tower_eureka::tonic::Channel;

use crate::world::{Does, Stub, World, check, instance_of, refusing_port, source};

#[tokio::test]
async fn picked_instance_is_in_the_extensions_of_the_response() {
    let world = World::new().await;
    let (_stop, _serving) = world.serve(Stub::new("a", Does::Serve)).await;
    let options = CallOptions::new().on_attempt(|picked, request| {
        request.headers.insert("x-instance", picked.id().parse()?);
        Ok(())
    });
    let mut client = world.client_with(options);
    let response = client.check(HealthCheckRequest::default()).await.unwrap();
    let picked = response.extensions().get::<PickedInstance>().unwrap();
    assert_eq!((picked.id(), picked.attempt(), picked.instance().app()), ("a", 1, "INVENTORY"));
    let stream = client.watch(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(stream.extensions().get::<PickedInstance>().unwrap().id(), "a");
}

#[tokio::test]
async fn channel_has_snapshots_and_chooses() {
    let world = World::new().await;
    world.register("a", refusing_port().await).await;
    let channel = world.eureka.channel("inventory");
    assert_eq!(channel.choose(&()).await.unwrap().id(), "a");
    let snapshots = channel.snapshots();
    assert_eq!((snapshots.len(), snapshots[0].name()), (1, Some("INVENTORY")));
    assert!(world.eureka.channel("http://inventory").snapshots().is_empty());
}

#[tokio::test]
async fn fallback_serves_calls_that_no_instance_served() {
    let world = World::with_ready_timeout(Duration::from_millis(100)).await;
    let local = HealthServer::new(Stub::new("local", Does::Serve));
    let channel: Channel = world.eureka.channel("inventory").fallback(local);
    let mut client = HealthClient::new(channel.clone());
    let response = client.check(HealthCheckRequest::default()).await.unwrap();
    assert!(response.extensions().get::<PickedInstance>().is_none());
    assert_eq!(instance_of(&response), "local");
    let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    // The default condition does not include instances that refuse connections.
    world.register("dead", refusing_port().await).await;
    world.sees(1).await;
    let mut always = HealthClient::new(channel.fallback_on(Error::is_unavailable));
    while let Ok(response) = client.check(HealthCheckRequest::default()).await {
        assert_eq!(instance_of(&response), "local");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(source(&check(&mut client).await.unwrap_err()).is_connect());
    assert_eq!(check(&mut always).await.unwrap(), "local");
}

#[tokio::test]
async fn status_of_the_fallback_is_that_of_the_call() {
    let world = World::with_ready_timeout(Duration::from_millis(100)).await;
    let fallback = service_fn(async |_: http::Request<tonic::body::Body>| {
        Err::<http::Response<tonic::body::Body>, _>(Status::data_loss("the cache is cold"))
    });
    let mut client = HealthClient::new(world.eureka.channel("inventory").fallback(fallback));
    let status = client.check(Request::new(HealthCheckRequest::default())).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "the cache is cold"));
}
