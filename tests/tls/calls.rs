//! HTTPS calls to registry servers and to instances.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use rcgen::CertificateParams;
use tokio::net::TcpListener;
use tower_eureka::balance::EndpointState;
use tower_eureka::client::{CallOptions, HttpClient};
use tower_eureka::{Eureka, EurekaServer, Instance};

use crate::own_address::own_address;
use crate::world::{Ca, World, echo, serve, serve_on, server, until};

#[tokio::test]
async fn call_to_a_secure_port_uses_tls_for_registry_and_instance() {
    let world = World::new().await;
    world.instance("a", world.ca.identity(&["localhost"])).await;
    assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");
}

#[tokio::test]
async fn certificate_of_an_instance_without_a_name_is_verified_by_its_address() {
    let world = World::new().await;
    let port = serve(server(world.ca.identity(&["127.0.0.1"])), echo("a")).await;
    world.register("a", "127.0.0.1", port).await;
    assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");

    let world = World::new().await;
    let port = serve(server(world.ca.identity(&["localhost"])), echo("a")).await;
    world.register("a", "127.0.0.1", port).await;
    let text = world.refusal().await;
    assert!(text.contains("no TLS with 127.0.0.1: its certificate is for another name"), "{text}");
}

#[tokio::test]
async fn certificate_is_verified_for_the_server_name_of_the_instance() {
    let world = World::new().await;
    let port = serve(server(world.ca.identity(&["orders.internal"])), echo("a")).await;
    let options = CallOptions::new().tls_server_name(|instance| instance.metadata().get("name").map(str::to_owned));
    let client: HttpClient<Full<Bytes>> = world.eureka.http_client_with(options);
    let call = async || {
        let request = Request::get("https://orders/").body(Full::default()).unwrap();
        let response = client.request(request).await?;
        Ok::<_, tower_eureka::Error>(response.into_body().collect().await.unwrap().to_bytes())
    };
    for (name, cause) in
        [("other.internal", "its certificate is for another name"), ("a b", "it is not a valid server name")]
    {
        let instance = Instance::builder("orders").id(name).ip_addr("127.0.0.1").secure_port(port);
        world.enter(instance.metadata("name", name)).await;
        let error = call().await.unwrap_err().to_string();
        assert!(error.contains(&format!("no TLS with {name}: {cause}")), "{error}");
        world.eureka.transport().cancel("orders", name).await.unwrap();
        until(|| world.eureka.snapshot().instance_count() == 0).await;
    }
    let instance = Instance::builder("orders").id("a").ip_addr("127.0.0.1").secure_port(port);
    world.enter(instance.metadata("name", "orders.internal")).await;
    assert_eq!(call().await.unwrap(), "a HTTP/1.1 ");
}

#[tokio::test]
async fn certificate_of_an_unresolvable_host_name_is_verified_for_the_name() {
    let world = World::new().await;
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let instance = Instance::builder("orders").id("a").host_name("5f2a9c.invalid").ip_addr(own_address().to_string());
    let instance = instance.secure_port(listener.local_addr().unwrap().port());
    serve_on(listener, server(world.ca.identity(&["5f2a9c.invalid"])), echo("a"));
    world.enter(instance).await;
    assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");
    assert_eq!(world.call(Version::HTTP_2).await.unwrap(), "a HTTP/2.0 hello");
}

#[tokio::test]
async fn call_after_a_certificate_for_another_name_goes_to_another_instance() {
    let world = World::new().await;
    world.instance("wrong", world.ca.identity(&["other.test"])).await;
    let text = world.refusal().await;
    assert!(text.contains("ORDERS (wrong)") && text.contains("another name") && text.contains("other.test"), "{text}");

    world.instance("right", world.ca.identity(&["localhost"])).await;
    for _ in 0..20 {
        assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "right HTTP/1.1 hello");
    }
}

#[tokio::test]
async fn failed_handshake_returns_an_error_with_the_reason() {
    let world = World::new().await;
    world.instance("stranger", Ca::named("another").identity(&["localhost"])).await;
    let text = world.refusal().await;
    assert!(text.contains("a CA that is not trusted here (UnknownIssuer)"), "{text}");

    let world = World::new().await;
    world.instance("namesake", Ca::new().identity(&["localhost"])).await;
    let text = world.refusal().await;
    assert!(text.contains("a CA that is not trusted here (BadSignature)"), "{text}");

    let world = World::new().await;
    let mut expired = CertificateParams::new(["localhost".to_owned()]).unwrap();
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    world.instance("old", world.ca.sign(expired)).await;
    let text = world.refusal().await;
    assert!(text.contains("its certificate has expired"), "{text}");

    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register("plain", "localhost", listener.local_addr().unwrap().port()).await;
    tokio::spawn(async move { axum::serve(listener, echo("plain")).await });
    let text = world.refusal().await;
    assert!(text.contains("the port does not speak TLS"), "{text}");
}

#[tokio::test]
async fn registry_with_an_untrusted_certificate_returns_an_error_with_the_reason() {
    let world = World::with(Ca::new(), Ca::new().client()).await;
    let error = world.eureka.transport().applications().await.unwrap_err();
    assert!(error.is_connect() && error.to_string().contains("a CA that is not trusted here"), "{error}");
}

