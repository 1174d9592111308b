//! The one HTTP/2 connection to an instance: made when it is first needed, and anew when it has come to its end.
//!
//! ```text
//! a call ─▶ the connection there is ─────────────────────────▶ hyper
//!       └─▶ none, or it is at its end: the attempt under way, or else a new one, in a task of its own, which all wait for
//! ```
//!
//! hyper-util's client finds a connection by host, in a pool under a lock, twice for each call. An instance is one host. Its
//! `pool::singleton` (0.1.21) loses waiters: one that is dropped after its attempt failed takes another's place in the next one.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::watch;
use tower::{BoxError, ServiceExt};
use tracing::debug;

use super::address::Address;
use super::attempts::AttemptBody;
use super::failure::Failure;
use crate::transport::Connector;

/// How often a connection on which calls wait is asked for a sign of life. Not more often, since stock gRPC servers close on who
/// asks more than once in five minutes; a peer that vanished is noticed by the system before (see [`Connector`]).
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(330);
/// How long the answer may take.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Over how many connections a request is tried to be sent that were at their end before they took it.
const CONNECTIONS: usize = 3;

/// Clones share the connection.
pub(super) struct Http2<B>(Arc<Shared<B>>);

struct Shared<B> {
    connector: Connector,
    address: Address,
    latest: Mutex<Latest<B>>,
}

struct Latest<B> {
    /// The connection, once a call has seen it come about.
    connection: Option<Sender<B>>,
    /// How it comes about.
    attempt: Option<Attempt<B>>,
}

type Sender<B> = http2::SendRequest<AttemptBody<B>>;

/// `None` while it is under way.
type Attempt<B> = watch::Receiver<Option<Result<Sender<B>, Unconnected>>>;

/// Why there is no connection, for all that waited for it.
#[derive(Clone, Debug)]
struct Unconnected(Arc<dyn StdError + Send + Sync>);

impl<B> Http2<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// To this address, as soon as there is a request for it.
    pub(super) fn new(connector: Connector, address: Address) -> Self {
        let latest = Mutex::new(Latest { connection: None, attempt: None });
        Self(Arc::new(Shared { connector, address, latest }))
    }

    /// Sends a request.
    ///
    /// # Cancel safety
    /// Who gives up while the connection is made leaves it to the others, and to the next call.
    pub(super) async fn send(self, mut request: Request<AttemptBody<B>>) -> Result<Response<Incoming>, Failure> {
        let mut connections = 0;
        loop {
            let mut sender = match self.there_is() {
                Some(sender) => sender,
                None => self.connected().await.map_err(|why| Failure::Unsent(why.into()))?,
            };
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            // It comes back if the connection was at its end before it took it.
            let Some(unsent) = failed.take_message() else { return Err(failed.into_error().into()) };
            request = unsent;
            connections += 1;
            if connections == CONNECTIONS {
                return Err(Failure::Unsent(failed.into_error().into()));
            }
        }
    }

    fn there_is(&self) -> Option<Sender<B>> {
        self.latest().connection.clone().filter(|sender| !sender.is_closed())
    }

    /// Waits until there is a connection.
    async fn connected(&self) -> Result<Sender<B>, Unconnected> {
        let mut attempt = self.attempt();
        let made = match attempt.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("it was waited for"),
            Err(_) => Err(Unconnected(Arc::from(BoxError::from("the runtime in which it was connected ends")))),
        };
        if let Ok(sender) = &made {
            let mut latest = self.latest();
            if latest.attempt.as_ref().is_some_and(|newest| newest.same_channel(&attempt)) {
                latest.connection = Some(sender.clone());
            }
        }
        made
    }

    /// The attempt to connect that is under way or has led to a connection, or else a new one.
    fn attempt(&self) -> Attempt<B> {
        let mut latest = self.latest();
        if let Some(attempt) = &latest.attempt {
            let is_of_use = match &*attempt.borrow() {
                // Its task may be gone with its runtime.
                None => attempt.has_changed().is_ok(),
                Some(Ok(sender)) => !sender.is_closed(),
                Some(Err(_)) => false,
            };
            if is_of_use {
                return attempt.clone();
            }
        }
        let (result, attempt) = watch::channel(None);
        let connecting = connect(self.0.connector.clone(), self.0.address.uri_of(None));
        tokio::spawn(async move {
            tokio::select! {
                made = connecting => drop(result.send(Some(made.map_err(|error| Unconnected(Arc::from(error)))))),
                // The instance is gone, and with it all who wait.
                () = result.closed() => {}
            }
        });
        *latest = Latest { connection: None, attempt: Some(attempt.clone()) };
        attempt
    }

    fn latest(&self) -> MutexGuard<'_, Latest<B>> {
        self.0.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a connection and lets it run until nobody uses it any more.
async fn connect<B>(connector: Connector, uri: Uri) -> Result<Sender<B>, BoxError>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    let stream = connector.http2(true).oneshot(uri).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .handshake(stream)
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "an HTTP/2 connection broke");
        }
    });
    Ok(sender)
}

impl<B> Clone for Http2<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Display for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Unconnected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use bytes::Bytes;
    use http::uri::Scheme;
    use http_body_util::{BodyExt, Empty};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use hyper_util::server::conn::auto;
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::super::attempts::Attempts;
    use super::*;
    use crate::tls::Tls;

    type Connection = Http2<Empty<Bytes>>;

    fn connection(to: SocketAddr) -> Connection {
        let authority = to.to_string().parse().unwrap();
        Http2::new(Connector::new(Duration::from_secs(5), &Tls::default()), Address { scheme: Scheme::HTTP, authority })
    }

    fn request() -> Request<AttemptBody<Empty<Bytes>>> {
        Attempts::new(Request::get("http://orders/").body(Empty::new()).unwrap(), 0).into_request()
    }

    /// 20 tasks make 20 calls each, one after the other: how many were answered, and how many not even sent.
    async fn many_calls(connection: &Connection) -> (usize, usize) {
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let connection = connection.clone();
            tasks.spawn(async move {
                let mut counts = (0, 0);
                for _ in 0..20 {
                    match connection.clone().send(request()).await {
                        Ok(_) => counts.0 += 1,
                        Err(Failure::Unsent(_)) => counts.1 += 1,
                        Err(Failure::Lost(_)) => {}
                    }
                }
                counts
            });
        }
        tasks.join_all().await.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_who_wait_for_a_connection_hear_that_there_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(many_calls(&connection(address)).await, (0, 400));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_call_hangs_at_a_server_that_accepts_and_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = connection(listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        assert_eq!(many_calls(&connection).await.0, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_connection_serves_all_and_ends_with_the_last_clone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = connection(listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        assert_eq!(many_calls(&connection).await, (400, 0));
        drop(connection);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_while_it_connects_leaves_it_to_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = connection(listener.local_addr().unwrap());
        let first = tokio::spawn(connection.clone().send(request()));
        let second = tokio::spawn(connection.clone().send(request()));
        tokio::task::yield_now().await;
        first.abort();
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
        let builder = auto::Builder::new(TokioExecutor::new());
        let serving = builder.serve_connection(TokioIo::new(stream), service);
        let answer = tokio::select! {
            answer = second => answer.unwrap(),
            _ = serving => panic!("the connection ended"),
        };
        let Ok(answer) = answer else { panic!("no answer") };
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
