use super::*;
use crate::model::Instance;

const NOW: i64 = 1_700_000_000_000;
const DAY_MS: i64 = 86_400_000;

/// Folder of one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-eureka-saved-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> SavedRegistry {
        let identity = RegistryIdentity { region: "eu".into(), servers: vec!["http://a/".into(), "http://b/".into()] };
        let max_age = Duration::from_secs(24 * 3600);
        let path = self.0.join("registry");
        SavedRegistry { temporary: temporary(&path, 0), path, identity, max_age, max_size: 1 << 20 }
    }

    /// Returns the names of all files.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn list() -> Applications {
    let instance = |id| Instance::builder("orders").id(id).ip_addr("10.0.0.1").port(80).metadata("zone", "\u{e4}\n");
    let json = format!(
        r#"{{"applications":{{"versions__delta":"1","application":[{{"name":"ORDERS","instance":[{},{}]}}]}}}}"#,
        inner(&instance("a").build().unwrap()),
        inner(&instance("b").build().unwrap())
    );
    Applications::from_json(json.as_bytes()).unwrap()
}

/// Returns the JSON of an instance without its root object.
fn inner(instance: &Instance) -> String {
    let json: Value = serde_json::from_slice(&instance.to_json()).unwrap();
    json["instance"].to_string()
}

fn state(list: Applications, fetched_ms: i64) -> SavedList {
    SavedList { list, fetched_ms, oldest_ms: fetched_ms }
}

fn refusal(file: &SavedRegistry) -> String {
    file.load(NOW).unwrap_err().to_string()
}

#[test]
fn saved_list_is_restored_with_its_time() {
    let folder = Folder::new("restored");
    let file = folder.file();
    assert!(file.load(NOW).unwrap().is_none(), "there is no file yet");
    for fetched in [NOW - 1000, NOW] {
        file.save(&state(list(), fetched)).unwrap();
        let restored = file.load(NOW).unwrap().unwrap();
        assert_eq!((restored.list, restored.fetched_ms), (list(), fetched));
    }
    assert_eq!(folder.names(), ["registry"]);
}

#[test]
fn every_damage_of_the_file_is_detected() {
    let folder = Folder::new("damage");
    let file = folder.file();
    file.save(&state(list(), NOW)).unwrap();
    let whole = fs::read(&file.path).unwrap();
    for length in 0..whole.len() {
        fs::write(&file.path, &whole[..length]).unwrap();
        assert!(refusal(&file).starts_with("it is corrupt"), "cut off after {length} bytes");
    }
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&file.path, flipped).unwrap();
        assert!(file.load(NOW).is_err(), "changed byte {at}");
    }
    for other in
        [&b""[..], b"<html></html>", b"{}", b"\0\0\0\0", b"tower-eureka-registry", &[&whole[..], b"x"].concat()]
    {
        fs::write(&file.path, other).unwrap();
        assert!(refusal(&file).starts_with("it is corrupt"), "{}", String::from_utf8_lossy(other));
    }
}

/// Writes a file with these lines and a correct checksum.
fn write_checked(path: &Path, lines: &str) {
    let mut crc = Crc::new();
    crc.update(lines.as_bytes());
    fs::write(path, format!("{lines}crc32 {:08x}\n", crc.sum())).unwrap();
}

#[test]
fn file_with_a_correct_checksum_and_other_content_is_refused() {
    let folder = Folder::new("content");
    let file = folder.file();
    let header = r#"{"region":"eu","servers":["http://a/"],"fetched":1700000000000}"#;
    for (lines, why) in [
        (format!("tower-eureka-registry 2\n{header}\n{{\"applications\":{{}}}}\n"), "it has version 2"),
        ("tower-eureka-registry 1\n{}\n{\"applications\":{}}\n".to_owned(), "second line is incomplete"),
        ("tower-eureka-registry 1\n[1\n{\"applications\":{}}\n".to_owned(), "it is corrupt"),
        (format!("tower-eureka-registry 1\n{header}\n{{}}\n"), "it is corrupt"),
        (format!("tower-eureka-registry 1\n{header}"), "it is corrupt"),
    ] {
        write_checked(&file.path, &lines);
        let refused = refusal(&file);
        assert!(refused.contains(why), "{lines}: {refused}");
    }
    write_checked(&file.path, &format!("tower-eureka-registry 1\n{header}\n{{\"applications\":{{}}}}\n"));
    assert!(file.load(NOW).unwrap().unwrap().list.is_empty());
}

