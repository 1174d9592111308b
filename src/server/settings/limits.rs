use std::time::Duration;

use super::check_not_zero;
use crate::server::Error;

/// Sizes of requests, instances and the registry.
///
/// Limits of connections are set at the [`Listener`](crate::server::Listener).
///
/// ```
/// use tower_eureka::server::Limits;
///
/// let limits = Limits::new().instances(10_000).registry_bytes(64 << 20);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Limits {
    pub(in crate::server) metadata_bytes: usize,
    pub(in crate::server) instances_per_application: usize,
    pub(in crate::server) applications: usize,
    pub(in crate::server) instances_per_identity: Option<usize>,
    pub(in crate::server) applications_per_identity: Option<usize>,
    pub(in crate::server) name_bytes: usize,
    pub(in crate::server) instance_bytes: usize,
    pub(in crate::server) instances: usize,
    /// Derived from the memory if it is not set.
    pub(in crate::server) registry_bytes: Option<usize>,
    pub(in crate::server) lease_secs: i32,
    pub(in crate::server) registration_bytes: usize,
    pub(in crate::server) batch_bytes: usize,
    pub(in crate::server) response_bytes: usize,
    pub(in crate::server) request_bytes_in_flight: usize,
    pub(in crate::server) gzip_requests: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata_bytes: 64 * 1024,
            instances_per_application: 10_000,
            applications: 100_000,
            instances_per_identity: None,
            applications_per_identity: None,
            name_bytes: 1024,
            instance_bytes: 64 * 1024,
            instances: 500_000,
            registry_bytes: None,
            lease_secs: 24 * 3600,
            registration_bytes: 1024 * 1024,
            batch_bytes: 10 * 1024 * 1024,
            response_bytes: 64 * 1024 * 1024,
            request_bytes_in_flight: 64 * 1024 * 1024,
            gzip_requests: false,
        }
    }
}

