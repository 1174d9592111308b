use std::borrow::Cow;
use std::time::Duration;

use super::*;

fn settings(variables: &[(&str, &str)]) -> Settings {
    Settings::builder().environment(variables.iter().copied()).without_files().load().unwrap()
}

fn with(variables: &[(&str, &str)]) -> Result<EurekaBuilder, Error> {
    Eureka::builder_from(&settings(variables))
}

fn property(name: &str, value: &str) -> Result<EurekaBuilder, Error> {
    let settings = Settings::builder().environment([("", ""); 0]).without_files().property(name, value).load();
    Eureka::builder_from(&settings.unwrap())
}

#[test]
fn service_url_is_read_in_each_form_of_its_name() {
    for name in [
        "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE",
        "EUREKA_CLIENT_SERVICE_URL_DEFAULT_ZONE",
        "EUREKA_CLIENT_SERVICE_URL_DEFAULTZONE",
        "EUREKA_CLIENT_SERVICEURL_DEFAULT_ZONE",
        "eureka.client.serviceUrl.defaultZone",
    ] {
        let builder = with(&[(name, "http://a/eureka,http://b/eureka")]).unwrap();
        assert_eq!(builder.config.service_urls.len(), 2, "{name}");
    }
    for name in ["eureka.client.service-url.default-zone", "eureka.serviceUrl.default", "eureka.serviceUrl.defaultZone"]
    {
        assert_eq!(property(name, "http://a/").unwrap().config.service_urls.len(), 1, "{name}");
    }
}

