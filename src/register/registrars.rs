use std::sync::{Arc, Weak};

use super::Registrar;
use super::drain::DrainConfig;
use super::paths::Paths;
use super::registrar::Shared;
use crate::config::RegistrarConfig;
use crate::error::Error;
use crate::sync::Mutex;

/// Registrars of one [`Eureka`](crate::Eureka) that still exist.
#[derive(Default)]
pub(crate) struct Registrars(Mutex<Vec<Weak<Shared>>>);

impl Registrars {
    pub(crate) fn add(&self, registrar: &Registrar) {
        let mut list = self.0.lock();
        list.retain(|shared| shared.strong_count() > 0);
        list.push(Arc::downgrade(&registrar.shared));
    }

    /// Deregisters the instances that are still registered.
    ///
    /// # Errors
    /// The first error. The other instances are deregistered nevertheless.
    pub(crate) async fn end(&self) -> Result<(), Error> {
        let (settings, config) = (RegistrarConfig::default(), DrainConfig::default());
        let registrar = |shared| Registrar { shared, config, settings: settings.clone(), uncounted: Paths::default() };
        let registrars: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).map(registrar).collect();
        let end = |registrar: Registrar| tokio::spawn(async move { registrar.end_registration().await });
        let ends: Vec<_> = registrars.into_iter().map(end).collect();
        let mut result = Ok(());
        for end in ends {
            // Only the end of the runtime cancels the task.
            result = result.and(end.await.unwrap_or(Ok(())));
        }
        result
    }
}
