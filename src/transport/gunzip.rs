//! Bodies that are gzip and do not say so, as Netflix's server 1.10.17 sends them.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::stack::Failure;
use crate::sync::{OFFLOAD_THRESHOLD, offload};

/// The first bytes of gzip: its two magic bytes and the only method that there is. No JSON, XML or
/// text begins with them.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Number of layers that are unpacked: a proxy may have packed once more what was packed already.
const LAYERS: usize = 3;

/// The body unpacked, if it is gzip. `limit` bounds each layer.
pub(super) async fn unpacked(mut body: Bytes, limit: usize) -> Result<Bytes, Failure> {
    for _ in 0..LAYERS {
        if !body.starts_with(&MAGIC) {
            break;
        }
        // A small body may still unpack to a large one.
        body = match unpack(&body, limit.min(OFFLOAD_THRESHOLD)) {
            Err(Failure::TooLarge(_)) if limit > OFFLOAD_THRESHOLD => offload(move || unpack(&body, limit)).await?,
            unpacked => unpacked?,
        };
    }
    Ok(body)
}

fn unpack(body: &[u8], limit: usize) -> Result<Bytes, Failure> {
    let mut plain = Vec::new();
    let more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(body)
        .take(more)
        .read_to_end(&mut plain)
        .map_err(|error: io::Error| Failure::Read(error.into()))?;
    if plain.len() > limit { Err(Failure::TooLarge(limit)) } else { Ok(plain.into()) }
}
