//! The registry file: the last known list of a registry, for a start while the registry is away.
//!
//! ```text
//! tower-eureka-registry 1                                       format and version
//! {"region":"us-east-1","servers":["http://…"],"fetched":…}     registry, time of the last fetch
//! {"applications":{…}}                                          list, as a Java server sends it
//! crc32 0123abcd                                                checksum of all bytes before this line
//! ```
//!
//! The second line has `oldest` as well if a part of the list was fetched earlier.
//!
//! All functions here block. `file.rs` calls them on blocking threads.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IntoInnerError, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::{Crc, CrcWriter};
use serde_json::{Value, json};

use crate::config::RegistryIdentity;
use crate::model::Applications;
use crate::untrusted::Excerpt;

/// First word of the file.
const FORMAT: &str = "tower-eureka-registry";
const VERSION: &str = "1";
const CHECKSUM: &str = "crc32";
/// Length of the last line.
const TRAILER: usize = CHECKSUM.len() + " 01234567\n".len();

/// Place, registry and limits of a registry file.
#[derive(Debug)]
pub(super) struct SavedRegistry {
    pub(super) path: PathBuf,
    /// Path that is written before it is renamed, different for each client.
    pub(super) temporary: PathBuf,
    pub(super) identity: RegistryIdentity,
    pub(super) max_age: Duration,
    /// Maximum size in bytes.
    pub(super) max_size: u64,
}

/// List of a registry file.
#[derive(Clone, Debug)]
pub(super) struct SavedList {
    pub(super) list: Applications,
    /// Time of the last fetch, in milliseconds since the epoch.
    pub(super) fetched_ms: i64,
    /// Time of the last fetch of the oldest part.
    pub(super) oldest_ms: i64,
}

/// Reason for which a file is not used.
#[derive(Debug)]
pub(super) struct Unusable(String);

