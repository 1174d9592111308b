//! Comments and documentation keep to the language that CONTRIBUTING.md describes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Words that no first sentence of a documented item begins with: it is a verb or a noun phrase.
const QUESTIONS: &[&str] = &[
    "What",
    "Whether",
    "Why",
    "Where",
    "Wherever",
    "Who",
    "Whoever",
    "Whose",
    "Whom",
    "How",
    "Which",
    "Such",
    "So long",
    "As what",
    "At what",
    "By what",
    "From how",
    "From what",
    "In what",
    "Of what",
    "On what",
    "To what",
    "To who",
    "With what",
];

/// Words and phrases with another term of the field: response, eject, restore, pool, deadline and
/// so on.
const PRIVATE_WORDS: &[&str] = &[
    "answer",
    "answers",
    "answered",
    "answering",
    "are told",
    "be told",
    "clockwork",
    "farewell",
    "haste",
    "hurried",
    "is back",
    "is told",
    "keep apart",
    "keeps apart",
    "lately",
    "let in",
    "lived down",
    "look once",
    "looks once",
    "roster",
    "take a turn",
    "taken out",
    "takes a turn",
    "told",
    "was told",
];

const COLUMNS: usize = 100;

/// A line of a comment.
struct Comment<'a> {
    /// `///`, `//!` or `//`.
    marker: &'a str,
    text: &'a str,
    /// The whole line.
    line: &'a str,
    /// The line before is no comment of this kind.
    is_first: bool,
    /// Part of a code block or of a drawing.
    is_code: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Calls the function with each file of this extension below the folder.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is part of the repository") {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !matches!(&*name, "target" | "corpus" | "fixtures" | "node_modules") {
                files(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

fn comments(source: &str) -> impl Iterator<Item = (usize, Comment<'_>)> {
    let (mut previous, mut is_code) = ("", false);
    source.lines().enumerate().filter_map(move |(number, line)| {
        let trimmed = line.trim_start();
        let marker = ["///", "//!", "//"].into_iter().find(|marker| trimmed.starts_with(marker)).unwrap_or("");
        let is_first = marker != previous;
        previous = marker;
        let text = trimmed.strip_prefix(marker).unwrap_or_default().trim();
        is_code = !marker.is_empty() && is_code != text.starts_with("```");
        (!marker.is_empty()).then_some((number + 1, Comment { marker, text, line, is_first, is_code }))
    })
}

/// Calls the check with each comment of the sources in these folders, and panics with all that it
/// finds.
fn check(folders: &[&str], check: impl Fn(&Comment<'_>) -> Option<String>) {
    let mut sources = Vec::new();
    for folder in folders {
        files(&root().join(folder), "rs", &mut sources);
    }
    assert!(!sources.is_empty());
    let mut found = String::new();
    for path in sources {
        let source = fs::read_to_string(&path).expect("sources are UTF-8");
        let path = path.strip_prefix(root()).expect("it was found there").display();
        for (number, comment) in comments(&source) {
            if let Some(fault) = check(&comment) {
                writeln!(found, "{path}:{number}: {fault}").expect("write to String is infallible");
            }
        }
    }
    assert!(found.is_empty(), "see the rules in CONTRIBUTING.md\n{found}");
}

fn begins_with(text: &str, phrase: &str) -> bool {
    text.strip_prefix(phrase).is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

/// Finds the phrase between word boundaries, whatever its case.
fn has_phrase(text: &str, phrase: &str) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let text = text.to_ascii_lowercase();
    let bytes = text.as_bytes();
    text.match_indices(phrase).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        !is_word(before) && !is_word(bytes.get(at + phrase.len()))
    })
}

#[test]
fn documented_items_begin_with_no_question_word() {
    check(&["src"], |comment| {
        let is_item = comment.marker != "//" && comment.is_first;
        let word = QUESTIONS.iter().find(|word| is_item && begins_with(comment.text, word))?;
        Some(format!("begins with {word:?}: begin with a verb in the third person or with a noun"))
    });
}

#[test]
fn comments_use_the_terms_of_the_field() {
    check(&["src"], |comment| {
        let phrase = PRIVATE_WORDS.iter().find(|phrase| has_phrase(comment.text, phrase))?;
        Some(format!("{phrase:?} has a term of the field"))
    });
}

#[test]
fn comments_wrap_at_100_columns() {
    check(&["src", "tests", "examples", "benches", "fuzz"], |comment| {
        // Code, tables and links have no place to break.
        let breaks = !comment.is_code
            && !comment.text.starts_with('|')
            && !comment.text.contains("](")
            && !comment.line.contains("http");
        let columns = comment.line.chars().count();
        (breaks && columns > COLUMNS).then(|| format!("{columns} columns"))
    });
}

