//! journald's native protocol: one datagram of fields per line (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! By hand rather than by tracing-journald: that crate sends to a fixed path in the caller's thread, so what a
//! stopped journald does could neither be kept off the caller nor be tested.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::sys::stat::fstat;

use super::{Record, Sink};

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Longer values are cut: a datagram has to fit into the socket's buffer (212,992 bytes by default).
const LONGEST: usize = 16 * 1024;

/// Does stderr go to journald? (`JOURNAL_STREAM`, `systemd.exec(5)`.) A child with stderr elsewhere inherits
/// the variable, so device and inode are compared.
pub fn is_attached() -> bool {
    let Ok(variable) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = fstat(io::stderr()) else {
        return false;
    };
    variable == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// The line to journald. It may hang for as long as journald does.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        Ok(Self { socket, path })
    }
}

impl Sink for Journal {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        // By path each time: journald makes a new socket when it is restarted by hand.
        self.socket.send_to(&encode(record), &self.path).map(drop)
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(512);
    field(&mut datagram, "MESSAGE", &record.text);
    field(&mut datagram, "PRIORITY", &record.level.priority().to_string());
    field(&mut datagram, "SYSLOG_IDENTIFIER", "foip");
    if let Some(id) = record.kind.message_id() {
        field(&mut datagram, "MESSAGE_ID", id);
    }
    for (name, value) in &record.fields {
        field(&mut datagram, name, value);
    }
    datagram
}

fn field(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(LONGEST);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value[..end];
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        // The name, a line break, the length in little-endian, the value.
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        datagram.push(b'\n');
        datagram.extend_from_slice(&length.to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::files::tests::Folder;
    use crate::logging::{Kind, Level, Log};
    use crate::types::Span;

    fn record(text: &str) -> Record {
        Record {
            level: Level::Notice,
            kind: Kind::Changed,
            text: text.into(),
            fields: vec![("FOIP_GROUP", "default".into()), ("FOIP_EPOCH", "7".into())],
        }
    }

    #[test]
    fn golden_datagrams() {
        assert_eq!(
            String::from_utf8(encode(&record("holds default"))).unwrap(),
            "MESSAGE=holds default\nPRIORITY=5\nSYSLOG_IDENTIFIER=foip\n\
             MESSAGE_ID=5f1c2b7b3d0f4e6a9a0d6f0c1a52e807\nFOIP_GROUP=default\nFOIP_EPOCH=7\n"
        );
        let two = encode(&record("a\nPRIORITY=0"));
        assert!(
            two.starts_with(b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nPRIORITY=5\n"),
            "{two:?}"
        );
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let datagram = encode(&record(&"ä".repeat(100_000)));
        assert!(datagram.len() < LONGEST + 200);
        assert!(String::from_utf8(datagram).is_ok());
    }

    #[test]
    fn a_stopped_journald_holds_nobody_up_and_learns_what_it_missed() {
        let folder = Folder::new();
        let path = folder.0.join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let log = Log::start(Level::Info, 64, Journal::new(path).unwrap()).unwrap();
        // Nobody reads: the kernel's queue, then ours is full.
        let start = clock::now();
        for _ in 0..20_000 {
            log.send(record("a line"));
        }
        assert!(!log.flush(Span::millis(50)), "the sender's thread hangs");
        assert!(clock::now().since(start) < Span::secs(2));
        // It goes on.
        journald.set_read_timeout(Some(Span::secs(5).as_std())).unwrap();
        let mut bytes = vec![0; 65536];
        let mut lines = 0;
        loop {
            let length = journald.recv(&mut bytes).expect("the lost lines are told");
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if let Some(lost) = text.split("FOIP_LOST=").nth(1) {
                let lost: usize = lost.trim().parse().unwrap();
                assert!(text.contains("PRIORITY=4\n"), "{text}");
                assert!(lost > 0 && lost + lines < 20_000, "{lost} and {lines}");
                return;
            }
            lines += 1;
        }
    }

    #[test]
    fn a_journald_that_is_not_there_loses_lines_and_nothing_else() {
        let folder = Folder::new();
        let path = folder.0.join("socket");
        let log = Log::start(Level::Info, 64, Journal::new(path.clone()).unwrap()).unwrap();
        log.send(record("lost"));
        assert!(log.flush(Span::secs(5)));
        let journald = UnixDatagram::bind(&path).unwrap();
        journald.set_read_timeout(Some(Span::secs(5).as_std())).unwrap();
        log.send(record("kept"));
        let mut bytes = vec![0; 4096];
        let length = journald.recv(&mut bytes).unwrap();
        assert!(String::from_utf8_lossy(&bytes[..length]).contains("FOIP_LOST=1\n"));
        let length = journald.recv(&mut bytes).unwrap();
        assert!(bytes[..length].starts_with(b"MESSAGE=kept\n"));
    }
}
