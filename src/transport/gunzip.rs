//! Decompression of gzip bodies without `Content-Encoding`, as Netflix's server 1.10.17 sends them.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::errors::SendError;
use crate::sync::{OFFLOAD_THRESHOLD, offload};

/// First bytes of gzip: the two magic bytes and the only compression method. No JSON, XML or text
/// begins with them.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Maximum number of nested gzip layers. A proxy may compress a body that was compressed already.
const MAX_LAYERS: usize = 3;

/// Decompresses the body if it is gzip, and otherwise returns it unchanged. `limit` is the maximum
/// size of each decompressed layer in bytes.
pub(super) async fn decompress(mut body: Bytes, limit: usize) -> Result<Bytes, SendError> {
    for _ in 0..MAX_LAYERS {
        if !body.starts_with(&MAGIC) {
            break;
        }
        // The compressed size does not bound the work, so the small limit is tried first.
        body = match decompress_layer(&body, limit.min(OFFLOAD_THRESHOLD)) {
            Err(SendError::TooLarge(_)) if limit > OFFLOAD_THRESHOLD => {
                offload(move || decompress_layer(&body, limit)).await?
            }
            decompressed => decompressed?,
        };
    }
    Ok(body)
}

fn decompress_layer(body: &[u8], limit: usize) -> Result<Bytes, SendError> {
    let mut plain = Vec::new();
    let more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(body)
        .take(more)
        .read_to_end(&mut plain)
        .map_err(|error: io::Error| SendError::Read(error.into()))?;
    if plain.len() > limit { Err(SendError::TooLarge(limit)) } else { Ok(plain.into()) }
}
