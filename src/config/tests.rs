//! Tests of the sources together.

use super::key::names_of;
use super::*;
use crate::model::{Instance, InstanceBuilder};

fn settings(variables: &[(&str, &str)]) -> Settings {
    Settings::builder().environment(variables.iter().copied()).without_files().load().unwrap()
}

fn properties(properties: &[(&str, &str)]) -> Settings {
    let builder = Settings::builder().environment([("", ""); 0]).without_files();
    properties.iter().fold(builder, |builder, (name, value)| builder.property(*name, *value)).load().unwrap()
}

fn from(variables: &[(&str, &str)]) -> Result<InstanceBuilder, InvalidSetting> {
    Instance::builder("orders").port(80).ip_addr("10.0.0.1").from_settings(&settings(variables))
}

fn get(settings: &Settings, name: &str) -> Option<String> {
    settings.get(name).unwrap()
}

#[test]
fn setting_is_found_in_every_relaxed_form() {
    for name in [
        "EUREKA_CLIENT_FETCHINTERVAL",
        "EUREKA_CLIENT_FETCH_INTERVAL",
        "eureka_client_fetch_interval",
        "eureka.client.fetch-interval",
        "eureka.client.fetchInterval",
    ] {
        let settings = settings(&[("HOME", "/root"), (name, " 7 ")]);
        assert_eq!(get(&settings, "eureka.client.fetch-interval"), Some("7".into()), "{name}");
    }
    let both = settings(&[("EUREKA_CLIENT_FETCH_INTERVAL", "1"), ("EUREKA_CLIENT_FETCHINTERVAL", "2")]);
    assert_eq!(get(&both, "eureka.client.fetch-interval"), Some("2".into()));
    let other = properties(&[("eureka.clientfetch-interval", "7")]);
    assert_eq!(get(&other, "eureka.client.fetch-interval"), None);
}

