//! Certificate of a client, and the names in it.

use std::fmt;
use std::sync::{Arc, OnceLock};
#[cfg(feature = "tls")]
use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "tls")]
use crate::time::wall_clock_ms;

/// Maximum number of names that are read of a certificate, and maximum length of one.
#[cfg(feature = "access")]
const MAX_NAMES: usize = 100;
#[cfg(feature = "access")]
const MAX_NAME: usize = 1024;

/// Certificate with which a client identified itself in the TLS handshake of its connection.
///
/// A [`Listener`](crate::server::Listener) with TLS inserts it into the extensions of each request.
/// It was verified: it was issued by a CA that the listener trusts, was valid at the time of the
/// handshake, and the client has its key. A request without it came over a connection whose client
/// sent no certificate.
///
/// An application that serves the router itself can insert it, too. It is cheap to clone.
#[derive(Clone)]
pub struct PeerCertificate(Arc<Inner>);

struct Inner {
    der: Bytes,
    /// Read with the first request.
    names: OnceLock<Names>,
}

/// Names in a certificate: the attributes of its subject, and its alternative names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) names: Vec<(String, String)>,
    /// Validity, as Unix times in seconds.
    validity: Option<[i64; 2]>,
}

impl PeerCertificate {
    /// Creates it from a certificate in DER that was verified.
    pub fn verified(der: impl Into<Bytes>) -> Self {
        Self(Arc::new(Inner { der: der.into(), names: OnceLock::new() }))
    }

    /// Returns the certificate in DER, without the chain of its issuers.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    pub(super) fn names(&self) -> &Names {
        self.0.names.get_or_init(|| names(&self.0.der))
    }

    /// Returns the time until the certificate expires, or `None` if its validity is unknown.
    #[cfg(feature = "tls")]
    pub(in crate::server) fn expires_in(&self) -> Option<Duration> {
        let [_, until] = self.names().validity?;
        // It is valid for the whole second.
        let left_ms = until.saturating_add(1).saturating_mul(1000).saturating_sub(wall_clock_ms());
        Some(Duration::from_millis(left_ms.try_into().unwrap_or(0)))
    }

    /// Returns the subject for a log line, such as `CN=orders,O=Shop`.
    pub(super) fn subject(&self) -> String {
        let names = self.names().names.iter().filter(|(kind, _)| !matches!(&**kind, "DNS" | "URI" | "EMAIL" | "IP"));
        names.map(|(kind, value)| format!("{kind}={value}")).collect::<Vec<_>>().join(",")
    }
}

impl PartialEq for PeerCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for PeerCertificate {}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerCertificate({} bytes)", self.0.der.len())
    }
}

impl Names {
    /// Returns true if the certificate is valid at this Unix time. A connection may outlive it.
    pub(super) fn is_valid_at(&self, seconds: i64) -> bool {
        self.validity.is_some_and(|[from, until]| (from..=until).contains(&seconds))
    }
}

#[cfg(feature = "access")]
fn names(der: &[u8]) -> Names {
    use x509_parser::extensions::GeneralName;
    use x509_parser::prelude::{FromDer, X509Certificate};

    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Names::default() };
    let mut names = Vec::new();
    let mut add = |kind: &str, value: &str| {
        if names.len() < MAX_NAMES && value.len() <= MAX_NAME {
            names.push((kind.to_owned(), value.to_owned()));
        }
    };
    for attribute in certificate.subject().iter_attributes() {
        let kind = kind_of(&attribute.attr_type().to_id_string());
        if let (Some(kind), Ok(value)) = (kind, attribute.as_str()) {
            add(kind, value);
        }
    }
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => add("DNS", name),
                GeneralName::URI(name) => add("URI", name),
                GeneralName::RFC822Name(name) => add("EMAIL", name),
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
                    let ip = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
                    if let Ok(ip) = ip {
                        add("IP", &ip.to_string());
                    }
                }
                _ => {}
            }
        }
    }
    let validity = certificate.validity();
    Names { names, validity: Some([validity.not_before.timestamp(), validity.not_after.timestamp()]) }
}

#[cfg(not(feature = "access"))]
fn names(_: &[u8]) -> Names {
    Names::default()
}

/// Returns the short name of an attribute of a subject.
#[cfg(feature = "access")]
fn kind_of(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.5" => "SERIALNUMBER",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

#[cfg(all(test, feature = "access"))]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_of_a_certificate_are_read() {
        let mut params = CertificateParams::new(["orders.internal".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://shop/orders".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "orders");
        params.distinguished_name.push(DnType::OrganizationName, "Shop");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let certificate = PeerCertificate::verified(certificate.der().to_vec());
        let names: Vec<_> = certificate.names().names.iter().map(|(kind, value)| format!("{kind}={value}")).collect();
        for expected in ["CN=orders", "O=Shop", "DNS=orders.internal", "IP=10.0.0.1", "URI=spiffe://shop/orders"] {
            assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
        }
        assert!(certificate.subject().contains("CN=orders"));
        assert!(certificate.names().is_valid_at(1_800_000_000));
        assert!(!certificate.names().is_valid_at(i64::MAX));
    }

    #[test]
    fn broken_certificate_has_no_names() {
        for der in [&b""[..], b"\x30\x82", &[0xff; 2000]] {
            let certificate = PeerCertificate::verified(der);
            assert_eq!(*certificate.names(), Names::default());
            assert!(!certificate.names().is_valid_at(0));
        }
    }
}
