//! Recognition of instances whose bytes did not change, so that they are not decoded again.

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use memchr::memmem::Finder;

/// Hash of the bytes from which an instance was decoded, without the time of its last heartbeat: a
/// server changes that in every response. 0 if there is none.
///
/// Instances that differ only in it are equal.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint(AtomicU64);

impl Fingerprint {
    pub(crate) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&hash| hash != 0)
    }

    pub(crate) fn set(&self, hash: Option<u64>) {
        self.0.store(hash.unwrap_or_default(), Ordering::Relaxed);
    }
}

impl Clone for Fingerprint {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Fingerprint {}

/// Bytes of an instance without the time of its last heartbeat.
pub(super) struct Masked {
    pub(super) hash: u64,
    /// The time that was left out. The hash identifies the instance only if this is the time of its
    /// lease, and not the value of a member with the same name elsewhere.
    pub(super) renewed: Option<i64>,
}

impl Masked {
    pub(super) fn of(instance: &[u8]) -> Self {
        static MEMBER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"lastRenewalTimestamp\":"));
        // A seed of the process, so that nobody can prepare a registration that collides with
        // another one.
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        let start = MEMBER.find(instance).map(|at| at + MEMBER.needle().len());
        let digits = start.map_or(0, |start| instance[start..].iter().take_while(|byte| byte.is_ascii_digit()).count());
        let (before, rest) = instance.split_at(start.unwrap_or_default());
        let (digits, after) = rest.split_at(digits);
        let mut hasher = SEED.build_hasher();
        hasher.write(before);
        hasher.write_usize(before.len());
        hasher.write(after);
        let renewed = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        Self { hash: hasher.finish(), renewed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_of_the_last_heartbeat_is_masked() {
        let of = |text: &str| Masked::of(text.as_bytes());
        let first = of(r#"{"a":"b","leaseInfo":{"lastRenewalTimestamp":17,"x":1}}"#);
        let renewed = of(r#"{"a":"b","leaseInfo":{"lastRenewalTimestamp":1888,"x":1}}"#);
        assert_eq!((first.renewed, renewed.renewed), (Some(17), Some(1888)));
        assert_eq!(first.hash, renewed.hash);
        for other in [
            r#"{"a":"c","leaseInfo":{"lastRenewalTimestamp":17,"x":1}}"#,
            r#"{"a":"b","leaseInfo":{"lastRenewalTimestamp":17,"x":2}}"#,
            r#"{"a":"b","leaseInfo":{"lastRenewalTimestamp":"17","x":1}}"#,
            r#"{"a":"b","leaseInfo":{"x":1}}"#,
            "",
        ] {
            assert_ne!(of(other).hash, first.hash, "{other}");
        }
        assert_eq!(of(r#"{"lastRenewalTimestamp":99999999999999999999}"#).renewed, None);
    }
}
