//! Decompression of gzip request bodies, step by step within limits.

use std::io::Read;

use flate2::bufread::GzDecoder;

use super::intake::{Charge, NoRoom};

/// Maximum ratio of the decompressed to the compressed length. Batches of peers have ratios of 10
/// to 40.
pub(super) const MAX_RATIO: usize = 100;
/// Number of bytes that are decompressed at a time.
const STEP: usize = 16 * 1024;

/// Reason why a body was not decompressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    NotGzip,
    /// The decompressed body is longer than the limit.
    TooLarge,
    /// The decompressed body exceeds [`MAX_RATIO`].
    Ratio,
    NoRoom(NoRoom),
}

impl From<NoRoom> for Failure {
    fn from(no_room: NoRoom) -> Self {
        Self::NoRoom(no_room)
    }
}

/// Decompresses a body of one gzip member to at most `limit` bytes. They are charged in addition to
/// the compressed ones.
pub(super) fn decompress(packed: &[u8], limit: usize, charge: &mut Charge) -> Result<Vec<u8>, Failure> {
    let longest = packed.len().saturating_mul(MAX_RATIO);
    // Of the compressed body and the head of its request.
    let held = charge.bytes().max(packed.len());
    let mut gzip = GzDecoder::new(packed);
    let mut plain: Vec<u8> = Vec::new();
    let mut step = vec![0; STEP];
    loop {
        let read = gzip.read(&mut step).map_err(|_| Failure::NotGzip)?;
        if read == 0 {
            break;
        }
        let length = plain.len() + read;
        if length > limit {
            return Err(Failure::TooLarge);
        }
        if length > longest {
            return Err(Failure::Ratio);
        }
        if length > plain.capacity() {
            let room = charge.ceiling().saturating_sub(held);
            let capacity = length.max((2 * plain.capacity()).min(room)).min(limit);
            charge.grow_to(held + capacity)?;
            plain.reserve_exact(capacity - plain.len());
        }
        plain.extend_from_slice(&step[..read]);
    }
    // More members are refused, since many empty ones would cost time and no bytes.
    if gzip.into_inner().is_empty() { Ok(plain) } else { Err(Failure::NotGzip) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::intake::Intake;
    use super::super::source::Source;
    use super::*;

    #[tokio::test]
    async fn gzip_is_decompressed_within_ratio_limit_and_budget() {
        let spaces = vec![b' '; 300_000];
        let mut random = fastrand::Rng::with_seed(7);
        let mixed: Vec<u8> = (0..300_000).map(|_| random.u8(..16)).collect();
        let intake = Intake::new(1024 * 1024, false);
        let unfolded = |packed: &[u8], limit| decompress(packed, limit, &mut intake.charge(Source::default()));
        assert_eq!(unfolded(&gzip(&mixed), 300_000), Ok(mixed.clone()));
        assert_eq!(unfolded(&gzip(&mixed), 299_999), Err(Failure::TooLarge));
        assert_eq!(unfolded(&gzip(&spaces), 300_000), Err(Failure::Ratio));
        assert_eq!(unfolded(b"plain", 300_000), Err(Failure::NotGzip));
        assert_eq!(unfolded(&gzip(&mixed)[..1_000], 300_000), Err(Failure::NotGzip));
        assert_eq!(unfolded(&gzip(b"").repeat(2), 300_000), Err(Failure::NotGzip));
        let mut other = intake.charge(Source::default());
        other.grow_to(600_000).unwrap();
        assert_eq!(unfolded(&gzip(&mixed), 300_000), Err(Failure::NoRoom(NoRoom::Now)));
        drop(other);
        // Both the compressed and the decompressed bytes must fit into the budget.
        let narrow = Intake::new(700_000, false);
        assert!(decompress(&gzip(&mixed), 1_000_000, &mut narrow.charge(Source::default())) == Ok(mixed.clone()));
        let narrow = Intake::new(400_000, false);
        let unfolded = decompress(&gzip(&mixed), 300_000, &mut narrow.charge(Source::default()));
        assert!(unfolded == Err(Failure::NoRoom(NoRoom::Ever(300_000))));
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }
}
