//! Replication between registries over TLS.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tower_eureka::server::{self, EurekaServerBuilder, Peers};
use tower_eureka::{Eureka, EurekaServer, Instance, Settings};

use crate::captured_log::Log;
use crate::world::{Ca, is_without_system_cas, serve, serve_on, server, temporary, until};

/// Binds a listener for each node, and returns them with the list of peer URLs that all nodes use.
async fn bind_nodes<const N: usize>() -> ([TcpListener; N], String) {
    let mut listeners = Vec::new();
    for _ in 0..N {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let url = |listener| format!("https://localhost:{}/eureka/", port(listener));
    let urls: Vec<_> = listeners.iter().map(url).collect();
    (listeners.try_into().unwrap(), urls.join(","))
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

fn peers(urls: &str) -> Peers {
    Peers::new().url(urls).wait_when_empty(Duration::ZERO)
}

/// Registry node behind TLS.
struct Node(EurekaServer);

impl Node {
    fn start(listener: TcpListener, shows: ServerConfig, peers: Peers) -> Self {
        let builder = EurekaServer::builder().port(port(&listener)).peers(peers);
        let node = builder.node(server::Node::new().host_name("localhost")).build().unwrap();
        serve_on(listener, shows, Router::new().nest("/eureka", node.router()));
        Self(node)
    }

    async fn register(&self, id: &str) {
        register(&self.0, id).await;
    }

    fn has(&self, id: &str) -> bool {
        self.0.instance("orders", id).is_some()
    }
}

/// Registers an instance at the node without TLS, through a listener of its own.
async fn register(node: &EurekaServer, id: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/eureka/", listener.local_addr().unwrap());
    let router = Router::new().nest("/eureka", node.router());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let instance = Instance::builder("orders").id(id).ip_addr("127.0.0.1").port(1).build().unwrap();
    Eureka::builder().service_url(url).build().unwrap().transport().register(&instance).await.unwrap();
    serving.abort();
}

#[tokio::test]
async fn registrations_replicate_over_tls() {
    let ca = Ca::new();
    let file = ca.pem_file("peers.pem");
    let ([a, b], urls) = bind_nodes().await;
    let node = |at| {
        let shows = server(ca.identity(&["localhost"]));
        Node::start(at, shows, peers(&urls).tls_ca_file(&file))
    };
    let (a, b) = (node(a), node(b));
    a.register("1").await;
    b.register("2").await;
    until(|| a.has("2") && b.has("1")).await;
}

#[tokio::test]
async fn registrations_replicate_with_the_stores_of_the_settings() {
    let ca = Ca::new();
    let stores = store_settings(&ca, "peers-settings");
    let ([a, b], urls) = bind_nodes().await;
    let node = |at: TcpListener| {
        let builder = EurekaServer::builder().port(port(&at)).peers(peers(&urls));
        let set =
            |builder: EurekaServerBuilder, (name, value): &(String, String)| builder.property(name, value).unwrap();
        let builder = stores.iter().fold(builder, set);
        let node = builder.node(server::Node::new().host_name("localhost")).build().unwrap();
        serve_on(at, ca.strict_server(), Router::new().nest("/eureka", node.router()));
        Node(node)
    };
    let (a, b) = (node(a), node(b));
    a.register("1").await;
    b.register("2").await;
    until(|| a.has("2") && b.has("1")).await;
}

#[tokio::test]
async fn peers_that_request_a_certificate_receive_one() {
    let ca = Ca::new();
    let ([a, b], urls) = bind_nodes().await;
    let node = |at| Node::start(at, ca.strict_server(), peers(&urls).tls_config(ca.client_with_identity()));
    let (a, b) = (node(a), node(b));
    a.register("1").await;
    b.register("2").await;
    until(|| a.has("2") && b.has("1")).await;
}

fn has(log: &Log, parts: &[&str]) -> bool {
    log.text().lines().any(|line| parts.iter().all(|part| line.contains(part)))
}

#[tokio::test]
async fn untrusted_peer_is_logged_and_does_not_affect_the_others() {
    let (log, _logging) = Log::start(tracing::Level::INFO);
    let (ca, another) = (Ca::new(), Ca::named("another"));
    let ([a, b, stranger], urls) = bind_nodes().await;
    let stranger_url = format!("https://localhost:{}/eureka/", port(&stranger));
    let node = |at, shown: &Ca, trusted: &Ca| {
        let shows = server(shown.identity(&["localhost"]));
        Node::start(at, shows, peers(&urls).tls_config(trusted.client()))
    };
    let (a, b, stranger) = (node(a, &ca, &ca), node(b, &ca, &ca), node(stranger, &another, &another));
    for id in ["1", "2"] {
        a.register(id).await;
        until(|| b.has(id)).await;
        let why = "its certificate is of a CA that is not trusted here";
        until(|| has(&log, &["WARN", "cannot send changes to a peer, keeping them", &stranger_url, why])).await;
        assert!(!stranger.has(id));
    }
    until(|| a.0.is_open() && b.0.is_open()).await;
}

#[tokio::test]
async fn order_of_the_files_of_peers_does_not_matter_without_cas_of_the_system() {
    if !is_without_system_cas("peers::order_of_the_files_of_peers_does_not_matter_without_cas_of_the_system") {
        return;
    }
    let ca = Ca::new();
    let (file, (certificate, key)) = (ca.pem_file("peers-order.pem"), ca.identity_files("peers-order"));
    let build = |peers| EurekaServer::builder().port(2).peers(peers).build();
    let peers = peers("https://localhost:1/eureka/").tls_identity_file(&certificate, &key);
    build(peers.clone().tls_ca_file(&file)).unwrap();
    let error = build(peers).unwrap_err();
    assert!(error.to_string().contains("this machine has no CA certificates"), "{error}");
}

#[tokio::test]
async fn unusable_tls_settings_of_peers_fail_the_build() {
    let ca = Ca::new();
    let file = ca.pem_file("trusted.pem");
    let missing = PathBuf::from("missing.pem");
    for (peers, why) in [
        (Peers::new().tls_ca_file(&missing), "missing.pem"),
        (Peers::new().tls_ca_file(&file).tls_config(ca.client()), "both set"),
        (Peers::new().tls_config(ca.client()).tls_ca_file(&file), "both set"),
    ] {
        let error = EurekaServer::builder().peers(peers).build().unwrap_err();
        assert!(error.is_config(), "{error}");
        for part in ["the TLS settings for peers are unusable", why] {
            assert!(error.to_string().contains(part), "{part} in {error}");
        }
    }
}

/// Writes the CA and an identity of the client to PEM files, and returns the settings that name
/// them.
fn store_settings(ca: &Ca, name: &str) -> [(String, String); 3] {
    let trust = ca.pem_file(&format!("{name}-trust.pem"));
    let (certificate, key) = ca.identity_files(&format!("{name}-identity"));
    let store = [std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap()].concat();
    let identity = temporary(&format!("{name}-store.pem"));
    std::fs::write(&identity, store).unwrap();
    [
        ("enabled", "true".to_owned()),
        ("trust-store", trust.display().to_string()),
        ("key-store", format!("file:{}", identity.display())),
    ]
    .map(|(name, value)| (format!("eureka.client.tls.{name}"), value))
}

#[tokio::test]
async fn embedded_registry_uses_the_stores_of_the_application_for_its_peers() {
    let ca = Ca::new();
    let ([a, b], urls) = bind_nodes().await;
    let stores = store_settings(&ca, "embedded");
    let node = |at: TcpListener| {
        let settings = Settings::builder().environment([("", ""); 0]).without_files();
        let settings = stores.iter().fold(settings, |settings, (name, value)| settings.property(name, value));
        let settings = settings.property("eureka.client.service-url.defaultZone", &*urls);
        let settings = settings.property("eureka.server.wait-time-in-ms-when-sync-empty", "0").load().unwrap();
        // The client of the application has the same settings.
        Eureka::from_settings(&settings).unwrap();
        let builder = EurekaServer::builder().from_settings(&settings).unwrap().port(port(&at));
        let node = builder.node(server::Node::new().host_name("localhost")).build().unwrap();
        serve_on(at, ca.strict_server(), Router::new().nest("/eureka", node.router()));
        Node(node)
    };
    let (a, b) = (node(a), node(b));
    a.register("1").await;
    b.register("2").await;
    until(|| a.has("2") && b.has("1")).await;
}

/// Starts the binary with a peer that requires a certificate, and waits until it has copied the
/// instance of the peer.
#[cfg(all(feature = "cli", unix))]
async fn binary_copies(peer: ServerConfig, configure: impl FnOnce(&mut tokio::process::Command)) {
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt, BufReader};

    let registry = EurekaServer::builder().build().unwrap();
    register(&registry, "1").await;
    let peer = serve(peer, Router::new().nest("/eureka", registry.router())).await;
    let mut binary = tokio::process::Command::new(env!("CARGO_BIN_EXE_tower-eureka"));
    binary
        .args(["serve", "--listen", "127.0.0.1:0"])
        .arg(format!("--eureka.client.service-url.defaultZone=https://localhost:{peer}/eureka/"))
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR")
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    configure(&mut binary);
    let mut binary = binary.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(binary.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    let url = line.trim_end().strip_prefix("listening on ").unwrap();
    let client = Eureka::builder().service_url(url).build().unwrap();
    // The request is rejected until the sync up is complete.
    let copied = async {
        loop {
            match client.transport().applications().await {
                Ok(applications) => break applications,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let copied = tokio::time::timeout(Duration::from_secs(60), copied).await.unwrap();
    assert!(copied.applications.iter().any(|application| application.instance("1").is_some()));
}

#[cfg(all(feature = "cli", unix))]
#[tokio::test]
async fn binary_with_ssl_cert_file_trusts_peers_by_that_file() {
    let ca = Ca::new();
    let file = ca.pem_file("binary.pem");
    binary_copies(server(ca.identity(&["localhost"])), |binary| {
        binary.env("SSL_CERT_FILE", file);
    })
    .await;
}

#[cfg(all(feature = "cli", unix))]
#[tokio::test]
async fn binary_uses_the_stores_of_its_settings_for_peers() {
    let ca = Ca::new();
    let stores = store_settings(&ca, "binary");
    binary_copies(ca.strict_server(), |binary| {
        let [enabled, trust, key] = stores;
        binary.arg(format!("--{}={}", trust.0, trust.1));
        for (name, value) in [enabled, key] {
            binary.env(name.to_ascii_uppercase().replace('.', "_").replace('-', ""), value);
        }
    })
    .await;
}
