//! Reader of the elements of an untrusted document.

use std::borrow::Cow;
use std::fmt;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::untrusted::Excerpt;

/// Maximum depth of a document. Those of the protocol have six levels at most.
const MAX_DEPTH: usize = 64;

/// Error of a document.
#[derive(Debug)]
pub(in crate::model) enum XmlError {
    NotXml(Box<quick_xml::Error>),
    NotUtf8,
    CutOff,
    /// Content after the root element.
    Trailing,
    TooDeep,
    DocType,
    Entity,
    Root(Box<str>),
    NoNumber(&'static str),
    /// More elements than the limit.
    TooLong(usize),
    /// More metadata entries than the limit.
    TooManyEntries(usize),
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotXml(_) => f.write_str("is not well-formed"),
            Self::NotUtf8 => f.write_str("is not UTF-8"),
            Self::CutOff => f.write_str("is cut off"),
            Self::Trailing => f.write_str("has content after its root element"),
            Self::TooDeep => write!(f, "nests deeper than {MAX_DEPTH} elements"),
            Self::DocType => f.write_str("has a document type, which is refused"),
            Self::Entity => f.write_str("refers to an entity or character that does not exist"),
            Self::Root(name) => write!(f, "has the root element '{}'", Excerpt(name)),
            Self::NoNumber(name) => write!(f, "has no whole number in '{name}'"),
            Self::TooLong(max) => write!(f, "has more than {max} elements"),
            Self::TooManyEntries(max) => write!(f, "has more than {max} metadata entries"),
        }
    }
}

impl XmlError {
    #[cfg(feature = "server")]
    pub(in crate::model) fn exceeds_limits(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::TooManyEntries(_))
    }

    pub(in crate::model) fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotXml(error) => Some(error),
            _ => None,
        }
    }
}

impl From<quick_xml::Error> for XmlError {
    fn from(error: quick_xml::Error) -> Self {
        Self::NotXml(Box::new(error))
    }
}

/// Reads a document element by element. Each element that [`open`](Self::open) or
/// [`root`](Self::root) returned must be read to its end with `open`, [`text`](Self::text) or
/// [`skip`](Self::skip) before the next one.
pub(super) struct Source<'a> {
    reader: Reader<&'a [u8]>,
    depth: usize,
    elements: usize,
    limits: Limits,
    /// Reason of the first repair since the last [`take_repair`](Self::take_repair).
    repair: Option<XmlError>,
}

/// Maximum numbers of elements and metadata entries of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) elements: usize,
    pub(super) metadata: usize,
    /// `true` if invalid text and numbers are replaced. Otherwise they are errors.
    pub(super) repairs: bool,
}

impl Limits {
    pub(super) const NONE: Self = Self { elements: usize::MAX, metadata: usize::MAX, repairs: false };
    /// No limits. One invalid value does not spoil a list.
    pub(super) const LIST: Self = Self { repairs: true, ..Self::NONE };
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, limits: Limits) -> Self {
        let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
        reader.config_mut().expand_empty_elements = true;
        Self { reader, depth: 0, elements: 0, limits, repair: None }
    }

    /// Returns the value in place of an invalid one, or the error if nothing is repaired.
    pub(super) fn repaired<T>(&mut self, value: T, error: XmlError) -> Result<T, XmlError> {
        if !self.limits.repairs {
            return Err(error);
        }
        self.repair.get_or_insert(error);
        Ok(value)
    }

    /// Returns the reason of the first repair since the last call.
    pub(super) fn take_repair(&mut self) -> Option<XmlError> {
        self.repair.take()
    }

    /// Returns the maximum number of metadata entries.
    pub(super) fn max_metadata(&self) -> usize {
        self.limits.metadata
    }

    /// Reads the start of the root element.
    pub(super) fn root(&mut self) -> Result<BytesStart<'a>, XmlError> {
        match self.step()? {
            Step::Start(start) => Ok(start),
            Step::Text(_) => Err(XmlError::Trailing),
            Step::End => Err(XmlError::CutOff),
        }
    }

    /// Reads the start of the next child of the current element. Returns `None` at the end of that.
    /// Text between elements is skipped.
    pub(super) fn open(&mut self) -> Result<Option<BytesStart<'a>>, XmlError> {
        loop {
            match self.step()? {
                Step::Start(start) => return Ok(Some(start)),
                Step::End => return Ok(None),
                Step::Text(_) => {}
            }
        }
    }

    /// Reads the text of the current element, to its end. Empty if the element has children.
    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, XmlError> {
        let mut text = Cow::Borrowed("");
        let mut nested = false;
        loop {
            match self.step()? {
                Step::Start(_) => {
                    nested = true;
                    self.skip()?;
                }
                Step::Text(more) if text.is_empty() => text = more,
                Step::Text(more) => text.to_mut().push_str(&more),
                Step::End => return Ok(if nested { Cow::Borrowed("") } else { text }),
            }
        }
    }

    /// Skips the rest of the current element.
    pub(super) fn skip(&mut self) -> Result<(), XmlError> {
        let depth = self.depth;
        while self.depth >= depth {
            self.step()?;
        }
        Ok(())
    }

    /// Checks that nothing follows the root element.
    pub(super) fn end(mut self) -> Result<(), XmlError> {
        loop {
            match self.reader.read_event()? {
                Event::Eof => return Ok(()),
                Event::Comment(_) | Event::PI(_) => {}
                Event::Text(text) if text.trim().is_empty() => {}
                _ => return Err(XmlError::Trailing),
            }
        }
    }

    fn step(&mut self) -> Result<Step<'a>, XmlError> {
        loop {
            return Ok(match self.reader.read_event()? {
                Event::Start(start) | Event::Empty(start) => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(XmlError::TooDeep);
                    }
                    self.elements += 1;
                    if self.elements > self.limits.elements {
                        return Err(XmlError::TooLong(self.limits.elements));
                    }
                    Step::Start(start)
                }
                Event::End(_) => {
                    self.depth -= 1;
                    Step::End
                }
                Event::Text(text) if self.depth == 0 && text.trim().is_empty() => continue,
                Event::Text(text) => Step::Text(text.xml10_content()),
                Event::CData(text) => Step::Text(text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let character = match &*reference {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => match reference.resolve_char_ref() {
                            Ok(Some(character)) => character,
                            _ => self.repaired(char::REPLACEMENT_CHARACTER, XmlError::Entity)?,
                        },
                    };
                    Step::Text(Cow::Owned(character.into()))
                }
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => continue,
                Event::DocType(_) => return Err(XmlError::DocType),
                Event::Eof => return Err(XmlError::CutOff),
            });
        }
    }
}

enum Step<'a> {
    Start(BytesStart<'a>),
    Text(Cow<'a, str>),
    End,
}