#[tokio::test]
async fn client_without_tls_settings_trusts_the_cas_of_the_system() {
    let port = serve(server(Ca::new().identity(&["localhost"])), Router::new()).await;
    let why = match Eureka::builder().service_url(format!("https://localhost:{port}/eureka/")).build() {
        Ok(eureka) => eureka.transport().applications().await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(why.contains("is not trusted here") || why.contains("this machine has no CA certificates"), "{why}");
}

#[tokio::test]
async fn handshake_without_response_ends_after_the_connect_timeout() {
    let world = World::new().await;
    // Accepts the connection and never sends anything.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register("silent", "localhost", silent.local_addr().unwrap().port()).await;
    let text = world.refusal().await;
    assert!(text.contains("no TLS handshake within 1s"), "{text}");

    world.instance("a", world.ca.identity(&["localhost"])).await;
    for _ in 0..4 {
        assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");
    }
}

#[tokio::test]
async fn http2_is_agreed_on_in_the_handshake() {
    let world = World::new().await;
    world.instance("a", world.ca.identity(&["localhost"])).await;
    assert_eq!(world.call(Version::HTTP_2).await.unwrap(), "a HTTP/2.0 hello");
    assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");
}

#[tokio::test]
async fn instance_that_speaks_http2_alone_returns_after_it_was_unreachable() {
    let world = World::new().await;
    let only_http2 = || {
        let mut config = server(world.ca.identity(&["localhost"]));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    };
    world.register("a", "localhost", serve(only_http2(), echo("a")).await).await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    world.register("b", "localhost", port).await;
    let unreachable = || world.client.snapshots()[0].count(EndpointState::Ejected);
    while world.client.snapshots().is_empty() || unreachable() == 0 {
        assert_eq!(world.call(Version::HTTP_2).await.unwrap(), "a HTTP/2.0 hello");
    }
    serve_on(TcpListener::bind(("127.0.0.1", port)).await.unwrap(), only_http2(), echo("b"));
    until(|| unreachable() == 0).await;
    while world.call(Version::HTTP_2).await.unwrap() != "b HTTP/2.0 hello" {}
}

#[tokio::test]
async fn a_server_that_does_not_agree_to_http2_is_not_called_with_it() {
    for (offers, why) in [(vec![b"http/1.1".to_vec()], "does not speak the HTTP version"), (vec![], "(ALPN)")] {
        let world = World::new().await;
        let mut config = server(world.ca.identity(&["localhost"]));
        config.alpn_protocols = offers;
        world.register("a", "localhost", serve(config, echo("a")).await).await;
        let error = world.call(Version::HTTP_2).await.unwrap_err();
        assert!(error.is_connect() && error.to_string().contains(why), "{error}");
        assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");
    }
}

#[tokio::test]
async fn client_certificate_is_sent_to_servers_that_request_one() {
    let ca = Ca::new();
    let port = serve(ca.strict_server(), echo("a")).await;

    let (identified, without) = (ca.client_with_identity(), ca.client());
    let world = World::with(ca, identified).await;
    world.register("a", "localhost", port).await;
    assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");

    let world = World::with(world.ca, without).await;
    world.register("a", "localhost", port).await;
    let error = world.call(Version::HTTP_11).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}

#[tokio::test]
async fn enabled_secure_port_is_preferred_to_the_plain_one() {
    let world = World::new().await;
    let secure = serve(server(world.ca.identity(&["localhost"])), echo("secure")).await;
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(plain, echo("plain")).await });

    let plain = || Instance::builder("orders").id("a").host_name("localhost").ip_addr("127.0.0.1").port(port);
    for (instance, id) in [(plain(), "plain"), (plain().secure_port(secure), "secure")] {
        world.eureka.transport().register(&instance.build().unwrap()).await.unwrap();
        while !world.call(Version::HTTP_11).await.unwrap().starts_with(id) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn ca_file_is_trusted() {
    let (ours, other) = (Ca::new(), Ca::new());
    let router = Router::new().nest("/eureka", EurekaServer::builder().build().unwrap().router());
    let port = serve(server(ours.identity(&["localhost"])), router).await;
    let builder = || Eureka::builder().service_url(format!("https://localhost:{port}/eureka/"));

    let (other, ours) = (other.pem_file("other.pem"), ours.pem_file("ours.pem"));
    let eureka = builder().tls_ca_file(&other).tls_ca_file(&ours).build().unwrap();
    eureka.transport().applications().await.unwrap();
    let eureka = builder().tls_ca_file(&other).build().unwrap();
    assert!(eureka.transport().applications().await.unwrap_err().is_connect());
}

#[test]
fn unusable_tls_settings_fail_the_build() {
    let ca = Ca::new();
    let file = ca.pem_file("twice.pem");
    let empty = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let builder = || Eureka::builder().service_url("https://localhost/eureka/");
    for (builder, why) in [
        (builder().tls_ca_file("missing.pem"), "missing.pem"),
        (builder().tls_ca_file(&empty), "holds no certificate"),
        (builder().tls_ca_file(&file).tls_config(ca.client()), "both set"),
        (builder().tls_config(ca.client()).tls_ca_file(&file), "both set"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{error}");
    }
}
