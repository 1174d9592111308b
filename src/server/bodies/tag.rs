use std::fmt;

use http::HeaderValue;

use super::{Encoding, Form, Variant};
#[cfg(feature = "peers")]
use crate::server::regions::RegionSet;

/// Which revisions a tag counts: those of the registry, of the delta, or of one application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Registry,
    Delta,
    Application,
    /// Of the registry and these regions together.
    #[cfg(feature = "peers")]
    RegistryWith(RegionSet),
    #[cfg(feature = "peers")]
    DeltaWith(RegionSet),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry => f.write_str("r"),
            Self::Delta => f.write_str("d"),
            Self::Application => f.write_str("a"),
            #[cfg(feature = "peers")]
            Self::RegistryWith(set) => write!(f, "r{:x}.", set.bits()),
            #[cfg(feature = "peers")]
            Self::DeltaWith(set) => write!(f, "d{:x}.", set.bits()),
        }
    }
}

/// A strong tag: the same one means the same bytes. `run` tells a registry from others and from itself before a restart.
pub(super) fn tag(run: u64, kind: Kind, revision: u64, Variant { form, encoding }: Variant) -> HeaderValue {
    let form = match form {
        Form::Json => 'j',
        Form::CompactJson => 'c',
        #[cfg(feature = "xml")]
        Form::Xml => 'x',
        #[cfg(feature = "xml")]
        Form::CompactXml => 'y',
    };
    let encoding = match encoding {
        Encoding::Identity => 'i',
        Encoding::Gzip => 'g',
    };
    HeaderValue::try_from(format!("\"{run:x}-{kind}{revision:x}-{form}{encoding}\"")).expect("ASCII without controls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_the_run_the_revision_and_the_variant() {
        let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
        assert_eq!(tag(0xab, Kind::Delta, 31, variant), r#""ab-d1f-jg""#);
    }
}
