use std::path::PathBuf;

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use tracing::Level;

use super::*;
use crate::server::captured_log::Log;
use crate::server::{ClientAuth, ServerTls};
use crate::time::{move_wall_clock, wall_clock_ms};

/// Files in the folder for temporary files, which are removed at the end.
struct Files([PathBuf; 3]);

impl Files {
    fn new(name: &str) -> Self {
        let path =
            |kind: &str| std::env::temp_dir().join(format!("tower-eureka-expiry-{name}-{kind}-{}", std::process::id()));
        Self(["cert", "key", "ca"].map(path))
    }

    /// Writes certificates that expire on these days of January 2030.
    fn write(&self, server: u8, client_ca: u8) {
        let [certificate, key, ca] = &self.0;
        let (pem, private) = certificate_until("node", server);
        std::fs::write(certificate, pem).unwrap();
        std::fs::write(key, private).unwrap();
        std::fs::write(ca, certificate_until("clients", client_ca).0).unwrap();
    }

    fn acceptor(&self) -> Acceptor {
        let [certificate, key, ca] = &self.0;
        let tls = ServerTls::new(certificate, key).client_ca(ca).client_auth(ClientAuth::Wanted);
        Acceptor::new(tls.into_files()).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.0.iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
}

fn certificate_until(name: &str, day: u8) -> (String, String) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = date_time_ymd(2030, 1, day);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// 2030-01-10 00:00:01 UTC.
const JANUARY_10: i64 = 1_893_456_000 + 9 * 86_400 + 1;
/// 2029-11-22 00:00:00 UTC.
const NOVEMBER_22: i64 = 1_893_456_000 - 40 * 86_400;

fn set_wall_clock(seconds: i64) {
    move_wall_clock(seconds * 1000 - wall_clock_ms());
}

fn address() -> Option<SocketAddr> {
    Some("127.0.0.1:8761".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn certificates_that_expire_soon_or_are_expired_are_logged_at_the_start_and_each_day() {
    let files = Files::new("soon");
    files.write(20, 5);
    let (log, _guard) = Log::start(Level::INFO);
    let counts = Arc::<ConnectionCounts>::default();
    set_wall_clock(JANUARY_10);
    let mut watch = Box::pin(watch(Some(files.acceptor()), address(), counts.clone()));
    tokio::select! {
        () = &mut watch => unreachable!("it never completes"),
        () = tokio::time::sleep(2 * DAY + DAY / 2) => {}
    }
    let text = log.text();
    let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!([lines(" WARN "), lines("TLS certificate expires soon")], [3, 3], "{text}");
    assert_eq!([lines("ERROR "), lines("TLS certificate has expired")], [3, 3], "{text}");
    let soon = "listener=127.0.0.1:8761 certificate=\"server\" subject=\"CN=node\" expires=Jan 20";
    assert_eq!([lines(soon), lines("days=9")], [3, 3], "{text}");
    assert_eq!(lines("certificate=\"client_ca\" subject=\"CN=clients\" expired=Jan  5"), 3, "{text}");
    #[cfg(feature = "prometheus")]
    assert_eq!(
        counts.certificates(),
        [("127.0.0.1:8761", "client_ca", 5), ("127.0.0.1:8761", "server", 20)].map(|(listener, kind, day)| (
            listener.into(),
            kind,
            1_893_456_000 + (day - 1) * 86_400
        ))
    );
    drop(watch);
    #[cfg(feature = "prometheus")]
    assert_eq!(counts.certificates(), [], "the listener has ended");
}

#[tokio::test(start_paused = true)]
async fn certificates_that_are_valid_for_long_are_logged_at_the_start_and_when_they_change() {
    let files = Files::new("long");
    files.write(20, 20);
    let (log, _guard) = Log::start(Level::INFO);
    let acceptor = files.acceptor();
    set_wall_clock(NOVEMBER_22);
    let watch = watch(Some(acceptor.clone()), address(), Arc::default());
    let mut watch = std::pin::pin!(watch);
    let mut pass = async |time: Duration| {
        tokio::select! {
            () = &mut watch => unreachable!("it never completes"),
            () = tokio::time::sleep(time) => {}
        }
    };
    pass(3 * DAY).await;
    let text = log.text();
    assert_eq!(text.lines().filter(|line| line.contains("TLS certificate in use")).count(), 2, "{text}");
    files.write(1, 20);
    acceptor.refresh();
    pass(Duration::from_secs(1)).await;
    let text = log.text();
    assert_eq!(text.lines().filter(|line| line.contains("TLS certificate in use")).count(), 4, "{text}");
    assert!(text.contains("expires=Jan  1"), "{text}");
    // Without a client that connects, the daily check reads the file.
    files.write(2, 20);
    pass(DAY).await;
    assert!(log.text().contains("expires=Jan  2"), "{}", log.text());
}

#[test]
fn number_of_lines_is_bounded_and_unreadable_certificates_are_left_out() {
    let (log, _guard) = Log::start(Level::INFO);
    let expiry = |_| Expiry { certificate: CLIENT_CA, subject: "CN=x".into(), not_after: 0, date: "then".into() };
    super::log(&(0..100).map(expiry).collect::<Vec<_>>(), "l", true, 1);
    assert_eq!(log.text().lines().count(), MAX_LINES);
    let broken = ListenerCertificates { chain: vec![b"\x30\x82".to_vec().into()], client_cas: Vec::new() };
    assert_eq!(read(&broken), []);
}
