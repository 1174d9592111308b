use std::fmt;

/// Origin of the instances that a client knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistrySource {
    /// No instances are known yet.
    #[default]
    None,
    /// [Static instances](crate::EurekaBuilder::static_instances) only. The registry was never
    /// fetched.
    Static,
    /// The [registry file](crate::EurekaBuilder::registry_file), and static instances below it. The
    /// registry was not fetched since the start, so the instances may be gone.
    File,
    /// The registry. Applications that it does not have may have static instances.
    Fetched,
}

impl RegistrySource {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Static => "static",
            Self::File => "file",
            Self::Fetched => "fetched",
        }
    }
}

impl fmt::Display for RegistrySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
