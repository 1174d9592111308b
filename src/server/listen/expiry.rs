//! Expiry of the certificates of a listener: log lines, and the values of a metric.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::Acceptor;
use crate::connect::ListenerCertificates;
use crate::server::connections::ConnectionCounts;
use crate::time::wall_clock_ms;
use crate::untrusted::Quoted;

/// Interval of the warnings about certificates that expire soon.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Number of days before the expiry from which on there are warnings.
const SOON_DAYS: i64 = 30;
/// Maximum number of lines at a time. A file of client CAs may have hundreds.
const MAX_LINES: usize = 10;
const SERVER: &str = "server";
const CLIENT_CA: &str = "client_ca";

/// Certificate with the time of its expiry.
#[derive(Debug, PartialEq, Eq)]
struct Expiry {
    /// `server` or `client_ca`.
    certificate: &'static str,
    subject: String,
    /// Unix time in seconds.
    not_after: i64,
    /// The same time for people.
    date: String,
}

/// Logs the expiry of the certificates of a listener at once, when its files change, and once a
/// day if they expire soon. Never completes.
pub(super) async fn watch(acceptor: Option<Acceptor>, address: Option<SocketAddr>, counts: Arc<ConnectionCounts>) {
    let (Some(acceptor), Some(address)) = (acceptor, address) else { return std::future::pending().await };
    let (mut changes, shown) = (acceptor.changes(), Shown { counts, listener: address.to_string() });
    let mut is_new = true;
    loop {
        let expiries = read(&acceptor.certificates());
        shown.update(&expiries);
        log(&expiries, &shown.listener, is_new, wall_clock_ms() / 1000);
        is_new = match timeout(DAY, changes.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => return std::future::pending().await,
            // Otherwise the files are only read when a client connects.
            Err(_) => {
                acceptor.check().await;
                changes.has_changed().unwrap_or(false)
            }
        };
        changes.mark_unchanged();
    }
}

/// Values of the metric of a listener. They are removed with the listener.
struct Shown {
    counts: Arc<ConnectionCounts>,
    listener: String,
}

impl Shown {
    /// Shows the earliest expiry of each kind. `expiries` has the earliest first.
    fn update(&self, expiries: &[Expiry]) {
        for certificate in [SERVER, CLIENT_CA] {
            let first = expiries.iter().find(|expiry| expiry.certificate == certificate);
            self.counts.set_certificate(&self.listener, certificate, first.map(|expiry| expiry.not_after));
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.update(&[]);
    }
}

/// Reads the expiry of each certificate, the earliest first. Certificates that cannot be read are
/// left out.
fn read(certificates: &ListenerCertificates) -> Vec<Expiry> {
    let kinds = [(SERVER, &certificates.chain), (CLIENT_CA, &certificates.client_cas)];
    let all = kinds.into_iter().flat_map(|(kind, all)| all.iter().map(move |der| (kind, der)));
    let mut expiries: Vec<_> = all
        .filter_map(|(certificate, der)| {
            let (_, read) = X509Certificate::from_der(der).ok()?;
            let not_after = read.validity().not_after;
            let subject = read.subject().to_string();
            Some(Expiry { certificate, subject, not_after: not_after.timestamp(), date: not_after.to_string() })
        })
        .collect();
    expiries.sort_by_key(|expiry| expiry.not_after);
    expiries
}

/// Logs the certificates that are expired or expire soon, and the first one of each kind if they
/// are new.
fn log(expiries: &[Expiry], listener: &str, is_new: bool, now: i64) {
    let mut lines = 0;
    for certificate in [SERVER, CLIENT_CA] {
        let of_kind = expiries.iter().filter(|expiry| expiry.certificate == certificate);
        for (position, Expiry { subject, not_after, date, .. }) in of_kind.enumerate() {
            let (days, subject) = ((not_after - now).div_euclid(DAY.as_secs() as i64), Quoted(subject));
            let is_due = days < SOON_DAYS || is_new && position == 0;
            if !is_due || lines == MAX_LINES {
                break;
            }
            lines += 1;
            match days {
                ..0 => {
                    tracing::error!(%listener, certificate, %subject, expired = %date, "TLS certificate has expired")
                }
                0..SOON_DAYS => {
                    tracing::warn!(%listener, certificate, %subject, expires = %date, days, "TLS certificate expires soon");
                }
                _ => tracing::info!(%listener, certificate, %subject, expires = %date, days, "TLS certificate in use"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
