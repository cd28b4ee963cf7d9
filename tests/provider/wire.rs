//! What leaves this host, and what does not: TLS, the gate behind a slow handshake, connections that are given up.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foip::clock;
use foip::core::facts::{ProviderFailure, RouteOutcome};
use foip::provider::{Guard, open};
use foip::types::Span;
use foip_standins::scp::{Scp, Setup};

use crate::bench::*;

/// A way to the stand-in on which each piece of what the client sends takes its time.
struct Road {
    address: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl Road {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(target).unwrap();
                let (back, front) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let delay = Arc::clone(&delay);
                std::thread::spawn(move || copy(&client, &server, &delay));
                std::thread::spawn(move || copy(&back, &front, &AtomicU64::new(0)));
            }
        });
        Self { address, delay_ms }
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, delay: &AtomicU64) {
    let mut part = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut part) {
        std::thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
        if to.write_all(&part[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn the_gate_stands_behind_the_handshake() {
    let mut bench = bench();
    let target = bench.scp.url().trim_start_matches("https://").parse().unwrap();
    let road = Road::to(target);
    bench.options.url = Some(format!("https://{}/scp-core", road.address));
    bench.provider = bench.again();
    bench.warm();
    // The handshake takes the client's first flight: 150 ms until the request could go.
    road.delay_ms.store(150, Ordering::Relaxed);
    let guard = Guard { not_after: clock::now() + Span::millis(100), timeout: Span::secs(2) };
    let began = Instant::now();
    let routing = bench.provider.route(v4(), &server(1), guard);
    assert!(
        matches!(&routing.outcome, RouteOutcome::NotSent(why) if why.contains("too late") || why.contains("after the last moment")),
        "{:?}",
        routing.outcome
    );
    assert!(began.elapsed() >= Duration::from_millis(150));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((routing.started, bench.route_calls()), (None, 0));
    // The same with time enough.
    let routing = bench.provider.route(v4(), &server(1), soon());
    assert!(matches!(routing.outcome, RouteOutcome::Accepted(_)), "{:?}", routing.outcome);
}

#[test]
fn a_stranger_with_another_authority_learns_nothing() {
    let bench = bench();
    let other = Scp::start(Setup::example()).unwrap();
    let mut options = bench.options.clone();
    options.url = Some(format!("{}/scp-core", other.url()));
    options.auth_url = Some(format!("{}/realms/scp", other.url()));
    let failure = open(options).unwrap().routes(&both()).value.unwrap_err();
    let ProviderFailure::Retry { why, .. } = failure else {
        panic!("{failure:?}");
    };
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(other.log().len(), 0);
}

#[test]
fn the_systems_authorities_are_the_default() {
    let mut bench = bench();
    bench.options.ca_file = None;
    let failure = bench.again().routes(&both()).value.unwrap_err();
    assert!(matches!(failure, ProviderFailure::Retry { .. }), "{failure:?}");
    assert_eq!(bench.scp.log().len(), 0);
}

#[test]
fn plain_http_leads_to_this_host_only() {
    let bench = with(|setup| setup.plain = true);
    bench.provider.routes(&both()).value.unwrap();
    let mut options = bench.options.clone();
    options.url = Some("http://198.51.100.1/scp-core".into());
    assert!(open(options).is_err());
}

#[test]
fn the_environments_proxy_is_not_asked() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let names = ["http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rest::only_the_families_in_use_are_asked_for"])
        .envs(names.map(|name| (name, &address)))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && text.contains("1 passed"), "{text}");
    assert!(proxy.accept().is_err());
}

