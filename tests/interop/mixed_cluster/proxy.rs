//! A wire that can be cut: what is sent then is lost without a word, as behind a firewall.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards connections, as long as it is not cut.
pub(super) struct Wire {
    /// Where it listens: `http://127.0.0.4:1234/eureka/`.
    pub(super) url: String,
    _task: JoinSet<()>,
}

impl Wire {
    /// From this address to that one.
    pub(super) async fn new(listen: &str, to: String, cut: watch::Receiver<bool>) -> Self {
        let listener = TcpListener::bind((listen, 0)).await.expect("loopback has a free port");
        let url = format!("http://{}/eureka/", listener.local_addr().expect("it is bound"));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (near, _) = accepted.expect("there are files enough");
                        connections.spawn(forward(near, to.clone(), cut.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { url, _task: task }
    }
}

/// A connection that was cut stays silent until the wire is whole again, and then ends.
async fn forward(mut near: TcpStream, to: String, mut cut: watch::Receiver<bool>) {
    let connected = async {
        if let Ok(mut far) = TcpStream::connect(to).await {
            // It ends as the ends want it.
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
