//! Certificates and keys in files, and changes of these files at run time.

use std::fs;
use std::time::Duration;

use axum::Router;
use http::header::CONNECTION;
use http::{HeaderValue, Version};
use http_body_util::Full;
use tower::util::MapResponseLayer;
use tower_eureka::client::HttpClient;
use tower_eureka::{Error, Eureka, EurekaBuilder};

use crate::access::registry;
use crate::captured_log::Log;
use crate::world::{Ca, World, echo, is_without_system_cas, pass, serve, server, temporary};

/// Returns a registry that closes each connection after its response, so that each request needs a
/// handshake.
fn closing() -> Router {
    registry().layer(MapResponseLayer::new(|mut response: http::Response<axum::body::Body>| {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }))
}

fn at(port: u16) -> EurekaBuilder {
    Eureka::builder().service_url(format!("https://localhost:{port}/eureka/"))
}

async fn fetch(eureka: &Eureka) -> Result<(), Error> {
    eureka.transport().applications().await.map(drop)
}

#[tokio::test]
async fn changed_identity_is_used_for_new_connections() {
    let (log, _logging) = Log::start(tracing::Level::INFO);
    let (ca, other) = (Ca::new(), Ca::named("other"));
    let port = serve(ca.strict_server(), closing()).await;
    let (certificate, key) = ca.identity_files("files-changed");
    let eureka =
        at(port).tls_ca_file(ca.pem_file("files-ca.pem")).tls_identity_file(&certificate, &key).build().unwrap();
    fetch(&eureka).await.unwrap();

    other.write_identity(&certificate, &key);
    fetch(&eureka).await.unwrap();
    pass().await;
    assert!(fetch(&eureka).await.unwrap_err().is_connect(), "the server does not trust the new certificate");

    ca.write_identity(&certificate, &key);
    pass().await;
    fetch(&eureka).await.unwrap();
    assert_eq!(log.text().matches("TLS files changed").count(), 2, "{}", log.text());
    assert!(!log.text().contains("WARN"), "{}", log.text());
}

