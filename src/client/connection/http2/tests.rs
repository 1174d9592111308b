use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::uri::Scheme;
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;
use crate::client::address::Address;
use crate::client::replay::ReplayRequest;
use crate::connect::TlsSettings;

type Connections = Http2<Empty<Bytes>>;

fn connections(to: SocketAddr) -> Connections {
    let authority = to.to_string().parse().unwrap();
    let connector = Connector::new(Duration::from_secs(5), &TlsSettings::default());
    Http2::new(connector, Presence::at(Address { scheme: Scheme::HTTP, authority }), 4, Limits::default())
}

fn request() -> Request<AttemptBody<Empty<Bytes>>> {
    ReplayRequest::new(Request::get("http://orders/").body(Empty::new()).unwrap(), 0).into_request()
}

async fn send(connections: &Connections) -> Result<(), Failure> {
    let response = connections.clone().send(request()).await.map_err(|error| error.failure)?;
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    Ok(())
}

/// Makes 20 sequential calls in each of 20 tasks. Returns the number of responses and of unsent
/// calls.
async fn many_calls(connections: &Connections) -> (usize, usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let connections = connections.clone();
        tasks.spawn(async move {
            let mut counts = (0, 0);
            for _ in 0..20 {
                match send(&connections).await {
                    Ok(()) => counts.0 += 1,
                    Err(Failure::Unsent(_)) => counts.1 += 1,
                    Err(_) => {}
                }
            }
            counts
        });
    }
    tasks.join_all().await.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
}

/// Serves the first connection until it ends.
async fn serve_one(listener: TcpListener) {
    let (stream, _) = listener.accept().await.unwrap();
    let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_to_a_refusing_server_fail_as_unsent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(many_calls(&connections(address)).await, (0, 400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_a_server_that_accepts_and_closes_fail_as_unsent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    assert_eq!(many_calls(&connections).await, (0, 400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_all_calls_and_closes_with_the_last_clone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    let server = tokio::spawn(serve_one(listener));
    assert_eq!(many_calls(&connections).await, (400, 0));
    drop(connections);
    server.await.unwrap();
}

#[tokio::test]
async fn connect_of_a_dropped_call_serves_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    let first = tokio::spawn(connections.clone().send(request()));
    let second = tokio::spawn(connections.clone().send(request()));
    tokio::task::yield_now().await;
    first.abort();
    let (stream, _) = listener.accept().await.unwrap();
    let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let response = tokio::select! {
        response = second => response.unwrap(),
        _ = serving => panic!("the connection ended"),
    };
    let Ok(response) = response else { panic!("no response") };
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

/// Server with a stream limit per connection. Each response waits for a permit of `responses`.
struct Limited {
    connections: Connections,
    /// Number of accepted connections.
    accepted: Arc<AtomicUsize>,
    /// Number of open connections.
    open: Arc<AtomicUsize>,
    /// Number of requests received.
    requests: Arc<AtomicUsize>,
    responses: Arc<Semaphore>,
}

impl Limited {
    async fn new(streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = connections(listener.local_addr().unwrap());
        let [accepted, open, requests]: [Arc<AtomicUsize>; 3] = Default::default();
        let responses = Arc::new(Semaphore::new(0));
        let this = Self {
            connections,
            accepted: accepted.clone(),
            open: open.clone(),
            requests: requests.clone(),
            responses: responses.clone(),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (requests, responses, open) = (requests.clone(), responses.clone(), open.clone());
                let service = service_fn(move |_| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let responses = responses.clone();
                    async move {
                        responses.acquire_owned().await.unwrap().forget();
                        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                    }
                });
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let serving = builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _ = serving.await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        this
    }

    fn calls(&self, count: usize) -> JoinSet<bool> {
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let connections = self.connections.clone();
            calls.spawn(async move { send(&connections).await.is_ok() });
        }
        calls
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_beyond_the_stream_limit_use_further_connections_up_to_the_maximum() {
    let server = Limited::new(2).await;
    let calls = server.calls(20);
    until(|| server.requests.load(Ordering::SeqCst) == 8).await;
    assert_eq!(server.accepted.load(Ordering::SeqCst), 4);
    server.responses.add_permits(20);
    assert_eq!(calls.join_all().await, [true; 20]);
    assert_eq!(server.accepted.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn waiting_call_is_not_starved_by_calls_that_find_a_stream() {
    let server = Limited::new(1).await;
    server.responses.add_permits(100_000);
    let counts: Arc<[AtomicUsize; 32]> = Arc::default();
    let mut tasks = JoinSet::new();
    for task in 0..32 {
        let (connections, counts) = (server.connections.clone(), counts.clone());
        tasks.spawn(async move {
            while counts.iter().any(|count| count.load(Ordering::SeqCst) < 20) {
                assert!(counts[task].load(Ordering::SeqCst) < 200, "{counts:?}");
                if let Err(failure) = send(&connections).await {
                    panic!("{}", failure.into_error());
                }
                counts[task].fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn call_without_a_free_stream_is_unprocessed_after_the_connect_timeout() {
    let server = Limited::new(1).await;
    let _busy = server.calls(4);
    until(|| server.requests.load(Ordering::SeqCst) == 4).await;
    let start = Instant::now();
    let failure = send(&server.connections).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 5);
    let error = failure.into_error();
    assert!(error.is_unprocessed() && crate::client::failure::is_busy(&error), "{error}");
    assert!(error.to_string().contains("all streams of its connections were in use for 5s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn idle_further_connections_are_closed() {
    let server = Limited::new(1).await;
    let calls = server.calls(4);
    until(|| server.requests.load(Ordering::SeqCst) == 4).await;
    server.responses.add_permits(5);
    calls.join_all().await;
    until(|| server.open.load(Ordering::SeqCst) == 4).await;
    sleep(Limits::default().idle + Duration::from_secs(45)).await;
    until(|| server.open.load(Ordering::SeqCst) == 1).await;
    assert!(send(&server.connections).await.is_ok());
    assert_eq!(server.accepted.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn connect_to_a_server_without_settings_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    let failure = send(&connections).await.unwrap_err();
    assert!(matches!(&failure, Failure::Unsent(_)));
    assert!(failure.into_error().to_string().contains("no HTTP/2 SETTINGS within 5s"));
    assert!(connections.probe().await.is_err());
}

#[tokio::test]
async fn connect_to_a_server_of_another_protocol_fails_as_not_http2() {
    for response in ["", "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = connections(listener.local_addr().unwrap());
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(response.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let error = connections.clone().send(request()).await.unwrap_err();
        assert!(error.request.is_some(), "{response}");
        let Failure::Unsent(error) = error.failure else { panic!("{response}") };
        assert!(ConnectError::is_not_http2(&*error), "{response}: {error}");
    }
}

/// Without the removal, a request that hyper keeps while the connection ends would wait for the
/// next call.
#[tokio::test]
async fn ended_connection_is_removed_without_another_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    let server = tokio::spawn(serve_one(listener));
    assert!(send(&connections).await.is_ok());
    assert_eq!(connections.0.pool().connections.len(), 1);
    server.abort();
    until(|| connections.0.pool().connections.is_empty()).await;
}
