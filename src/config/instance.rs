use super::{Env, InvalidSetting};
use crate::model::InstanceBuilder;

impl InstanceBuilder {
    /// Takes the values that the environment has under the Spring names and keeps the rest. A placeholder (`${...}`) is an error.
    /// Other variables that begin with `EUREKA_INSTANCE_` have no effect and are named in a warning.
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `SPRING_APPLICATION_NAME` | the name of the application |
    /// | `EUREKA_INSTANCE_APPNAME` | the same, but not the VIP addresses, whose default stays the name before |
    /// | `EUREKA_INSTANCE_INSTANCEID` | [`id`](Self::id) |
    /// | `EUREKA_INSTANCE_HOSTNAME` | [`host_name`](Self::host_name) |
    /// | `EUREKA_INSTANCE_IPADDRESS` | [`ip_addr`](Self::ip_addr) |
    /// | `EUREKA_INSTANCE_PREFERIPADDRESS` | [`prefer_ip_address`](Self::prefer_ip_address) |
    /// | `EUREKA_INSTANCE_NONSECUREPORT` | [`port`](Self::port) |
    /// | `SERVER_PORT` | [`port`](Self::port), if none is given |
    /// | `EUREKA_INSTANCE_METADATAMAP_<KEY>` | [`metadata`](Self::metadata), the key in lower case and with dots as underscores |
    /// | `EUREKA_INSTANCE_LEASERENEWALINTERVALINSECONDS` | [`renewal_interval`](Self::renewal_interval) |
    /// | `EUREKA_INSTANCE_LEASEEXPIRATIONDURATIONINSECONDS` | [`lease_duration`](Self::lease_duration) |
    ///
    /// # Errors
    /// When the value of a variable is unusable.
    pub fn from_env(self) -> Result<Self, InvalidSetting> {
        self.from(&Env::process())
    }

