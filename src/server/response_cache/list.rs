use std::borrow::Cow;

use crate::server::view::By;
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
