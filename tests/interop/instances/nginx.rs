//! nginx with `keepalive_requests 10`: each connection ends with its tenth request, in HTTP/2 by a
//! GOAWAY among open streams.

use std::path::Path;
use std::time::Duration;

use http::Version;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::super::process::{Process, free_port};
use super::super::{slot, until};
use super::{CALLS, Fixture, Methods, call_by_name, skip};

const START: Duration = Duration::from_secs(10);

/// nginx process, killed when dropped.
struct Nginx {
    process: Process,
    port: u16,
}

impl Nginx {
    /// Starts nginx. Returns `None` and reports a skipped test if it is not installed.
    async fn start(name: &str, listen: &str) -> Option<Self> {
        let Some(program) = program() else {
            skip(name, "nginx is not installed (Debian: apt-get install nginx-light)");
            return None;
        };
        let port = free_port();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("target directory is writable");
        let folder = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log stderr notice;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; {temporary}
               server {{ listen 127.0.0.1:{port}{listen} backlog=1024; keepalive_requests 10; location / {{ return 200 'nginx'; }} }}
             }}\n"
        );
        let file = format!("{folder}/nginx.conf");
        std::fs::write(&file, configuration).expect("target directory is writable");
        let mut command = Command::new(program);
        command.args(["-e", "stderr", "-c", &file]);
        let mut process = Process::start(name, command);
        until("nginx listens", START, async || {
            process.assert_runs();
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Some(Self { process, port })
    }
}

/// Finds nginx, on Debian outside of the `PATH` of ordinary users.
fn program() -> Option<&'static str> {
    let is_there = |program: &&str| {
        let version = std::process::Command::new(program).arg("-v").output();
        version.is_ok_and(|output| output.status.success())
    };
    ["nginx", "/usr/sbin/nginx"].into_iter().find(is_there)
}

async fn nginx_that_ends_connections_fails_no_call(name: &str, listen: &str, version: Version) {
    let _slot = slot().await;
    let Some(mut nginx) = Nginx::start(name, listen).await else { return };
    let fixture = Fixture::new().await;
    fixture.register("nginx", "nginx-1", nginx.port).await;
    call_by_name(name, CALLS, fixture.eureka.http_client(), "http://nginx/", version, Methods::GetAndPost).await;
    nginx.process.assert_runs();
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_with_keepalive_requests_fails_no_call_over_http2() {
    nginx_that_ends_connections_fails_no_call("nginx-http2", " http2", Version::HTTP_2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_with_keepalive_requests_fails_no_call_over_http1() {
    nginx_that_ends_connections_fails_no_call("nginx-http1", "", Version::HTTP_11).await;
}
