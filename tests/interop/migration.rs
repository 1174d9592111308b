//! Commands of docs/migration.md, taken from the page, with two Spring servers.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::process::{Process, free_port};
use super::rust::folder;
use super::slot;
use super::spring::{java_archive, shared_classes};

/// Time limit of the whole page in seconds. It takes one minute, and several on a busy machine,
/// since three JVMs start.
const LIMIT: &str = "360";

/// Returns the blocks of this language in a page.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    page.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// Returns the words of a line without those that differ from run to run: durations, and the
/// numbers behind the result of a comparison.
fn words(line: &str) -> Vec<&str> {
    const AGREE: &str = " servers agree";
    let line = line.find(AGREE).map_or(line, |at| &line[..at + AGREE.len()]);
    let is_duration = |word: &&str| {
        let number = word.trim_end_matches(['s', 'm', 'h', 'd']);
        number.len() < word.len() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    line.split_whitespace().filter(|word| !is_duration(word)).collect()
}

#[tokio::test]
async fn page_replaces_two_spring_servers_node_by_node() {
    let _slot = slot().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/migration.md")).expect("the page exists");
    let ports = [free_port(), free_port()].map(|port| port.to_string());
    let page = page.replace("8761", &ports[0]).replace("8762", &ports[1]);
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("migration");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work).expect("target directory is writable");
    // A page that stops in the middle leaves no process.
    let stop = "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n";
    let script = format!("set -euo pipefail\n{stop}{}", blocks(&page, "sh").concat());
    std::fs::write(work.join("script.sh"), script).expect("target directory is writable");
    // The group is ended as a whole, the JVMs included.
    let mut command = Command::new("timeout");
    let path = format!("{}:{}", folder().display(), std::env::var("PATH").unwrap_or_default());
    command
        .args(["--kill-after=10", LIMIT, "bash", "script.sh"])
        .current_dir(&work)
        .env("PATH", path)
        .env("SPRING_JAR", java_archive("server"));
    for (variable, _) in std::env::vars() {
        if ["EUREKA_", "SERVER_", "SPRING_", "TOWER_EUREKA_"].iter().any(|start| variable.starts_with(start))
            && variable != "SPRING_JAR"
        {
            command.env_remove(variable);
        }
    }
    // A JVM starts faster so.
    let options = ["-XX:TieredStopAtLevel=1".to_owned()].into_iter().chain(shared_classes("server"));
    let options = options.collect::<Vec<_>>().join(" ");
    command.env("JAVA_TOOL_OPTIONS", options).stdin(Stdio::null());
    let mut process = Process::start("migration", command);
    let status = process.exit(Duration::from_secs(380)).await;
    let output = process.output();
    assert!(status.success(), "{status}: {output}");

    let mut lines = output.lines().map(words);
    for expected in blocks(&page, "text").iter().flat_map(|block| block.lines()) {
        assert!(lines.any(|line| line == words(expected)), "missing, or in another order: {expected}\n{output}");
    }
}
