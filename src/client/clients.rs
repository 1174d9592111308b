//! The clients of one [`Eureka`](crate::Eureka): their preloads, snapshots and end.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use crate::balance::Snapshot;
use crate::sync::Mutex;

/// Time between two checks for calls in flight while clients are closed.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// A client that calls applications by name, whatever its endpoints are.
pub(crate) trait Client: Send + Sync {
    /// Prepares the calls to an application: its discovery and its balancer.
    fn preload(&self, name: &str);

    /// Returns a snapshot of each application that was called or preloaded.
    fn snapshots(&self) -> Vec<Snapshot>;

    /// Drops the applications that were not used for this time, by a call or a choice.
    fn drop_idle(&self, idle: Duration);

    /// Rejects further calls. Returns the applications, whose connections are closed when they are
    /// dropped.
    fn close(&self) -> Vec<Box<dyn Closing>>;
}

/// Application of a closed client.
pub(crate) trait Closing: Send {
    /// Returns `true` once no call is in flight.
    fn is_idle(&self) -> bool;
}

/// List of the clients that still exist.
#[derive(Default)]
pub(crate) struct Clients(Mutex<List>);

#[derive(Default)]
struct List {
    clients: Vec<Weak<dyn Client>>,
    preloaded: Vec<Box<str>>,
    is_closed: bool,
}

impl Clients {
    /// Adds a client. If the list is closed, so is the client.
    pub(crate) fn add(&self, client: Arc<dyn Client>) {
        let mut list = self.0.lock();
        list.clients.retain(|known| known.strong_count() > 0);
        list.clients.push(Arc::downgrade(&client));
        let (preloaded, is_closed) = (list.preloaded.clone(), list.is_closed);
        drop(list);
        if is_closed {
            client.close();
        } else {
            preloaded.iter().for_each(|name| client.preload(name));
        }
    }

    /// Preloads applications in all clients, also in those that are added later.
    pub(crate) fn preload(&self, names: Vec<Box<str>>) {
        let clients = self.present();
        for name in names {
            clients.iter().for_each(|client| client.preload(&name));
            let mut list = self.0.lock();
            if !list.preloaded.contains(&name) {
                list.preloaded.push(name);
            }
        }
    }

    /// Returns the applications that are preloaded.
    pub(crate) fn preloaded(&self) -> Vec<Box<str>> {
        self.0.lock().preloaded.clone()
    }

    /// Returns the snapshots of each client, in the order of their creation.
    pub(crate) fn snapshots(&self) -> Vec<Vec<Snapshot>> {
        self.present().iter().map(|client| client.snapshots()).collect()
    }

    /// Drops the applications without a call for this time in all clients.
    pub(crate) fn drop_idle(&self, idle: Duration) {
        self.present().iter().for_each(|client| client.drop_idle(idle));
    }

    /// Rejects further calls of all clients.
    pub(crate) fn close(&self) -> Vec<Box<dyn Closing>> {
        self.0.lock().is_closed = true;
        self.present().iter().flat_map(|client| client.close()).collect()
    }

    fn present(&self) -> Vec<Arc<dyn Client>> {
        self.0.lock().clients.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Waits until no call is in flight. Applications without calls are dropped, which closes their
/// connections.
pub(crate) async fn drained(mut applications: Vec<Box<dyn Closing>>) {
    loop {
        applications.retain(|application| !application.is_idle());
        if applications.is_empty() {
            return;
        }
        sleep(CHECK_INTERVAL).await;
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("clients", &self.present().len()).finish()
    }
}
