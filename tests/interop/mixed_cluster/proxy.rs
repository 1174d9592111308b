//! TCP proxy that can be cut. A cut connection stays open and silent, as behind a firewall.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards connections unless it is cut.
pub(super) struct Proxy {
    /// Service URL of the proxy, such as `http://127.0.0.4:1234/eureka/`.
    pub(super) url: String,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy from one address to another.
    pub(super) async fn new(listen: &str, to: String, cut: watch::Receiver<bool>) -> Self {
        let listener = TcpListener::bind((listen, 0)).await.expect("loopback has a free port");
        let url = format!("http://{}/eureka/", listener.local_addr().expect("listener is bound"));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (near, _) = accepted.expect("connection is accepted");
                        connections.spawn(forward(near, to.clone(), cut.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { url, _task: task }
    }
}

/// Forwards one connection. After a cut it stays silent until the cut ends, and is then closed.
async fn forward(mut near: TcpStream, to: String, mut cut: watch::Receiver<bool>) {
    let connected = async {
        if let Ok(mut far) = TcpStream::connect(to).await {
            // An error closes the connection like its end.
            tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
        }
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|cut| *cut) => {}
        () = connected => return,
    }
    cut.wait_for(|cut| !cut).await.ok();
}
