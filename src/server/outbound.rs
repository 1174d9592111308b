//! Outbound HTTP: the stack that carries requests to peers and to other regions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use crate::config::{ClientConfig, TlsKeys};
use crate::connect::TlsSettings;
use crate::transport::{HttpStack, RequestBody};

/// TLS settings and the optional HTTP service of the user, shared by peers and regions.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Outbound {
    tls: TlsSettings,
    /// Stores under Spring's names, which [`add_stores`](Self::add_stores) reads.
    pub(in crate::server) tls_keys: TlsKeys,
    service: Option<MakeStack>,
}

/// Builds a stack over the user's service. It is built late, since its timeouts are settings, too.
#[derive(Clone)]
struct MakeStack(Arc<dyn Fn(&ClientConfig) -> HttpStack + Send + Sync>);

impl fmt::Debug for MakeStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeStack")
    }
}

impl Outbound {
    /// Builds the stack with these timeouts.
    pub(in crate::server) fn stack(&self, connect_timeout: Duration, read_timeout: Duration) -> HttpStack {
        let tls = self.tls.clone();
        let config = ClientConfig { connect_timeout, read_timeout, tls, ..ClientConfig::default() };
        self.service.as_ref().map_or_else(|| HttpStack::hyper(&config), |make| (make.0)(&config))
    }

    /// Builds the stack for documents of at most this size, with the default timeouts. It follows
    /// no redirect to another host.
    #[cfg(feature = "access")]
    pub(in crate::server) fn documents(&self, max_bytes: usize) -> HttpStack {
        HttpStack::hyper(&Self::for_documents(self.tls.clone(), max_bytes))
    }

    /// Builds the same stack over this service.
    #[cfg(all(test, feature = "access"))]
    pub(in crate::server) fn documents_over<S, B>(service: S, max_bytes: usize) -> HttpStack
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        HttpStack::over(service, &Self::for_documents(TlsSettings::default(), max_bytes))
    }

    #[cfg(feature = "access")]
    fn for_documents(tls: TlsSettings, max_bytes: usize) -> ClientConfig {
        ClientConfig { body_limit: max_bytes, tls, leaves_host: false, ..ClientConfig::default() }
    }

    /// Checks that `https` URLs can be used.
    ///
    /// # Errors
    /// Returns the reason for which they cannot.
    pub(in crate::server) fn check_tls(&self) -> Result<(), String> {
        if self.service.is_some() { Ok(()) } else { self.tls.check() }
    }

    pub(in crate::server) fn set_service<S, B>(&mut self, service: S)
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        self.service = Some(MakeStack(Arc::new(move |config| HttpStack::over(service.clone(), config))));
    }

    /// Adds the stores that Spring's settings name, and reads all files.
    ///
    /// # Errors
    /// When a file is unusable.
    pub(in crate::server) fn add_stores(&mut self) -> Result<(), crate::Error> {
        self.tls = self.tls_keys.apply(std::mem::take(&mut self.tls))?;
        self.tls.check_files()
    }

    /// Changes the TLS settings.
    #[cfg(feature = "tls")]
    pub(in crate::server) fn change_tls(
        &mut self,
        change: impl FnOnce(TlsSettings) -> Result<TlsSettings, crate::Error>,
    ) -> Result<(), crate::Error> {
        self.tls = change(std::mem::take(&mut self.tls))?;
        Ok(())
    }
}
