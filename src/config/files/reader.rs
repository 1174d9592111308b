//! Reader of the files: finds them, reads them within limits, and orders their documents.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::document::{Document, platform};
use super::location::{Kind, Location, folders, is_hidden};
use super::{EXTENSIONS, properties, yaml};
use crate::config::builder::Source;
use crate::config::source::{Entry, Origin, Place};
use crate::config::value::Unit;
use crate::config::{InvalidSetting, Settings, profiles};

/// Maximum size of a file in bytes.
const MAX_SIZE: u64 = 3 << 20;
/// Maximum number of files that are read.
const MAX_FILES: usize = 200;
/// Maximum number of imports, each file that is imported again included.
const MAX_IMPORTS: usize = 2000;
/// Maximum number of files in a tree of values, and their maximum size in bytes.
const MAX_TREE_FILES: usize = 1000;
const MAX_TREE_SIZE: u64 = 64 << 10;
/// Maximum depth of such a tree, and of imports.
const MAX_DEPTH: usize = 16;

/// Reads the files over the sources `below` them, and under those `above`.
pub(in crate::config) fn load(
    above: Vec<Source>,
    below: Vec<Source>,
    directory: &Path,
    locations: &[String],
    in_code: &[String],
) -> Result<Settings, InvalidSetting> {
    let base = Settings::new([above.clone(), below.clone()].concat(), Vec::new());
    let names = match base.find("spring.config.name", Unit::List)? {
        Some(value) => value.list().into_iter().map(str::to_owned).collect(),
        None => vec!["application".to_owned()],
    };
    let mut reader = Reader {
        directory,
        names: names.into(),
        platform: platform(&base)?,
        base: &base,
        files: HashMap::new(),
        trees: HashMap::new(),
        imports: 0,
    };
    let groups = reader.groups(locations)?;
    let with = |files: Vec<Source>, profiles| Settings::new([above.clone(), files, below.clone()].concat(), profiles);

    // The profiles may be set in files, in documents that are active whatever the profiles.
    let mut plain = Vec::new();
    for group in groups.iter().rev() {
        let mut layers = Layers::default();
        reader.group(group, None, None, &mut layers)?;
        plain.extend(layers.in_order());
    }
    let active = profiles::active(&with(plain, Vec::new()), in_code)?;
    let mut found = Vec::new();
    for group in groups.iter().rev() {
        let mut layers = Layers::default();
        for profile in active.iter().rev() {
            reader.group(group, Some(profile.as_str()), Some(&active), &mut layers)?;
        }
        reader.group(group, None, Some(&active), &mut layers)?;
        found.extend(layers.in_order());
    }
    Ok(with(found, active))
}

/// Location, and the place of the setting that has it.
type Named = (Location, Option<String>);

/// Sources of one group of locations, those with the highest precedence first.
#[derive(Default)]
struct Layers {
    /// Variants of imports for a profile. They take precedence over all others of the group.
    variants: Vec<Source>,
    others: Vec<Source>,
}

impl Layers {
    fn in_order(self) -> impl Iterator<Item = Source> {
        self.variants.into_iter().chain(self.others)
    }
}

struct Reader<'a> {
    directory: &'a Path,
    /// Names of the files in folders, without extension.
    names: Rc<[String]>,
    platform: String,
    /// Sources other than files.
    base: &'a Settings,
    /// Documents of the files, or `None` for files that do not exist.
    files: HashMap<PathBuf, Option<Rc<Vec<Document>>>>,
    /// Values of the trees, or `None` for those that do not exist.
    trees: HashMap<PathBuf, Option<Source>>,
    /// Number of imports so far.
    imports: usize,
}

