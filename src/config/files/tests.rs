use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::{InvalidSetting, Settings, SettingsBuilder};

/// Folder with files, which is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tower-eureka-settings-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Self(std::env::temp_dir().join(name));
        for (path, text) in files {
            folder.write(path, text);
        }
        fs::create_dir_all(&folder.0).unwrap();
        folder
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn builder(&self) -> SettingsBuilder {
        Settings::builder().directory(&self.0).environment([("", ""); 0])
    }

    fn load(&self, arguments: &[&str]) -> Result<Settings, InvalidSetting> {
        self.builder().arguments(arguments).load()
    }

    fn get(&self, arguments: &[&str], name: &str) -> String {
        self.load(arguments).unwrap().get(name).unwrap().unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_have_the_precedence_of_spring() {
    let folder = Folder::with(&[]);
    // From the lowest to the highest.
    for (path, arguments) in [
        ("application.yaml", &[][..]),
        ("application.yml", &[]),
        ("application.properties", &[]),
        ("config/application.yml", &[]),
        ("config/one/application.yml", &[]),
        ("config/two/application.properties", &[]),
        ("application-a.yml", &["--spring.profiles.active=a,b"]),
        ("config/application-a.yml", &["--spring.profiles.active=a,b"]),
        ("application-b.properties", &["--spring.profiles.active=a,b"]),
    ] {
        folder.write(path, format!("which: {path}\n"));
        assert_eq!(folder.get(arguments, "which"), path);
    }
    assert_eq!(folder.get(&["--which=argument"], "which"), "argument");
    let variable = folder.builder().environment([("WHICH", "variable")]).load().unwrap();
    assert_eq!(variable.get("which").unwrap().as_deref(), Some("variable"));
    let without = folder.builder().without_files().load().unwrap();
    assert_eq!(without.get("which").unwrap(), None);
}

#[test]
fn document_is_active_with_its_profiles() {
    let text = "a: 1\n---\nspring.config.activate.on-profile: prod & !eu\na: 2\n---\n\
                spring:\n  config:\n    activate:\n      on-profile: [test, eu]\na: 3\n---\n\
                spring.config.activate.on-cloud-platform: kubernetes\na: 4\n";
    let folder = Folder::with(&[("application.yml", text)]);
    for (profiles, value) in [("", "1"), ("prod", "2"), ("prod,eu", "3"), ("test", "3"), ("other", "1")] {
        assert_eq!(folder.get(&[&*format!("--spring.profiles.active={profiles}")], "a"), value, "{profiles}");
    }
    let in_cloud = folder.builder().environment([("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).load().unwrap();
    assert_eq!(in_cloud.get("a").unwrap().as_deref(), Some("4"));
}

#[test]
fn profiles_come_from_each_source() {
    let folder = Folder::with(&[
        (
            "application.yml",
            "spring.profiles:\n  active: ${ENV:dev}\n  group: {prod: [logs, db]}\n  include: base\na: 0\n",
        ),
        ("application-dev.properties", "a=dev"),
        ("application-db.yml", "a: db"),
        ("application-test.yml", "a: test"),
    ]);
    assert_eq!(folder.load(&[]).unwrap().profiles(), ["base", "dev"]);
    assert_eq!(folder.get(&[], "a"), "dev");
    let from_variable = folder.builder().environment([("SPRING_PROFILES_ACTIVE", "prod")]).load().unwrap();
    assert_eq!(from_variable.profiles(), ["base", "prod", "logs", "db"]);
    assert_eq!(from_variable.get("a").unwrap().as_deref(), Some("db"));
    let in_code = folder.builder().profile("test").load().unwrap();
    assert_eq!(in_code.get("a").unwrap().as_deref(), Some("test"));
    let empty = Folder::with(&[("application-default.yml", "a: default")]);
    assert_eq!(empty.get(&[], "a"), "default");
    assert!(empty.load(&["--spring.profiles.active=../x"]).is_err());
}

#[test]
fn locations_and_imports_are_read() {
    let folder = Folder::with(&[
        ("application.yml", "a: main\nspring.config.import: optional:none.yml, file:more/${part:one}.yml\nb: main\n"),
        ("more/one.yml", "b: one\nspring.config.import: two.properties\nc: one\n"),
        ("more/two.properties", "c=two"),
        ("other/application.yml", "a: other"),
        ("other/application-p.yml", "a: other-p"),
        ("other/settings", "a: without extension"),
        ("tree/db/password", "geheim\n"),
        ("tree/..data/hidden", "x"),
        ("service.yml", "a: service"),
    ]);
    let values = ["a", "b", "c"].map(|name| folder.get(&[], name));
    assert_eq!(values, ["main", "one", "two"]);
    assert_eq!(folder.get(&["--spring.config.additional-location=other/"], "a"), "other");
    assert_eq!(folder.get(&["--spring.config.additional-location=other/"], "b"), "one");
    assert_eq!(folder.get(&["--spring.config.location=file:other/", "--spring.profiles.active=p"], "a"), "other-p");
    assert_eq!(folder.get(&["--spring.config.location=optional:nowhere/"], "a"), "");
    assert_eq!(folder.get(&["--spring.config.location=file:other/settings[.yml]"], "a"), "without extension");
    assert_eq!(folder.get(&["--spring.config.name=service"], "a"), "service");
    let import = "--spring.config.import=optional:configserver:http://u:geheim@config/,configtree:tree/";
    assert_eq!(folder.get(&[import], "db.password"), "geheim");
    assert_eq!(folder.get(&[import], "hidden"), "");
    let file = folder.builder().file("other/application.yml").load().unwrap();
    assert_eq!(file.get("a").unwrap().as_deref(), Some("other"));
}

#[test]
fn imports_are_read_for_profiles_from_folders_and_from_all_trees() {
    let folder = Folder::with(&[
        ("application.yml", "spring.config.import: 'more.yml, conf/, configtree:etc/*/'\na: main\nb: main\nc: main\n"),
        ("application-prod.yml", "a: main-prod\nc: main-prod\n"),
        ("more.yml", "a: more\nb: more\n"),
        ("more-prod.yml", "a: more-prod\nspring.config.import: deep.yml\n"),
        ("deep.yml", "d: deep\n"),
        ("conf/application.properties", "e=conf"),
        ("conf/application-prod.yml", "e: conf-prod"),
        ("etc/one/f", "one"),
        ("etc/two/f", "two"),
        ("etc/two/g", "two"),
        ("etc/..data/g", "hidden"),
    ]);
    for (profile, expected) in [
        ("", ["more", "more", "main", "", "conf", "two", "two"]),
        // Variants of imports take precedence over those of the importing file.
        ("prod", ["more-prod", "more", "main-prod", "deep", "conf-prod", "two", "two"]),
    ] {
        let profile = format!("--spring.profiles.active={profile}");
        assert_eq!(["a", "b", "c", "d", "e", "f", "g"].map(|name| folder.get(&[&profile], name)), expected);
    }
    folder.write("application.yml", "spring.config.import: 'optional:none/, optional:configtree:none/*/'\na: main\n");
    assert_eq!(folder.get(&[], "a"), "main");
    for missing in ["none/", "configtree:none/*/"] {
        folder.write("application.yml", format!("spring.config.import: '{missing}'\n"));
        let error = folder.load(&[]).unwrap_err().to_string();
        assert!(error.contains("it does not exist"), "{error}");
    }
    // The file of a profile alone is enough.
    folder.write("application.yml", "spring.config.import: only.yml\n");
    folder.write("only-prod.yml", "a: only-prod");
    assert_eq!(folder.get(&["--spring.profiles.active=prod"], "a"), "only-prod");
    assert!(folder.load(&[]).is_err());
}

#[test]
fn file_of_a_tree_that_is_no_value_is_skipped() {
    let folder =
        Folder::with(&[("application.yml", "spring.config.import: 'configtree:etc/'\n"), ("etc/a/b", "value")]);
    folder.write("etc/key.p12", b"0\x82\xff");
    folder.write("etc/large", "x".repeat((64 << 10) + 1));
    assert_eq!((folder.get(&[], "a.b"), folder.get(&[], "large")), ("value".into(), String::new()));
}

#[test]
fn imports_that_multiply_are_an_error() {
    let folder = Folder::with(&[("application.yml", "spring.config.import: f0.yml\n")]);
    for n in 0..14 {
        let next = format!("f{}.yml", n + 1);
        folder.write(&format!("f{n}.yml"), format!("spring.config.import: {next}, {next}, {next}\n"));
    }
    folder.write("f14.yml", "a: 1\n");
    let error = folder.load(&[]).unwrap_err().to_string();
    assert!(error.contains("there are more than 2000 imports"), "{error}");
}

#[test]
fn empty_list_of_a_file_replaces_the_list_of_a_file_below() {
    let folder = Folder::with(&[
        ("application.yml", "eureka.instance.list: [a, b]\n"),
        ("application-prod.yml", "eureka.instance.list: []\n"),
    ]);
    let list = |profile: &str| folder.get(&[profile], "eureka.instance.list");
    assert_eq!((list(""), list("--spring.profiles.active=prod")), ("a,b".into(), String::new()));
}

#[test]
fn invalid_value_is_an_error_with_file_and_line() {
    let text = "# comment\neureka:\n  client:\n    registry-fetch-interval-seconds: 30\n---\n\
                eureka:\n  client:\n    registry-fetch-interval-seconds: soon\n    proxy-port: ${geheim}\n";
    let folder = Folder::with(&[("config/application.yml", text)]);
    let settings = folder.load(&[]).unwrap();
    let value = settings.find("eureka.client.registry-fetch-interval-seconds", crate::config::Unit::Seconds);
    let error = value.unwrap().unwrap().duration().unwrap_err().to_string();
    assert_eq!(
        error,
        r#"config/application.yml:8: eureka.client.registry-fetch-interval-seconds: expected seconds, found "soon""#
    );
    let error = settings.get("eureka.client.proxy-port").unwrap_err().to_string();
    assert!(error.starts_with("config/application.yml:9: eureka.client.proxy-port: placeholder ${geheim}"), "{error}");
}

#[test]
fn file_that_cannot_be_read_is_an_error_with_the_reason() {
    for (files, arguments, part) in [
        (vec![("application.yml", "a: [1\n")], vec![], "application.yml:"),
        (
            vec![("application.yml", "a: 1\nspring.profiles: x\n")],
            vec![],
            "application.yml:2: spring.profiles: has no effect",
        ),
        (
            vec![("application-p.yml", "spring.profiles.active: x\n")],
            vec!["--spring.profiles.active=p"],
            "application-p.yml:1: spring.profiles.active: cannot be set where a profile is required",
        ),
        (
            vec![("application.yml", "spring.config.activate.on-profile: a & b | c\n")],
            vec![],
            r#"expected profiles such as prod & !eu, with parentheses where & and | are mixed, found "a & b | c""#,
        ),
        (vec![("application.yml", "spring.config.import: application.yml\n")], vec![], "does a file import itself?"),
        (
            vec![("application.yml", "spring.config.import: none.yml\n")],
            vec![],
            "application.yml:1: spring.config.import: cannot read none.yml: it does not exist (write optional:none.yml",
        ),
        (
            vec![("application.yml", "spring.config.import: 'configserver:'\n")],
            vec![],
            "only files and configtree: are read",
        ),
        (vec![("application.yml", "spring.config.import: x.toml\n")], vec![], ".properties"),
        (vec![], vec!["--spring.config.location=none/"], "argument --spring.config.location: cannot read none/"),
        (vec![("application.yml/x", "")], vec![], "cannot read application.yml: it is a folder"),
        (vec![("application.properties", "a=1\nb=\\u12")], vec![], "application.properties:2: malformed"),
    ] {
        let error = Folder::with(&files).load(&arguments).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let folder = Folder::with(&[]);
    folder.write("application.yml", b"a: 1\nb: \xff\n");
    assert_eq!(folder.load(&[]).unwrap_err().to_string(), "application.yml:2: expected UTF-8");
    folder.write("application.yml", "\u{feff}a: ä");
    folder.write("application.properties", b"l=\xe4");
    assert_eq!((folder.get(&[], "l"), folder.get(&[], "a")), ("ä".into(), "ä".into()));
}

#[test]
fn file_that_is_too_large_is_an_error() {
    let folder = Folder::with(&[]);
    folder.write("application.yml", "# comment\n".repeat(1 << 20));
    let error = folder.load(&[]).unwrap_err().to_string();
    assert_eq!(error, "cannot read application.yml: it has 10.0 MiB, expected at most 3.00 MiB");
}

#[cfg(unix)]
#[test]
fn pipe_and_unreadable_file_are_errors() {
    let folder = Folder::with(&[]);
    let path = folder.0.join("application.yml");
    if std::process::Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()) {
        let error = folder.load(&[]).unwrap_err().to_string();
        assert_eq!(error, "cannot read application.yml: it is no regular file");
        fs::remove_file(&path).unwrap();
    }
    std::os::unix::fs::symlink("application.yml", &path).unwrap();
    let error = folder.load(&[]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read application.yml: "), "{error}");
}

#[test]
fn malicious_file_is_read_in_bounded_time() {
    let long = "x".repeat(1000);
    let folder = Folder::with(&[]);
    for text in [
        "[".repeat(1 << 20),
        "{a: ".repeat(1 << 18),
        "- ".repeat(1 << 20),
        "? ".repeat(1 << 20),
        "&a ".repeat(1 << 20),
        format!("{long}: \n").repeat(2000),
        "\"".repeat(1 << 20),
        "a: |\n".repeat(1 << 18),
        "%TAG ! x\n".repeat(1 << 16),
    ] {
        folder.write("application.yml", &text);
        assert!(folder.load(&[]).is_err(), "{}", &text[..20]);
    }
}
