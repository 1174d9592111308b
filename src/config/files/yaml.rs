//! Reader of YAML files.
//!
//! The events of the parser become a tree, and the tree becomes entries. Scalars have the text that
//! they have in Java, where SnakeYAML reads YAML 1.1: `yes` is `true`, and `010` is `8`. Aliases
//! and merge keys (`<<`) are expanded within a limit.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::config::source::{Entry, Origin};
use crate::untrusted::Excerpt;

/// Maximum depth of mappings and lists.
const MAX_DEPTH: usize = 64;
/// Maximum number of nodes of a file, aliases expanded.
const MAX_NODES: usize = 100_000;
/// Maximum length of all names and values of a file, aliases expanded.
const MAX_BYTES: usize = 16 << 20;

/// Line and cause of an error.
type Fault = (usize, String);

#[derive(Debug)]
struct Node {
    line: usize,
    /// Levels of mappings and lists, this node included.
    depth: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar(String),
    List(Vec<Rc<Node>>),
    /// Keys with their lines, and values.
    Map(Vec<(String, usize, Rc<Node>)>),
}

/// List or mapping that is not complete.
struct Open {
    line: usize,
    anchor: usize,
    /// Levels of the deepest member.
    depth: usize,
    content: Content,
    /// Key whose value follows.
    key: Option<(String, usize)>,
}

/// Returns the entries of each document. The error is the line and the cause, without a value.
pub(super) fn documents(text: &str, path: &Arc<str>) -> Result<Vec<Vec<Entry>>, Fault> {
    let (mut documents, mut open) = (Vec::new(), Vec::<Open>::new());
    let mut anchors: HashMap<usize, Rc<Node>> = HashMap::new();
    let mut limits = Limits { nodes: MAX_NODES, bytes: MAX_BYTES };
    let mut root: Option<Rc<Node>> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| (error.marker().line(), format!("invalid YAML: {}", Excerpt(error.info()))))?;
        let line = span.start.line();
        let (node, anchor) = match event {
            Event::DocumentStart(_) => {
                anchors.clear();
                continue;
            }
            Event::DocumentEnd => {
                if let Some(root) = root.take() {
                    documents.push(entries(&root, path, &mut limits)?);
                }
                continue;
            }
            Event::SequenceStart(anchor, _) => {
                push(&mut open, line, anchor, Content::List(Vec::new()))?;
                continue;
            }
            Event::MappingStart(anchor, _) => {
                push(&mut open, line, anchor, Content::Map(Vec::new()))?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { line, anchor, depth, content, .. }) = open.pop() else { continue };
                (Rc::new(Node { line, depth: depth + 1, content }), anchor)
            }
            Event::Scalar(text, style, anchor, tag) => {
                // A scalar in quotes, or with a tag such as `!!str`, is a text.
                let is_plain = style == ScalarStyle::Plain && tag.is_none();
                let is_key = matches!(open.last(), Some(Open { content: Content::Map(_), key: None, .. }));
                let text = if is_plain && !is_key { java_text(&text) } else { text.into_owned() };
                (Rc::new(Node { line, depth: 0, content: Content::Scalar(text) }), anchor)
            }
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (node.clone(), 0),
                None => return Err((line, "an alias refers to the mapping or list that contains it".into())),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd => continue,
        };
        if anchor != 0 {
            anchors.insert(anchor, node.clone());
        }
        // Also bounds the recursion over the tree, which aliases may make deeper than the file.
        if open.len() + node.depth > MAX_DEPTH {
            return Err(too_deep(line));
        }
        if let Some(parent) = open.last_mut() {
            parent.depth = parent.depth.max(node.depth);
        }
        match open.last_mut() {
            None => root = Some(node),
            Some(Open { content: Content::List(items), .. }) => items.push(node),
            Some(Open { content: Content::Map(members), key, .. }) => match (key.take(), &node.content) {
                (Some((name, at)), _) => members.push((name, at, node)),
                (None, Content::Scalar(name)) => *key = Some((name.clone(), line)),
                (None, _) => return Err((line, "a key is a mapping or a list: expected a name".into())),
            },
            Some(Open { content: Content::Scalar(_), .. }) => {}
        }
    }
    Ok(documents)
}

