//! Reads response bodies piece by piece: decompresses gzip, decodes lists, and limits the size.
//!
//! A body is gzip if it begins like gzip, with or without `Content-Encoding`. Netflix's server
//! 1.10.17 sends it without, and a proxy may compress a body that was compressed already.

mod layer;
mod thread;

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;

use self::layer::Layer;
use self::thread::offload_list;
use super::errors::SendError;
use crate::model::{DecodeError, DecodedList, Known, ListDecoder};
use crate::sync::{OFFLOAD_THRESHOLD, offload};

/// Maximum number of nested gzip layers.
const MAX_LAYERS: usize = 3;
/// Number of received bytes that are processed at once on the thread of the caller. They may expand
/// by a factor of 1,000, to about [`OFFLOAD_THRESHOLD`].
const STEP: usize = 256;
/// Number of known instances from which a list is decoded on the thread of lists.
const OFFLOAD_KNOWN: usize = 250;
/// Maximum size in bytes of a body that is not a list.
const MAX_DOCUMENT: usize = 64 << 20;
/// Number of bytes of a list that are kept for the error of a body that is not one.
const HEAD: usize = 256;
/// Maximum memory that a list may take for each instance that was known before, in bytes. A usual
/// instance takes less than 1 KiB.
const MEMORY_PER_KNOWN: usize = 4096;

/// Beginning that makes a list of the document of one application.
const LIST_OF_ONE: &[u8] = b"{\"applications\":";

/// List that a response has.
#[derive(Clone, Debug, Default)]
pub(super) struct ListBody {
    /// Instances that are not decoded again.
    pub(super) known: Known,
    /// True for the document of one application, which becomes a list of it.
    pub(super) is_application: bool,
    /// Number of lists that may be decoded at the same time, and share the memory.
    pub(super) concurrent: usize,
}

impl From<Known> for ListBody {
    fn from(known: Known) -> Self {
        Self { known, ..Self::default() }
    }
}

impl ListBody {
    /// Returns the memory in bytes that the list may take in addition to known instances.
    ///
    /// It is four times the usual size of what is known, and at least seven sixteenths of the
    /// limit: 112 MiB by default. Lists that are decoded at the same time share these.
    fn max_memory(&self, body_limit: usize) -> usize {
        let floor = body_limit / 16 * 7 / self.concurrent.max(1);
        self.known.len().saturating_mul(MEMORY_PER_KNOWN).clamp(floor, body_limit)
    }
}

/// Content of a response body.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    /// The body, or the first bytes of a list.
    pub(super) bytes: Bytes,
    /// Result of decoding the list.
    pub(super) list: Option<Result<DecodedList, DecodeError>>,
}

/// Reader of one body.
pub(super) struct BodyReader(Layer);

impl BodyReader {
    /// Creates a reader of a body that is collected.
    pub(super) fn collecting(limit: usize) -> Self {
        Self::new(Sink::Bytes { bytes: Vec::new(), limit: limit.min(MAX_DOCUMENT) })
    }

    /// Creates a reader of a list.
    pub(super) fn decoding(list: &ListBody, limit: usize) -> Self {
        let decoder = ListDecoder::new(list.known.clone(), list.max_memory(limit));
        let (is_application, is_large) = (list.is_application, list.known.len() > OFFLOAD_KNOWN);
        let (head, size, failed) = (Vec::new(), 0, false);
        Self::new(Sink::List(Box::new(ListSink { head, decoder, size, limit, is_application, is_large, failed })))
    }

    fn new(sink: Sink) -> Self {
        Self(Layer::new(sink, MAX_LAYERS))
    }

    /// Reads these pieces, on another thread if the body is large.
    pub(super) async fn push(mut self, pieces: Vec<Bytes>) -> Result<Self, Fault> {
        let mut pieces = pieces.into_iter();
        let mut piece = Bytes::new();
        while !self.0.sink().is_large() {
            if piece.is_empty() {
                match pieces.next() {
                    Some(next) => piece = next,
                    None => return Ok(self),
                }
            }
            self.0.write_all(&piece.split_to(piece.len().min(STEP)))?;
        }
        if piece.is_empty() && pieces.len() == 0 {
            return Ok(self);
        }
        let is_list = self.0.sink().is_list();
        let work = move || {
            for piece in std::iter::once(piece).chain(pieces) {
                self.0.write_all(&piece)?;
            }
            Ok(self)
        };
        if is_list { offload_list(work).await } else { offload(work).await }
    }

