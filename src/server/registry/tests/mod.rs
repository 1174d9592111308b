//! Tests of the rules in `docs/server.md`.

mod bounds;
#[cfg(feature = "peers")]
mod clock;
mod delta;
mod leases;
mod model;
mod overrides;
mod preservation;

use std::sync::Arc;

use super::history::End;
use super::settings::Settings;
use super::state::Registry;
use crate::model::{ActionType, Instance, InstanceStatus, LeaseInfo, Metadata};
use crate::server::outcome::{Origin, Place, Refused, RegisterOutcome, Registered, Registrant, Renewal};
use crate::server::owner::Owner;
use crate::server::view::{Record, Snapshot};

/// Returns a registry with one instance, which a client registered at time 0.
fn with_instance(status: InstanceStatus, dirty: i64) -> Registry {
    let registry = registry();
    registry.register(instance("i", status, dirty), Origin::Client, 0).unwrap();
    registry
}

fn registry() -> Registry {
    Registry::new(Settings { self_preservation: false, ..Settings::default() })
}

fn instance(id: &str, status: InstanceStatus, dirty: i64) -> Instance {
    instance_of("APP", id, status, dirty)
}

fn instance_of(app: &str, id: &str, status: InstanceStatus, dirty: i64) -> Instance {
    let mut instance = Instance::builder(app).id(id).host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
    instance.status = status;
    instance.last_dirty_timestamp = Some(dirty);
    instance
}

fn evict(registry: &Registry, now: i64) -> usize {
    registry.evict(&mut fastrand::Rng::with_seed(7), now)
}

impl Registry {
    fn stored(&self) -> Instance {
        self.instance("APP", "i", 0).expect("instance is registered")
    }

    fn status(&self) -> InstanceStatus {
        let status = self.stored().status;
        assert_eq!(self.full().applications[0].records[0].instance.status, status, "published and stored status agree");
        status
    }

    fn ids(&self) -> Vec<String> {
        ids(&self.full())
    }
}

fn ids(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .applications
        .iter()
        .flat_map(|view| &view.records)
        .map(|record| format!("{}/{}", record.instance.app(), record.instance.id()))
        .collect()
}
