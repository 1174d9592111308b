//! The standalone registry.

use std::fmt;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::net::TcpListener;
use tower_eureka::EurekaServer;
use tower_eureka::config::Property;
use tracing_subscriber::EnvFilter;

/// Uses again what other threads freed, so that the memory of a registry under change stays what it was.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Requests in flight get this long after the signal; connections that are merely open get nothing.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Peers get this long to take what is queued for them: at the signal, and once more at the end.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// Beginnings of the arguments that a Spring server takes as well.
const PROPERTY_PREFIXES: [&str; 3] = ["--eureka.", "--spring.", "--server."];
/// Host and port without any setting. A registry without access control is for this machine only,
/// unless somebody says otherwise.
const LOOPBACK: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 8761;
/// Host where a port is given alone, as of a Spring server.
const EVERYWHERE: &str = "0.0.0.0";

/// Eureka, in one small binary.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a registry server under /eureka/ until SIGTERM or Ctrl-C.
    Serve(Serve),
}

#[derive(Args, Debug)]
struct Serve {
    /// Address to listen on: HOST:PORT, [IPV6]:PORT, or PORT alone for all IPv4 interfaces. Port 0
    /// takes a free one.
    ///
    /// It wins over --server.port and --server.address, and these win over the variables
    /// SERVER_PORT and SERVER_ADDRESS. A port without an address means all IPv4 interfaces.
    /// [default: 127.0.0.1:8761]
    #[arg(long)]
    listen: Option<Address>,
}

/// A setting under its Spring name.
struct Given {
    name: String,
    value: String,
}

/// Address to listen on. The host may be a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (host, port) = match text.rsplit_once(':') {
            Some(("", port)) => (EVERYWHERE, port),
            Some((host, port)) => (host, port),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => (EVERYWHERE, text),
            None => return Err("expected PORT, :PORT or HOST:PORT".into()),
        };
        Ok(Self { host: host_of(host)?, port: port_of(port)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

fn port_of(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| "expected a port, 0 to 65535".to_owned())
}

/// A name or an address; of IPv6 without its brackets.
fn host_of(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => return Ok(address.into()),
        Some(_) => return Err("expected an IPv6 address in the brackets".into()),
        None if text.contains(':') => return Err("expected brackets around an IPv6 address: [::1]:8761".into()),
        None => {}
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("expected a host name or an address".into());
    }
    Ok(text.into())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Result<Vec<_>, _> = std::env::args_os().map(|argument| argument.into_string()).collect();
    let Ok(arguments) = arguments else { return fail("an argument is no Unicode text") };
    let (own, given) = match split(arguments) {
        Ok(arguments) => arguments,
        Err(text) => return fail(text),
    };
    let command = Cli::command().mut_subcommand("serve", |serve| serve.after_long_help(properties()));
    let matches = command.get_matches_from(own);
    let Cli { command: Command::Serve(serve) } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match serve.run(&given).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

/// Takes the properties out of the arguments: `--name=value` and `--name value`.
fn split(arguments: Vec<String>) -> Result<(Vec<String>, Vec<Given>), String> {
    let (mut own, mut given) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        if !PROPERTY_PREFIXES.iter().any(|prefix| argument.starts_with(prefix)) {
            own.push(argument);
            continue;
        }
        let property = argument.trim_start_matches("--");
        let (name, value) = match property.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let value = arguments.next_if(|next| !next.starts_with("--"));
                (property.to_owned(), value.ok_or_else(|| format!("{argument} needs a value: {argument}=..."))?)
            }
        };
        given.push(Given { name, value });
    }
    Ok((own, given))
}

/// The part of the help that comes from the table of properties.
fn properties() -> String {
    let mut text = String::from(
        "Probes: / and /actuator/health respond with 200 once the node is open for traffic, and with 503 until then;\n\
         /actuator/health/liveness always responds with 200. The variable RUST_LOG sets the level of the log: RUST_LOG=debug.\n\
         \n\
         Settings of a Spring Cloud Eureka server. Dashes and case do not matter; each is also an environment variable,\n\
         upper case, with dots as underscores and without dashes: EUREKA_SERVER_ENABLESELFPRESERVATION.\n\
         \n  --server.port <PORT>\n          port to listen on, on all IPv4 interfaces if no address is given\n\
         \n  --server.address <HOST>\n          address to listen on\n",
    );
    for property in Property::all() {
        text.push_str(&format!("\n  {property}\n"));
    }
    text
}

impl Given {
    /// Returns true for the setting of this name, compared as Spring does.
    fn is(&self, name: &str) -> bool {
        let relaxed = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
        relaxed(&self.name) == relaxed(name)
    }
}

