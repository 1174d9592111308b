use std::convert::Infallible;
use std::future::ready;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tower::{BoxError, Service, ServiceExt, service_fn};

use super::dial::{Dial, UseIp};
use super::error::{ConnectError, root_cause};
use super::names::{Addresses, Names};
use super::proxy::{Proxies, tunnel};
use super::race::{alternate, race};
use super::stream::Stream;
use super::tls::{TlsSettings, Versions, handshake_if_https};
use super::uri::{port_of, without_brackets};
use crate::time::LONGEST_WAIT;

/// Service that connects to the host of a URI, with TLS if the scheme is https.
///
/// One time limit covers the name lookup, the connection, the tunnel through a proxy and the
/// handshake. Clones are cheap, since hyper-util's client clones its connector for every request.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
    versions: Versions,
    proxies: Option<Arc<Proxies>>,
    prefer_ipv6: Option<bool>,
    dial: Option<Arc<Dial>>,
}

#[derive(Clone, Debug)]
struct Shared {
    timeout: Duration,
    tls: TlsSettings,
    names: Arc<Names>,
}

impl Connector {
    /// Creates a connector whose TLS connections speak HTTP/1.1.
    pub(crate) fn new(timeout: Duration, tls: &TlsSettings) -> Self {
        let shared = Shared { timeout: timeout.min(LONGEST_WAIT), tls: tls.clone(), names: Arc::default() };
        Self { shared: Arc::new(shared), versions: Versions::Http1, proxies: None, prefer_ipv6: None, dial: None }
    }

    /// Looks up host names there. Defaults to a cache of its own.
    pub(crate) fn names(self, names: &Arc<Names>) -> Self {
        let shared = Shared { names: names.clone(), ..Shared::clone(&self.shared) };
        Self { shared: Arc::new(shared), ..self }
    }

    /// Sets whether the IPv6 or the IPv4 addresses of a name are tried first. By default, the order
    /// is that of the resolver.
    pub(crate) fn prefer_ipv6(self, prefer_ipv6: Option<bool>) -> Self {
        Self { prefer_ipv6, ..self }
    }

    /// Sets the rules for connections to one instance.
    pub(crate) fn dial(self, dial: Arc<Dial>) -> Self {
        Self { dial: Some(dial), ..self }
    }

    /// Connects through these proxies. Defaults to none.
    pub(crate) fn through(self, proxies: &Proxies) -> Self {
        Self { proxies: (!proxies.is_empty()).then(|| Arc::new(proxies.clone())), ..self }
    }

    /// Sets whether TLS connections speak HTTP/2 instead of HTTP/1.1.
    pub(crate) fn http2(self, http2: bool) -> Self {
        Self { versions: if http2 { Versions::Http2 } else { Versions::Http1 }, ..self }
    }

    /// Lets the server choose between HTTP/2 and HTTP/1.1 on TLS connections.
    pub(crate) fn any_version(self) -> Self {
        Self { versions: Versions::Any, ..self }
    }

    /// Returns the time limit of a connection attempt.
    pub(crate) fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// Returns the addresses of the host of a URI. `None` if the host is an address, or does not
    /// resolve now.
    pub(crate) async fn current_addresses(&self, uri: &Uri) -> Option<Arc<[SocketAddr]>> {
        let host = host_of(uri).filter(|host| host.parse::<IpAddr>().is_err())?;
        let Addresses { known, failure } = self.shared.names.lookup(host, self.shared.timeout, true).await;
        failure.is_none().then_some(known)
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, BoxError> {
        let Shared { timeout, tls, .. } = &*self.shared;
        let deadline = Instant::now() + *timeout;
        let too_late = |what: &str| ConnectError::new(format!("no {what} within {timeout:?}"));
        let dial = self.dial.as_deref().filter(|dial| host_of(&uri).is_some_and(|host| dial.applies_to(host)));
        let tcp = match self.proxies.as_deref().and_then(|proxies| proxies.of(&uri)) {
            None => {
                let connected = timeout_at(deadline, self.open(&uri, dial)).await;
                connected.unwrap_or_else(|_| {
                    self.expire_name(&uri);
                    Err(too_late("connection").into())
                })?
            }
            Some(proxy) => {
                let proxy = proxy.target().map_err(ConnectError::new)?;
                let connected = timeout_at(deadline, self.open(proxy.uri(), None)).await;
                let connected = connected.map_err(|_| too_late(&format!("connection to the proxy {proxy}")))?;
                let tcp = connected.map_err(|error| {
                    let cause = format!("the proxy {proxy} is unreachable: {}", root_cause(&*error));
                    ConnectError::new(cause).with_source(error)
                })?;
                if uri.scheme() != Some(&Scheme::HTTPS) {
                    return Ok(TokioIo::new(Stream::Forwarded(tcp)));
                }
                let opened = timeout_at(deadline, tunnel(tcp, &uri, proxy)).await;
                opened.map_err(|_| too_late(&format!("tunnel through the proxy {proxy}")))??
            }
        };
        let server_name = dial.and_then(|dial| dial.server_name.as_deref());
        let secured = timeout_at(deadline, handshake_if_https(tcp, &uri, server_name, tls, self.versions)).await;
        Ok(TokioIo::new(secured.map_err(|_| too_late("TLS handshake"))??))
    }

    /// Connects to an address of the host of a URI.
    async fn open(&self, uri: &Uri, dial: Option<&Dial>) -> Result<TcpStream, BoxError> {
        let host = host_of(uri).ok_or_else(|| ConnectError::new("the URI has no host"))?;
        let port = port_of(uri);
        let always = dial.and_then(|dial| dial.ip_if(UseIp::Always));
        if let Some(ip) = host.parse().ok().or(always) {
            return tcp(SocketAddr::new(ip, port)).await;
        }
        let fallback = dial.and_then(|dial| dial.ip_if(UseIp::Unresolved).zip(Some(&dial.app)));
        let Shared { names, timeout, .. } = &*self.shared;
        let addresses = names.lookup(host, *timeout, fallback.is_some()).await;
        let error = match self.open_any(host, port, &addresses, fallback).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => error,
        };
        // The name may have moved since it was looked up.
        names.expire(host);
        let latest = names.lookup(host, *timeout, fallback.is_some()).await;
        if is_same_set(&latest.known, &addresses.known) {
            return Err(error);
        }
        self.open_any(host, port, &latest, fallback).await
    }

