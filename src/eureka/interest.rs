//! Part of the registry that is fetched: remote regions.

use super::EurekaBuilder;
use crate::config::ClientConfig;
use crate::error::Error;

impl EurekaBuilder {
    /// Sets the remote regions whose instances are fetched as well. Defaults to none.
    ///
    /// Their instances are kept apart. A name has those of the own [region](Self::region). If none
    /// of them has an accepted status, it has those of the first of these regions with such an
    /// instance. [`Snapshot::region`](crate::cache::Snapshot::region) returns the copy of a remote
    /// region.
    ///
    /// An instance belongs to a remote region if its data center is Amazon and its availability zone
    /// is one of that region, or if its metadata has a `zone` that
    /// [`availability_zones`](Self::availability_zones) lists for that region. The zones of
    /// `us-east-1`, `us-west-1`, `us-west-2` and `eu-west-1` are known. [`build`](Self::build)
    /// returns an error if those of another region are not listed, unless the registry servers come
    /// from DNS.
    ///
    /// The regions are those that the registry server copies, by the names that they have there.
    /// Names are compared without case. While the server has not fetched one of them yet, its other
    /// instances are used. Spring `eureka.client.fetch-remote-regions-registry`.
    pub fn regions(mut self, regions: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.config.regions.clear();
        self.config.regions.add(regions);
        self
    }
}

/// Determines the zones of the remote regions.
pub(super) fn prepare(config: &mut ClientConfig) -> Result<(), Error> {
    config.regions.find_zones(&config.servers.zones, config.servers.uses_dns)
}

#[cfg(test)]
mod tests {
    use crate::{Eureka, Settings};

    fn built(properties: &[&str]) -> Result<Eureka, String> {
        let arguments = properties.iter().map(|property| format!("--eureka.client.{property}"));
        let settings = Settings::builder().environment([("", ""); 0]).without_files().arguments(arguments).load();
        Eureka::builder_from(&settings.unwrap())
            .and_then(crate::EurekaBuilder::build)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn setting_names_remote_regions_with_known_zones() {
        let eureka =
            built(&["fetch-remote-regions-registry=us-west-2, mars", "availability-zones.mars=m1,m2"]).unwrap();
        let names = eureka.0.config.regions.names();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["us-west-2", "mars"]);
        let unknown = built(&["fetch-remote-regions-registry=mars"]).unwrap_err();
        assert!(unknown.contains("mars") && unknown.contains("eureka.client.availability-zones"), "{unknown}");
        assert!(built(&["fetch-remote-regions-registry=mars", "enabled=false"]).is_ok(), "it fetches nothing");
    }
}
