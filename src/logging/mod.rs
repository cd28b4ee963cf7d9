//! The log: to journald when attached to it, else as text to stderr, and never in the way of who logs.
//!
//! ```text
//! NoteLog ────────┐
//! Log::info … ────┼─► bounded queue ─► thread ─► journald's socket, or stderr
//! tracing events ─┘   (full: counted)            (may hang; says how many lines were lost when it goes on)
//! ```
//!
//! The way to journald is `tracing-journald`, on that thread alone: see `journal`.

mod journal;
mod note;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tracing::field::{Field, Visit};
use tracing::span;

pub use journal::is_attached as is_journal_attached;
pub use note::NoteLog;

use crate::types::Span;
use crate::{clock, text};

/// Lines that wait for a journald that hangs; the rest is counted.
const QUEUE: usize = 1024;

/// How bad, as `syslog(3)` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A person must act.
    Error,
    /// It works, and a person should look.
    Warning,
    /// Something changed.
    Notice,
    /// For who wants to know more.
    Info,
    /// For who looks for a fault in foip.
    Debug,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// What a line is about: its `MESSAGE_ID` never changes, so that people can search and alert by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The process began.
    Started,
    /// The process leaves.
    Stopping,
    /// A new configuration is in force, or was refused.
    Reloaded,
    /// Authority over a group began or ended.
    Authority,
    /// Readiness as a successor began or ended.
    Ready,
    /// The provider says something new about an IP.
    Observed,
    /// The group's role on this node changed.
    Changed,
    /// Something a person should know began: this alarm's own `MESSAGE_ID`.
    Alarm(&'static str),
    /// It is over.
    AlarmOver,
    /// Lines were lost because the log's reader hung.
    LinesLost,
    /// Anything else.
    Other,
}

impl Kind {
    /// The `MESSAGE_ID` (`systemd.journal-fields(7)`); `None` for lines that nobody searches for.
    pub const fn message_id(self) -> Option<&'static str> {
        match self {
            Self::Started => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e801"),
            Self::Stopping => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e802"),
            Self::Reloaded => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e803"),
            Self::Authority => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e804"),
            Self::Ready => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e805"),
            Self::Observed => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e806"),
            Self::Changed => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e807"),
            Self::Alarm(id) => Some(id),
            Self::AlarmOver => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e809"),
            Self::LinesLost => Some("5f1c2b7b3d0f4e6a9a0d6f0c1a52e80a"),
            Self::Other => None,
        }
    }
}

/// One line with its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How bad.
    pub level: Level,
    /// What it is about.
    pub kind: Kind,
    /// The line.
    pub text: String,
    /// Journal fields, by their upper-case names.
    pub fields: Vec<(&'static str, String)>,
}

/// The way into the log; cheap to clone. Nothing here ever blocks.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    most: Level,
}

#[derive(Debug)]
enum Message {
    Line(Record),
    Flush(SyncSender<()>),
}

/// Where lines end.
trait Sink: Send {
    fn write(&mut self, record: &Record) -> io::Result<()>;
}

impl Log {
    /// The log of this process: journald where `JOURNAL_STREAM` says that stderr goes there, else stderr.
    /// `FOIP_LOG` (error, warning, notice, info, debug) sets how much is said; info unless it is set.
    ///
    /// # Errors
    /// The thread cannot be started, or journald's socket not be made.
    pub fn of_process() -> io::Result<Self> {
        let most = match std::env::var("FOIP_LOG").as_deref() {
            Ok("error") => Level::Error,
            Ok("warning") => Level::Warning,
            Ok("notice") => Level::Notice,
            Ok("debug") => Level::Debug,
            Ok(_) | Err(_) => Level::Info,
        };
        if journal::is_attached() {
            Self::start(most, QUEUE, journal::Journal::new()?)
        } else {
            Self::start(most, QUEUE, Text(io::stderr()))
        }
    }

    fn start(most: Level, queue: usize, sink: impl Sink + 'static) -> io::Result<Self> {
        let (queue, messages) = sync_channel(queue);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("foip-log".into())
            .spawn(move || drain(&messages, &counter, sink))?;
        Ok(Self { queue, lost, most })
    }

