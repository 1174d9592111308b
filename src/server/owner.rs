//! Owners of leases, and their form in the header of a replication batch.

mod listed;

use std::sync::Arc;

#[cfg(feature = "peers")]
use http::HeaderValue;
use http::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

#[cfg(feature = "peers")]
pub(in crate::server) use self::listed::ListedOwners;
pub(in crate::server) use self::listed::OwnersDocument;

/// Header of a batch with the owners of its instances, in the order of the items
/// (docs/protocol-extensions.md).
pub(super) const OWNERS: HeaderName = HeaderName::from_static("eureka-owners");
/// Maximum length of its value. Java servers accept 8 KiB of headers.
#[cfg(feature = "peers")]
const MAX_OWNERS: usize = 2048;
/// Characters that are encoded in the name of an identity.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b':').remove(b'@').remove(b'/');

/// Owner of a lease: the identity that registered its instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Owner {
    /// A peer sent the lease without an owner, the lease was copied from a peer, or there is no
    /// access control.
    #[default]
    Unknown,
    /// The instance was registered without credentials, or by an identity with the role peer. Every
    /// identity that may register may change it.
    Anybody,
    /// A registry server registered itself, or the process around it registered the instance.
    Server,
    /// Identity with this [key](super::access::Identity::key).
    Identity(Arc<str>),
}

impl Owner {
    pub(super) fn is_known(&self) -> bool {
        *self != Self::Unknown
    }

    fn write(&self) -> String {
        match self {
            Self::Unknown => "unknown".into(),
            Self::Anybody => "anybody".into(),
            Self::Server => "server".into(),
            Self::Identity(key) => utf8_percent_encode(key, NAME).to_string(),
        }
    }

    /// Reads an owner. Any other text is an unknown owner.
    fn read(text: &str) -> Self {
        match text {
            "anybody" => Self::Anybody,
            "server" => Self::Server,
            // The kind of an identity is never empty.
            _ if text.find(':').is_none_or(|at| at == 0) => Self::Unknown,
            _ => percent_decode_str(text).decode_utf8().map_or(Self::Unknown, |key| Self::Identity(key.into())),
        }
    }
}

/// Owners of the instances of a batch: runs of equal ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owners(Vec<(Owner, usize)>);

impl Owners {
    /// Reads the header of a batch.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = headers.get(OWNERS).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let run = |run: &str| {
            let (owner, count) = run.trim().split_once('*').unwrap_or((run.trim(), "1"));
            (Owner::read(owner), count.parse().unwrap_or(1))
        };
        Self(text.split(',').map(run).collect())
    }

    /// Returns the owner of each item. Items beyond the header have unknown owners.
    pub(super) fn into_each(self) -> impl Iterator<Item = Owner> {
        let runs = self.0.into_iter().flat_map(|(owner, count)| std::iter::repeat_n(owner, count));
        runs.chain(std::iter::repeat(Owner::Unknown))
    }

    /// Adds the owner of the next item. Returns false if the header has no room for it.
    #[cfg(feature = "peers")]
    pub(super) fn push(&mut self, owner: &Owner) -> bool {
        match self.0.last_mut() {
            Some((last, count)) if last == owner => {
                *count += 1;
                return true;
            }
            _ => self.0.push((owner.clone(), 1)),
        }
        let has_room = self.0.len() == 1 || self.write().len() <= MAX_OWNERS;
        if !has_room {
            self.0.pop();
        }
        has_room
    }

    /// Returns the value of the header, or `None` if no owner is known.
    #[cfg(feature = "peers")]
    pub(super) fn header(&self) -> Option<HeaderValue> {
        if self.0.iter().all(|(owner, _)| !owner.is_known()) {
            return None;
        }
        HeaderValue::try_from(self.write()).ok()
    }

    #[cfg(feature = "peers")]
    fn write(&self) -> String {
        let run = |(owner, count): &(Owner, usize)| match count {
            1 => owner.write(),
            _ => format!("{}*{count}", owner.write()),
        };
        self.0.iter().map(run).collect::<Vec<_>>().join(",")
    }
}

#[cfg(all(test, feature = "peers"))]
mod tests {
    use super::*;

    fn identity(key: &str) -> Owner {
        Owner::Identity(key.into())
    }

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(OWNERS, HeaderValue::from_static(value))])
    }

    #[test]
    fn owners_are_written_in_runs_and_read_in_order() {
        let orders = identity("user:orders");
        let sent =
            [orders.clone(), orders.clone(), Owner::Server, Owner::Unknown, identity("jwt:a,b*2 ü"), Owner::Anybody];
        let mut owners = Owners::default();
        assert!(sent.iter().all(|owner| owners.push(owner)));
        let value = owners.header().unwrap();
        assert_eq!(value, "user:orders*2,server,unknown,jwt:a%2Cb%2A2%20%C3%BC,anybody");
        let headers = HeaderMap::from_iter([(OWNERS, value)]);
        let read: Vec<_> = Owners::of(&headers).into_each().take(8).collect();
        assert_eq!(read[..6], sent);
        assert_eq!(read[6..], [Owner::Unknown, Owner::Unknown]);
    }

    #[test]
    fn header_is_bounded_and_absent_without_owners() {
        let mut owners = Owners::default();
        assert!(owners.push(&Owner::Unknown) && owners.header().is_none());
        let added = (0..1000).take_while(|n| owners.push(&identity(&format!("user:orders-{n:04}")))).count();
        assert!((100..200).contains(&added), "{added}");
        assert!(owners.header().unwrap().len() <= MAX_OWNERS);
        // A single name of any length is sent.
        assert!(Owners::default().push(&identity(&format!("jwt:{}", "x".repeat(3000)))));
    }

    #[test]
    fn text_that_is_no_owner_is_unknown() {
        for value in ["", "orders", ":", "*", "user:%ff", "unknown*99999999999999999999", ",,,"] {
            assert_eq!(Owners::of(&headers(value)).into_each().next(), Some(Owner::Unknown), "{value}");
        }
        let read: Vec<_> = Owners::of(&headers("a:b*18446744073709551615,server")).into_each().take(3).collect();
        assert_eq!(read, [identity("a:b"), identity("a:b"), identity("a:b")]);
    }
}