fn push(open: &mut Vec<Open>, line: usize, anchor: usize, content: Content) -> Result<(), Fault> {
    if open.len() == MAX_DEPTH {
        return Err(too_deep(line));
    }
    open.push(Open { line, anchor, depth: 0, content, key: None });
    Ok(())
}

fn too_deep(line: usize) -> Fault {
    (line, format!("mappings and lists are more than {MAX_DEPTH} levels deep"))
}

/// Returns the entries of a document.
fn entries(root: &Node, path: &Arc<str>, limits: &mut Limits) -> Result<Vec<Entry>, Fault> {
    match &root.content {
        Content::Map(_) => {
            let mut into = Flattened { entries: Vec::new(), path, limits };
            into.flatten(String::new(), root, root.line)?;
            Ok(last_of_each_name(into.entries))
        }
        Content::Scalar(text) if text.is_empty() => Ok(Vec::new()),
        _ => Err((root.line, "expected settings, such as `eureka.client.enabled: true`".into())),
    }
}

/// Removes entries whose name follows again, perhaps in another spelling: the last one counts, as
/// in Spring.
fn last_of_each_name(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut seen = HashSet::new();
    entries.reverse();
    entries.retain(|entry| seen.insert(entry.uniform.clone()));
    entries.reverse();
    entries
}

/// Rest of what the aliases of a file may lead to.
struct Limits {
    nodes: usize,
    bytes: usize,
}

impl Limits {
    fn take(&mut self, nodes: usize, bytes: usize) -> Option<()> {
        self.nodes = self.nodes.checked_sub(nodes)?;
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(())
    }
}

fn too_large(line: usize) -> Fault {
    (line, format!("the file has more than {MAX_NODES} values or {} MiB once aliases are expanded", MAX_BYTES >> 20))
}

struct Flattened<'a> {
    entries: Vec<Entry>,
    path: &'a Arc<str>,
    limits: &'a mut Limits,
}

impl Flattened<'_> {
    /// Appends the scalars below a node, which stands on this line. Its depth was limited when it
    /// was read.
    fn flatten(&mut self, name: String, node: &Node, line: usize) -> Result<(), Fault> {
        let length = name.len() + if let Content::Scalar(text) = &node.content { text.len() } else { 0 };
        self.limits.take(1, length).ok_or_else(|| too_large(node.line))?;
        match &node.content {
            Content::Scalar(text) => {
                self.push(name, text, line);
                Ok(())
            }
            // An empty list is a value, which replaces the lists of other sources.
            Content::List(items) if items.is_empty() => {
                self.push(name, "", line);
                Ok(())
            }
            Content::List(items) => {
                let mut items = items.iter().enumerate();
                items.try_for_each(|(index, item)| self.flatten(format!("{name}[{index}]"), item, item.line))
            }
            Content::Map(_) => {
                let mut names = HashSet::new();
                self.members(&name, node, &mut names)
            }
        }
    }

    fn push(&mut self, name: String, text: &str, line: usize) {
        self.entries.push(Entry::new(name, text, Origin::File { path: self.path.clone(), line }));
    }

    /// Appends the members of a mapping that are not among `names`, then those of its merge keys.
    fn members<'n>(&mut self, name: &str, node: &'n Node, names: &mut HashSet<&'n str>) -> Result<(), Fault> {
        let Content::Map(members) = &node.content else {
            return Err((node.line, "a merge key (<<) needs a mapping or a list of mappings".into()));
        };
        self.limits.take(members.len(), 0).ok_or_else(|| too_large(node.line))?;
        let start = self.entries.len();
        let mut own = HashSet::new();
        for (key, line, value) in members.iter().filter(|(key, ..)| key != "<<") {
            if !own.insert(&**key) {
                return Err((*line, format!("duplicate key {}", crate::untrusted::Quoted(key))));
            }
            if names.contains(&**key) {
                continue;
            }
            let name = match name {
                "" => key.clone(),
                name if key.starts_with('[') => format!("{name}{key}"),
                name => format!("{name}.{key}"),
            };
            self.flatten(name, value, *line)?;
        }
        names.extend(own);
        let merged = self.entries.len();
        for (.., value) in members.iter().filter(|(key, ..)| key == "<<") {
            match &value.content {
                Content::List(items) => items.iter().try_for_each(|item| self.members(name, item, names))?,
                _ => self.members(name, value, names)?,
            }
        }
        // Own members take precedence, in another spelling as well.
        self.entries[start..].rotate_left(merged - start);
        Ok(())
    }
}

