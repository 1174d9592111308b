//! Locked registries: Spring clients with a password or a certificate, and Spring nodes as peers
//! with credentials.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tower_eureka::model::InstanceStatus::Up;
use tower_eureka::transport::Transport;
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::rust::Registry;
use super::spring::{Client, Server};
use super::{http, slot, until};

/// Time limit of a condition.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn java_client_with_credentials_uses_a_locked_registry_and_one_without_is_refused() {
    let _slot = slot().await;
    let arguments = ["--spring.security.user.name=eureka", "--spring.security.user.password=s3cret"];
    let mut registry = Registry::start_with("locked-registry", "127.0.0.1:0", &arguments.map(str::to_owned)).await;
    let url = registry.url.replacen("http://", "http://eureka:s3cret@", 1);
    let java = Client::start("locked-java", &url).await;
    let java_id = java.id().await;
    let up = async || http::only_instance(&url, "JAVA-CLIENT").await.filter(|i| i.status() == Up);
    until("the client with credentials is registered and UP", SOON, up).await;
    let renewal = async || {
        let instance = http::instance(&url, "JAVA-CLIENT", &java_id).await?;
        Some(instance.lease()?.last_renewal_timestamp)
    };
    let before = renewal().await.expect("client is registered");
    until("its lease is renewed", SOON, async || renewal().await.filter(|&now| now > before)).await;
    let line = [format!("{java_id} UP")];
    until("it sees itself", SOON, async || (java.view("JAVA-CLIENT").await == line).then_some(())).await;

    for path in ["apps", "apps/JAVA-CLIENT", "status"] {
        let (status, _) = http::get(&format!("{}{path}", registry.url)).await.expect("registry responds");
        assert_eq!(status, 401, "{path}");
    }
    let name = ["--spring.application.name=stranger"];
    let mut stranger = Client::start_with("locked-stranger", &registry.url, free_port(), &name).await;
    stranger.process.line("failure with status code 401", SOON).await;
    assert!(http::application(&url, "STRANGER").await.is_none());
    assert_eq!(stranger.view("JAVA-CLIENT").await, [] as [&str; 0]);

    java.process.terminate().await;
    until("the client deregistered", SOON, async || http::is_gone(&url, "JAVA-CLIENT", &java_id).await.then_some(()))
        .await;
    registry.process.assert_runs();
}

/// Returns a file of the TLS tests. `make.sh` beside them creates the stores with keytool and
/// OpenSSL.
fn store(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/stores").join(name)
}

/// Writes a file of users, and returns the argument with its path.
fn users_file(name: &str, rows: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, rows).expect("target directory is writable");
    format!("--eureka.server.access.users-file={}", path.display())
}

/// Returns the arguments of a Spring application that sends the client certificate `CN=client`.
fn certificate() -> Vec<String> {
    let tls = |key: &str, value: String| format!("--eureka.client.tls.{key}={value}");
    let mut arguments = vec![tls("enabled", "true".into()), tls("key-password", "changeit".into())];
    for (key, file) in [("key-store", "identity-keytool.p12"), ("trust-store", "trust-keytool.p12")] {
        arguments.push(tls(key, format!("file:{}", store(file).display())));
        arguments.push(tls(&format!("{key}-type"), "PKCS12".into()));
        arguments.push(tls(&format!("{key}-password"), "changeit".into()));
    }
    arguments
}

#[tokio::test]
async fn java_client_with_a_certificate_has_its_application_and_no_other() {
    let _slot = slot().await;
    let path = |name: &str| store(name).display().to_string();
    let arguments = [
        users_file(
            "certificate-users",
            "java   {certificate}CN=client read,register JAVA-CLIENT\norders {noop}0rders-pass read,register ORDERS\n",
        ),
        format!("--server.ssl.certificate={}", path("server.pem")),
        format!("--server.ssl.certificate-private-key={}", path("server.key")),
        format!("--server.ssl.trust-certificate={}", path("ca.pem")),
        "--server.ssl.client-auth=want".into(),
    ];
    let mut registry = Registry::start_with("certificate-registry", "127.0.0.1:0", &arguments).await;
    let url = registry.url.replacen("127.0.0.1", "localhost", 1);
    assert!(url.starts_with("https://"), "{url}");
    let orders = Eureka::builder().service_url(&url).tls_ca_file(store("ca.pem"));
    let orders = orders.basic_auth("orders", "0rders-pass").build().expect("settings are valid");
    let orders = orders.transport();
    let seen = async |app: &str| orders.application(app).await.expect("registry responds");

    let certificate = certificate();
    let certificate: Vec<_> = certificate.iter().map(String::as_str).collect();
    let mut java = Client::start_with("certificate-java", &url, free_port(), &certificate).await;
    let id = java.id().await;
    let own = async || orders.instance("JAVA-CLIENT", &id).await.expect("registry responds");
    until("the client is registered and UP", SOON, async || own().await.filter(|i| i.status() == Up)).await;
    let renewed = async || own().await?.lease().map(|lease| lease.last_renewal_timestamp);
    let before = renewed().await.expect("client is registered");
    until("its lease is renewed", SOON, async || renewed().await.filter(|&now| now > before)).await;
    let line = [format!("{id} UP")];
    until("it sees itself", SOON, async || (java.view("JAVA-CLIENT").await == line).then_some(())).await;
    let log = registry.process.errors();
    let audit = log.lines().find(|line| line.contains("registered app=JAVA-CLIENT"));
    assert!(audit.is_some_and(|line| line.contains("by=java") && line.contains("after=[")), "{log}");

    // The same certificate as another application, which the policy names for somebody else, and
    // as one that it names for nobody.
    let known = Instance::builder("orders").id("orders-1").ip_addr("127.0.0.1").port(1).build();
    orders.register(&known.expect("instance is valid")).await.expect("registered");
    let before = seen("ORDERS").await;
    for name in ["orders", "stranger"] {
        let named = format!("--spring.application.name={name}");
        let arguments = [&certificate[..], &[&*named]].concat();
        let mut other = Client::start_with(&format!("certificate-{name}"), &url, free_port(), &arguments).await;
        other.process.line("failure with status code 403", SOON).await;
        // It may read.
        until("it sees the first client", SOON, async || (other.view("JAVA-CLIENT").await == line).then_some(())).await;
        other.process.terminate().await;
        other.process.exit(SOON).await;
    }
    assert_eq!(seen("ORDERS").await, before);
    assert_eq!(seen("STRANGER").await, None);

    java.process.terminate().await;
    until("the client deregistered", SOON, async || own().await.is_none().then_some(())).await;
    java.process.exit(SOON).await;
    registry.process.assert_runs();
}

