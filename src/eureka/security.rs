//! Access to registry servers: proxies, credentials and TLS.

use std::fmt;
#[cfg(feature = "tls")]
use std::path::Path;
#[cfg(feature = "tls")]
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
#[cfg(feature = "tls")]
use tokio_rustls::rustls;
use tower::BoxError;

use super::EurekaBuilder;
use crate::config::{BearerToken, ClientConfig, Credentials, TlsKeys, TokenProvider, shown};
#[cfg(feature = "tls")]
use crate::connect::Store;
#[cfg(feature = "tls")]
use crate::connect::TlsSettings;
use crate::connect::{Direct, Proxies};
use crate::error::{Error, Kind};
use crate::secret::{Secret, basic};

/// Settings that `build` combines, since several of them belong together.
#[derive(Default)]
pub(super) struct Security {
    /// Proxy that was set in code.
    proxy: Option<Result<Proxies, &'static str>>,
    direct: Option<Direct>,
    /// Settings of a proxy under Spring's names.
    pub(super) proxy_host: Option<String>,
    pub(super) proxy_port: Option<u16>,
    pub(super) proxy_user: Option<String>,
    pub(super) proxy_password: Option<Secret>,
    pub(super) tls: TlsKeys,
}

/// Omits the user of the proxy, which may be a secret as well, and credentials in its host.
impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, direct, proxy_host, proxy_port, tls, .. } = self;
        let mut debug = f.debug_struct("Security");
        let host = proxy_host.as_deref().map(|host| shown(host).unwrap_or("***"));
        debug.field("proxy", proxy).field("direct", direct).field("proxy_host", &host);
        debug.field("proxy_port", proxy_port).field("tls", tls).finish_non_exhaustive()
    }
}

impl Security {
    /// Completes the configuration.
    ///
    /// # Errors
    /// When a setting is unusable.
    pub(super) fn apply(&self, config: &mut ClientConfig, has_service: bool) -> Result<(), Error> {
        let environment = std::mem::take(&mut config.proxies);
        let chosen = match (&self.proxy, self.proxy_host.as_deref()) {
            (Some(Ok(proxies)), _) => Some(environment.clone().with_same_proxy(proxies)),
            (Some(Err(why)), _) => {
                return Err(invalid("build client", format!("the URL of proxy() is unusable: {why}"))
                    .advice("write it like http://user:password@proxy.example:3128"));
            }
            (None, Some(host)) => Some(self.by_key(environment.clone(), host)?),
            (None, None) => None,
        };
        if chosen.is_none() && (self.proxy_port.is_some() || self.proxy_user.is_some() || self.proxy_password.is_some())
        {
            tracing::warn!("eureka.client.proxy-* has no effect without eureka.client.proxy-host");
        }
        if chosen.is_some() && has_service {
            return Err(invalid("build client", "a proxy and an HTTP service are both set".into())
                .advice("let the service of http_service() use the proxy"));
        }
        let proxies = chosen.unwrap_or(environment);
        config.proxies = match &self.direct {
            Some(direct) => proxies.with_direct(direct.clone()),
            None => proxies,
        };
        if !has_service {
            check_proxies(config)?;
        }
        config.tls = self.tls.apply(std::mem::take(&mut config.tls))?;
        config.tls.check_files()
    }

    fn by_key(&self, proxies: Proxies, host: &str) -> Result<Proxies, Error> {
        let port = self.proxy_port.ok_or_else(|| {
            invalid("read settings", "eureka.client.proxy-host is set without eureka.client.proxy-port".into())
                .advice("set the port of the proxy as well")
        })?;
        let (user, password) = (self.proxy_user.as_deref(), self.proxy_password.as_ref().map(Secret::expose));
        if user.is_none() && password.is_some() {
            tracing::warn!("eureka.client.proxy-password has no effect without eureka.client.proxy-user-name");
        }
        let credentials = user.map(|user| (user, password.unwrap_or_default()));
        let host = host.trim();
        proxies.with_host("eureka.client.proxy-host", host, port, credentials).map_err(|why| {
            invalid("read settings", format!("eureka.client.proxy-host is unusable: {why}"))
                .advice("give the name or address alone, and the port in eureka.client.proxy-port")
        })
    }
}

/// Verifies the proxies of the servers that are known already, and logs them.
fn check_proxies(config: &ClientConfig) -> Result<(), Error> {
    let mut logged = Vec::new();
    for server in &config.service_urls {
        let uri = server.as_str().parse().unwrap_or_default();
        let Some(proxy) = config.proxies.of(&uri) else { continue };
        let target = proxy.target().map_err(|why| invalid("build client", why).server(server.as_str().clone()))?;
        if !logged.contains(&proxy.setting()) {
            logged.push(proxy.setting());
            tracing::info!(server = %server.as_str(), proxy = %target, setting = proxy.setting(), "using a proxy");
        }
    }
    Ok(())
}

