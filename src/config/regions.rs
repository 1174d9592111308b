//! Remote regions whose instances a client fetches, and the region of an instance.

use std::collections::HashMap;
use std::sync::Arc;

use super::Zones;
use crate::error::{Error, Kind};
use crate::model::{DataCenter, Instance};

/// Zones of the regions that Java clients know without any setting.
const KNOWN_ZONES: [(&str, &str); 4] =
    [("us-east-1", "acde"), ("us-west-1", "ac"), ("us-west-2", "abc"), ("eu-west-1", "abc")];

/// Remote regions whose instances are fetched and kept apart.
///
/// An instance belongs to a remote region if its data center is Amazon and its availability zone is
/// one of that region. Outside of AWS, the zone in the metadata counts if the setting
/// `availability-zones` lists it for the region. All other instances belong to the own region.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteRegions {
    names: Vec<Arc<str>>,
    /// Position of the region in `names`, by zone in lower case. `None` is the own region.
    zones: HashMap<String, Option<usize>>,
    /// The zones among them that are configured. They also count for instances outside of AWS.
    configured: HashMap<String, Option<usize>>,
    own: String,
}

impl RemoteRegions {
    /// Adds regions. A region that is named twice is added once.
    pub(crate) fn add(&mut self, names: impl IntoIterator<Item = impl AsRef<str>>) {
        for name in names {
            let name = name.as_ref().trim();
            if !name.is_empty() && !self.names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                self.names.push(name.into());
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the names of the regions in the order of preference.
    pub(crate) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Determines the zones of each region.
    ///
    /// # Errors
    /// If the zones of a region are unknown, unless zones come from DNS.
    pub(crate) fn find_zones(&mut self, zones: &Zones, uses_dns: bool) -> Result<(), Error> {
        self.own = zones.region.trim().to_lowercase();
        for (at, name) in self.names.iter().enumerate() {
            let region = (!name.eq_ignore_ascii_case(&zones.region)).then_some(at);
            let configured: Vec<_> = zones.of(name).map(|zone| zone.trim().to_lowercase()).collect();
            let table = KNOWN_ZONES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            if configured.is_empty() && table.is_none() && region.is_some() && !uses_dns {
                return Err(Error::new(Kind::Config, "build client")
                    .cause(format!("the zones of the remote region {name} are unknown"))
                    .advice("list them in eureka.client.availability-zones.<region>"));
            }
            if configured.is_empty() {
                let letters = table.into_iter().flat_map(|(region, letters)| letters.chars().map(move |l| (region, l)));
                self.zones.extend(letters.map(|(known, letter)| (format!("{known}{letter}"), region)));
            }
            self.configured.extend(configured.iter().map(|zone| (zone.clone(), region)));
            self.zones.extend(configured.into_iter().map(|zone| (zone, region)));
        }
        Ok(())
    }

    /// Returns the position of the remote region of an instance. `None` is the own region.
    pub(crate) fn region_of(&self, instance: &Instance) -> Option<usize> {
        let Some(DataCenter::Amazon(_)) = &instance.data_center else {
            let zone = instance.metadata.get("zone")?.trim().to_lowercase();
            return self.configured.get(&zone).copied().flatten();
        };
        let zone = instance.data_center.as_ref()?.zone()?.to_lowercase();
        if let Some(region) = self.zones.get(&zone) {
            return *region;
        }
        // Zones of AWS are the name of the region and a letter.
        let (last, _) = zone.char_indices().next_back()?;
        let region = Some(&zone[..last]).filter(|region| *region != self.own)?;
        self.names.iter().position(|name| name.eq_ignore_ascii_case(region))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Metadata;

    fn regions(names: &[&str], configure: impl FnOnce(&mut Zones)) -> Result<RemoteRegions, Error> {
        let (mut zones, mut regions) = (Zones::default(), RemoteRegions::default());
        configure(&mut zones);
        regions.add(names);
        regions.find_zones(&zones, false).map(|()| regions)
    }

    fn amazon(zone: &str) -> Instance {
        let metadata: Metadata = [("availability-zone", zone)].into_iter().collect();
        Instance { data_center: Some(DataCenter::Amazon(metadata)), ..Instance::bare("ORDERS".into()) }
    }

    #[test]
    fn amazon_instance_is_in_the_region_of_its_zone() {
        let regions = regions(&["us-west-2", "Eu-West-1", "us-east-1", "us-west-2"], |_| {}).unwrap();
        assert_eq!(regions.names().len(), 3);
        for (zone, expected) in [
            ("us-west-2a", Some(0)),
            ("US-WEST-2C", Some(0)),
            ("us-west-2d", Some(0)),
            ("eu-west-1b", Some(1)),
            ("us-east-1c", None),
            ("us-east-1z", None),
            ("ap-south-1a", None),
            ("", None),
        ] {
            assert_eq!(regions.region_of(&amazon(zone)), expected, "{zone}");
        }
    }

    #[test]
    fn instance_outside_of_aws_is_remote_only_in_a_configured_zone() {
        let regions =
            regions(&["us-west-2", "berlin"], |zones| zones.set_zones("berlin".into(), "b1, defaultZone,b2")).unwrap();
        let in_zone = |zone: &str| Instance {
            data_center: Some(DataCenter::MyOwn),
            metadata: [("zone", zone)].into_iter().collect(),
            ..Instance::bare("ORDERS".into())
        };
        for (zone, expected) in [("B2", Some(1)), ("b3", None), ("us-west-2a", None), ("defaultZone", None)] {
            assert_eq!(regions.region_of(&in_zone(zone)), expected, "{zone}");
        }
        assert_eq!(regions.region_of(&Instance::bare("ORDERS".into())), None);
    }

    #[test]
    fn region_without_known_zones_is_an_error_that_names_the_setting() {
        let error = regions(&["us-west-2", "mars"], |_| {}).unwrap_err().to_string();
        assert!(error.contains("mars") && error.contains("availability-zones"), "{error}");
        assert!(regions(&["mars"], |zones| zones.set_zones("mars".into(), "m1")).is_ok());
    }
}
