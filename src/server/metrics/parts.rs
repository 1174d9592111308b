//! Values of the metrics, read from the parts of a server.

use std::collections::BTreeMap;

use super::Measured;
use super::families::Families;
use crate::model::InstanceStatus;
use crate::server::audit::Change;
use crate::server::connections::ConnectionCounts;
use crate::server::node::Node;
use crate::server::outcome::Origin;
use crate::server::registry::{Registry, Renewals, Totals};
#[cfg(feature = "peers")]
use crate::server::replication::PeerState;
use crate::server::response_cache::ResponseCache;
use crate::server::unsent::Unsent;

/// Parts of a server that metrics are read from.
#[derive(Debug)]
pub(in crate::server) struct Parts<'a> {
    pub(in crate::server) node: &'a Node,
    pub(in crate::server) responses: &'a ResponseCache,
    pub(in crate::server) unsent: &'a Unsent,
    pub(in crate::server) connections: &'a ConnectionCounts,
    pub(in crate::server) measured: &'a Measured,
    pub(in crate::server) is_open: bool,
    /// Adds the number of instances by application, under the name that a Spring server uses.
    pub(in crate::server) by_application: bool,
}

impl Parts<'_> {
    /// Reads all metrics except the latencies.
    pub(in crate::server) fn families(&self) -> Families {
        let mut families = Families::default();
        self.add_server(&mut families);
        self.add_registry(&mut families);
        self.add_preservation(&mut families);
        self.add_changes(&mut families);
        #[cfg(feature = "peers")]
        self.add_peers(&mut families);
        self.add_responses(&mut families);
        self.add_connections(&mut families);
        families
    }

    fn registry(&self) -> &Registry {
        self.node.registry()
    }

    fn add_server(&self, families: &mut Families) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        families.gauges("tower_eureka_info", "Version of the server.", &["version"], [(vec![version], 1.0)]);
        let uptime = self.node.uptime().as_secs_f64();
        families.gauge("tower_eureka_uptime_seconds", "Time since the start of the server.", uptime);
        let help = "1 once the node serves lists, 0 while it refuses them with 403.";
        families.gauge("tower_eureka_open_for_traffic", help, flag(self.is_open));
    }

    fn add_registry(&self, families: &mut Families) {
        let Totals { applications, counts, bytes } = self.registry().totals();
        let by_status =
            InstanceStatus::ALL.into_iter().map(|status| (vec![status.as_str().to_owned()], counts.of(status) as f64));
        families.gauges("tower_eureka_instances", "Registered instances by status.", &["status"], by_status);
        let limit = self.registry().instance_limit() as f64;
        families.gauge("tower_eureka_instances_limit", "Maximum number of instances.", limit);
        families.gauge("tower_eureka_applications", "Applications with an instance.", applications as f64);
        families.gauge("tower_eureka_registry_bytes", "Memory of the registered instances.", bytes as f64);
        let help = "Maximum memory of instances, recently removed ones included.";
        families.gauge("tower_eureka_registry_limit_bytes", help, self.registry().size_limit() as f64);
        if self.by_application {
            self.add_applications(families);
        }
    }

    fn add_applications(&self, families: &mut Families) {
        let full = self.registry().full();
        let mut counts = BTreeMap::<(&str, &str), usize>::new();
        for view in &full.applications {
            let name = self.measured.series_of(&view.name);
            for record in &view.records {
                *counts.entry((name, record.instance.status().as_str())).or_default() += 1;
            }
        }
        let samples =
            counts.into_iter().map(|((app, status), count)| (vec![app.to_owned(), status.to_owned()], count as f64));
        let help = "Registered instances by application and status.";
        families.gauges("eureka_server_instances", help, &["application", "status"], samples);
    }

    fn add_preservation(&self, families: &mut Families) {
        let registry = self.registry();
        let help = "Heartbeats that renewed a lease, those of peers included.";
        families.counter("tower_eureka_renewals_total", help, registry.renewals_total());
        let Renewals { last_minute, threshold, .. } = registry.renewals();
        let help = "Heartbeats in the last full minute.";
        families.gauge("tower_eureka_renewals_per_minute", help, last_minute as f64);
        let help = "Heartbeats per minute up to which self-preservation keeps expired leases.";
        families.gauge("tower_eureka_renewals_per_minute_threshold", help, threshold as f64);
        let state = registry.preservation();
        let help = "1 if self-preservation is enabled, else 0.";
        families.gauge("tower_eureka_self_preservation_enabled", help, flag(registry.has_self_preservation()));
        let help = "1 while self-preservation keeps expired leases, else 0.";
        families.gauge("tower_eureka_self_preservation_active", help, flag(state.is_active()));
        let help = "Expired leases that self-preservation kept in the last eviction run.";
        families.gauge("tower_eureka_preserved_leases", help, registry.kept_leases() as f64);
    }

    fn add_changes(&self, families: &mut Families) {
        let counts = self.registry().changes().counts();
        let by_origin = |change| {
            [("client", Origin::Client), ("peer", Origin::Replica)]
                .map(|(name, origin)| (name, counts.changes(change, origin)))
        };
        let help = "Accepted registrations by origin, repeated ones included.";
        families.counters_by("tower_eureka_registrations_total", help, &["origin"], by_origin(Change::Registration));
        let help = "Cancellations of registered instances by origin.";
        families.counters_by("tower_eureka_cancellations_total", help, &["origin"], by_origin(Change::Cancellation));
        let help = "Status overrides that were set or deleted, by origin.";
        families.counters_by("tower_eureka_overrides_total", help, &["origin"], by_origin(Change::Override));
        let help = "Changes of metadata by clients.";
        let metadata = counts.changes(Change::Metadata, Origin::Client);
        families.counter("tower_eureka_metadata_changes_total", help, metadata);
        let help = "Evicted instances: of expired leases, and silent ones for new ones in a full registry.";
        let evictions = [("expired", counts.expired()), ("full", counts.reclaimed())];
        families.counters_by("tower_eureka_evictions_total", help, &["reason"], evictions);
        let help = "Registrations that exceeded a limit, by the limit.";
        families.counters_by("tower_eureka_registrations_refused_total", help, &["limit"], counts.refused());
    }

    #[cfg(feature = "peers")]
    fn add_peers(&self, families: &mut Families) {
        let peers = self.node.replication().peers();
        let states: Vec<_> = peers
            .iter()
            .filter(|peer| !peer.is_own())
            .map(|peer| (peer.url().as_str().to_string(), peer.state()))
            .collect();
        let gauge =
            |value: fn(&PeerState) -> f64| states.iter().map(move |(url, state)| (vec![url.clone()], value(state)));
        let help = "1 if the peer responded to the last request and took the last batch, else 0.";
        families.gauges("tower_eureka_peer_available", help, &["peer"], gauge(|state| flag(state.is_available)));
        let help = "Changes that wait for a peer or are being sent.";
        families.gauges("tower_eureka_replication_backlog", help, &["peer"], gauge(|state| state.backlog as f64));
        let help = "Age of the oldest change that waits for a peer.";
        let lag = gauge(|state| state.lag.as_secs_f64());
        families.gauges("tower_eureka_replication_lag_seconds", help, &["peer"], lag);
        let batches = states.iter().flat_map(|(url, state)| {
            state.batches.map(|(outcome, count)| (vec![url.clone(), outcome.to_owned()], count))
        });
        let help = "Batches that were sent to a peer, by outcome.";
        families.counters("tower_eureka_replication_batches_total", help, &["peer", "outcome"], batches);
        let dropped = states.iter().flat_map(|(url, state)| {
            state.dropped.map(|(reason, count)| (vec![url.clone(), reason.to_owned()], count))
        });
        let help = "Changes and heartbeats that were not sent to a peer, by reason.";
        families.counters("tower_eureka_replication_dropped_total", help, &["peer", "reason"], dropped);
    }

    fn add_responses(&self, families: &mut Families) {
        let [hits, misses] = self.responses.hits_and_misses();
        let help = "Lists that were served from the response cache.";
        families.counter("tower_eureka_response_cache_hits_total", help, hits);
        let help = "Lists that were built for a request.";
        families.counter("tower_eureka_response_cache_misses_total", help, misses);
        let help = "Size of the lists in the response cache.";
        families.gauge("tower_eureka_response_cache_bytes", help, self.unsent.cached_bytes() as f64);
        let help = "Size of the responses that slow clients hold.";
        families.gauge("tower_eureka_unsent_response_bytes", help, self.unsent.bytes() as f64);
        let help = "Responses that were refused with 503, since slow clients hold too many others.";
        families.counter("tower_eureka_responses_refused_total", help, self.unsent.refused_total());
    }

    fn add_connections(&self, families: &mut Families) {
        let connections = self.connections;
        families.gauge("tower_eureka_connections", "Open connections.", connections.open() as f64);
        families.counter("tower_eureka_connections_accepted_total", "Accepted connections.", connections.accepted());
        let help = "Connections that were refused: all are in use, the address has its share, or the system failed.";
        families.counters_by("tower_eureka_connections_refused_total", help, &["reason"], connections.refused());
        let help = "Time at which the first TLS certificate of a listener expires, by its use: server or client_ca.";
        let labels = &["listener", "certificate"];
        let expiries = connections.certificates().into_iter();
        let expiries = expiries.map(|(listener, kind, time)| (vec![listener, kind.to_owned()], time as f64));
        families.gauges("tower_eureka_certificate_not_after_timestamp_seconds", help, labels, expiries);
        let help = "Connections that the server closed: idle ones to make room, slow ones, and unreadable ones.";
        families.counters_by("tower_eureka_connections_closed_total", help, &["reason"], connections.closed());
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[cfg(test)]
mod tests {
    use crate::EurekaServer;
    use crate::model::{Instance, InstanceStatus};
    use crate::server::audit::Change;
    use crate::server::outcome::Origin;

    #[tokio::test]
    async fn metadata_that_changes_nothing_is_not_counted() {
        let server = EurekaServer::builder().build().unwrap();
        let instance = Instance::builder("orders").id("i").ip_addr("10.0.0.1").port(80).build().unwrap();
        server.register(instance).unwrap();
        let counts = server.registry().changes().counts();
        for (entries, expected) in [
            (&[("a", "1")][..], 1),
            (&[("a", "1")], 1),
            (&[], 1),
            (&[("a", "2"), ("a", "1")], 1),
            (&[("a", "2")], 2),
            (&[("a", "2"), ("b", "1")], 3),
        ] {
            server.set_metadata("orders", "i", entries.iter().copied()).unwrap();
            assert_eq!(counts.changes(Change::Metadata, Origin::Client), expected, "{entries:?}");
        }
    }

    #[tokio::test]
    async fn override_that_changes_nothing_is_not_counted() {
        let server = EurekaServer::builder().build().unwrap();
        let instance = Instance::builder("orders").id("i").ip_addr("10.0.0.1").port(80).build().unwrap();
        server.register(instance).unwrap();
        for _ in 0..3 {
            server.set_override("orders", "i", InstanceStatus::OutOfService).unwrap();
        }
        let counts = server.registry().changes().counts();
        assert_eq!(counts.changes(Change::Override, Origin::Client), 1);
    }
}
