//! What an answer costs in memory, whatever it holds.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use foip::core::config::Api;
use foip::provider::{HostFacts, Options, Timeouts, open};
use foip::types::Span;

use crate::bench::*;

/// Most that the process may grow by, in kB, for any one of the answers.
const MOST: u64 = 16 * 1024;
/// Set in the process that is measured.
const INSIDE: &str = "FOIP_TEST_MEMORY";

/// How an answer begins, what is repeated in it, and how it ends.
const ANSWERS: [(&str, &str, &str); 11] = [
    ("[{}", ",{}", "]"),
    ("[{\"\":0}", ",{\"\":0}", "]"),
    ("[{\"id\":1}", ",{\"id\":1}", "]"),
    ("[{\"id\":1,\"ip\":\"203.0.113.63\"}", ",{\"id\":1,\"ip\":\"203.0.113.63\"}", "]"),
    ("[{\"site\":{\"id\":1}}", ",{\"site\":{\"id\":1}}", "]"),
    ("[0", ",0", "]"),
    ("[[]", ",[]", "]"),
    ("[\"", "x", "\"]"),
    ("{\"name\":[\"\"", ",\"\"", "]}"),
    (
        "<Envelope><Body><getVServersResponse>",
        "<return>v1</return>",
        "</getVServersResponse></Body></Envelope>",
    ),
    ("<Envelope><Body><getVServersResponse>", "<a/>", "</getVServersResponse></Body></Envelope>"),
];

/// A peer that costs no memory: it says the same again and again.
fn peer(answer: (&'static str, &'static str, &'static str), bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = serve(&stream, answer, bytes);
        }
    });
    address
}

fn serve(
    mut stream: &TcpStream,
    (begin, again, end): (&str, &str, &str),
    bytes: usize,
) -> std::io::Result<()> {
    let mut head = [0; 4096];
    let count = stream.read(&mut head)?;
    let request = String::from_utf8_lossy(&head[..count]);
    if request.contains("/token") {
        let grant = r#"{"access_token":"eyJ.eyJpZCI6IjU1NTAwMSIsInByZWZlcnJlZF91c2VybmFtZSI6IjEwMDAwMCJ9.x","expires_in":300}"#;
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{grant}", grant.len());
    }
    let times = (bytes - begin.len() - end.len()) / again.len();
    let length = begin.len() + times * again.len() + end.len();
    let kind = if begin.starts_with('<') { "text/xml" } else { "application/json" };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 21:30:05 GMT\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{begin}"
    )?;
    let piece = again.repeat(1000);
    for _ in 0..times / 1000 {
        stream.write_all(piece.as_bytes())?;
    }
    write!(stream, "{}{end}", again.repeat(times % 1000))
}

/// The most memory that this process has ever had, in kB.
fn most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn no_answer_costs_more_than_netcups_own_could() {
    if std::env::var_os(INSIDE).is_none() {
        // In a process of its own: the other tests have threads, and peaks, of theirs.
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::no_answer_costs_more_than_netcups_own_could", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
        return;
    }
    let folder = Folder::new();
    let token_file = folder.0.join("token");
    write_token(&token_file, REFRESH);
    let mut largest = 0;
    for answer in ANSWERS {
        for bytes in [500_000, 1_000_000, 20_000_000] {
            let api = if answer.0.starts_with('<') { Api::Soap } else { Api::Rest };
            let url = format!("http://{}", peer(answer, bytes));
            let provider = open(Options {
                api,
                url: Some(url.clone()),
                auth_url: Some(url),
                ca_file: None,
                token_file: token_file.clone(),
                addresses: None,
                login_name: "100000".parse().ok(),
                password: Some("webservice-password".into()),
                timeouts: Timeouts { connect: Span::secs(2), total: Span::secs(10) },
            })
            .unwrap();
            let before = most();
            let _ = provider.routes(&both()).value;
            let _ = provider.past_calls();
            let _ = provider.home(&HostFacts::default());
            let grown = most() - before;
            largest = largest.max(grown);
            assert!(grown <= MOST, "{bytes} bytes of {:?} cost {grown} kB", answer.1);
        }
    }
    println!("at most {largest} kB, {} kB in all", most());
    assert!(largest > 0);
}
