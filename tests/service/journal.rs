//! What journald gets: the real service under a stand-in that listens in a mount namespace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use foip::logging::Kind;
use nix::sys::signal::Signal;

use crate::{Host, Service, under_journald};

fn journald(host: &Host) -> UnixDatagram {
    let journald = UnixDatagram::bind(host.folder.join("socket")).unwrap();
    journald.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    journald
}

/// The next line, by the rules of systemd.io/JOURNAL_NATIVE_PROTOCOL.
fn line(journald: &UnixDatagram) -> BTreeMap<String, String> {
    let mut bytes = [0; 65536];
    loop {
        let length = journald.recv(&mut bytes).expect("no further line");
        // journald throws empty ones away.
        if length > 0 {
            return fields(&bytes[..length]);
        }
    }
}

fn fields(mut rest: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = BTreeMap::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == b'\n' || *b == b'=').unwrap();
        let name = text(&rest[..end]);
        let (value, after) = if rest[end] == b'=' {
            let value = &rest[end + 1..];
            value.split_at(value.iter().position(|b| *b == b'\n').unwrap())
        } else {
            let (length, value) = rest[end + 1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap());
            value.split_at(length.try_into().unwrap())
        };
        assert_eq!(after[0], b'\n', "{name}");
        assert_eq!(fields.insert(name.clone(), text(value)), None, "{name} is there twice");
        rest = &after[1..];
    }
    fields
}

fn until(
    journald: &UnixDatagram,
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
) -> BTreeMap<String, String> {
    loop {
        let line = line(journald);
        if wanted(&line) {
            return line;
        }
    }
}

#[test]
fn journald_gets_fields_and_stderr_nothing() {
    let host = Host::new();
    let journald = journald(&host);
    let service = Service(under_journald(&host).spawn().unwrap());
    let get = |line: &BTreeMap<String, String>, name: &str| line.get(name).cloned();
    let id = |kind: Kind| kind.message_id().map(str::to_owned);

    let started = line(&journald);
    assert!(started["MESSAGE"].starts_with("foip "), "{started:?}");
    assert_eq!(started["PRIORITY"], "5");
    assert_eq!(started["SYSLOG_IDENTIFIER"], "foip");
    assert_eq!(get(&started, "MESSAGE_ID"), id(Kind::Started));
    // A field that a line does not have is left out, not empty.
    assert!(!started.keys().any(|name| name.starts_with("FOIP_")), "{started:?}");

    let group = until(&journald, |line| line.contains_key("FOIP_GROUP"));
    assert_eq!((&*group["FOIP_GROUP"], &*group["FOIP_STATE"]), ("default", "free"), "{group:?}");
    assert_eq!(group["FOIP_EPOCH"], "0");
    assert_eq!(group["PRIORITY"], "5");
    assert_eq!(get(&group, "MESSAGE_ID"), id(Kind::Changed));

    host.configure("[lease]\nduration = \"1s\"\n");
    service.signal(Signal::SIGHUP);
    let refused = until(&journald, |line| get(line, "MESSAGE_ID") == id(Kind::Reloaded));
    assert_eq!(refused["PRIORITY"], "3", "{refused:?}");
    assert!(refused["MESSAGE"].contains("duration = \"1s\" is too short"), "{refused:?}");

    drop(service);
    assert_eq!(fs::read_to_string(host.folder.join("stderr")).unwrap(), "");
}

#[test]
fn a_journald_that_comes_late_learns_how_many_lines_it_missed() {
    let host = Host::new();
    let service = Service(under_journald(&host).spawn().unwrap());
    host.hear("WATCHDOG=1");
    let journald = journald(&host);
    service.signal(Signal::SIGHUP);
    let first = line(&journald);
    assert!(first["FOIP_LOST"].parse::<u32>().unwrap() > 0, "{first:?}");
    assert_eq!(first["PRIORITY"], "4");
    // Whatever else the service had to say meanwhile, the lines come through again.
    let reloaded = Kind::Reloaded.message_id();
    until(&journald, |line| line.get("MESSAGE_ID").map(String::as_str) == reloaded);
}

#[test]
fn a_stopped_journald_stops_neither() {
    let host = Host::new();
    let _never_read = journald(&host);
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"MESSAGE=full\n", host.folder.join("socket")).is_ok() {}
    let service = Service(under_journald(&host).spawn().unwrap());
    service.turns_and_leaves(&host);
}
