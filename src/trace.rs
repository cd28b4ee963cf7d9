//! `run --trace FILE`: everything that the core was told and decided, for `foip replay`.
//!
//! One JSON object per line (DESIGN's bit-for-bit record of an incident):
//!
//! ```text
//! {"foip":"0.1.0","start":{…},"at":1234}      once, first: the program, core::event::Start, its tick
//! {"t":1250,"event":{…}}                       core::event::Event, in the order of the steps
//! {"t":1250,"actions":[…]}                     what the step (or the start) answered; left out where that is nothing
//! {"dropped":3}                                 so many lines are missing here: nothing behind it can be replayed
//! {"full":67108864}                             the size limit was reached: the trace ends
//! ```
//!
//! Written on a thread of its own; when the disk does not keep up, lines are dropped and counted, never waited for.
//! Events and actions carry no secrets (I14); nor does a configuration.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use serde::Serialize;

use crate::core::action::Action;
use crate::core::event::{Event, Start};
use crate::types::{Span, Tick};

/// The size at which a trace ends.
pub const LARGEST: u64 = 64 * 1024 * 1024;

/// Lines that wait for the disk.
const QUEUE: usize = 4096;

/// A trace that is being written. Nothing here ever blocks.
#[derive(Debug)]
pub struct Trace {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

#[derive(Serialize)]
struct Header<'a> {
    foip: &'a str,
    start: &'a Start,
    at: Tick,
}

#[derive(Serialize)]
struct EventLine<'a> {
    t: Tick,
    event: &'a Event,
}

#[derive(Serialize)]
struct ActionsLine<'a> {
    t: Tick,
    actions: &'a [Action],
}