#[test]
fn file_of_another_registry_is_refused_and_replaced() {
    let folder = Folder::new("other");
    let file = folder.file();
    file.save(&state(list(), NOW)).unwrap();
    let with = |region: &str, servers: &[&str]| SavedRegistry {
        identity: RegistryIdentity {
            region: region.into(),
            servers: servers.iter().map(ToString::to_string).collect(),
        },
        ..folder.file()
    };
    // A server of the cluster was replaced.
    assert!(with("eu", &["http://b/", "http://c/"]).load(NOW).unwrap().is_some());
    for other in [with("us", &["http://a/"]), with("eu", &["http://c/"])] {
        let refused = refusal(&other);
        assert_eq!(refused, "it belongs to another registry (http://a/, http://b/ in region eu)");
        other.save(&state(list(), NOW)).unwrap();
        assert!(other.load(NOW).unwrap().is_some());
        file.save(&state(list(), NOW)).unwrap();
    }
}

#[test]
fn old_file_is_refused_and_one_from_the_future_is_used() {
    let folder = Folder::new("age");
    let file = folder.file();
    for (fetched, is_used) in
        [(NOW - DAY_MS, true), (NOW - DAY_MS - 1, false), (NOW + 400 * DAY_MS, true), (i64::MIN, false)]
    {
        file.save(&state(list(), fetched)).unwrap();
        assert_eq!(file.load(NOW).is_ok(), is_used, "{fetched}");
    }
    assert!(refusal(&file).contains("more than the maximum age of 86400s"), "{}", refusal(&file));
}

#[test]
fn large_file_and_one_that_is_no_file_are_refused() {
    let folder = Folder::new("kind");
    let mut file = folder.file();
    file.save(&state(list(), NOW)).unwrap();
    file.max_size = 100;
    assert_eq!(refusal(&file), "cannot read it: larger than 100 bytes");
    file.path = folder.0.clone();
    assert_eq!(refusal(&file), "cannot read it: not a regular file");
}

#[test]
fn failed_save_leaves_the_old_file_and_no_other() {
    let folder = Folder::new("failed");
    let file = folder.file();
    file.save(&state(list(), NOW)).unwrap();
    // A folder in the place of the temporary file cannot be replaced.
    fs::create_dir_all(file.temporary.join("x")).unwrap();
    assert!(file.save(&state(Applications::default(), NOW)).is_err());
    assert_eq!(file.load(NOW).unwrap().unwrap().list, list());
    fs::remove_dir_all(&file.temporary).unwrap();
    // A folder in the place of the file.
    let taken = SavedRegistry { path: folder.0.join("taken"), ..folder.file() };
    fs::create_dir_all(taken.path.join("x")).unwrap();
    assert!(taken.save(&state(list(), NOW)).is_err());
    let path = folder.0.join("missing/registry");
    let missing = SavedRegistry { temporary: temporary(&path, 0), path, ..folder.file() };
    assert_eq!(missing.save(&state(list(), NOW)).unwrap_err().kind(), io::ErrorKind::NotFound);
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["registry", "taken"]);
}

#[cfg(unix)]
#[test]
fn file_is_readable_by_its_owner_only_and_links_are_not_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = Folder::new("mode");
    let file = folder.file();
    let target = folder.0.join("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, &file.temporary).unwrap();
    file.save(&state(list(), NOW)).unwrap();
    assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}
