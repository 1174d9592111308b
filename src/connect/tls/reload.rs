use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

use super::files::TlsFiles;
use crate::sync::Mutex;

/// Minimum time between two readings of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// rustls configuration that is created from files, and again when their content changed.
///
/// New connections check the files, so nothing runs in the background. A new configuration also
/// has a new cache of TLS sessions, since a resumed session would keep the old identity.
#[derive(Default)]
pub(super) struct Reload {
    state: Mutex<State>,
    /// Held while the files are read.
    reading: Mutex<()>,
}

#[derive(Default)]
struct State {
    config: Option<Arc<ClientConfig>>,
    fingerprint: u64,
    /// Time of the last check.
    checked: Option<Instant>,
    /// Error of the last reading, if it failed.
    fault: Option<String>,
}

impl Reload {
    /// Returns the present configuration, unless the files are to be checked first. Until the check
    /// is complete, other callers receive the present configuration.
    pub(super) fn current(&self, files: &TlsFiles) -> Option<Arc<ClientConfig>> {
        let mut state = self.state.lock();
        let config = state.config.clone()?;
        let now = Instant::now();
        let is_due = !files.is_empty() && state.checked.is_none_or(|checked| now - checked >= CHECK_INTERVAL);
        if is_due {
            state.checked = Some(now);
        }
        (!is_due).then_some(config)
    }

    /// Reads the files and returns the configuration, which blocks for some milliseconds. A file
    /// that is unusable leaves the previous configuration in force and is reported once.
    ///
    /// # Errors
    /// When there is no previous configuration.
    pub(super) fn refresh(&self, files: &TlsFiles) -> Result<Arc<ClientConfig>, crate::Error> {
        let waiting_for_the_first = self.state.lock().config.is_none();
        let _reading = self.reading.lock();
        let (previous, fingerprint) = {
            let mut state = self.state.lock();
            state.checked = Some(Instant::now());
            (state.config.clone(), state.fingerprint)
        };
        if let Some(config) = previous.clone().filter(|_| waiting_for_the_first) {
            return Ok(config);
        }
        let read = files.read().and_then(|contents| {
            let unchanged = previous.clone().filter(|_| contents.fingerprint == fingerprint);
            let config = unchanged.map_or_else(|| files.config(&contents).map(Arc::new), Ok)?;
            Ok((config, contents.fingerprint))
        });
        let mut state = self.state.lock();
        match (read, previous) {
            (Ok((config, read)), previous) => {
                state.fault = None;
                if previous.is_some() && read != fingerprint {
                    tracing::info!("TLS files changed, using them for new connections");
                }
                (state.config, state.fingerprint) = (Some(config.clone()), read);
                Ok(config)
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(config)) => {
                let fault = error.to_string();
                if state.fault.as_ref() != Some(&fault) {
                    tracing::warn!(%error, "cannot use changed TLS files, keeping the previous ones");
                    state.fault = Some(fault);
                }
                Ok(config)
            }
        }
    }
}
