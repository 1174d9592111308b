//! Certificate authority, servers with its certificates, and a registry with a client that trusts
//! it.

use std::path::{Path, PathBuf};
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
use tower_eureka::client::HttpClient;
use tower_eureka::model::InstanceBuilder;
use tower_eureka::{Error, Eureka, EurekaServer, Instance};

type Client = HttpClient<Full<Bytes>>;
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Certificate authority of one test.
pub(crate) struct Ca {
    pub(crate) certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::named("ours")
    }

    pub(crate) fn named(name: &str) -> Self {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { certificate: params.self_signed(&key).unwrap(), issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate for these names and addresses.
    pub(crate) fn identity(&self, names: &[&str]) -> Identity {
        self.sign(CertificateParams::new(names.iter().copied().map(str::to_owned).collect::<Vec<_>>()).unwrap())
    }

    pub(crate) fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// Issues a certificate for localhost, and writes it and its key to PEM files.
    pub(crate) fn identity_files(&self, name: &str) -> (PathBuf, PathBuf) {
        let files = (temporary(&format!("{name}.pem")), temporary(&format!("{name}.key")));
        self.write_identity(&files.0, &files.1);
        files
    }

    pub(crate) fn write_identity(&self, certificate: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(certificate, params.signed_by(&pair, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(key, pair.serialize_pem()).unwrap();
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }

    /// Returns a client configuration that trusts this authority.
    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// Returns a client configuration that also sends a certificate of this authority.
    pub(crate) fn client_with_identity(&self) -> ClientConfig {
        self.client_with(self.identity(&["client"]))
    }

    /// Returns a client configuration that trusts this authority and sends this certificate.
    pub(crate) fn client_with(&self, (chain, key): Identity) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap()
    }

    /// Returns the configuration of a server on localhost that requires a client certificate of
    /// this authority.
    pub(crate) fn strict_server(&self) -> ServerConfig {
        self.server_for(self.roots())
    }

    /// Returns the configuration of a server on localhost that requires a client certificate of one
    /// of these authorities.
    pub(crate) fn server_for(&self, roots: RootCertStore) -> ServerConfig {
        let provider = Arc::new(default_provider());
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().unwrap();
        let (chain, key) = self.identity(&["localhost"]);
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap()
    }

    pub(crate) fn pem_file(&self, name: &str) -> PathBuf {
        let path = temporary(name);
        std::fs::write(&path, self.certificate.pem()).unwrap();
        path
    }
}

/// Moves the clock by the time after which files are read again.
pub(crate) async fn pass() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
}

/// Returns a path for a temporary file. Its name is unique among the tests.
pub(crate) fn temporary(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Returns `true` in a process without CAs of the system, as in a minimal image. Otherwise runs the
/// test of this name in such a process, and asserts that it passes.
pub(crate) fn is_without_system_cas(test: &str) -> bool {
    const MARK: &str = "TOWER_EUREKA_WITHOUT_CAS";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let empty = temporary("no-cas.pem");
    std::fs::write(&empty, "").unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test]).env(MARK, "1").env("SSL_CERT_FILE", empty).env_remove("SSL_CERT_DIR");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Returns a server configuration with this certificate that supports HTTP/1.1 and HTTP/2.
pub(crate) fn server((chain, key): Identity) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Serves the router over TLS on a new port, and returns the port.
pub(crate) async fn serve(config: ServerConfig, router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve_on(listener, config, router);
    port
}

pub(crate) fn serve_on(listener: TcpListener, config: ServerConfig, router: Router) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(router)).await;
            });
        }
    });
}

/// Waits until the condition is true.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns a router that responds with its id, the HTTP version of the request, and the body.
pub(crate) fn echo(id: &'static str) -> Router {
    Router::new().fallback(any(async move |version: Version, body: String| format!("{id} {version:?} {body}")))
}

/// Registry over HTTPS, and a client that trusts its authority.
pub(crate) struct World {
    pub(crate) ca: Ca,
    pub(crate) eureka: Eureka,
    pub(crate) client: Client,
}

impl World {
    pub(crate) async fn new() -> Self {
        let ca = Ca::new();
        let config = ca.client();
        Self::with(ca, config).await
    }

    pub(crate) async fn with(ca: Ca, config: ClientConfig) -> Self {
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

    /// Registers an instance at this host, and waits until the client has it.
    pub(crate) async fn register(&self, id: &str, host: &str, port: u16) {
        self.enter(Instance::builder("orders").id(id).host_name(host).ip_addr("127.0.0.1").secure_port(port)).await;
    }

    pub(crate) async fn enter(&self, instance: InstanceBuilder) {
        let before = self.eureka.snapshot().instance_count();
        self.eureka.transport().register(&instance.build().unwrap()).await.unwrap();
        until(|| self.eureka.snapshot().instance_count() != before).await;
    }

    /// Starts and registers an instance on localhost with this certificate.
    pub(crate) async fn instance(&self, id: &'static str, identity: Identity) {
        let port = serve(server(identity), echo(id)).await;
        self.register(id, "localhost", port).await;
    }

    pub(crate) async fn call(&self, version: Version) -> Result<String, Error> {
        let request = Request::builder().method(Method::POST).uri("http://orders/pay").version(version);
        let response = self.client.clone().oneshot(request.body(Full::from("hello")).unwrap()).await?;
        assert_eq!(response.version(), version);
        Ok(String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    /// Returns the error of a call that no instance accepts.
    pub(crate) async fn refusal(&self) -> String {
        let error = self.call(Version::HTTP_11).await.unwrap_err();
        assert!(error.is_connect(), "{error}");
        error.to_string()
    }
}