#[test]
fn a_connection_that_is_given_up_is_reset() {
    // The peer takes the request and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bench = with(|setup| setup.plain = true);
    bench.options.timeouts.total = Span::millis(300);
    bench.options.url = Some(format!("http://{}", listener.local_addr().unwrap()));
    let provider = bench.again();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut part = [0; 4096];
        assert!(stream.read(&mut part).unwrap() > 0);
        stream.read(&mut part).map_err(|error| error.kind())
    });
    let failure = provider.routes(&[v4()].into()).value.unwrap_err();
    assert!(matches!(failure, ProviderFailure::Retry { .. }));
    assert_eq!(peer.join().unwrap(), Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn nobody_there_is_no_answer() {
    let mut bench = bench();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.options.url = Some(format!("https://{free}/scp-core"));
    bench.provider = bench.again();
    let ProviderFailure::Retry { why, .. } = bench.trouble() else {
        panic!("answered");
    };
    assert!(why.contains("refused"), "{why}");
    let routing = bench.provider.route(v4(), &server(1), soon());
    assert!(matches!(routing.outcome, RouteOutcome::NotSent(_)));
    bench.options.url = Some("https://foip.invalid/scp-core".into());
    bench.options.timeouts.total = Span::millis(500);
    let began = Instant::now();
    let failure = bench.again().routes(&[v4()].into()).value.unwrap_err();
    assert!(matches!(failure, ProviderFailure::Retry { .. }));
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Set in the process that has files for names of its own.
const NAMED: &str = "FOIP_TEST_NAMED";

/// The system's resolver, as it is: it answers, and with the holder's death it does not.
#[test]
fn a_resolver_that_died_with_the_holder_stops_no_question() {
    let Some(folder) = std::env::var_os(NAMED).map(PathBuf::from) else {
        let folder = Folder::new();
        for name in ["hosts", "resolv.conf"] {
            std::fs::write(folder.0.join(name), "").unwrap();
        }
        let mounts = "mount --bind \"$0\"/hosts /etc/hosts && mount --bind \"$0\"/resolv.conf /etc/resolv.conf && exec \"$@\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", mounts])
            .arg(&folder.0)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "wire::a_resolver_that_died_with_the_holder_stops_no_question"])
            .env(NAMED, &folder.0)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
        return;
    };
    // Nothing comes back from there.
    let silent = UdpSocket::bind("127.0.0.154:53").unwrap();
    let names = |hosts: &str, server: &str| {
        std::fs::write(folder.join("hosts"), hosts).unwrap();
        let text = format!("nameserver {server}\noptions timeout:30 attempts:5\n");
        std::fs::write(folder.join("resolv.conf"), text).unwrap();
    };
    for (server, hangs) in [("127.0.0.154", true), ("127.0.0.155", false)] {
        let mut bench = with(|setup| setup.names.push("scp.example".into()));
        let url = bench.scp.url().replace("127.0.0.1", "scp.example");
        bench.options.url = Some(format!("{url}/scp-core"));
        bench.options.auth_url = Some(format!("{url}/realms/scp"));
        bench.options.addresses = Some(bench.folder.0.join("addresses.json"));
        bench.options.timeouts.total = Span::secs(5);
        names("127.0.0.1 scp.example\n", server);
        bench.again().routes(&both()).value.unwrap();
        let file = bench.options.addresses.clone().unwrap();
        for _ in 0..500 {
            if file.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        names("", server);
        // A new process: it has only what is on disk. Its first question is for a token, at the login service.
        let provider = bench.again();
        let listing = provider.routes(&both()).value.unwrap();
        assert_eq!(listing.routes.len(), 2, "{server}");
        let home = provider.home(&host(1)).unwrap();
        let routing = provider.route(v4(), &home.server, soon());
        assert!(matches!(routing.outcome, RouteOutcome::Accepted(_)), "{:?}", routing.outcome);
        // Without the file there is no way.
        bench.options.addresses = None;
        let failure = bench.again().routes(&both()).value.unwrap_err();
        assert!(matches!(failure, ProviderFailure::Retry { .. }), "{failure:?}");
        // The resolver was asked, and kept silent.
        silent.set_nonblocking(true).unwrap();
        let mut question = [0; 512];
        let asked = std::iter::from_fn(|| silent.recv(&mut question).ok()).count() > 0;
        assert_eq!(asked, hangs);
    }
}
