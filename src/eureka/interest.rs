//! Part of the registry that is fetched: the names in use, and remote regions.

use super::EurekaBuilder;
use crate::config::{ClientConfig, Interest, InvalidSetting, Value};
use crate::error::{Error, Kind};

impl EurekaBuilder {
    /// Sets the part of the registry that is fetched. Defaults to [`Interest::All`], as in Java.
    ///
    /// ```
    /// use tower_eureka::{Eureka, Interest};
    ///
    /// let builder = Eureka::builder().service_url("http://localhost:8761/eureka/");
    /// let eureka = builder.interest(Interest::Used).build()?;
    /// # Ok::<(), tower_eureka::Error>(())
    /// ```
    ///
    /// With [`Interest::Used`], [`Eureka::snapshot`](crate::Eureka::snapshot) has the names in use
    /// only. The first call to a name waits for its fetch, at most for the
    /// [ready timeout](Self::ready_timeout). [`Eureka::preload`](crate::Eureka::preload) fetches
    /// names before, and keeps them.
    ///
    /// [`build`](Self::build) returns an error if [`Interest::Vip`] is not one VIP address. Spring
    /// `eureka.client.registry-refresh-single-vip-address`.
    pub fn interest(mut self, interest: Interest) -> Self {
        self.config.interest = interest;
        self
    }

    /// Sets the remote regions whose instances are fetched as well. Defaults to none.
    ///
    /// Their instances are kept apart. A name has those of the own [region](Self::region). If none
    /// of them has an accepted status, it has those of the first of these regions with such an
    /// instance. [`Snapshot::region`](crate::cache::Snapshot::region) returns the copy of a remote
    /// region.
    ///
    /// An instance belongs to a remote region if its data center is Amazon and its availability
    /// zone is one of that region, or if its metadata has a `zone` that
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

/// Checks the interest, and determines the zones of the remote regions.
pub(super) fn prepare(config: &mut ClientConfig) -> Result<(), Error> {
    if let Interest::Vip(vip) = &config.interest {
        let refused = |cause: &str| Error::new(Kind::Config, "build client").app(vip.as_str()).cause(cause);
        if vip.trim().is_empty() || vip.chars().any(char::is_control) {
            let error = refused("the interest is not a VIP address");
            return Err(error.advice("it must not be empty or contain control characters"));
        }
        if vip.contains(',') {
            let error = refused("the interest is a list of VIP addresses");
            return Err(error.advice("name one of them, or use Interest::Used to fetch several names"));
        }
    }
    config.regions.find_zones(&config.servers.zones, config.servers.uses_dns)
}

/// Sets the only VIP address that is fetched. An empty value has no effect, as in Java.
pub(super) fn single_vip(builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    let vip = value.text().trim();
    if vip.contains(',') {
        return Err(value.invalid("one VIP address"));
    }
    Ok(if vip.is_empty() { builder } else { builder.interest(Interest::Vip(vip.to_owned())) })
}

#[cfg(test)]
mod tests {
    use crate::{Eureka, Interest, Settings};

    fn built(properties: &[&str]) -> Result<Eureka, String> {
        let arguments = properties.iter().map(|property| format!("--eureka.client.{property}"));
        let settings = Settings::builder().environment([("", ""); 0]).without_files().arguments(arguments).load();
        Eureka::builder_from(&settings.unwrap())
            .and_then(crate::EurekaBuilder::build)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn settings_choose_one_vip_address_and_remote_regions() {
        let eureka = built(&[
            "registry-refresh-single-vip-address= Orders ",
            "fetch-remote-regions-registry=us-west-2, mars",
            "availability-zones.mars=m1,m2",
        ]);
        let config = &eureka.unwrap().0.config;
        assert_eq!(config.interest, Interest::Vip("Orders".into()));
        assert_eq!(config.regions.names().iter().map(|name| &**name).collect::<Vec<_>>(), ["us-west-2", "mars"]);
        let config = &built(&["registry-refresh-single-vip-address="]).unwrap().0.config;
        assert_eq!(config.interest, Interest::All);
    }

    #[test]
    fn unusable_interest_or_region_is_an_error_that_names_it() {
        let error = |properties: &[&str]| built(properties).unwrap_err();
        assert!(error(&["registry-refresh-single-vip-address=a,b"]).contains("registry-refresh-single-vip-address"));
        let unknown = error(&["fetch-remote-regions-registry=mars"]);
        assert!(unknown.contains("mars") && unknown.contains("eureka.client.availability-zones"), "{unknown}");
        for vip in ["", " ", "a,b", "a\n"] {
            let builder = Eureka::builder().service_url("http://registry/").interest(Interest::Vip(vip.into()));
            assert!(builder.build().is_err(), "{vip:?}");
        }
        let off = Eureka::builder().enabled(false).interest(Interest::Vip(String::new()));
        assert!(off.build().is_ok(), "a client that is off has no settings to check");
    }
}
