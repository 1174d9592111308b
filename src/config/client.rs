use std::time::Duration;

use super::{Env, ServiceUrl};
use crate::error::{Error, Kind};
use crate::tls::Tls;

/// What a client is told: whom to ask, how often, how long to wait. Each setting is documented where users set it, on
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
    pub(crate) tls: Tls,
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
            tls: Tls::default(),
        }
    }
}

impl ClientConfig {
    pub(crate) const DEFAULT_SERVICE_URL: &str = "http://localhost:8761/eureka/";

    /// The variables under their Spring names, over the defaults. Zone keys match in any case, since upper-case variables cannot
    /// spell `defaultZone`.
    pub(crate) fn from_env(env: &Env<'_>) -> Result<Self, Error> {
        let invalid =
            |e| Error::new(Kind::Config, "read settings").cause("an environment variable is unusable").with_source(e);
        let mut config = Self::default();
        let urls = env
            .text("eureka.client.service-url.default-zone")
            .or_else(|| env.text("eureka.client.service-url.defaultzone"))
            // As often written: the dashes of the first part kept, those of the second not.
            .or_else(|| env.text("eureka.client.serviceurl.default-zone"));
        if let Some(urls) = urls {
            config.service_urls = ServiceUrl::parse_list(&urls)?;
        }
        if let Some(interval) = env.seconds("eureka.client.registry-fetch-interval-seconds").map_err(invalid)? {
            config.fetch_interval = interval;
        }
        if let Some(disabled) = env.flag("eureka.client.disable-delta").map_err(invalid)? {
            config.delta = !disabled;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spring_names_are_read_in_each_form() {
        for name in [
            "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE",
            "EUREKA_CLIENT_SERVICE_URL_DEFAULT_ZONE",
            "EUREKA_CLIENT_SERVICE_URL_DEFAULTZONE",
            "EUREKA_CLIENT_SERVICEURL_DEFAULT_ZONE",
        ] {
            let lookup = |asked: &str| (asked == name).then(|| "http://a/eureka,http://b/eureka".to_owned());
            let config = ClientConfig::from_env(&Env::table(&lookup)).unwrap();
            assert_eq!(config.service_urls.len(), 2, "{name}");
        }
        let lookup = |asked: &str| match asked {
            "EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS" => Some("2".to_owned()),
            "EUREKA_CLIENT_DISABLEDELTA" => Some("true".to_owned()),
            _ => None,
        };
        let config = ClientConfig::from_env(&Env::table(&lookup)).unwrap();
        assert_eq!((config.fetch_interval, config.delta), (Duration::from_secs(2), false));
    }
}
