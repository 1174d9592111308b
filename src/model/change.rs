use super::{Instance, LeaseInfo};

/// Difference between two states of an instance. Later variants have larger consequences; of
/// several differences, the one with the largest consequences counts.
///
/// ```
/// use tower_eureka::Instance;
/// use tower_eureka::model::InstanceChange;
///
/// let orders = || Instance::builder("orders").id("orders-1").ip_addr("10.20.0.1");
/// let known = orders().port(8080).build()?;
/// let weighted = orders().port(8080).metadata("weight", "2").build()?;
/// let moved = orders().port(8081).build()?;
/// assert_eq!(known.change_since(&known), InstanceChange::None);
/// assert_eq!(weighted.change_since(&known), InstanceChange::Details);
/// assert_eq!(moved.change_since(&known), InstanceChange::Address);
/// # Ok::<(), tower_eureka::model::InvalidInstance>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum InstanceChange {
    /// Nothing that concerns a caller: a renewed lease or other timestamps.
    None,
    /// Data that load balancing uses, such as weight, zone, version or status. Connections and
    /// measurements stay valid.
    Details,
    /// Another process at the same address. Connections are broken, and measurements are void.
    Restarted,
    /// Another host name, IP address or port.
    Address,
}

impl Instance {
    /// Compares this state of an instance with an earlier state of it.
    ///
    /// No field of the protocol marks a new process. An instance counts as
    /// [restarted](InstanceChange::Restarted) if its version,
    /// [`last_dirty_timestamp`](Self::last_dirty_timestamp), is newer and one of these holds:
    ///
    /// * [`up_since_ms`](Self::up_since_ms) is newer, too: the registry had no lease of the
    ///   instance when it registered.
    /// * Nothing else changed, and the versions are more than a lease apart: the process crashed
    ///   and restarted before the registry noticed. Within a lease, the client may be one that
    ///   registers instead of sending heartbeats.
    ///
    /// A version that is newer because status or metadata changed is not a restart. Neither is a
    /// different `up_since_ms` alone, since each server of a cluster has its own. An instance that
    /// registers again because the *registry* lost its lease cannot be distinguished from one that
    /// restarted.
    pub fn change_since(&self, known: &Self) -> InstanceChange {
        let details = self.differs_in_details(known);
        if self.differs_in_address(known) {
            InstanceChange::Address
        } else if self.restarted_since(known, details) {
            InstanceChange::Restarted
        } else if details {
            InstanceChange::Details
        } else {
            InstanceChange::None
        }
    }

    fn differs_in_address(&self, known: &Self) -> bool {
        self.host_name != known.host_name
            || self.ip_addr != known.ip_addr
            || self.port != known.port
            || self.secure_port != known.secure_port
    }

    fn differs_in_details(&self, known: &Self) -> bool {
        self.status != known.status
            || self.metadata != known.metadata
            || self.data_center != known.data_center
            || self.health_check_url != known.health_check_url
            || self.secure_health_check_url != known.secure_health_check_url
    }