/// Returns the text that a plain scalar has once SnakeYAML and Java converted it to a value and
/// back.
fn java_text(text: &str) -> String {
    match text {
        "~" | "null" | "Null" | "NULL" => return String::new(),
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return "true".into(),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return "false".into(),
        _ => {}
    }
    integer(text).or_else(|| float(text)).unwrap_or_else(|| text.to_owned())
}

/// Converts an integer of YAML 1.1: decimal, octal, hexadecimal, binary, or in base 60.
fn integer(text: &str) -> Option<String> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('_') {
        return None;
    }
    let plain = digits.replace('_', "");
    let number = if plain == "0" {
        0
    } else if let Some(hexadecimal) = plain.strip_prefix("0x") {
        i64::from_str_radix(hexadecimal, 16).ok()?
    } else if let Some(binary) = plain.strip_prefix("0b") {
        i64::from_str_radix(binary, 2).ok()?
    } else if let Some(octal) = plain.strip_prefix('0') {
        i64::from_str_radix(octal, 8).ok()?
    } else if plain.contains(':') {
        plain.split(':').enumerate().try_fold(0_i64, |sum, (index, part)| {
            let is_part = !part.is_empty() && part.len() <= if index == 0 { 18 } else { 2 };
            let part = part.parse::<i64>().ok().filter(|part| is_part && (index == 0 || *part < 60))?;
            sum.checked_mul(60)?.checked_add(part)
        })?
    } else {
        // A number of any length stays as it is.
        return plain.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("{sign}{plain}"));
    };
    Some(if number == 0 { "0".into() } else { format!("{sign}{number}") })
}

