//! Calls to names that the registry does not know.

use super::CallOptions;

/// Reaction to a name that the registry does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownName {
    /// The call waits for an instance, as for an application whose instances are not UP. The
    /// application may be registered meanwhile.
    #[default]
    Wait,
    /// The call fails as soon as a fetched registry has no instance under the name, in any status.
    /// Before the first fetch it waits.
    Fail,
}

impl CallOptions {
    /// Sets the reaction to a name that the registry does not know. Defaults to
    /// [`UnknownName::Wait`], for at most the
    /// [ready timeout](crate::EurekaBuilder::ready_timeout).
    ///
    /// [`UnknownName::Fail`] suits gateways that take names from requests: a typo then costs no
    /// time. The first calls to a new application fail until the next fetch of the registry.
    pub fn unknown_name(mut self, reaction: UnknownName) -> Self {
        self.unknown_name = reaction;
        self
    }
}
