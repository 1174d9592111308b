//! What stands in for the TLS settings where the feature `tls` is off: nothing can be set.

/// The TLS settings of one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {}

impl Tls {
    /// Whether this build can speak TLS.
    pub(crate) const BUILT_IN: bool = false;

    /// Says what to do about it.
    pub(crate) fn usable(&self) -> Result<(), String> {
        Err("it is not built in, switch on the feature `tls` of tower-eureka".into())
    }
}
