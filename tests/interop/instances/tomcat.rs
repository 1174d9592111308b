//! Spring Boot application whose Tomcat allows four streams per HTTP/2 connection, called 32 times
//! at once.

use http::Version;

use super::super::process::free_port;
use super::super::spring::Client;
use super::super::{http as registry, slot, until};
use super::{CALLS, Fixture, Methods, call_by_name};

#[tokio::test(flavor = "multi_thread")]
async fn tomcat_at_its_stream_limit_fails_no_call() {
    let _slot = slot().await;
    let fixture = Fixture::new().await;
    let arguments = ["--server.http2.enabled=true", "--interop.max-concurrent-streams=4"];
    let mut tomcat = Client::start_with("tomcat", &fixture.url, free_port(), &arguments).await;
    until("Tomcat is registered", super::super::spring::START, async || {
        registry::application(&fixture.url, "JAVA-CLIENT").await
    })
    .await;
    call_by_name(
        "tomcat",
        CALLS,
        fixture.eureka.http_client(),
        "http://java-client/wait/2",
        Version::HTTP_2,
        Methods::GetAndPost,
    )
    .await;
    tomcat.process.assert_runs();
}
