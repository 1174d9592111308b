//! Settings of Spring services, unchanged: the Java client and the example `provider` start in the
//! same folder, with the same environment and without arguments, and must register the same record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::process::{Process, free_port};
use super::spring::{self, START, Server};
use super::{http, rust, slot, until};

/// Time limit of a registration by a process that runs.
const SOON: Duration = Duration::from_secs(20);
/// Time limit of a shutdown with its longest drain.
const STOPPED: Duration = Duration::from_secs(45);

/// Members of a record that differ, each with the reason.
const DIFFERENCES: [(&str, &str); 5] = [
    ("leaseInfo.registrationTimestamp", "time of the registration"),
    ("leaseInfo.lastRenewalTimestamp", "time of the last heartbeat"),
    ("leaseInfo.serviceUpTimestamp", "time of the first registration as UP"),
    ("lastUpdatedTimestamp", "time of the last change in the registry"),
    ("lastDirtyTimestamp", "time of the last change in the instance"),
];

/// Folder with the settings of a service, and the environment of its container.
struct Service {
    folder: &'static str,
    app: &'static str,
    environment: Vec<(&'static str, String)>,
}

impl Service {
    /// Starts the service, and waits for the line that it prints once it runs.
    async fn start(&self, language: &str, line: &str, mut command: Command, registry: &str) -> Process {
        command
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(self.folder))
            .env("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", registry)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(&format!("settings-{}-{language}", self.folder), command);
        process.line(line, START).await;
        process
    }

    /// Returns the record of the service in the registry, then stops the service.
    async fn record(&self, mut process: Process, registry: &str) -> Record {
        let application = format!("{registry}apps/{}", self.app);
        let id = until(&format!("{} is registered", self.app), SOON, async || {
            process.assert_runs();
            let instance = http::only_instance(registry, self.app).await?;
            Some(instance.id().to_owned())
        })
        .await;
        // A single instance does not come from the cache of the Java server.
        let instance = http::text(&format!("{application}/{id}")).await.expect("instance is registered");
        process.terminate().await;
        process.exit(STOPPED).await;
        until(&format!("{} is deregistered", self.app), SOON, async || {
            http::is_gone(registry, self.app, &id).await.then_some(())
        })
        .await;
        let instance: Value = serde_json::from_str(&instance).expect("response is JSON");
        let mut record = Record::new();
        flatten("", &instance["instance"], &mut record);
        record
    }
}

/// Members of a record, by their path.
type Record = BTreeMap<String, Value>;

fn flatten(path: &str, value: &Value, record: &mut Record) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            flatten(&path, value, record);
        }),
        value => drop(record.insert(path.to_owned(), value.clone())),
    }
}

/// Returns a line for each member that differs without a reason.
fn differences(java: &Record, ours: &Record) -> Vec<String> {
    let members: BTreeSet<_> = java.keys().chain(ours.keys()).collect();
    let differ = members.into_iter().filter(|member| java.get(*member) != ours.get(*member));
    let unexpected = differ.filter(|member| !DIFFERENCES.iter().any(|(allowed, _)| allowed == member));
    let text = |record: &Record, member| record.get(member).map_or("absent".into(), Value::to_string);
    unexpected.map(|member| format!("{member}: Java {}, ours {}", text(java, member), text(ours, member))).collect()
}

#[tokio::test]
async fn unchanged_settings_of_spring_services_register_the_same_records() {
    let _slot = slot().await;
    let server = Server::start("settings-server", free_port()).await;
    let services = [
        Service {
            folder: "service",
            app: "INVENTORY",
            environment: vec![
                ("SPRING_PROFILES_ACTIVE", "prod".into()),
                ("SERVER_PORT", free_port().to_string()),
                ("MANAGEMENT_PORT", free_port().to_string()),
                ("EUREKA_INSTANCE_METADATAMAP_REVISION", "8f2c".into()),
                ("SPRING_APPLICATION_JSON", r#"{"eureka":{"instance":{"metadata-map":{"cluster":"c-7"}}}}"#.into()),
            ],
        },
        Service {
            folder: "legacy_service",
            app: "LEGACY-ORDERS",
            environment: vec![("SERVER_PORT", free_port().to_string())],
        },
    ];
    let [first, second] = &services;
    let records = async |language: &str, line: &str, command: &dyn Fn() -> Command| {
        let (first_process, second_process) = tokio::join!(
            first.start(language, line, command(), &server.url),
            second.start(language, line, command(), &server.url),
        );
        tokio::join!(first.record(first_process, &server.url), second.record(second_process, &server.url))
    };
    let java = records("java", "Started App", &|| spring::java("client")).await;
    let ours = records("ours", "listening on", &|| rust::example("provider", &server.url)).await;
    assert_eq!(java.0["metadata.stage"], "production", "the files and the profile were read");
    let [mut first, second] = [(java.0, ours.0), (java.1, ours.1)].map(|(java, ours)| differences(&java, &ours));
    first.extend(second);
    assert!(first.is_empty(), "records differ:\n{}", first.join("\n"));
}
