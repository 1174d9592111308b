//! gzip members spliced from blocks that were compressed apart (RFC 1951, RFC 1952).
//!
//! A block is raw deflate that ends with a full flush: on a byte boundary, and nothing after it refers back into it. So blocks can follow
//! each other in any order, and the check sum of the whole is combined from theirs.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};

/// Method deflate, no name, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block.
const END: [u8; 2] = [3, 0];
/// Most of what smaller levels leave, and a tenth of a second for 25 MB of JSON is not worth the rest.
const LEVEL: Compression = Compression::new(6);
/// The longest text of a stored block.
const STORED_MAX: usize = 0xffff;

/// Compressed once, spliced into many answers.
#[derive(Debug)]
pub(super) struct Block {
    deflated: Box<[u8]>,
    crc: Crc,
}

impl Block {
    pub(super) fn compress(text: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(text);
        let mut compress = Compress::new(LEVEL, false);
        // Room for text that does not compress at all. One call must do: a full flush that runs out of room and is continued by a
        // second call now and then yields a wrong block under one of flate2's backends.
        let mut deflated = Vec::with_capacity(text.len() + text.len() / 8 + 1024);
        compress
            .compress_vec(text, &mut deflated, FlushCompress::Full)
            .expect("fails only with a dictionary missing, and there is none");
        assert!(
            compress.total_in() as usize == text.len() && deflated.len() < deflated.capacity(),
            "deflate took {} of {} bytes and filled its room",
            compress.total_in(),
            text.len()
        );
        Self { deflated: deflated.into(), crc }
    }
}

/// A gzip member in the making.
pub(super) struct Member {
    out: Vec<u8>,
    crc: Crc,
}

impl Member {
    /// Starts a member with room for these blocks and a little text around each.
    pub(super) fn with_room_for<'a>(blocks: impl Iterator<Item = &'a Block>) -> Self {
        let room = blocks.map(|block| block.deflated.len() + 16).sum::<usize>() + 256;
        let mut out = Vec::with_capacity(room);
        out.extend_from_slice(&HEADER);
        Self { out, crc: Crc::new() }
    }

    /// Appends text as it is.
    pub(super) fn text(&mut self, text: &[u8]) {
        for chunk in text.chunks(STORED_MAX) {
            let length = chunk.len() as u16;
            self.out.push(0);
            self.out.extend_from_slice(&length.to_le_bytes());
            self.out.extend_from_slice(&(!length).to_le_bytes());
            self.out.extend_from_slice(chunk);
        }
        self.crc.update(text);
    }

    pub(super) fn block(&mut self, block: &Block) {
        self.out.extend_from_slice(&block.deflated);
        // Combining with nothing spoils the sum under one of flate2's backends.
        if block.crc.amount() > 0 {
            self.crc.combine(&block.crc);
        }
    }

    pub(super) fn finish(mut self) -> Bytes {
        self.out.extend_from_slice(&END);
        self.out.extend_from_slice(&self.crc.sum().to_le_bytes());
        self.out.extend_from_slice(&self.crc.amount().to_le_bytes());
        self.out.into()
    }
}
