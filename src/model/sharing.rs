//! Sharing of equal strings between instances.

use std::sync::Arc;

use super::{DataCenter, Instance, Metadata};

impl Instance {
    /// Returns the same instance with each string that equals the one of `other` shared with it.
    ///
    /// Instances of one application differ in a few strings only. An instance that was decoded from
    /// a delta otherwise keeps a copy of all of them.
    pub(crate) fn sharing(mut self, other: &Self) -> Self {
        share(&mut self.app, &other.app);
        for (mine, theirs) in [
            (&mut self.instance_id, &other.instance_id),
            (&mut self.host_name, &other.host_name),
            (&mut self.ip_addr, &other.ip_addr),
            (&mut self.sid, &other.sid),
            (&mut self.app_group, &other.app_group),
            (&mut self.home_page_url, &other.home_page_url),
            (&mut self.status_page_url, &other.status_page_url),
            (&mut self.health_check_url, &other.health_check_url),
            (&mut self.secure_health_check_url, &other.secure_health_check_url),
            (&mut self.vip_address, &other.vip_address),
            (&mut self.secure_vip_address, &other.secure_vip_address),
            (&mut self.asg_name, &other.asg_name),
        ] {
            if let (Some(mine), Some(theirs)) = (mine, theirs) {
                share(mine, theirs);
            }
        }
        self.metadata.share(&other.metadata);
        match (&mut self.data_center, &other.data_center) {
            (Some(DataCenter::Amazon(mine)), Some(DataCenter::Amazon(theirs))) => mine.share(theirs),
            (Some(DataCenter::Other(mine)), Some(DataCenter::Other(theirs))) => share(mine, theirs),
            _ => {}
        }
        self
    }
}

impl Metadata {
    fn share(&mut self, other: &Self) {
        if self == other {
            self.clone_from(other);
        } else {
            *self = self.map_entries(|key, value| match other.entry(key) {
                Some((shared, same)) if same == value => (shared.clone(), same.clone()),
                Some((shared, _)) => (shared.clone(), value.clone()),
                None => (key.clone(), value.clone()),
            });
        }
    }
}

fn share(mine: &mut Arc<str>, theirs: &Arc<str>) {
    if mine == theirs {
        mine.clone_from(theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_are_shared_and_others_stay() {
        let instance = |id: &str| {
            let built = Instance::builder("orders").id(id).ip_addr("10.0.0.1").port(80).metadata("zone", "a");
            let amazon = [("availability-zone", "a"), ("instance-id", id)].into_iter().collect();
            Instance { data_center: Some(DataCenter::Amazon(amazon)), ..built.metadata("id", id).build().unwrap() }
        };
        let (first, second) = (instance("1"), instance("2"));
        let shared = second.clone().sharing(&first);
        assert_eq!(shared, second);
        assert!(Arc::ptr_eq(&shared.app, &first.app));
        assert!(Arc::ptr_eq(shared.ip_addr.as_ref().unwrap(), first.ip_addr.as_ref().unwrap()));
        assert_eq!(shared.metadata.entry("zone").unwrap().1.as_ptr(), first.metadata.entry("zone").unwrap().1.as_ptr());
        assert_eq!(shared.metadata.entry("id").unwrap().0.as_ptr(), first.metadata.entry("id").unwrap().0.as_ptr());
        let again = first.clone().sharing(&first);
        assert_eq!(again, first);
    }
}
