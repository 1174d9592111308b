//! Connections to registry servers, with a maximum age.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tower::Service;

use super::request::RequestBody;
use crate::connect::Connector;
use crate::sync::Mutex;
use crate::time::{LONGEST_WAIT, jittered_by};

/// Maximum age of a connection, shorter or longer by up to 20 %.
pub(super) const CONNECTION_AGE: Duration = Duration::from_secs(300);

type Pool = Client<Connector, RequestBody>;

/// Hyper client that replaces its connection pool every five minutes, so that the names of registry
/// servers are resolved again even if connections are never idle. A request in flight keeps its
/// connection until it ends.
#[derive(Clone)]
pub(super) struct Sessions {
    connector: Connector,
    idle_timeout: Duration,
    current: Arc<Mutex<Option<Session>>>,
}

struct Session {
    pool: Pool,
    ends: Instant,
}

impl Sessions {
    /// Creates the sessions. Connections that are idle for this time are closed.
    pub(super) fn new(connector: Connector, idle_timeout: Duration) -> Self {
        Self { connector, idle_timeout: idle_timeout.min(LONGEST_WAIT), current: Arc::default() }
    }

    /// Closes the idle connections. A later request opens a new one.
    pub(super) fn clear(&self) {
        self.current.lock().take();
    }

    fn pool(&self) -> Pool {
        let now = Instant::now();
        let mut current = self.current.lock();
        if let Some(session) = current.as_ref().filter(|session| now < session.ends) {
            return session.pool.clone();
        }
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.idle_timeout)
            .build(self.connector.clone());
        *current = Some(Session { pool: pool.clone(), ends: now + jittered_by(CONNECTION_AGE, 0.2) });
        pool
    }
}

impl Service<Request<RequestBody>> for Sessions {
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> ResponseFuture {
        self.pool().request(request)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("connector", &self.connector).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::connect::TlsSettings;

    #[tokio::test]
    async fn connection_that_is_never_idle_is_replaced_after_a_session() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        let mut sessions =
            Sessions::new(Connector::new(Duration::from_secs(5), &TlsSettings::default()), CONNECTION_AGE);
        let mut seen = Vec::new();
        for _ in 0..14 {
            let response = sessions.call(Request::get(&url).body(RequestBody::default()).unwrap()).await.unwrap();
            response.into_body().collect().await.unwrap();
            // The connection returns to the pool in a task of its own.
            tokio::task::yield_now().await;
            seen.push(connections.load(Ordering::Relaxed));
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(30)).await;
            tokio::time::resume();
        }
        assert_eq!((seen[0], seen[7]), (1, 1), "a connection is reused for a session: {seen:?}");
        assert_eq!(seen[13], 2, "and closed after it, though it is never idle: {seen:?}");
    }
}
