//! Watches the failover IPs' addresses come and go on a host, through `ip monitor`, with its own time stamps.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use foip::clock;

use crate::trouble::{Outcome, Tried};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, in milliseconds.
    pub at: u64,
    /// Which address, without its length.
    pub address: String,
    /// Is it there now?
    pub there: bool,
    /// Has it a lifetime? foip's addresses have one, those put by hand have none.
    pub finite: bool,
}

/// A running monitor of one namespace. Dropping it ends it.
pub struct Monitor {
    child: Child,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl Monitor {
    /// Starts watching.
    pub fn start(namespace: &str) -> Outcome<Self> {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "ip", "-n", namespace, "-o", "monitor", "address"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .tried(|| "cannot start ip monitor".to_owned())?;
        let changes = Arc::new(Mutex::new(Vec::new()));
        let pipe = child.stdout.take().expect("the output is a pipe");
        let shared = Arc::clone(&changes);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if let Some((address, there)) = parse(&line) {
                    let at = clock::now().0;
                    let mut changes = shared.lock().expect("nobody panics with the lock");
                    let finite = line.contains(" dynamic ");
                    changes.push(Change { at, address, there, finite });
                }
            }
        });
        Ok(Self { child, changes })
    }

    /// The watcher's process number, to be spared when the host loses power.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When an address came or went: refreshes of what is there already are left out.
    pub fn changes(&self, address: &str) -> Vec<Change> {
        let all = self.changes.lock().expect("nobody panics with the lock");
        let mut changes: Vec<Change> = Vec::new();
        for change in all.iter().filter(|change| change.address == address) {
            if changes.last().map(|last| last.there) != Some(change.there) {
                changes.push(change.clone());
            }
        }
        changes
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It has nothing to put in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `2: eth0    inet 203.0.113.63/32 scope global …`, with `Deleted ` in front when it went.
fn parse(line: &str) -> Option<(String, bool)> {
    let there = !line.starts_with("Deleted");
    let mut words = line.split_whitespace();
    words.find(|word| *word == "inet" || *word == "inet6")?;
    let address = words.next()?.split('/').next()?;
    Some((address.to_owned(), there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ip_monitor_are_read() {
        let line =
            r"2: eth0    inet 203.0.113.63/32 scope global dynamic eth0\       valid_lft 45sec";
        assert_eq!(parse(line), Some(("203.0.113.63".into(), true)));
        let line = r"Deleted 2: eth0    inet6 2001:db8:a:20::1/128 scope global \ valid_lft 3sec";
        assert_eq!(parse(line), Some(("2001:db8:a:20::1".into(), false)));
        assert_eq!(parse("nonsense"), None);
    }
}
