use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::untrusted::Excerpt;

/// Result of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// Works.
    Up,
    /// Works, but shall receive no calls for now.
    OutOfService,
    /// Does not work.
    Down,
    /// Not known yet.
    Unknown,
}

impl HealthStatus {
    /// Returns the name, such as `OUT_OF_SERVICE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Down => "DOWN",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Returns the worse of two statuses: DOWN, then OUT_OF_SERVICE, then UNKNOWN, then UP.
    pub(super) fn worse(self, other: Self) -> Self {
        let severity = |status| match status {
            Self::Up => 0,
            Self::Unknown => 1,
            Self::OutOfService => 2,
            Self::Down => 3,
        };
        if severity(other) > severity(self) { other } else { self }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Result of a health check, with an optional reason.
///
/// The reason appears in the log and in [`HealthReport`], so it must hold no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub(super) status: HealthStatus,
    pub(super) detail: Option<Arc<str>>,
}

impl Health {
    /// Creates the result of a check that succeeded. The instance is UP if all others succeed as
    /// well.
    pub fn up() -> Self {
        HealthStatus::Up.into()
    }

    /// Creates the result of a check that failed, with which the instance is DOWN. The reason is
    /// shown on the health page, and truncated after 100 characters.
    pub fn down(reason: impl fmt::Display) -> Self {
        Self { status: HealthStatus::Down, detail: Some(Excerpt(reason).to_string().into()) }
    }

    /// Creates the result of a check after which the instance shall receive no calls for now. The
    /// reason is truncated after 100 characters.
    pub fn out_of_service(reason: impl fmt::Display) -> Self {
        Self { status: HealthStatus::OutOfService, detail: Some(Excerpt(reason).to_string().into()) }
    }
}

impl From<HealthStatus> for Health {
    fn from(status: HealthStatus) -> Self {
        Self { status, detail: None }
    }
}

/// Output of a health check or of a readiness future.
///
/// Implemented for `()`, which is UP, for `bool`, for [`HealthStatus`] and [`Health`], and for a
/// `Result` with such a value, whose error is DOWN with its message as the reason.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the result of a health check",
    label = "expected `()`, `bool`, `HealthStatus`, `Health`, or a `Result` of one of them",
    note = "map the output of the check, for example to a `bool` or to `Health::down(reason)`"
)]
pub trait IntoHealth {
    /// Converts the output.
    fn into_health(self) -> Health;
}

impl IntoHealth for Health {
    fn into_health(self) -> Health {
        self
    }
}

impl IntoHealth for HealthStatus {
    fn into_health(self) -> Health {
        self.into()
    }
}

impl IntoHealth for () {
    fn into_health(self) -> Health {
        Health::up()
    }
}

impl IntoHealth for bool {
    fn into_health(self) -> Health {
        if self { HealthStatus::Up.into() } else { HealthStatus::Down.into() }
    }
}

impl<T: IntoHealth, E: fmt::Display> IntoHealth for Result<T, E> {
    fn into_health(self) -> Health {
        match self {
            Ok(health) => health.into_health(),
            Err(error) => Health::down(error),
        }
    }
}

/// State of the health checks, the readiness and the shutdown of an instance. Returned by
/// [`Registrar::health_report`](super::Registrar::health_report).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthReport {
    /// Worst status of the components and of the readiness.
    pub status: HealthStatus,
    /// OUT_OF_SERVICE before the instance is ready and once it drains, else the worst status of the
    /// components.
    pub readiness: HealthStatus,
    /// UP while the process can respond at all.
    pub liveness: HealthStatus,
    /// True from the shutdown signal on.
    pub is_draining: bool,
    /// Connection to the registry, which does not count for the other members.
    pub registry: RegistryHealth,
    /// Health checks, in the order in which they were added.
    pub components: Vec<ComponentHealth>,
}

/// Health check of a [`HealthReport`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ComponentHealth {
    /// Name of the check.
    pub name: Arc<str>,
    /// Damped status. UNKNOWN before the first result.
    pub status: HealthStatus,
    /// Reason that the last check gave.
    pub detail: Option<Arc<str>>,
}

/// Connection to the registry, as the last heartbeat or registration showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryHealth {
    /// UP if the last request succeeded, DOWN if it failed, UNKNOWN before the first one and if
    /// registration is switched off.
    pub status: HealthStatus,
    /// Time since the lease was last renewed or registered. `None` without a lease.
    pub lease_age: Option<Duration>,
}