#[test]
fn durations_are_read_in_the_unit_of_each_name() {
    for (name, value, millis) in [
        ("eureka.client.registry-fetch-interval-seconds", "2", 2000),
        ("eureka.client.registryFetchIntervalSeconds", "500ms", 500),
        ("eureka.client.refresh.interval", "7", 7000),
        ("eureka.client.registry-fetch-interval-seconds", "PT1M", 60_000),
    ] {
        let interval = property(name, value).unwrap().config.fetch_interval;
        assert_eq!(interval, Duration::from_millis(millis), "{name}={value}");
    }
    let builder = property("eureka.client.timeout.socket-timeout", "250").unwrap();
    assert_eq!(builder.config.read_timeout, Duration::from_millis(250));
    let error = property("eureka.client.registry-fetch-interval-seconds", "soon").unwrap_err().to_string();
    assert!(
        error.contains(r#"property eureka.client.registry-fetch-interval-seconds: expected seconds, found "soon""#),
        "{error}"
    );
    assert!(property("eureka.client.registry-fetch-interval-seconds", "0").is_err());
}

#[test]
fn switch_that_is_off_is_read_in_each_form() {
    for variable in [
        "EUREKA_CLIENT_ENABLED",
        "SPRING_CLOUD_DISCOVERY_ENABLED",
        "eureka.client.enabled",
        "spring.cloud.discovery.enabled",
    ] {
        let switches = with(&[(variable, " False ")]).unwrap().config.switches;
        let off = Some(Cow::from(format!("{variable}=false")));
        assert_eq!(switches.registration_off(), off.as_ref());
        assert_eq!(switches.fetch_off(), off.as_ref());
    }
    for variable in [
        "EUREKA_CLIENT_REGISTERWITHEUREKA",
        "EUREKA_CLIENT_REGISTER_WITH_EUREKA",
        "eureka.client.register-with-eureka",
        "eureka.client.registerWithEureka",
        "eureka.registration.enabled",
        "SPRING_CLOUD_SERVICEREGISTRY_AUTOREGISTRATION_ENABLED",
        "SPRING_CLOUD_SERVICE_REGISTRY_AUTO_REGISTRATION_ENABLED",
    ] {
        let switches = with(&[(variable, "false")]).unwrap().config.switches;
        assert!(switches.registration_off().is_some(), "{variable}");
        assert!(switches.fetch_off().is_none(), "{variable}");
    }
    let switches = with(&[("EUREKA_CLIENT_FETCH_REGISTRY", "FALSE")]).unwrap().config.switches;
    assert!(switches.fetch_off().is_some() && switches.registration_off().is_none());
    let on = [("EUREKA_CLIENT_ENABLED", "true"), ("EUREKA_CLIENT_FETCHREGISTRY", "true")];
    let switches = with(&on).unwrap().config.switches;
    assert!(switches.fetch_off().is_none() && switches.registration_off().is_none());
}

#[test]
fn switch_accepts_the_booleans_of_spring() {
    for (value, on) in [("true", true), ("On", true), ("YES", true), ("1", true)].into_iter().chain([
        ("False", false),
        ("off", false),
        (" No ", false),
        ("0", false),
    ]) {
        let switches = with(&[("EUREKA_CLIENT_ENABLED", value)]).unwrap().config.switches;
        assert_eq!(switches.fetch_off().is_none(), on, "{value}");
    }
    for value in ["n", "2", "flase", "disabled", "${ENABLED}"] {
        let error = with(&[("EUREKA_CLIENT_ENABLED", value)]).unwrap_err();
        assert!(error.is_config() && error.to_string().contains("EUREKA_CLIENT_ENABLED"), "{error}");
    }
}

#[test]
fn client_that_is_switched_off_ignores_invalid_settings() {
    let url = ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://${REGISTRY}:8761/eureka/");
    let error = with(&[url]).unwrap_err().to_string();
    assert!(error.contains("${REGISTRY} has no value"), "{error}");
    let builder = with(&[url, ("EUREKA_CLIENT_ENABLED", "false")]).unwrap();
    assert!(builder.config.service_urls.is_empty() && builder.error.is_some());
    assert!(builder.build().is_ok());
    assert!(with(&[url, ("EUREKA_CLIENT_ENABLED", "false")]).unwrap().enabled(true).build().is_err());
}

#[test]
fn each_key_is_read_under_each_of_its_names() {
    fn check<B>(keys: &[Key<B>], start: impl Fn() -> B) {
        for key in keys {
            let value = match key.unit {
                Unit::Flag => "false",
                Unit::Share => "0.5",
                Unit::Urls => "http://registry/",
                Unit::List if key.name.ends_with("status-codes") => "503",
                Unit::Text if key.name.ends_with("-url") || key.name.ends_with(".uri>") => "http://host/",
                Unit::Text if key.name.ends_with("-store-type") => "PEM",
                Unit::Text if key.name.ends_with("-status") => "DOWN",
                Unit::Text if key.name == "server.shutdown" => "graceful",
                Unit::Text if key.name.ends_with("ip-address") => "10.0.0.1",
                _ => "7",
            };
            let names = std::iter::once(key.name).chain(key.netflix.iter().map(|(name, _)| *name));
            let of_key = |name: &str| match name.split_once('<') {
                Some((start, "service[n].uri>")) => format!("{start}orders[0].uri"),
                Some((start, "SERVICE[N]_URI>")) => format!("{start}ORDERS_0_URI"),
                Some((start, "type>")) => format!("{start}[application/json]"),
                Some((start, "TYPE>")) => format!("{start}APPLICATION_JSON"),
                Some((start, rest)) => {
                    let rest = rest.split_once('>').unwrap().1;
                    let rest = rest.replace("<name>", "default").replace("<NAME>", "DEFAULT");
                    let rest = rest.replace(".<type>", "[application/json]").replace("<TYPE>", "APPLICATION_JSON");
                    format!("{start}defaultZone{rest}")
                }
                None => name.to_owned(),
            };
            let variable = of_key(&key.variable()).to_ascii_uppercase();
            for source in names.map(of_key).chain([variable]) {
                let settings = Settings::builder().without_files();
                let settings = settings.environment([(&*source, value)]).load().unwrap();
                let result = key.apply(&settings, start());
                assert!(result.is_ok(), "{source}: {:?}", result.err());
                let read = std::cell::Cell::new(false);
                let probe = Key::<&std::cell::Cell<bool>> {
                    name: key.name,
                    netflix: key.netflix,
                    unit: key.unit,
                    default: key.default,
                    method: key.method,
                    set: |cell, _| {
                        cell.set(true);
                        Ok(cell)
                    },
                };
                probe.apply(&settings, &read).unwrap();
                assert!(read.get(), "{source} is not read");
            }
        }
    }
    check(SWITCHES, Eureka::builder);
    check(CLIENT, Eureka::builder);
    check(STATUSES, Eureka::builder);
    check(LOADBALANCER, Eureka::builder);
    check(BY_SERVICE, Eureka::builder);
    check(INSTANCE, || crate::Instance::builder("orders"));
    check(REGISTRAR, crate::config::RegistrarConfig::default);
}

#[test]
fn settings_of_a_registration_are_read_in_each_form_of_their_names() {
    use crate::model::InstanceStatus;

    let read = |name: &str, value: &str| {
        let is_variable = name.starts_with("EUREKA_");
        if is_variable { with(&[(name, value)]) } else { property(name, value) }.map(|builder| builder.config.registrar)
    };

    for (name, value) in [
        ("EUREKA_INSTANCE_INITIALSTATUS", "OUT_OF_SERVICE"),
        ("EUREKA_INSTANCE_INITIAL_STATUS", "out-of-service"),
        ("eureka.instance.initial-status", "Out_Of_Service"),
        ("eureka.instance.initialStatus", " OUT_OF_SERVICE "),
    ] {
        let status = read(name, value).unwrap().initial_status;
        assert_eq!(status, Some(InstanceStatus::OutOfService), "{name}={value}");
    }
    for value in ["UNKNOWN", "up!", "${STATUS}"] {
        let error = read("eureka.instance.initial-status", value).unwrap_err().to_string();
        assert!(error.contains("eureka.instance.initial-status"), "{error}");
    }
    let defaults = with(&[]).unwrap().config.registrar;
    assert!(defaults.initial_status.is_none() && !defaults.enabled_on_start && !defaults.enforce_registration);
    assert!(defaults.unregister_on_shutdown && defaults.health_sets_status && !defaults.expects_health);
    for (name, value) in [
        ("eureka.client.healthcheck.enabled", "false"),
        ("EUREKA_CLIENT_HEALTHCHECK_ENABLED", "off"),
        ("eureka.client.should-unregister-on-shutdown", "false"),
        ("eureka.shouldUnregisterOnShutdown", "false"),
        ("EUREKA_CLIENT_SHOULDUNREGISTERONSHUTDOWN", "no"),
        ("eureka.instance.instance-enabled-onit", "true"),
        ("EUREKA_INSTANCE_INSTANCEENABLEDONIT", "true"),
        ("eureka.traffic.enabled", "true"),
        ("eureka.client.should-enforce-registration-at-init", "true"),
        ("eureka.shouldEnforceRegistrationAtInit", "true"),
        ("EUREKA_CLIENT_SHOULD_ENFORCE_REGISTRATION_AT_INIT", "on"),
    ] {
        let registrar = read(name, value).unwrap();
        let changed = [
            !registrar.health_sets_status,
            !registrar.unregister_on_shutdown,
            registrar.enabled_on_start,
            registrar.enforce_registration,
        ];
        assert_eq!(changed.iter().filter(|changed| **changed).count(), 1, "{name}");
    }
    for name in ["eureka.client.instance-info-replication-interval-seconds", "eureka.appinfo.replicate.interval"] {
        let interval = read(name, "7").unwrap().update_interval;
        assert_eq!(interval, Duration::from_secs(7), "{name}");
    }
}

#[test]
fn instances_of_any_status_are_called_without_the_filter() {
    let names = ["eureka.client.filter-only-up-instances", "eureka.shouldFilterOnlyUpInstances"];
    for name in names {
        let options = |value| format!("{:?}", property(name, value).unwrap().build().unwrap().call_options());
        assert!(options("false").contains("selection: Some(") && !options("true").contains("selection: Some("));
    }
}

#[test]
fn times_of_a_graceful_shutdown_are_those_of_spring() {
    let read = |properties: &[(&str, &str)]| {
        let settings = Settings::builder().environment([("", ""); 0]).without_files();
        let settings = properties.iter().fold(settings, |settings, (name, value)| settings.property(*name, *value));
        Eureka::builder_from(&settings.load().unwrap()).map(|builder| builder.config.registrar)
    };
    let timeout = "spring.lifecycle.timeout-per-shutdown-phase";
    for (value, millis) in [("40s", 40_000), ("PT1M", 60_000), ("1500", 1500)] {
        let registrar = read(&[(timeout, value), ("server.shutdown", "Graceful")]).unwrap();
        assert_eq!((registrar.grace, registrar.is_graceful), (Some(Duration::from_millis(millis)), true));
    }
    assert!(!read(&[("server.shutdown", "immediate")]).unwrap().is_graceful);
    let error = read(&[("server.shutdown", "later")]).unwrap_err().to_string();
    assert!(error.contains("graceful or immediate"), "{error}");
}

/// Returns the servers of a client with these settings, in a fixed order.
fn servers(settings: &Settings) -> String {
    let eureka = Eureka::builder_from(settings).unwrap().shuffle_servers(false).build().unwrap();
    let shown = |server: &crate::transport::RegistryServer| {
        format!("{} {}", server.zone().unwrap_or_default(), server.url().trim_start_matches("http://"))
    };
    eureka.registry_servers().iter().map(shown).collect::<Vec<_>>().join(", ")
}

#[test]
fn servers_by_zone_are_the_same_from_each_source() {
    let expected = "us-east-1b b1/, us-east-1b b2/, us-east-1a a/, us-east-1c d/";
    let variables = [
        ("EUREKA_CLIENT_REGION", "us-east-1"),
        ("EUREKA_CLIENT_AVAILABILITYZONES_US_EAST_1", "us-east-1b,us-east-1a,us-east-1c"),
        ("EUREKA_CLIENT_SERVICEURL_US_EAST_1A", "http://a/"),
        ("EUREKA_CLIENT_SERVICE_URL_US_EAST_1B", "http://b1/,http://b2/,http://a/"),
        ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://d/"),
    ];
    assert_eq!(servers(&settings(&variables)), expected.replace("us-east-1a a/, ", "us-east-1b a/, "));
    let netflix = [
        ("eureka.region", "us-east-1"),
        ("eureka.us-east-1.availabilityZones", "us-east-1b, us-east-1a ,us-east-1c"),
        ("eureka.serviceUrl.us-east-1a", "http://a/"),
        ("eureka.serviceUrl.us-east-1b", "http://b1/,http://b2/"),
        ("eureka.serviceUrl.default", "http://d/"),
    ];
    let spring = [
        ("eureka.client.region", "us-east-1"),
        ("eureka.client.availabilityZones.us-east-1", "us-east-1b,us-east-1a,us-east-1c"),
        ("eureka.client.serviceUrl.us-east-1a", "http://a/"),
        ("eureka.client.service-url.us-east-1b", "http://b1/,http://b2/"),
        ("eureka.client.service-url.defaultZone", "http://d/"),
    ];
    for properties in [netflix, spring] {
        let empty = Settings::builder().environment([("", ""); 0]).without_files();
        let settings = properties.iter().fold(empty, |builder, (name, value)| builder.property(*name, *value));
        assert_eq!(servers(&settings.load().unwrap()), expected);
    }
    let json = r#"{"eureka": {"client": {
        "region": "us-east-1",
        "availability-zones": {"us-east-1": "us-east-1b,us-east-1a,us-east-1c"},
        "service-url": {"us-east-1a": "http://a/", "us-east-1b": "http://b1/,http://b2/", "defaultZone": "http://d/"}
    }}}"#;
    assert_eq!(servers(&settings(&[("SPRING_APPLICATION_JSON", json)])), expected);
}