    fn restarted_since(&self, known: &Self, details: bool) -> bool {
        let newer_by = match (self.last_dirty_timestamp, known.last_dirty_timestamp) {
            (Some(now), Some(then)) => now.saturating_sub(then),
            _ => 0,
        };
        let registered_anew = self.up_since_ms().zip(known.up_since_ms()).is_some_and(|(now, then)| now > then);
        let lease = known.lease.map_or(LeaseInfo::DEFAULT_DURATION_SECS, |lease| lease.duration_secs);
        newer_by > 0 && (registered_anew || (!details && newer_by > i64::from(lease) * 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceStatus, Metadata};

    /// Instance that is UP since second 100 and last changed its own data at `second`.
    fn changed_at(second: i64) -> Instance {
        let lease = LeaseInfo { service_up_timestamp: 100_000, ..LeaseInfo::default() };
        Instance { last_dirty_timestamp: Some(second * 1000), lease: Some(lease), ..Instance::bare("ORDERS".into()) }
    }

    fn up_since(second: i64, instance: Instance) -> Instance {
        let lease = LeaseInfo { service_up_timestamp: second * 1000, ..instance.lease.unwrap() };
        Instance { lease: Some(lease), ..instance }
    }

    #[test]
    fn change_is_a_restart_only_with_a_newer_version() {
        let known = changed_at(99);
        let version = || Metadata::from_iter([("version", "2")]);
        let cases = [
            ("a heartbeat", changed_at(99), InstanceChange::None),
            ("another server of the cluster", up_since(150, changed_at(99)), InstanceChange::None),
            ("a server that is behind", up_since(150, changed_at(90)), InstanceChange::None),
            ("stopped and started", up_since(500, changed_at(499)), InstanceChange::Restarted),
            ("crashed and back within its lease", changed_at(499), InstanceChange::Restarted),
            ("registers instead of heartbeats", changed_at(129), InstanceChange::None),
            ("new metadata", Instance { metadata: version(), ..changed_at(499) }, InstanceChange::Details),
            (
                "another version of the program",
                up_since(500, Instance { metadata: version(), ..changed_at(499) }),
                InstanceChange::Restarted,
            ),
            ("went down", Instance { status: InstanceStatus::Down, ..changed_at(499) }, InstanceChange::Details),
            ("no version", Instance { last_dirty_timestamp: None, ..changed_at(0) }, InstanceChange::None),
            ("moved", Instance { host_name: Some("b".into()), ..changed_at(499) }, InstanceChange::Address),
        ];
        for (what, now, expected) in cases {
            assert_eq!(now.change_since(&known), expected, "{what}");
        }
    }

    #[test]
    fn first_change_to_up_is_no_restart() {
        let starting = up_since(0, Instance { status: InstanceStatus::Starting, ..changed_at(99) });
        assert_eq!(changed_at(100).change_since(&starting), InstanceChange::Details);
    }

    #[test]
    fn weight_that_is_no_positive_java_int_counts_as_one() {
        let with = |weight| Instance { metadata: Metadata::from_iter([("weight", weight)]), ..changed_at(0) };
        for (weight, expected) in
            [("3", 3), (" 3 ", 3), ("\t3\n", 3), ("+3", 3), ("\u{a0}3\u{2003}", 3), ("2147483647", 2_147_483_647)]
        {
            assert_eq!(with(weight).weight(), expected, "{weight:?}");
        }
        for weight in [
            "0",
            "-2",
            "1.5",
            "3.0",
            "1e3",
            "NaN",
            "inf",
            "0x3",
            "many",
            "",
            " ",
            "2147483648",
            "4000000000",
            "4294967296",
        ] {
            assert_eq!(with(weight).weight(), 1, "{weight:?}");
        }
        assert_eq!(changed_at(0).weight(), 1);
    }

    #[test]
    fn zone_is_trimmed_and_a_blank_one_is_none() {
        let with = |zone| Instance { metadata: Metadata::from_iter([("zone", zone)]), ..changed_at(0) };
        let amazon = |zone: &str| super::super::DataCenter::Amazon([("availability-zone", zone)].into_iter().collect());
        let in_cloud = |instance: Instance, zone| Instance { data_center: Some(amazon(zone)), ..instance };
        for zone in ["rack-a", " rack-a ", "\track-a\n", "\u{a0}rack-a\u{2003}"] {
            assert_eq!(with(zone).zone(), Some("rack-a"), "{zone:?}");
            assert_eq!(in_cloud(with(zone), "us-east-1c").zone(), Some("rack-a"), "{zone:?}");
            assert_eq!(in_cloud(changed_at(0), zone).zone(), Some("rack-a"), "{zone:?}");
        }
        for blank in ["", " ", "\t\n", "\u{a0}\u{2003}"] {
            assert_eq!(with(blank).zone(), None, "{blank:?}");
            assert_eq!(in_cloud(with(blank), " us-east-1c ").zone(), Some("us-east-1c"), "{blank:?}");
            assert_eq!(in_cloud(with(blank), blank).zone(), None, "{blank:?}");
        }
        assert_eq!(changed_at(0).zone(), None);
    }

    #[test]
    fn vips_are_split_at_commas_and_trimmed() {
        let instance = Instance { vip_address: Some(" orders, ,Orders-V2,".into()), ..changed_at(0) };
        assert_eq!(instance.vips().collect::<Vec<_>>(), ["orders", "Orders-V2"]);
        assert_eq!(instance.secure_vips().count(), 0);
    }
}