    fn from(mut self, env: &Env<'_>) -> Result<Self, InvalidSetting> {
        env.warn_of_unused("eureka.instance", &known(), UNSUPPORTED);
        if let Some(app) = env.text("spring.application.name")? {
            self = self.rename(app);
        }
        if let Some(app) = env.text("eureka.instance.appname")? {
            self = self.rename_app_only(app);
        }
        if let Some(id) = env.text("eureka.instance.instance-id")? {
            self = self.id(id);
        }
        if let Some(name) = env.text("eureka.instance.hostname")? {
            self = self.host_name(name);
        }
        if let Some(address) = env.text("eureka.instance.ip-address")? {
            self = self.ip_addr(address);
        }
        if let Some(prefer) = env.flag("eureka.instance.prefer-ip-address")? {
            self = self.prefer_ip_address(prefer);
        }
        if let Some(port) = env.port("eureka.instance.non-secure-port")? {
            self = self.port(port);
        }
        // A service of Kubernetes that is called `server` sets this one to a URL, and 0 is any port.
        let foreign = |port: &String| port.contains("://") || port == "0";
        if env.text("server.port")?.filter(|port| !foreign(port)).is_some()
            && let Some(port) = env.port("server.port")?
        {
            self = self.port_if_unset(port);
        }
        for (key, value) in env.map("eureka.instance.metadata-map")? {
            self = self.metadata(key, value);
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

/// Names that are read here.
pub(super) const READ: &[&str] = &[
    "spring.application.name",
    "server.port",
    "eureka.instance.appname",
    "eureka.instance.instance-id",
    "eureka.instance.hostname",
    "eureka.instance.ip-address",
    "eureka.instance.prefer-ip-address",
    "eureka.instance.non-secure-port",
    "eureka.instance.metadata-map.*",
    "eureka.instance.lease-renewal-interval-in-seconds",
    "eureka.instance.lease-expiration-duration-in-seconds",
];

/// Names that Spring's instances read, whether this builder does or not.
#[cfg(all(feature = "client", feature = "server"))]
pub(super) fn of_instances() -> impl Iterator<Item = &'static str> {
    READ.iter().copied().chain(UNSUPPORTED.iter().map(|(name, _)| *name)).filter(|name| name.starts_with("eureka."))
}

/// Names that are read in a process with an instance.
fn known() -> Vec<&'static str> {
    let mut known = READ.to_vec();
    // A registry server's own.
    if cfg!(feature = "server") {
        known.push("eureka.instance.registry.*");
    }
    known
}

const NOT_YET: &str = "is a setting of Spring that is not supported";
const IN_CODE: &str = "is not supported: set it in code, on InstanceBuilder";

/// Names that Spring reads and this builder does not.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("eureka.instance.app-group-name", IN_CODE),
    ("eureka.instance.virtual-host-name", IN_CODE),
    ("eureka.instance.secure-virtual-host-name", IN_CODE),
    ("eureka.instance.secure-port", IN_CODE),
    ("eureka.instance.home-page-url", IN_CODE),
    ("eureka.instance.status-page-url", IN_CODE),
    ("eureka.instance.health-check-url", IN_CODE),
    ("eureka.instance.secure-health-check-url", IN_CODE),
    ("eureka.instance.non-secure-port-enabled", NOT_YET),
    ("eureka.instance.secure-port-enabled", NOT_YET),
    ("eureka.instance.home-page-url-path", NOT_YET),
    ("eureka.instance.status-page-url-path", NOT_YET),
    ("eureka.instance.health-check-url-path", NOT_YET),
    ("eureka.instance.initial-status", NOT_YET),
    ("eureka.instance.instance-enabled-onit", NOT_YET),
    ("eureka.instance.a-s-g-name", NOT_YET),
    ("eureka.instance.default-address-resolution-order", NOT_YET),
    ("eureka.instance.async-client-initialization", NOT_YET),
    ("eureka.instance.namespace", NOT_YET),
];

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

    fn from(variables: &[(&str, &str)]) -> Result<InstanceBuilder, InvalidSetting> {
        let lookup =
            |asked: &str| variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned());
        let names = || variables.iter().map(|(name, _)| (*name).to_owned()).collect();
        Instance::builder("orders").port(80).ip_addr("10.0.0.1").from(&Env::table(&lookup).with_names(&names))
    }

    #[test]
    fn names_of_the_application_are_read_as_spring_reads_them() {
        let instance = from(&[("SPRING_APPLICATION_NAME", "bills")]).unwrap().build().unwrap();
        assert_eq!((instance.app(), instance.vip_address()), ("BILLS", Some("bills")));
        let instance = from(&[("EUREKA_INSTANCE_APPNAME", "bills")]).unwrap().build().unwrap();
        assert_eq!((instance.app(), instance.vip_address()), ("BILLS", Some("orders")));
    }

    #[test]
    fn preferred_ip_address_replaces_the_host_name() {
        let host = ("EUREKA_INSTANCE_HOSTNAME", "pod-7");
        for (prefer, expected) in [("true", "10.0.0.1"), ("false", "pod-7")] {
            for variable in ["EUREKA_INSTANCE_PREFER_IP_ADDRESS", "EUREKA_INSTANCE_PREFERIPADDRESS"] {
                let instance = from(&[host, (variable, prefer)]).unwrap().build().unwrap();
                assert_eq!(instance.host_name(), Some(expected));
            }
        }
    }

    #[test]
    fn metadata_is_read_from_variables() {
        let instance = from(&[
            ("EUREKA_INSTANCE_METADATAMAP_ZONE", " rack-a "),
            ("EUREKA_INSTANCE_METADATA_MAP_MANAGEMENT_PORT", "81"),
            ("eureka.instance.metadata-map.gRPC_port", "9090"),
            ("EUREKA_INSTANCE_METADATAMAP_EMPTY", ""),
        ]);
        let instance = instance.unwrap().build().unwrap();
        let metadata: Vec<_> = instance.metadata().iter().collect();
        assert_eq!(metadata, [("gRPC_port", "9090"), ("management.port", "81"), ("zone", "rack-a")]);
    }

    #[test]
    fn port_of_the_server_is_taken_where_the_code_gives_none() {
        let port = |variables: &[(&str, &str)]| from(variables).map(|b| b.build().unwrap().port().number);
        assert_eq!(port(&[("SERVER_PORT", "8080")]), Ok(80));
        assert_eq!(port(&[("EUREKA_INSTANCE_NONSECUREPORT", "8080")]), Ok(8080));
        assert!(port(&[("EUREKA_INSTANCE_NONSECUREPORT", "0")]).is_err());
        assert_eq!(port(&[("SERVER_PORT", "tcp://10.0.0.1:80")]), Ok(80));
        let lookup = |asked: &str| (asked == "SERVER_PORT").then(|| "8080".to_owned());
        let instance = Instance::builder("orders").ip_addr("10.0.0.1").from(&Env::table(&lookup)).unwrap();
        assert_eq!(instance.build().unwrap().port().number, 8080);
    }

    #[test]
    fn placeholder_in_a_variable_of_the_instance_is_an_error() {
        for variable in ["EUREKA_INSTANCE_INSTANCEID", "EUREKA_INSTANCE_HOSTNAME", "EUREKA_INSTANCE_METADATAMAP_A"] {
            let error = from(&[(variable, "${spring.application.name}:${random.value}")]).unwrap_err();
            assert!(error.to_string().contains(variable), "{error}");
        }
    }

    #[test]
    fn variables_of_the_instance_without_effect_are_named() {
        let set = ["EUREKA_INSTANCE_SECUREPORTENABLED", "EUREKA_INSTANCE_HOSTNAM", "EUREKA_OTHER", "SERVER_PORT"];
        let lookup = |asked: &str| set.contains(&asked).then(|| "x".to_owned());
        let names = || set.map(str::to_owned).to_vec();
        let env = Env::table(&lookup).with_names(&names);
        let unused: Vec<_> =
            env.unused("eureka.instance", &known(), UNSUPPORTED).iter().map(ToString::to_string).collect();
        assert_eq!(
            unused,
            [
                "EUREKA_INSTANCE_HOSTNAM is no setting; did you mean eureka.instance.hostname?".to_owned(),
                format!("EUREKA_INSTANCE_SECUREPORTENABLED {NOT_YET}"),
            ]
        );
    }
}
