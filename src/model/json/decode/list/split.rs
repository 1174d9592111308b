//! Separates the instances of a list from the rest of the document, piece by piece.

use memchr::memchr2;

/// Maximum length of the guide in bytes.
const MAX_GUIDE: usize = 64 * 1024;

/// Splits a document into its instances and a skeleton, in which the instances are replaced by
/// placeholders.
///
/// An instance is an object that is the value of a member `instance`, or an element of a list that
/// is the value of such a member. The skeleton is the document without instances and without white
/// space: `{"applications":{"application":[{"name":"A","instance":[{"":[0,2]}]}]}}`. A placeholder
/// has the number of its first instance and how many follow each other. The skeleton is decoded
/// like any other document, so the splitter needs to know nothing about it.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    skeleton: Vec<u8>,
    /// Start of the present string in the skeleton, behind its quote.
    string: Option<usize>,
    is_escaped: bool,
    last: Last,
    /// Number of open brackets in the skeleton.
    depth: usize,
    /// Depth inside of the open list of instances.
    list_depth: Option<usize>,
    /// Number of instances.
    count: usize,
    /// Number of latest instances whose placeholder is not in the skeleton yet.
    run: usize,
    /// `true` if a comma follows them.
    comma: bool,
    scan: Option<Scan>,
    /// Bytes of an instance that began in an earlier piece.
    begun: Vec<u8>,
    marks: Vec<Mark>,
    guide: Guide,
}

/// Last token of the skeleton, as far as an instance may follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Other,
    /// The string `instance`.
    Name,
    /// The colon behind that string.
    Colon,
}

/// One step of the splitter.
pub(super) enum Step<'a> {
    /// An instance: its bytes, and the marks of its members.
    Instance(&'a [u8], Members<'a>),
    /// The piece has ended.
    End,
}

impl Splitter {
    /// Returns the next instance of a piece, and removes the bytes in front of it and its own from
    /// the piece.
    pub(super) fn next<'a, 'p: 'a>(&'a mut self, piece: &mut &'p [u8]) -> Step<'a> {
        if piece.is_empty() {
            return Step::End;
        }
        if self.scan.is_none() {
            if !self.skip_to_instance(piece) {
                return Step::End;
            }
            if let Some(end) = self.guide.find_end(piece, &mut self.marks) {
                let (bytes, rest) = piece.split_at(end);
                *piece = rest;
                self.add_to_run();
                self.guide.set(bytes, &self.marks);
                return Step::Instance(bytes, Members { marks: &self.marks, has_same_names: true });
            }
            self.marks.clear();
        }
        let scan = self.scan.get_or_insert_default();
        let Some(end) = scan.find_end(piece, &mut self.marks) else {
            self.begun.extend_from_slice(piece);
            *piece = &[];
            return Step::End;
        };
        let (bytes, rest) = piece.split_at(end);
        *piece = rest;
        let is_regular = scan.is_regular;
        self.scan = None;
        self.add_to_run();
        let bytes = if self.begun.is_empty() {
            bytes
        } else {
            self.begun.extend_from_slice(bytes);
            &self.begun
        };
        if is_regular {
            self.guide.compare(bytes, &mut self.marks);
        } else {
            self.marks.clear();
        }
        self.guide.set(bytes, &self.marks);
        Step::Instance(bytes, Members { marks: &self.marks, has_same_names: false })
    }