/// The last value among the arguments, else that of the environment, each with the name under which
/// it was given.
fn server_setting(given: &[Given], name: &str) -> Result<Option<(String, String)>, String> {
    let argument = given.iter().rev().find(|given| given.is(name));
    let found = match argument {
        Some(Given { name, value }) => Some((format!("--{name}"), value.clone())),
        None => {
            let variable = name.replace('.', "_");
            let mut variables: Vec<_> = std::env::vars_os()
                .filter_map(|(key, value)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned())))
                .filter(|(key, value)| {
                    let is_named = key.eq_ignore_ascii_case(&variable) || key.eq_ignore_ascii_case(name);
                    is_named && !value.trim().is_empty()
                })
                .collect();
            // Of several spellings the upper case one.
            variables.sort();
            variables.into_iter().next()
        }
    };
    match found {
        Some((name, value)) if value.contains("${") => {
            Err(format!("{name} has a placeholder: ${{...}} is not resolved here"))
        }
        found => Ok(found.map(|(name, value)| (name, value.trim().to_owned()))),
    }
}

impl Serve {
    /// Returns the address to listen on: that of `--listen`, else that of a Spring server's settings.
    fn address(&self, given: &[Given]) -> Result<Address, String> {
        let invalid = |name: &str, value: &str, why: String| {
            let hint = if value.contains("://") { " (a variable that Kubernetes sets for a service?)" } else { "" };
            format!("{name} is '{value}': {why}{hint}")
        };
        let [port, host] = ["server.port", "server.address"].map(|name| server_setting(given, name));
        let (port, host) = (port?, host?);
        if let Some(listen) = &self.listen {
            for (name, _) in [port, host].into_iter().flatten() {
                tracing::warn!("{name} is ignored: --listen says where to listen");
            }
            return Ok(listen.clone());
        }
        let usual = if port.is_some() { EVERYWHERE } else { LOOPBACK };
        let host = host.map_or(Ok(usual.to_owned()), |(name, value)| {
            let host = value.parse::<Ipv6Addr>().map_or_else(|_| host_of(&value), |address| Ok(address.to_string()));
            host.map_err(|why| invalid(&name, &value, why))
        })?;
        let port =
            port.map_or(Ok(DEFAULT_PORT), |(name, value)| port_of(&value).map_err(|why| invalid(&name, &value, why)))?;
        Ok(Address { host, port })
    }

    async fn run(self, given: &[Given]) -> Result<(), Box<dyn std::error::Error>> {
        // First of all, so that a signal is never met unprepared.
        let stop = stop_signal()?;
        let mut builder = EurekaServer::builder().from_env()?;
        for Given { name, value } in
            given.iter().filter(|given| !given.is("server.port") && !given.is("server.address"))
        {
            builder = builder.property(name, value)?;
        }
        let address = self.address(given)?;
        let listener = TcpListener::bind((&*address.host, address.port))
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}; choose another with --listen"))?;
        let local = listener.local_addr()?;
        let registry = builder.own_port(local.port()).build()?;
        announce(local);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), address = %local, open = registry.is_open(), "started");

        let app = registry.service("/eureka").with_probes();
        let stopping = async {
            stop.await;
            tracing::info!("stopping");
        };
        let (signalled, mut at_signal) = tokio::sync::watch::channel(());
        let stopping = async move {
            stopping.await;
            drop(signalled);
        };
        // The node leaves its peers while requests in flight go on.
        let leaving = async {
            // The channel closes when the signal has come.
            while at_signal.changed().await.is_ok() {}
            registry.leave(HAND_OVER_LIMIT).await;
        };
        let listener = registry.listener(listener).shutdown_timeout(SHUTDOWN_LIMIT);
        tokio::join!(listener.serve(app, stopping), leaving);
        // Those requests may have left something for the peers.
        if !registry.leave(HAND_OVER_LIMIT).await {
            tracing::warn!("not every peer took what was queued for it");
        }
        Ok(())
    }
}

/// Completes at the first SIGTERM or Ctrl-C.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Completes at the first Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "cannot listen for Ctrl-C");
            std::future::pending::<()>().await;
        }
    })
}

#[allow(clippy::print_stdout, reason = "the one line that scripts wait for")]
fn announce(address: SocketAddr) {
    println!("listening on http://{address}/eureka/");
}

#[allow(clippy::print_stderr, reason = "must be seen whatever the log filter says")]
fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("tower-eureka: {error}");
    ExitCode::FAILURE
}
