//! Lines as journald has them, through `tracing-journald`.
//!
//! That crate sends in the thread of whoever logs, for as long as journald hangs, and to one fixed path. So it lives
//! on the log's own thread and nowhere else: what it does there is kept off everybody by the queue before it. What it
//! sends is judged with the whole service under a journald that listens in a mount namespace (`tests/service`).
//!
//! It costs 33 KB of the program and five crates, and adds `TARGET`, `CODE_FILE` and `CODE_LINE` of `emit` below to each
//! line.
//!
//! It says nothing of lines that could not be sent. An empty datagram before each line, which journald throws away,
//! tells whether there is a journald at all; lines are lost uncounted only where it ends between the two.

use std::io;
use std::os::unix::net::UnixDatagram;

use nix::sys::stat::fstat;
use tracing::{Dispatch, dispatcher};
use tracing_journald::{Layer, Priority, PriorityMappings};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;

use super::{Level, Record, Sink};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// No other event gets into the journal by this way.
const TARGET: &str = "foip::journal";

/// Every field that a line may have, apart from the text, the priority and the `MESSAGE_ID`.
pub(super) const FIELDS: [&str; 8] = [
    "FOIP_GROUP",
    "FOIP_IP",
    "FOIP_EPOCH",
    "FOIP_STATE",
    "FOIP_HOLDER",
    "FOIP_SERVER",
    "FOIP_ALARM",
    "FOIP_LOST",
];

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
    probe: UnixDatagram,
    /// Made at the first line for which there is a journald.
    layer: Option<Dispatch>,
}

impl Journal {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { probe: UnixDatagram::unbound()?, layer: None })
    }

    fn layer(&mut self) -> io::Result<&Dispatch> {
        // By path each time: journald makes a new socket when it is restarted by hand.
        self.probe.send_to(&[], SOCKET)?;
        if self.layer.is_none() {
            let layer = Layer::new()?
                .with_field_prefix(None)
                .with_syslog_identifier("foip".into())
                // tracing has no level for a notice: its five stand for our five, in the same order.
                .with_priority_mappings(PriorityMappings {
                    error: Priority::Error,
                    warn: Priority::Warning,
                    info: Priority::Notice,
                    debug: Priority::Informational,
                    trace: Priority::Debug,
                });
            let only = filter_fn(|event| event.target() == TARGET);
            self.layer = Some(tracing_subscriber::registry().with(layer).with(only).into());
        }
        self.layer.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Sink for Journal {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        dispatcher::with_default(self.layer()?, || emit(record));
        Ok(())
    }
}

/// One event of the line, with the fields that it has: tracing wants level and names to be known beforehand.
fn emit(record: &Record) {
    let text = record.text.as_str();
    let field = |name| {
        let found = record.fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    };
    let id = record.kind.message_id();
    let [group, ip, epoch, state, holder, server, alarm, lost] = FIELDS.map(field);
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(
                target: TARGET,
                tracing::Level::$level,
                message = text,
                MESSAGE_ID = id,
                FOIP_GROUP = group,
                FOIP_IP = ip,
                FOIP_EPOCH = epoch,
                FOIP_STATE = state,
                FOIP_HOLDER = holder,
                FOIP_SERVER = server,
                FOIP_ALARM = alarm,
                FOIP_LOST = lost,
            )
        };
    }
    match record.level {
        Level::Error => event!(ERROR),
        Level::Warning => event!(WARN),
        Level::Notice => event!(INFO),
        Level::Info => event!(DEBUG),
        Level::Debug => event!(TRACE),
    }
}
