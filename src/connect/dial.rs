use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Rules for connections to one instance, which its URL does not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    /// Host name of the instance. The rules apply to URLs with this host or address.
    pub(crate) host: Option<Arc<str>>,
    /// IP address of the instance.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) use_ip: UseIp,
    /// Name for which the certificate must be valid. Defaults to the host of the URL.
    pub(crate) server_name: Option<Arc<str>>,
    /// Application, named in log lines.
    pub(crate) app: Arc<str>,
}

/// Connections that are established to the IP address of an instance instead of its host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UseIp {
    Never,
    /// Those whose host name does not resolve.
    Unresolved,
    Always,
}

impl Dial {
    /// Returns `true` if the rules apply to this host of a URL, without brackets.
    pub(super) fn applies_to(&self, host: &str) -> bool {
        self.host.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(host))
            || self.ip.is_some_and(|ip| host.parse() == Ok(ip))
    }

    /// Returns the address to use in this case.
    pub(super) fn ip_if(&self, case: UseIp) -> Option<IpAddr> {
        self.ip.filter(|_| self.use_ip == case)
    }
}

/// Displays the parts that connections depend on.
impl fmt::Display for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.ip_if(UseIp::Unresolved) {
            write!(f, " ip={ip}")?;
        }
        self.server_name.as_ref().map_or(Ok(()), |name| write!(f, " name={name:?}"))
    }
}