    /// Connects to one of the addresses of a host, or to the IP address of an application's
    /// instance if the host does not resolve.
    async fn open_any(
        &self,
        host: &str,
        port: u16,
        Addresses { known, failure }: &Addresses,
        fallback: Option<(IpAddr, &Arc<str>)>,
    ) -> Result<TcpStream, BoxError> {
        let mut addresses = alternate(known, self.prefer_ipv6);
        if let Some((failure, (ip, app))) = failure.as_ref().zip(fallback) {
            addresses.push(SocketAddr::new(ip, port));
            self.shared.names.log_fallback(app, host, ip, failure);
        }
        addresses.iter_mut().for_each(|address| address.set_port(port));
        let count = addresses.len();
        let Some(connected) = race(addresses, self.shared.timeout / 2, tcp).await else {
            let failure = failure.as_deref().unwrap_or("no address could be tried");
            return Err(ConnectError::new(format!("the host name {host} does not resolve: {failure}")).into());
        };
        connected.map_err(|error| {
            let cause = root_cause(&*error);
            let message = match (failure, fallback) {
                (Some(failure), Some((ip, _))) => {
                    format!("the host name {host} does not resolve ({failure}), and {ip} failed: {cause}")
                }
                (Some(failure), None) => {
                    format!("the host name {host} does not resolve ({failure}), and its last address failed: {cause}")
                }
                (None, _) if count > 1 => {
                    format!("none of the {count} addresses of {host} accepts a connection: {cause}")
                }
                (None, _) => return error,
            };
            ConnectError::new(message).with_source(error).into()
        })
    }

    fn expire_name(&self, uri: &Uri) {
        self.shared.names.expire(host_of(uri).unwrap_or_default());
    }
}

/// Compares addresses regardless of their order, which name servers rotate.
fn is_same_set(a: &[SocketAddr], b: &[SocketAddr]) -> bool {
    let is_in = |all: &[SocketAddr], address| all.contains(address);
    a.iter().all(|address| is_in(b, address)) && b.iter().all(|address| is_in(a, address))
}

/// Returns the host of a URI, without brackets.
fn host_of(uri: &Uri) -> Option<&str> {
    uri.host().map(without_brackets)
}

/// Connects to one address.
///
/// hyper-util's connector sets the options of the socket, which tokio's does not. The name in the
/// URI is resolved to the address.
async fn tcp(address: SocketAddr) -> Result<TcpStream, BoxError> {
    let resolver = service_fn(move |_: Name| ready(Ok::<_, Infallible>(iter::once(address))));
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.set_nodelay(true);
    // Keepalive detects a peer that vanished without closing, also on idle connections.
    tcp.set_keepalive(Some(Duration::from_secs(15)));
    tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
    tcp.set_keepalive_retries(Some(3));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(Duration::from_secs(30)));
    Ok(tcp.oneshot(Uri::from_static("http://instance")).await?.into_inner())
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_regardless_of_their_order() {
        let of = |hosts: &[u8]| hosts.iter().map(|host| ([10, 0, 0, *host], 0).into()).collect::<Vec<SocketAddr>>();
        for (a, b, is_same) in [(&[1, 2][..], &[2, 1][..], true), (&[1, 2], &[1], false), (&[1], &[1, 2], false)] {
            assert_eq!(is_same_set(&of(a), &of(b)), is_same, "{a:?} {b:?}");
        }
    }

    #[test]
    fn maximum_timeout_can_be_added_to_the_clock() {
        let connector = Connector::new(Duration::MAX, &TlsSettings::default());
        assert_eq!(connector.timeout(), LONGEST_WAIT);
        assert!(Instant::now().checked_add(connector.timeout()).is_some());
    }
}