    /// Ends the body.
    pub(super) async fn finish(self) -> Result<ReceivedBody, Fault> {
        let finish = |layer: Layer| Ok(layer.finish()?.finish());
        let (is_large, is_list) = (self.0.sink().is_large(), self.0.sink().is_list());
        match (is_large, is_list) {
            (false, _) => finish(self.0),
            (true, true) => offload_list(move || finish(self.0)).await,
            (true, false) => offload(move || finish(self.0)).await,
        }
    }
}

/// Reason why a body is not read further.
pub(super) enum Fault {
    /// It is a list that cannot be decoded.
    List(DecodeError),
    Other(SendError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let error = match error.downcast::<DecodeError>() {
            Ok(error) => {
                return match error.exceeded_memory() {
                    Some(limit) => Self::Other(SendError::TooMuchMemory(limit)),
                    None => Self::List(error),
                };
            }
            Err(error) => error,
        };
        Self::Other(match error.downcast::<TooLarge>() {
            Ok(TooLarge(limit)) => SendError::TooLarge(limit),
            Err(error) => SendError::Read(error.into()),
        })
    }
}

/// The body is larger than this number of bytes after decompression.
#[derive(Debug)]
struct TooLarge(usize);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "larger than {} bytes", self.0)
    }
}

impl std::error::Error for TooLarge {}

/// Destination of the content.
enum Sink {
    Bytes { bytes: Vec<u8>, limit: usize },
    List(Box<ListSink>),
}

impl Default for Sink {
    fn default() -> Self {
        Self::Bytes { bytes: Vec::new(), limit: 0 }
    }
}

struct ListSink {
    /// First bytes of the content.
    head: Vec<u8>,
    decoder: ListDecoder,
    size: usize,
    limit: usize,
    /// True for the document of one application.
    is_application: bool,
    /// True if the list is decoded on the thread of lists from the start.
    is_large: bool,
    /// True after an error. A decompressor that is dropped writes what it has left.
    failed: bool,
}

impl Sink {
    /// Returns `true` if further content must be processed on another thread.
    fn is_large(&self) -> bool {
        match self {
            Self::Bytes { bytes, .. } => bytes.len() >= OFFLOAD_THRESHOLD,
            Self::List(list) => list.is_large || list.size >= OFFLOAD_THRESHOLD,
        }
    }

    fn is_list(&self) -> bool {
        matches!(self, Self::List(_))
    }