impl SavedRegistry {
    /// Reads the file. Returns `None` if there is none.
    pub(super) fn load(&self, now_ms: i64) -> Result<Option<SavedList>, Unusable> {
        let bytes = match self.read() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Unusable(format!("cannot read it: {error}"))),
        };
        let content = content(&bytes)?;
        let (header, list) = content.split_once('\n').ok_or_else(|| Unusable::corrupt("it has no list"))?;
        let (fetched_ms, oldest_ms) = self.check(header, now_ms)?;
        let list = Applications::from_json(list.as_bytes()).map_err(Unusable::corrupt)?;
        Ok(Some(SavedList { list, fetched_ms, oldest_ms }))
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        // Opening a pipe would wait for its writer.
        let metadata = fs::metadata(&self.path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let too_large = || io::Error::other(format!("larger than {} bytes", self.max_size));
        if metadata.len() > self.max_size {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        File::open(&self.path)?.take(self.max_size + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.max_size { Err(too_large()) } else { Ok(bytes) }
    }

    /// Checks registry and age. Returns the time of the last fetch, and that of the oldest part.
    fn check(&self, header: &str, now_ms: i64) -> Result<(i64, i64), Unusable> {
        let header: Value = serde_json::from_str(header).map_err(Unusable::corrupt)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let registry = || {
            let servers = header["servers"].as_array()?.iter().map(text).collect::<Option<_>>()?;
            Some((RegistryIdentity { region: text(&header["region"])?, servers }, header["fetched"].as_i64()?))
        };
        let (identity, fetched_ms) = registry().ok_or_else(|| Unusable::corrupt("its second line is incomplete"))?;
        if !self.identity.is_same_registry(&identity) {
            let RegistryIdentity { region, servers } = identity;
            let theirs = format!("{} in region {region}", servers.join(", "));
            return Err(Unusable(format!("it belongs to another registry ({})", Excerpt(theirs))));
        }
        // A wall clock that was set back counts as no time.
        let age = Duration::from_millis(now_ms.saturating_sub(fetched_ms).try_into().unwrap_or(0));
        if age > self.max_age {
            let (age, max_age) = (Duration::from_secs(age.as_secs()), self.max_age);
            return Err(Unusable(format!("it is {age:?} old, which is more than the maximum age of {max_age:?}")));
        }
        Ok((fetched_ms, header["oldest"].as_i64().map_or(fetched_ms, |oldest| oldest.min(fetched_ms))))
    }

    /// Replaces the file. After an error or a crash, the old file remains.
    pub(super) fn save(&self, saved: &SavedList) -> io::Result<()> {
        let written = self.write(saved).and_then(|()| fs::rename(&self.temporary, &self.path));
        if written.is_err() {
            // The first error is returned.
            let _ = fs::remove_file(&self.temporary);
            return written;
        }
        sync_folder(&self.path);
        Ok(())
    }

    fn write(&self, SavedList { list, fetched_ms, oldest_ms }: &SavedList) -> io::Result<()> {
        // One that a crash left behind. It is not opened, since it may be a link.
        match fs::remove_file(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let RegistryIdentity { region, servers } = &self.identity;
        let mut header = json!({ "region": region, "servers": servers, "fetched": fetched_ms });
        if oldest_ms < fetched_ms {
            header["oldest"] = json!(oldest_ms);
        }
        let mut file = BufWriter::new(CrcWriter::new(create(&self.temporary)?));
        writeln!(file, "{FORMAT} {VERSION}\n{header}")?;
        list.write_json(&mut file)?;
        file.write_all(b"\n")?;
        let file = file.into_inner().map_err(IntoInnerError::into_error)?;
        let (checksum, mut file) = (file.crc().sum(), file.into_inner());
        writeln!(file, "{CHECKSUM} {checksum:08x}")?;
        file.sync_all()
    }
}

/// Returns the lines between the first and the last one, once format, version and checksum are
/// those of a complete file.
fn content(bytes: &[u8]) -> Result<&str, Unusable> {
    let first = format!("{FORMAT} {VERSION}\n");
    let Some(rest) = bytes.strip_prefix(first.as_bytes()) else {
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let version = line.strip_prefix(format!("{FORMAT} ").as_bytes());
        return Err(match version {
            Some(version) if line.len() < bytes.len() => {
                let version = String::from_utf8_lossy(version);
                Unusable(format!("it has version {}, but this program reads version {VERSION}", Excerpt(version)))
            }
            _ => Unusable::corrupt("it does not begin like a registry file"),
        });
    };
    let cut_off = || Unusable::corrupt("it is cut off");
    let end = rest.len().checked_sub(TRAILER).ok_or_else(cut_off)?;
    let checksum = str::from_utf8(&rest[end..]).ok().and_then(|line| line.strip_prefix(CHECKSUM)?.strip_suffix('\n'));
    let checksum = checksum.and_then(|digits| u32::from_str_radix(digits.strip_prefix(' ')?, 16).ok());
    let checksum = checksum.ok_or_else(cut_off)?;
    let mut crc = Crc::new();
    crc.update(&bytes[..first.len() + end]);
    if crc.sum() != checksum {
        return Err(Unusable::corrupt("its checksum is wrong"));
    }
    str::from_utf8(&rest[..end]).map_err(Unusable::corrupt)
}

impl Unusable {
    fn corrupt(cause: impl fmt::Display) -> Self {
        Self(format!("it is corrupt: {cause}"))
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the path that the client with this number writes before it is renamed. Clients that
/// share a file have several.
pub(super) fn temporary(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".{}-{number}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Creates a new file. Metadata of instances may be confidential, so only the owner may read it.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the rename durable where the system allows it. Otherwise a crash may bring the old file
/// back, which is complete as well.
#[cfg(unix)]
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// Does nothing: other systems make renames durable by themselves.
#[cfg(not(unix))]
fn sync_folder(_: &Path) {}

#[cfg(test)]
mod tests;
