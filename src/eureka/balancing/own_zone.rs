//! Zone of this process, by its settings.

use std::sync::Arc;

use super::Balancing;
use crate::config::{InvalidSetting, Settings, Unit};

impl Balancing {
    /// Reads the zone of this process: that of its host name if the settings say so, else that in
    /// its metadata.
    pub(in crate::eureka) fn read_own_zone(&mut self, settings: &Settings) -> Result<(), InvalidSetting> {
        self.own_zone = if self.approximates_zone { Some(of_host(settings)?.into()) } else { in_metadata(settings)? };
        Ok(())
    }

    /// Sets the zone of this process, unless the settings have one.
    pub(in crate::eureka) fn or_own_zone(&mut self, zone: Option<&str>) {
        if self.own_zone.is_none() {
            self.own_zone = zone.map(Arc::from);
        }
    }
}

fn in_metadata(settings: &Settings) -> Result<Option<Arc<str>>, InvalidSetting> {
    for name in ["eureka.instance.metadata-map.zone", "eureka.metadata.zone"] {
        if let Some(zone) = settings.find(name, Unit::Text)? {
            return Ok(Some(zone.text().into()));
        }
    }
    Ok(None)
}

/// Returns the second part of the host name, as Spring does.
fn of_host(settings: &Settings) -> Result<String, InvalidSetting> {
    const FLAG: &str = "spring.cloud.loadbalancer.eureka.approximate-zone-from-hostname";
    let configured = settings.find("eureka.instance.hostname", Unit::Text)?.map(|value| value.text().to_owned());
    let host = configured.or_else(|| settings.host_name()).unwrap_or_default();
    let zone = host.split('.').nth(1).filter(|zone| !zone.is_empty());
    zone.map(str::to_owned).ok_or_else(|| {
        let cause = format!("cannot take the zone from the host name {host:?}: it has no dot");
        InvalidSetting::other(format!(
            "{FLAG}: {cause} (set eureka.instance.hostname or spring.cloud.loadbalancer.zone)"
        ))
    })
}
