//! Layers of a body: gzip, nested or not, and the content.

use std::io::{self, Write};

use flate2::write::GzDecoder;

use super::Sink;

/// First bytes of gzip: the two magic bytes and the only compression method. No JSON, XML or text
/// begins with them.
pub(super) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Mark that some programs write in front of UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Layer of a body: gzip, or the content without a byte order mark.
///
/// Gzip may have several members, and zeros behind them, with which some programs fill a block.
pub(super) enum Layer {
    /// The first bytes, too few to recognize gzip. `layers` is the number of further gzip layers.
    Start {
        head: Vec<u8>,
        layers: usize,
        sink: Sink,
    },
    Content(Sink),
    /// Member of gzip.
    Gzip(Box<GzDecoder<Layer>>),
    /// End of a member, with the first bytes of the next one.
    Ended {
        head: Vec<u8>,
        content: Box<Layer>,
    },
}

impl Layer {
    pub(super) fn new(sink: Sink, layers: usize) -> Self {
        Self::Start { head: Vec::new(), layers, sink }
    }

    pub(super) fn sink(&self) -> &Sink {
        match self {
            Self::Start { sink, .. } | Self::Content(sink) => sink,
            Self::Gzip(decoder) => decoder.get_ref().sink(),
            Self::Ended { content, .. } => content.sink(),
        }
    }

    pub(super) fn finish(self) -> io::Result<Sink> {
        match self {
            Self::Start { head, mut sink, .. } => {
                sink.write_all(&head)?;
                Ok(sink)
            }
            Self::Content(sink) => Ok(sink),
            Self::Gzip(decoder) => decoder.finish()?.finish(),
            Self::Ended { head, content } if head.is_empty() => content.finish(),
            Self::Ended { .. } => Err(trailing()),
        }
    }

    /// Takes the layer, which the caller replaces.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Content(Sink::default()))
    }
}

impl Write for Layer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Start { head, layers, sink } => {
                head.extend_from_slice(bytes);
                if head.len() < MAGIC.len() {
                    return Ok(bytes.len());
                }
                let (head, layers, sink) = (std::mem::take(head), *layers, std::mem::take(sink));
                *self = match layers.checked_sub(1).filter(|_| head.starts_with(&MAGIC)) {
                    Some(layers) => Self::Gzip(Box::new(GzDecoder::new(Self::new(sink, layers)))),
                    None => Self::Content(sink),
                };
                let is_content = matches!(self, Self::Content(_));
                let mark = head.strip_prefix(&BYTE_ORDER_MARK).filter(|_| is_content);
                self.write_all(mark.unwrap_or(&head))?;
                Ok(bytes.len())
            }
            Self::Content(sink) => sink.write(bytes),
            Self::Gzip(decoder) => {
                let written = decoder.write(bytes)?;
                if written > 0 || bytes.is_empty() {
                    return Ok(written);
                }
                // The member has ended.
                if let Self::Gzip(decoder) = self.take() {
                    *self = Self::Ended { head: Vec::new(), content: Box::new(decoder.finish()?) };
                }
                self.write(bytes)
            }
            Self::Ended { head, content } => {
                let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                if head.is_empty() && zeros > 0 {
                    return Ok(zeros);
                }
                let next = &bytes[..bytes.len().min(MAGIC.len() - head.len())];
                head.extend_from_slice(next);
                if !MAGIC.starts_with(head) {
                    return Err(trailing());
                }
                if head.len() == MAGIC.len() {
                    let (head, content) = (std::mem::take(head), content.take());
                    *self = Self::Gzip(Box::new(GzDecoder::new(content)));
                    self.write_all(&head)?;
                }
                Ok(next.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn trailing() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "other bytes follow the end of gzip")
}
