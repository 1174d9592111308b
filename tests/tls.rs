//! HTTPS to registry servers and instances, with certificates made here: who is trusted, under which name, and what an error says.
#![cfg(all(feature = "tls", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tower::ServiceExt;
use tower_eureka::route::HttpClient;
use tower_eureka::{Error, Eureka, EurekaServer, Instance};

type Client = HttpClient<Full<Bytes>>;
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate authority of the test's own.
struct Ca {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        Self::named("ours")
    }

    fn named(name: &str) -> Self {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { certificate: params.self_signed(&key).unwrap(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names and addresses.
    fn identity(&self, names: &[&str]) -> Identity {
        self.sign(CertificateParams::new(names.iter().copied().map(str::to_owned).collect::<Vec<_>>()).unwrap())
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }

    /// Trusts this authority.
    fn client(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    fn pem_file(&self, name: &str) -> PathBuf {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, self.certificate.pem()).unwrap();
        path
    }
}

/// Shows this certificate, and agrees to both versions of HTTP.
fn server((chain, key): Identity) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Serves the router over TLS; the port.
async fn serve(config: ServerConfig, router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(router)).await;
            });
        }
    });
    port
}

/// Answers its id, the version of the request, and the body.
fn echo(id: &'static str) -> Router {
    Router::new().fallback(any(async move |version: Version, body: String| format!("{id} {version:?} {body}")))
}

/// A registry over HTTPS, and a client that trusts its authority.
struct World {
    ca: Ca,
    eureka: Eureka,
    client: Client,
}

impl World {
    async fn new() -> Self {
        let ca = Ca::new();
        let config = ca.client();
        Self::with(ca, config).await
    }

    async fn with(ca: Ca, config: ClientConfig) -> Self {
        let router = Router::new().nest("/eureka", EurekaServer::builder().build().unwrap().router());
        let port = serve(server(ca.identity(&["localhost"])), router).await;
        let eureka = Eureka::builder()
            .service_url(format!("https://localhost:{port}/eureka/"))
            .fetch_interval(Duration::from_millis(50))
            .instance_connect_timeout(Duration::from_secs(1))
            .tls_config(config)
            .build()
            .unwrap();
        let client = eureka.http_client();
        Self { ca, eureka, client }
    }

    /// Registers an instance that is at this host, and waits until the client knows it.
    async fn register(&self, id: &str, host: &str, port: u16) {
        let instance = Instance::builder("orders").id(id).host_name(host).ip_addr("127.0.0.1").secure_port(port);
        let before = self.eureka.snapshot().instance_count();
        self.eureka.transport().register(&instance.build().unwrap()).await.unwrap();
        while self.eureka.snapshot().instance_count() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An instance on localhost with this certificate.
    async fn instance(&self, id: &'static str, identity: Identity) {
        let port = serve(server(identity), echo(id)).await;
        self.register(id, "localhost", port).await;
    }

    async fn call(&self, version: Version) -> Result<String, Error> {
        let request = Request::builder().method(Method::POST).uri("http://orders/pay").version(version);
        let response = self.client.clone().oneshot(request.body(Full::from("hello")).unwrap()).await?;
        assert_eq!(response.version(), version);
        Ok(String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    /// What a call says that no instance could take.
    async fn refusal(&self) -> String {
        let error = self.call(Version::HTTP_11).await.unwrap_err();
        assert!(error.is_connect(), "{error}");
        error.to_string()
    }
}

#[tokio::test]
async fn a_registry_and_an_instance_are_spoken_to_over_tls() {
    let world = World::new().await;
    world.instance("a", world.ca.identity(&["localhost"])).await;
    assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");
}

#[tokio::test]
async fn an_instance_known_by_its_address_is_checked_by_its_address() {
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
async fn a_wrong_name_costs_no_call_while_another_instance_has_the_right_one() {
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
async fn a_failed_handshake_says_why() {
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
async fn a_registry_that_is_not_trusted_says_why() {
    let world = World::with(Ca::new(), Ca::new().client()).await;
    let error = world.eureka.transport().applications().await.unwrap_err();
    assert!(error.is_connect() && error.to_string().contains("a CA that is not trusted here"), "{error}");
}

#[tokio::test]
async fn by_default_those_are_trusted_whom_the_machine_trusts() {
    let port = serve(server(Ca::new().identity(&["localhost"])), Router::new()).await;
    let why = match Eureka::builder().service_url(format!("https://localhost:{port}/eureka/")).build() {
        Ok(eureka) => eureka.transport().applications().await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(why.contains("is not trusted here") || why.contains("this machine has no CA certificates"), "{why}");
}

#[tokio::test]
async fn a_handshake_that_hangs_is_bounded_by_the_connect_timeout() {
    let world = World::new().await;
    // Takes the connection and never says a word.
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
async fn a_client_certificate_is_shown_where_one_is_asked_for() {
    let ca = Ca::new();
    let (chain, key) = ca.identity(&["client"]);
    let provider = Arc::new(default_provider());
    let with_certificate = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_client_auth_cert(chain, key)
        .unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider.clone()).build().unwrap();
    let (chain, key) = ca.identity(&["localhost"]);
    let strict = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let port = serve(strict, echo("a")).await;

    let without = ca.client();
    let world = World::with(ca, with_certificate).await;
    world.register("a", "localhost", port).await;
    assert_eq!(world.call(Version::HTTP_11).await.unwrap(), "a HTTP/1.1 hello");

    let world = World::with(world.ca, without).await;
    world.register("a", "localhost", port).await;
    let error = world.call(Version::HTTP_11).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}

#[tokio::test]
async fn an_enabled_secure_port_comes_before_the_plain_one() {
    let world = World::new().await;
    let secure = serve(server(world.ca.identity(&["localhost"])), echo("secure")).await;
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(plain, echo("plain")).await });

    let plain = || Instance::builder("orders").id("a").host_name("localhost").ip_addr("127.0.0.1").port(port);
    for (instance, answer) in [(plain(), "plain"), (plain().secure_port(secure), "secure")] {
        world.eureka.transport().register(&instance.build().unwrap()).await.unwrap();
        while !world.call(Version::HTTP_11).await.unwrap().starts_with(answer) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn the_cas_of_a_file_are_trusted() {
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
fn unusable_tls_settings_are_found_at_build() {
    let ca = Ca::new();
    let file = ca.pem_file("twice.pem");
    let empty = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let builder = || Eureka::builder().service_url("https://localhost/eureka/");
    for (builder, why) in [
        (builder().tls_ca_file("missing.pem"), "missing.pem"),
        (builder().tls_ca_file(&empty), "holds no certificate"),
        (builder().tls_ca_file(&file).tls_config(ca.client()), "both given"),
        (builder().tls_config(ca.client()).tls_ca_file(&file), "both given"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{error}");
    }
}