#[tokio::test]
async fn unusable_new_file_keeps_the_old_identity_and_is_logged_once() {
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let ca = Ca::new();
    let port = serve(ca.strict_server(), closing()).await;
    let (certificate, key) = ca.identity_files("files-broken");
    let eureka =
        at(port).tls_ca_file(ca.pem_file("files-keep.pem")).tls_identity_file(&certificate, &key).build().unwrap();
    fetch(&eureka).await.unwrap();
    let (good_certificate, good_key) = (fs::read(&certificate).unwrap(), fs::read(&key).unwrap());
    let (next_certificate, _) = ca.identity_files("files-next");

    let half_replaced = fs::read(next_certificate).unwrap();
    for (number, (certificate_now, key_now, why)) in [
        (Some(half_replaced), Some(good_key.clone()), "do not belong together"),
        (Some(b"-----BEGIN CERTIFICATE-----\nMII".to_vec()), Some(good_key.clone()), "it is not valid PEM"),
        (Some(Vec::new()), Some(good_key.clone()), "it holds no certificate"),
        (Some(good_certificate.clone()), Some(b"hunter2".to_vec()), "no usable private key"),
        (Some(good_certificate.clone()), None, "No such file"),
    ]
    .into_iter()
    .enumerate()
    {
        for (path, content) in [(&certificate, certificate_now), (&key, key_now)] {
            match content {
                Some(content) => fs::write(path, content).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        for _ in 0..2 {
            pass().await;
            fetch(&eureka).await.unwrap();
        }
        let text = log.text();
        assert_eq!(
            text.matches("cannot use changed TLS files, keeping the previous ones").count(),
            number + 1,
            "{text}"
        );
        assert!(text.lines().last().unwrap().contains(why), "{why} in {text}");
    }
    fs::write(&certificate, good_certificate).unwrap();
    fs::write(&key, good_key).unwrap();
    pass().await;
    fetch(&eureka).await.unwrap();
    assert!(!log.text().contains("hunter2"));
}

#[tokio::test]
async fn changed_ca_file_is_used_for_new_connections() {
    let (old, new) = (Ca::named("old"), Ca::named("new"));
    let port = serve(server(new.identity(&["localhost"])), closing()).await;
    let file = old.pem_file("files-rotated.pem");
    let eureka = at(port).tls_ca_file(&file).build().unwrap();
    assert!(fetch(&eureka).await.unwrap_err().is_connect());
    new.pem_file("files-rotated.pem");
    pass().await;
    fetch(&eureka).await.unwrap();
}

#[tokio::test]
async fn identity_file_is_used_for_instances_too() {
    let ca = Ca::new();
    let registry = serve(server(ca.identity(&["localhost"])), registry()).await;
    let orders = serve(ca.strict_server(), echo("a")).await;
    let (certificate, key) = ca.identity_files("files-instances");
    let eureka = at(registry)
        .tls_ca_file(ca.pem_file("files-instances-ca.pem"))
        .tls_identity_file(certificate, key)
        .fetch_interval(Duration::from_millis(50))
        .build()
        .unwrap();
    let client: HttpClient<Full<bytes::Bytes>> = eureka.http_client();
    let world = World { ca, eureka, client };
    world.register("a", "localhost", orders).await;
    assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");
}

#[test]
fn order_of_the_files_does_not_matter_without_cas_of_the_system() {
    if !is_without_system_cas("files::order_of_the_files_does_not_matter_without_cas_of_the_system") {
        return;
    }
    let ca = Ca::new();
    let (file, (certificate, key)) = (ca.pem_file("files-order.pem"), ca.identity_files("files-order"));
    at(1).tls_ca_file(&file).tls_identity_file(&certificate, &key).build().unwrap();
    at(1).tls_identity_file(&certificate, &key).tls_ca_file(&file).build().unwrap();
    let error = at(1).tls_identity_file(&certificate, &key).build().unwrap_err();
    assert!(error.to_string().contains("this machine has no CA certificates"), "{error}");
}

#[test]
fn unusable_files_fail_the_build() {
    let ca = Ca::new();
    let (certificate, key) = ca.identity_files("files-unusable");
    let (_, other_key) = ca.identity_files("files-unusable-other");
    let write = |name: &str, content: &[u8]| {
        let path = temporary(name);
        fs::write(&path, content).unwrap();
        path
    };
    let encrypted = write(
        "files-encrypted.key",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let large = write("files-large.pem", &vec![b' '; (10 << 20) + 1]);
    let jks = write("files-store.jks", &[0xfe, 0xed, 0xfe, 0xed, 0, 0]);
    let pem_store = write("files-store.pem", &[fs::read(&certificate).unwrap(), fs::read(&key).unwrap()].concat());
    for (builder, why) in [
        (at(1).tls_identity_file("missing.pem", &key), "missing.pem"),
        (at(1).tls_identity_file(&certificate, "missing.key"), "missing.key"),
        (at(1).tls_identity_file(&certificate, &other_key), "do not belong together"),
        (at(1).tls_identity_file(&certificate, &certificate), "no usable private key"),
        (at(1).tls_identity_file(&key, &key), "holds no certificate"),
        (at(1).tls_identity_file(&certificate, &encrypted), "openssl pkey"),
        (at(1).tls_ca_file(&large), "larger than 10 MiB"),
        (at(1).tls_key_store(&jks, "changeit"), "keytool -importkeystore"),
        (at(1).tls_trust_store(&jks, "changeit"), "keytool -importkeystore"),
        (at(1).tls_trust_store(&key, "changeit"), "holds no certificate"),
        (at(1).tls_trust_store(&large, "changeit"), "larger than 10 MiB"),
        (at(1).tls_identity_file(&certificate, &key).tls_config(ca.client()), "both set"),
        (at(1).tls_config(ca.client()).tls_key_store(&pem_store, ""), "both set"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{why}: {error}");
        assert!(!error.to_string().contains("changeit"), "{error}");
    }
    at(1).tls_key_store(&pem_store, "").tls_trust_store(&certificate, "").build().unwrap();
}
