//! The view as JSON, for programs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Balancer, View, state_name};
use crate::balance::{EndpointSnapshot, ZoneSnapshot};
use crate::cache::{RegistryStatus, server_state};
use crate::config::{masked_metadata, masked_urls};
use crate::model::{Instance, InstanceStatus, StatusCounts};
use crate::transport::RegistryServer;

/// Encodes the view. Times have their unit in the name, and missing values are `null` or left out.
pub(super) fn json(view: &View<'_>) -> Value {
    let applications = view.shown().map(|(application, instances)| {
        let counts: StatusCounts = application.instances.iter().map(|instance| instance.status()).collect();
        let instances: Vec<_> = instances.iter().map(|i| instance(i)).collect();
        json!({ "name": &*application.name, "byStatus": by_status(counts), "instances": instances })
    });
    json!({
        "registry": registry(&view.status),
        "applications": applications.collect::<Vec<_>>(),
        "omittedInstances": view.omitted(),
        "balancers": view.balancers.iter().map(balancer).collect::<Vec<_>>(),
    })
}

fn registry(status: &RegistryStatus) -> Value {
    let counts = status.refreshes();
    json!({
        "state": status.state().as_str(),
        "loaded": status.is_loaded(),
        "stale": status.is_stale(),
        "source": status.source().as_str(),
        "ageSeconds": seconds(status.age()),
        "error": status.error().map(ToString::to_string),
        "failingForSeconds": seconds(status.failing_for()),
        "server": status.server(),
        "servers": status.servers().iter().map(server).collect::<Vec<_>>(),
        "applications": status.applications(),
        "instances": status.instances(),
        "byStatus": by_status(status.counts()),
        "heldInstances": status.held(),
        "deltas": status.deltas().as_str(),
        "propagationLagSeconds": seconds(status.propagation_lag()),
        "refreshes": {
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "full": counts.full,
            "unchanged": counts.unchanged,
            "deltas": counts.deltas,
            "mismatches": counts.mismatches,
            "receivedBytes": counts.received_bytes,
        },
    })
}

fn server(server: &RegistryServer) -> Value {
    json!({
        "url": server.url(),
        "zone": server.zone(),
        "state": server_state(server),
        "reads": server.serves_reads(),
        "writes": server.serves_writes(),
        "quarantined": server.is_quarantined(),
        "pauseSeconds": seconds(server.pause()),
    })
}

fn instance(instance: &Instance) -> Value {
    let metadata: Map<String, Value> = instance
        .metadata()
        .iter()
        .map(|(key, value)| (key.to_owned(), masked_metadata(key, value).into_owned().into()))
        .collect();
    let overridden = Some(instance.overridden_status()).filter(|status| *status != InstanceStatus::Unknown);
    json!({
        "id": instance.id(),
        "status": instance.status().as_str(),
        "overriddenStatus": overridden.map(InstanceStatus::as_str),
        "hostName": instance.host_name(),
        "ipAddress": instance.ip_addr(),
        "port": instance.port().usable(),
        "securePort": instance.secure_port().usable(),
        "zone": instance.zone(),
        "vipAddress": instance.vip_address(),
        "secureVipAddress": instance.secure_vip_address(),
        "homePageUrl": instance.home_page_url().map(masked_urls),
        "statusPageUrl": instance.status_page_url().map(masked_urls),
        "healthCheckUrl": instance.health_check_url().map(masked_urls),
        "leaseSeconds": instance.lease().map(|lease| lease.duration_secs),
        "upSinceMillis": instance.up_since_ms(),
        "lastUpdatedMillis": instance.last_updated_timestamp(),
        "metadata": metadata,
    })
}

fn balancer(balancer: &Balancer) -> Value {
    let snapshot = &balancer.snapshot;
    json!({
        "client": &*balancer.client,
        "application": snapshot.name(),
        "ejectionsIgnored": snapshot.is_panic(),
        "zones": snapshot.zones().iter().map(zone).collect::<Vec<_>>(),
        "endpoints": snapshot.endpoints().iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn zone(zone: &ZoneSnapshot) -> Value {
    json!({
        "name": zone.name(),
        "share": zone.share(),
        "endpoints": zone.endpoints(),
        "available": zone.available(),
    })
}

fn endpoint(endpoint: &EndpointSnapshot) -> Value {
    json!({
        "id": endpoint.id(),
        "zone": endpoint.zone(),
        "state": state_name(endpoint.state()),
        "cause": endpoint.cause().map(|cause| cause.to_string()),
        "retryInSeconds": seconds(endpoint.retry_in()),
        "weight": endpoint.weight(),
        "effectiveWeight": endpoint.effective_weight(),
        "latencySeconds": endpoint.latency().as_secs_f64(),
        "pending": endpoint.pending(),
        "failuresOfLast64": endpoint.failures(),
    })
}

fn by_status(counts: StatusCounts) -> Value {
    InstanceStatus::ALL.into_iter().map(|status| (status.as_str().to_owned(), Value::from(counts.of(status)))).collect()
}

fn seconds(duration: Option<Duration>) -> Value {
    duration.map_or(Value::Null, |duration| duration.as_secs_f64().into())
}