impl Trace {
    /// Begins a trace in a new file (an old one is replaced), readable by its owner alone.
    ///
    /// # Errors
    /// The file cannot be made, or the thread not be started.
    pub fn create(path: &Path, start: &Start, now: Tick) -> io::Result<Self> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let trace = Self::begin(io::BufWriter::new(file), LARGEST, QUEUE)?;
        trace.line(&Header { foip: env!("CARGO_PKG_VERSION"), start, at: now });
        Ok(trace)
    }

    fn begin(out: impl Write + Send + 'static, largest: u64, queue: usize) -> io::Result<Self> {
        let (queue, messages) = sync_channel(queue);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        std::thread::Builder::new().name("foip-trace".into()).spawn(move || {
            // A full disk ends the trace; the service goes on.
            let _ = drain(&messages, &counter, out, largest);
        })?;
        Ok(Self { queue, dropped })
    }

    /// An event, before the core is told of it.
    pub fn event(&self, now: Tick, event: &Event) {
        self.line(&EventLine { t: now, event });
    }

    /// What the core answered to its start or to the event before.
    pub fn actions(&self, now: Tick, actions: &[Action]) {
        if actions.is_empty() {
            return;
        }
        self.line(&ActionsLine { t: now, actions });
    }

    /// Waits until everything is written, at most for `limit`. For the way out only.
    pub fn flush(&self, limit: Span) -> bool {
        let (done, wait) = sync_channel(1);
        let sent = self.queue.try_send(Message::Flush(done)).is_ok();
        sent && wait.recv_timeout(limit.as_std()).is_ok()
    }

    fn line(&self, line: &impl Serialize) {
        let text = serde_json::to_vec(line).ok().map(|mut text| {
            text.push(b'\n');
            text
        });
        let sent = text.is_some_and(|text| self.queue.try_send(Message::Line(text)).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn drain(
    messages: &Receiver<Message>,
    dropped: &AtomicU64,
    mut out: impl Write,
    largest: u64,
) -> io::Result<()> {
    let mut size = 0;
    loop {
        let message = match messages.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => return out.flush(),
            // Nothing waits: what is in the buffer is worth having in the file now.
            Err(TryRecvError::Empty) => {
                out.flush()?;
                match messages.recv() {
                    Ok(message) => message,
                    Err(_) => return Ok(()),
                }
            }
        };
        // The count stands where lines are missing, or before: lines that were queued earlier may follow it.
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            writeln!(out, "{{\"dropped\":{missing}}}")?;
        }
        match message {
            Message::Line(line) => {
                size += line.len() as u64;
                if size > largest {
                    writeln!(out, "{{\"full\":{largest}}}")?;
                    return out.flush();
                }
                out.write_all(&line)?;
            }
            Message::Flush(done) => {
                out.flush()?;
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::clock;
    use crate::core::event::{Identity, Ticket};
    use crate::core::saved::Saved;
    use crate::files::tests::Folder;

    fn start() -> Start {
        let text = "[provider]\napi = \"rest\"\n[[failover_ip]]\naddress = \"203.0.113.63\"\n";
        let mut host = crate::config::Host::of_process();
        host.hostname = "node-a".into();
        let settings = crate::config::Settings::parse(Path::new("foip.toml"), text, &host).unwrap();
        Start {
            config: settings.core,
            identity: Identity { host: "h".into(), boot: "b".into(), nonce: "n".into() },
            saved: Saved::default(),
            seed: 1,
        }
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(bytes: &[u8]) -> Vec<BTreeMap<String, serde_json::Value>> {
        let text = std::str::from_utf8(bytes).unwrap();
        let lines = text.lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_trace_gives_back_what_went_in() {
        let folder = Folder::new();
        let path = folder.0.join("trace");
        std::fs::write(&path, "an old trace\n".repeat(100)).unwrap();
        let (start, now) = (start(), clock::now());
        let trace = Trace::create(&path, &start, now).unwrap();
        let actions = [Action::List { ticket: Ticket(1) }, Action::Exit];
        trace.actions(now, &actions);
        let event = Event::Check { name: "ok".into(), passing: true, said: String::new() };
        trace.event(now + Span(5), &event);
        trace.actions(now + Span(5), &[]);
        assert!(trace.flush(Span::secs(5)));
        let lines = lines(&std::fs::read(&path).unwrap());
        assert_eq!(lines.len(), 3);
        let read = |line: usize, key: &str| lines[line][key].clone();
        assert_eq!(serde_json::from_value::<Start>(read(0, "start")).unwrap(), start);
        assert_eq!(read(0, "at"), now.0);
        assert_eq!(read(0, "foip"), env!("CARGO_PKG_VERSION"));
        let back: Vec<Action> = serde_json::from_value(read(1, "actions")).unwrap();
        assert_eq!(back, actions);
        assert_eq!(serde_json::from_value::<Event>(read(2, "event")).unwrap(), event);
        assert_eq!(read(2, "t"), now.0 + 5);
    }

    #[test]
    fn a_full_trace_says_so_once_and_ends() {
        let out = Shared::default();
        let trace = Trace::begin(out.clone(), 1000, 1000).unwrap();
        for _ in 0..500 {
            trace.event(Tick(1), &Event::Wake);
        }
        while !out.0.lock().unwrap().ends_with(b"{\"full\":1000}\n") {
            std::thread::yield_now();
        }
        trace.event(Tick(1), &Event::Wake);
        assert!(!trace.flush(Span::millis(50)), "nobody writes any more");
        let lines = lines(&out.0.lock().unwrap());
        assert_eq!(lines.iter().filter(|line| line.contains_key("full")).count(), 1);
        assert!(out.0.lock().unwrap().len() < 1100);
    }

    #[test]
    fn a_hanging_disk_holds_nobody_up_and_the_gap_is_marked() {
        struct Gate(mpsc::Receiver<()>, Shared);
        impl Write for Gate {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let out = Shared::default();
        let (open, gate) = mpsc::channel();
        let trace = Trace::begin(Gate(gate, out.clone()), LARGEST, 8).unwrap();
        let begun = clock::now();
        for t in 0..1000 {
            trace.event(Tick(t), &Event::Wake);
        }
        assert!(clock::now().since(begun) < Span::millis(500));
        drop(open);
        while !trace.flush(Span::millis(10)) {}
        let lines = lines(&out.0.lock().unwrap());
        let events = lines.iter().filter(|line| line.contains_key("event")).count() as u64;
        let dropped: u64 = lines.iter().filter_map(|line| line.get("dropped")?.as_u64()).sum();
        assert_eq!(events + dropped, 1000);
        assert!(dropped > 900, "{dropped}");
    }
}