#[test]
fn references_lead_to_documents_of_the_repository() {
    check(&["src", "tests", "examples", "benches", "fuzz"], |comment| {
        let is_part = |byte: char| byte.is_ascii_alphanumeric() || "-_./".contains(byte);
        let mut names = comment.text.split(|byte| !is_part(byte)).map(|name| name.trim_matches('.'));
        let name = names.find(|name| {
            let is_document = Path::new(name).extension().is_some_and(|extension| extension == "md");
            is_document && ![root(), &root().join("docs")].iter().any(|folder| folder.join(name).exists())
        })?;
        Some(format!("{name} does not exist"))
    });
}

/// Imports against the order of the rooms, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The layer is created from the entry point, which itself creates clients.
    ("src/client/layer.rs", "src/eureka.rs"),
    // The same of a channel.
    ("src/eureka.rs", "src/tonic.rs"),
];

/// Returns the rooms of docs/architecture.md from low to high, as paths.
fn rooms() -> Vec<String> {
    let document = fs::read_to_string(root().join("docs/architecture.md")).expect("the document exists");
    let rows = document.lines().filter(|line| line.starts_with("| `src/"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').filter(|name| name.starts_with("src/")).map(str::to_owned)).collect()
}

/// Returns the position of the room that has this file or module.
fn room_of(path: &str, rooms: &[String]) -> Option<usize> {
    let path = path.trim_end_matches(".rs");
    let is_in = |room: &&String| {
        let module = room.trim_end_matches('/').trim_end_matches(".rs");
        path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let room = rooms.iter().filter(is_in).max_by_key(|room| room.len())?;
    rooms.iter().position(|known| known == room)
}

/// Returns the code of a file without comments and without its test module.
fn code(source: &str) -> String {
    let mut code = String::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        let is_test = line.starts_with("#[cfg(") && line.contains("test");
        if is_test && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{')) {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// Returns the modules that the code of this file names by `crate::` or `super::`, as paths.
fn imports(path: &str, code: &str) -> Vec<String> {
    let mut module: Vec<&str> = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').skip(1).collect();
    let is_root = module == ["lib"];
    if is_root {
        module.clear();
    }
    let mut found = Vec::new();
    for (start, root) in ["crate::", "super::"].iter().flat_map(|root| code.match_indices(root)) {
        let before = code[..start].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || "_:".contains(before)) {
            continue;
        }
        let end = code[start..].find(|next: char| !(next.is_alphanumeric() || "_:".contains(next)));
        let chain = &code[start..end.map_or(code.len(), |end| start + end)];
        let ups = chain.matches("super::").count();
        let mut segments =
            if root == "crate::" { Vec::new() } else { module[..module.len().saturating_sub(ups)].to_vec() };
        segments.extend(chain.split("::").filter(|segment| !matches!(*segment, "" | "crate" | "super")));
        found.push(format!("src/{}", segments.join("/")));
    }
    found
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let (rooms, mut sources, mut faults) = (rooms(), Vec::new(), String::new());
    assert!(rooms.len() > 15, "the table of docs/architecture.md is read");
    files(&root().join("src"), "rs", &mut sources);
    for path in sources {
        let path = path.strip_prefix(root()).expect("it was found there").to_string_lossy().into_owned();
        let (Some(own), false) = (room_of(&path, &rooms), path.contains("tests")) else { continue };
        let source = fs::read_to_string(root().join(&path)).expect("sources are UTF-8");
        for import in imports(&path, &code(&source)) {
            let Some(used) = room_of(&import, &rooms).filter(|&used| used > own) else { continue };
            let is_exception = |(from, to): &(&str, &str)| *from == path && *to == rooms[used];
            if !EXCEPTIONS.iter().any(is_exception) {
                writeln!(faults, "{path} of {} uses {} ({import})", rooms[own], rooms[used])
                    .expect("write to String is infallible");
            }
        }
    }
    assert!(faults.is_empty(), "see the table of docs/architecture.md\n{faults}");
}

#[test]
fn imports_are_found_by_their_roots() {
    let code = code("use crate::a::B; // crate::c\nuse super::super::d;\n#[cfg(test)]\nmod tests {\nuse crate::e;");
    assert_eq!(imports("src/server/http/path.rs", &code), ["src/a/B", "src/server/d"]);
    let rooms = ["src/server/http/", "src/server/node.rs", "src/a/"].map(str::to_owned);
    assert_eq!(room_of("src/a/B", &rooms), Some(2));
    assert_eq!(room_of("src/server/node/Node", &rooms), Some(1));
    assert_eq!(room_of("src/server/nodes.rs", &rooms), None);
    assert_eq!(room_of("src/server/http/path.rs", &rooms), Some(0));
}

#[test]
fn checks_find_what_they_look_for() {
    let source = "/// Whether so.\n/// Who.\nfn a() {\n    // Answered.\n}\n//! Howling.\n";
    let found: Vec<_> = comments(source).map(|(number, comment)| (number, comment.is_first, comment.text)).collect();
    assert_eq!(found, [(1, true, "Whether so."), (2, false, "Who."), (4, true, "Answered."), (6, true, "Howling.")]);
    assert!(begins_with("Whether so.", "Whether") && !begins_with("Howling.", "How"));
    assert!(has_phrase("It is answered.", "answered") && !has_phrase("unanswered", "answered"));
}
