use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tower::BoxError;

use crate::secret::Secret;

/// Credentials for registry servers whose URL has none.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    Basic(HeaderValue),
    Bearer(TokenProvider),
}

type Provide = dyn Fn() -> Pin<Box<dyn Future<Output = Result<BearerToken, BoxError>> + Send>> + Send + Sync;

/// The user's function that returns a new token.
#[derive(Clone)]
pub(crate) struct TokenProvider(Arc<Provide>);

impl TokenProvider {
    pub(crate) fn new<F, R, T, E>(provide: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<BearerToken>,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let provided = provide();
            Box::pin(async move { provided.await.map(Into::into).map_err(Into::into) })
        }))
    }

    /// Calls the user's function.
    pub(crate) async fn provide(&self) -> Result<BearerToken, BoxError> {
        // Called within the future, so that a panic of the function itself is one of the future.
        (self.0)().await
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider")
    }
}

/// Bearer token for registry servers. `Debug` does not show it.
///
/// Returned by the function that is passed to
/// [`EurekaBuilder::bearer_token`](crate::EurekaBuilder::bearer_token).
#[derive(Clone, Debug)]
pub struct BearerToken {
    token: Secret,
    lifetime: Option<Duration>,
}

impl BearerToken {
    /// Creates a token that is used until a server rejects it with 401. It is sent as it is, after
    /// the word `Bearer`.
    pub fn new(token: impl Into<String>) -> Self {
        Self { token: Secret::new(token), lifetime: None }
    }

    /// Sets the time after which the token is not used any more, as `expires_in` of OAuth 2.0.
    /// Defaults to no limit.
    pub fn expires_in(self, lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime), ..self }
    }

    /// Returns the token.
    pub(crate) fn secret(&self) -> &str {
        self.token.expose()
    }

    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }
}

impl From<String> for BearerToken {
    fn from(token: String) -> Self {
        Self::new(token)
    }
}

impl From<&str> for BearerToken {
    fn from(token: &str) -> Self {
        Self::new(token)
    }
}
