//! What the service manager is told (`sd_notify(3)`): ready, a sentence, alive, stopping. Nothing outside systemd.
//!
//! A busy PID 1 stops reading its socket, and a send then blocks. So the sends are made on a thread of their own.
//! The watchdog stays honest: the thread never feeds it by itself, it only passes on what the decision loop said.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sd_notify::NotifyState;

use crate::clock;
use crate::text;
use crate::types::{Span, Tick};

/// A PID 1 that is this far behind has nothing to learn from older messages.
const QUEUE: usize = 8;

/// The line to the service manager.
#[derive(Debug)]
pub struct Manager {
    /// `None` outside systemd.
    queue: Option<SyncSender<Message>>,
    /// From one feeding of the watchdog to the next; `None` without watchdog.
    watchdog: Option<Span>,
    fed: Option<Tick>,
    status: String,
}

#[derive(Debug)]
enum Message {
    Ready,
    Status(String),
    Watchdog,
    Stopping,
}

impl Manager {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub fn of_process() -> Self {
        let under_systemd = std::env::var_os("NOTIFY_SOCKET").is_some();
        let queue = under_systemd.then(|| sync_channel(QUEUE)).and_then(|(queue, messages)| {
            let thread = std::thread::Builder::new().name("foip-systemd".into());
            thread.spawn(move || pass_on(&messages)).ok().map(|_| queue)
        });
        let limit = sd_notify::watchdog_enabled().filter(|_| queue.is_some());
        Self {
            queue,
            // A third of the limit: one feeding may be late or lost.
            watchdog: limit
                .map(|limit| Span(u64::try_from(limit.as_millis() / 3).unwrap_or(u64::MAX).max(1))),
            fed: None,
            status: String::new(),
        }
    }

    /// The service is up: configuration read, first dump and first tries made.
    pub fn ready(&self) {
        self.send(Message::Ready);
    }

    /// The service has begun to leave.
    pub fn stopping(&self) {
        self.send(Message::Stopping);
    }

    /// The sentence in `systemctl status`; sent when it changed.
    pub fn status(&mut self, sentence: &str) {
        if self.status != sentence && self.send(Message::Status(sentence.to_owned())) {
            sentence.clone_into(&mut self.status);
        }
    }

    /// To be called on every turn of the decision loop, and by nobody else: feeds the watchdog when it is time.
    pub fn alive(&mut self) {
        let (Some(every), now) = (self.watchdog, clock::now()) else {
            return;
        };
        if self.fed.is_none_or(|fed| now.since(fed) >= every) {
            // Where the queue is full, earlier ones lie in it: nothing is gained by trying again at once.
            self.send(Message::Watchdog);
            self.fed = Some(now);
        }
    }

    /// When the loop has to turn again so that the watchdog is fed in time; `None` without watchdog.
    pub fn next_feeding(&self) -> Option<Tick> {
        let every = self.watchdog?;
        Some(self.fed.map_or(clock::now(), |fed| fed + every))
    }

    fn send(&self, message: Message) -> bool {
        match &self.queue {
            Some(queue) => queue.try_send(message).is_ok(),
            None => true,
        }
    }
}

fn pass_on(messages: &Receiver<Message>) {
    while let Ok(message) = messages.recv() {
        // A failure has no remedy here: systemd notices by itself that nothing comes.
        let _ = match &message {
            Message::Ready => sd_notify::notify(&[NotifyState::Ready]),
            Message::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
            Message::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
            Message::Status(sentence) => {
                // One assignment per line is the protocol: a line break would begin another.
                sd_notify::notify(&[NotifyState::Status(&text::clean(sentence))])
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;
    use crate::files::tests::Folder;

    const CHILD: &str = "FOIP_TEST_SYSTEMD_CHILD";

    /// Plays a service when it is started by the tests below; the environment cannot be set in this process.
    #[test]
    fn child() {
        let Ok(part) = std::env::var(CHILD) else {
            return;
        };
        let mut manager = Manager::of_process();
        if part == "frozen" {
            let start = clock::now();
            for i in 0..10_000 {
                manager.status(&format!("sentence {i} {}", "x".repeat(1000)));
                manager.alive();
            }
            assert!(clock::now().since(start) < Span::secs(2));
            std::process::exit(7);
        }
        assert_eq!(manager.watchdog, Some(Span(1)));
        manager.ready();
        manager.status("holds default\nWATCHDOG=trigger");
        manager.status("holds default\nWATCHDOG=trigger");
        manager.alive();
        manager.stopping();
        // The test reads four messages and then ends this process.
        loop {
            std::thread::park();
        }
    }

    fn service(folder: &Folder, part: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "systemd::tests::child"])
            .env(CHILD, part)
            .env("NOTIFY_SOCKET", folder.0.join("notify"))
            .env("WATCHDOG_USEC", "5000")
            .env_remove("WATCHDOG_PID")
            .stdout(std::process::Stdio::null());
        command
    }

    #[test]
    fn the_manager_is_told_in_order_and_in_single_lines() {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.0.join("notify")).unwrap();
        socket.set_read_timeout(Some(Span::secs(20).as_std())).unwrap();
        let mut child = service(&folder, "plain").spawn().unwrap();
        let mut seen = Vec::new();
        let mut bytes = [0; 4096];
        while seen.len() < 4 {
            let Ok(length) = socket.recv(&mut bytes) else {
                break;
            };
            seen.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            seen,
            [
                "READY=1\n",
                "STATUS=holds default WATCHDOG=trigger\n",
                "WATCHDOG=1\n",
                "STOPPING=1\n"
            ]
        );
    }

    #[test]
    fn a_frozen_manager_holds_nobody_up() {
        let folder = Folder::new();
        let _never_read = UnixDatagram::bind(folder.0.join("notify")).unwrap();
        let status = service(&folder, "frozen").status().unwrap();
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn outside_of_systemd_nothing_happens() {
        let mut manager = Manager::of_process();
        if manager.queue.is_none() {
            manager.ready();
            manager.alive();
            assert_eq!(manager.next_feeding(), None);
        }
    }
}