impl Limits {
    /// Creates the settings with their defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of instances in the registry. Defaults to 500,000. The registration
    /// of one more gets 429 with `Retry-After`, unless a silent instance makes room, see
    /// [`registry_bytes`](Self::registry_bytes).
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances;
        self
    }

    /// Sets the maximum number of applications in the registry. Defaults to 100,000. The
    /// registration of an instance of one more gets 429 with `Retry-After`, unless a silent
    /// instance makes room that is the only one of its application.
    pub fn applications(mut self, applications: usize) -> Self {
        self.applications = applications;
        self
    }

    /// Sets the maximum number of instances that one authenticated identity may have registered
    /// here. Defaults to no limit. The registration of one more gets 429 with `Retry-After`.
    ///
    /// Each node counts the instances that registered with it, not those that its peers replicate.
    pub fn instances_per_identity(mut self, instances: usize) -> Self {
        self.instances_per_identity = Some(instances);
        self
    }

    /// Sets the maximum number of applications of which one authenticated identity may have
    /// instances registered here. Defaults to no limit. The registration of an instance of one more
    /// gets 429 with `Retry-After`.
    pub fn applications_per_identity(mut self, applications: usize) -> Self {
        self.applications_per_identity = Some(applications);
        self
    }

    /// Sets the maximum number of instances of one application. Must be at least one. Defaults to
    /// 10,000. The registration of one more gets 429 with `Retry-After`, unless a silent instance
    /// of the application makes room.
    pub fn instances_per_application(mut self, instances: usize) -> Self {
        self.instances_per_application = instances;
        self
    }

    /// Sets the maximum size of the registry in bytes. Defaults to a twentieth of the memory that
    /// this process may use, by its cgroup or by the size of the machine, but at least 16 MiB.
    /// Where neither is known it defaults to 256 MiB.
    ///
    /// An instance counts as its texts and about 1 KiB. Characters that JSON or XML escapes count
    /// six times, and an application counts as 1 KiB. All lists together, in every form and
    /// encoding, take up to about twelve times as much memory as the instances that they show.
    ///
    /// New instances may take 15/16 of the size. The registration of a further one gets 429 with
    /// `Retry-After`. Known instances may grow within half of the rest. The registration of an
    /// instance that grows beyond gets 429, too, but its lease, status and version are stored.
    /// Heartbeats, cancellations and registrations that do not grow need no room.
    ///
    /// In a full registry, silent instances are replaced by new ones, also under self-preservation:
    /// those whose lease has expired, those without a heartbeat or registration for a third of
    /// their lease, and those that never sent a heartbeat in that time after they first registered,
    /// however often they register. That third counts as at least 90 seconds and at most 10
    /// minutes.
    ///
    /// Instances that left stay in the delta within a quarter of the size, as long as the
    /// registered ones leave room, and within 16 MiB, and there are never more of them than
    /// registered ones. A client that misses one of them finds a different apps hash and fetches
    /// everything.
    pub fn registry_bytes(mut self, bytes: usize) -> Self {
        self.registry_bytes = Some(bytes);
        self
    }

    /// Sets the maximum size of an instance in bytes: all its texts, and 96 bytes for each entry of
    /// its metadata. Defaults to 64 KiB. A registration of a larger one gets 413, and so does a
    /// change of metadata that would make it larger.
    pub fn instance_bytes(mut self, bytes: usize) -> Self {
        self.instance_bytes = bytes;
        self
    }

    /// Sets the maximum number of bytes of each name of an instance: its id, application, host
    /// name, IP address, each of its VIP addresses, and the names of its groups. Defaults to 1 KiB.
    /// A registration with a longer name gets 413.
    pub fn name_bytes(mut self, bytes: usize) -> Self {
        self.name_bytes = bytes;
        self
    }

    /// Sets the maximum number of bytes of all keys and values of an instance's metadata. Defaults
    /// to 64 KiB. A registration with more gets 413, and so does a change that would make it more.
    pub fn metadata_bytes(mut self, bytes: usize) -> Self {
        self.metadata_bytes = bytes;
        self
    }

    /// Sets the maximum duration of a lease. Must be at least a second. Defaults to a day. A longer
    /// lease is shortened to it.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.lease_secs = duration.as_secs().try_into().unwrap_or(i32::MAX);
        self
    }

    /// Sets the maximum length of the body of a registration in bytes, before and after
    /// decompression. Defaults to 1 MiB. A longer one gets 413.
    pub fn registration_bytes(mut self, bytes: usize) -> Self {
        self.registration_bytes = bytes;
        self
    }

    /// Sets the maximum length of the body of a replication batch in bytes, before and after
    /// decompression. Defaults to 10 MiB. A longer one gets 413.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Sets the maximum number of bytes that the bodies of all requests in flight hold together.
    /// Defaults to 64 MiB. Three quarters of it must hold the longest body, see
    /// [`batch_bytes`](Self::batch_bytes).
    ///
    /// A body counts with the bytes that have arrived, until its changes are applied. Bodies above
    /// 64 KiB leave a quarter of the budget to shorter ones. While there is no room, a body that
    /// has been arriving for more than 2 seconds gets 503 and `Retry-After`: the oldest of the
    /// address that holds most. If there is no such body, the one that needs room gets the 503. For
    /// 10 seconds, an address with several bodies then gets at most half of the budget. Addresses
    /// are known where a [`Listener`](crate::server::Listener) or `ConnectInfo` provides them.
    /// Requests without a body, as heartbeats are, need no room. While a request waits for its body
    /// or for a log-in, its head counts as well, as far as it takes more than 2 KiB of memory.
    pub fn request_bytes_in_flight(mut self, bytes: usize) -> Self {
        self.request_bytes_in_flight = bytes;
        self
    }

    /// Sets the maximum number of response bytes that are in memory only because clients have not
    /// read them yet. Defaults to 64 MiB.
    ///
    /// These are older lists, which are in no cache any more, and bodies of single responses; the
    /// latter count only if a [`Listener`](crate::server::Listener) of this server sends them.
    /// Beyond the limit, no new list is built. Clients get the latest one for up to 30 seconds, and
    /// 503 with `Retry-After` for an application or a VIP without one. The listener closes
    /// connections that read less than 1 MB a second, see
    /// [`response_timeout`](crate::server::Listener::response_timeout). A single list that exceeds
    /// the limit is still sent, and so is every response to a write.
    ///
    /// Without a listener of this server, as under `axum::serve`, such connections are not closed.
    /// Then nothing is refused, and a warning is logged.
    pub fn response_bytes(mut self, bytes: usize) -> Self {
        self.response_bytes = bytes;
        self
    }

    /// Allows registrations and replication batches with `Content-Encoding: gzip`. Defaults to
    /// false: they get 415.
    ///
    /// A few bytes of gzip can expand to many, and no client and no Spring server sends it. Netflix
    /// servers of the 1.x line do with `eureka.enableReplicatedRequestCompression`, which is off by
    /// default. A body may expand to 100 times its length, and to the limits of other bodies. A
    /// longer one gets 413.
    pub fn gzip_requests(mut self, allowed: bool) -> Self {
        self.gzip_requests = allowed;
        self
    }

    /// Checks the limits. The longest body may have `longest_body` bytes, by the budget of requests
    /// in flight.
    pub(in crate::server) fn check(&self, longest_body: usize) -> Result<(), Error> {
        for (bytes, name, property) in [
            (self.batch_bytes, "Limits::batch_bytes", "eureka.server.limits.batch-bytes"),
            (self.registration_bytes, "Limits::registration_bytes", "eureka.server.limits.registration-bytes"),
        ] {
            if bytes > longest_body {
                return Err(Error::setting_of(
                    name,
                    property,
                    "must be at most three quarters of request_bytes_in_flight, eureka.server.limits.request-bytes-in-flight",
                ));
            }
        }
        check_not_zero(&[
            (
                self.instances_per_application == 0,
                "Limits::instances_per_application",
                "eureka.server.limits.instances-per-application",
            ),
            (self.registration_bytes == 0, "Limits::registration_bytes", "eureka.server.limits.registration-bytes"),
            (self.batch_bytes == 0, "Limits::batch_bytes", "eureka.server.limits.batch-bytes"),
            (self.lease_secs == 0, "Limits::lease_duration", "eureka.server.limits.lease-seconds"),
            (self.name_bytes == 0, "Limits::name_bytes", "eureka.server.limits.name-bytes"),
            (self.instance_bytes == 0, "Limits::instance_bytes", "eureka.server.limits.instance-bytes"),
            (self.instances == 0, "Limits::instances", "eureka.server.limits.instances"),
            (self.applications == 0, "Limits::applications", "eureka.server.limits.applications"),
            (
                self.instances_per_identity == Some(0),
                "Limits::instances_per_identity",
                "eureka.server.limits.instances-per-identity",
            ),
            (
                self.applications_per_identity == Some(0),
                "Limits::applications_per_identity",
                "eureka.server.limits.applications-per-identity",
            ),
            (self.registry_bytes == Some(0), "Limits::registry_bytes", "eureka.server.limits.registry-bytes"),
        ])
    }
}