    /// Returns the bytes that the splitter holds.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.skeleton.len(), self.begun.len())
    }

    /// Returns the skeleton. It is cut off if the document was.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_run();
        self.skeleton
    }

    fn add_to_run(&mut self) {
        self.count += 1;
        self.run += 1;
        self.comma = false;
        self.last = Last::Other;
    }

    /// Writes the placeholder of the latest instances.
    fn end_run(&mut self) {
        if self.run == 0 {
            return;
        }
        let placeholder = format!("{{\"\":[{},{}]}}", self.count - self.run, self.run);
        self.skeleton.extend_from_slice(placeholder.as_bytes());
        if self.comma {
            self.skeleton.push(b',');
        }
        (self.run, self.comma) = (0, false);
    }

    /// Copies the piece to the skeleton up to the next instance. Returns `false` if there is none
    /// in the piece.
    fn skip_to_instance(&mut self, piece: &mut &[u8]) -> bool {
        self.begun.clear();
        for (at, &byte) in piece.iter().enumerate() {
            if self.begins_instance(byte) {
                *piece = &piece[at..];
                self.marks.clear();
                return true;
            }
        }
        *piece = &[];
        false
    }

    /// Copies a byte to the skeleton, unless an instance begins with it.
    fn begins_instance(&mut self, byte: u8) -> bool {
        if let Some(start) = self.string {
            self.skeleton.push(byte);
            if self.is_escaped {
                self.is_escaped = false;
            } else if byte == b'\\' {
                self.is_escaped = true;
            } else if byte == b'"' {
                let text = &self.skeleton[start..self.skeleton.len() - 1];
                self.last = if text == b"instance" { Last::Name } else { Last::Other };
                self.string = None;
            }
            return false;
        }
        if byte.is_ascii_whitespace() {
            // One space is enough to keep two numbers apart.
            if self.run == 0 && self.skeleton.last().is_some_and(|last| *last != b' ') {
                self.skeleton.push(b' ');
            }
            return false;
        }
        let last = std::mem::take(&mut self.last);
        let begins = byte == b'{' && (last == Last::Colon || self.list_depth == Some(self.depth));
        if self.run > 0 {
            if byte == b',' && !self.comma {
                self.comma = true;
                return false;
            }
            if !begins || !self.comma {
                self.end_run();
            }
        }
        match byte {
            b'"' => self.string = Some(self.skeleton.len() + 1),
            b':' if last == Last::Name => self.last = Last::Colon,
            b'{' if begins => return true,
            b'[' | b'{' => {
                self.depth += 1;
                if last == Last::Colon && self.list_depth.is_none() {
                    self.list_depth = Some(self.depth);
                }
            }
            b']' | b'}' => {
                if self.list_depth == Some(self.depth) {
                    self.list_depth = None;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
        self.skeleton.push(byte);
        false
    }
}

/// Search for the end of an instance.
#[derive(Debug)]
struct Scan {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// Number of bytes in earlier pieces.
    before: usize,
    /// `false` if the marks do not describe a sequence of members.
    is_regular: bool,
}

impl Default for Scan {
    fn default() -> Self {
        Self { depth: 0, in_string: false, is_escaped: false, before: 0, is_regular: true }
    }
}

impl Scan {
    /// Returns the end of the instance in this piece. Adds the positions of the colon and of the
    /// end of each member to the marks.
    fn find_end(&mut self, piece: &[u8], marks: &mut Vec<Mark>) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.in_string {
                if self.is_escaped {
                    // The escaped byte.
                    at += 1;
                    self.is_escaped = false;
                }
                let rest = piece.get(at..).unwrap_or_default();
                let Some(found) = memchr2(b'"', b'\\', rest) else { break };
                at += found + 1;
                if rest[found] == b'"' {
                    self.in_string = false;
                } else if at == piece.len() {
                    self.is_escaped = true;
                    break;
                } else {
                    at += 1;
                }
                continue;
            }
            let Some(&byte) = piece.get(at) else { break };
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.is_regular &= byte == b'}';
                        self.mark(at, true, marks);
                        return Some(at + 1);
                    }
                }
                b':' if self.depth == 1 => self.mark(at, false, marks),
                b',' if self.depth == 1 => self.mark(at, true, marks),
                _ => {}
            }
            at += 1;
        }
        self.before += piece.len();
        None
    }

    /// Adds a position to the marks. Colons and ends alternate.
    fn mark(&mut self, at: usize, is_end: bool, marks: &mut Vec<Mark>) {
        let is_open = marks.last().is_some_and(|mark| mark.end == 0);
        let Ok(position) = u32::try_from(self.before + at) else {
            self.is_regular = false;
            return;
        };
        match marks.last_mut() {
            Some(mark) if is_open && is_end => mark.end = position,
            _ if !is_open && !is_end => marks.push(Mark { colon: position, end: 0, is_same: false }),
            _ => self.is_regular = false,
        }
    }
}

/// Positions of a member of an instance.
#[derive(Clone, Copy, Debug)]
struct Mark {
    colon: u32,
    /// Position behind the member. 0 until it is found.
    end: u32,
    /// `true` if the instance before has the same member at this place. It may be `false` in any
    /// case.
    is_same: bool,
}

/// The latest instance, which the next one probably resembles: the same members, in part with the
/// same values.
///
/// One encoder writes all instances of a list, so they differ in some values only. The others are
/// found by a comparison, without a look at each byte.
#[derive(Debug, Default)]
struct Guide {
    bytes: Vec<u8>,
    /// Empty if the instance does not serve as a guide.
    marks: Vec<Mark>,
}

