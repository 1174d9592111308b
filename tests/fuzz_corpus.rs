//! Replays the corpus of the fuzz targets, also with a stable compiler.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "helper functions of tests may panic")]

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::Path;

#[allow(clippy::print_stdout, reason = "output of a passing test is not shown")]
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        // When the test fails, the last line of its output names the input.
        println!("{}", file.display());
        check(&std::fs::read(file).unwrap());
    }
}

#[test]
fn instance() {
    replay("instance", checks::instance);
}

#[test]
fn applications() {
    replay("applications", checks::applications);
}

#[test]
fn batch() {
    replay("batch", checks::batch);
}

#[test]
fn batch_reply() {
    replay("batch_reply", checks::batch_reply);
}

#[cfg(feature = "xml")]
#[test]
fn xml() {
    replay("xml", checks::xml);
}

#[test]
fn query() {
    replay("query", checks::query);
}

#[cfg(feature = "page")]
#[test]
fn page() {
    replay("page", checks::page);
}

#[test]
fn body() {
    replay("body", checks::body);
}

#[cfg(feature = "access")]
#[test]
fn credentials() {
    replay("credentials", checks::credentials);
}

#[cfg(feature = "access")]
#[test]
fn token() {
    replay("token", checks::token);
}

#[cfg(feature = "access")]
#[test]
fn keys() {
    replay("keys", checks::keys);
}

#[cfg(feature = "access")]
#[test]
fn users() {
    replay("users", checks::users);
}