const PEER: &str = "node:n0de-pass";
const SPRING: &str = "eureka:s3cret-pass";

/// Returns a client with these credentials.
fn transport(url: &str, credentials: &str) -> Transport {
    let (user, password) = credentials.split_once(':').expect("user and password");
    let eureka = Eureka::builder().service_url(url).basic_auth(user, password).build();
    eureka.expect("settings are valid").transport().clone()
}

#[tokio::test]
async fn locked_spring_node_and_ours_replicate_both_ways_with_credentials_only() {
    let _slot = slot().await;
    // A Spring node recognizes its own URL by the host name.
    let spring_port = free_port();
    let (ours, spring) = (format!("127.0.0.2:{}", free_port()), format!("127.0.0.1:{spring_port}"));
    let url = |place: &str| format!("http://{place}/eureka/");
    let url_with = |credentials: &str, place: &str| format!("http://{credentials}@{place}/eureka/");
    let peers = |mine: &str, theirs: &str| format!("--eureka.client.service-url.defaultZone={mine},{theirs}");
    let common = [
        "--eureka.client.register-with-eureka=true",
        "--eureka.client.fetch-registry=true",
        "--eureka.server.peer-eureka-nodes-update-interval-ms=2000",
    ]
    .map(str::to_owned);
    let ours_arguments = [
        users_file("peer-users", "node   {noop}n0de-pass  peer\nclient {noop}client-pass read,register\n"),
        peers(&url(&ours), &url_with(SPRING, &spring)),
        "--eureka.instance.hostname=127.0.0.2".into(),
        "--eureka.server.waitTimeInMsWhenSyncEmpty=0".into(),
    ];
    let ours_arguments = [&ours_arguments[..], &common].concat();
    let mut our_node = Registry::start_with("peer-ours", &ours, &ours_arguments).await;
    let spring_arguments = [
        // Its own URL has its credentials, since it registers itself there.
        peers(&url_with(SPRING, &spring), &url_with(PEER, &ours)),
        "--eureka.instance.hostname=127.0.0.1".into(),
    ];
    let mut spring_node = Server::start_locked(
        "peer-spring",
        "127.0.0.1",
        spring_port,
        SPRING,
        &[&spring_arguments[..], &common].concat(),
    )
    .await;

    // Both are locked.
    for place in [&ours, &spring] {
        let (status, _) = http::get(&format!("{}apps", url(place))).await.expect("node responds");
        assert_eq!(status, 401, "{place}");
    }
    let at_ours = transport(&url(&ours), "client:client-pass");
    let at_spring = transport(&url(&spring), SPRING);
    let order = |id: &str| Instance::builder("orders").id(id).ip_addr("127.0.0.1").port(1).build();
    for (what, from, to) in [("ours", &at_ours, &at_spring), ("spring", &at_spring, &at_ours)] {
        from.register(&order(what).expect("instance is valid")).await.expect("registered");
        let copy = async || to.instance("ORDERS", what).await.expect("node responds");
        until(&format!("the registration at {what} is replicated"), SOON, async || copy().await).await;
        let renewed = async || copy().await?.lease().map(|lease| lease.last_renewal_timestamp);
        let before = renewed().await.expect("instance is replicated");
        let own = from.instance("ORDERS", what).await.expect("node responds").expect("instance is registered");
        let version = own.last_dirty_timestamp().expect("registry sets a version");
        from.heartbeat("ORDERS", what, Up, version).await.expect("renewed");
        until("the heartbeat is replicated", SOON, async || renewed().await.filter(|&now| now > before)).await;
        assert!(from.cancel("ORDERS", what).await.expect("cancelled"));
        until("the cancellation is replicated", SOON, async || copy().await.is_none().then_some(())).await;
    }
    our_node.process.assert_runs();
    spring_node.process.assert_runs();
}
