use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http::uri::Scheme;
use http_body_util::{BodyExt, Empty, Full};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use super::*;
use crate::client::replay::ReplayRequest;
use crate::connect::TlsSettings;

type Connections = Http1<Empty<Bytes>>;

fn connections(to: SocketAddr) -> Connections {
    with_limits(to, Limits::default())
}

fn with_limits(to: SocketAddr, limits: Limits) -> Connections {
    let authority = to.to_string().parse().unwrap();
    let connector = Connector::new(Duration::from_secs(5), &TlsSettings::default());
    Http1::new(connector, Presence::at(Address { scheme: Scheme::HTTP, authority }), limits)
}

/// Pool of an unreachable address: tests put all of its connections.
fn unreachable() -> Connections {
    connections(SocketAddr::from(([127, 0, 0, 1], 1)))
}

fn request() -> Request<AttemptBody<Empty<Bytes>>> {
    ReplayRequest::new(Request::get("http://orders/").body(Empty::new()).unwrap(), 0).into_request()
}

async fn text(response: Result<Response<InstanceBody>, Failure>) -> Bytes {
    let Ok(response) = response else { panic!("no response") };
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Serves a connection and responds with this text.
async fn serve(stream: TcpStream, text: impl Into<Bytes>) {
    let text = text.into();
    serve_when(stream, text, watch::channel(0).1, 0).await;
}

/// Serves a connection once at least `enough` connections were accepted.
async fn serve_when(stream: TcpStream, text: Bytes, connections: watch::Receiver<usize>, enough: usize) {
    let service = service_fn(move |_| {
        let (text, mut connections) = (text.clone(), connections.clone());
        async move {
            let _ = connections.wait_for(|count| *count >= enough).await;
            Ok::<_, Infallible>(Response::new(Full::new(text)))
        }
    });
    let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Starts a server that responds with the number of the connection, once there are enough.
async fn numbering(enough: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, connections) = watch::channel(0);
    tokio::spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            count.send_replace(number);
            tokio::spawn(serve_when(stream, number.to_string().into(), connections.clone(), enough));
        }
    });
    address
}

/// Returns a connection that stays open while its other end exists.
async fn a_connection() -> (Sender<Empty<Bytes>>, DuplexStream) {
    let (here, there) = tokio::io::duplex(1024);
    let (mut requests, connection) = http1::handshake(TokioIo::new(here)).await.unwrap();
    tokio::spawn(connection);
    requests.ready().await.unwrap();
    (Sender { requests, link: Arc::default() }, there)
}

/// Polls once. Returns `true` if the future is pending.
async fn is_pending<T>(call: Pin<&mut impl Future<Output = T>>) -> bool {
    let mut call = call;
    poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.expect("condition holds within 10 s");
}

#[tokio::test]
async fn sequential_calls_share_a_connection() {
    let connections = connections(numbering(1).await);
    for _ in 0..10 {
        assert_eq!(text(connections.clone().send(request()).await).await, "1");
        until(|| !connections.0.state().idle.is_empty()).await;
    }
}

#[tokio::test]
async fn concurrent_calls_use_one_connection_each_and_the_next_the_most_recent() {
    let connections = connections(numbering(5).await);
    let mut tasks = JoinSet::new();
    for _ in 0..5 {
        tasks.spawn(connections.clone().send(request()));
    }
    for response in tasks.join_all().await {
        text(response).await;
    }
    until(|| connections.0.state().idle.len() == 5).await;
    let used = text(connections.clone().send(request()).await).await;
    until(|| connections.0.state().idle.len() == 5).await;
    assert_eq!(text(connections.clone().send(request()).await).await, used);
}

#[tokio::test]
async fn request_for_a_new_connection_reuses_none_below_the_limit() {
    for (limit, expected) in [(None, "2"), (Some(2), "2"), (Some(1), "1")] {
        let connections = with_limits(numbering(1).await, Limits { http1: limit, ..Limits::default() });
        assert_eq!(text(connections.clone().send(request()).await).await, "1");
        until(|| !connections.0.state().idle.is_empty()).await;
        let mut second = request();
        second.extensions_mut().insert(NewConnection);
        assert_eq!(text(connections.clone().send(second).await).await, expected, "{limit:?}");
    }
}

#[tokio::test]
async fn call_after_an_idle_connection_closed_succeeds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    for number in ["1", "2", "3"] {
        let call = tokio::spawn(connections.clone().send(request()));
        let (stream, _) = listener.accept().await.unwrap();
        let serving = tokio::spawn(serve(stream, number));
        assert_eq!(text(call.await.unwrap()).await, number);
        until(|| !connections.0.state().idle.is_empty()).await;
        serving.abort();
        until(|| connections.0.state().idle[0].sender.requests.is_closed()).await;
    }
    assert_eq!(connections.0.state().idle.len(), 1);
}