#[test]
fn zones_without_their_region_are_an_error_with_the_remedy() {
    for name in ["eureka.client.availability-zones", "eureka.client.availabilityZones[0]"] {
        let error = property(name, "zone1,zone2").unwrap_err().to_string();
        assert!(error.contains("write eureka.client.availability-zones.REGION"), "{error}");
    }
    assert!(property("eureka.client.availability-zones.client", "zone1").is_ok());
    assert!(property("eureka.eu.availabilityZones", "zone1").is_ok());
}

#[test]
fn urls_in_code_replace_those_of_all_zones_of_the_settings() {
    let settings = settings(&[
        ("EUREKA_CLIENT_AVAILABILITYZONES_US_EAST_1", "a,b"),
        ("EUREKA_CLIENT_SERVICEURL_A", "http://a/"),
        ("EUREKA_CLIENT_USEDNSFORFETCHINGSERVICEURLS", "true"),
    ]);
    let eureka = Eureka::builder_from(&settings).unwrap().service_url("http://code/").build().unwrap();
    let urls: Vec<_> = eureka.registry_servers().iter().map(|server| server.url().to_owned()).collect();
    assert_eq!(urls, ["http://code/"]);
}

#[test]
fn other_settings_of_registry_servers_are_read() {
    let read = |name: &str, value: &str| property(name, value).unwrap().config.servers;
    assert!(!read("eureka.client.prefer-same-zone-eureka", "false").zones.prefer_same);
    let seconds = Duration::from_secs;
    let poll = "eureka.client.eureka-service-url-poll-interval-seconds";
    assert_eq!(read(poll, "60").poll_interval, seconds(60));
    assert_eq!(read("eureka.serviceUrlPollIntervalMs", "60000").poll_interval, seconds(60));
    let session = "eureka.client.transport.sessioned-client-reconnect-interval-seconds";
    assert_eq!(read(session, "10m").session, seconds(600));
    assert_eq!(read("eureka.transport.sessionedClientReconnectIntervalSeconds", "7").session, seconds(7));
    let share = "eureka.client.transport.retryable-client-quarantine-refresh-percentage";
    assert!((read(share, "0.5").quarantine_threshold - 0.5).abs() < f64::EPSILON);
    assert!(property(share, "-1").is_err() && property(session, "0").is_err() && property(poll, "0").is_err());
}

