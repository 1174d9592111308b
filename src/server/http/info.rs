//! Information about the server itself (docs/protocol.md, "Server status" and "Auto scaling
//! groups").

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::intake;
use super::response::{self, Format};
use crate::model::InstanceStatus;
#[cfg(feature = "xml")]
use crate::model::xml;
use crate::server::http::state::ServerState;
use crate::server::memory;
use crate::server::registry::Renewals;
use crate::server::shared::SharedValue;
use crate::server::view::Snapshot;

/// Root element of the status in XML: the name of a Java class.
#[cfg(feature = "xml")]
const STATUS_ROOT: &str = "com.netflix.eureka.util.StatusInfo";

pub(in crate::server) type Stats = Vec<(&'static str, String)>;

pub(super) async fn status(State(server): State<ServerState>, format: Format) -> Response {
    let mut general = general_stats(server.uptime());
    general.extend(registry_stats(&server));
    general.push(("environment", server.about().environment.clone()));
    let replicas = server.replicas();
    let (application, own, healthy) = (application_stats(&replicas), server.own(), is_healthy(&server, &replicas));
    match format {
        Format::Json => {
            let stats = |stats: Stats| serde_json::json!(stats.into_iter().collect::<BTreeMap<_, _>>());
            let mut status =
                format!(r#"{{"generalStats":{},"applicationStats":{}"#, stats(general), stats(application));
            if let Some(own) = own {
                let document = String::from_utf8_lossy(&own.to_json()).into_owned();
                let member = document.strip_prefix(r#"{"instance""#).expect("root object of an instance");
                // The brace that closed the root object closes the status.
                status.push_str(&format!(r#","instanceInfo"{}"#, member.strip_suffix('}').expect("root object")));
            }
            if let Some(healthy) = healthy {
                status.push_str(&format!(r#","healthy":{healthy}"#));
            }
            status.push('}');
            response::json(status.into())
        }
        #[cfg(feature = "xml")]
        Format::Xml => {
            let mut writer = xml::Writer::at(0);
            writer.open(STATUS_ROOT);
            for (group, stats) in [("generalStats", general), ("applicationStats", application)] {
                writer.open(group);
                stats.iter().for_each(|(name, value)| writer.text(name, value));
                writer.close(group);
            }
            if let Some(own) = own {
                writer.instance_as("instanceInfo", &own);
            }
            if let Some(healthy) = healthy {
                // Sic.
                writer.text("isHeathly", if healthy { "true" } else { "false" });
            }
            writer.close(STATUS_ROOT);
            format.text(writer.finish().into())
        }
    }
}

/// Overrides by instance id as JSON, with the revision of the registry.
pub(in crate::server) type Overrides = SharedValue<u64, Bytes>;

/// If two applications have the same id, the later one counts.
fn overrides_of(full: &Snapshot) -> Bytes {
    let instances = full.applications.iter().flat_map(|view| &view.records).map(|record| &record.instance);
    let overridden = instances.filter(|instance| instance.overridden_status() != InstanceStatus::Unknown);
    let statuses: BTreeMap<_, _> = overridden.map(|i| (i.id(), i.overridden_status().as_str())).collect();
    serde_json::json!(statuses).to_string().into()
}

/// Returns the overrides, which all requests share until the registry changes, since reading them
/// iterates over all instances.
async fn shared_overrides(server: &ServerState) -> Option<Bytes> {
    let registry = server.registry().clone();
    let read = move || {
        let full = registry.full();
        (full.revision, overrides_of(&full))
    };
    server.overrides().get(|&revision| revision == server.registry().revision(), read).await
}

/// Responds with the overrides by instance id.
pub(super) async fn overrides(State(server): State<ServerState>) -> Response {
    match shared_overrides(&server).await {
        Some(json) => response::json(json),
        None => (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "2")]).into_response(),
    }
}

/// Responds with 400, as a Java server outside of AWS.
pub(super) async fn asg(State(server): State<ServerState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    intake::ignore(server.intake(), &parts, body).await;
    StatusCode::BAD_REQUEST.into_response()
}

pub(in crate::server) fn general_stats(uptime: Duration) -> Stats {
    let mut stats = vec![("server-uptime", uptime_text(uptime))];
    if let Ok(cpus) = std::thread::available_parallelism() {
        stats.push(("num-of-cpus", cpus.to_string()));
    }
    // Java reports its heap. The limit and the file are known on Linux only.
    let total = memory::limit().map(|(bytes, _)| bytes as u64 >> 20);
    if let Some(total) = total {
        stats.push(("total-avail-memory", format!("{total}mb")));
    }
    if let (Some(total @ 1..), Some(used)) = (total, megabytes("/proc/self/status", "VmRSS:")) {
        stats.push(("current-memory-usage", format!("{used}mb ({}%)", used * 100 / total)));
    }
    stats
}

/// Returns the state of the registry. Java has no such entries, and clients accept any entry.
fn registry_stats(server: &ServerState) -> Stats {
    let registry = server.registry();
    let (preservation, Renewals { last_minute, threshold, .. }) = (registry.preservation(), registry.renewals());
    vec![
        ("open-for-traffic", server.is_open().to_string()),
        ("open-for-traffic-reason", server.gate_reason()),
        ("registered-instances", registry.size().to_string()),
        ("self-preservation", preservation.state().to_owned()),
        ("preserved-applications", preservation.to_string()),
        ("renews-last-minute", last_minute.to_string()),
        ("renews-threshold", threshold.to_string()),
    ]
}

/// Returns the URLs of all peers, of the available ones and of the unavailable ones.
pub(in crate::server) fn application_stats(replicas: &[(Arc<str>, bool)]) -> Stats {
    let with = |available: bool| {
        replicas.iter().filter(|(_, up)| *up == available).map(|(url, _)| format!("{url},")).collect()
    };
    let all: Vec<_> = replicas.iter().map(|(url, _)| &**url).collect();
    vec![
        ("registered-replicas", all.join(", ")),
        ("available-replicas", with(true)),
        ("unavailable-replicas", with(false)),
    ]
}

/// Returns true if enough peers are available. `None` if no number is set: Java then has no such
/// member, and its JSON response is an error.
fn is_healthy(server: &ServerState, replicas: &[(Arc<str>, bool)]) -> Option<bool> {
    let available = replicas.iter().filter(|(_, available)| *available).count();
    server.about().min_available_peers.map(|required| available >= required)
}

/// Reads a line such as `VmRSS:   1234 kB`.
fn megabytes(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
}

pub(in crate::server) fn uptime_text(uptime: Duration) -> String {
    let minutes = uptime.as_secs() / 60;
    let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}"),
        1 => format!("1 day {hours:02}:{minutes:02}"),
        _ => format!("{days} days {hours:02}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_the_limit_of_the_process() {
        let stats = general_stats(Duration::ZERO);
        let total = stats.iter().find(|(name, _)| *name == "total-avail-memory").map(|(_, value)| value.clone());
        assert_eq!(total, memory::limit().map(|(bytes, _)| format!("{}mb", bytes >> 20)));
    }

    #[tokio::test]
    async fn overrides_are_read_once_until_the_registry_changes() {
        let server = crate::EurekaServer::builder().build().unwrap();
        let known = crate::Instance::builder("A").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        server.register(known).unwrap();
        let json = || async { shared_overrides(&server.state).await.unwrap() };
        let (first, second) = (json().await, json().await);
        assert_eq!((&first[..], first.as_ptr()), (&b"{}"[..], second.as_ptr()), "shared");
        server.set_override("A", "i", InstanceStatus::OutOfService).unwrap();
        assert_eq!(json().await, r#"{"i":"OUT_OF_SERVICE"}"#);
    }

    #[test]
    fn uptime_is_formatted_as_by_java() {
        for (seconds, text) in
            [(59, "00:00"), (3_661, "01:01"), (86_399, "23:59"), (86_400, "1 day 00:00"), (180_000, "2 days 02:00")]
        {
            assert_eq!(uptime_text(Duration::from_secs(seconds)), text);
        }
    }
}
