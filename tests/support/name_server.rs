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
    /// Number of queries by name.
    queries: HashMap<String, usize>,
}

#[allow(dead_code, reason = "not all suites use all methods")]
impl Records {
    pub(crate) fn set(&self, name: &str, texts: &[&'static str]) {
        self.0.lock().unwrap().texts.insert(name.to_owned(), texts.to_vec());
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().unwrap().texts.remove(name);
    }

    /// Returns the number of queries for this name so far.
    pub(crate) fn queries(&self, name: &str) -> usize {
        self.0.lock().unwrap().queries.get(name).copied().unwrap_or_default()
    }

    fn texts_of(&self, name: String) -> Option<Vec<&'static str>> {
        let mut state = self.0.lock().unwrap();
        let texts = state.texts.get(&name).cloned();
        *state.queries.entry(name).or_default() += 1;
        texts
    }
}

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

/// Responds to one question with a record of one text per entry, or with NXDOMAIN.
fn response(query: &[u8], records: &Records) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let question = &query[12..at + 5];
    let texts = records.texts_of(labels.join("."));
    let mut response = query[..2].to_vec();
    response.extend([0x85, if texts.is_some() { 0 } else { 3 }, 0, 1, 0, texts.is_some().into(), 0, 0, 0, 0]);
    response.extend(question);
    if let Some(texts) = texts {
        let data: Vec<u8> = texts.iter().flat_map(|t| [&[t.len() as u8], t.as_bytes()].concat()).collect();
        response.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0]);
        response.extend((data.len() as u16).to_be_bytes());
        response.extend(data);
    }
    response
}
