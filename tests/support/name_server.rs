//! Name server on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

/// TXT records by name, in lower case and without the dot at the end.
#[derive(Clone, Default)]
pub(crate) struct Records(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    texts: HashMap<String, Vec<&'static str>>,
    /// Priority, port and host of each entry of an SRV record.
    services: HashMap<String, Vec<(u16, u16, &'static str)>>,
    /// Number of queries by name.
    queries: HashMap<String, usize>,
}

#[allow(dead_code, reason = "not all suites use all methods")]
impl Records {
    pub(crate) fn set(&self, name: &str, texts: &[&'static str]) {
        self.0.lock().unwrap().texts.insert(name.to_owned(), texts.to_vec());
    }

    /// Sets an SRV record.
    pub(crate) fn set_service(&self, name: &str, servers: &[(u16, u16, &'static str)]) {
        self.0.lock().unwrap().services.insert(name.to_owned(), servers.to_vec());
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().unwrap().texts.remove(name);
    }

    /// Returns the number of queries for this name so far.
    pub(crate) fn queries(&self, name: &str) -> usize {
        self.0.lock().unwrap().queries.get(name).copied().unwrap_or_default()
    }

    /// Returns the data of each record of a type: one for TXT, and one per entry for SRV.
    fn data_of(&self, name: String, kind: u8) -> Vec<Vec<u8>> {
        let mut state = self.0.lock().unwrap();
        *state.queries.entry(name.clone()).or_default() += 1;
        let text = |text: &&str| [&[text.len() as u8], text.as_bytes()].concat();
        let service = |(priority, port, host): &(u16, u16, &str)| {
            let mut data = [priority.to_be_bytes(), [0, 0], port.to_be_bytes()].concat();
            data.extend(host.split('.').flat_map(|label| text(&label)));
            data.push(0);
            data
        };
        match kind {
            TXT => state.texts.get(&name).map(|texts| texts.iter().flat_map(text).collect()).into_iter().collect(),
            _ => state.services.get(&name).into_iter().flatten().map(service).collect(),
        }
    }
}

const TXT: u8 = 16;

/// Starts a name server on loopback for these records.
pub(crate) async fn name_server(records: Records) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut query).await.unwrap();
            socket.send_to(&response(&query[..length], &records), from).await.unwrap();
        }
    });
    address
}

/// Responds to one question with the records, or with NXDOMAIN.
fn response(query: &[u8], records: &Records) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let question = &query[12..at + 5];
    let kind = question[question.len() - 3];
    let found = records.data_of(labels.join("."), kind);
    let mut response = query[..2].to_vec();
    response.extend([0x85, if found.is_empty() { 3 } else { 0 }, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    response.extend(question);
    for data in found {
        response.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0]);
        response.extend((data.len() as u16).to_be_bytes());
        response.extend(data);
    }
    response
}