/// Converts a floating-point number with a point, in the range that Java writes without exponent.
fn float(text: &str) -> Option<String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.')?;
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    if whole.is_empty() && fraction.is_empty() || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let number: f64 = text.replace('_', "").parse().ok()?;
    let is_short = number == 0.0 || (1e-3..1e7).contains(&number.abs());
    is_short.then(|| format!("{number:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, text and line of an entry.
    type Flat = (String, String, usize);

    fn read(text: &str) -> Result<Vec<Vec<Flat>>, Fault> {
        let flat = |entry: Entry| match entry.origin {
            Origin::File { line, .. } => (entry.name, entry.text, line),
            other => panic!("{other:?}"),
        };
        let documents = documents(text, &"a.yml".into())?;
        Ok(documents.into_iter().map(|entries| entries.into_iter().map(flat).collect()).collect())
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        read(text).unwrap().into_iter().flatten().map(|(name, text, _)| (name, text)).collect()
    }

    fn strings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn documents_become_entries_with_their_lines() {
        let text = "eureka:\n  client: {enabled: true, service-url: {defaultZone: 'http://a/'}}\n  list:\n  - a\n  - b: c\n\
                    ---\nspring.application.name: orders\nempty:\nmap: {}\n\"[a.b]\": |\n  x\n  y\n---\n";
        let expected: [&[(&str, &str, usize)]; 2] = [
            &[
                ("eureka.client.enabled", "true", 2),
                ("eureka.client.service-url.defaultZone", "http://a/", 2),
                ("eureka.list[0]", "a", 4),
                ("eureka.list[1].b", "c", 5),
            ],
            &[("spring.application.name", "orders", 7), ("empty", "", 8), ("[a.b]", "x\ny\n", 10)],
        ];
        let read = read(text).unwrap();
        assert_eq!(read.iter().filter(|entries| !entries.is_empty()).count(), 2);
        for (entries, expected) in read.iter().zip(expected) {
            let entries: Vec<_> = entries.iter().map(|(name, text, line)| (&**name, &**text, *line)).collect();
            assert_eq!(entries, expected);
        }
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("# only a comment\n"), []);
    }

    #[test]
    fn scalars_have_the_text_of_java() {
        for (scalar, text) in [
            ("yes", "true"),
            ("Off", "false"),
            ("'yes'", "yes"),
            ("!!str yes", "yes"),
            ("~", ""),
            ("null", ""),
            ("010", "8"),
            ("0x1F", "31"),
            ("-0b101", "-5"),
            ("1_000", "1000"),
            ("12:30", "750"),
            ("1.10", "1.1"),
            ("1.0", "1.0"),
            ("-.5", "-0.5"),
            ("1.2.3", "1.2.3"),
            ("08", "08"),
            ("10.0.0.1", "10.0.0.1"),
            ("30s", "30s"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("1:99", "1:99"),
            ("-", "-"),
            ("y", "y"),
        ] {
            if scalar != "-" {
                assert_eq!(pairs(&format!("a: {scalar}")), strings(&[("a", text)]), "{scalar}");
            }
        }
    }

    #[test]
    fn last_spelling_of_a_name_counts() {
        let text = "a:\n  fetch-interval: 1\na.fetchInterval: 2\n";
        assert_eq!(pairs(text), strings(&[("a.fetchInterval", "2")]));
        // Own members take precedence over those of a merge key.
        let text = "x: &x {fetch-interval: 1}\ny:\n  fetchInterval: 2\n  <<: *x\n";
        assert_eq!(pairs(text), strings(&[("x.fetch-interval", "1"), ("y.fetchInterval", "2")]));
    }

    #[test]
    fn aliases_and_merge_keys_are_expanded() {
        let text = "base: &b {a: 1, b: 2}\nother: &o {c: 3}\none:\n  <<: [*b, *o]\n  b: 4\ntwo: *b\n";
        let expected = [
            ("base.a", "1"),
            ("base.b", "2"),
            ("other.c", "3"),
            ("one.a", "1"),
            ("one.c", "3"),
            ("one.b", "4"),
            ("two.a", "1"),
            ("two.b", "2"),
        ];
        assert_eq!(pairs(text), strings(&expected));
    }

    #[test]
    fn malformed_document_is_an_error_with_its_line() {
        for (text, line, part) in [
            ("a: 1\nb: [1, 2\nc: 3\n", 3, "invalid YAML"),
            ("a: 1\na: 2\n", 2, "duplicate key a"),
            ("- a\n", 1, "expected settings"),
            ("just text\n", 1, "expected settings"),
            ("a: 1\n? [x]\n: 2\n", 2, "a key is a mapping or a list"),
            ("a: &a\n  b: *a\n", 2, "contains it"),
            ("a: &a [1, *a]\n", 1, "contains it"),
            ("a: *nothing\n", 1, "invalid YAML"),
            ("a:\n  <<: 1\n", 2, "merge key"),
        ] {
            let (at, cause) = read(text).unwrap_err();
            assert!(cause.contains(part), "{text}: {cause}");
            // The parser may notice the fault on the line after it.
            assert!(at == line || at == line + 1 || at + 1 == line, "{text}: line {at}");
        }
    }

    #[test]
    fn file_that_grows_by_aliases_or_depth_is_an_error() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..20 {
            let before = format!("*a{}", n - 1);
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", [&*before; 10].join(",")));
        }
        assert!(read(&bomb).unwrap_err().1.contains("once aliases are expanded"));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 100].join(","));
        assert!(read(&long).unwrap_err().1.contains("once aliases are expanded"));
        let merged = format!("a: &a {{{}}}\n", (0..100).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(","));
        let merged = format!("{merged}b:\n  <<: [{}]\n", ["*a"; 5000].join(","));
        assert!(read(&merged).unwrap_err().1.contains("once aliases are expanded"));
        let chain =
            (1..1000).fold("a0: &a0 [x]\n".to_owned(), |text, n| text + &format!("a{n}: &a{n} [*a{}]\n", n - 1));
        assert!(read(&chain).unwrap_err().1.contains("levels deep"));
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        assert!(read(&deep).unwrap_err().1.contains("levels deep"));
    }
}
