//! Log lines about settings without an effect.

use std::fs;
use std::path::Path;

use tower_eureka::{Eureka, Settings};

use crate::captured_log::Log;

#[test]
fn files_of_a_tree_that_are_no_values_are_one_warning() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("settings-tree");
    fs::create_dir_all(folder.join("etc")).unwrap();
    for (file, content) in [("password", &b"geheim"[..]), ("key.p12", b"0\x82"), ("store.jks", b"\xfe\xed")] {
        fs::write(folder.join("etc").join(file), content).unwrap();
    }
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let settings = Settings::builder().directory(&folder).environment([("", ""); 0]);
    let settings = settings.property("spring.config.import", "configtree:etc/").load().unwrap();
    assert_eq!(settings.get("password").unwrap().as_deref(), Some("geheim"));
    let text = log.text();
    assert_eq!(text.matches("WARN").count(), 1, "{text}");
    assert!(text.contains("etc/key.p12 is no value of a setting: expected UTF-8; it is skipped others=1"), "{text}");
}

#[test]
fn mistyped_setting_of_calls_or_of_the_servers_is_reported_with_the_most_similar_name() {
    const PREFIX: &str = "spring.cloud.loadbalancer.";
    for (name, nearest) in [
        ("spring.cloud.loadbalancer.retry.enabeld", "spring.cloud.loadbalancer.retry.enabled"),
        ("spring.cloud.loadbalancer.clients.orders.zoen", "spring.cloud.loadbalancer.clients.<service>.zone"),
        ("eureka.client.transport.read-clustr-vip", "eureka.client.transport.read-cluster-vip"),
    ] {
        let (log, _logging) = Log::start(tracing::Level::INFO);
        let settings = Settings::builder().environment([("", ""); 0]).without_files().property(name, "1");
        let _builder = Eureka::builder_from(&settings.load().unwrap()).unwrap();
        let expected = format!("setting without effect: property {name} is no setting; did you mean {nearest}?");
        assert!(log.text().contains(&expected), "{}", log.text());
    }
    for (name, reason) in [
        ("retry.avoid-previous-instance", "a retry picks another instance"),
        ("clients.orders.retry.avoid-previous-instance", "a retry picks another instance"),
        ("clients.orders.stats.include-path", "enable the feature metrics"),
    ] {
        let (log, _logging) = Log::start(tracing::Level::INFO);
        let settings = Settings::builder().environment([("", ""); 0]).without_files();
        let settings = settings.property(format!("{PREFIX}{name}"), "true").load().unwrap();
        let _builder = Eureka::builder_from(&settings).unwrap();
        let _builder = Eureka::builder_from(&settings).unwrap();
        let text = log.text();
        assert!(text.contains("INFO") && text.matches(reason).count() == 1 && !text.contains("WARN"), "{text}");
    }
}
