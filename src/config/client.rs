use std::borrow::Cow;
use std::time::Duration;

use super::{Env, InvalidSetting, ServiceUrl, instance};
use crate::connect::TlsSettings;
use crate::error::{Error, Kind};

/// Settings of a client. Each is documented at the setter on
/// [`EurekaBuilder`](crate::EurekaBuilder).
#[derive(Clone, Debug)]
pub(crate) struct ClientConfig {
    pub(crate) service_urls: Vec<ServiceUrl>,
    pub(crate) fetch_interval: Duration,
    pub(crate) delta: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) body_limit: usize,
    pub(crate) ready_timeout: Duration,
    pub(crate) instance_connect_timeout: Duration,
    pub(crate) tls: TlsSettings,
    pub(crate) switches: Switches,
}

/// Parts of the client that are switched off, each with the setting that does it:
/// `EUREKA_CLIENT_ENABLED=false`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches {
    pub(crate) client: Option<Cow<'static, str>>,
    pub(crate) registration: Option<Cow<'static, str>>,
    pub(crate) fetch: Option<Cow<'static, str>>,
}

impl Switches {
    /// Returns the setting that switches registration off, if there is one.
    pub(crate) fn registration_off(&self) -> Option<&Cow<'static, str>> {
        self.client.as_ref().or(self.registration.as_ref())
    }

    /// Returns the setting that switches fetches of the registry off, if there is one.
    pub(crate) fn fetch_off(&self) -> Option<&Cow<'static, str>> {
        self.client.as_ref().or(self.fetch.as_ref())
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            service_urls: Vec::new(),
            fetch_interval: Duration::from_secs(30),
            delta: true,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(8),
            body_limit: 256 << 20,
            ready_timeout: Duration::from_secs(3),
            instance_connect_timeout: Duration::from_secs(2),
            tls: TlsSettings::default(),
            switches: Switches::default(),
        }
    }
}

impl ClientConfig {
    pub(crate) const DEFAULT_SERVICE_URL: &str = "http://localhost:8761/eureka/";

    /// Reads the variables over the defaults, and logs a warning for each without effect.
    /// Properties that another part of the process reads are `read_elsewhere`.
    ///
    /// An invalid variable is not an error of a client that is switched off. It is returned as the
    /// second value, in case the code switches the client on again.
    pub(crate) fn from_env(env: &Env<'_>, read_elsewhere: &[&'static str]) -> Result<(Self, Option<Error>), Error> {
        env.warn_of_unused("eureka", &known(read_elsewhere), UNSUPPORTED);
        let mut config = Self { switches: Switches::from_env(env).map_err(invalid)?, ..Self::default() };
        match config.read(env) {
            Err(error) if config.switches.client.is_some() => Ok((config, Some(error))),
            Err(error) => Err(error),
            Ok(()) => Ok((config, None)),
        }
    }

    fn read(&mut self, env: &Env<'_>) -> Result<(), Error> {
        if let Some(urls) = env.text("eureka.client.service-url.default-zone").map_err(invalid)? {
            self.service_urls = ServiceUrl::parse_list(&urls)?;
        }
        if let Some(interval) = env.seconds("eureka.client.registry-fetch-interval-seconds").map_err(invalid)? {
            self.fetch_interval = interval;
        }
        if let Some(disabled) = env.flag("eureka.client.disable-delta").map_err(invalid)? {
            self.delta = !disabled;
        }
        Ok(())
    }
}

impl Switches {
    fn from_env(env: &Env<'_>) -> Result<Self, InvalidSetting> {
        let off = |properties: &[&str]| -> Result<_, InvalidSetting> {
            let mut off = None;
            for property in properties {
                if let Some((variable, false)) = env.switch(property)? {
                    off.get_or_insert(Cow::Owned(format!("{variable}=false")));
                }
            }
            Ok(off)
        };
        Ok(Self {
            client: off(&["eureka.client.enabled", "spring.cloud.discovery.enabled"])?,
            registration: off(&[
                "eureka.client.register-with-eureka",
                "spring.cloud.service-registry.auto-registration.enabled",
            ])?,
            fetch: off(&["eureka.client.fetch-registry"])?,
        })
    }
}

fn invalid(setting: InvalidSetting) -> Error {
    Error::new(Kind::Config, "read settings").cause(setting.to_string())
}

/// Properties that a client reads.
const READ: &[&str] = &[
    "eureka.client.enabled",
    "eureka.client.register-with-eureka",
    "eureka.client.fetch-registry",
    "eureka.client.service-url.defaultZone",
    "eureka.client.registry-fetch-interval-seconds",
    "eureka.client.disable-delta",
    "spring.cloud.discovery.enabled",
    "spring.cloud.service-registry.auto-registration.enabled",
];

