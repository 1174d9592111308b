//! A rolling restart of our providers under a Java caller with the default settings of Spring: 30
//! seconds in the server's response cache, 30 until the caller's next fetch, and 35 in its load
//! balancer's cache.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower_eureka::register::ShutdownPreset;
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::spring::{Client, Server};
use super::until;

const APP: &str = "rolling";
/// Time until a Java caller knows a new instance.
const KNOWN: Duration = Duration::from_secs(120);
/// Time of a shutdown with its longest drain.
const DRAINED: Duration = Duration::from_secs(130);
/// Pause of a caller between two calls.
const PAUSE: Duration = Duration::from_millis(20);

/// Provider in this process, which responds with its name.
struct Provider {
    port: u16,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Provider {
    async fn start(registry: &str, name: String, port: u16) -> Self {
        let eureka = Eureka::builder().service_url(registry).build().expect("the URL is valid");
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("port is free");
        let port = listener.local_addr().expect("listener is bound").port();
        let instance = Instance::builder(APP).ip_addr("127.0.0.1").port(port).build().expect("instance is valid");
        let registrar = eureka.registrar(instance).shutdown_preset(ShutdownPreset::FullPropagation);
        let app = Router::new().route("/whoami", get(|| async { name })).layer(registrar.layer());
        let registered = registrar.registered();
        let (stop, stopped) = oneshot::channel::<()>();
        let signal = async { drop(stopped.await) };
        let serve = |shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown);
        let serving = tokio::spawn(registrar.serve(signal, serve));
        registered.await.expect("the registry accepts the instance");
        Self { port, stop, serving }
    }

    async fn stop(self) -> u16 {
        drop(self.stop);
        let ended = tokio::time::timeout(DRAINED, self.serving).await.expect("the shutdown is bounded");
        ended.expect("the server does not panic").expect("the server serves");
        self.port
    }
}

/// Calls in turn until it is stopped. Returns the number of calls by the name that responded.
async fn calls(java: &Client, mut stopped: oneshot::Receiver<()>) -> BTreeMap<String, usize> {
    let mut responses = BTreeMap::new();
    while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
        let name = java.call(APP).await.unwrap_or_else(|| "failed".to_owned());
        *responses.entry(name).or_default() += 1;
        tokio::time::sleep(PAUSE).await;
    }
    responses
}

/// Takes about four minutes.
#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_with_full_propagation_fails_no_call_of_a_java_caller_with_default_settings() {
    // Without a slot, since it waits for minutes.
    let server = Server::start_with_defaults("rolling-server", free_port()).await;
    let mut providers = Vec::new();
    for name in ["a", "b"] {
        providers.push(Provider::start(&server.url, format!("{name}-1"), 0).await);
    }
    let java = Client::start_with_defaults("rolling-java", &server.url, free_port()).await;
    for name in ["a-1", "b-1"] {
        until("Java calls each instance", KNOWN, async || java.call(APP).await.filter(|called| called == name)).await;
    }
    let (stop, stopped) = oneshot::channel();
    let mut restarted = Vec::new();
    let restart = async {
        for (name, provider) in ["a", "b"].into_iter().zip(providers) {
            let port = provider.stop().await;
            restarted.push(Provider::start(&server.url, format!("{name}-2"), port).await);
        }
        for name in ["a-2", "b-2"] {
            until("Java calls each restarted instance", KNOWN, async || {
                java.call(APP).await.filter(|called| called == name)
            })
            .await;
        }
        drop(stop);
    };
    let (mut responses, ()) = tokio::join!(calls(&java, stopped), restart);
    eprintln!("rolling restart under a Java caller: {responses:?}");
    let total: usize = responses.values().sum();
    assert!(total > 1000, "{responses:?}");
    assert_eq!(responses.get("failed"), None, "{responses:?}");
    // The call that ended the wait for b-2 may have been its only one.
    responses.entry("b-2".to_owned()).or_default();
    assert_eq!(responses.keys().collect::<Vec<_>>(), ["a-1", "a-2", "b-1", "b-2"]);
}