#[test]
fn source_with_the_highest_precedence_counts() {
    let builder = Settings::builder()
        .default_property("a.b", "default")
        .environment([("A_B", "variable"), ("SPRING_APPLICATION_JSON", r#"{"a": {"b": "json", "c": [1, true]}}"#)])
        .without_files();
    assert_eq!(get(&builder.clone().load().unwrap(), "a.b"), Some("json".into()));
    assert_eq!(get(&builder.clone().load().unwrap(), "a.c"), Some("1,true".into()));
    let with_argument = builder.clone().arguments(["--a.b=first", "--a.b=last", "-x", "word"]);
    assert_eq!(get(&with_argument.load().unwrap(), "a.b"), Some("last".into()));
    let without_json = builder.clone().environment([("A_B", "variable")]);
    assert_eq!(get(&without_json.load().unwrap(), "a.b"), Some("variable".into()));
    assert_eq!(get(&builder.environment([("A_B", " ")]).load().unwrap(), "a.b"), Some("default".into()));
}

#[test]
fn json_that_is_invalid_is_an_error_without_its_text() {
    for text in [r#"{"password": "geheim""#, r#"["geheim"]"#, &"[".repeat(100_000)] {
        let result = Settings::builder().environment([("SPRING_APPLICATION_JSON", text)]).without_files().load();
        let error = result.unwrap_err().to_string();
        assert!(
            error.starts_with("environment variable SPRING_APPLICATION_JSON: ") && !error.contains("geheim"),
            "{error}"
        );
    }
}

#[test]
fn value_that_is_not_unicode_is_an_error() {
    assert!(settings(&[("X", "h\u{FFFD}")]).get("x").is_err());
}

#[test]
fn placeholders_are_resolved_over_all_sources() {
    let settings = Settings::builder()
        .environment([("HOSTNAME", "pod-7"), ("EUREKA_INSTANCE_INSTANCEID", "${my.id}"), ("EMPTY", "")])
        .property("my.id", "${HOSTNAME}:${spring.application.name:${fallback:orders}}:${port:8080}")
        .property("fallback", "bills")
        .property("plain", "\\${HOSTNAME} $5 {x}")
        .property("which", "HOST")
        .property("nested", "${${which}NAME}")
        .property("url", "${registry:http://localhost:8761/eureka/}")
        .property("blank", "[${EMPTY:x}${nothing:}]")
        .without_files()
        .load()
        .unwrap();
    for (name, value) in [
        ("eureka.instance.instance-id", "pod-7:bills:8080"),
        ("plain", "${HOSTNAME} $5 {x}"),
        ("nested", "pod-7"),
        ("url", "http://localhost:8761/eureka/"),
        ("blank", "[]"),
    ] {
        assert_eq!(get(&settings, name), Some(value.into()), "{name}");
    }
}

#[test]
fn placeholder_ignores_the_url_of_a_service_in_kubernetes() {
    let settings = settings(&[("SERVER_PORT", "tcp://10.0.0.1:80"), ("MY_ID", "${server.port:8080}")]);
    assert_eq!(get(&settings, "my.id"), Some("8080".into()));
}

#[test]
fn placeholder_without_a_value_is_an_error_with_the_remedy() {
    let mut chain: Vec<(String, String)> =
        (0..40).map(|n| (format!("n{n}"), format!("${{n{m}}}${{n{m}}}", m = n + 1))).collect();
    chain.push(("n40".into(), "x".into()));
    let chain: Vec<_> = chain.iter().map(|(name, value)| (&**name, &**value)).collect();
    let settings = properties(
        &[
            &[
                ("a", "${b}"),
                ("b", "x${c}"),
                ("c", "${a}"),
                ("self", "${SELF}"),
                ("missing", "http://u:geheim@${no.host}/"),
                ("open", "${a"),
                ("random", "${random.port}"),
                ("absent", "http://u:${no.password}@host/"),
                ("zone", "http://registry-${no.zone}/eureka/,http://u:geheim@host/"),
                ("plain", "http://u:ge${geheim}@host/"),
                ("slash", "http://u:ge${geheim}/x@host/"),
                ("user.password", "a${geheim}"),
            ],
            &chain[..],
        ]
        .concat(),
    );
    for (name, part) in [
        ("a", "leads back to itself: a, b, c, a"),
        ("self", "leads back to itself"),
        ("missing", "property missing: placeholder ${no.host} has no value: set it, or write ${no.host:DEFAULT}"),
        ("open", "without a closing brace"),
        ("random", "${random.port} is unknown"),
        ("absent", "placeholder ${no.password} has no value"),
        ("zone", "placeholder ${no.zone} has no value"),
        ("plain", "placeholder in a secret has no value: set it, or write \\${ for plain text"),
        ("slash", "placeholder in a secret has no value"),
        ("user.password", "placeholder in a secret has no value"),
        ("n0", "more than 1000 placeholders"),
    ] {
        let error = settings.get(name).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("geheim"), "{name}: {error}");
    }
}

#[test]
fn random_value_stays_the_same_for_its_setting() {
    let settings = properties(&[
        ("a", "${random.value}"),
        ("b", "${random.value}"),
        ("two", "${random.uuid}/${random.uuid}"),
        ("refers", "${a}"),
        ("n", "${random.int[1,5]}"),
    ]);
    let a = get(&settings, "a").unwrap();
    assert_eq!((a.len(), get(&settings, "a").unwrap(), get(&settings, "refers").unwrap()), (32, a.clone(), a.clone()));
    assert_ne!(get(&settings, "b").unwrap(), a);
    let two = get(&settings, "two").unwrap();
    let (first, second) = two.split_once('/').unwrap();
    assert!(first != second && first.len() == 36, "{two}");
    assert!((1..5).contains(&get(&settings, "n").unwrap().parse().unwrap()));
    assert_ne!(get(&properties(&[("a", "${random.value}")]), "a").unwrap(), a);
}

#[test]
fn list_is_read_in_each_form() {
    let name = "spring.cloud.inetutils.preferred-networks";
    let list = |settings: &Settings| -> Vec<String> {
        let value = settings.find(name, Unit::List).unwrap().unwrap();
        value.list().into_iter().map(str::to_owned).collect()
    };
    let indexed = [
        ("SPRING_CLOUD_INETUTILS_PREFERREDNETWORKS_1", "b"),
        ("SPRING_CLOUD_INETUTILS_PREFERRED_NETWORKS_0", "a{1,2}"),
    ];
    assert_eq!(list(&settings(&indexed)), ["a{1,2}", "b"]);
    assert_eq!(list(&settings(&[("SPRING_CLOUD_INETUTILS_PREFERREDNETWORKS", "a, b")])), ["a", "b"]);
    let items =
        [("spring.cloud.inetutils.preferredNetworks[0]", "a"), ("spring.cloud.inetutils.preferred-networks[1]", "b")];
    assert_eq!(list(&properties(&items)), ["a", "b"]);
    // A list replaces that of the sources below it.
    let above = Settings::builder().environment(indexed).property(format!("{name}[0]"), "c").without_files();
    assert_eq!(list(&above.load().unwrap()), ["c"]);
}

#[test]
fn map_is_merged_over_the_sources() {
    static METADATA: Key<Vec<(String, String)>> =
        Key::new("eureka.instance.metadata-map.<key>", Unit::Text, "", "", |mut all, value| {
            all.push((value.key().to_owned(), value.text().to_owned()));
            Ok(all)
        });
    let settings = Settings::builder()
        .default_property("eureka.instance.metadata-map.gRPC_port", "9090")
        .default_property("eureka.instance.metadata-map.management.port", "81")
        .default_property("eureka.instance.metadataMap[a.b]", "c")
        .environment([
            ("EUREKA_INSTANCE_METADATAMAP_GRPC_PORT", "9091"),
            ("EUREKA_INSTANCE_METADATA_MAP_ZONE", " rack-a "),
            ("EUREKA_INSTANCE_METADATAMAP_EMPTY", ""),
        ])
        .property("eureka.instance.metadata-map.management.port", "82")
        .without_files()
        .load()
        .unwrap();
    let mut entries = METADATA.apply(&settings, Vec::new()).unwrap();
    entries.sort();
    let expected = [("a.b", "c"), ("gRPC_port", "9091"), ("management.port", "82"), ("zone", "rack-a")];
    assert_eq!(entries, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[test]
fn host_name_of_the_namespace_is_that_of_the_instance_in_the_urls_of_pages() {
    let read = |properties: &[(&str, &str)]| {
        let settings = Settings::builder().environment([("", ""); 0]).without_files();
        let settings =
            settings.property("eureka.instance.hostname", "node1").property("eureka.instance.ip-address", "10.0.0.1");
        let settings = properties.iter().fold(settings, |settings, (name, value)| settings.property(*name, *value));
        Instance::builder("orders")
            .port(80)
            .from_settings(&settings.load().unwrap())
            .map(|builder| builder.build().unwrap())
    };
    let page = ("eureka.instance.status-page-url", "http://${eureka.hostname}:9000/info");
    assert_eq!(read(&[page]).unwrap().status_page_url(), Some("http://node1:9000/info"));
    let netflix = read(&[("eureka.healthCheckUrl", "http://${eureka.hostname}/up")]).unwrap();
    assert_eq!(netflix.health_check_url(), Some("http://node1/up"));
    let own = [("eureka.instance.namespace", "fleet."), ("eureka.instance.home-page-url", "http://${fleet.hostname}/")];
    assert_eq!(read(&own).unwrap().home_page_url(), Some("http://node1/"));
    let set = [page, ("eureka.hostname", "proxy")];
    assert_eq!(read(&set).unwrap().status_page_url(), Some("http://proxy:9000/info"));
    for other in [
        [("eureka.instance.namespace", "fleet"), page],
        [("eureka.instance.hostname", "${eureka.hostname}"), ("eureka.instance.appname", "a")],
    ] {
        let error = read(&other).unwrap_err().to_string();
        assert!(error.contains("placeholder ${eureka.hostname} has no value"), "{error}");
    }
}

#[test]
fn settings_of_an_instance_override_the_builder() {
    let instance = from(&[
        ("EUREKA_INSTANCE_HOSTNAME", "node1"),
        ("EUREKA_INSTANCE_IPADDRESS", "10.0.0.2"),
        ("EUREKA_INSTANCE_LEASERENEWALINTERVALINSECONDS", "3"),
        ("EUREKA_INSTANCE_LEASEEXPIRATIONDURATIONINSECONDS", "9s"),
        ("EUREKA_INSTANCE_METADATA_MAP_MANAGEMENT_PORT", "81"),
        ("eureka.instance.metadata-map.gRPC_port", "9090"),
    ]);
    let instance = instance.unwrap().build().unwrap();
    assert_eq!((instance.id(), instance.ip_addr()), ("node1:orders:80", Some("10.0.0.2")));
    let lease = instance.lease().unwrap();
    assert_eq!((lease.renewal_interval_secs, lease.duration_secs), (3, 9));
    let metadata: Vec<_> = instance.metadata().iter().collect();
    assert_eq!(metadata, [("gRPC_port", "9090"), ("management.port", "81")]);
}

#[test]
fn application_name_changes_the_vip_address_and_appname_does_not() {
    let instance = from(&[("SPRING_APPLICATION_NAME", "bills")]).unwrap().build().unwrap();
    assert_eq!((instance.app(), instance.vip_address()), ("BILLS", Some("bills")));
    let instance = from(&[("EUREKA_INSTANCE_APPNAME", "bills")]).unwrap().build().unwrap();
    assert_eq!((instance.app(), instance.vip_address()), ("BILLS", Some("orders")));
}

#[test]
fn instance_without_a_name_is_an_error() {
    let error = Instance::from_settings(&settings(&[])).unwrap_err().to_string();
    assert!(error.contains("SPRING_APPLICATION_NAME"), "{error}");
    let named = settings(&[("SPRING_APPLICATION_NAME", "bills"), ("SERVER_PORT", "8080")]);
    let instance = Instance::from_settings(&named).unwrap().ip_addr("10.0.0.1").build().unwrap();
    assert_eq!((instance.app(), instance.port().number), ("BILLS", 8080));
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
fn server_port_is_used_if_the_code_sets_no_port() {
    let port = |variables: &[(&str, &str)]| from(variables).map(|b| b.build().unwrap().port().number);
    assert_eq!(port(&[("SERVER_PORT", "8080")]), Ok(80));
    assert_eq!(port(&[("EUREKA_INSTANCE_NONSECUREPORT", "8080")]), Ok(8080));
    assert!(port(&[("EUREKA_INSTANCE_NONSECUREPORT", "0")]).is_err());
    assert_eq!(port(&[("SERVER_PORT", "tcp://10.0.0.1:80")]), Ok(80));
    assert!(port(&[("SERVER_PORT", "x")]).is_err());
}

#[test]
fn listen_address_is_that_of_a_spring_server() {
    let address = |variables: &[(&str, &str)]| settings(variables).listen_address().unwrap();
    assert_eq!(address(&[]).1, 8080);
    assert_eq!(address(&[("SERVER_PORT", "0"), ("SERVER_ADDRESS", "127.0.0.1")]), ("127.0.0.1".into(), 0));
    assert_eq!(address(&[("SERVER_PORT", "tcp://10.0.0.1:80"), ("SERVER_ADDRESS", "[::1]")]), ("::1".into(), 8080));
    let error = settings(&[("SERVER_PORT", "http")]).listen_address().unwrap_err().to_string();
    assert_eq!(error, r#"environment variable SERVER_PORT: expected a port, 0 to 65535, found "http""#);
}

#[test]
fn settings_without_effect_are_reported_with_the_nearest_name() {
    let variables = [
        ("EUREKA_CLIENT_ENABLED", "x"),
        ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "x"),
        ("EUREKA_CLIENT_FETCH_REGISTY", "x"),
        ("EUREKA_CLIENT_ORDER", "x"),
        ("EUREKA_INSTANCE_VIRTUALHOSTNAME", "x"),
        ("eureka.instnace.hostname", "x"),
        ("EUREKA_HOST", "x"),
        ("EUREKA_CLIENT_EMPTY", " "),
        ("EUREKA_SERVICE_HOST", "x"),
        ("EUREKA_PORT", "tcp://10.0.0.1:8761"),
        ("EUREKA_SERVER_PORT_8761_TCP_ADDR", "x"),
        ("EUREKASIDE_X", "x"),
        ("SERVER_PORT", "x"),
        ("EUREKA_CLIENT_LIST_0", "x"),
    ];
    let settings = Settings::builder()
        .environment(variables)
        .property("eureka.client.serviceUrls.defaultZone", "http://u:geheim@h/")
        .property("eureka.eu.availabilityZones", "a")
        .without_files()
        .load()
        .unwrap();
    let read = [
        "eureka.client.enabled",
        "eureka.client.fetch-registry",
        "eureka.client.service-url.<zone>",
        "eureka.instance.hostname",
        "eureka.client.list",
    ];
    let known = Known {
        read: &read,
        netflix: &["eureka.<region>.availabilityZones", "eureka.host"],
        without_meaning: &[("eureka.client.order", "a process has one client")],
        unsupported: &[("eureka.instance.virtual-host-name", "it is not supported")],
    };
    let unused = || -> Vec<String> { settings.unused(&["eureka"], &known).map(|unused| unused.to_string()).collect() };
    assert_eq!(
        unused(),
        [
            "property eureka.client.serviceUrls.defaultZone is no setting; did you mean eureka.client.service-url.<zone>?",
            "environment variable EUREKA_HOST is no setting",
            "environment variable EUREKA_CLIENT_ORDER: a process has one client",
            "environment variable EUREKA_INSTANCE_VIRTUALHOSTNAME: it is not supported",
            "environment variable EUREKA_CLIENT_FETCH_REGISTY is no setting; did you mean eureka.client.fetch-registry?",
            "environment variable eureka.instnace.hostname is no setting; did you mean eureka.instance.hostname?",
        ]
    );
    // A value of a placeholder has an effect, whatever its name.
    settings.placeholder_entry("eureka.host").unwrap();
    let again: Vec<_> = settings.unused(&["eureka"], &known).map(|unused| unused.entry.report_once()).collect();
    assert_eq!(again.iter().filter(|first| !**first).count(), 1);
    assert!(settings.unused(&["eureka"], &known).all(|unused| !unused.entry.report_once()));
}

#[test]
fn debug_lists_the_settings_in_force_without_secrets() {
    let settings = Settings::builder()
        .environment([
            ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://user:geheim@a/,http://${USER_B}:${PW}@b/"),
            ("PW", "geheim"),
            ("REGISTRY_PASSWORD", "geheim"),
            ("USER_B", "b"),
            ("EUREKA_CLIENT_PROXYPASSWORD", "geheim"),
            ("EUREKA_CLIENT_FETCHREGISTRY", "true"),
            ("SPRING_APPLICATION_JSON", r#"{"eureka.client.tls.key-password": "geheim"}"#),
            ("HOME", "/geheim"),
            ("EUREKA_PORT", "tcp://10.0.0.1:80"),
        ])
        .default_property("eureka.client.fetch-registry", "false")
        .default_property("eureka.instance.metadata-map.note", "${REGISTRY_PASSWORD}")
        .property("eureka.client.region", "eu")
        .property("eureka.instance.instance-id", "${nothing}")
        .property("eureka.instance.metadata-map.admin", "${ADMIN_PASSWORD:geheim}")
        .property("eureka.instance.metadata-map.both", "${ADMIN_PASSWORD:geheim}${nothing}")
        .property("eureka.instance.metadata-map.chain", "${my.default}")
        .property("my.default", "${API_KEY:geheim}")
        .without_files()
        .load()
        .unwrap();
    let expected = "profiles = default\n\
                    EUREKA_CLIENT_FETCHREGISTRY = true (environment)\n\
                    EUREKA_CLIENT_PROXYPASSWORD = *** (environment)\n\
                    eureka.client.region = eu (code)\n\
                    EUREKA_CLIENT_SERVICEURL_DEFAULTZONE = http://***@a/,http://***@b/ (environment)\n\
                    eureka.client.tls.key-password = *** (SPRING_APPLICATION_JSON)\n\
                    eureka.instance.instance-id = ${nothing} (code, with a placeholder that has no value)\n\
                    eureka.instance.metadata-map.admin = *** (code)\n\
                    eureka.instance.metadata-map.both = *** (code, with a placeholder that has no value)\n\
                    eureka.instance.metadata-map.chain = *** (code)\n\
                    eureka.instance.metadata-map.note = *** (default)\n\
                    SPRING_APPLICATION_JSON = *** (environment)";
    assert_eq!(format!("{settings:?}"), expected);
}

#[test]
fn debug_lists_whole_values_and_only_the_list_in_force() {
    let networks = "spring.cloud.inetutils.preferred-networks";
    let urls = (0..20).map(|n| format!("http://registry-{n}/eureka/")).collect::<Vec<_>>().join(",");
    let settings = Settings::builder()
        .environment([("SPRING_CLOUD_INETUTILS_IGNOREDINTERFACES_0", "docker0"), ("EUREKA_INSTANCE_HOSTNAME", "a\nb")])
        .property(format!("{networks}[0]"), "10.1")
        .default_property(format!("{networks}[0]"), "10.2")
        .default_property(format!("{networks}[1]"), "10.3")
        .default_property("spring.cloud.inetutils.ignored-interfaces", "veth.*,br-.*")
        .default_property("spring.cloud.inetutils.timeout-seconds", "2")
        .default_property("eureka.client.service-url.defaultZone", &urls)
        .without_files()
        .load()
        .unwrap();
    let expected = format!(
        "profiles = default\n\
         eureka.client.service-url.defaultZone = {urls} (default)\n\
         EUREKA_INSTANCE_HOSTNAME = a\\nb (environment)\n\
         SPRING_CLOUD_INETUTILS_IGNOREDINTERFACES_0 = docker0 (environment)\n\
         {networks}[0] = 10.1 (code)\n\
         spring.cloud.inetutils.timeout-seconds = 2 (default)"
    );
    assert_eq!(format!("{settings:?}"), expected);
}

#[test]
fn empty_list_replaces_the_lists_below() {
    let name = "eureka.instance.list";
    let settings = Settings::builder()
        .environment([("SPRING_APPLICATION_JSON", r#"{"eureka.instance.list": [], "eureka.instance.other": ["a"]}"#)])
        .default_property(format!("{name}[0]"), "below")
        .default_property("eureka.instance.other", "below")
        .without_files()
        .load()
        .unwrap();
    assert_eq!((get(&settings, name), get(&settings, "eureka.instance.other")), (None, Some("a".into())));
}

#[test]
fn blanks_of_secrets_are_kept() {
    let settings = settings(&[("MY_PASSWORD", " geheim "), ("MY_NAME", " name ")]);
    assert_eq!(get(&settings, "my.password"), Some(" geheim ".into()));
    assert_eq!(get(&settings, "my.name"), Some("name".into()));
    let value = settings.find("my.password", Unit::Secret).unwrap().unwrap();
    assert_eq!(value.exact(), " geheim ");
}

#[test]
fn names_of_the_tables_are_different() {
    let mut names: Vec<_> = names_of(INSTANCE).chain(netflix_names_of(INSTANCE)).map(names::uniform).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[cfg(feature = "files")]
#[test]
fn instance_of_a_spring_application_has_the_values_of_its_file() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/spring");
    let start = |profiles: &str| {
        let environment = [("INSTANCE_SUFFIX", "7"), ("SPRING_PROFILES_ACTIVE", profiles)];
        let settings = Settings::builder().directory(folder).environment(environment).load().unwrap();
        Instance::from_settings(&settings).unwrap().port(8080).build().unwrap()
    };
    let instance = start("");
    assert_eq!((instance.app(), instance.id()), ("JAVA-CLIENT", "java-client:7"));
    assert_eq!((instance.host_name(), instance.ip_addr()), (Some("127.0.0.1"), Some("127.0.0.1")));
    assert_eq!((instance.vip_address(), instance.app_group()), (Some("java-client"), Some("SHOP")));
    let lease = instance.lease().unwrap();
    assert_eq!((lease.renewal_interval_secs, lease.duration_secs), (5, 15));
    let metadata: Vec<_> = instance.metadata().iter().filter(|(key, _)| *key != "management.port").collect();
    let expected =
        [("canary", "true"), ("management.context-path", "/actuator"), ("version", "1.1"), ("zone", "zone-a")];
    assert_eq!(metadata, expected);
    let urls = [instance.home_page_url(), instance.status_page_url(), instance.health_check_url()];
    let expected =
        ["http://127.0.0.1:8080/home", "http://127.0.0.1:8080/actuator/info", "http://127.0.0.1:8080/actuator/health"];
    assert_eq!(urls, expected.map(Some));
    let instance = start("prod");
    assert_eq!((instance.metadata().get("version"), instance.metadata().get("weight")), (Some("2.0"), Some("3")));
    assert_eq!(start("prod,test").metadata().get("weight"), None);
}