impl Reader<'_> {
    /// Returns the groups of locations, those with the highest precedence last. Within a group,
    /// files of profiles take precedence over others in any location.
    fn groups(&self, in_code: &[String]) -> Result<Vec<Vec<Named>>, InvalidSetting> {
        let parse = |text: &str, place: Option<&Place<'_>>| -> Vec<Named> {
            let texts = text.split(';').filter(|text| !text.trim().is_empty());
            texts.map(|text| (Location::parse(text, self.directory), place.map(Place::to_string))).collect()
        };
        let mut groups = match self.base.find("spring.config.location", Unit::List)? {
            Some(value) => value.list().into_iter().map(|text| parse(text, Some(&value.place()))).collect(),
            None => vec![parse("optional:./;optional:./config/;optional:./config/*/", None)],
        };
        if let Some(value) = self.base.find("spring.config.additional-location", Unit::List)? {
            groups.extend(value.list().into_iter().map(|text| parse(text, Some(&value.place()))));
        }
        if let Some(value) = self.base.find("spring.config.import", Unit::List)? {
            groups.extend(value.list().into_iter().map(|text| parse(text, Some(&value.place()))));
        }
        groups.extend(in_code.iter().map(|text| parse(text, None)));
        Ok(groups)
    }

    /// Appends the entries of a group's files, those with the highest precedence first: the files
    /// of a profile, or the others.
    fn group(
        &mut self,
        group: &[Named],
        profile: Option<&str>,
        profiles: Option<&[String]>,
        into: &mut Layers,
    ) -> Result<(), InvalidSetting> {
        for (location, place) in group.iter().rev() {
            let place = place.as_deref();
            if matches!(location.kind, Kind::Foreign) && profiles.is_none() {
                foreign(location, place)?;
            }
            let is_found = self.location(location, place, profile, profiles, 0, into)?;
            if !is_found && !location.is_optional && profile.is_none() {
                return Err(missing(location, place));
            }
        }
        Ok(())
    }

    /// Appends the entries of a location: the files of a profile, or the others. Returns `false` if
    /// there is nothing.
    fn location(
        &mut self,
        location: &Location,
        place: Option<&str>,
        profile: Option<&str>,
        profiles: Option<&[String]>,
        depth: usize,
        into: &mut Layers,
    ) -> Result<bool, InvalidSetting> {
        let is_specific = profile.is_some();
        match &location.kind {
            Kind::Folder(path) => {
                let (folders, names) = (folders(path), self.names.clone());
                for (folder, name) in
                    folders.iter().rev().flat_map(|folder| names.iter().rev().map(move |n| (folder, n)))
                {
                    for extension in EXTENSIONS {
                        let path = of_profile(&folder.join(format!("{name}.{extension}")), profile);
                        self.file(&path, extension, is_specific, profiles, depth, into)?;
                    }
                }
                Ok(folders.iter().any(|folder| folder.is_dir()))
            }
            Kind::File { path, extension } => {
                let extension =
                    extension_of(path, extension.as_deref()).ok_or_else(|| unknown_format(location, place))?;
                self.file(&of_profile(path, profile), &extension, is_specific, profiles, depth, into)
            }
            Kind::Tree(path) if !is_specific => {
                let before = into.others.len();
                for folder in folders(path).iter().rev() {
                    into.others.extend(self.tree(folder, location.is_optional)?);
                }
                Ok(into.others.len() > before)
            }
            Kind::Tree(_) => Ok(false),
            Kind::Foreign => Ok(true),
        }
    }

    /// Appends the active documents of a file and of its imports. Returns `false` if the file does
    /// not exist.
    fn file(
        &mut self,
        path: &Path,
        extension: &str,
        is_specific: bool,
        profiles: Option<&[String]>,
        depth: usize,
        into: &mut Layers,
    ) -> Result<bool, InvalidSetting> {
        let Some(documents) = self.documents(path, extension, is_specific)? else { return Ok(false) };
        for document in documents.iter().rev() {
            if !document.is_active(profiles, &self.platform) {
                continue;
            }
            for index in document.imports.iter().rev() {
                self.import(&document.entries[*index], document, profiles, depth + 1, into)?;
            }
            into.others.push(document.entries.clone());
        }
        Ok(true)
    }

    /// Appends the sources that an entry of `spring.config.import` names, and their variants for
    /// the active profiles.
    fn import(
        &mut self,
        entry: &Entry,
        document: &Document,
        profiles: Option<&[String]>,
        depth: usize,
        into: &mut Layers,
    ) -> Result<(), InvalidSetting> {
        self.imports += 1;
        if depth > MAX_DEPTH || self.imports > MAX_IMPORTS {
            let limit = if depth > MAX_DEPTH {
                format!("imports are more than {MAX_DEPTH} levels deep")
            } else {
                format!("there are more than {MAX_IMPORTS} imports")
            };
            return Err(InvalidSetting::refused(&entry.place(), format_args!("{limit} (does a file import itself?)")));
        }
        let place = entry.place().to_string();
        let mut sources = vec![document.entries.clone()];
        sources.splice(0..0, self.base.0.sources.iter().cloned());
        let text = Settings::new(sources, Vec::new()).resolve(entry)?.text;
        for text in text.split(',').rev().filter(|text| !text.trim().is_empty()) {
            let location = Location::parse(text, &document.folder);
            if matches!(location.kind, Kind::Foreign) && entry.report_once() {
                foreign(&location, Some(&place))?;
            }
            let mut is_found = false;
            for profile in profiles.unwrap_or_default().iter().rev() {
                let mut variants = Layers::default();
                is_found |= self.location(&location, Some(&place), Some(profile), profiles, depth, &mut variants)?;
                into.variants.extend(variants.in_order());
            }
            is_found |= self.location(&location, Some(&place), None, profiles, depth, into)?;
            // A file may exist for a profile only. The profiles are not known at first.
            if !is_found && !location.is_optional && profiles.is_some() {
                return Err(missing(&location, Some(&place)));
            }
        }
        Ok(())
    }

    /// Returns the documents of a file, or `None` if it does not exist.
    fn documents(
        &mut self,
        path: &Path,
        extension: &str,
        is_specific: bool,
    ) -> Result<Option<Rc<Vec<Document>>>, InvalidSetting> {
        if let Some(known) = self.files.get(path) {
            return Ok(known.clone());
        }
        let shown = self.shown(path);
        let read = read(path, MAX_SIZE).map_err(|cause| cannot_read(&shown, cause))?;
        let Some(bytes) = read else {
            self.files.insert(path.to_owned(), None);
            return Ok(None);
        };
        if self.files.values().flatten().count() == MAX_FILES {
            return Err(cannot_read(&shown, format!("more than {MAX_FILES} files are read")));
        }
        let at = |(line, cause): (usize, String)| InvalidSetting::other(format!("{shown}:{line}: {cause}"));
        let entries = match extension {
            // Java reads Latin-1, and most editors write UTF-8.
            "properties" => {
                let latin_1 = |bytes: Vec<u8>| bytes.into_iter().map(char::from).collect();
                let text = String::from_utf8(bytes).unwrap_or_else(|error| latin_1(error.into_bytes()));
                properties::documents(text.trim_start_matches('\u{feff}'), &shown).map_err(at)?
            }
            _ => {
                let text = String::from_utf8(bytes).map_err(|error| {
                    let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n');
                    at((line.count() + 1, "expected UTF-8".into()))
                })?;
                yaml::documents(text.trim_start_matches('\u{feff}'), &shown).map_err(at)?
            }
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let documents = entries.into_iter().map(|entries| Document::new(entries, folder.clone(), is_specific));
        let documents = Some(Rc::new(documents.collect::<Result<Vec<_>, _>>()?));
        self.files.insert(path.to_owned(), documents.clone());
        Ok(documents)
    }

    /// Returns the values of a tree, or `None` if it does not exist.
    fn tree(&mut self, path: &Path, is_optional: bool) -> Result<Option<Source>, InvalidSetting> {
        if let Some(known) = self.trees.get(path) {
            return Ok(known.clone());
        }
        let tree = if path.is_dir() { Some(Arc::new(self.read_tree(path, is_optional)?)) } else { None };
        self.trees.insert(path.to_owned(), tree.clone());
        Ok(tree)
    }

    /// Reads the files of a folder as values: the path is the name. Files that are no values, such
    /// as the keys of other programs, are skipped with one warning.
    fn read_tree(&self, root: &Path, is_optional: bool) -> Result<Vec<Entry>, InvalidSetting> {
        let (mut entries, mut skipped) = (Vec::new(), Vec::new());
        let mut open = vec![(root.to_owned(), String::new(), 0)];
        while let Some((folder, prefix, depth)) = open.pop() {
            let listed = match std::fs::read_dir(&folder) {
                Ok(listed) => listed,
                Err(error) if depth == 0 && !is_optional => return Err(cannot_read(&self.shown(&folder), error)),
                Err(error) => {
                    skipped.push((self.shown(&folder), error.to_string()));
                    continue;
                }
            };
            let mut paths: Vec<_> = listed.filter_map(Result::ok).map(|entry| entry.path()).collect();
            paths.retain(|path| !is_hidden(path));
            paths.sort();
            for path in paths {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let name = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}.{name}") };
                let shown = self.shown(&path);
                if path.is_dir() {
                    if depth == MAX_DEPTH {
                        return Err(cannot_read(&shown, format!("folders are more than {MAX_DEPTH} levels deep")));
                    }
                    open.push((path, name, depth + 1));
                    continue;
                }
                if entries.len() + skipped.len() == MAX_TREE_FILES {
                    return Err(cannot_read(&shown, format!("the tree has more than {MAX_TREE_FILES} files")));
                }
                let text = read(&path, MAX_TREE_SIZE).and_then(|bytes| {
                    bytes.map(String::from_utf8).transpose().map_err(|_| "expected UTF-8".to_owned())
                });
                match text {
                    Ok(Some(text)) => {
                        let text = text.strip_suffix('\n').unwrap_or(&text);
                        let text = text.strip_suffix('\r').unwrap_or(text).to_owned();
                        entries.push(Entry::new(name, text, Origin::File { path: shown, line: 0 }));
                    }
                    Ok(None) => {}
                    Err(cause) => skipped.push((shown, cause)),
                }
            }
        }
        if let Some((path, cause)) = skipped.first() {
            let others = skipped.len() - 1;
            tracing::warn!(others, "{path} is no value of a setting: {cause}; it is skipped");
        }
        Ok(entries)
    }

    /// Returns the path for messages, relative to the directory.
    fn shown(&self, path: &Path) -> Arc<str> {
        let relative = path.strip_prefix(self.directory).unwrap_or(path);
        let relative: PathBuf = relative.components().collect();
        let relative = relative.strip_prefix(".").unwrap_or(&relative);
        relative.to_string_lossy().into()
    }
}

