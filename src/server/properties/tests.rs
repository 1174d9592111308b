use super::*;
use crate::EurekaServer;

/// Returns the settings of these variables and arguments.
fn settings(variables: &[(&str, &str)], arguments: &[(&str, &str)]) -> Settings {
    let builder = Settings::builder().environment(variables.iter().copied()).without_files();
    let arguments = arguments.iter().map(|(name, value)| format!("--{name}={value}"));
    builder.arguments(arguments).load().unwrap()
}

fn set(name: &str, value: &str) -> Result<String, String> {
    EurekaServer::builder().property(name, value).map(|b| format!("{b:?}")).map_err(|e| e.to_string())
}

#[test]
fn name_is_compared_without_dashes_and_case() {
    for name in [
        "eureka.server.eviction-interval-timer-in-ms",
        "eureka.server.evictionIntervalTimerInMs",
        "eureka.server.EVICTION_INTERVAL_TIMER_IN_MS",
    ] {
        assert!(set(name, "1500").unwrap().contains("interval: 1.5s"), "{name}");
    }
}

#[test]
fn each_property_accepts_a_value_of_its_kind() {
    for property in Property::all() {
        let name = property.name().replace("<zone>", "defaultZone").replace("<region>", "here");
        let value = match property.unit {
            "BOOL" if property.default_text() == "false" => "True",
            "BOOL" => "False",
            "SHARE" => "0.5",
            "MS" | "SECONDS" | "COUNT" | "BYTES" | "PORT" => "7",
            "REGIONS" => "here;http://node/",
            _ => "http://node/",
        };
        assert_ne!(set(&name, value), Ok(format!("{:?}", EurekaServer::builder())), "{name} sets something");
    }
}

