//! HTTP/2 server whose responses are raw bytes, for frames that real servers seldom send.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Starts a server whose response to the n-th request are the bytes of `respond`, which receives
/// `n` and the stream id. Returns the port and the number of requests.
pub(crate) async fn raw(
    respond: impl Fn(usize, [u8; 4]) -> Vec<u8> + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (respond, requests) = (Arc::new(respond), Arc::new(AtomicUsize::new(0)));
    let count = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (respond, count) = (respond.clone(), count.clone());
            tokio::spawn(async move {
                let (settings, mut preface) = ([0, 0, 0, 4, 0, 0, 0, 0, 0], [0; 24]);
                socket.write_all(&settings).await?;
                socket.read_exact(&mut preface).await?;
                loop {
                    let mut head = [0; 9];
                    socket.read_exact(&mut head).await?;
                    let [a, b, c, kind, _, stream @ ..] = head;
                    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                    socket.read_exact(&mut payload).await?;
                    if kind == 1 {
                        socket.write_all(&respond(count.fetch_add(1, Ordering::SeqCst), stream)).await?;
                    }
                }
                #[allow(unreachable_code, reason = "names the type of the error")]
                io::Result::Ok(())
            });
        }
    });
    (port, requests)
}

/// Encodes a RST_STREAM frame with this reason.
pub(crate) fn reset([a, b, c, d]: [u8; 4], reason: u8) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, a, b, c, d, 0, 0, 0, reason]
}