/// Returns the path of a file's variant for a profile: `application-prod.yml`.
fn of_profile(path: &Path, profile: Option<&str>) -> PathBuf {
    let Some(profile) = profile else { return path.to_owned() };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let suffix = path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{profile}{suffix}"))
}

/// Returns the format of a file.
fn extension_of(path: &Path, given: Option<&str>) -> Option<String> {
    let extension = match given {
        Some(given) => given.to_owned(),
        None => path.extension()?.to_string_lossy().to_ascii_lowercase(),
    };
    EXTENSIONS.contains(&&*extension).then_some(extension)
}

/// Reads a file. Returns `None` if it does not exist.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, String> {
    let is_missing = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    // A pipe or device may block for ever.
    let metadata = match std::fs::metadata(path) {
        Err(error) if is_missing(&error) => return Ok(None),
        metadata => metadata.map_err(|error| error.to_string())?,
    };
    if !metadata.is_file() {
        return Err(if metadata.is_dir() { "it is a folder" } else { "it is no regular file" }.into());
    }
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let too_large = |size| format!("it has {:.1} MiB, expected at most {:.2} MiB", mebibytes(size), mebibytes(limit));
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Ok(read) if read as u64 > limit => Err(too_large(read as u64)),
        Ok(_) => Ok(Some(bytes)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn cannot_read(path: &str, cause: impl std::fmt::Display) -> InvalidSetting {
    InvalidSetting::other(format!("cannot read {path}: {cause}"))
}

/// Returns the beginning of a message about a location.
fn named(place: Option<&str>) -> String {
    place.map_or_else(String::new, |place| format!("{place}: "))
}

fn missing(location: &Location, place: Option<&str>) -> InvalidSetting {
    let (text, named) = (&location.text, named(place));
    InvalidSetting::other(format!(
        "{named}cannot read {text}: it does not exist (write optional:{text} if it may be missing)"
    ))
}

fn unknown_format(location: &Location, place: Option<&str>) -> InvalidSetting {
    let (text, named) = (&location.text, named(place));
    InvalidSetting::other(format!(
        "{named}cannot read {text}: expected a file whose name ends in .yml, .yaml or .properties, or a folder whose name ends in /"
    ))
}

/// Reports a location that only Spring can read.
fn foreign(location: &Location, place: Option<&str>) -> Result<(), InvalidSetting> {
    let (text, named) = (&location.text, named(place));
    // The location may be a URL with a password.
    let text = crate::config::mask::masked_urls(text);
    if location.is_optional || text.starts_with("classpath") {
        tracing::warn!("{named}{text} is not read: only files and configtree: are");
        return Ok(());
    }
    Err(InvalidSetting::other(format!(
        "{named}cannot read {text}: only files and configtree: are read (write optional:{text} to start without it)"
    )))
}
