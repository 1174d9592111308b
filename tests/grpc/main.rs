//! Generated clients that call by name and tonic servers that register, over real connections.
#![cfg(all(feature = "tonic", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

mod instance_service;
mod picked;
mod raw;
#[path = "../support/raw_http2.rs"]
mod raw_http2;
#[cfg(feature = "tonic-server")]
mod serve;
mod world;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Uri;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tower_eureka::Instance;
use tower_eureka::balance::LeastRequests;
use tower_eureka::client::{CallOptions, RetryPolicy, WaitForReady};
use tower_eureka::tonic::Channel;

use self::world::{Does, Stub, TICK, World, check, instance_of, refusing_port, source, watch};

#[tokio::test]
async fn tonic_server_registers_serves_and_deregisters() {
    let world = World::new().await;
    let (stop, serving) = world.serve(Stub::new("grpc-1", Does::Serve)).await;
    let mut client = world.client();
    for _ in 0..10 {
        assert_eq!(check(&mut client).await.unwrap(), "grpc-1");
    }

    let tag = |mut request: Request<()>| {
        request.metadata_mut().insert("caller", "test".parse().unwrap());
        Ok(request)
    };
    let mut intercepted = HealthClient::with_interceptor(world.eureka.channel("Inventory"), tag);
    intercepted.check(HealthCheckRequest::default()).await.unwrap();
    // The HTTP client works for generated clients as well, with the name as the origin.
    let tagged = InterceptedService::new(world.eureka.http_client(), tag);
    let mut over_http = HealthClient::with_origin(tagged, Uri::from_static("http://inventory"));
    over_http.check(HealthCheckRequest::default()).await.unwrap();

    drop(stop);
    serving.await.unwrap().unwrap();
    assert!(world.registry.instance("inventory", "grpc-1").is_none());
}

#[tokio::test]
async fn tonic_server_that_cannot_bind_is_not_registered() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = listener.local_addr().unwrap();
    let registrar = world.registrar("unbound", taken.port());
    let server =
        Server::builder().layer(registrar.layer()).add_service(HealthServer::new(Stub::new("unbound", Does::Serve)));
    let served = registrar.serve(pending(), |shutdown| server.serve_with_shutdown(taken, shutdown)).await;
    assert!(served.is_err());
    assert!(world.registry.applications().is_empty());
}

/// Tasks that make unary calls in a loop.
#[derive(Clone, Default)]
struct Callers {
    stop: Arc<AtomicBool>,
    succeeded: Arc<Mutex<BTreeMap<String, usize>>>,
    failed: Arc<Mutex<Vec<Status>>>,
}

impl Callers {
    fn start(client: &HealthClient<Channel>) -> (Self, Vec<JoinHandle<()>>) {
        let callers = Self::default();
        let tasks = (0..4).map(|_| tokio::spawn(callers.clone().call(client.clone()))).collect();
        (callers, tasks)
    }

    async fn call(self, mut client: HealthClient<Channel>) {
        while !self.stop.load(Ordering::Relaxed) {
            match check(&mut client).await {
                Ok(instance) => *self.succeeded.lock().unwrap().entry(instance).or_default() += 1,
                Err(status) => self.failed.lock().unwrap().push(status),
            }
        }
    }

    fn succeeded(&self) -> usize {
        self.succeeded.lock().unwrap().values().sum()
    }