/// Returns the properties that some part of a process with a client reads, so that the client does
/// not warn of them.
fn known(read_elsewhere: &[&'static str]) -> Vec<&'static str> {
    [READ, instance::READ, &["eureka.instance.*"], read_elsewhere].concat()
}

/// Returns the properties that Spring's clients read, including those that this client does not
/// support.
#[cfg(feature = "server")]
pub(crate) fn spring_properties() -> impl Iterator<Item = &'static str> {
    let unsupported = UNSUPPORTED.iter().map(|(name, _)| *name);
    READ.iter().copied().chain(unsupported).chain(instance::spring_properties())
}

const NOT_YET: &str = "is a setting of Spring that is not supported";
const NO_MEANING: &str = "is a setting of Spring that does not apply here";
const ZONES: &str = "is not supported: servers are read from eureka.client.service-url.defaultZone only";

/// Properties that Spring reads and this client does not, each with the end of the warning.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("eureka.client.service-url*", ZONES),
    ("eureka.client.availability-zones*", ZONES),
    ("eureka.client.region", ZONES),
    ("eureka.client.prefer-same-zone-eureka", ZONES),
    ("eureka.client.use-dns-for-fetching-service-urls", NOT_YET),
    ("eureka.client.eureka-server-d-n-s-name", NOT_YET),
    ("eureka.client.eureka-server-port", NOT_YET),
    ("eureka.client.eureka-server-u-r-l-context", NOT_YET),
    ("eureka.client.eureka-server-connect-timeout-seconds", "is not supported: set connect_timeout() in code"),
    ("eureka.client.eureka-server-read-timeout-seconds", "is not supported: set read_timeout() in code"),
    ("eureka.client.timeout.*", "is not supported: set connect_timeout() and read_timeout() in code"),
    ("eureka.client.eureka-server-total-connections*", NO_MEANING),
    ("eureka.client.eureka-connection-idle-timeout-seconds", NO_MEANING),
    ("eureka.client.eureka-service-url-poll-interval-seconds", NO_MEANING),
    ("eureka.client.proxy-*", "is not supported: pass a service that uses the proxy to http_service()"),
    ("eureka.client.should-enforce-registration-at-init", NOT_YET),
    ("eureka.client.should-unregister-on-shutdown", NOT_YET),
    ("eureka.client.on-demand-update-status-change", NO_MEANING),
    ("eureka.client.instance-info-replication-interval-seconds", NO_MEANING),
    ("eureka.client.initial-instance-info-replication-interval-seconds", NO_MEANING),
    ("eureka.client.heartbeat-executor-*", NO_MEANING),
    ("eureka.client.cache-refresh-executor-*", NO_MEANING),
    ("eureka.client.log-delta-diff", NO_MEANING),
    ("eureka.client.filter-only-up-instances", "is not supported: set the statuses of a Selection in code"),
    ("eureka.client.registry-refresh-single-vip-address", NOT_YET),
    ("eureka.client.fetch-remote-regions-registry", NOT_YET),
    ("eureka.client.backup-registry-impl", NOT_YET),
    ("eureka.client.client-data-accept", NOT_YET),
    ("eureka.client.encoder-name", NO_MEANING),
    ("eureka.client.decoder-name", NO_MEANING),
    ("eureka.client.dollar-replacement", NO_MEANING),
    ("eureka.client.escape-char-replacement", NO_MEANING),
    ("eureka.client.allow-redirects", NO_MEANING),
    ("eureka.client.g-zip-content", NO_MEANING),
    ("eureka.client.healthcheck.enabled", NOT_YET),
    ("eureka.client.refresh.enable", NO_MEANING),
    ("eureka.client.webclient.enabled", NO_MEANING),
    ("eureka.client.restclient.enabled", NO_MEANING),
    ("eureka.client.resttemplate.enabled", NO_MEANING),
    ("eureka.client.jersey.enabled", NO_MEANING),
    ("eureka.client.order", NO_MEANING),
    ("eureka.client.tls.*", "is not supported: set tls_ca_file() or tls_config() in code"),
    ("eureka.client.transport.*", NO_MEANING),
    ("spring.application.json", NOT_YET),
    ("spring.cloud.discovery.*", NOT_YET),
    ("spring.cloud.service-registry.*", NOT_YET),
    ("spring.cloud.loadbalancer.*", "is not supported: set CallOptions in code"),
    ("spring.cloud.inetutils.*", NOT_YET),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn property_is_read_in_each_form_of_its_name() {
        for name in [
            "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE",
            "EUREKA_CLIENT_SERVICE_URL_DEFAULT_ZONE",
            "EUREKA_CLIENT_SERVICE_URL_DEFAULTZONE",
            "EUREKA_CLIENT_SERVICEURL_DEFAULT_ZONE",
            "eureka.client.serviceUrl.defaultZone",
        ] {
            let (config, _) = with(&[(name, "http://a/eureka,http://b/eureka")]).unwrap();
            assert_eq!(config.service_urls.len(), 2, "{name}");
        }
        let (config, _) =
            with(&[("EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS", "2"), ("EUREKA_CLIENT_DISABLEDELTA", "true")])
                .unwrap();
        assert_eq!((config.fetch_interval, config.delta), (Duration::from_secs(2), false));
    }

    /// Reads the configuration from these variables.
    fn with(variables: &[(&str, &str)]) -> Result<(ClientConfig, Option<Error>), Error> {
        let lookup =
            |asked: &str| variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned());
        let names = || variables.iter().map(|(name, _)| (*name).to_owned()).collect();
        ClientConfig::from_env(&Env::table(&lookup).with_names(&names), &[])
    }

    #[test]
    fn switch_that_is_off_is_read_in_each_form() {
        for variable in [
            "EUREKA_CLIENT_ENABLED",
            "SPRING_CLOUD_DISCOVERY_ENABLED",
            "eureka.client.enabled",
            "spring.cloud.discovery.enabled",
        ] {
            let (config, _) = with(&[(variable, " False ")]).unwrap();
            let off = Some(Cow::from(format!("{variable}=false")));
            assert_eq!(config.switches.registration_off(), off.as_ref());
            assert_eq!(config.switches.fetch_off(), off.as_ref());
        }
        for variable in [
            "EUREKA_CLIENT_REGISTERWITHEUREKA",
            "EUREKA_CLIENT_REGISTER_WITH_EUREKA",
            "eureka.client.register-with-eureka",
            "eureka.client.registerWithEureka",
            "SPRING_CLOUD_SERVICEREGISTRY_AUTOREGISTRATION_ENABLED",
            "SPRING_CLOUD_SERVICE_REGISTRY_AUTO_REGISTRATION_ENABLED",
        ] {
            let (config, _) = with(&[(variable, "false")]).unwrap();
            assert!(config.switches.registration_off().is_some(), "{variable}");
            assert!(config.switches.fetch_off().is_none(), "{variable}");
        }
        let (config, _) = with(&[("EUREKA_CLIENT_FETCH_REGISTRY", "FALSE")]).unwrap();
        assert!(config.switches.fetch_off().is_some() && config.switches.registration_off().is_none());
        let (config, _) = with(&[("EUREKA_CLIENT_ENABLED", "true"), ("EUREKA_CLIENT_FETCHREGISTRY", "true")]).unwrap();
        assert!(config.switches.fetch_off().is_none() && config.switches.registration_off().is_none());
    }

    #[test]
    fn switch_accepts_the_booleans_of_spring() {
        for (value, on) in [("true", true), ("On", true), ("YES", true), ("1", true)].into_iter().chain([
            ("False", false),
            ("off", false),
            (" No ", false),
            ("0", false),
        ]) {
            let (config, _) = with(&[("EUREKA_CLIENT_ENABLED", value)]).unwrap();
            assert_eq!(config.switches.fetch_off().is_none(), on, "{value}");
        }
    }

    #[test]
    fn switch_that_is_neither_true_nor_false_is_an_error() {
        for value in ["n", "2", "flase", "disabled", "${ENABLED}"] {
            let error = with(&[("EUREKA_CLIENT_ENABLED", value)]).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("EUREKA_CLIENT_ENABLED"), "{error}");
        }
    }

    #[test]
    fn client_that_is_switched_off_ignores_invalid_settings() {
        let url = ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://${REGISTRY}:8761/eureka/");
        assert!(with(&[url]).unwrap_err().to_string().contains("not resolved"));
        let (config, faulty) = with(&[url, ("EUREKA_CLIENT_ENABLED", "false")]).unwrap();
        assert!(config.service_urls.is_empty() && faulty.is_some());
    }

    #[test]
    fn variables_without_effect_are_reported() {
        let variables = [
            ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://a/eureka/"),
            ("EUREKA_CLIENT_SERVICEURL_ZONEA", "http://a/eureka/"),
            ("EUREKA_CLIENT_EUREKASERVERREADTIMEOUTSECONDS", "3"),
            ("EUREKA_CLIENT_REGISTERWITHEUREKAA", "false"),
            ("EUREKA_INSTANCE_UNKNOWN", "reported by the instance builder"),
            ("EUREKA_SERVER_URL", "http://a/eureka/"),
        ];
        let lookup = |asked: &str| variables.iter().find(|(name, _)| *name == asked).map(|(_, v)| (*v).to_owned());
        let names = || variables.map(|(name, _)| name.to_owned()).to_vec();
        let env = Env::table(&lookup).with_names(&names);
        let unused: Vec<_> = env.unused("eureka", &known(&[]), UNSUPPORTED).iter().map(ToString::to_string).collect();
        assert_eq!(
            unused[..3],
            [
                "EUREKA_CLIENT_EUREKASERVERREADTIMEOUTSECONDS is not supported: set read_timeout() in code".to_owned(),
                "EUREKA_CLIENT_REGISTERWITHEUREKAA is no setting; did you mean eureka.client.register-with-eureka?"
                    .into(),
                format!("EUREKA_CLIENT_SERVICEURL_ZONEA {ZONES}"),
            ]
        );
        assert!(unused.len() == 4 && unused[3].starts_with("EUREKA_SERVER_URL is no setting"), "{unused:?}");
    }
}
