//! Settings of the binary, in each form and from each source.

use std::process::Command;

use super::{binary, listens, plain, serve, start};

#[test]
fn invalid_setting_is_an_error_on_stderr() {
    let output = serve("127.0.0.1:0").args(["--eureka.server.eviction-interval-timer-in-ms", "0"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("Eviction::interval must be"), "{error}");
}

#[test]
fn spring_settings_are_read_in_each_form() {
    let running = start(&[
        "--eureka.server.renewalPercentThreshold=0.5",
        "--eureka.server.EVICTION-INTERVAL-TIMER-IN-MS",
        "1000",
        "--spring.application.name=registry",
        "--eureka.server.batchReplication=true",
    ]);
    assert_eq!(running.stop("TERM"), (Some(0), String::new()));

    let output = serve("127.0.0.1:0").env("EUREKA_SERVER_EVICTIONINTERVALTIMERINMS", "soon").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains(r#"EUREKA_SERVER_EVICTIONINTERVALTIMERINMS: expected milliseconds, found "soon""#),
        "{error}"
    );
    // The command line takes precedence over the environment, but does not hide its errors.
    let mut command = serve("127.0.0.1:0");
    command.env("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://127.0.0.1:1/eureka/");
    let output = command.arg("--eureka.client.serviceUrl.defaultZone=nonsense").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("a peer's URL is unusable") && error.contains("nonsense"), "{error}");
}

/// Removes the folder at the end of a test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn with(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("tower-eureka-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            std::fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_of_the_working_directory_configure_the_server() {
    let yaml = "server:\n  address: 127.0.0.1\n  port: 1\neureka:\n  server:\n    lease-doubling: false\n\
                \x20   peer-outage-limit-ms: 5m\n    enable-self-preservation: ${preserve:false}\n\
                ---\nspring.config.activate.on-profile: any & !other\nserver.port: 0\n";
    let folder = Folder::with("serve", &[("application.yml", yaml)]);
    let mut command = plain();
    command.current_dir(&folder.0).args(["--spring.profiles.active=any", "--spring.application.name=registry"]);
    let (address, log) = listens(command);
    assert!(address.starts_with("127.0.0.1:") && address != "127.0.0.1:1", "{address}: {log}");

    std::fs::write(folder.0.join("application.yml"), "eureka:\n  server:\n    lease-doubling: maybe\n").unwrap();
    let output = plain().current_dir(&folder.0).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = r#"application.yml:3: eureka.server.lease-doubling: expected true or false, found "maybe""#;
    assert!(output.status.code() == Some(1) && error.contains(expected), "{error}");
}

#[test]
fn config_prints_the_settings_in_force_with_their_sources() {
    let yaml = "eureka:\n  client.service-url.defaultZone: http://user:geheim@registry/eureka/\n";
    let folder = Folder::with("config", &[("application.yml", yaml)]);
    let run = |arguments: &[&str]| {
        let mut command = binary();
        command.arg("config").args(arguments).current_dir(&folder.0).env("EUREKA_SERVER_DISABLEDELTA", "true");
        let output = command.output().unwrap();
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), stdout, stderr)
    };
    let (code, stdout, stderr) = run(&["--eureka.server.renewalPercentThreshold=0.5"]);
    assert_eq!(code, Some(0), "{stderr}");
    for line in [
        "eureka.client.service-url.defaultZone = http://***@registry/eureka/ (application.yml:2)\n",
        "EUREKA_SERVER_DISABLEDELTA = true (environment)\n",
        "eureka.server.renewalPercentThreshold = 0.5 (argument)\n",
        "eureka.server.lease-doubling = true (default)\n",
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    assert!(!stdout.contains("eureka.server.disable-delta =") && !stdout.contains("geheim"), "{stdout}");
    let (code, stdout, stderr) = run(&["--eureka.server.renewal-percent-threshold", "most"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stderr.contains(r#"argument --eureka.server.renewal-percent-threshold: expected a number"#), "{stderr}");
}

#[test]
fn config_warns_and_fails_as_serve_does() {
    let folder = Folder::with("config-checks", &[("application.yml", "eureka.server.lease-dubling: true\n")]);
    let run = |command: &str, argument: &str| {
        let mut binary = binary();
        binary.args([command, "--server.port=0", argument]).current_dir(&folder.0).env_remove("RUST_LOG");
        let output = binary.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = run("config", "--eureka.server.my-url=http://node/");
    let typo =
        "application.yml:1: eureka.server.lease-dubling is no setting; did you mean eureka.server.lease-doubling?";
    assert!(code == Some(0) && stderr.contains("WARN") && stderr.contains(typo), "{stderr}");
    for (argument, why) in [
        ("--server.port=x", "expected a port"),
        ("--server.address=a:1", "expected brackets"),
        ("--eureka.client.service-url.defaultZone=registry:8761", "a peer's URL is unusable"),
        ("--eureka.server.peer-node-read-timeout-ms=0", "eureka.server.peer-node-read-timeout-ms"),
        ("--eureka.server.remote-region-urls-with-name=eu", "'eu' has no URL"),
        ("--eureka.instance.hostname=a b", "this node cannot be registered"),
    ] {
        for command in ["config", "serve"] {
            let (code, stderr) = run(command, argument);
            assert!(code == Some(1) && stderr.contains(why), "{command} {argument}: {stderr}");
        }
    }
}

#[test]
fn placeholder_is_an_error_that_shows_no_value() {
    for (variable, argument) in [
        ("", "--eureka.instance.instance-id=${spring.application.name}:${random.value}"),
        (
            "",
            "--eureka.client.serviceUrl.defaultZone=http://u:secret@${eureka.instance.hostname}:${server.port}/eureka/",
        ),
        ("", "--spring.application.name=${MISSING_NAME}${OTHER:secret}"),
        ("", "--eureka.server.eviction-interval-timer-in-ms=${MISSING_X}"),
        ("EUREKA_INSTANCE_HOSTNAME", "${MISSING_HOSTNAME}"),
        ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://u:secret@${MISSING_HOST}:8761/eureka/"),
        ("EUREKA_CLIENT_AVAILABILITYZONES_US_EAST_1", "${MISSING_ZONE}"),
    ] {
        let mut command = serve("127.0.0.1:0");
        if variable.is_empty() {
            command.arg(argument);
        } else {
            command.env(variable, argument);
        }
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable} {argument}: {error}");
        assert!(error.contains("has no value") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn unknown_setting_is_an_error_that_names_the_nearest() {
    for (argument, expected) in [
        (
            "--eureka.server.wait-time-in-ms-when-synch-empty=0",
            "did you mean eureka.server.wait-time-in-ms-when-sync-empty?",
        ),
        ("--eureka.instance.hostnam=x", "did you mean eureka.instance.hostname?"),
        ("--eureka.server.my-url", "needs a value"),
    ] {
        let output = serve("127.0.0.1:0").arg(argument).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{argument}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn list_of_settings_has_every_setting() {
    let output = Command::new(env!("CARGO_BIN_EXE_tower-eureka")).arg("settings").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for property in tower_eureka::server::Property::all() {
        assert!(help.contains(&property.to_string()), "{property}");
    }
    assert!(help.contains("--eureka.server.peer-node-read-timeout-ms <MS>"), "{help}");
    assert!(help.contains("[default: 5000]"), "{help}");
}
