use super::*;
use crate::model::{DataCenter, Metadata};

/// Settings that each source has to express, with a text of the resulting record that shows them.
const CASES: &[(&[(&str, &str)], &str)] = &[
    (&[("eureka.instance.appname", "bills")], r#""app":"BILLS""#),
    (&[("eureka.instance.app-group-name", "shop")], r#""appGroupName":"SHOP""#),
    (&[("eureka.instance.instance-id", "orders-1")], r#""instanceId":"orders-1""#),
    (&[("spring.application.instance_id", "7")], r#""instanceId":"node9:orders:7""#),
    (&[("vcap.application.instance_id", "cf-7")], r#""instanceId":"cf-7""#),
    (
        &[("vcap.application.instance_id", "cf-7"), ("eureka.instance.instance-id", "orders-1")],
        r#""instanceId":"orders-1""#,
    ),
    (&[("eureka.instance.hostname", "node1")], r#""hostName":"node1""#),
    (
        &[("eureka.instance.hostname", "node1"), ("eureka.instance.prefer-ip-address", "true")],
        r#""hostName":"10.0.0.1""#,
    ),
    (&[("eureka.instance.non-secure-port", "81")], r#""port":{"$":81,"@enabled":"true"}"#),
    (&[("eureka.instance.non-secure-port-enabled", "false")], r#""port":{"$":8080,"@enabled":"false"}"#),
    (&[("eureka.instance.secure-port", "8443")], r#""securePort":{"$":8443,"@enabled":"false"}"#),
    (&[("eureka.instance.secure-port-enabled", "true")], r#""securePort":{"$":8080,"@enabled":"true"}"#),
    (
        &[("eureka.instance.secure-port-enabled", "true"), ("eureka.instance.secure-port", "8443")],
        r#""securePort":{"$":8443,"@enabled":"true"}"#,
    ),
    (&[("eureka.instance.virtual-host-name", "a , b")], r#""vipAddress":"a,b""#),
    (&[("eureka.instance.secure-virtual-host-name", "s")], r#""secureVipAddress":"s""#),
    (&[("eureka.instance.home-page-url-path", "/shop")], r#""homePageUrl":"http://10.0.0.1:8080/shop""#),
    (&[("eureka.instance.home-page-url", "http://h/")], r#""homePageUrl":"http://h/""#),
    (&[("eureka.instance.status-page-url-path", "/s")], r#""statusPageUrl":"http://10.0.0.1:8080/s""#),
    (&[("eureka.instance.health-check-url-path", "/h")], r#""healthCheckUrl":"http://10.0.0.1:8080/h""#),
    (
        &[("eureka.instance.health-check-url-path", "/h"), ("eureka.instance.health-check-url", "http://h/x")],
        r#""healthCheckUrl":"http://h/x""#,
    ),
    (&[("eureka.instance.secure-health-check-url", "https://h/")], r#""secureHealthCheckUrl":"https://h/""#),
    (
        &[("server.servlet.context-path", "/api"), ("eureka.instance.status-page-url-path", "/s")],
        r#""statusPageUrl":"http://10.0.0.1:8080/api/s""#,
    ),
    (&[("management.server.port", "9090")], r#""healthCheckUrl":"http://10.0.0.1:9090/actuator/health""#),
    (&[("management.server.port", "9090")], r#""management.port":"9090""#),
    (
        &[("management.server.port", "9090"), ("management.server.base-path", "/m")],
        r#""statusPageUrl":"http://10.0.0.1:9090/m/actuator/info""#,
    ),
    (
        &[("management.server.port", "9090"), ("management.server.servlet.context-path", "/m")],
        r#""statusPageUrl":"http://10.0.0.1:9090/m/actuator/info""#,
    ),
    (&[("eureka.instance.a-s-g-name", "asg-1")], r#""asgName":"asg-1""#),
];

/// Settings that all cases have.
const BASE: &[(&str, &str)] = &[
    ("spring.application.name", "orders"),
    ("server.port", "8080"),
    ("spring.cloud.client.hostname", "node9"),
    ("eureka.instance.ip-address", "10.0.0.1"),
];

fn record(settings: &Settings) -> String {
    String::from_utf8(Instance::from_settings(settings).unwrap().build().unwrap().to_json()).unwrap()
}

fn variable(name: &str, with_dashes: &str) -> String {
    name.to_ascii_uppercase().replace('.', "_").replace('-', with_dashes)
}

#[test]
fn setting_of_the_record_is_read_from_each_source() {
    let empty = || Settings::builder().environment([("", ""); 0]).without_files();
    for (settings, expected) in CASES {
        let all = || BASE.iter().chain(*settings).copied();
        let code = all().fold(empty(), |builder, (name, value)| builder.property(name, value));
        let environment = |dash| {
            let variables = all().map(|(name, value)| (variable(name, dash), value));
            Settings::builder().environment(variables).without_files()
        };
        let json: serde_json::Map<_, _> = all().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let json = serde_json::to_string(&json).unwrap();
        let arguments = all().map(|(name, value)| format!("--{name}={value}"));
        for (source, builder) in [
            ("code", code),
            ("environment", environment("")),
            ("environment with underscores", environment("_")),
            ("JSON", empty().environment([("SPRING_APPLICATION_JSON", json)])),
            ("arguments", empty().arguments(arguments)),
        ] {
            let record = record(&builder.load().unwrap());
            assert!(record.contains(expected), "{settings:?} from {source}: {record}");
        }
    }
}

#[cfg(feature = "files")]
#[test]
fn setting_of_the_record_is_read_from_files() {
    let folder = std::env::temp_dir().join(format!("tower-eureka-instance-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (settings, expected) in CASES {
        let all = || BASE.iter().chain(*settings);
        let yaml: String = all().map(|(name, value)| format!("{name}: \"{value}\"\n")).collect();
        let properties: String = all().map(|(name, value)| format!("{name}={value}\n")).collect();
        for (file, text) in [("application.yml", yaml), ("application.properties", properties)] {
            let path = folder.join(file);
            std::fs::write(&path, text).unwrap();
            let builder = Settings::builder().environment([("", ""); 0]).directory(&folder);
            let record = record(&builder.load().unwrap());
            std::fs::remove_file(path).unwrap();
            assert!(record.contains(expected), "{settings:?} from {file}: {record}");
        }
    }
    std::fs::remove_dir(folder).unwrap();
}

fn settings(properties: &[(&str, &str)]) -> Settings {
    over(BASE, properties)
}

fn over(base: &[(&str, &str)], properties: &[(&str, &str)]) -> Settings {
    let builder = Settings::builder().environment([("", ""); 0]).without_files();
    let builder = base.iter().fold(builder, |builder, (name, value)| builder.default_property(*name, *value));
    properties.iter().fold(builder, |builder, (name, value)| builder.property(*name, *value)).load().unwrap()
}

#[test]
fn random_management_port_is_not_registered() {
    for port in ["0", "-1"] {
        let record = record(&settings(&[("management.server.port", port)]));
        assert!(!record.contains("management.port") && !record.contains("healthCheckUrl"), "{record}");
    }
    let invalid = settings(&[("management.server.port", "x")]);
    let error = Instance::from_settings(&invalid).unwrap_err().to_string();
    assert!(error.contains("management.server.port") && error.contains("expected a port"), "{error}");
}

#[test]
fn resolution_order_applies_to_amazon() {
    let settings = settings(&[("eureka.instance.default-address-resolution-order", "publicIpv4,localIpv4")]);
    let amazon: Metadata = [("public-ipv4", "203.0.113.7"), ("public-hostname", "h")].into_iter().collect();
    let builder = Instance::from_settings(&settings).unwrap().data_center(DataCenter::Amazon(amazon));
    assert_eq!(builder.build().unwrap().host_name(), Some("203.0.113.7"));
}

#[test]
fn public_address_of_amazon_is_read_under_the_name_of_netflix() {
    let amazon: Metadata = [("local-ipv4", "10.0.0.7"), ("public-ipv4", "203.0.113.7")].into_iter().collect();
    for (value, address) in [("true", "203.0.113.7"), ("false", "10.0.0.7")] {
        let settings = over(&BASE[..2], &[("eureka.broadcastPublicIpv4", value)]);
        let builder = Instance::from_settings(&settings).unwrap().data_center(DataCenter::Amazon(amazon.clone()));
        assert_eq!(builder.build().unwrap().ip_addr(), Some(address));
    }
}

#[cfg(feature = "client")]
mod of_the_address {
    use std::time::Duration;

    use super::*;

    /// Returns the instance that is built without an address.
    fn built(properties: &[(&str, &str)]) -> Instance {
        Instance::from_settings(&over(&BASE[..3], properties)).unwrap().build().unwrap()
    }

    #[test]
    fn limit_and_default_of_the_host_name_are_read() {
        let instance = built(&[
            ("eureka.instance.prefer-ip-address", "false"),
            ("spring.cloud.inetutils.timeout-seconds", "3"),
            ("spring.cloud.inetutils.default-hostname", "fallback"),
        ]);
        let (_, look_up) = instance.pending_look_up().unwrap();
        assert_eq!((look_up.limit, look_up.default.as_deref()), (Duration::from_secs(3), Some("fallback")));
        assert!(built(&[]).pending_look_up().is_none());
    }

    #[test]
    fn networks_that_no_address_matches_lead_to_the_default_address() {
        let none = "203.0.113.255/32";
        for rules in [
            &[("spring.cloud.inetutils.preferred-networks", none)][..],
            &[("spring.cloud.inetutils.ignored-interfaces", ".*,lo")],
            &[("spring.cloud.inetutils.preferred-networks[0]", none)],
            &[
                ("spring.cloud.inetutils.use-only-site-local-interfaces", "true"),
                ("spring.cloud.inetutils.ignored-interfaces", ".*"),
            ],
        ] {
            let default = [("spring.cloud.inetutils.default-ip-address", "198.51.100.1")];
            let instance = built(&[rules, &default].concat());
            assert_eq!(instance.ip_addr(), Some("198.51.100.1"), "{rules:?}");
        }
        let error = Instance::from_settings(&settings(&[("spring.cloud.inetutils.ignored-interfaces", "*")]));
        let error = error.unwrap().build().unwrap_err().to_string();
        assert!(error.contains("ignored interface '*'"), "{error}");
    }

    #[test]
    fn placeholders_of_the_machine_follow_the_rules() {
        let rules = [
            ("spring.cloud.inetutils.preferred-networks", "203.0.113.255/32"),
            ("spring.cloud.inetutils.default-ip-address", "198.51.100.1"),
            ("eureka.instance.instance-id", "${spring.cloud.client.ip-address}:${server.port}"),
        ];
        assert!(record(&settings(&rules)).contains(r#""instanceId":"198.51.100.1:8080""#));
        let own = [("spring.cloud.client.hostname", "node1"), ("my.id", "${spring.cloud.client.hostname}")];
        assert_eq!(settings(&own).get("my.id").unwrap().as_deref(), Some("node1"));
        let cyclic = [
            ("spring.cloud.inetutils.default-hostname", "${spring.cloud.client.hostname}"),
            ("my.id", "${spring.cloud.client.hostname}"),
        ];
        let error = over(&[], &cyclic).get("my.id").unwrap_err().to_string();
        assert!(error.contains("spring.cloud.client.hostname"), "{error}");
        let found = over(&[], &[("my.id", "${spring.cloud.client.hostname}")]).get("my.id").unwrap();
        assert!(found.is_some_and(|name| !name.is_empty()));
    }

    #[test]
    fn replicas_share_an_id_with_any_free_port() {
        let shared = |properties: &[(&str, &str)]| {
            let found = id_of_any_free_port(&over(&[], properties)).unwrap();
            found.map(|id| id.text().to_owned())
        };
        let (free, fixed) = (("server.port", " 0 "), ("server.port", "8080"));
        let id = |text| ("eureka.instance.instance-id", text);
        let suffix = |text| ("spring.application.instance_id", text);
        assert_eq!(shared(&[free, id("orders-${server.port}")]).as_deref(), Some("orders- 0"));
        assert_eq!(shared(&[free, suffix("${server.port:8080}")]).as_deref(), Some("0"));
        for unique in
            ["orders:${server.port}:${random.value}", "${server.port}:${random.int[1,5]}", "orders:0", "pod-0"]
        {
            assert_eq!(shared(&[free, id(unique), suffix("${server.port}")]), None, "{unique}");
        }
        assert_eq!(shared(&[fixed, id("orders:${server.port}")]), None);
        assert_eq!(shared(&[free]), None);
    }

    #[test]
    fn default_id_has_the_host_name_of_this_machine() {
        let id = |base: &[(&str, &str)], properties: &[(&str, &str)]| {
            Instance::from_settings(&over(base, properties)).unwrap().build().unwrap().id().to_owned()
        };
        assert_eq!(id(BASE, &[("eureka.instance.prefer-ip-address", "true")]), "node9:orders:8080");
        assert_eq!(id(BASE, &[("eureka.instance.hostname", "h")]), "node9:orders:8080");
        assert_eq!(id(BASE, &[("eureka.instance.appname", "bills")]), "node9:orders:8080");
        let without_name = [
            ("spring.cloud.inetutils.preferred-networks", "203.0.113.255/32"),
            ("spring.cloud.inetutils.default-ip-address", "198.51.100.1"),
            ("spring.cloud.inetutils.default-hostname", "fallback"),
        ];
        assert!(id(&BASE[..2], &without_name).ends_with(":orders:8080"));
        // Another builder keeps the host name of the instance.
        let code = Instance::builder("orders").from_settings(&settings(&[])).unwrap();
        assert_eq!(code.build().unwrap().id(), "10.0.0.1:orders:8080");
    }
}

#[test]
fn list_in_the_metadata_is_an_entry_per_element() {
    let settings = Settings::builder()
        .default_property("eureka.instance.metadata-map.tags[0]", "a")
        .default_property("eureka.instance.metadata-map.tags[1]", "b")
        .default_property("eureka.instance.metadata-map.versions", "1,2")
        .environment([("EUREKA_INSTANCE_METADATAMAP_ROLES_0", "admin")])
        .without_files();
    let settings = BASE.iter().fold(settings, |settings, (name, value)| settings.default_property(*name, *value));
    let instance = Instance::from_settings(&settings.load().unwrap()).unwrap().build().unwrap();
    let metadata: Vec<_> = instance.metadata().iter().filter(|(key, _)| *key != "management.port").collect();
    assert_eq!(metadata, [("roles.0", "admin"), ("tags.0", "a"), ("tags.1", "b"), ("versions", "1,2")]);
}
