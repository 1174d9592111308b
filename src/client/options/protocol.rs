//! Ports, version of HTTP and host header.

use std::sync::Arc;

use super::CallOptions;
use crate::model::Instance;

/// Port at which an instance is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ports {
    /// The secure port if it is enabled and the feature `tls` is present, else the plain port.
    ///
    /// A record that marks both ports as disabled is called at its plain port, as Spring does.
    /// Below an [`EurekaLayer`](crate::client::EurekaLayer), which cannot know whether the service
    /// speaks TLS, the plain port is preferred.
    #[default]
    Auto,
    /// The plain port. Instances without it are not called.
    Plain,
    /// The secure port. Instances without it are not called.
    Secure,
}

/// Scheme by which the port of an instance is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceScheme {
    /// The scheme of the port: HTTPS for the secure port, HTTP for the plain one. A port from the
    /// metadata has the scheme that [`CallOptions::port_key`](super::CallOptions::port_key)
    /// describes.
    #[default]
    OfPort,
    /// HTTP at any port, for instances behind a proxy that adds TLS.
    Http,
    /// HTTPS at any port, for instances whose plain port speaks TLS. Needs the feature `tls`.
    Https,
}

/// Version of HTTP used for an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Http2 {
    /// HTTP/2 for requests of that version, else HTTP/1.1.
    ///
    /// Without TLS, an instance that does not speak HTTP/2 gets such requests over HTTP/1.1, except
    /// for gRPC.
    #[default]
    AsRequested,
    /// HTTP/2 for all requests, without TLS by prior knowledge. An instance that requires HTTP/1.1
    /// (`HTTP_1_1_REQUIRED`) gets that for five minutes, except for gRPC.
    Always,
    /// HTTP/2 for requests of that version, and for all requests to instances whose metadata has
    /// this key with the value `true`.
    Metadata(Arc<str>),
}

/// Value of the `host` header in HTTP/1.1 requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostHeader {
    /// Host and port of the instance. In HTTP/2, `:authority` always has this value.
    #[default]
    Instance,
    /// Value from the caller's request: its `host` header, else the name from the URI.
    Original,
}

impl Http2 {
    /// Returns `true` if all requests to this instance use HTTP/2.
    pub(in crate::client) fn is_for(&self, instance: &Instance) -> bool {
        match self {
            Self::AsRequested => false,
            Self::Always => true,
            Self::Metadata(key) => instance.metadata().get(key).is_some_and(|value| value == "true"),
        }
    }
}

impl CallOptions {
    /// Sets the scheme by which the chosen port is called. Defaults to [`InstanceScheme::OfPort`].
    ///
    /// Calls with `https://orders` always use TLS, whatever the scheme is.
    pub fn scheme(mut self, scheme: InstanceScheme) -> Self {
        self.scheme = scheme;
        self
    }
}
