//! tonic servers with `max_connection_age`, called over gRPC.

use std::pin::Pin;
use std::time::Duration;

use http::Uri;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_eureka::client::{CallOptions, Http2};

use super::super::slot;
use super::{CALLS, FEWER_CALLS, Fixture, chain, run};

const AGE: Duration = Duration::from_millis(300);

struct Serving;

#[tonic::async_trait]
impl Health for Serving {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving as i32 }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

async fn serve(age: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("listener is bound").port();
    let server = Server::builder().max_connection_age(age).add_service(HealthServer::new(Serving));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    port
}

async fn fixture(instances: usize) -> Fixture {
    let fixture = Fixture::new().await;
    for number in 1..=instances {
        fixture.register("tonic", &format!("tonic-{number}"), serve(AGE).await).await;
    }
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn tonic_with_max_connection_age_fails_no_call_of_the_channel() {
    let _slot = slot().await;
    let fixture = fixture(1).await;
    let client = HealthClient::new(fixture.eureka.channel("tonic"));
    run("tonic-channel", CALLS, Vec::new, move |_| {
        let mut client = client.clone();
        async move { client.check(HealthCheckRequest::default()).await.map(drop).map_err(|status| chain(&status)) }
    })
    .await;
}

/// Uses the HTTP client as the channel, since its endpoints can be observed.
#[tokio::test(flavor = "multi_thread")]
async fn tonic_with_max_connection_age_is_not_ejected() {
    let _slot = slot().await;
    let fixture = fixture(2).await;
    let http = fixture.eureka.http_client_with(CallOptions::new().http2(Http2::Always));
    let snapshots = {
        let http = http.clone();
        move || http.snapshots()
    };
    let client = HealthClient::with_origin(http, Uri::from_static("http://tonic"));
    run("tonic-http-client", FEWER_CALLS, snapshots, move |_| {
        let mut client = client.clone();
        async move { client.check(HealthCheckRequest::default()).await.map(drop).map_err(|status| chain(&status)) }
    })
    .await;
}
