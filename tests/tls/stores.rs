//! Key stores and trust stores of keytool and OpenSSL. `stores/make.sh` creates them.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower_eureka::{Eureka, EurekaBuilder};

use crate::access::{register, registry};
use crate::world::{Ca, serve, server};

const PASSWORD: &str = "changeit";

fn store(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/stores").join(name)
}

fn at(port: u16) -> EurekaBuilder {
    Eureka::builder().service_url(format!("https://localhost:{port}/eureka/"))
}

#[tokio::test]
async fn key_stores_of_keytool_and_openssl_identify_the_client() {
    let ca = Ca::new();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(store("ca.pem")).unwrap()).unwrap();
    let port = serve(ca.server_for(roots), registry()).await;
    let builder = || at(port).tls_ca_file(ca.pem_file("stores-ca.pem"));
    for name in ["identity-keytool.p12", "identity-openssl.p12", "identity-legacy.p12"] {
        register(builder().tls_key_store(store(name), PASSWORD))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(register(builder()).await.unwrap_err().is_connect());
}

#[tokio::test]
async fn trust_stores_of_keytool_and_openssl_are_trusted() {
    let chain = vec![CertificateDer::from_pem_file(store("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(store("server.key")).unwrap();
    let port = serve(server((chain, key)), registry()).await;
    for name in ["trust-keytool.p12", "trust-openssl.p12"] {
        register(at(port).tls_trust_store(store(name), PASSWORD))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    register(at(port).tls_trust_store(store("ca.pem"), "")).await.unwrap();
}

#[test]
fn unusable_store_fails_the_build_without_the_password() {
    for (builder, why) in [
        (at(1).tls_key_store(store("identity-keytool.p12"), "hunter2"), "its password is wrong"),
        (at(1).tls_key_store(store("identity-legacy.p12"), "hunter2"), "its password is wrong"),
        (at(1).tls_trust_store(store("trust-keytool.p12"), "hunter2"), "its password is wrong"),
        (at(1).tls_key_store(store("trust-keytool.p12"), PASSWORD), "no private key"),
        (at(1).tls_trust_store(store("identity.jks"), "hunter2"), "it is a JKS store"),
        (at(1).tls_key_store(store("identity.jks"), "hunter2"), "-deststoretype PKCS12"),
        (at(1).tls_key_store(store("make.sh"), "hunter2"), "neither PKCS#12 nor PEM"),
        (at(1).tls_key_store(store("missing.p12"), "hunter2"), "missing.p12"),
    ] {
        let debug = format!("{builder:?}");
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{why}: {error}");
        assert!(!format!("{debug} {error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
