//! Spring Boot applications that are hard to reach: an unresolvable host name, an IPv6 address, and
//! only a secure port. They are called without a setting of the caller.

use std::path::PathBuf;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tower_eureka::client::HttpClient;
use tower_eureka::{Error, Eureka, Instance};

use super::super::own_address::own_address;
use super::super::process::free_port;
use super::super::spring::{Client, START};
use super::super::{http as registry, slot, until};
use super::Fixture;

/// Waits until the Java client is registered, and returns its record.
async fn registered(fixture: &Fixture) -> Instance {
    until("the Spring application is registered", START, async || {
        registry::only_instance(&fixture.url, "JAVA-CLIENT").await
    })
    .await
}

/// Calls the Java client by name, and returns the instance id in its response.
async fn whoami(eureka: &Eureka) -> String {
    try_whoami(eureka).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn try_whoami(eureka: &Eureka) -> Result<String, Error> {
    let client: HttpClient<Full<Bytes>> = eureka.http_client();
    let request = Request::get("http://java-client/whoami").body(Full::default()).expect("request is valid");
    let body = client.request(request).await?.into_body().collect().await.expect("body is complete").to_bytes();
    Ok(String::from_utf8(body.to_vec()).expect("an instance id"))
}

#[tokio::test]
async fn spring_application_with_an_unresolvable_host_name_is_called() {
    let _slot = slot().await;
    let fixture = Fixture::new().await;
    let ip = own_address().to_string();
    let arguments = [
        "--eureka.instance.prefer-ip-address=false",
        "--eureka.instance.hostname=5f2a9c11d0e4",
        &format!("--eureka.instance.ip-address={ip}"),
    ];
    let _java = Client::start_with("unresolvable", &fixture.url, free_port(), &arguments).await;
    let instance = registered(&fixture).await;
    assert_eq!((instance.host_name(), instance.ip_addr()), (Some("5f2a9c11d0e4"), Some(&*ip)));
    assert_eq!(whoami(&fixture.eureka).await, instance.id());
}

#[tokio::test]
async fn spring_application_with_an_ipv6_address_is_called() {
    let _slot = slot().await;
    let fixture = Fixture::new().await;
    // As Java formats the address.
    let arguments = ["--eureka.instance.ip-address=0:0:0:0:0:0:0:1"];
    let _java = Client::start_with("ipv6-address", &fixture.url, free_port(), &arguments).await;
    let instance = registered(&fixture).await;
    assert_eq!(instance.host_name(), Some("0:0:0:0:0:0:0:1"));
    assert_eq!(whoami(&fixture.eureka).await, instance.id());
}

#[tokio::test]
async fn spring_application_with_only_a_secure_port_is_called() {
    let _slot = slot().await;
    let fixture = Fixture::new().await;
    let [ca, certificate, key] = identity();
    let port = free_port();
    let arguments = [
        "--eureka.instance.non-secure-port-enabled=false".to_owned(),
        "--eureka.instance.secure-port-enabled=true".to_owned(),
        format!("--eureka.instance.secure-port={port}"),
        format!("--server.ssl.certificate={}", certificate.display()),
        format!("--server.ssl.certificate-private-key={}", key.display()),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let _java = Client::launch("secure-port", &fixture.url, port, &arguments);
    let instance = registered(&fixture).await;
    assert_eq!((instance.port().usable(), instance.secure_port().usable()), (None, Some(port)));
    // Only the CA of the test has to be trusted.
    let eureka = || Eureka::builder().service_url(&fixture.url).tls_ca_file(&ca).build().expect("the CA is valid");
    // Spring registers before it accepts connections, and the first TLS handshake of a JVM is slow.
    let first = eureka();
    until("the secure port responds", START, async || try_whoami(&first).await.ok()).await;
    assert_eq!(whoami(&eureka()).await, instance.id());
}

/// Writes a CA, a certificate of it for 127.0.0.1, and the key.
fn identity() -> [PathBuf; 3] {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let files = ["ca.pem", "certificate.pem", "key.pem"].map(|name| folder.join(format!("spring-secure-{name}")));
    let key = || KeyPair::generate().expect("ring generates keys");
    let (mut ca, ca_key, own_key) = (CertificateParams::default(), key(), key());
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("parameters are valid");
    let own = CertificateParams::new(["127.0.0.1".to_owned()]).expect("name is valid");
    let own = own.signed_by(&own_key, &Issuer::new(ca, ca_key)).expect("parameters are valid");
    for (file, pem) in files.iter().zip([ca_certificate.pem(), own.pem(), own_key.serialize_pem()]) {
        std::fs::write(file, pem).expect("target directory is writable");
    }
    files
}