impl Guide {
    fn set(&mut self, bytes: &[u8], marks: &[Mark]) {
        self.bytes.clear();
        self.marks.clear();
        if bytes.len() <= MAX_GUIDE {
            self.bytes.extend_from_slice(bytes);
            self.marks.extend_from_slice(marks);
        }
    }

    /// Marks the members of an instance that are the same.
    fn compare(&self, bytes: &[u8], marks: &mut [Mark]) {
        if self.marks.len() != marks.len() {
            return;
        }
        let own = Members { marks: &self.marks, has_same_names: true }.of(&self.bytes).map(|member| member.bytes);
        let mut start = 1;
        for (own, mark) in own.zip(marks) {
            let end = mark.end as usize;
            mark.is_same = *own == bytes[start..end];
            start = end + 1;
        }
    }

    /// Returns the end of the instance in this piece and adds its marks, as [`Scan::find_end`]
    /// does. `None` if the instance has other members, has white space between them, or does not
    /// end in the piece.
    fn find_end(&self, piece: &[u8], marks: &mut Vec<Mark>) -> Option<usize> {
        if self.marks.is_empty() || u32::try_from(piece.len()).is_err() {
            return None;
        }
        let (mut at, mut own) = (1, 1);
        for mark in &self.marks {
            let (colon, end) = (mark.colon as usize, mark.end as usize);
            let member = &self.bytes[own..=end];
            let rest = piece.get(at..)?;
            let is_same = rest.starts_with(member);
            let colon = at + colon - own;
            if is_same {
                at += member.len();
            } else {
                if !rest.starts_with(&member[..=colon - at]) {
                    return None;
                }
                at = value_end(piece, colon + 1)?;
                // The comma behind the member, or the end of the instance.
                if piece.get(at) != member.last() {
                    return None;
                }
                at += 1;
            }
            marks.push(Mark { colon: colon as u32, end: (at - 1) as u32, is_same });
            own = end + 1;
        }
        Some(at)
    }
}

/// Returns the end of the value that begins here. `None` if the text ends before.
fn value_end(text: &[u8], start: usize) -> Option<usize> {
    match text.get(start)? {
        b'"' => string_end(text, start + 1),
        b'{' | b'[' => nested_end(text, start),
        _ => {
            let is_other = |byte: &u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'-' | b'.');
            Some(start + text[start..].iter().position(is_other)?)
        }
    }
}

/// Returns the position behind the quote that ends a string of which this is the first byte.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = text.get(at..)?;
        let found = memchr2(b'"', b'\\', rest)?;
        if rest[found] == b'"' {
            return Some(at + found + 1);
        }
        at += found + 2;
    }
}

/// Returns the end of an object or a list.
fn nested_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        let byte = *text.get(at)?;
        at += 1;
        match byte {
            b'"' => at = string_end(text, at)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
}

/// Positions of the members of an instance. There are none if the instance is empty, or if its
/// members cannot be separated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    marks: &'a [Mark],
    /// `true` if the instance before has members with the same names in the same order. It may be
    /// `false` in any case.
    pub(super) has_same_names: bool,
}

impl<'a> Members<'a> {
    pub(super) fn len(self) -> usize {
        self.marks.len()
    }

    /// Returns for each member whether the instance before has the same one at this place.
    pub(super) fn are_same(self) -> impl Iterator<Item = bool> + 'a {
        self.marks.iter().map(|mark| mark.is_same)
    }

    /// Returns the members of these bytes.
    pub(super) fn of(self, bytes: &'a [u8]) -> impl Iterator<Item = Member<'a>> {
        let mut start = 1;
        self.marks.iter().map(move |mark| {
            let (colon, end) = (mark.colon as usize, mark.end as usize);
            let member = Member { bytes: &bytes[start..end], colon: colon - start, is_same: mark.is_same };
            start = end + 1;
            member
        })
    }
}

/// Member of an object: `"name":value`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) bytes: &'a [u8],
    colon: usize,
    /// `true` if the instance before has the same member at this place.
    pub(super) is_same: bool,
}

