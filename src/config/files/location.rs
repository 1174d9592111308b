//! Locations of files, as `spring.config.location` and `spring.config.import` write them.

use std::path::{Path, PathBuf};

/// Maximum number of folders that a location with `*/` stands for.
const MAX_FOLDERS: usize = 100;

/// Location of one or several files.
#[derive(Clone, Debug)]
pub(super) struct Location {
    /// Text as written.
    pub(super) text: String,
    /// A missing file is no error.
    pub(super) is_optional: bool,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    File {
        path: PathBuf,
        /// Format of a file whose name has no extension, as in `file:settings[.yml]`.
        extension: Option<String>,
    },
    Folder(PathBuf),
    /// Folder whose files are values.
    Tree(PathBuf),
    /// A source that only Spring has: `classpath:`, `configserver:`.
    Foreign,
}

impl Location {
    /// Parses a location, relative to this folder.
    pub(super) fn parse(text: &str, folder: &Path) -> Self {
        let text = text.trim();
        let (is_optional, rest) = match text.strip_prefix("optional:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let kind = match rest.split_once(':') {
            Some(("configtree", path)) => Kind::Tree(folder.join(without_slashes(path))),
            Some(("file", path)) => Self::in_files(path.strip_prefix("//").unwrap_or(path), folder),
            // A single letter is the drive of a path on Windows.
            Some((scheme, _)) if scheme.len() > 1 => Kind::Foreign,
            _ => Self::in_files(rest, folder),
        };
        Self { text: text.to_owned(), is_optional, kind }
    }

    fn in_files(path: &str, folder: &Path) -> Kind {
        if path.ends_with('/') {
            return Kind::Folder(folder.join(without_slashes(path)));
        }
        match path.strip_suffix(']').and_then(|path| path.split_once("[.")) {
            Some((path, extension)) => {
                Kind::File { path: folder.join(path), extension: Some(extension.to_ascii_lowercase()) }
            }
            None => Kind::File { path: folder.join(path), extension: None },
        }
    }
}

/// Removes slashes from the end of a path, unless it is the root.
fn without_slashes(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.starts_with('/') => "/",
        "" => ".",
        path => path,
    }
}

/// Returns the folders that a path with `*` as its last part stands for, ordered by name, or the
/// path itself.
pub(super) fn folders(path: &Path) -> Vec<PathBuf> {
    if path.file_name().is_none_or(|name| name != "*") {
        return vec![path.to_owned()];
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir() && !is_hidden(path));
    found.sort();
    if found.len() > MAX_FOLDERS {
        tracing::warn!("only the first {MAX_FOLDERS} folders of {} are read for settings", parent.display());
        found.truncate(MAX_FOLDERS);
    }
    found
}

pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}