    fn finish(self) -> ReceivedBody {
        match self {
            Self::Bytes { bytes, .. } => ReceivedBody { bytes: bytes.into(), list: None },
            Self::List(list) => list.finish(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let (size, limit) = match self {
            Self::Bytes { bytes, limit } => (bytes.len(), *limit),
            Self::List(list) => (list.size, list.limit),
        };
        if content.len() > limit.saturating_sub(size) {
            return Err(io::Error::other(TooLarge(limit)));
        }
        match self {
            Self::Bytes { bytes, .. } => bytes.extend_from_slice(content),
            Self::List(list) => list.push(content)?,
        }
        Ok(content.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ListSink {
    fn finish(mut self) -> ReceivedBody {
        let end: &[u8] = if self.is_application { b"}" } else { b"" };
        let list = self.decoder.push(end).and_then(|()| self.decoder.finish());
        ReceivedBody { bytes: self.head.into(), list: Some(list) }
    }

    fn push(&mut self, content: &[u8]) -> io::Result<()> {
        if self.failed {
            return Err(io::ErrorKind::Other.into());
        }
        let is_first = self.size == 0;
        self.size += content.len();
        let head = HEAD.saturating_sub(self.head.len()).min(content.len());
        self.head.extend_from_slice(&content[..head]);
        if let Some(error) = DecodeError::of_wide_list(&self.head) {
            return Err(self.fail(error));
        }
        // Markup is reported by its first bytes.
        if self.head.trim_ascii_start().starts_with(b"<") {
            return Ok(());
        }
        let begin = if is_first && self.is_application { LIST_OF_ONE } else { b"" };
        let pushed = self.decoder.push(begin).and_then(|()| self.decoder.push(content));
        pushed.map_err(|error| self.fail(error))
    }

    /// Discards the list.
    ///
    /// The error outlives the list. If it was allocated behind the list, glibc could not return the
    /// memory of the list to the system.
    fn fail(&mut self, error: DecodeError) -> io::Error {
        self.failed = true;
        self.decoder = ListDecoder::new(Known::default(), 0);
        io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::Compression;
    use flate2::read::GzEncoder;

    use super::*;
    use crate::model::{Applications, Instance};

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut compressed = Vec::new();
        GzEncoder::new(bytes, Compression::default()).read_to_end(&mut compressed).unwrap();
        compressed.into()
    }

    async fn read(mut reader: BodyReader, pieces: impl IntoIterator<Item = Bytes>) -> Result<ReceivedBody, String> {
        let text = |fault| match fault {
            Fault::List(error) => error.to_string(),
            Fault::Other(error) => format!("{error:?}"),
        };
        for piece in pieces {
            reader = reader.push(vec![piece]).await.map_err(text)?;
        }
        reader.finish().await.map_err(text)
    }

    #[tokio::test]
    async fn body_in_any_layers_and_pieces_is_read() {
        let plain = Bytes::from("x".repeat(700_000));
        let (once, twice) = (gzip(&plain), gzip(&gzip(&plain)));
        let members = Bytes::from([gzip(&plain[..100]), gzip(&plain[100..])].concat());
        for body in [&plain, &once, &twice, &members] {
            for size in [1, 2, 3, 100, 1 << 20] {
                if body.len() / size > 1_000 {
                    continue;
                }
                let pieces = body.chunks(size).map(Bytes::copy_from_slice);
                let read = read(BodyReader::collecting(1 << 20), pieces).await.unwrap();
                assert!(read.bytes == plain, "{size}");
            }
        }
        for short in ["", "a", "ab"] {
            let read = read(BodyReader::collecting(10), [Bytes::from(short)]).await.unwrap();
            assert_eq!(read.bytes, short);
        }
        // A fourth layer is not gzip of ours.
        let fourth = gzip(&gzip(&twice));
        let read = read(BodyReader::collecting(1 << 20), [fourth]).await.unwrap();
        assert!(read.bytes.starts_with(&layer::MAGIC));
    }

    #[tokio::test]
    async fn zeros_behind_gzip_are_skipped_and_other_bytes_are_an_error() {
        let plain = Bytes::from("x".repeat(3_000));
        let (once, zeros) = (gzip(&plain), Bytes::from(vec![0; 1_000]));
        let padded = Bytes::from([&once[..], &zeros].concat());
        let nested = Bytes::from([&gzip(&padded)[..], &zeros].concat());
        let between = Bytes::from([gzip(&plain[..100]), zeros.clone(), gzip(&plain[100..])].concat());
        for body in [padded, nested, between] {
            for size in [1, 3, 7, 1 << 20] {
                let pieces = body.chunks(size).map(Bytes::copy_from_slice);
                let read = read(BodyReader::collecting(1 << 20), pieces).await.unwrap();
                assert!(read.bytes == plain, "{size}");
            }
        }
        for trailing in [&b"\n"[..], b"garbage", b"\0\0x", &layer::MAGIC[..1], &layer::MAGIC[..2], b"\x1f\x8b\0"] {
            for size in [1, 1 << 20] {
                let body = [&once[..], trailing].concat();
                let pieces = body.chunks(size).map(Bytes::copy_from_slice);
                let error = read(BodyReader::collecting(1 << 20), pieces).await.unwrap_err();
                assert!(error.contains("other bytes follow the end of gzip"), "{trailing:?}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn byte_order_mark_is_skipped_and_wide_text_is_an_error() {
        let document = list(r#"{"instanceId":"1"}"#);
        let marked = Bytes::from([b"\xef\xbb\xbf", &document[..]].concat());
        let decoding = || BodyReader::decoding(&ListBody::default(), 1 << 20);
        for body in [marked.clone(), gzip(&marked)] {
            for size in [1, 2, 1 << 20] {
                let pieces = body.chunks(size).map(Bytes::copy_from_slice);
                let list = read(decoding(), pieces).await.unwrap().list.unwrap().unwrap().list;
                assert_eq!(list.len(), 1, "{size}");
            }
        }
        let application = Bytes::from("\u{feff}{\"application\":{\"name\":\"A\"}}");
        let part = ListBody { is_application: true, ..ListBody::default() };
        let read_part = read(BodyReader::decoding(&part, 1 << 20), [application]).await.unwrap();
        assert_eq!(read_part.list.unwrap().unwrap().list.applications.len(), 1);

        let text = format!("{:5000}", std::str::from_utf8(&document).unwrap());
        let wide = |units: &mut dyn Iterator<Item = [u8; 2]>| Bytes::from(units.flatten().collect::<Vec<_>>());
        let little = wide(&mut text.encode_utf16().map(u16::to_le_bytes));
        let big = wide(&mut text.encode_utf16().map(u16::to_be_bytes));
        let marked = [Bytes::from([b"\xff\xfe", &little[..]].concat()), Bytes::from([b"\xfe\xff", &big[..]].concat())];
        let utf32 = Bytes::from(text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect::<Vec<_>>());
        for body in marked.into_iter().chain([little, big, utf32]) {
            for size in [1, 2, 3, 1 << 20] {
                let pieces = body.chunks(size).map(Bytes::copy_from_slice);
                let error = read(decoding(), pieces).await.err().unwrap_or_default();
                assert!(error.contains("UTF-16 or UTF-32"), "{size}: {error}");
            }
            let error = Applications::from_json(&body).unwrap_err().to_string();
            assert!(error.contains("UTF-16 or UTF-32"), "{error}");
            let error = crate::model::ReplicationResponse::from_json(&body).unwrap_err().to_string();
            assert!(error.contains("UTF-16 or UTF-32"), "{error}");
        }
    }

    #[tokio::test]
    async fn body_beyond_the_limit_or_cut_off_is_an_error() {
        let plain = vec![b'x'; 1_000];
        assert!(read(BodyReader::collecting(1_000), [gzip(&plain)]).await.is_ok());
        assert_eq!(read(BodyReader::collecting(999), [gzip(&plain)]).await.unwrap_err(), "TooLarge(999)");
        let cut_off = gzip(&plain);
        let cut_off = cut_off.slice(..cut_off.len() - 9);
        assert!(read(BodyReader::collecting(1_000), [cut_off]).await.unwrap_err().starts_with("Read("));
    }

    /// Returns a list with this text in place of its instances.
    fn list(instances: &str) -> Bytes {
        format!(r#"{{"applications":{{"application":[{{"name":"A","instance":[{instances}]}}]}}}}"#).into()
    }

    #[tokio::test]
    async fn list_that_takes_too_much_memory_is_refused_whatever_it_consists_of() {
        let limit = 1 << 20;
        for content in ["{},", "{\"instanceId\":\"1\"},", "1,", "[],", "{\"a\":[", "\"\\u0000"] {
            let bomb = gzip(&list(&content.repeat(limit / content.len() - 50)));
            let error = read(BodyReader::decoding(&ListBody::default(), limit), [bomb]).await.unwrap_err();
            assert!(error.starts_with("TooMuchMemory("), "{content}: {error}");
        }
        let spaces = list(&" ".repeat(limit - 100));
        assert!(read(BodyReader::decoding(&ListBody::default(), limit), [gzip(&spaces)]).await.is_ok());
        let error = read(BodyReader::decoding(&ListBody::default(), 20_000), [spaces]).await.unwrap_err();
        assert_eq!(error, "TooLarge(20000)");
    }

    /// A body of 20 GB differs from one at the limit only in the part that is not read.
    #[test]
    fn peak_memory_of_a_bomb_is_bounded() {
        let limit = 8 << 20;
        let distinct = |number: usize| format!("{{\"instanceId\":\"{number}\"}},");
        let with_metadata = |number: usize| format!("{{\"instanceId\":\"i\",\"metadata\":{{\"{number}\":\"\"}}}},");
        let whole = |content: &str| content.repeat(limit / content.len());
        let bombs: [(&str, String); 8] = [
            ("empty instances", whole("{},")),
            ("instances", (0..limit / 20).map(distinct).collect()),
            ("metadata", (0..limit / 40).map(with_metadata).collect()),
            (
                "one metadata",
                format!("{{\"metadata\":{{{}", (0..limit / 10).map(|n| format!("\"{n}\":1,")).collect::<String>()),
            ),
            ("one string", format!("\"{}", whole("a"))),
            ("one instance", format!("{{\"hostName\":\"{}", whole("a"))),
            ("applications", format!("]}},{}", whole("{},"))),
            ("spaces", whole(" ")),
        ];
        for (kind, content) in bombs {
            let bomb = gzip(&list(&content));
            let mut reader = BodyReader::decoding(&ListBody::default(), limit);
            let mut pushed = Ok(());
            let peak = allocation_counter::measure(|| {
                pushed = bomb.chunks(STEP).try_for_each(|piece| reader.0.write_all(piece));
            });
            let refused = pushed.is_err();
            let finished = allocation_counter::measure(|| drop(pushed.and_then(|()| reader.0.finish())));
            let max = peak.bytes_max.max(peak.bytes_current.max(0) as u64 + finished.bytes_max);
            assert!(max <= (limit / 16 * 9) as u64, "{kind}: {max} of {limit}");
            // The list is freed before the error is returned, which is kept for the status.
            assert!(!refused || peak.bytes_current < 128 * 1024, "{kind}: {} are left", peak.bytes_current);
        }
    }

    /// The rest of the bomb takes memory of the thread of lists.
    #[test]
    fn bomb_takes_little_memory_of_the_thread_of_the_caller() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for instance in ["{},", r#"{"instanceId":"1"},"#] {
            let bomb = gzip(&list(&instance.repeat((16 << 20) / instance.len())));
            let reader = BodyReader::decoding(&ListBody::default(), 256 << 20);
            let caller = allocation_counter::measure(|| drop(runtime.block_on(reader.push(vec![bomb.clone()]))));
            assert!(caller.bytes_max < 24 << 20, "{instance}: {} bytes", caller.bytes_max);
        }
    }

    #[test]
    fn memory_of_a_list_is_limited_by_what_was_known() {
        let known = |count| {
            let instance = std::sync::Arc::new(Instance::bare("A".into()));
            let instances = vec![instance; count];
            Known::new(vec![std::sync::Arc::new(crate::model::Application { name: "A".into(), instances })])
        };
        let max_memory = |known, limit| ListBody::from(known).max_memory(limit);
        let limit = 256 << 20;
        assert_eq!(max_memory(known(0), limit), 112 << 20);
        assert_eq!(max_memory(known(10_000), limit), 112 << 20);
        assert_eq!(max_memory(known(40_000), limit), 40_000 * 4096);
        assert_eq!(max_memory(known(100_000), limit), limit);
        assert_eq!(max_memory(known(1), 0), 0);
        assert_eq!(ListBody { concurrent: 8, ..ListBody::default() }.max_memory(limit), 14 << 20);
    }

    #[tokio::test]
    async fn document_of_one_application_is_a_list_of_it_within_the_same_memory() {
        let part = ListBody { is_application: true, ..ListBody::default() };
        let document =
            |instances: &str| Bytes::from(format!(r#"{{"application":{{"name":"A","instance":[{instances}]}}}}"#));
        for size in [1, 7, 1_000] {
            let body = document(r#"{"instanceId":"1"},{"instanceId":"2"}"#);
            let pieces = body.chunks(size).map(Bytes::copy_from_slice);
            let read = read(BodyReader::decoding(&part, 10_000), pieces).await.unwrap();
            assert_eq!(read.list.unwrap().unwrap().list.len(), 2, "{size}");
        }
        for broken in ["", "{\"application\":", "7}"] {
            let read = read(BodyReader::decoding(&part, 10_000), [Bytes::from(broken)]).await.unwrap();
            assert!(read.list.unwrap().is_err(), "{broken}");
        }
        let bomb = gzip(&document(&"{},".repeat((1 << 20) / 3 - 50)));
        let error = read(BodyReader::decoding(&part, 1 << 20), [bomb]).await.unwrap_err();
        assert!(error.starts_with("TooMuchMemory("), "{error}");
    }

    #[tokio::test]
    async fn markup_in_place_of_a_list_yields_its_first_bytes() {
        let page = Bytes::from(format!(" <html>{}", "x".repeat(1_000)));
        let read = read(BodyReader::decoding(&ListBody::default(), 10_000), [page]).await.unwrap();
        assert_eq!((read.bytes.len(), read.bytes.starts_with(b" <html>")), (HEAD, true));
    }
}
