use std::fmt;
use std::time::Duration;

use super::LeaseInfo;

/// Error of [`InstanceBuilder::build`](super::InstanceBuilder::build): an instance that cannot be registered.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidInstance {
    app: String,
    fault: Fault,
}

/// Starts of placeholders, which no field may contain.
pub(super) const PLACEHOLDERS: [&str; 4] = ["${", "$(", "#{", "{{"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    BadName,
    ReservedName,
    NoPort,
    PortZero,
    BadId(String),
    /// Name of a field whose value contains one of [`PLACEHOLDERS`].
    Placeholder(&'static str),
    /// A field, its value and the reason why it is unusable.
    Unusable(&'static str, String, &'static str),
    NotWholeSeconds(&'static str, Duration),
    LeaseTooShort(LeaseInfo),
}

impl InvalidInstance {
    pub(super) fn new(app: &str, fault: Fault) -> Self {
        Self { app: app.into(), fault }
    }
}

impl fmt::Display for InvalidInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let app = &self.app;
        match &self.fault {
            Fault::BadName => {
                write!(f, "application name '{app}' is unusable: use ASCII letters, digits, '-', '_' and '.'")
            }
            Fault::ReservedName => {
                write!(f, "application name '{app}' is reserved by the protocol: choose another")
            }
            Fault::NoPort => write!(f, "instance of '{app}' has no port: use that of its listener"),
            Fault::PortZero => {
                write!(f, "instance of '{app}' has port 0: bind first, then use the port of local_addr()")
            }
            Fault::BadId(id) => {
                write!(
                    f,
                    "instance id '{id}' of '{app}' is unusable: it must not be empty or contain a slash or control character"
                )
            }
            Fault::Placeholder(field) => {
                write!(
                    f,
                    "{field} of '{app}' contains ${{...}}, $(...), #{{...}} or {{{{...}}}}: placeholders are not resolved, write out the value"
                )
            }
            Fault::Unusable(field, value, why) => write!(f, "{field} '{value}' of '{app}' is unusable: {why}"),
            Fault::NotWholeSeconds(name, duration) => {
                write!(f, "{name} {duration:?} of '{app}' is unusable: use whole seconds, at least 1 s")
            }
            Fault::LeaseTooShort(lease) => write!(
                f,
                "lease of '{app}' would end before its next heartbeat ({} s, heartbeat every {} s): make it longer",
                lease.duration_secs, lease.renewal_interval_secs
            ),
        }
    }
}

/// Shows the message, since a `main` that returns the error prints its `Debug` form.
impl fmt::Debug for InvalidInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidInstance({self})")
    }
}

impl std::error::Error for InvalidInstance {}
