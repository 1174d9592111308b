use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::mirror::shared;
use super::snapshot::Snapshot;
use crate::config::RemoteRegions;
use crate::model::Application;

/// Splits snapshots into the own region and the remote ones.
///
/// A server sends all of them in one list, over which the hash is computed. An application that did
/// not change is not split again.
#[derive(Debug, Default)]
pub(super) struct RegionSplit {
    regions: RemoteRegions,
    known: HashMap<Arc<str>, Split>,
}

/// An application, and its part in each region. The own region is the first.
#[derive(Debug)]
struct Split {
    whole: Arc<Application>,
    parts: Vec<Option<Arc<Application>>>,
}

impl RegionSplit {
    pub(super) fn new(regions: RemoteRegions) -> Self {
        Self { regions, known: HashMap::new() }
    }

    /// Returns the snapshot with the instances of remote regions kept apart.
    pub(super) fn split(&mut self, snapshot: Snapshot) -> Snapshot {
        let names = self.regions.names();
        if names.is_empty() {
            return snapshot;
        }
        let mut known = HashMap::with_capacity(snapshot.applications.len());
        let mut copies = vec![BTreeMap::new(); names.len() + 1];
        for (name, whole) in snapshot.applications {
            let split = match self.known.remove(&name) {
                Some(split) if Arc::ptr_eq(&split.whole, &whole) => split,
                before => Split::of(whole, &self.regions, before.as_ref()),
            };
            for (part, copy) in split.parts.iter().zip(&mut copies) {
                if let Some(part) = part {
                    copy.insert(name.clone(), part.clone());
                }
            }
            known.insert(name, split);
        }
        self.known = known;
        let mut copies = copies.into_iter().map(|applications| {
            // The index has the applications of all regions. Each look-up takes those of its own.
            Snapshot {
                applications,
                vips: snapshot.vips.clone(),
                regions: Arc::default(),
                names: snapshot.names.clone(),
            }
        });
        let own = copies.next().unwrap_or_default();
        Snapshot { regions: names.iter().cloned().zip(copies).collect(), ..own }
    }
}

impl Split {
    fn of(whole: Arc<Application>, regions: &RemoteRegions, before: Option<&Self>) -> Self {
        let mut instances = vec![Vec::new(); regions.names().len() + 1];
        for instance in &whole.instances {
            instances[regions.region_of(instance).map_or(0, |at| at + 1)].push(instance.clone());
        }
        let parts = instances.into_iter().enumerate().map(|(at, instances)| {
            if instances.len() == whole.instances.len() {
                return Some(whole.clone());
            }
            let known = before.and_then(|before| before.parts[at].as_ref());
            (!instances.is_empty()).then(|| shared(known, &whole.name, instances))
        });
        let parts = parts.collect();
        Self { whole, parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Zones;
    use crate::model::{DataCenter, Instance};

    fn application(ids: &[(&str, &str)]) -> Arc<Application> {
        let instance = |(id, zone): &(&str, &str)| {
            let metadata = [("availability-zone", *zone)].into_iter().collect();
            let data_center = Some(DataCenter::Amazon(metadata));
            Arc::new(Instance { instance_id: Some((*id).into()), data_center, ..Instance::bare("ORDERS".into()) })
        };
        Arc::new(Application { name: "ORDERS".into(), instances: ids.iter().map(instance).collect() })
    }

    fn snapshot(application: &Arc<Application>) -> Snapshot {
        let applications = BTreeMap::from([(application.name.clone(), application.clone())]);
        Snapshot { applications, ..Snapshot::default() }
    }

    fn ids(snapshot: &Snapshot) -> Vec<&str> {
        snapshot.application("orders").map_or_else(Vec::new, |app| app.instances.iter().map(|i| i.id()).collect())
    }

    #[test]
    fn copies_of_regions_are_apart_and_shared_while_unchanged() {
        let mut regions = RemoteRegions::default();
        regions.add(["us-west-2", "eu-west-1"]);
        regions.find_zones(&Zones::default(), false).unwrap();
        let mut split = RegionSplit::new(regions);
        let both = application(&[("a", "us-east-1a"), ("b", "us-west-2a")]);
        let first = split.split(snapshot(&both));
        assert_eq!(first.regions().collect::<Vec<_>>(), ["us-west-2", "eu-west-1"]);
        let west = first.region("US-West-2").unwrap();
        assert_eq!((ids(&first), ids(west), ids(first.region("eu-west-1").unwrap())), (vec!["a"], vec!["b"], vec![]));
        assert!(first.instance("orders", "b").is_some() && first.region("mars").is_none());

        let mut more = Application::clone(&both);
        more.instances.push(application(&[("c", "us-west-2b")]).instances[0].clone());
        let second = split.split(snapshot(&Arc::new(more)));
        assert_eq!(ids(second.region("us-west-2").unwrap()), ["b", "c"]);
        let own = |snapshot: &Snapshot| snapshot.application("orders").unwrap().clone();
        assert!(Arc::ptr_eq(&own(&first), &own(&second)), "the own region did not change");

        let local = application(&[("a", "us-east-1a")]);
        assert!(Arc::ptr_eq(&own(&split.split(snapshot(&local))), &local));
    }
}
