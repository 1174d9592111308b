//! A Spring Boot application whose Tomcat takes four streams on an HTTP/2 connection, called with eight times as many.

use http::Version;

use super::super::process::free_port;
use super::super::spring::Client;
use super::super::{alone, http as registry, until};
use super::{CALLS, Methods, World, call_by_name};

#[tokio::test(flavor = "multi_thread")]
async fn tomcat_at_its_stream_limit_fails_no_call() {
    let _turn = alone().await;
    let world = World::new().await;
    let arguments = ["--server.http2.enabled=true", "--interop.max-concurrent-streams=4"];
    let mut tomcat = Client::start_with("tomcat", &world.url, free_port(), &arguments).await;
    until("Tomcat is registered", super::super::spring::START, async || {
        registry::application(&world.url, "JAVA-CLIENT").await
    })
    .await;
    call_by_name(
        "tomcat",
        CALLS,
        world.eureka.http_client(),
        "http://java-client/wait/2",
        Version::HTTP_2,
        Methods::GetAndPost,
    )
    .await;
    tomcat.process.assert_runs();
}
