use std::fmt;

/// Reason for which the registry does not take an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Refused {
    /// Its application has as many instances as this, the limit.
    ApplicationFull(usize),
    /// The keys and values of its metadata are longer than this, the limit in bytes.
    MetadataTooLarge(usize),
    /// One of its names is longer than this, the limit in bytes.
    NameTooLong(&'static str, usize),
    /// Its texts together are longer than this, the limit in bytes.
    InstanceTooLarge(usize),
    /// The registry has as many instances as this, the limit.
    RegistryFull(usize),
    /// The instances of the registry would take nearly this, the limit in bytes, or more.
    RegistryTooLarge(usize),
}

impl Refused {
    /// Returns true if there was no room in the registry, whatever the instance looks like.
    pub(in crate::server) fn is_full(self) -> bool {
        matches!(self, Self::RegistryFull(_) | Self::RegistryTooLarge(_))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApplicationFull(limit) => write!(f, "the application has {limit} instances, which is the limit"),
            Self::MetadataTooLarge(limit) => write!(f, "the metadata is larger than {limit} bytes"),
            Self::NameTooLong(name, limit) => write!(f, "the {name} is longer than {limit} bytes"),
            Self::InstanceTooLarge(limit) => write!(f, "the instance is larger than {limit} bytes"),
            Self::RegistryFull(limit) => {
                write!(f, "the registry is full: it has {limit} instances, which is the limit")
            }
            Self::RegistryTooLarge(limit) => {
                write!(f, "the registry is full: its instances take nearly {limit} bytes, which is the limit")
            }
        }
    }
}
