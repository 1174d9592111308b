//! What has to be right with a request before its body is looked at, and the body itself within bounds.

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::iter;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::answer::Format;
use crate::server::registry::Origin;

/// Deeper than any document of the protocol, and far from any stack's end.
const MAX_DEPTH: usize = 64;
const TAKEN: &str = if cfg!(feature = "xml") {
    "this registry takes application/json and application/xml"
} else {
    "this registry takes application/json"
};
/// Of a body that is read only to be thrown away.
const IGNORED_BODY_LIMIT: usize = 64 * 1024;

/// Why a body was not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 415 and what would be taken.
    MediaType(&'static str),
    /// 413 and the limit in bytes.
    TooLarge(usize),
    /// 408. It did not come in time.
    TimedOut,
    /// 400. Cut off, not UTF-8, not JSON, or not the document that belongs here.
    Unreadable,
    /// The same of XML.
    #[cfg(feature = "xml")]
    UnreadableXml,
}

impl Refusal {
    /// Of a document in this format.
    pub(super) fn unreadable(format: Format) -> Self {
        match format {
            Format::Json => Self::Unreadable,
            #[cfg(feature = "xml")]
            Format::Xml => Self::UnreadableXml,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MediaType(text) => f.write_str(text),
            Self::TooLarge(limit) => write!(f, "the body is larger than {limit} bytes"),
            Self::TimedOut => f.write_str("the body took too long"),
            Self::Unreadable => f.write_str("the body is cut off, not UTF-8, not JSON, not gzip or too deep"),
            #[cfg(feature = "xml")]
            Self::UnreadableXml => f.write_str("the body is cut off or not gzip"),
        }
    }
}

impl Refusal {
    pub(super) fn response(&self) -> Response {
        match *self {
            Self::MediaType(text) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response(),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, self.to_string()).into_response(),
            Self::TimedOut => (StatusCode::REQUEST_TIMEOUT, self.to_string()).into_response(),
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

/// Who asks. Java compares the header with exactly this word.
pub(super) fn origin(headers: &HeaderMap) -> Origin {
    match headers.get("x-netflix-discovery-replication") {
        Some(value) if value == "true" => Origin::Replica,
        _ => Origin::Client,
    }
}

/// Reads a JSON body of at most `limit` bytes, before and after decompression.
pub(super) async fn json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match content_type(headers)? {
        (Format::Json, charset) => read(headers, body, limit, Format::Json, charset).await,
        #[cfg(feature = "xml")]
        (Format::Xml, _) => Err(Refusal::MediaType("batches are taken in application/json only")),
    }
}

/// Reads a body of at most `limit` bytes, before and after decompression, in the format that its `Content-Type` names.
pub(super) async fn document(headers: &HeaderMap, body: Body, limit: usize) -> Result<(Format, Bytes), Refusal> {
    let (format, charset) = content_type(headers)?;
    read(headers, body, limit, format, charset).await.map(|body| (format, body))
}

async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    format: Format,
    charset: Charset,
) -> Result<Bytes, Refusal> {
    let gzip = is_gzip(headers)?;
    let body = match Limited::new(body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(Refusal::TooLarge(limit)),
        Err(error) if is_timeout(&*error) => return Err(Refusal::TimedOut),
        Err(_) => return Err(Refusal::unreadable(format)),
    };
    let body = if gzip { gunzip(&body, limit)?.ok_or_else(|| Refusal::unreadable(format))? } else { body };
    let body = match charset {
        Charset::Utf8 => body,
        Charset::Latin1 => body.iter().map(|&byte| char::from(byte)).collect::<String>().into(),
    };
    // XML is looked at by its reader.
    if format == Format::Json && (std::str::from_utf8(&body).is_err() || depth_exceeds(&body, MAX_DEPTH)) {
        return Err(Refusal::Unreadable);
    }
    Ok(body)
}

/// Whether a body failed because it took too long, as those of [`Listener`](crate::server::Listener) do.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut chain = iter::successors(Some(error), |&error| error.source());
    chain.any(|error| error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut))
}

/// Reads a body that has no meaning, so that the connection can go on: Jersey clients send `{}` with each heartbeat.
pub(super) async fn ignore(body: Body) {
    if !body.is_end_stream() {
        // Too long or broken, the connection ends, which is all that can be done about it.
        let _ = Limited::new(body, IGNORED_BODY_LIMIT).collect().await;
    }
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
        return Err(Refusal::MediaType(TAKEN));
    };
    let charset = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"').to_ascii_lowercase())
    });
    match charset.as_deref() {
        None | Some("utf-8" | "utf8") => Ok((format, Charset::Utf8)),
        Some("iso-8859-1") => Ok((format, Charset::Latin1)),
        Some(_) => Err(Refusal::MediaType("this registry takes the charsets UTF-8 and ISO-8859-1")),
    }
}

#[cfg(feature = "xml")]
fn xml() -> Result<Format, Refusal> {
    Ok(Format::Xml)
}

#[cfg(not(feature = "xml"))]
fn xml() -> Result<Format, Refusal> {
    Err(Refusal::MediaType("this registry takes application/json only; XML was not compiled in"))
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    match headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase()).as_deref() {
        None | Some("" | "identity") => Ok(false),
        Some("gzip" | "x-gzip") => Ok(true),
        Some(_) => Err(Refusal::MediaType("this registry takes the content encodings gzip and identity")),
    }
}

/// `None` if it is no gzip.
fn gunzip(body: &[u8], limit: usize) -> Result<Option<Bytes>, Refusal> {
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(body).take((limit as u64).saturating_add(1)).read_to_end(&mut plain);
    if plain.len() > limit {
        return Err(Refusal::TooLarge(limit));
    }
    Ok(read.is_ok().then(|| plain.into()))
}

/// Whether objects and arrays nest deeper than this, in text that need not be JSON.
fn depth_exceeds(text: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > max {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
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
    fn depth_counts_outside_of_strings() {
        assert!(!depth_exceeds(br#"{"a":["[[[[","\"[[["]}"#, 2));
        assert!(depth_exceeds(b"[[[", 2));
        assert!(!depth_exceeds(b"[][][]", 1));
    }
}
