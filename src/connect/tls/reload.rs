use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::dispatcher;

use super::files::{ConfigFiles, Contents};
use crate::error::Error;
use crate::sync::{Mutex, offload};

/// Minimum time between two readings of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// rustls configuration that is created from files, and again when their content changed.
///
/// New connections check the files, and so does a listener that requests client certificates. A new
/// configuration also has a new cache of TLS sessions, since a resumed session would keep the old
/// identity.
pub(super) struct Reload<F: ConfigFiles> {
    files: F,
    state: Mutex<State<F::Config>>,
    /// Held while the files are read.
    reading: Mutex<()>,
    /// Changes with each new configuration after the first.
    changes: watch::Sender<()>,
}

struct State<C> {
    config: Option<Arc<C>>,
    fingerprint: u64,
    /// Time of the last check.
    checked: Option<Instant>,
    /// Error of the last reading, if it failed.
    fault: Option<String>,
}

impl<F: ConfigFiles> Reload<F> {
    pub(super) fn new(files: F) -> Self {
        let state = State { config: None, fingerprint: 0, checked: None, fault: None };
        Self { files, state: Mutex::new(state), reading: Mutex::default(), changes: watch::Sender::new(()) }
    }

    pub(super) fn files(&self) -> &F {
        &self.files
    }

    /// Returns a receiver that is notified of each new configuration from now on.
    #[cfg(feature = "server")]
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Returns the configuration for a new connection. Reads the files again if they were not read
    /// for some seconds.
    ///
    /// # Errors
    /// When a file is unusable and there is no previous configuration.
    pub(super) async fn config(self: &Arc<Self>) -> Result<Arc<F::Config>, Error> {
        if let Some(config) = self.current() {
            return Ok(config);
        }
        let reload = self.clone();
        // The log lines go to the subscriber of this task.
        let dispatch = dispatcher::get_default(Clone::clone);
        offload(move || dispatcher::with_default(&dispatch, || reload.refresh())).await
    }

    /// Returns the present configuration, unless the files are to be checked first. Until the check
    /// is complete, other callers receive the present configuration, however long a file system
    /// takes.
    pub(super) fn current(&self) -> Option<Arc<F::Config>> {
        let mut state = self.state.lock();
        let config = state.config.clone()?;
        let now = Instant::now();
        let is_old = state.checked.is_none_or(|checked| now - checked >= CHECK_INTERVAL);
        let is_due = is_old && !self.files.paths().is_empty() && self.reading.try_lock().is_some();
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
    pub(super) fn refresh(&self) -> Result<Arc<F::Config>, Error> {
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
        let read = Contents::read(&self.files).and_then(|contents| {
            let unchanged = previous.clone().filter(|_| contents.fingerprint == fingerprint);
            let config = unchanged.map_or_else(|| self.files.config(&contents).map(Arc::new), Ok)?;
            Ok((config, contents.fingerprint))
        });
        let mut state = self.state.lock();
        match (read, previous) {
            (Ok((config, read)), previous) => {
                let had_fault = state.fault.take().is_some();
                if previous.is_some() && read != fingerprint {
                    tracing::info!("TLS files changed, using them for new connections");
                    self.changes.send_replace(());
                } else if had_fault {
                    tracing::info!("TLS files are as before");
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A file that is read at any place where the test runs.
    struct NoContent;

    impl ConfigFiles for NoContent {
        type Config = ();

        fn paths(&self) -> Vec<&Path> {
            vec![Path::new("Cargo.toml")]
        }

        fn config(&self, _: &Contents) -> Result<(), Error> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn check_that_takes_long_keeps_the_configuration_and_has_no_second_one_beside_it() {
        let reload = Reload::new(NoContent);
        reload.refresh().unwrap();
        tokio::time::advance(CHECK_INTERVAL).await;
        let reading = reload.reading.lock();
        assert!(reload.current().is_some());
        drop(reading);
        assert!(reload.current().is_none(), "the files are due");
    }
}
