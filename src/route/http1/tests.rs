use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::uri::Scheme;
use http_body_util::{BodyExt, Empty, Full};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use super::super::attempts::Attempts;
use super::*;
use crate::tls::Tls;

type Connections = Http1<Empty<Bytes>>;

fn connections(to: SocketAddr) -> Connections {
    let authority = to.to_string().parse().unwrap();
    Http1::new(Connector::new(Duration::from_secs(5), &Tls::default()), Address { scheme: Scheme::HTTP, authority })
}

/// To nowhere: whatever connection there is comes from the test.
fn by_hand() -> Connections {
    connections(SocketAddr::from(([127, 0, 0, 1], 1)))
}

fn request() -> Request<AttemptBody<Empty<Bytes>>> {
    Attempts::new(Request::get("http://orders/").body(Empty::new()).unwrap(), 0).into_request()
}

async fn text(response: Result<Response<Incoming>, Failure>) -> Bytes {
    let Ok(response) = response else { panic!("no answer") };
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Answers with what the connection was told to say.
async fn serve(stream: TcpStream, text: impl Into<Bytes>) {
    let text = text.into();
    let service = service_fn(move |_| {
        let text = text.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(text))) }
    });
    let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A server that names each connection by its number.
async fn numbering() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, number.to_string()));
        }
    });
    address
}

/// A connection that stays as long as its other end.
async fn a_connection() -> (Sender<Empty<Bytes>>, DuplexStream) {
    let (here, there) = tokio::io::duplex(1024);
    let (mut sender, connection) = http1::handshake(TokioIo::new(here)).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap();
    (sender, there)
}

/// One that is being made.
fn attempt(connections: &Connections) -> Attempt<Empty<Bytes>> {
    connections.0.state().connecting += 1;
    Attempt { of: Arc::downgrade(&connections.0), failure: None }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.expect("it comes about");
}

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection() {
    let connections = connections(numbering().await);
    for _ in 0..10 {
        assert_eq!(text(connections.clone().send(request()).await).await, "1");
        until(|| !connections.0.state().idle.is_empty()).await;
    }
}

#[tokio::test]
async fn calls_at_one_time_have_one_each_and_the_one_used_last_is_used_next() {
    let connections = connections(numbering().await);
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
async fn a_connection_that_was_closed_while_idle_costs_no_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    for number in ["1", "2", "3"] {
        let call = tokio::spawn(connections.clone().send(request()));
        let (stream, _) = listener.accept().await.unwrap();
        let serving = tokio::spawn(serve(stream, number));
        assert_eq!(text(call.await.unwrap()).await, number);
        until(|| !connections.0.state().idle.is_empty()).await;
        serving.abort();
        until(|| connections.0.state().idle[0].sender.is_closed()).await;
    }
    assert_eq!(connections.0.state().idle.len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_left_half_read_ends_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(listener.local_addr().unwrap());
    for _ in 0..2 {
        let call = tokio::spawn(connections.clone().send(request()));
        let (stream, _) = listener.accept().await.unwrap();
        let serving = tokio::spawn(serve(stream, vec![b'x'; 10_000_000]));
        let Ok(response) = call.await.unwrap() else { panic!("no answer") };
        drop(response);
        serving.await.unwrap();
        assert!(connections.0.state().idle.is_empty());
    }
}

#[tokio::test]
async fn the_last_clone_closes_what_is_idle() {
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
async fn all_who_wait_for_a_connection_hear_that_there_is_none() {
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
    assert_eq!(connections.0.state().connecting, 0);
}

#[tokio::test]
async fn who_waits_is_given_what_is_needed_no_more_and_the_new_one_stays() {
    let connections = by_hand();
    let attempt = attempt(&connections);
    let waiting = tokio::spawn({
        let connections = connections.clone();
        async move { connections.connection().await }
    });
    until(|| connections.0.state().waiting.len() == 1).await;
    let (sender, _other_end) = a_connection().await;
    connections.0.give(Connection { sender, is_new: false });
    assert!(waiting.await.unwrap().is_ok_and(|connection| !connection.is_new));
    let (sender, _other_end_too) = a_connection().await;
    connections.0.give(Connection { sender, is_new: true });
    drop(attempt);
    assert!(connections.connection().await.is_ok_and(|connection| !connection.is_new), "it was idle meanwhile");
}

#[tokio::test]
async fn who_gives_up_leaves_the_connection_to_the_next() {
    let connections = by_hand();
    let attempts = (attempt(&connections), attempt(&connections));
    let (mut first, mut second) = (Box::pin(connections.connection()), Box::pin(connections.connection()));
    for waiting in [&mut first, &mut second] {
        assert!(timeout(Duration::ZERO, waiting).await.is_err(), "there is none yet");
    }
    drop(first);
    let (sender, _other_end) = a_connection().await;
    connections.0.give(Connection { sender, is_new: true });
    drop(attempts);
    assert!(second.await.is_ok_and(|connection| connection.is_new));
}

#[tokio::test]
async fn as_many_are_told_of_a_failure_as_have_no_other_attempt() {
    let connections = by_hand();
    let (mut failing, ending) = (attempt(&connections), attempt(&connections));
    let (mut first, mut second) = (Box::pin(connections.connection()), Box::pin(connections.connection()));
    for waiting in [&mut first, &mut second] {
        assert!(timeout(Duration::ZERO, waiting).await.is_err(), "there is none yet");
    }
    failing.failure = Some("refused".into());
    drop(failing);
    assert_eq!(first.await.map(|_| ()).unwrap_err().to_string(), "refused");
    assert!(timeout(Duration::ZERO, &mut second).await.is_err(), "it has an attempt yet");
    drop(ending);
    assert!(second.await.is_err());
}

#[tokio::test]
async fn calls_that_give_up_do_not_have_ever_more_connections_made() {
    let connections = by_hand();
    let _never_ending = attempt(&connections);
    for _ in 0..100 {
        assert!(timeout(Duration::ZERO, connections.connection()).await.is_err());
    }
    assert_eq!(connections.0.state().connecting, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_for_too_long_is_closed() {
    let connections = by_hand();
    let (sender, mut other_end) = a_connection().await;
    connections.0.give(Connection { sender, is_new: false });
    sleep(SWEEP + Duration::from_secs(1)).await;
    assert_eq!(connections.0.state().idle.len(), 1, "idle for one sweep");
    sleep(SWEEP).await;
    assert!(connections.0.state().idle.is_empty());
    assert_eq!(tokio::io::AsyncReadExt::read(&mut other_end, &mut [0]).await.unwrap(), 0);
    until(|| connections.0.state().sweeper.is_none()).await;
    // One that is used between sweeps stays.
    let (mut sender, _other_end) = a_connection().await;
    for _ in 0..5 {
        connections.0.give(Connection { sender, is_new: false });
        sleep(SWEEP + Duration::from_secs(1)).await;
        sender = connections.connection().await.map_err(drop).unwrap().sender;
    }
}

#[tokio::test]
async fn a_request_is_written_for_its_version() {
    let address = by_hand().0.address.clone();
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
