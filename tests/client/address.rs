//! Address that a provider registers.

use serde_json::Value;
use tower_eureka::{Eureka, Instance, Settings};

use crate::captured_log::Log;
use crate::common::{Reply, Scripted};

/// Registers the instance at this URL, and returns it as it was sent, with the log.
async fn registered(url: &str, instance: Instance) -> (Instance, String) {
    let (log, _logging) = Log::start(tracing::Level::INFO);
    let registry = Scripted::new(|_| Reply::Status(204));
    let eureka = Eureka::builder().service_url(url).http_service(registry.clone()).build().unwrap();
    let handle = eureka.registrar(instance);
    handle.register().await.unwrap();
    let sent = Instance::from_json(&registry.first_registration()).unwrap();
    assert_eq!((handle.instance().id(), handle.instance().ip_addr()), (sent.id(), sent.ip_addr()));
    (sent, log.text())
}

#[tokio::test(start_paused = true)]
async fn loopback_address_with_a_remote_registry_is_a_warning() {
    let at = |ip: &str| Instance::builder("orders").port(80).ip_addr(ip);
    for (url, instance, warned) in [
        ("http://registry/eureka/", at("127.0.0.1"), true),
        ("http://10.0.0.9/eureka/", at("::1"), true),
        ("http://localhost/,http://registry/", at("127.0.0.1"), true),
        ("http://registry/eureka/", at("10.0.0.1").host_name("localhost"), true),
        ("http://localhost:8761/eureka/", at("127.0.0.1"), false),
        ("http://127.0.0.1:8761/eureka/,http://[::1]/", at("127.0.0.1"), false),
        ("http://registry/eureka/", at("10.0.0.1"), false),
    ] {
        let (_, log) = registered(url, instance.build().unwrap()).await;
        assert_eq!(log.contains("loopback address"), warned, "{url}: {log}");
    }
}

#[tokio::test(start_paused = true)]
async fn address_that_is_configured_or_has_a_local_registry_is_kept() {
    let given = Instance::builder("orders").port(80).ip_addr("10.1.2.3").build().unwrap();
    let (sent, _) = registered("http://192.0.2.9/eureka/", given).await;
    assert_eq!((sent.ip_addr(), sent.id()), (Some("10.1.2.3"), "10.1.2.3:orders:80"));
    let found = Instance::builder("orders").port(80).build().unwrap();
    let (sent, _) = registered("http://127.0.0.1/eureka/", found.clone()).await;
    assert_eq!(sent.ip_addr(), found.ip_addr());
}

/// The environment of the recorded Spring client.
const SPRING: &[(&str, &str)] = &[
    ("SPRING_APPLICATION_NAME", "orders"),
    ("SERVER_PORT", "7002"),
    ("EUREKA_INSTANCE_PREFERIPADDRESS", "true"),
    ("EUREKA_INSTANCE_IPADDRESS", "127.0.0.1"),
    ("EUREKA_INSTANCE_LEASERENEWALINTERVALINSECONDS", "3"),
    ("EUREKA_INSTANCE_METADATAMAP_ZONE", "zone-a"),
    ("EUREKA_INSTANCE_METADATAMAP_VERSION", "1.4.2"),
    ("SPRING_CLOUD_CLIENT_HOSTNAME", "192.0.2.2"),
];

#[tokio::test(start_paused = true)]
async fn record_of_a_spring_environment_equals_that_of_spring() {
    let settings = Settings::builder().environment(SPRING.iter().copied()).without_files().load().unwrap();
    let registry = Scripted::new(|_| Reply::Status(204));
    let eureka = Eureka::builder().service_url("http://localhost/eureka/").http_service(registry.clone());
    let registrar = eureka.build().unwrap().registrar(Instance::from_settings(&settings).unwrap().build().unwrap());
    let _layer = registrar.layer();
    registrar.register().await.unwrap();
    let record = |text: &[u8]| {
        let Value::Object(mut root) = serde_json::from_slice(text).unwrap() else { panic!("it is no object") };
        let Some(Value::Object(mut record)) = root.remove("instance") else { panic!("it has no instance") };
        record.retain(|name, value| !value.is_null() && !name.ends_with("Timestamp"));
        // The servers read both names.
        if let Some(status) = record.remove("overriddenstatus") {
            record.insert("overriddenStatus".into(), status);
        }
        // Spring sends the default of a field that no server reads.
        record.remove("sid");
        record
    };
    let recorded = include_str!("../fixtures/recordings/spring-client.txt");
    let recorded = recorded.lines().find(|line| line.starts_with(r#"{"instance":"#)).unwrap();
    let (mut ours, mut theirs) = (record(&registry.first_registration()), record(recorded.as_bytes()));
    for flag in [&mut ours, &mut theirs] {
        // A flag is a boolean or a text.
        flag.values_mut().filter(|value| value.is_boolean()).for_each(|value| *value = value.to_string().into());
    }
    assert_eq!(ours, theirs);
}