#[test]
fn servers_from_dns_are_read_from_the_settings() {
    let dns = [
        ("EUREKA_CLIENT_USEDNSFORFETCHINGSERVICEURLS", "true"),
        ("EUREKA_CLIENT_EUREKASERVERDNSNAME", "eureka.example.net"),
        ("EUREKA_CLIENT_EUREKASERVERPORT", "7001"),
        ("EUREKA_CLIENT_EUREKASERVERURLCONTEXT", "eureka/v2"),
    ];
    let builder = with(&dns).unwrap();
    let records = &builder.config.servers.dns;
    assert_eq!((&*records.domain, records.port, &*records.context), ("eureka.example.net", 7001, "eureka/v2"));
    let built = builder.build();
    if cfg!(feature = "dns") {
        assert!(built.unwrap().registry_servers().is_empty(), "nothing is looked up before the first request");
        assert!(with(&dns[..2]).unwrap().build().unwrap_err().to_string().contains("eureka-server-port"));
        assert!(with(&dns[..1]).unwrap().build().unwrap_err().to_string().contains("eureka-server-d-n-s-name"));
    } else {
        assert!(built.unwrap_err().to_string().contains("feature `dns`"));
    }
    assert!(with(&dns[1..]).unwrap().build().is_ok(), "without the switch, the default URL is used");
}
