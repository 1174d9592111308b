use super::{Env, InvalidSetting};
use crate::model::InstanceBuilder;

impl InstanceBuilder {
    /// Takes what the environment says under the Spring names and keeps the rest.
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `EUREKA_INSTANCE_INSTANCEID` | [`id`](Self::id) |
    /// | `EUREKA_INSTANCE_HOSTNAME` | [`host_name`](Self::host_name) |
    /// | `EUREKA_INSTANCE_IPADDRESS` | [`ip_addr`](Self::ip_addr) |
    /// | `EUREKA_INSTANCE_LEASERENEWALINTERVALINSECONDS` | [`renewal_interval`](Self::renewal_interval) |
    /// | `EUREKA_INSTANCE_LEASEEXPIRATIONDURATIONINSECONDS` | [`lease_duration`](Self::lease_duration) |
    ///
    /// # Errors
    /// When a variable holds something else than it must.
    pub fn from_env(self) -> Result<Self, InvalidSetting> {
        self.from(&Env::process())
    }

    fn from(mut self, env: &Env<'_>) -> Result<Self, InvalidSetting> {
        if let Some(id) = env.text("eureka.instance.instance-id") {
            self = self.id(id);
        }
        if let Some(name) = env.text("eureka.instance.hostname") {
            self = self.host_name(name);
        }
        if let Some(address) = env.text("eureka.instance.ip-address") {
            self = self.ip_addr(address);
        }
        if let Some(interval) = env.seconds("eureka.instance.lease-renewal-interval-in-seconds")? {
            self = self.renewal_interval(interval);
        }
        if let Some(duration) = env.seconds("eureka.instance.lease-expiration-duration-in-seconds")? {
            self = self.lease_duration(duration);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instance;

    #[test]
    fn the_environment_goes_over_the_defaults() {
        let lookup = |name: &str| {
            let value = match name {
                "EUREKA_INSTANCE_HOSTNAME" => "node1",
                "EUREKA_INSTANCE_IPADDRESS" => "10.0.0.1",
                "EUREKA_INSTANCE_LEASERENEWALINTERVALINSECONDS" => "3",
                "EUREKA_INSTANCE_LEASEEXPIRATIONDURATIONINSECONDS" => "9",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let instance = Instance::builder("orders").port(80).from(&Env::table(&lookup)).unwrap().build().unwrap();
        assert_eq!(instance.id(), "node1:orders:80");
        assert_eq!(instance.ip_addr(), Some("10.0.0.1"));
        let lease = instance.lease().unwrap();
        assert_eq!((lease.renewal_interval_secs, lease.duration_secs), (3, 9));
    }
}
