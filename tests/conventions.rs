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

#[test]
fn checks_find_what_they_look_for() {
    let source = "/// Whether so.\n/// Who.\nfn a() {\n    // Answered.\n}\n//! Howling.\n";
    let found: Vec<_> = comments(source).map(|(number, comment)| (number, comment.is_first, comment.text)).collect();
    assert_eq!(found, [(1, true, "Whether so."), (2, false, "Who."), (4, true, "Answered."), (6, true, "Howling.")]);
    assert!(begins_with("Whether so.", "Whether") && !begins_with("Howling.", "How"));
    assert!(has_phrase("It is answered.", "answered") && !has_phrase("unanswered", "answered"));
}
