//! The tables of `docs/settings.md` are those of the code.
//!
//! With the environment variable `UPDATE_DOCS=1` the test writes the tables. All features are
//! required, since rows depend on them.

use std::fmt::Write;
use std::path::Path;

use crate::config::{INSTANCE, INSTANCE_UNSUPPORTED, INSTANCE_WITHOUT_MEANING, Key, REGISTRAR};
use crate::eureka::balancing::{BY_SERVICE, LOADBALANCER};
use crate::eureka::keys::{CLIENT, STATUSES, SWITCHES, WITHOUT_MEANING};

const HEAD: &str =
    "| setting | environment variable | Netflix name | builder method | default | unit |\n|---|---|---|---|---|---|\n";

fn rows<B>(keys: impl IntoIterator<Item = &'static Key<B>>) -> String
where
    B: 'static,
{
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let mut text = HEAD.to_owned();
    for key in keys {
        let netflix = key.netflix.iter().map(|(name, unit)| {
            let is_other = *unit != key.unit;
            format!("`{name}`{}", if is_other { format!(" ({})", unit.shown()) } else { String::new() })
        });
        let netflix = netflix.collect::<Vec<_>>().join(", ");
        let (name, variable, method) = (key.name, key.variable(), code(key.method));
        writeln!(text, "| `{name}` | `{variable}` | {netflix} | {method} | {} | {} |", key.default, key.unit.shown())
            .expect("write to String is infallible");
    }
    text
}

fn reasons(names: impl IntoIterator<Item = &'static (&'static str, &'static str)>) -> String {
    let mut text = "| setting | reason |\n|---|---|\n".to_owned();
    for (name, reason) in names {
        writeln!(text, "| `{name}` | {reason} |").expect("write to String is infallible");
    }
    text
}

#[test]
fn documented_settings_are_those_of_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let mut expected = document.clone();
    for (name, table) in [
        ("client", rows(SWITCHES.iter().chain(CLIENT).chain(STATUSES))),
        ("calls", rows(LOADBALANCER)),
        ("calls by service", rows(BY_SERVICE)),
        ("instance", rows(INSTANCE)),
        ("registrar", rows(REGISTRAR)),
        ("server", rows(crate::server::property_keys())),
        ("ignored", reasons(WITHOUT_MEANING.iter().chain(INSTANCE_WITHOUT_MEANING))),
        ("unsupported", reasons(INSTANCE_UNSUPPORTED)),
    ] {
        let [start, end] = [format!("<!-- table: {name} -->\n"), "<!-- end -->".to_owned()];
        let from = expected.find(&start).expect("each table has its place") + start.len();
        let to = from + expected[from..].find(&end).expect("each table has an end");
        expected.replace_range(from..to, &format!("\n{table}\n"));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    } else {
        assert!(document == expected, "docs/settings.md is out of date: run this test with UPDATE_DOCS=1");
    }
}
