//! Task that fetches the keys of tokens from a URL.

use std::sync::Arc;
use std::time::Duration;

use super::control::AccessControl;
use super::jwt::MAX_BYTES;
use crate::model::is_loopback;
use crate::server::audit::{Lasting, Ongoing};
use crate::server::outbound::Outbound;
use crate::transport::HttpStack;

/// Interval at which keys are fetched again.
const KEYS_INTERVAL: Duration = Duration::from_secs(300);
/// Minimum pause between two fetches, since any caller can send a token with an unknown key.
const KEYS_PAUSE: Duration = Duration::from_secs(10);

const UNUSABLE_URL: &str = "the URL of the keys of tokens is unusable";

/// Reads the URL of a set of keys. `http` is allowed for this machine, and for others if
/// `allows_insecure` is true.
///
/// # Errors
/// Returns the reason for which it is unusable.
pub(super) fn keys_uri(url: &str, allows_insecure: bool) -> Result<http::Uri, String> {
    let unusable = |cause: &str| Err(format!("{UNUSABLE_URL}: {cause}"));
    let Ok(uri) = url.parse::<http::Uri>() else { return unusable("it is no URL") };
    let is_local = uri.host().is_some_and(is_loopback);
    match uri.scheme_str() {
        Some("https") => {}
        // A node in between could replace the keys, and sign any token.
        Some("http") if is_local || allows_insecure => {}
        Some("http") => {
            return unusable(
                "it must begin with https://, except on this machine: if the network itself authenticates the \
                 server, as in a service mesh, set eureka.server.access.jwt.allow-insecure-keys-url=true",
            );
        }
        _ => return unusable("it must begin with https://"),
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return unusable("it must have no credentials");
    }
    Ok(uri)
}

/// Task that fetches the keys.
pub(super) struct KeyFetch {
    url: http::Uri,
    stack: HttpStack,
}

impl KeyFetch {
    /// Creates the task.
    ///
    /// # Errors
    /// Returns the reason for which the URL is unusable.
    pub(super) fn new(url: &str, allows_insecure: bool, outbound: &Outbound) -> Result<Self, String> {
        let uri = keys_uri(url, allows_insecure)?;
        if uri.scheme_str() == Some("https") {
            outbound.check_tls().map_err(|cause| format!("{UNUSABLE_URL}: {cause}"))?;
        } else if !uri.host().is_some_and(is_loopback) {
            tracing::warn!(
                url = %uri,
                "keys of tokens are fetched over plain HTTP: whoever can change the response may sign any token"
            );
        }
        Ok(Self { url: uri, stack: outbound.documents(MAX_BYTES) })
    }

    /// Fetches the keys now, at intervals, and when a token has an unknown key.
    pub(super) async fn run(self, control: Arc<AccessControl>) {
        let fault = Ongoing::default();
        let Some(jwt) = &control.jwt else { return };
        let mut last = bytes::Bytes::new();
        loop {
            let fetched = self.stack.document(&self.url).await;
            let keys =
                fetched.and_then(|body| if body == last { Ok(None) } else { Ok(Some((jwt.set_keys(&body)?, body))) });
            let url = &self.url;
            let pause = match keys {
                Ok(changed) => {
                    if let Some((count, body)) = changed {
                        tracing::info!(%url, count, "keys of tokens fetched");
                        last = body;
                        control.forget_tokens();
                    }
                    if let Some(Lasting { count, elapsed }) = fault.ended() {
                        tracing::info!(%url, count, ?elapsed, "keys of tokens can be fetched again");
                    }
                    KEYS_INTERVAL
                }
                Err(error) => {
                    if let Some(Lasting { count, elapsed }) = fault.occurred() {
                        tracing::warn!(%url, %error, count, ?elapsed, "cannot fetch the keys of tokens");
                    }
                    KEYS_PAUSE
                }
            };
            tokio::time::sleep(KEYS_PAUSE).await;
            let unknown = control.unknown_key.notified();
            let _ = tokio::time::timeout(pause - KEYS_PAUSE, unknown).await;
        }
    }
}

#[cfg(test)]
mod tests;
