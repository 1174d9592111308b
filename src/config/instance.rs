use super::{Env, InvalidSetting};
use crate::model::InstanceBuilder;

impl InstanceBuilder {
    /// Overrides the builder with the environment variables that Spring applications use. Unset
    /// variables change nothing.
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `SPRING_APPLICATION_NAME` | the name of the application and the default of the VIP addresses |
    /// | `EUREKA_INSTANCE_APPNAME` | the name of the application only |
    /// | `EUREKA_INSTANCE_INSTANCEID` | [`id`](Self::id) |
    /// | `EUREKA_INSTANCE_HOSTNAME` | [`host_name`](Self::host_name) |
    /// | `EUREKA_INSTANCE_IPADDRESS` | [`ip_addr`](Self::ip_addr) |
    /// | `EUREKA_INSTANCE_PREFERIPADDRESS` | [`prefer_ip_address`](Self::prefer_ip_address) |
    /// | `EUREKA_INSTANCE_NONSECUREPORT` | [`port`](Self::port) |
    /// | `SERVER_PORT` | [`port`](Self::port), if the code sets none |
    /// | `EUREKA_INSTANCE_METADATAMAP_<KEY>` | [`metadata`](Self::metadata), the key in lower case and with dots as underscores |
    /// | `EUREKA_INSTANCE_LEASERENEWALINTERVALINSECONDS` | [`renewal_interval`](Self::renewal_interval) |
    /// | `EUREKA_INSTANCE_LEASEEXPIRATIONDURATIONINSECONDS` | [`lease_duration`](Self::lease_duration) |
    ///
    /// Names may be written in any of Spring's forms, such as `eureka.instance.hostname`. A
    /// placeholder (`${...}`) is an error. Other variables that begin with `EUREKA_INSTANCE_` have
    /// no effect and are named in a warning.
    ///
    /// # Errors
    /// If a variable has an invalid value.
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
        // Kubernetes sets this to a URL for a service named `server`, and 0 means any free port.
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

/// Properties that an instance builder reads.
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

/// Returns the properties that Spring's instances read, including those that this builder does not
/// support.
#[cfg(all(feature = "client", feature = "server"))]
pub(super) fn spring_properties() -> impl Iterator<Item = &'static str> {
    READ.iter().copied().chain(UNSUPPORTED.iter().map(|(name, _)| *name)).filter(|name| name.starts_with("eureka."))
}

/// Returns the properties that some part of a process with an instance reads, so that the builder
/// does not warn of them.
fn known() -> Vec<&'static str> {
    let mut known = READ.to_vec();
    // Read by a registry server.
    if cfg!(feature = "server") {
        known.push("eureka.instance.registry.*");
    }
    known
}

const NOT_YET: &str = "is a setting of Spring that is not supported";
const IN_CODE: &str = "is not supported: set it in code, on InstanceBuilder";

/// Properties that Spring reads and this builder does not, each with the end of the warning.
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
    fn variables_override_the_defaults() {
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
    fn application_name_changes_the_vip_address_and_appname_does_not() {
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
    fn server_port_is_used_if_the_code_sets_no_port() {
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
    fn placeholder_in_an_instance_variable_is_an_error() {
        for variable in ["EUREKA_INSTANCE_INSTANCEID", "EUREKA_INSTANCE_HOSTNAME", "EUREKA_INSTANCE_METADATAMAP_A"] {
            let error = from(&[(variable, "${spring.application.name}:${random.value}")]).unwrap_err();
            assert!(error.to_string().contains(variable), "{error}");
        }
    }

    #[test]
    fn instance_variables_without_effect_are_reported() {
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
