//! The REST operations of `protocol` section 2 as an axum router.
//!
//! Handlers read the request, call one operation of the registry and answer with exactly the status that a Java server answers with.
//! Nothing of a request that is refused reaches the registry.
//!
//! | module | what it knows |
//! |---|---|
//! | `applications` | the lists: everything, the delta, one application, VIPs |
//! | `instances` | one instance: registration, heartbeat, cancellation, overrides, metadata |
//! | `info` | the server itself: status, overrides, what it answers about auto scaling groups |
//! | `replication` | batches from other registry servers |
//! | `path`, `query`, `request` | names, parameters, headers and documents of bodies |
//! | `intake`, `offload` | bodies in flight within one budget, and their decoding outside of the runtime |
//! | `outline`, `unfold` | limits of a document: depth and values, gzip |
//! | `refusals` | the log of what is refused |
//! | `scope` | which regions an answer shows, with the feature `peers` |
//! | `probes` | health of the server, for load balancers and orchestrators |
//! | `service` | the same without a router around it, and a short way for heartbeats and lists |
//! | `answer`, `etag` | what answers look like, who takes them, and who has them already |

mod answer;
mod applications;
mod etag;
mod info;
mod instances;
mod intake;
mod offload;
mod outline;
mod path;
mod probes;
mod query;
mod refusals;
mod replication;
mod request;
#[cfg_attr(not(feature = "peers"), path = "no_scope.rs")]
mod scope;
mod service;
mod unfold;

use axum::Router;
use axum::routing::{MethodRouter, get, post, put};

pub(super) use self::intake::Intake;
pub(super) use self::refusals::Refusals;
pub use self::service::{RegistryService, ResponseFuture};
use super::EurekaServer;

/// What a base URL may end in. Netflix clients add a version, for which Java takes any word; fargo doubles the slash of a base URL that
/// ends in one.
const PREFIXES: [&str; 4] = ["", "/{version}", "/", "/{version}/"];

pub(super) fn router(server: EurekaServer, mount: &str) -> Router {
    let resources: [(&str, MethodRouter<EurekaServer>); 12] = [
        ("/apps", get(applications::all)),
        ("/apps/delta", get(applications::delta)),
        ("/apps/{app}", get(applications::one).post(instances::register)),
        ("/apps/{app}/{id}", get(instances::one).put(instances::heartbeat).delete(instances::cancel)),
        ("/apps/{app}/{id}/status", put(instances::set_override).delete(instances::delete_override)),
        ("/apps/{app}/{id}/metadata", put(instances::merge_metadata)),
        ("/instances/{id}", get(instances::by_id)),
        ("/vips/{vip}", get(applications::by_vip)),
        ("/svips/{vip}", get(applications::by_secure_vip)),
        ("/peerreplication/batch", post(replication::batch)),
        ("/asg/{name}/status", put(info::asg)),
        ("/status", get(info::status)),
    ];
    let mut router = Router::new().route(&format!("{mount}/serverinfo/statusoverrides"), get(info::overrides));
    for prefix in PREFIXES {
        for (path, methods) in &resources {
            let path = format!("{mount}{prefix}{path}");
            router = router.route(&path, methods.clone()).route(&format!("{path}/"), methods.clone());
        }
    }
    router.method_not_allowed_fallback(refusals::not_allowed).with_state(server)
}
