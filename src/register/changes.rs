use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Registrar;
use super::agent::{Action, Change};
use crate::error::{Error, Kind};
use crate::model::{InstanceStatus, LeaseInfo, check_address};

/// Changes of a registered instance.
impl Registrar {
    /// Sets the instance's own status: UP, DOWN, STARTING or OUT_OF_SERVICE.
    ///
    /// OUT_OF_SERVICE is set as an override, which another status removes. An instance whose
    /// [health check](Self::health) is DOWN stays DOWN. Setting the same status again sends nothing.
    ///
    /// Returns once the change is registered. That takes up to 15 seconds longer than
    /// [`register`](Self::register) after several changes, since they are limited; see
    /// [`update_interval`](Self::update_interval).
    ///
    /// # Errors
    /// - If the request fails. It is repeated in the background.
    /// - If the instance is not registered: before [`register`](Self::register) and after
    ///   [`deregister`](Self::deregister).
    /// - Once the [drain](Self::drain) has begun, since the instance then stays DOWN. See
    ///   [`state`](Self::state).
    /// - For UNKNOWN, which servers do not accept from an instance itself.
    ///
    /// # Cancel safety
    /// If the future is dropped, the status is nevertheless changed in the background.
    pub async fn set_status(&self, status: InstanceStatus) -> Result<(), Error> {
        if status == InstanceStatus::Unknown {
            let cause = "a registry does not accept UNKNOWN as an instance's own status";
            let advice = "set UP, DOWN, STARTING or OUT_OF_SERVICE; use override_status() for an override";
            return Err(self.error(Kind::Config, "set status of", cause).advice(advice));
        }
        self.execute_if_running(Action::SetStatus(status)).await
    }

    /// Adds metadata entries, or replaces those with the same keys.
    ///
    /// Before [`register`](Self::register) and after [`deregister`](Self::deregister) they become
    /// part of the next registration. Otherwise the method returns once the change is registered,
    /// as [`set_status`](Self::set_status) does, and up to an interval later if an earlier change
    /// was rejected.
    ///
    /// # Errors
    /// If the request fails, which is repeated in the background. Also once the
    /// [drain](Self::drain) has begun.
    ///
    /// # Cancel safety
    /// If the future is dropped, the metadata is nevertheless changed in the background.
    pub async fn update_metadata<K, V>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), Error>
    where
        K: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        self.change(Change::AddMetadata(shared(entries))).await
    }

    /// Removes metadata entries, under the conditions of
    /// [`update_metadata`](Self::update_metadata).
    ///
    /// # Errors
    /// As [`update_metadata`](Self::update_metadata).
    pub async fn remove_metadata<K: Into<Arc<str>>>(&self, keys: impl IntoIterator<Item = K>) -> Result<(), Error> {
        let keys = keys.into_iter().map(Into::into).collect();
        self.change(Change::RemoveMetadata(keys)).await
    }

    /// Replaces all metadata, under the conditions of [`update_metadata`](Self::update_metadata).
    ///
    /// The entries `gRPC_port` and `management.port`, which are registered automatically, stay
    /// unless other values are given for them. [`remove_metadata`](Self::remove_metadata) removes
    /// them.
    ///
    /// # Errors
    /// As [`update_metadata`](Self::update_metadata).
    pub async fn set_metadata<K, V>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), Error>
    where
        K: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        self.change(Change::ReplaceMetadata(shared(entries))).await
    }

    /// Sets another IP address, under the conditions of [`update_metadata`](Self::update_metadata).
    ///
    /// It also replaces the address in the host name and in the URLs. The id stays the same.
    ///
    /// # Errors
    /// As [`update_metadata`](Self::update_metadata), and if no instance can have the address, such
    /// as `0.0.0.0`.
    pub async fn set_address(&self, address: IpAddr) -> Result<(), Error> {
        let checked = check_address(address).map_err(|why| {
            let cause = format!("the address {address} is unusable: {why}");
            self.error(Kind::Config, "set address of", cause)
        })?;
        self.change(Change::Address(checked)).await
    }

    /// Sets the heartbeat interval and the lease duration, in whole seconds, under the conditions
    /// of [`update_metadata`](Self::update_metadata).
    ///
    /// # Errors
    /// As [`update_metadata`](Self::update_metadata), and if the interval is less than a second or
    /// the lease is not longer.
    pub async fn set_lease(&self, renewal_interval: Duration, lease_duration: Duration) -> Result<(), Error> {
        let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
        let lease = LeaseInfo {
            renewal_interval_secs: seconds(renewal_interval),
            duration_secs: seconds(lease_duration),
            ..LeaseInfo::default()
        };
        if lease.renewal_interval_secs < 1 || lease.duration_secs <= lease.renewal_interval_secs {
            let cause = format!(
                "the lease would end before its next heartbeat ({lease_duration:?}, heartbeat every {renewal_interval:?})"
            );
            return Err(self.error(Kind::Config, "set lease of", cause).advice("make the lease longer"));
        }
        self.change(Change::Lease(lease)).await
    }

    /// Sets a status in the registry that overrides the instance's own one. `OUT_OF_SERVICE` stops
    /// calls to the instance while it keeps its lease.
    ///
    /// The override lasts until [`remove_override`](Self::remove_override) or the end of the
    /// registration. After a crash, the restarted process recognizes and removes it, by the
    /// metadata entry `tower-eureka.override` of the previous record. The override is set again if
    /// a registry loses it. Servers ignore an override that is equal to the own status: it is set
    /// again when that changes. The time limits are those of [`set_status`](Self::set_status).
    ///
    /// # Errors
    /// If the request fails, which is repeated in the background. Also for UNKNOWN, if the instance
    /// is not registered, or its [drain](Self::drain) has begun.
    ///
    /// # Cancel safety
    /// If the future is dropped, the override is nevertheless set in the background.
    pub async fn override_status(&self, status: InstanceStatus) -> Result<(), Error> {
        if status == InstanceStatus::Unknown {
            let cause = "heartbeats of an instance that is UNKNOWN fail";
            return Err(self.error(Kind::Config, "override status of", cause).advice("use remove_override()"));
        }
        self.execute_if_running(Action::Override(Some(status))).await
    }

    /// Removes the override of [`override_status`](Self::override_status) or of an operator, and
    /// registers the instance's own status again.
    ///
    /// Takes at most twice the time of [`set_status`](Self::set_status).
    ///
    /// # Errors
    /// If a request fails, which is repeated in the background. Also if the instance is not
    /// registered, or its [drain](Self::drain) has begun.
    ///
    /// # Cancel safety
    /// If the future is dropped, the override is nevertheless removed in the background.
    pub async fn remove_override(&self) -> Result<(), Error> {
        self.execute_if_running(Action::Override(None)).await
    }
}

/// Collects entries of the metadata.
fn shared<K: Into<Arc<str>>, V: Into<Arc<str>>>(
    entries: impl IntoIterator<Item = (K, V)>,
) -> Vec<(Arc<str>, Arc<str>)> {
    entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}