    /// Waits until this number of further calls succeeded.
    async fn wait_for(&self, calls: usize) {
        let until = self.succeeded() + calls;
        while self.succeeded() < until && self.failed.lock().unwrap().len() < 100 {
            tokio::time::sleep(TICK).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_while_servers_die_drain_and_start_succeed() {
    let world = World::new().await;
    // On a runtime of its own, so that its connections close with it.
    let mortal = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let unlucky = world.clone();
    let registered = mortal.spawn(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        unlucky.register("killed", listener.local_addr().unwrap().port()).await;
        let server = Server::builder().add_service(HealthServer::new(Stub::new("killed", Does::Serve)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    });
    registered.await.unwrap();
    let (drained_stop, drained) = world.serve(Stub::new("drained", Does::Serve)).await;
    let (_steady_stop, _steady) = world.serve(Stub::new("steady", Does::Serve)).await;
    world.sees(3).await;

    // Health checks may be repeated, since a dying server may have received them.
    let retry = RetryPolicy::new().all_methods().grpc_codes([Code::Unavailable as i32]);
    let mut client = world.client_with(CallOptions::new().retry(retry));
    let mut streams = BTreeMap::new();
    while !(streams.contains_key("steady") && streams.contains_key("killed")) {
        let stream = client.watch(HealthCheckRequest::default()).await.unwrap();
        let instance = instance_of(&stream);
        if instance != "drained" {
            streams.insert(instance, stream.into_inner());
        }
    }
    let mut doomed = streams.remove("killed").unwrap();
    let mut undisturbed = streams.remove("steady").unwrap();
    let (over, mut is_over) = oneshot::channel::<()>();
    let listening = tokio::spawn(async move {
        let mut messages = 0;
        loop {
            tokio::select! {
                message = undisturbed.message() => messages += usize::from(message.unwrap().is_some()),
                _ = &mut is_over => return messages,
            }
        }
    });

    let (callers, tasks) = Callers::start(&client);
    callers.wait_for(1000).await;
    mortal.shutdown_background();
    let death = loop {
        if let Err(status) = doomed.message().await {
            break status;
        }
    };
    assert_eq!(death.code(), Code::Unavailable, "{death:?}");
    callers.wait_for(1000).await;
    drop(drained_stop);
    drained.await.unwrap().unwrap();
    callers.wait_for(1000).await;
    let added = Stub::new("added", Does::Serve);
    let (_added_stop, _added) = world.serve(added.clone()).await;
    while added.called() < 100 {
        callers.wait_for(10).await;
    }
    callers.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    drop(over);
    assert!(listening.await.unwrap() > 0);
    let failed = callers.failed.lock().unwrap();
    assert!(failed.is_empty(), "{} failed, the first one with {:?}", failed.len(), failed[0]);
    let succeeded = callers.succeeded.lock().unwrap();
    assert!(["killed", "drained", "steady", "added"].iter().all(|id| succeeded[*id] > 0), "{succeeded:?}");
}

#[tokio::test]
async fn call_without_an_instance_is_unavailable_with_the_reason() {
    let world = World::with_ready_timeout(Duration::from_millis(100)).await;
    let mut client = world.client();
    for _ in 0..2 {
        let status = check(&mut client).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("INVENTORY"), "{status}");
        assert!(source(&status).is_no_endpoints());
    }
    assert_eq!(watch(&mut client).await.unwrap_err().code(), Code::Unavailable);

    // Other calls fail fast by now. Calls that wait for ready still wait.
    let mut waiting = Request::new(HealthCheckRequest::default());
    waiting.extensions_mut().insert(WaitForReady(Duration::from_secs(60)));
    let mut always = world.client_with(CallOptions::new().wait_for_ready(Duration::from_secs(60)));
    let served = Stub::new("late", Does::Serve);
    let (one, other, _serving) = tokio::join!(client.check(waiting), check(&mut always), world.serve(served));
    assert_eq!(instance_of(&one.unwrap()), "late");
    assert_eq!(other.unwrap(), "late");
}

#[tokio::test]
async fn call_to_an_unreachable_instance_is_unavailable_with_the_address() {
    let world = World::new().await;
    let port = refusing_port().await;
    world.register("dead", port).await;
    let status = check(&mut world.client()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&port.to_string()), "{status}");
    assert!(source(&status).is_connect() && source(&status).instance_id() == Some("dead"));
}

#[tokio::test]
async fn call_of_an_invalid_name_is_an_invalid_argument() {
    let world = World::new().await;
    let mut client = HealthClient::new(world.eureka.channel("http://inventory"));
    for _ in 0..2 {
        let status = check(&mut client).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(source(&status).is_config(), "{status}");
    }
}

#[tokio::test]
async fn deadline_covers_waiting_response_and_stream() {
    let world = World::new().await;
    let within = |limit: Duration| {
        let mut request = Request::new(HealthCheckRequest::default());
        request.set_timeout(limit);
        request
    };
    let mut client = world.client();
    let status = client.check(within(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("no instance came before the deadline"), "{status}");

    let hanging = Stub::new("hanging", Does::Hang);
    let (_stop, _serving) = world.serve(hanging.clone()).await;
    world.sees(1).await;
    // Long enough to reach the instance on a busy machine.
    let limit = Duration::from_secs(1);
    let status = client.check(within(limit)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(source(&status).is_timeout() && source(&status).instance_id() == Some("hanging"));

    let mut stream = client.watch(within(limit)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(stream.message().await.unwrap_err().code(), Code::DeadlineExceeded);

    let mut by_default = world.client_with(CallOptions::new().timeout(limit));
    assert_eq!(check(&mut by_default).await.unwrap_err().code(), Code::DeadlineExceeded);

    let timeouts = hanging.timeouts.lock().unwrap();
    let millis = |text: &String| text.strip_suffix('m').and_then(|digits| digits.parse().ok());
    assert!(
        timeouts.len() == 3 && timeouts.iter().all(|text| millis(text).is_some_and(|left: u32| left <= 1000)),
        "{timeouts:?}"
    );
}

#[tokio::test]
async fn port_is_read_from_the_metadata() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = Server::builder().add_service(HealthServer::new(Stub::new("a", Does::Serve)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    for (app, key) in [("usual", "gRPC_port"), ("own", "grpc.port")] {
        let instance = Instance::builder(app).id(app).ip_addr("127.0.0.1").port(refusing_port().await);
        let instance = instance.metadata(key, port.as_str()).build().unwrap();
        world.eureka.transport().register(&instance).await.unwrap();
    }
    assert_eq!(check(&mut HealthClient::new(world.eureka.channel("usual"))).await.unwrap(), "a");
    let own = world.eureka.channel_with("own", CallOptions::new().port_key("grpc.port"));
    assert_eq!(check(&mut HealthClient::new(own)).await.unwrap(), "a");
    let other = check(&mut HealthClient::new(world.eureka.channel("own"))).await;
    assert_eq!(other.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn unavailable_is_retried_only_if_the_policy_allows_it() {
    let world = World::new().await;
    let bad = Stub::new("bad", Does::Fail);
    let _bad = world.serve(bad.clone()).await;
    let _good = world.serve(Stub::new("good", Does::End)).await;
    world.sees(2).await;
    let mut client = world.client();
    let status = loop {
        if let Err(status) = check(&mut client).await {
            break status;
        }
    };
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "scripted failure"));

    let called = bad.called();
    let retry = RetryPolicy::new().grpc_codes([Code::Unavailable as i32]).all_methods();
    let options = CallOptions::new().retry(retry);
    let mut client = world.client_with(options.clone());
    while bad.called() == called {
        assert_eq!(check(&mut client).await.unwrap(), "good");
    }
    // A response that has started is returned, whatever its trailers say.
    let mut client = world.client_with(options);
    let status = loop {
        if let Err(status) = watch(&mut client).await {
            break status;
        }
    };
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "scripted failure"));
}

#[tokio::test]
async fn server_that_fails_in_trailers_is_ejected() {
    let world = World::new().await;
    let bad = Stub::new("bad", Does::Fail);
    let _bad = world.serve(bad.clone()).await;
    let _good = [world.serve(Stub::new("a", Does::End)).await, world.serve(Stub::new("b", Does::End)).await];
    world.sees(3).await;
    // The policy does not avoid failing instances, so only the ejection keeps calls away.
    let mut client = world.client_with(CallOptions::new().policy(LeastRequests));
    let mut failed = 0;
    for _ in 0..300 {
        match watch(&mut client).await {
            Ok(messages) => assert_eq!(messages, 1),
            Err(status) => {
                assert_eq!((status.code(), status.message()), (Code::Unavailable, "scripted failure"));
                failed += 1;
            }
        }
    }
    assert_eq!(failed, bad.called());
    assert!((1..=10).contains(&failed), "{failed} of 300 calls failed, where 5 eject");
}