#[test]
fn invalid_value_is_an_error_with_the_expected_kind() {
    assert_eq!(
        set("eureka.server.eviction-interval-timer-in-ms", "1 s"),
        Err(r#"property eureka.server.eviction-interval-timer-in-ms: expected milliseconds, found "1 s""#.into())
    );
}

#[test]
fn flag_is_converted_as_by_spring() {
    let flag = |value: &str| set("eureka.server.disable-delta", value);
    for (texts, meaning) in [(["on", "Yes", "1"], "true"), (["OFF", "no", "0"], "false")] {
        assert!(texts.into_iter().all(|text| flag(text) == flag(meaning)), "{meaning}");
    }
    assert_ne!(flag("true"), flag("false"));
    assert!(flag("2").is_err());
}

#[test]
fn unknown_name_is_an_error_with_the_nearest_name() {
    let error = set("eureka.server.eviction-interval-in-ms", "1").unwrap_err();
    assert!(error.ends_with("did you mean eureka.server.eviction-interval-timer-in-ms?"), "{error}");
    let error = set("eureka.sever.enable-selfpreservation", "true").unwrap_err();
    assert!(error.ends_with("did you mean eureka.server.enable-self-preservation?"), "{error}");
    assert!(set("eureka.server.batchReplication", "true").is_ok(), "known to Java, ignored here");
    let dns = "eureka.client.useDnsForFetchingServiceUrls";
    assert!(set(dns, "false").is_ok());
    let as_built = set(dns, "true").is_ok();
    assert_eq!(as_built, cfg!(all(feature = "peers", feature = "dns")), "a missing feature is not ignored");
}

/// Settings that a Spring server and the client in it read, in the spelling of their documentation.
#[cfg(all(feature = "peers", feature = "dns"))]
const OF_SPRING: &str = "
    eureka.server.enable-self-preservation eureka.server.renewal-percent-threshold
    eureka.server.renewal-threshold-update-interval-ms eureka.server.expected-client-renewal-interval-seconds
    eureka.server.eviction-interval-timer-in-ms eureka.server.wait-time-in-ms-when-sync-empty
    eureka.server.registry-sync-retries eureka.server.registry-sync-retry-wait-ms
    eureka.instance.registry.expected-number-of-clients-sending-renews eureka.server.expectedNumberOfRenewsPerMin
    eureka.instance.registry.default-open-for-traffic-count eureka.server.defaultOpenForTrafficCount
    eureka.server.retention-time-in-m-s-in-delta-queue eureka.server.delta-retention-timer-interval-in-ms
    eureka.server.disable-delta eureka.server.response-cache-auto-expiration-in-seconds
    eureka.server.response-cache-update-interval-ms eureka.server.use-read-only-response-cache
    eureka.server.initial-capacity-of-response-cache eureka.server.peer-eureka-nodes-update-interval-ms
    eureka.server.my-url eureka.server.sync-when-timestamp-differs
    eureka.server.max-elements-in-peer-replication-pool eureka.server.max-threads-for-peer-replication
    eureka.server.max-elements-in-status-replication-pool eureka.server.max-threads-for-status-replication
    eureka.server.max-time-for-replication eureka.server.peer-node-connect-timeout-ms
    eureka.server.peer-node-read-timeout-ms eureka.server.peer-node-total-connections
    eureka.server.peer-node-total-connections-per-host eureka.server.peer-node-connection-idle-timeout-seconds
    eureka.server.enable-replicated-request-compression
    eureka.server.min-available-instances-for-peer-replication
    eureka.server.remote-region-app-whitelist eureka.server.remote-region-app-whitelist.global
    eureka.server.remote-region-app-whitelist[global] eureka.server.remote-region-registry-fetch-interval
    eureka.server.remote-region-fetch-thread-pool-size eureka.server.disable-transparent-fallback-to-other-region
    eureka.server.g-zip-content-from-remote-region eureka.server.remote-region-trust-store
    eureka.server.remote-region-trust-store-password eureka.server.disable-delta-for-remote-regions
    eureka.server.remote-region-connect-timeout-ms eureka.server.remote-region-read-timeout-ms
    eureka.server.remote-region-total-connections eureka.server.remote-region-total-connections-per-host
    eureka.server.remote-region-connection-idle-timeout-seconds eureka.server.remote-region-urls
    eureka.server.rate-limiter-enabled eureka.server.rate-limiter-throttle-standard-clients
    eureka.server.rate-limiter-privileged-clients eureka.server.rate-limiter-burst-size
    eureka.server.rate-limiter-registry-fetch-average-rate eureka.server.rate-limiter-full-fetch-average-rate
    eureka.server.log-identity-headers eureka.server.json-codec-name eureka.server.xml-codec-name
    eureka.server.experimental.registration.validation.dataCenterInfoId eureka.server.experimental.bugfix.934
    eureka.server.experimental.transport.enabled eureka.dashboard.enabled eureka.dashboard.path
    eureka.environment eureka.datacenter eureka.server.metrics.enabled eureka.server.prime-aws-replica-connections
    eureka.server.use-aws-asg-api eureka.server.a-s-g-query-timeout-ms eureka.server.a-s-g-update-interval-ms
    eureka.server.a-s-g-cache-expiry-timeout-ms eureka.server.list-auto-scaling-groups-role-name
    eureka.server.binding-strategy eureka.server.e-i-p-bind-rebind-retries
    eureka.server.e-i-p-binding-retry-interval-ms eureka.server.e-i-p-binding-retry-interval-ms-when-unbound
    eureka.server.route53-bind-rebind-retries eureka.server.route53-binding-retry-interval-ms
    eureka.server.route53-domain-t-t-l eureka.server.a-w-s-access-id eureka.server.a-w-s-secret-key
    eureka.server.batch-replication eureka.server.number-of-replication-retries
    eureka.server.peer-eureka-status-refresh-time-interval-ms eureka.server.min-threads-for-peer-replication
    eureka.server.max-idle-thread-age-in-minutes-for-peer-replication
    eureka.server.min-threads-for-status-replication
    eureka.server.max-idle-thread-age-in-minutes-for-status-replication
    eureka.client.region eureka.client.availability-zones.us-east-1 eureka.client.service-url.defaultZone
    eureka.client.prefer-same-zone-eureka eureka.client.use-dns-for-fetching-service-urls
    eureka.client.eureka-server-d-n-s-name eureka.client.eureka-server-port
    eureka.client.eureka-server-u-r-l-context eureka.client.eureka-service-url-poll-interval-seconds
    eureka.client.register-with-eureka eureka.client.fetch-registry eureka.client.registry-fetch-interval-seconds
    eureka.client.filter-only-up-instances eureka.client.transport.applications-resolver-use-ip
    eureka.client.on-demand-update-status-change eureka.client.should-unregister-on-shutdown
    eureka.client.allow-redirects eureka.client.dollar-replacement eureka.client.escape-char-replacement
    eureka.instance.lease-renewal-interval-in-seconds eureka.instance.lease-expiration-duration-in-seconds
    eureka.instance.hostname eureka.instance.prefer-ip-address eureka.instance.appname";

#[cfg(all(feature = "peers", feature = "dns"))]
#[test]
fn settings_of_a_spring_command_line_are_accepted() {
    for name in OF_SPRING.split_whitespace() {
        let taken = ["true", "7", "0.5", "http://node/"].map(|value| set(name, value));
        assert!(taken.iter().any(Result::is_ok), "{name}: {taken:?}");
    }
}

#[cfg(feature = "peers")]
#[test]
fn tls_stores_of_the_peers_are_read_without_showing_passwords() {
    let family = "eureka.client.tls";
    let arguments = [
        ("enabled", "true"),
        ("trust-store", "file:/ca.p12"),
        ("trustStoreType", "pkcs12"),
        ("trust-store-password", " geheim"),
        ("key-store", "/key.pem"),
        ("key-store-type", "PEM"),
        ("key-store-password", "geheim"),
        ("key-password", "geheim"),
    ]
    .map(|(name, value)| (format!("{family}.{name}"), value));
    let arguments: Vec<_> = arguments.iter().map(|(name, value)| (&**name, *value)).collect();
    for read in [EurekaServerBuilder::from_settings, EurekaServerBuilder::from_settings_standalone] {
        let builder = format!("{:?}", read(EurekaServer::builder(), &settings(&[], &arguments)).unwrap());
        for part in [
            "enabled: true",
            r#"location: Some("file:/ca.p12"), store_type: Some(Pkcs12), password: Some(***)"#,
            r#"location: Some("/key.pem"), store_type: Some(Pem), password: Some(***)"#,
            "key_password: Some(***)",
        ] {
            assert!(builder.contains(part), "{part} in {builder}");
        }
        assert!(!builder.contains("geheim"), "{builder}");
    }
    let error = set("eureka.client.tls.key-store-type", "BKS").unwrap_err();
    assert!(error.contains("PKCS12, JKS or PEM"), "{error}");
}

#[cfg(feature = "peers")]
#[tokio::test]
async fn tls_store_of_the_peers_is_opened_only_if_it_is_enabled() {
    let store = ("eureka.client.tls.trust-store", "missing.p12");
    let build = |arguments: &[(&str, &str)]| {
        let builder = EurekaServer::builder().from_settings_standalone(&settings(&[], arguments)).unwrap();
        builder.build().map(drop).map_err(|error| error.to_string())
    };
    for off in [&[store][..], &[store, ("eureka.client.tls.enabled", "false")]] {
        assert_eq!(build(off), Ok(()));
    }
    let error = build(&[store, ("eureka.client.tls.enabled", "true")]).unwrap_err();
    let why = if cfg!(feature = "tls") { "missing.p12" } else { "switch on the feature `tls`" };
    assert!(error.contains("the TLS settings for peers are unusable") && error.contains(why), "{error}");
}

#[cfg(not(feature = "peers"))]
#[test]
fn remote_regions_are_refused_without_the_feature_peers() {
    let regions = "eureka.server.remote-region-urls-with-name";
    assert!(set(regions, " ").is_ok());
    for name in [format!("{regions}.eu"), format!("{regions}[eu]"), regions.to_owned()] {
        let error =
            format!(r#"property {name}: expected nothing: remote regions need the feature peers, found "http://eu/""#);
        assert_eq!(set(&name, "http://eu/"), Err(error));
    }
}

#[cfg(feature = "peers")]
#[test]
fn remote_regions_have_two_spellings() {
    let regions = "eureka.server.remote-region-urls-with-name";
    let lists = "eureka.server.remoteRegionAppWhitelist";
    for (name, value, expected) in [
        (format!("{regions}.EU"), "http://eu/", r#"urls: {"eu": [http://eu/]}"#),
        (format!("{regions}[eu]"), "http://eu/,http://eu2/", r#"urls: {"eu": [http://eu/, http://eu2/]}"#),
        (format!("{regions}.eu.west"), "http://eu/", r#"urls: {"eu.west": [http://eu/]}"#),
        (regions.to_owned(), "a;http://a/, b;http://b/", r#"urls: {"a": [http://a/], "b": [http://b/]}"#),
        (format!("{lists}.eu"), "orders", r#"whitelists: {"eu": {"ORDERS"}}"#),
        (format!("{lists}[global]"), "orders", r#"whitelists: {"global": {"ORDERS"}}"#),
        (lists.to_owned(), "orders", r#"whitelists: {"global": {"ORDERS"}}"#),
    ] {
        let builder = set(&name, value).unwrap();
        assert!(builder.contains(expected), "{name}={value}: {builder}");
    }
}

#[cfg(feature = "peers")]
#[tokio::test]
async fn invalid_remote_region_is_an_error_of_build() {
    for (value, why) in [
        ("eu", "'eu' has no URL"),
        (";http://eu/", "'' is no name for a region"),
        ("none;http://eu/", "'none' is no name for a region"),
        ("http://user:secret@eu/", "'...' is no name for a region"),
        ("eu;http://user:sec,secret@eu/", "not shown"),
        ("eu;registry:8761", "registry:8761"),
    ] {
        let builder = EurekaServer::builder().property("eureka.server.remote-region-urls-with-name", value).unwrap();
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{value}: {error}");
        assert!(!format!("{error} {error:?}").contains("sec"), "{value}: {error:?}");
    }
    use crate::server::Regions;
    let many = EurekaServer::builder()
        .regions((0..33).fold(Regions::new(), |regions, n| regions.region(n.to_string(), "http://eu/")));
    assert!(many.build().unwrap_err().to_string().contains("at most 32"));
}

#[cfg(feature = "peers")]
#[test]
fn keys_in_variables_are_matched_without_case() {
    let variables = [
        ("EUREKA_CLIENT_REGION", "eu"),
        ("EUREKA_CLIENT_AVAILABILITYZONES_EU", "A,B"),
        ("EUREKA_CLIENT_SERVICEURL_A", "http://a/"),
        ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://d/"),
        ("EUREKA_SERVER_MYURL", "http://a/"),
        ("EUREKA_SERVER_REMOTEREGIONURLSWITHNAME", "Asia;http://asia/"),
        ("EUREKA_SERVER_REMOTEREGIONAPPWHITELIST_ASIA", "orders"),
        ("EUREKA_SERVER_PEERNODEREADTIMEOUTMS", "300"),
    ];
    let builder = format!("{:?}", EurekaServer::builder().from_settings(&settings(&variables, &[])).unwrap());
    for part in [
        r#""a": [http://a/]"#,
        r#""defaultzone": [http://d/]"#,
        "read_timeout: 300ms",
        "my_url: Some",
        r#""asia": [http://asia/]"#,
        r#""asia": {"ORDERS"}"#,
    ] {
        assert!(builder.contains(part), "{part} in {builder}");
    }
    let invalid = settings(&[("EUREKA_SERVER_PEERNODEREADTIMEOUTMS", "soon")], &[]);
    assert!(EurekaServer::builder().from_settings(&invalid).is_err());
}

#[cfg(feature = "peers")]
#[tokio::test]
async fn own_url_is_stored_without_credentials_and_refused_if_invalid() {
    let own = set("eureka.server.my-url", "http://user:secret@node1:8761/eureka").unwrap();
    assert!(own.contains(r#"my_url: Some("http://node1:8761/eureka/")"#) && !own.contains("secret"), "{own}");
    let builder = EurekaServer::builder().property("eureka.server.my-url", "http://user:secret@node1:x/").unwrap();
    // Other peers do not hide it.
    for builder in [builder.clone(), builder.peers(crate::server::Peers::new())] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains("my_url is unusable"), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

#[cfg(feature = "peers")]
#[test]
fn urls_of_a_zone_from_a_later_argument_are_read() {
    let variables = [("EUREKA_CLIENT_SERVICEURL_EAST_1A", "http://east/")];
    let zones = [("eureka.client.availability-zones.us-east-1", "east-1a")];
    let builder = EurekaServer::builder().from_settings(&settings(&variables, &zones)).unwrap();
    assert!(format!("{builder:?}").contains(r#""east-1a": [http://east/]"#), "{builder:?}");
}

#[cfg(feature = "peers")]
#[test]
fn variables_with_keys_are_read_as_a_map() {
    let region = "EUREKA_SERVER_REMOTEREGIONURLSWITHNAME_";
    let from = |key: &str| {
        let variables = settings(&[("HOME", "/root"), (&*format!("{region}{key}"), "http://there/")], &[]);
        EurekaServer::builder().from_settings(&variables).map(|builder| format!("{builder:?}"))
    };
    assert!(from("EU").unwrap().contains(r#"urls: {"eu": [http://there/]}"#));
    let error = from("US_EAST_1").map_err(|error| error.to_string()).unwrap_err();
    assert!(error.contains("US_EAST_1") && error.contains("REGION;URL"), "{error}");
}

#[cfg(feature = "peers")]
#[test]
fn list_of_a_file_is_the_value_of_its_key() {
    let apps = "eureka.server.remote-region-app-whitelist.eu";
    let items = [(&*format!("{apps}[0]"), "orders"), (&*format!("{apps}[1]"), "bills")];
    let builder = EurekaServer::builder().from_settings(&settings(&[], &items)).unwrap();
    let builder = format!("{builder:?}");
    assert!(builder.contains("\"ORDERS\"") && builder.contains("\"BILLS\""), "{builder}");
}

#[test]
fn family_of_a_switch_that_is_off_is_ignored_in_arguments_and_variables() {
    let start = |variables: &[(&str, &str)], arguments: &[(&str, &str)]| {
        // A store that is read does not exist.
        let builder = EurekaServer::builder().from_settings_standalone(&settings(variables, arguments));
        builder.and_then(|builder| builder.check()).is_ok()
    };
    for (switch, store, [switch_variable, store_variable]) in [
        ("server.ssl.enabled", "server.ssl.key-store", ["SERVER_SSL_ENABLED", "SERVER_SSL_KEY_STORE"]),
        (
            "eureka.client.tls.enabled",
            "eureka.client.tls.trustStore",
            ["EUREKA_CLIENT_TLS_ENABLED", "EUREKA_CLIENT_TLS_TRUSTSTORE"],
        ),
    ] {
        for off in ["false", "OFF", " no "] {
            assert!(start(&[], &[(switch, off), (store, "x")]), "{switch}={off}");
            assert!(start(&[], &[(store, "${X}"), (switch, off)]), "{switch}={off}");
            assert!(start(&[(store_variable, "x"), (switch_variable, "true")], &[(switch, off)]), "{switch}={off}");
            assert!(start(&[(switch_variable, off)], &[(store, "x"), (switch, "")]), "{switch}={off}");
        }
        assert!(start(&[], &[(switch, "true"), (switch, "false")]), "{switch}");
        assert!(!start(&[], &[(switch, "false"), ("spring.security.saml2.x", "x")]), "{switch}");
    }
    let (switch, store) = ("server.ssl.enabled", "server.ssl.key-store");
    let [switch_variable, store_variable] = ["SERVER_SSL_ENABLED", "SERVER_SSL_KEY_STORE"];
    // The last argument takes precedence, also over a variable.
    assert!(!start(&[], &[(store, "x")]));
    assert!(!start(&[(store_variable, "x"), (switch_variable, "false")], &[(switch, "true")]));
    assert!(!start(&[(switch_variable, "false")], &[(switch, "false"), (switch, "true")]));
    assert!(!start(&[(store_variable, "x"), (switch_variable, " ")], &[(switch, "")]));
    let json = |document| [("SPRING_APPLICATION_JSON", document)];
    let off = json(r#"{"server":{"ssl":{"key-store":"x","enabled":false}}}"#);
    let on = json(r#"{"server":{"ssl":{"key-store":"x"}}}"#);
    assert!(start(&off, &[]) && !start(&on, &[]) && start(&on, &[("server.ssl.enabled", "false")]));
}

#[cfg(feature = "tls")]
#[test]
fn ssl_settings_of_spring_are_read_without_showing_passwords() {
    let arguments = [
        ("server.ssl.certificate", "file:/tls.crt"),
        ("server.ssl.certificatePrivateKey", "/tls.key"),
        ("server.ssl.trust-certificate", "/ca.pem"),
        ("server.ssl.client-auth", "NEED"),
        ("server.ssl.enabled-protocols", "TLSv1.3"),
        ("server.ssl.key-store-password", "geheim"),
    ];
    let standalone = EurekaServer::builder().from_settings_standalone(&settings(&[], &arguments)).unwrap();
    let standalone = format!("{standalone:?}");
    for part in ["file:/tls.crt", "/tls.key", "/ca.pem", "Some(Required)", "Some([false, true])", "Some(***)"] {
        assert!(standalone.contains(part), "{part} in {standalone}");
    }
    let embedded = EurekaServer::builder().from_settings(&settings(&[], &arguments)).unwrap();
    assert!(!format!("{embedded:?}").contains("tls.crt"), "they belong to the application around the registry");
    for (name, value, expected) in [
        ("server.ssl.client-auth", "maybe", "none, want or need"),
        ("server.ssl.enabled-protocols", "TLSv1.1,TLSv1.2", "older versions are not supported"),
        ("server.ssl.bundle", "web", "bundles are not supported"),
        ("server.ssl.certificte", "a", "did you mean server.ssl.certificate?"),
        ("management.server.prot", "1", "did you mean management.server.port?"),
    ] {
        let error = set(name, value).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn blank_access_setting_is_an_error_unless_another_source_has_a_value() {
    let read = |variables: &[(&str, &str)], arguments: &[(&str, &str)]| {
        let builder = EurekaServer::builder().from_settings_standalone(&settings(variables, arguments));
        builder.map(|_| ()).map_err(|error| error.to_string())
    };
    for (name, value) in [
        ("spring.security.user.password", ""),
        ("spring.security.user.password", "${MISSING:}"),
        ("spring.security.user.roles", " "),
        ("eureka.server.access.users-file", ""),
        ("eureka.server.access.usersFile", "${MISSING:}"),
        ("eureka.server.access.users.orders.token", ""),
        ("eureka.server.access.users.orders.password", " "),
        ("eureka.server.access.anonymous", ""),
        ("server.ssl.key-store", "${MISSING:}"),
    ] {
        let error = read(&[], &[(name, value)]).unwrap_err();
        assert!(error.contains(name) && error.contains("is blank: set it, or remove it"), "{error}");
        assert!(set(name, value).is_err(), "{name}");
    }
    let variable = ("SPRING_SECURITY_USER_PASSWORD", "");
    assert!(read(&[variable], &[]).unwrap_err().contains("SPRING_SECURITY_USER_PASSWORD is blank"));
    assert_eq!(read(&[variable], &[("spring.security.user.password", "secret")]), Ok(()));
    let user = ("EUREKA_SERVER_ACCESS_USERS_ORDERS_TOKEN", "");
    assert!(read(&[user], &[]).is_err());
    assert_eq!(read(&[user], &[("eureka.server.access.users.orders.token", "0123456789")]), Ok(()));
}

#[test]
fn blank_setting_beside_a_complete_protection_is_unset() {
    const SECRET: (&str, &str) = ("spring.security.user.password", "secret");
    const STORE: (&str, &str) = ("server.ssl.key-store", "/tls/a.p12");
    const TOKEN: (&str, &str) = ("eureka.server.access.users.orders.token", "0123456789");

    let read = |variable: (&str, &str), rest: &[(&str, &str)]| {
        let settings = settings(&[variable], rest);
        EurekaServer::builder().from_settings_standalone(&settings).map(|_| ()).map_err(|error| error.to_string())
    };
    for (variable, rest) in [
        ("SPRING_SECURITY_USER_NAME", &[SECRET][..]),
        ("EUREKA_SERVER_ACCESS_ANONYMOUS", &[SECRET]),
        ("EUREKA_SERVER_ACCESS_ANONYMOUS", &[TOKEN]),
        ("EUREKA_SERVER_ACCESS_FAILEDATTEMPTSPERMINUTE", &[SECRET]),
        ("EUREKA_SERVER_ACCESS_USERS_ORDERS_PASSWORD", &[TOKEN]),
        #[cfg(feature = "tls")]
        ("SERVER_SSL_KEYPASSWORD", &[STORE]),
        #[cfg(feature = "tls")]
        ("SERVER_SSL_TRUSTSTORE", &[STORE]),
        #[cfg(feature = "tls")]
        (
            "SERVER_SSL_KEYSTORE",
            &[("server.ssl.certificate", "/tls/a.pem"), ("server.ssl.certificate-private-key", "/tls/a.key")],
        ),
    ] {
        assert_eq!(read((variable, ""), rest), Ok(()), "{variable}");
        let alone = read((variable, ""), &[]);
        assert!(variable.contains("ATTEMPTS") || alone.is_err_and(|error| error.contains("is blank")), "{variable}");
    }
    // A default that is weaker, and a credential of another user.
    for (variable, rest) in [
        ("SPRING_SECURITY_USER_ROLES", SECRET),
        ("SPRING_SECURITY_USER_PASSWORD", TOKEN),
        ("EUREKA_SERVER_ACCESS_USERS_ORDERS_ROLES", TOKEN),
        ("EUREKA_SERVER_ACCESS_USERS_CART_APPLICATIONS", TOKEN),
        ("EUREKA_SERVER_ACCESS_USERS_ORDERS_APPLICATIONS", TOKEN),
        ("EUREKA_SERVER_ACCESS_USERSFILE", TOKEN),
        #[cfg(feature = "tls")]
        ("SERVER_SSL_CLIENTAUTH", STORE),
        #[cfg(feature = "tls")]
        ("SERVER_SSL_ENABLEDPROTOCOLS", STORE),
        #[cfg(feature = "tls")]
        ("SERVER_SSL_CERTIFICATEPRIVATEKEY", ("server.ssl.certificate", "/tls/a.pem")),
    ] {
        assert!(read((variable, ""), &[rest]).is_err_and(|error| error.contains("is blank")), "{variable}");
    }
}

#[tokio::test]
async fn spring_user_has_the_roles_of_this_registry_among_its_roles() {
    let roles = |roles: &str| {
        let builder = EurekaServer::builder().property("spring.security.user.password", "secret").unwrap();
        let builder = builder.property("spring.security.user.roles", roles).unwrap();
        builder.build().map(|server| server.access_summary.unwrap()).map_err(|error| error.to_string())
    };
    for (names, expected) in [
        ("ADMIN", "user may read,register,operate,peer;"),
        ("USER, ACTUATOR", "user may read,register,operate,peer;"),
        ("read,USER", "user may read;"),
        ("ADMIN register READ", "user may read,register;"),
    ] {
        let summary = roles(names).unwrap();
        assert!(summary.starts_with(expected), "{names}: {summary}");
    }
    // Two edits lead to register and operate.
    for names in ["REGISTRY", "OPERATOR", "READER"] {
        assert!(roles(names).unwrap().starts_with("user may read,register,operate,peer;"), "{names}");
    }
    for names in ["read,regster", "regster", "operates", "read,Peers"] {
        assert!(roles(names).unwrap_err().contains("did you mean"), "{names}");
    }
}
