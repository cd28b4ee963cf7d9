//! What happened at a stand-in, for tests and for the checker of a run: in memory, and a JSON line each in a file.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::clock::boottime_ms;
use crate::stop::lock;

/// One line of the log: `{"at":12345,"kind":"switched","ip":"203.0.113.63","server":"v22…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// CLOCK_BOOTTIME in milliseconds. Of a request: when it had been read.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A request was dealt with. No header and no body is ever logged: they hold tokens.
    Request {
        /// The HTTP method.
        method: String,
        /// Path and query.
        path: String,
        /// Where it came from.
        client: IpAddr,
        /// Which of the stand-in's listeners took it, by number.
        listener: usize,
        /// The status that was sent or was to be sent; 0 where nothing was decided (hang, cut before).
        status: u16,
        /// Milliseconds from reading it to the end of the answer.
        took: u64,
        /// The fault that met it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<String>,
    },
    /// A request to route reached the account: `at` is the moment of the decision.
    Route {
        /// Where it came from.
        client: IpAddr,
        /// The failover IP as the provider names it: an address, or a prefix with its length.
        ip: String,
        /// The name of the server that it is to go to; none: to nowhere.
        server: Option<String>,
        /// Whether it will be carried out.
        accepted: bool,
        /// The HTTP status of the decision.
        status: u16,
        /// The task's UUID; none when refused, or with SOAP, which has no tasks.
        task: Option<String>,
    },
    /// A task came to its end.
    Task {
        /// Its UUID.
        task: String,
        /// `FINISHED`, `ERROR`, …
        state: String,
    },
    /// The list of failover IPs shows another server from now on.
    Listed {
        /// The failover IP.
        ip: String,
        /// The server's name, none for nowhere.
        server: Option<String>,
    },
    /// Packets for the IP go there from now on.
    Switched {
        /// The failover IP.
        ip: String,
        /// The server's name, none for nowhere.
        server: Option<String>,
    },
    /// Kubernetes: an object was written.
    Stored {
        /// `ADDED`, `MODIFIED`, `DELETED`, or `PUT` by command. An update that changed nothing is MODIFIED too.
        change: String,
        /// Its kind.
        object: String,
        /// Its name.
        name: String,
        /// Its resource version after that.
        version: String,
        /// The holder of a Lease.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<String>,
        /// A Lease's `leaseTransitions`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<i64>,
        /// Who wrote it; none: a command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<IpAddr>,
    },
    /// A command was given by hand, with what it said.
    Command {
        /// The command as it was understood.
        text: String,
    },
}

/// The log of one stand-in.
#[derive(Debug, Default)]
pub struct Log {
    entries: Mutex<(Vec<Entry>, Option<File>)>,
}

impl Log {
    /// A log that is also written to a file, appended to.
    pub fn to_file(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { entries: Mutex::new((Vec::new(), Some(file))) })
    }

    /// Writes that this happens now.
    pub(crate) fn add(&self, what: What) {
        self.add_at(boottime_ms(), what);
    }

    pub(crate) fn add_at(&self, at: u64, what: What) {
        let entry = Entry { at, what };
        let mut guard = lock(&self.entries);
        if let Some(file) = guard.1.as_mut()
            && let Ok(mut line) = serde_json::to_vec(&entry)
        {
            line.push(b'\n');
            // A full disk must not change what the stand-in does.
            let _ = file.write_all(&line);
        }
        guard.0.push(entry);
    }

    /// All entries from number `from` on, oldest first.
    pub fn entries(&self, from: usize) -> Vec<Entry> {
        lock(&self.entries).0.get(from..).unwrap_or_default().to_vec()
    }
}
