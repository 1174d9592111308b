//! The verb `serve`: runs a registry server until a signal.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower_eureka::server::{Listener, Property};
use tower_eureka::{EurekaServer, Settings};

use crate::address::{self, Address, Addresses};
use crate::signals::{Received, Signal, Signals};
use crate::{Log, descriptors, supervisor};

/// Variable with the address to listen on.
pub(crate) const LISTEN: &str = "TOWER_EUREKA_LISTEN";

/// Path of the registry.
const MOUNT: &str = "/eureka";
/// Maximum time for requests in flight after the signal.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Maximum time to send queued changes to the peers, from the signal on.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// The same after the last request, if that time is over.
const LAST_HAND_OVER_LIMIT: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Address to listen on, before that of --server.port and --server.address: PORT for all
    /// interfaces, HOST for port 8761, HOST:PORT or [IPV6]:PORT. Port 0 selects a free port
    /// [default: 127.0.0.1:8761]
    #[arg(long, env = LISTEN)]
    listen: Option<Address>,

    #[command(flatten)]
    pub(crate) log: Log,
}

/// Reason why a running server ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A signal. All queued changes were sent to the peers.
    HandedOver,
    /// A signal. A peer did not receive all queued changes.
    NotHandedOver,
    /// A second signal, before all queued changes were sent.
    At(Received),
}

impl Serve {
    pub(crate) async fn run(self, arguments: &[String]) -> Result<Ended, Box<dyn std::error::Error>> {
        // First of all, so that no signal has its default action.
        let mut signals = Signals::listen()?;
        let settings = Settings::builder().arguments(arguments).load()?;
        let builder = EurekaServer::builder().from_settings_standalone(&settings)?;
        let Addresses { traffic, management } = address::addresses(self.listen.as_ref(), &settings)?;
        log_settings(&settings);
        let descriptors = descriptors::raise();
        let binding = async {
            let management = match &management {
                Some(management) => Some((bind(&management.address).await?, management.is_plain)),
                None => None,
            };
            Ok::<_, String>((bind(&traffic).await?, management))
        };
        // The lookup of a host name may take long.
        let (listener, management) = match signals.while_starting(binding).await {
            Ok(bound) => bound?,
            Err(signal) => {
                tracing::info!(signal = signal.name, "stopped before listening");
                return Ok(Ended::HandedOver);
            }
        };
        let local = listener.local_addr()?;
        let registry = builder.port(local.port()).build()?;
        let scheme = if registry.is_https() { "https" } else { "http" };
        announce(scheme, local);
        log_start(&registry, scheme, local, management.as_ref().map(|(listener, _)| listener))?;

        let limited = |listener: Listener| {
            let listener = listener.shutdown_timeout(SHUTDOWN_LIMIT);
            match descriptors {
                Some(limit) => listener.descriptors(limit.try_into().unwrap_or(usize::MAX)),
                None => listener,
            }
        };
        let listener = limited(registry.listener(listener));
        let management = management.map(|(management, is_plain)| {
            let listener = limited(registry.listener(management));
            if is_plain { listener.without_tls() } else { listener }
        });
        let app = registry.service(MOUNT);
        // Load balancers ask the port that they send requests to.
        let app = if management.is_some() { app.with_health() } else { app.with_probes().with_page() };
        supervisor::ready(local);
        let (signalled, at_signal) = tokio::sync::watch::channel(());
        let stopping = || {
            let mut stopping = at_signal.clone();
            // The channel closes when the signal arrives.
            async move { while stopping.changed().await.is_ok() {} }
        };
        let serving = async {
            // The node leaves the cluster while requests in flight continue.
            let leaving = async {
                stopping().await;
                let until = Instant::now() + HAND_OVER_LIMIT;
                registry.leave(HAND_OVER_LIMIT).await;
                until
            };
            let managing = async {
                if let Some(listener) = management {
                    listener.serve(registry.management(MOUNT), stopping()).await;
                }
            };
            let (_, (), until) = tokio::join!(listener.serve(app, stopping()), managing, leaving);
            // These requests may have queued further changes.
            registry.leave(until.saturating_duration_since(Instant::now()).max(LAST_HAND_OVER_LIMIT)).await
        };
        let interrupted = async {
            let signal = loop {
                match signals.first().await {
                    Signal::Stop(signal) => break signal.name,
                    // A file system may take long, and further signals do not wait for it.
                    Signal::Reload => drop(tokio::spawn(reload(registry.clone()))),
                }
            };
            tracing::info!(signal, "stopping");
            supervisor::stopping();
            drop(signalled);
            signals.second().await
        };
        tokio::select! {
            handed_over = serving => {
                if handed_over {
                    return Ok(Ended::HandedOver);
                }
                tracing::warn!("not all queued changes were sent to the peers");
                Ok(Ended::NotHandedOver)
            }
            signal = interrupted => {
                tracing::warn!(signal = signal.name, "stopped immediately by a second signal, peers may lack the last changes");
                Ok(Ended::At(signal))
            }
            never = supervisor::watch(&registry) => match never {},
        }
    }
}

async fn reload(registry: EurekaServer) {
    tracing::info!(
        signal = "SIGUSR1",
        "reading certificates, users and keys of tokens again, other settings need a restart"
    );
    registry.reload().await;
}

async fn bind(address: &Address) -> Result<TcpListener, String> {
    address.bind().await.map_err(|error| {
        let remedy = if error.kind() == io::ErrorKind::PermissionDenied {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        } else {
            "choose another with --listen"
        };
        format!("cannot listen on {address}: {error}; {remedy}")
    })
}

/// Logs each setting that has a value, with its source. Secrets are masked.
fn log_settings(settings: &Settings) {
    for setting in Property::in_force(settings) {
        tracing::info!("setting: {setting}");
    }
}

fn log_start(
    registry: &EurekaServer,
    scheme: &str,
    local: SocketAddr,
    management: Option<&TcpListener>,
) -> io::Result<()> {
    let (open, registry_bytes) = (registry.is_open(), registry.registry_size_limit());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %scheme, address = %local, open, registry_bytes, "started");
    if local.ip().is_unspecified() {
        tracing::info!("listening on all interfaces: give server.address or --listen HOST:PORT for one of them");
    } else if local.ip().is_loopback() {
        tracing::info!("listening on this machine only: give --listen PORT or server.port for all interfaces");
    }
    if let Some(management) = management {
        let address = management.local_addr()?;
        tracing::info!(%address, "management endpoints have a listener of their own");
    }
    let peers = registry.peer_urls();
    if !registry.are_peers_known() {
        tracing::info!("peers are not known yet: their list is being looked up");
    } else if peers.is_empty() {
        tracing::info!("no peers: eureka.client.service-url.defaultZone names them");
    } else {
        tracing::info!(peers = peers.join(","), "replicating to peers");
    }
    Ok(())
}

/// Prints the line that scripts wait for. It runs on a thread of its own, since a write to a full
/// pipe that nobody reads blocks for ever.
fn announce(scheme: &'static str, address: SocketAddr) {
    let print = move || {
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "listening on {scheme}://{address}/eureka/").and_then(|()| stdout.flush());
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write to stdout");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("stdout".into()).spawn(print) {
        tracing::warn!(%error, "cannot start the thread that writes to stdout");
    }
}
