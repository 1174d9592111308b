//! Request bodies: checks of the headers, intake within limits, and decoding.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use http_body::Body as _;
use tokio::time::timeout;

use super::decompress::{self, MAX_RATIO, decompress};
use super::intake::{self, Charge, Intake, NoRoom};
use super::json_scan::{self, Excess};
use super::offload::{self, Busy};
use super::response::Format;
use crate::model::DecodeError;
use crate::server::connections::STREAM_WINDOW;

const MEDIA_TYPES: &str = if cfg!(feature = "xml") {
    "this registry accepts application/json and application/xml"
} else {
    "this registry accepts application/json"
};
/// Maximum length of a body that is decoded immediately, which takes less than a tenth of a
/// millisecond. Registrations have 1 to 4 KiB.
const LIGHT_BYTES: usize = 8 * 1024;
/// Maximum number of values of such a body.
const LIGHT_VALUES: usize = 256;
/// `Retry-After` of a body that found no room, in seconds.
const RETRY_SECS: HeaderValue = HeaderValue::from_static("1");
/// First bytes of a gzip member.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reason why a body is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 415: the media type is not accepted. Holds the accepted ones.
    MediaType(&'static str),
    /// 415: the content coding is not accepted. `gzip` is true if gzip is.
    Coding { gzip: bool },
    /// 413: the body is longer than this number of bytes.
    TooLarge(usize),
    /// 413: the compression ratio of a gzip body is too high.
    Ratio,
    /// 413: the document has more than this number of values.
    TooManyValues(usize),
    /// 413: the document exceeds another limit.
    Excess(String),
    /// 408: the body did not arrive in time.
    TimedOut,
    /// 413: the decoded body takes more than this number of bytes, the maximum for one body.
    Decoded(usize),
    /// 503: bodies in flight have exhausted their budget.
    Exhausted,
    /// 503: the decoding of other bodies takes too long.
    Busy,
    /// 400: the body ended early, or is not UTF-8, not JSON, or not the expected document.
    Unreadable,
    /// 400: the body is gzip without a `Content-Encoding`.
    Undeclared(Format),
    /// 400 with an XML body.
    #[cfg(feature = "xml")]
    UnreadableXml,
}

impl Refusal {
    /// Returns the refusal of an unreadable document in this format.
    pub(super) fn unreadable(format: Format) -> Self {
        match format {
            Format::Json => Self::Unreadable,
            #[cfg(feature = "xml")]
            Format::Xml => Self::UnreadableXml,
        }
    }

    /// Returns the refusal of a document in this format for a decoder's error.
    pub(super) fn undecodable(format: Format, error: &DecodeError) -> Self {
        if error.exceeds_limits() { Self::Excess(error.to_string()) } else { Self::unreadable(format) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MediaType(text) => f.write_str(text),
            Self::Coding { gzip: false } => f.write_str(
                "this registry accepts no content encoding but identity; the setting \
                 eureka.server.limits.gzip-requests (gzip_requests in code) allows gzip",
            ),
            Self::Coding { gzip: true } => f.write_str("this registry accepts the content encodings gzip and identity"),
            Self::TooLarge(limit) => write!(f, "the body is larger than {limit} bytes"),
            Self::Ratio => write!(f, "the decompressed body is longer than {MAX_RATIO} times the compressed one"),
            Self::TooManyValues(max) => write!(f, "the body has more than {max} values"),
            Self::Excess(text) => f.write_str(text),
            Self::Decoded(ceiling) => write!(
                f,
                "the decoded body takes more than {ceiling} bytes (eureka.server.limits.request-bytes-in-flight)"
            ),
            Self::TimedOut => f.write_str("the body took too long"),
            Self::Exhausted => {
                f.write_str("too many bytes of request bodies in flight (eureka.server.limits.request-bytes-in-flight)")
            }
            Self::Busy => f.write_str("too many large request bodies to decode"),
            Self::Unreadable => f.write_str("the body is cut off, not UTF-8, not JSON, not gzip or too deep"),
            Self::Undeclared(_) => f.write_str("the body is gzip without a Content-Encoding that says so"),
            #[cfg(feature = "xml")]
            Self::UnreadableXml => f.write_str("the body is cut off or not gzip"),
        }
    }
}

