use std::borrow::Cow;

use crate::model::Instance;
#[cfg(feature = "peers")]
use crate::server::view::RegionSet;

/// List that a client can request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum List<'a> {
    /// `GET apps`
    All,
    /// `GET apps/delta`
    Delta,
    /// `GET apps/{app}`, with the name in upper case.
    Application(Cow<'a, str>),
    /// `GET vips/{vip}` and `GET svips/{vip}`
    Selection(By, Cow<'a, str>),
    /// `GET apps` together with other regions.
    #[cfg(feature = "peers")]
    AllWith(RegionSet),
    /// `GET apps/delta` together with other regions.
    #[cfg(feature = "peers")]
    DeltaWith(RegionSet),
}

impl List<'_> {
    pub(in crate::server) fn into_owned(self) -> List<'static> {
        match self {
            Self::All => List::All,
            Self::Delta => List::Delta,
            Self::Application(name) => List::Application(name.into_owned().into()),
            Self::Selection(by, name) => List::Selection(by, name.into_owned().into()),
            #[cfg(feature = "peers")]
            Self::AllWith(set) => List::AllWith(set),
            #[cfg(feature = "peers")]
            Self::DeltaWith(set) => List::DeltaWith(set),
        }
    }
}

/// Address of an instance that a list is selected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum By {
    Vip,
    SecureVip,
}

impl By {
    /// Returns true if the instance has this address. As in Java, the comparison is exact and
    /// includes blanks.
    pub(super) fn matches(self, name: &str, instance: &Instance) -> bool {
        let names = match self {
            Self::Vip => instance.vip_address(),
            Self::SecureVip => instance.secure_vip_address(),
        };
        names.is_some_and(|names| names.split(',').any(|n| n == name))
    }
}