fn invalid(operation: &'static str, cause: String) -> Error {
    Error::new(Kind::Config, operation).cause(cause)
}

/// Proxies, credentials and TLS.
impl EurekaBuilder {
    /// Sets the HTTP proxy for requests to registry servers, such as `http://proxy.example:3128`.
    /// Defaults to no proxy; see [`proxy_from_env`](Self::proxy_from_env).
    ///
    /// Requests to `http` servers are forwarded by the proxy. Connections to `https` servers go
    /// through a tunnel (`CONNECT`), so that the proxy sees host and port only. Credentials for the
    /// proxy are part of its URL, as for [`service_url`](Self::service_url). Servers on loopback
    /// are called without the proxy; see [`no_proxy`](Self::no_proxy). Calls to instances never use
    /// a proxy.
    ///
    /// [`build`](Self::build) returns the error of an unusable URL. Proxies that require TLS
    /// (`https://`) or SOCKS are not supported.
    pub fn proxy(mut self, url: impl AsRef<str>) -> Self {
        self.security.proxy = Some(Proxies::default().with_url("proxy()", url.as_ref()));
        self
    }

    /// Uses the proxies that the environment of the process names: `HTTPS_PROXY` for `https`
    /// servers, `HTTP_PROXY` for `http` servers, `ALL_PROXY` for both, and `NO_PROXY` for the hosts
    /// that are called without a proxy. Each name may be in lower case; upper case has precedence.
    ///
    /// Builders that are made from settings use these variables without this method. A proxy that
    /// is set in code or as `eureka.client.proxy-host` has precedence, and `NO_PROXY` applies to it
    /// as well. [`build`](Self::build) returns an error if a service URL needs a proxy whose
    /// variable is unusable.
    pub fn proxy_from_env(mut self) -> Self {
        self.config.proxies = Proxies::from_env(&|name| std::env::var(name).ok());
        self
    }

    /// Sets the hosts that are called without a proxy. Defaults to those of `NO_PROXY`, if
    /// [`proxy_from_env`](Self::proxy_from_env) is used, and all hosts on loopback.
    ///
    /// The list has the form of `NO_PROXY`: names, addresses and networks (`10.0.0.0/8`), separated
    /// by commas. A name stands for the names below it as well. An entry may end in a port, and `*`
    /// stands for all hosts. It replaces the default, so an empty list uses the proxy for loopback,
    /// too.
    pub fn no_proxy(mut self, hosts: impl AsRef<str>) -> Self {
        self.security.direct = Some(Direct::only(hosts.as_ref()));
        self
    }

    /// Sets Basic credentials for all registry servers whose URL has none. They need no encoding.
    ///
    /// [`build`](Self::build) returns an error if the user contains a colon, or if a
    /// [`bearer_token`](Self::bearer_token) was set before.
    pub fn basic_auth(self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let user = user.as_ref();
        if user.contains(':') {
            let error = invalid("build client", "the user of basic_auth() contains a colon".into());
            return self.with_error(error.advice("Basic credentials cannot have a user with a colon"));
        }
        let header = basic(user, password.as_ref());
        self.credentials(Credentials::Basic(header))
    }