impl Refusal {
    pub(super) fn response(&self) -> Response {
        let text = |status: StatusCode| (status, self.to_string()).into_response();
        match *self {
            Self::MediaType(_) => text(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            // RFC 9110, 15.5.16: the header shows the sender that the coding was refused, not the
            // media type.
            Self::Coding { gzip } => {
                let accepted = HeaderValue::from_static(if gzip { "gzip, identity" } else { "identity" });
                let mut response = text(StatusCode::UNSUPPORTED_MEDIA_TYPE);
                response.headers_mut().insert(ACCEPT_ENCODING, accepted);
                response
            }
            Self::TooLarge(_) | Self::Ratio | Self::TooManyValues(_) | Self::Excess(_) | Self::Decoded(_) => {
                text(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::TimedOut => text(StatusCode::REQUEST_TIMEOUT),
            Self::Exhausted | Self::Busy => {
                let mut response = text(StatusCode::SERVICE_UNAVAILABLE);
                response.headers_mut().insert(RETRY_AFTER, RETRY_SECS);
                response
            }
            Self::Undeclared(format) => Self::unreadable(format).response(),
            Self::Unreadable => {
                let body = r#"{"error": "cannot parse request body"}"#;
                (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/json")], body).into_response()
            }
            #[cfg(feature = "xml")]
            Self::UnreadableXml => {
                let body = "<error><message>cannot parse request body</message></error>";
                (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/xml")], body).into_response()
            }
        }
    }
}

impl From<NoRoom> for Refusal {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Now => Self::Exhausted,
            NoRoom::Ever(ceiling) => Self::Decoded(ceiling),
        }
    }
}

impl From<Busy> for Refusal {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// Body that was received and is not decoded yet. It stays charged to the budget.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) format: Format,
    charset: Charset,
    gzip: bool,
    limit: usize,
    bytes: Bytes,
    charge: Charge,
}

/// Charges a request that waits before its body is read: its head, and what HTTP/2 receives of the
/// body meanwhile.
pub(super) fn hold(intake: &Intake, request: &Request) -> Result<Charge, Refusal> {
    // HTTP/1 receives a body when it is read.
    let is_received = request.version() == Version::HTTP_2;
    let length = request.body().size_hint().upper().and_then(|upper| usize::try_from(upper).ok());
    let received = if is_received { length.unwrap_or(usize::MAX).min(STREAM_WINDOW as usize) } else { 0 };
    let charge = intake.charge_head(request.uri(), request.headers(), request.extensions());
    let mut charge = charge.map_err(|_| Refusal::Exhausted)?;
    charge.grow_to(charge.bytes() + received).map_err(|_| Refusal::Exhausted)?;
    Ok(charge)
}

/// Receives a batch of at most `limit` bytes.
pub(super) async fn batch(intake: &Intake, parts: &Parts, body: Body, limit: usize) -> Result<Document, Refusal> {
    match content_type(&parts.headers)?.0 {
        Format::Json => document(intake, parts, body, limit).await,
        #[cfg(feature = "xml")]
        Format::Xml => Err(Refusal::MediaType("batches are accepted in application/json only")),
    }
}

/// Receives a body of at most `limit` bytes, in the format that its `Content-Type` names.
pub(super) async fn document(intake: &Intake, parts: &Parts, body: Body, limit: usize) -> Result<Document, Refusal> {
    let headers = &parts.headers;
    let (format, charset) = content_type(headers)?;
    let gzip = match content_coding(headers) {
        Coding::Identity => false,
        Coding::Gzip if intake.gzip => true,
        Coding::Gzip | Coding::Other => return Err(Refusal::Coding { gzip: intake.gzip }),
    };
    let mut charge = intake.charge_head(&parts.uri, headers, &parts.extensions)?;
    let received = timeout(intake.timeout, intake::receive(body, limit, &mut charge)).await;
    let bytes = received.map_err(|_| Refusal::TimedOut)?.map_err(|failure| match failure {
        intake::Failure::TooLarge(limit) => Refusal::TooLarge(limit),
        intake::Failure::NoRoom(no_room) => no_room.into(),
        intake::Failure::Broken(error) if is_timeout(&error) => Refusal::TimedOut,
        intake::Failure::Broken(_) => Refusal::unreadable(format),
    })?;
    if !gzip && bytes.starts_with(&GZIP_MAGIC) {
        return Err(Refusal::Undeclared(format));
    }
    Ok(Document { format, charset, gzip, limit, bytes, charge })
}

impl Document {
    /// Runs `work` on the text of the document, which may have at most `max_values` values. A short
    /// document is processed immediately, a longer one in its turn, see [`Offload`].
    ///
    /// Returns the charge as well, for callers that keep the decoded document.
    ///
    /// [`Offload`]: super::offload::Offload
    pub(super) async fn decode<T: Send + 'static>(
        mut self,
        intake: &Intake,
        max_values: usize,
        work: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Result<(T, Charge), Refusal> {
        let source = self.charge.source();
        if self.is_long() {
            let work = move || {
                let (text, _) = self.text(max_values)?;
                Ok((work(&text), self.charge))
            };
            return intake.offload.run_long(source, work).await?;
        }
        if self.bytes.len() > LIGHT_BYTES {
            let work = || -> Result<T, Refusal> {
                let (text, _) = self.text(max_values)?;
                Ok(work(&text))
            };
            let done = intake.offload.run_medium(source, work).await?;
            return Ok((done?, self.charge));
        }
        let (text, values) = self.text(max_values)?;
        let done = if values <= LIGHT_VALUES {
            work(&text)
        } else {
            intake.offload.run_medium(source, || work(&text)).await?
        };
        Ok((done, self.charge))
    }

    /// Returns true if the document is decoded on a blocking thread. The length of a compressed
    /// body is no measure of its work.
    pub(super) fn is_long(&self) -> bool {
        self.gzip || self.bytes.len() > offload::MEDIUM
    }

    /// Returns the decompressed text, which is valid UTF-8 unless it is XML, and an estimate of its
    /// number of values.
    fn text(&mut self, max_values: usize) -> Result<(Bytes, usize), Refusal> {
        let mut text = self.bytes.clone();
        if self.gzip {
            let decompressed = decompress(&text, self.limit, &mut self.charge).map_err(|failure| match failure {
                decompress::Failure::NotGzip => Refusal::unreadable(self.format),
                decompress::Failure::TooLarge => Refusal::TooLarge(self.limit),
                decompress::Failure::Ratio => Refusal::Ratio,
                decompress::Failure::NoRoom(no_room) => no_room.into(),
            });
            text = decompressed?.into();
        }
        if self.charset == Charset::Latin1 && !text.is_ascii() {
            // Each character beyond ASCII takes two bytes in UTF-8.
            let length = text.len() + text.iter().filter(|byte| !byte.is_ascii()).count();
            self.charge.grow_to(self.charge.bytes() + length)?;
            let mut utf8 = String::with_capacity(length);
            utf8.extend(text.iter().map(|&byte| char::from(byte)));
            text = utf8.into();
        }
        // The XML decoder checks the encoding. Each element begins with this character.
        if self.format != Format::Json {
            let values = text.iter().filter(|&&byte| byte == b'<').count();
            return Ok((text, values));
        }
        if std::str::from_utf8(&text).is_err() {
            return Err(Refusal::Unreadable);
        }
        match json_scan::count_values(&text, max_values) {
            Ok(values) => Ok((text, values)),
            Err(Excess::Depth) => Err(Refusal::Unreadable),
            Err(Excess::Values) => Err(Refusal::TooManyValues(max_values)),
        }
    }
}

/// Returns true if a body failed with [`io::ErrorKind::TimedOut`], as in a
/// [`Listener`](crate::server::Listener).
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut chain = iter::successors(Some(error), |&error| error.source());
    chain.any(|error| error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Charset {
    Utf8,
    Latin1,
}

fn content_type(headers: &HeaderMap) -> Result<(Format, Charset), Refusal> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = value.split(';').map(str::trim);
    let subtype = parts.next().and_then(|essence| essence.split_once('/')).map_or("", |(_, subtype)| subtype);
    let format = if subtype.eq_ignore_ascii_case("json") {
        Format::Json
    } else if subtype.eq_ignore_ascii_case("xml") {
        xml()?
    } else {
        return Err(Refusal::MediaType(MEDIA_TYPES));
    };
    let charset = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"').to_ascii_lowercase())
    });
    match charset.as_deref() {
        None | Some("utf-8" | "utf8") => Ok((format, Charset::Utf8)),
        Some("iso-8859-1") => Ok((format, Charset::Latin1)),
        Some(_) => Err(Refusal::MediaType("this registry accepts the charsets UTF-8 and ISO-8859-1")),
    }
}

#[cfg(feature = "xml")]
fn xml() -> Result<Format, Refusal> {
    Ok(Format::Xml)
}

#[cfg(not(feature = "xml"))]
fn xml() -> Result<Format, Refusal> {
    Err(Refusal::MediaType("this registry accepts application/json only; XML was not compiled in"))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Coding {
    Identity,
    Gzip,
    /// Unknown, or several.
    Other,
}

/// Returns the coding that all `Content-Encoding` headers together declare.
fn content_coding(headers: &HeaderMap) -> Coding {
    let mut coding = Coding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        let Ok(value) = value.to_str() else { return Coding::Other };
        for name in value.split(',').map(str::trim) {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if name.is_empty() || is("identity") {
                continue;
            }
            if coding != Coding::Identity || !(is("gzip") || is("x-gzip")) {
                return Coding::Other;
            }
            coding = Coding::Gzip;
        }
    }
    coding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_selects_format_and_charset() {
        #[cfg(feature = "xml")]
        let (xml, latin_xml) = (Some((Format::Xml, Charset::Utf8)), Some((Format::Xml, Charset::Latin1)));
        #[cfg(not(feature = "xml"))]
        let (xml, latin_xml) = (None, None);
        for (value, expected) in [
            ("application/json", Some((Format::Json, Charset::Utf8))),
            ("Application/JSON; charset=UTF-8", Some((Format::Json, Charset::Utf8))),
            ("application/json;charset=\"iso-8859-1\"", Some((Format::Json, Charset::Latin1))),
            ("application/json;charset=utf-16", None),
            ("application/xml", xml),
            ("text/xml", xml),
            ("application/xml; charset=ISO-8859-1", latin_xml),
            ("text/plain", None),
            ("json", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(content_type(&headers).ok(), expected, "{value}");
        }
        assert!(content_type(&HeaderMap::new()).is_err());
    }

    #[test]
    fn content_coding_is_gzip_only_if_applied_once() {
        use Coding::{Gzip, Identity, Other};
        for (values, expected) in [
            (&[][..], Identity),
            (&[""], Identity),
            (&["identity"], Identity),
            (&["Identity, identity", " "], Identity),
            (&["gzip"], Gzip),
            (&["X-GZip"], Gzip),
            (&["gzip, identity"], Gzip),
            (&["identity", "GZIP"], Gzip),
            (&["gzip", "gzip"], Other),
            (&["gzip,gzip"], Other),
            (&["deflate"], Other),
            (&["br"], Other),
            (&["identity", "gzip;q=1"], Other),
        ] {
            let headers = values.iter().map(|value| (CONTENT_ENCODING, value.parse().unwrap()));
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, value);
            }
            assert_eq!(content_coding(&map), expected, "{values:?}");
        }
        let odd = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_bytes(b"\xff").unwrap())]);
        assert_eq!(content_coding(&odd), Other);
    }

    #[tokio::test]
    async fn only_long_and_compressed_documents_leave_the_callers_thread() {
        let intake = Intake::new(Intake::DEFAULT_BUDGET, true);
        let here = std::thread::current().id();
        let spaces = |length: usize| " ".repeat(length).into_bytes();
        let many = vec!["{}"; LIGHT_VALUES + 1].join(",").into_bytes();
        for (body, coding, stays) in [
            (spaces(2_000), "identity", true),
            (spaces(LIGHT_BYTES + 1), "identity", true),
            (many, "identity", true),
            (spaces(offload::MEDIUM), "identity", true),
            (spaces(offload::MEDIUM + 1), "identity", false),
            (gzip(&spaces(2_000)), "gzip", false),
        ] {
            let length = body.len();
            let headers = [(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, coding)];
            let headers = HeaderMap::from_iter(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
            let document = document(&intake, &parts(&headers), body.into(), 1024 * 1024).await.unwrap();
            let (there, _) = document.decode(&intake, 10_000, |_| std::thread::current().id()).await.unwrap();
            assert_eq!(there == here, stays, "{length} bytes, {coding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn documents_with_many_values_wait_for_their_turn() {
        let intake = Intake::new(64 << 20, false);
        let _others = intake.offload.hold_medium();
        let json = vec!["{}"; LIGHT_VALUES].join(",");
        let xml = "<x/>".repeat(LIGHT_VALUES);
        for (media_type, body, waits) in [
            ("application/json", json.clone(), false),
            ("application/json", json + ",{}", true),
            ("application/json", " ".repeat(LIGHT_BYTES + 1), true),
            ("application/xml", xml.clone(), false),
            ("application/xml", xml + "<x/>", true),
        ] {
            if !cfg!(feature = "xml") && media_type.ends_with("xml") {
                continue;
            }
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
            let document = document(&intake, &parts(&headers), body.into(), 1024 * 1024).await.unwrap();
            let decoded = document.decode(&intake, 10_000, |_| ()).await;
            assert_eq!(matches!(decoded, Err(Refusal::Busy)), waits, "{media_type}");
        }
    }

    #[tokio::test]
    async fn body_whose_text_can_never_fit_returns_413() {
        const LIMIT: usize = 96 * 1024;
        let headers = [(CONTENT_TYPE, "application/json;charset=iso-8859-1")];
        let headers = HeaderMap::from_iter(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
        for (budget, status) in [
            (4 * LIMIT, None),
            (4 * LIMIT - 4, Some(StatusCode::PAYLOAD_TOO_LARGE)),
            (4 * LIMIT / 3, Some(StatusCode::PAYLOAD_TOO_LARGE)),
        ] {
            let intake = Intake::new(budget, false);
            let body = vec![0xe9; LIMIT];
            let document = batch(&intake, &parts(&headers), body.into(), LIMIT).await.unwrap();
            let decoded = document.decode(&intake, 10, <[u8]>::len).await.map(|(length, _)| length);
            assert_eq!(decoded.as_ref().err().map(|refusal| refusal.response().status()), status, "{budget}");
            assert_eq!(decoded.ok(), status.is_none().then_some(2 * LIMIT), "{budget}");
        }
        // The body may fit later, once the other one is no longer in flight.
        let intake = Intake::new(4 * LIMIT, false);
        let other = batch(&intake, &parts(&headers), vec![b' '; LIMIT].into(), LIMIT).await.unwrap();
        let document = batch(&intake, &parts(&headers), vec![0xe9; LIMIT].into(), LIMIT).await.unwrap();
        let refusal = document.decode(&intake, 10, <[u8]>::len).await.unwrap_err();
        assert_eq!(refusal.response().status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(other);
    }

    fn parts(headers: &HeaderMap) -> Parts {
        let mut request = http::Request::new(());
        *request.headers_mut() = headers.clone();
        request.into_parts().0
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    }
}