#[tokio::test]
async fn response_that_is_partly_read_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    for _ in 0..2 {
        let call = tokio::spawn(connections.clone().send(request()));
        let (stream, _) = listener.accept().await.unwrap();
        let serving = tokio::spawn(serve(stream, vec![b'x'; 10_000_000]));
        let Ok(response) = call.await.unwrap() else { panic!("no response") };
        drop(response);
        serving.await.unwrap();
        assert!(connections.0.state().idle.is_empty());
    }
}

#[tokio::test]
async fn drop_of_the_last_clone_closes_idle_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    let call = tokio::spawn(connections.clone().send(request()));
    let (stream, _) = listener.accept().await.unwrap();
    let serving = tokio::spawn(serve(stream, "hello"));
    assert_eq!(text(call.await.unwrap()).await, "hello");
    drop(connections);
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_to_a_refusing_server_fail_as_unsent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    drop(listener);
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let connections = connections.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                assert!(matches!(connections.clone().send(request()).await, Err(Failure::Unsent(_))));
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_to_a_server_without_keep_alive_succeed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
            tokio::spawn(server::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service));
        }
    });
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let connections = connections.clone();
        tasks.spawn(async move {
            for _ in 0..50 {
                text(connections.clone().send(request()).await).await;
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn connection_of_a_dropped_call_serves_the_next() {
    let connections = connections(numbering(1).await);
    assert!(is_pending(pin!(connections.clone().send(request()))).await);
    until(|| !connections.0.state().idle.is_empty()).await;
    assert_eq!(text(connections.clone().send(request()).await).await, "1");
    assert!(is_finished(connections.0.state().background_connect.as_ref()));
}

#[test]
fn call_in_a_stalled_runtime_delays_none_in_another() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (still, running) = (runtime(), runtime());
    let connections = connections(running.block_on(numbering(1)));
    let mut call = Box::pin(connections.clone().send(request()));
    assert!(still.block_on(is_pending(call.as_mut())));
    running.block_on(async { text(connections.clone().send(request()).await).await });
}

#[tokio::test(start_paused = true)]
async fn idle_connection_is_closed_after_the_idle_timeout() {
    let connections = unreachable();
    let interval = Limits::default().check_interval();
    let (sender, mut other_end) = a_connection().await;
    connections.0.put(sender);
    sleep(2 * interval + Duration::from_secs(1)).await;
    assert_eq!(connections.0.state().idle.len(), 1, "idle for less than the timeout");
    sleep(interval).await;
    assert!(connections.0.state().idle.is_empty());
    assert_eq!(tokio::io::AsyncReadExt::read(&mut other_end, &mut [0]).await.unwrap(), 0);
    until(|| connections.0.state().sweeper.is_none()).await;
    // A connection used between checks stays open.
    let (mut sender, _other_end) = a_connection().await;
    for _ in 0..5 {
        connections.0.put(sender);
        sleep(interval + Duration::from_secs(1)).await;
        sender = connections.connection().await.map_err(drop).unwrap().sender;
    }
}

#[tokio::test(start_paused = true)]
async fn connection_is_replaced_at_its_maximum_age() {
    let limits = Limits { max_age: Some(Duration::from_secs(60)), ..Limits::default() };
    let connections = with_limits(numbering(1).await, limits);
    let mut numbers = Vec::new();
    for _ in 0..5 {
        numbers.push(text(connections.clone().send(request()).await).await);
        // The connection returns to the pool once its response was read.
        until(|| !connections.0.state().idle.is_empty()).await;
        sleep(Duration::from_secs(25)).await;
    }
    assert_eq!(numbers.first().unwrap(), "1");
    // Checked every 20 seconds, at an age of 54 to 66 seconds.
    assert_eq!(numbers.last().unwrap(), "2", "{numbers:?}");
}

#[tokio::test(start_paused = true)]
async fn call_beyond_the_maximum_number_of_connections_waits_for_one() {
    let limits = Limits { http1: Some(2), ..Limits::default() };
    // No response is sent before two connections were accepted.
    let connections = with_limits(numbering(2).await, limits);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let connections = connections.clone();
        calls.spawn(async move { text(connections.send(request()).await).await });
    }
    let mut numbers = calls.join_all().await;
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn call_without_a_free_connection_is_unprocessed_after_the_connect_timeout() {
    let connections = with_limits(numbering(2).await, Limits { http1: Some(1), ..Limits::default() });
    let mut first = Box::pin(connections.clone().send(request()));
    assert!(is_pending(first.as_mut()).await);
    let start = tokio::time::Instant::now();
    let Err(failure) = connections.clone().send(request()).await else { panic!("a response") };
    assert_eq!(start.elapsed().as_secs(), 5);
    let error = failure.into_error();
    assert!(error.is_unprocessed() && crate::client::failure::is_busy(&error), "{error}");
    // A dropped call frees its place.
    drop(first);
    assert!(connections.0.places.as_ref().unwrap().clone().acquire_owned().await.is_ok());
}

/// Tests at a server that never completes the TLS handshake.
#[cfg(feature = "tls")]
mod while_connecting {
    use super::*;

    async fn silent() -> (TcpListener, Connections) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        let connector = Connector::new(Duration::from_secs(5), &TlsSettings::default());
        let presence = Presence::at(Address { scheme: Scheme::HTTPS, authority });
        (listener, Http1::new(connector, presence, Limits::default()))
    }

    #[tokio::test]
    async fn connecting_call_takes_a_connection_that_becomes_idle() {
        let (_listener, connections) = silent().await;
        let mut call = Box::pin(connections.connection());
        assert!(is_pending(call.as_mut()).await);
        let (sender, _other_end) = a_connection().await;
        connections.0.put(sender);
        assert!(call.await.is_ok_and(|connection| !connection.is_new));
        assert!(
            !is_finished(connections.0.state().background_connect.as_ref()),
            "its own connect continues in the background"
        );
    }

    #[tokio::test]
    async fn connection_sent_to_a_dropped_waiter_returns_to_the_pool() {
        let (_listener, connections) = silent().await;
        let mut call = Box::pin(connections.connection());
        assert!(is_pending(call.as_mut()).await);
        let (sender, _other_end) = a_connection().await;
        connections.0.put(sender);
        assert!(connections.0.state().idle.is_empty());
        drop(call);
        assert_eq!(connections.0.state().idle.len(), 1);
    }

    #[tokio::test]
    async fn dropped_calls_leave_one_background_connect_and_no_waiter() {
        let (_listener, connections) = silent().await;
        let mut waiting = Box::pin(connections.connection());
        assert!(is_pending(waiting.as_mut()).await);
        for _ in 0..100 {
            assert!(is_pending(pin!(connections.connection())).await);
            assert!(connections.0.state().waiters.len() <= 2);
        }
        let (sender, _other_end) = a_connection().await;
        connections.0.put(sender);
        assert!(waiting.await.is_ok(), "waiters are served in order");
    }

    #[tokio::test]
    async fn connect_that_hangs_delays_only_its_own_call() {
        let (listener, connections) = silent().await;
        let mut stuck = Box::pin(connections.connection());
        assert!(is_pending(stuck.as_mut()).await);
        let _first = listener.accept().await.unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        assert!(connections.connection().await.is_err());
        assert!(is_pending(stuck.as_mut()).await);
    }
}

#[tokio::test]
async fn request_is_rewritten_for_its_version() {
    let address = unreachable().0.presence.address.clone();
    for (method, uri, version, target, written) in [
        (Method::GET, "http://orders/a?b", Version::HTTP_11, "/a?b", Version::HTTP_11),
        (Method::GET, "http://orders", Version::HTTP_10, "/", Version::HTTP_10),
        (Method::GET, "http://orders/a", Version::HTTP_3, "/a", Version::HTTP_11),
        (Method::CONNECT, "http://orders/a", Version::HTTP_11, "127.0.0.1:1", Version::HTTP_11),
    ] {
        let mut request = Request::builder().method(method).uri(uri).version(version).body(()).unwrap();
        write_for_http1(&mut request, &address);
        assert_eq!((request.uri().to_string().as_str(), request.version()), (target, written));
    }
}

/// hyper keeps a request queued while the connection ends until its sender is dropped.
#[tokio::test]
async fn sender_of_an_ended_connection_is_dropped_while_its_request_is_pending() {
    let (stream, other) = tokio::io::duplex(1);
    let (requests, connection) = http1::handshake::<_, AttemptBody<Empty<Bytes>>>(TokioIo::new(stream)).await.unwrap();
    let link = Arc::new(Link::default());
    let (mut requests, mut other) = (Some(requests), Some(other));
    let mut polls = 0;
    // Only the end of the connection wakes it.
    let sending = poll_fn(|_| {
        polls += 1;
        other = None;
        if polls < 3 { Poll::Pending } else { Poll::Ready("unsent") }
    });
    let driver = tokio::spawn(drive(WakeOnEnd(Arc::downgrade(&link)), connection));
    assert_eq!(SendFuture { sending: pin!(sending), requests: &mut requests, link: &link }.await, "unsent");
    assert!(requests.is_none());
    driver.await.unwrap();
}
