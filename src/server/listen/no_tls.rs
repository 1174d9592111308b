//! Replacement for TLS in builds without the feature `tls`: plain connections only.

use std::convert::Infallible;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::stream::Transport;
use crate::server::access::PeerCertificate;

/// TLS of a listener, which cannot exist.
#[derive(Clone, Debug)]
pub(crate) enum Acceptor {}

/// Failure of a handshake, which cannot exist.
pub(super) type Failure = Infallible;

impl Acceptor {
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        match *self {}
    }
}

pub(super) async fn check_files(_: Option<Acceptor>) {
    std::future::pending().await
}

pub(super) async fn outdated(_: watch::Receiver<()>, _: PeerCertificate) {
    std::future::pending().await
}

pub(super) async fn handshake(
    acceptor: &Acceptor,
    _: TcpStream,
    _: bool,
    _: Duration,
) -> Result<(Transport, Option<PeerCertificate>), Failure> {
    match *acceptor {}
}