    /// Makes this log the place where `tracing` events of all crates go. Once per process; later calls do nothing.
    pub fn collect_tracing(&self) {
        let _ = tracing::subscriber::set_global_default(Collector { log: self.clone() });
    }

    /// Logs one line, which is cleaned first.
    pub fn send(&self, mut record: Record) {
        if record.level > self.most {
            return;
        }
        // Here, so that what waits in the queue is bounded, too.
        text::tidy(&mut record.text, text::LINE);
        for (_, value) in &mut record.fields {
            text::tidy(value, text::FIELD);
        }
        if self.queue.try_send(Message::Line(record)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs a line without fields.
    pub fn say(&self, level: Level, kind: Kind, text: impl Into<String>) {
        self.send(Record { level, kind, text: text.into(), fields: Vec::new() });
    }

    /// Waits until what was logged so far is written, at most for `limit`. For the way out only.
    pub fn flush(&self, limit: Span) -> bool {
        let (done, wait) = sync_channel(1);
        let sent = self.queue.try_send(Message::Flush(done)).is_ok();
        sent && wait.recv_timeout(limit.as_std()).is_ok()
    }
}

fn drain(messages: &Receiver<Message>, lost: &AtomicU64, mut sink: impl Sink) {
    while let Ok(message) = messages.recv() {
        // Lines are only lost while others wait in the queue, so the count always comes out.
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 && sink.write(&lines_lost(count)).is_err() {
            lost.fetch_add(count, Ordering::Relaxed);
        }
        match message {
            Message::Line(record) => {
                if sink.write(&record).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

fn lines_lost(count: u64) -> Record {
    Record {
        level: Level::Warning,
        kind: Kind::LinesLost,
        text: format!("{count} log lines were lost: the log's reader did not take them in time"),
        fields: vec![("FOIP_LOST", count.to_string())],
    }
}

/// Lines for a person at a terminal, or for a file.
struct Text<W>(W);

impl<W: Write + Send> Sink for Text<W> {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = format!("{} {:7} {}", utc(clock::wall()), record.level.word(), record.text);
        for (name, value) in &record.fields {
            let _ = write!(line, " {name}={value}");
        }
        // One write per line: lines of several processes do not mix.
        line.push('\n');
        self.0.write_all(line.as_bytes())
    }
}

/// `2026-11-22T21:30:00Z` of seconds since 1970.
pub fn utc(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01 in eras of 400 years: howardhinnant.github.io/date_algorithms.html, civil_from_days.
    let shifted = day + 719_468;
    let (era, in_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let day_of_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Takes `tracing` events of foip's adapters, and at debug level the warnings of other crates.
///
/// Other crates are kept out otherwise: kube logs an error for every request that fails, which in an outage is a
/// line per loop, and nobody has looked at what their lines may show (I14).
struct Collector {
    log: Log,
}

impl tracing::Subscriber for Collector {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        if !metadata.is_event() {
            return false;
        }
        let target = metadata.target();
        let own = target == "foip" || target.starts_with("foip::");
        let level = level(*metadata.level());
        if own {
            level <= self.log.most
        } else {
            level <= Level::Warning && self.log.most == Level::Debug
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.log.say(level(*event.metadata().level()), Kind::Other, line.text + &line.fields);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

const fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
    }
}

/// A tracing event as one line: the message, then `name=value` for the rest.
#[derive(Default)]
struct Line {
    text: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.text, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    /// Keeps what it gets, one line at a time, as the test lets it.
    struct Slow {
        go: mpsc::Receiver<()>,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Sink for Slow {
        fn write(&mut self, record: &Record) -> io::Result<()> {
            let _ = self.go.recv();
            self.seen.lock().unwrap().push(record.text.clone());
            Ok(())
        }
    }

    #[test]
    fn a_hanging_reader_holds_nobody_up_and_what_was_lost_is_counted() {
        let (go, gate) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Slow { go: gate, seen: Arc::clone(&seen) };
        let log = Log::start(Level::Info, 4, sink).unwrap();
        let start = clock::now();
        for i in 0..1000 {
            log.say(Level::Info, Kind::Other, i.to_string());
        }
        assert!(!log.flush(Span::millis(10)), "a full queue takes no flush");
        assert!(clock::now().since(start) < Span::millis(500));
        drop(go);
        while !log.flush(Span::millis(10)) {}
        let seen = seen.lock().unwrap();
        let told = " log lines were lost: the log's reader did not take them in time";
        let counts: Vec<usize> =
            seen.iter().filter_map(|line| line.strip_suffix(told)?.parse().ok()).collect();
        assert!(!counts.is_empty(), "{seen:?}");
        let lost: usize = counts.iter().sum();
        assert_eq!(lost + seen.len() - counts.len(), 1000, "{seen:?}");
    }

    /// Fails until it is told otherwise.
    struct Failing(mpsc::Receiver<()>, Arc<Mutex<Vec<String>>>);

    impl Sink for Failing {
        fn write(&mut self, record: &Record) -> io::Result<()> {
            self.0.try_recv().map_err(io::Error::other)?;
            self.1.lock().unwrap().push(record.text.clone());
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_not_there_loses_lines_and_nothing_else() {
        let (go, gate) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Log::start(Level::Info, 4, Failing(gate, Arc::clone(&seen))).unwrap();
        log.say(Level::Info, Kind::Other, "lost");
        assert!(log.flush(Span::secs(5)));
        go.send(()).unwrap();
        go.send(()).unwrap();
        log.say(Level::Info, Kind::Other, "kept");
        assert!(log.flush(Span::secs(5)));
        let lost = lines_lost(1);
        assert_eq!(*seen.lock().unwrap(), [lost.text.as_str(), "kept"]);
        assert!(lost.fields.iter().all(|(name, _)| journal::FIELDS.contains(name)));
    }

    #[test]
    fn text_lines_are_single_and_carry_the_fields() {
        let path = std::env::temp_dir().join(format!("foip-log-{}", std::process::id()));
        let log = Log::start(Level::Info, 4, Text(std::fs::File::create(&path).unwrap())).unwrap();
        log.send(Record {
            level: Level::Notice,
            kind: Kind::Changed,
            text: "the site is Nuremberg\n2026 error  provider-auth: \x1b[2Jrun rm".into(),
            fields: vec![("FOIP_GROUP", "default\nFOIP_STATE=holder".into())],
        });
        assert!(log.flush(Span::secs(5)));
        let line = std::fs::read_to_string(&path).unwrap();
        let _ = std::fs::remove_file(&path);
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{line}");
        assert_eq!(
            rest,
            "notice  the site is Nuremberg 2026 error  provider-auth: \u{fffd}[2Jrun rm \
             FOIP_GROUP=default FOIP_STATE=holder\n"
        );
    }

    #[test]
    fn what_is_too_detailed_is_left_out() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (go, gate) = mpsc::channel();
        drop(go);
        let sink = Slow { go: gate, seen: Arc::clone(&seen) };
        let log = Log::start(Level::Info, 100, sink).unwrap();
        let collector = Collector { log: log.clone() };
        tracing::subscriber::with_default(collector, || {
            tracing::info!(node = "node-a", n = 1, "a line");
            tracing::debug!("a detail");
            tracing::error!(target: "kube_client::client", "failed with a token");
        });
        assert!(log.flush(Span::secs(5)));
        assert_eq!(*seen.lock().unwrap(), ["a line node=node-a n=1"]);
    }

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_383_574, "2026-11-22T21:39:34Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn message_ids_differ_and_are_128_bits() {
        let kinds = [
            Kind::Started,
            Kind::Stopping,
            Kind::Reloaded,
            Kind::Authority,
            Kind::Ready,
            Kind::Observed,
            Kind::Changed,
            Kind::AlarmOver,
            Kind::LinesLost,
        ];
        let ids: std::collections::BTreeSet<_> =
            kinds.iter().filter_map(|kind| kind.message_id()).collect();
        assert_eq!(ids.len(), kinds.len());
        assert!(ids.iter().all(|id| id.len() == 32));
        assert_eq!(Kind::Other.message_id(), None);
    }
}
