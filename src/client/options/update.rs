//! Change of options while calls are made.

use bytes::Buf;
use http_body::Body;
use tower::BoxError;

use crate::client::{CallOptions, EurekaService, HttpClient};

/// Options that change while calls are made.
impl<B> HttpClient<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Replaces the options of this client and its clones, for all applications.
    ///
    /// Calls in flight keep the options that they began with. Endpoints, their measurements and
    /// their ejections are kept, and so are connections unless the address, the version of HTTP,
    /// [`http2_connections`](CallOptions::http2_connections), the
    /// [removal grace](CallOptions::removal_grace) or the health check of an instance differ.
    ///
    /// ```no_run
    /// # fn example(client: &tower_eureka::client::HttpClient<http_body_util::Full<bytes::Bytes>>)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_eureka::Settings;
    /// use tower_eureka::client::CallOptions;
    ///
    /// // Reads application.yml again.
    /// client.set_options(CallOptions::from_settings(&Settings::load()?)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_options(&self, options: CallOptions) {
        self.routes.update_options(|_| options.clone());
    }

    /// Changes the options of this client and its clones, as
    /// [`set_options`](Self::set_options) does. `change` receives those of all applications, and
    /// may be called several times.
    ///
    /// To change the options of one application, return
    /// `options.application("orders", |options| ...)`. Each call adds a change for the application;
    /// [`without_application`](CallOptions::without_application) removes the earlier ones.
    pub fn update_options(&self, change: impl Fn(CallOptions) -> CallOptions) {
        self.routes.update_options(change);
    }
}

/// Options that change while calls are made.
impl<S: Clone + Send + Sync + 'static, F> EurekaService<S, F> {
    /// Replaces the options of this service and its clones, for all applications.
    ///
    /// Calls in flight keep the options that they began with. Endpoints, their measurements and
    /// their ejections are kept.
    pub fn set_options(&self, options: CallOptions) {
        self.routes.update_options(|_| options.clone());
    }

    /// Changes the options of this service and its clones, as [`set_options`](Self::set_options)
    /// does. `change` receives those of all applications, and may be called several times; see
    /// [`HttpClient::update_options`].
    pub fn update_options(&self, change: impl Fn(CallOptions) -> CallOptions) {
        self.routes.update_options(change);
    }
}

#[cfg(feature = "tonic")]
impl<B> crate::client::Named<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    pub(crate) fn update_options(&self, change: impl Fn(CallOptions) -> CallOptions) {
        self.routes.update_options(change);
    }
}
