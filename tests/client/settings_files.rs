//! Log lines about files of settings.

use std::fs;
use std::path::Path;

use tower_eureka::Settings;

use crate::captured_log::Log;

#[test]
fn files_of_a_tree_that_are_no_values_are_one_warning() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("settings-tree");
    fs::create_dir_all(folder.join("etc")).unwrap();
    for (file, content) in [("password", &b"geheim"[..]), ("key.p12", b"0\x82"), ("store.jks", b"\xfe\xed")] {
        fs::write(folder.join("etc").join(file), content).unwrap();
    }
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let settings = Settings::builder().directory(&folder).environment([("", ""); 0]);
    let settings = settings.property("spring.config.import", "configtree:etc/").load().unwrap();
    assert_eq!(settings.get("password").unwrap().as_deref(), Some("geheim"));
    let text = log.text();
    assert_eq!(text.matches("WARN").count(), 1, "{text}");
    assert!(text.contains("etc/key.p12 is no value of a setting: expected UTF-8; it is skipped others=1"), "{text}");
}
