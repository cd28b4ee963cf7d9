//! For tests: golden files, and a peer on loopback that says what it is told to and keeps what it hears.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::{Client, Request};
use super::{Options, Timeouts};
use crate::core::config::Api;
use crate::types::Span;

/// A file under `tests/golden/provider`.
pub(super) fn golden(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn path(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/golden/provider").join(name)
}

/// Compares with a golden file; with `BLESS` in the environment it is written instead, to be read by a person.
pub(super) fn compare(name: &str, actual: &str) {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path(name), actual).unwrap();
    }
    assert_eq!(actual, golden(name), "{name}");
}

/// Answers each connection with the next of its scripts, or a plain 200.
pub(super) struct Peer {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    script: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let script: Arc<Mutex<Vec<String>>> = Arc::default();
        let (keep, next) = (Arc::clone(&heard), Arc::clone(&script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let request = hear(&stream);
                if request.is_empty() {
                    continue;
                }
                keep.lock().unwrap().push(request);
                let mut script = next.lock().unwrap();
                let answer = match script.is_empty() {
                    true => answer("200 OK", "application/json", "{}"),
                    false => script.remove(0),
                };
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        Self { address, heard, script }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn say(&self, answer: String) {
        self.script.lock().unwrap().push(answer);
    }

    /// The requests so far, with this peer's address and foip's version made the same for all.
    pub(super) fn heard(&self) -> Vec<String> {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let plain = |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .unwrap()
                .replace(&self.address.to_string(), "HOST")
                .replace(env!("CARGO_PKG_VERSION"), "VERSION")
        };
        heard.into_iter().map(plain).collect()
    }
}

/// A response as text.
pub(super) fn answer(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nDate: Sun, 22 Nov 2026 21:30:05 GMT\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn hear(stream: &TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while let Ok(count) = (&*stream).read(&mut part) {
        request.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return Vec::new();
            }
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse::<usize>().unwrap());
        if body.len() >= length || count == 0 {
            break;
        }
    }
    request
}

/// Options that lead to `url`.
pub(super) fn options(api: Api, url: &str) -> Options {
    Options {
        api,
        url: Some(url.to_owned()),
        auth_url: Some(url.to_owned()),
        ca_file: None,
        token_file: "/nonexistent/foip-token".into(),
        addresses: None,
        login_name: "100000".parse().ok(),
        password: Some("webservice-password".into()),
        timeouts: Timeouts { connect: Span::secs(2), total: Span::secs(5) },
    }
}

/// A client for `peer`.
pub(super) fn client(peer: &Peer) -> Client {
    let url = format!("http://{}", peer.address());
    Client::open(&options(Api::Rest, &url)).unwrap()
}

/// The bytes that a request becomes.
pub(super) fn wire(peer: &Peer, request: Request) -> String {
    client(peer).send(request, Span::secs(5), None).unwrap();
    peer.heard().pop().unwrap()
}