impl<'a> Member<'a> {
    /// Returns the name with its quotes.
    pub(super) fn name(self) -> &'a [u8] {
        &self.bytes[..self.colon]
    }

    pub(super) fn value(self) -> &'a [u8] {
        &self.bytes[self.colon + 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the instances and the skeleton of a document that arrives in pieces of this size.
    fn split(document: &str, size: usize) -> (Vec<String>, String) {
        let (mut splitter, mut instances) = (Splitter::default(), Vec::new());
        for mut piece in document.as_bytes().chunks(size) {
            while let Step::Instance(bytes, members) = splitter.next(&mut piece) {
                let members: Vec<_> = members.of(bytes).map(|member| member.bytes.len()).collect();
                instances.push(format!("{} {members:?}", String::from_utf8_lossy(bytes)));
            }
        }
        (instances, String::from_utf8(splitter.finish()).unwrap())
    }

    #[test]
    fn pieces_of_any_size_yield_the_same_instances_and_skeleton() {
        let document = concat!(
            r#"{ "applications" : {"x":"instance","application":[ {"name":"\"A\\","instance" : ["#,
            r#"{"a":"}\"]","b":{"c":[1,2]}}, {} ,7,[{"deep":1}],{"a":"\\"}]},"#,
            r#"{"instance":{"q" :1 },"name":"B"},{"instance":5,"y":{"z":1}}]}}"#,
        );
        let whole = split(document, document.len());
        let expected = [r#"{"a":"}\"]","b":{"c":[1,2]}} [10, 15]"#, "{} []", r#"{"a":"\\"} [8]"#, r#"{"q" :1 } [7]"#];
        assert_eq!(whole.0, expected);
        let skeleton = concat!(
            r#"{ "applications" : {"x":"instance","application":[ {"name":"\"A\\","instance" : ["#,
            r#"{"":[0,2]},7,[{"deep":1}],{"":[2,1]}]},{"instance":{"":[3,1]},"name":"B"},{"instance":5,"y":{"z":1}}]}}"#,
        );
        assert_eq!(whole.1, skeleton);
        for size in 1..40 {
            assert_eq!(split(document, size), whole, "{size}");
        }
    }

    #[test]
    fn instances_that_resemble_the_one_before_are_separated_in_the_same_way() {
        let values = [
            "1",
            "-1.5e3",
            "",
            "\"\"",
            "\"a\\\"}\"",
            "{\"x\":[\"]\",{}]}",
            "[]",
            "null",
            " 1",
            "1 ",
            "\"a\"b",
            "{]",
            "x:y",
        ];
        for (first, second) in values.iter().flat_map(|first| values.iter().map(move |second| (first, second))) {
            let instance = |value: &str| format!(r#"{{"a":"same","b":{value},"c":{value}}}"#);
            let instances = [first, second, first].map(|value| instance(value)).join(",");
            let document = format!(r#"{{"instance":[{instances}]}}"#);
            assert_eq!(split(&document, document.len()), split(&document, 1), "{document}");
        }
    }

    #[test]
    fn missing_and_superfluous_commas_between_instances_stay_in_the_skeleton() {
        for separator in ["", ",,", ", ,", " ,7,", "7,"] {
            let (instances, skeleton) = split(&format!(r#"{{"instance":[{{}}{separator}{{}}]}}"#), 100);
            assert_eq!(instances.len(), 2);
            let separator = separator.replace(' ', "");
            assert_eq!(skeleton, format!(r#"{{"instance":[{{"":[0,1]}}{separator}{{"":[1,1]}}]}}"#));
        }
    }

    #[test]
    fn members_that_cannot_be_separated_are_none() {
        for instance in ["{1:2}}", "{\"a\" 1}", "{\"a\":1,}", "{\"a\":1]", "{\"a\":1:2}", "{,}"] {
            let (instances, _) = split(&format!("{{\"instance\":{instance}"), 100);
            let marks: Vec<_> = instances.iter().map(|text| text.rsplit(' ').next().unwrap().to_owned()).collect();
            // A name without quotes is found when it is compared with another one.
            assert!(instance.starts_with("{1") || marks == ["[]"], "{instance}: {marks:?}");
        }
    }

    #[test]
    fn white_space_and_cut_off_instances_take_no_space_in_the_skeleton() {
        let spaces = " \n".repeat(10_000);
        let (instances, skeleton) = split(&format!("{spaces}{{{spaces}\"instance\":{spaces}{{\"a\":1"), 1000);
        assert!(instances.is_empty());
        assert_eq!(skeleton.trim_start(), "{ \"instance\": ");
    }
}
