use super::*;
use crate::config::Settings;

fn builder(properties: &[(&str, &str)]) -> Result<EurekaBuilder, Error> {
    let settings = Settings::builder().environment([("", ""); 0]).without_files();
    let settings = properties.iter().fold(settings, |settings, (name, value)| settings.property(*name, *value));
    Eureka::builder_from(&settings.load().unwrap())
}

/// Returns each static instance of a client as `id host plain secure metadata`.
fn fixed(builder: EurekaBuilder) -> Result<Vec<String>, Error> {
    let eureka = builder.build()?;
    let instances = eureka.0.config.offline.instances.iter().flat_map(|application| &application.instances);
    let line = |instance: &std::sync::Arc<crate::Instance>| {
        let ports = (instance.port().usable(), instance.secure_port().usable());
        let metadata: Vec<_> = instance.metadata().iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{} {} {ports:?} {}", instance.app(), instance.id(), metadata.join(","))
    };
    Ok(instances.map(line).collect())
}

#[test]
fn static_instances_are_read_from_spring_keys() {
    const SIMPLE: &str = "spring.cloud.discovery.client.simple.instances";
    let name = |rest: &str| format!("{SIMPLE}.{rest}");
    let properties = [
        (name("order-service[0].uri"), "http://10.0.0.1:8080"),
        (name("order-service[0].metadata.zone"), "a"),
        (name("order-service[0].metadata.a.1.uri"), "x"),
        (name("order-service[1].uri"), "https://orders.local"),
        (name("order-service[1].instanceId"), "second"),
        (name("stock[0].host"), "10.0.0.2"),
        (name("stock[0].port"), "8443"),
        (name("stock[0].secure"), "true"),
        (name("stock[0].service-id"), "stock"),
    ];
    let properties: Vec<_> = properties.iter().map(|(name, value)| (&**name, *value)).collect();
    let expected = [
        "ORDER-SERVICE 10.0.0.1:order-service:8080 (Some(8080), None) a.1.uri=x,zone=a",
        "ORDER-SERVICE second (None, Some(443)) ",
        "STOCK 10.0.0.2:stock:8443 (None, Some(8443)) ",
    ];
    assert_eq!(fixed(builder(&properties).unwrap()).unwrap(), expected);
    // Code replaces those of one application.
    let replaced = builder(&properties).unwrap().static_instances("Stock", ["http://other"]);
    assert_eq!(fixed(replaced).unwrap(), ["STOCK other:stock:80 (Some(80), None) ", expected[0], expected[1],]);
    let variables = [
        ("SPRING_CLOUD_DISCOVERY_CLIENT_SIMPLE_INSTANCES_ORDERS_0_URI", "http://h:1"),
        ("SPRING_CLOUD_DISCOVERY_CLIENT_SIMPLE_INSTANCES_ORDERS_0_INSTANCE_ID", "one"),
    ];
    let settings = Settings::builder().environment(variables).without_files().load().unwrap();
    let found = fixed(Eureka::builder_from(&settings).unwrap()).unwrap();
    assert_eq!(found, ["ORDERS one (Some(1), None) "]);
}

#[test]
fn unusable_static_instance_is_an_error_with_its_place() {
    const SIMPLE: &str = "spring.cloud.discovery.client.simple.instances";
    for (rest, value, why) in [
        ("orders[0].uri", "10.0.0.1:8080", "http://"),
        ("orders[0].uri", "http://h/path", "path"),
        ("orders[0].port", "0", "a port"),
        ("orders[0].secure", "maybe", "true or false"),
        ("orders[0].url", "http://h", "<service>[n].uri"),
        ("orders.uri", "http://h", "<service>[n].uri"),
        ("orders[x].uri", "http://h", "<service>[n].uri"),
        ("delta[0].uri", "http://h", "reserved"),
    ] {
        let error = builder(&[(&format!("{SIMPLE}.{rest}"), value)]).map(drop).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(SIMPLE), "{rest}={value}: {error}");
    }
    let error = fixed(builder(&[(&format!("{SIMPLE}.orders[3].port"), "80")]).unwrap()).unwrap_err().to_string();
    assert!(error.contains("orders[3] is without a host"), "{error}");

    for (app, url, why) in [
        ("orders", "h", "URL 2 is without http://"),
        ("or ders", "http://h", "unusable"),
        ("orders", "http://u:secret@h", "credentials"),
    ] {
        let error = Eureka::builder().service_url("http://r/").static_instances(app, ["http://h", url]).build();
        let error = error.unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn registry_file_is_read_from_the_key_of_the_backup_registry() {
    const KEY: &str = "eureka.client.backup-registry-impl";
    for (value, path) in [
        ("file:/var/cache/registry", Some("/var/cache/registry")),
        ("file:///var/cache/registry", Some("/var/cache/registry")),
        ("file:registry", Some("registry")),
        ("com.example.MyBackupRegistry", None),
    ] {
        let file = builder(&[(KEY, value)]).unwrap().config.offline.file;
        assert_eq!(file.as_deref(), path.map(std::path::Path::new), "{value}");
    }
    assert!(builder(&[(KEY, "file:")]).map(drop).unwrap_err().to_string().contains("file:PATH"));
}

#[test]
fn unusable_settings_fail_the_build() {
    let builder = || Eureka::builder().service_url("http://r/");
    for (unusable, why) in [
        (builder().registry_file(""), "no file name"),
        (builder().registry_file("/"), "no file name"),
        (builder().registry_file_max_age(Duration::ZERO), "maximum age"),
        (builder().require_registry(Duration::ZERO), "required registry"),
        (builder().disappearance(Disappearance::new().plausible_share(1.5)), "plausible share"),
        (builder().disappearance(Disappearance::new().plausible_share(f64::NAN)), "plausible share"),
    ] {
        let error = unusable.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{error}");
    }
}

#[test]
fn required_registry_is_read_from_spring_and_netflix_names() {
    for name in ["eureka.client.should-enforce-fetch-registry-at-init", "eureka.shouldEnforceFetchRegistryAtInit"] {
        for (value, expected) in [("true", Some(Duration::from_secs(30))), ("false", None)] {
            assert_eq!(builder(&[(name, value)]).unwrap().config.offline.required_within, expected, "{name}={value}");
        }
    }
}
