//! `tower-eureka health` against a server whose certificate does not name localhost.

use std::process::{Output, Stdio};

use axum::Router;
use tokio::process::Command;
use tower_eureka::EurekaServer;

use crate::world::{Ca, serve, server, temporary};

async fn health(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-eureka"));
    command.arg("health").args(arguments).envs(variables.iter().copied());
    for variable in ["TOWER_EUREKA_HEALTH_CA", "TOWER_EUREKA_HEALTH_SERVER_NAME", "TOWER_EUREKA_LISTEN"] {
        if !variables.iter().any(|(name, _)| *name == variable) {
            command.env_remove(variable);
        }
    }
    // Files of settings are read from there.
    let folder = temporary("health-verb");
    std::fs::create_dir_all(&folder).unwrap();
    let output = command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let Output { status, stdout, stderr } = output;
    (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_another_name_is_verified_with_the_ca_and_the_name_that_are_given() {
    let ca = Ca::new();
    let registry = EurekaServer::builder().build().unwrap();
    let app = Router::new().fallback_service(registry.service("/eureka").with_probes());
    let port = serve(server(ca.identity(&["registry.example"])), app).await.to_string();
    let file = ca.pem_file("health-verb.pem");
    let file = file.to_str().unwrap();
    let other = Ca::named("other").pem_file("health-verb-other.pem");
    let url = format!("https://localhost:{port}/");
    let at = ["--url", &*url];
    let (ca_option, name) = (["--ca", file], ["--server-name", "registry.example"]);
    // The settings of the server, from which the URL is derived.
    let (port_setting, tls) = (format!("--server.port={port}"), "--server.ssl.certificate=tls.crt");
    let variables = [("TOWER_EUREKA_HEALTH_CA", file), ("TOWER_EUREKA_HEALTH_SERVER_NAME", "registry.example")];
    let proxy = [("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "")];
    for (what, arguments, variables, code, expected) in [
        ("options", vec![&at[..], &ca_option, &name], &[][..], 0, "UP"),
        ("variables", vec![&at[..]], &variables, 0, "UP"),
        ("settings", vec![&[&*port_setting, tls], &ca_option[..], &name], &[], 0, "UP"),
        ("proxy", vec![&at[..], &ca_option, &name], &proxy, 0, "UP"),
        ("another option", vec![&at[..], &["--server-name", "other.example"]], &variables, 1, "other.example"),
        ("no name", vec![&at[..], &ca_option], &[], 1, "its certificate is for another name"),
        ("no CA", vec![&at[..], &name], &[], 1, "CA that is not trusted"),
        ("another CA", vec![&at[..], &["--ca", other.to_str().unwrap()], &name], &[], 1, "CA that is not trusted"),
        ("missing CA", vec![&at[..], &["--ca", "missing.pem"], &name], &[], 1, "missing.pem"),
        ("address as name", vec![&at[..], &["--server-name", "127.0.0.1"]], &[], 1, "takes a host name"),
    ] {
        let (found, text) = health(&arguments.concat(), variables).await;
        assert!(found == code && text.contains(expected), "{what}: {found} {text}");
    }
}