    /// Sets the function that returns a bearer token for all registry servers whose URL has no
    /// credentials.
    ///
    /// The function is called when the first request is sent. Its token is used until it expires
    /// ([`BearerToken::expires_in`]) or until a server responds with 401. The rejected request is
    /// then sent once more with a new token. If that is rejected as well, the function is called
    /// again after 1 second at the earliest, and after ever longer pauses up to 60 seconds while
    /// its tokens are rejected. At most one call runs at a time. If the function fails, panics, or
    /// takes longer than a registry server may take to connect and respond (13 seconds by default),
    /// the operation fails with an error that contains the function's own error. A failed call is
    /// repeated after one second at the earliest.
    ///
    /// [`build`](Self::build) returns an error if [`basic_auth`](Self::basic_auth) was set before.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_eureka::{BearerToken, Eureka};
    ///
    /// # async fn request_token() -> std::io::Result<String> { Ok("token".into()) }
    /// let eureka = Eureka::builder()
    ///     .service_url("https://registry.example/eureka/")
    ///     .bearer_token(|| async {
    ///         let token = request_token().await?;
    ///         Ok::<_, std::io::Error>(BearerToken::new(token).expires_in(Duration::from_secs(300)))
    ///     });
    /// ```
    pub fn bearer_token<F, R, T, E>(self, provider: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<BearerToken>,
        E: Into<BoxError>,
    {
        self.credentials(Credentials::Bearer(TokenProvider::new(provider)))
    }

    fn credentials(mut self, credentials: Credentials) -> Self {
        use Credentials::{Basic, Bearer};
        if let (Some(Basic(_)), Bearer(_)) | (Some(Bearer(_)), Basic(_)) = (&self.config.credentials, &credentials) {
            let error = invalid("build client", "basic_auth() and bearer_token() are both set".into());
            return self.with_error(error.advice("remove one of them"));
        }
        self.config.credentials = Some(credentials);
        self
    }

    /// Adds a header to each request to a registry server, for example `x-api-key`. A second value
    /// for the same name replaces the first.
    ///
    /// The value is treated as a secret: it is never displayed, and a redirect to another host does
    /// not take it there. [`build`](Self::build) returns the error of an invalid name or value.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let parsed = HeaderName::try_from(name.as_ref()).ok().zip(HeaderValue::try_from(value.as_ref()).ok());
        let Some((name, mut value)) = parsed else {
            let error = invalid("build client", "the name or value of header() is no valid header".into());
            return self.with_error(error.advice("use visible ASCII characters"));
        };
        value.set_sensitive(true);
        self.config.headers.retain(|(known, _)| *known != name);
        self.config.headers.push((name, value));
        self
    }

    /// Keeps the first error, which `build` returns.
    fn with_error(mut self, error: Error) -> Self {
        self.error = self.error.or(Some(error));
        self
    }

    /// Sets the TLS configuration (rustls 0.23) for registry servers and instances, for example to
    /// use another crypto provider. Only its list of ALPN protocols is replaced, by the HTTP
    /// version of each call.
    ///
    /// Defaults to TLS 1.2 and 1.3 without a client certificate. The default trusts the CAs of the
    /// operating system, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, and uses the
    /// default crypto provider of the process, else ring.
    ///
    /// [`build`](Self::build) returns an error if one of the methods for files is called as well.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_config(self, config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        self.with_tls(|tls| tls.with_config(config.into()))
    }

    /// Trusts the CAs in this PEM file, for registry servers and instances, instead of the CAs of
    /// the operating system. Call it again to add further files.
    ///
    /// [`build`](Self::build) reads the file, and returns the error if that fails. A new connection
    /// reads it again if it was not read for 5 seconds, so a changed file is used without a
    /// restart. If a changed file is unusable, its previous content stays in effect, and a warning
    /// is logged.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_ca_file(self, path: impl AsRef<Path>) -> Self {
        self.with_tls(|tls| tls.add_ca_file(path.as_ref()))
    }

    /// Sets the PEM files with the certificate chain of this client and with its private key, for
    /// registry servers and instances that request a client certificate. Both may be one file.
    /// Defaults to no certificate.
    ///
    /// The certificate of the client comes first in the chain. The key is not encrypted. The files
    /// are read as [those of CAs](Self::tls_ca_file), also again after a change. While only one of
    /// the two files has been replaced, the previous certificate stays in effect.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_identity_file(self, certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.with_tls(|tls| tls.with_identity_file(certificates.as_ref(), key.as_ref()))
    }

    /// Sets the key store with the certificate chain and private key of this client, as
    /// [`tls_identity_file`](Self::tls_identity_file) does for PEM files.
    ///
    /// The store is a PKCS#12 file (feature `pkcs12`) or a PEM file with both. If it has several
    /// keys, the first by alias is used. A JKS store is an error that names the command to convert
    /// it.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_key_store(self, path: impl AsRef<Path>, password: impl Into<String>) -> Self {
        self.with_tls(|tls| tls.with_key_store(Store::new(path.as_ref(), Secret::new(password))))
    }

    /// Trusts the CAs in this store, as [`tls_ca_file`](Self::tls_ca_file) does for PEM files.
    ///
    /// The store is a PKCS#12 file (feature `pkcs12`) or a PEM file. All its certificates are
    /// trusted that belong to no key.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_trust_store(self, path: impl AsRef<Path>, password: impl Into<String>) -> Self {
        self.with_tls(|tls| tls.add_trust_store(Store::new(path.as_ref(), Secret::new(password))))
    }

    #[cfg(feature = "tls")]
    fn with_tls(mut self, change: impl FnOnce(TlsSettings) -> Result<TlsSettings, Error>) -> Self {
        match change(std::mem::take(&mut self.config.tls)) {
            Ok(tls) => self.config.tls = tls,
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }
}

#[cfg(test)]
mod tests;
