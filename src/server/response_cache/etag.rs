use std::fmt;

use http::HeaderValue;

#[cfg(feature = "peers")]
use crate::server::view::RegionSet;
use crate::server::view::{Encoding, Form, Variant};

/// Sequence that the revision in an `ETag` belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Registry,
    Delta,
    Application,
    /// The instances with a VIP. The revision is a hash of the body.
    Selection,
    /// The registry together with these regions.
    #[cfg(feature = "peers")]
    RegistryWith(RegionSet),
    /// The delta of the registry and these regions.
    #[cfg(feature = "peers")]
    DeltaWith(RegionSet),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry => f.write_str("r"),
            Self::Delta => f.write_str("d"),
            Self::Application => f.write_str("a"),
            Self::Selection => f.write_str("v"),
            #[cfg(feature = "peers")]
            Self::RegistryWith(set) => write!(f, "r{:x}.", set.bits()),
            #[cfg(feature = "peers")]
            Self::DeltaWith(set) => write!(f, "d{:x}.", set.bits()),
        }
    }
}

/// Returns a strong `ETag`: equal values mean equal bytes.
///
/// `run` distinguishes a registry from others, and from itself before a restart.
pub(super) fn etag(run: u64, kind: Kind, revision: u64, Variant { form, encoding }: Variant) -> HeaderValue {
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
    HeaderValue::try_from(format!("\"{run:x}-{kind}{revision:x}-{form}{encoding}\"")).expect("text is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_names_the_run_the_revision_and_the_variant() {
        let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
        assert_eq!(etag(0xab, Kind::Delta, 31, variant), r#""ab-d1f-jg""#);
    }
}
