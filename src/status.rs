//! What `foip status` shows: the running foip writes it into its runtime directory, anybody may read it.
//!
//! `status.json`, which `foip status --json` prints unchanged:
//!
//! | key | value |
//! | --- | --- |
//! | `version` | 1; raised when a key changes its meaning or goes, not when one is added |
//! | `foip`, `pid`, `node` | the program's version, its process, the node |
//! | `at`, `tick` | when this was written: UTC, and milliseconds on the machine's CLOCK_BOOTTIME |
//! | `sentence` | the state of things in one sentence, as in `systemctl status` |
//! | `groups[]` | `name`, `holder` or null, `held_here`, `epoch`, `since` (UTC or null), `authority_left_ms` (null: this node has none), `successor` of a planned move or null, `next_route_at` (UTC; null: none is due), `why_not_here` or null |
//! | `ips[]` | `ip`, `group`, `routed` (a server, `"nowhere"`, or null: unknown), `observed_age_ms` or null, `address_present` (every address of it is on this node's NIC) |
//! | `nodes[]` | `name`, `fresh` (its record is up to date), `eligible`, `health` in words, `provider` (it reaches netcup; null: unknown) |
//! | `budget` | `left_5min`, `left_60min` (route calls; null: unknown), `next_possible` (UTC; null: at once) |
//! | `alarms[]` | `code`, `text` |
//!
//! Durations are milliseconds, times are UTC as in RFC 3339.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock;
use crate::core::status::{IpStatus, NodeStatus};
use crate::files::{Lasts, Replacer};
use crate::logging::utc;
use crate::text;
use crate::types::{Epoch, GroupName, NodeName, Span, Tick};

/// The `version` that this program writes and reads.
pub const VERSION: u32 = 1;

/// The file's name in the runtime directory.
const FILE: &str = "status.json";

/// A running foip writes at least this often; what is older comes from one that hangs or is dead.
const STALE: Span = Span::secs(10);

/// The state of things on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The program's version.
    pub foip: String,
    /// Its process.
    pub pid: u32,
    /// This node.
    pub node: NodeName,
    /// When this was written, in UTC.
    pub at: String,
    /// The same on the machine's CLOCK_BOOTTIME.
    pub tick: Tick,
    /// The state of things in one sentence.
    pub sentence: String,
    /// Every group.
    pub groups: Vec<GroupStatus>,
    /// Every failover IP.
    pub ips: Vec<IpStatus>,
    /// Every node that has a record.
    pub nodes: Vec<NodeStatus>,
    /// Route calls that are left.
    pub budget: BudgetStatus,
    /// What a person should know.
    pub alarms: Vec<AlarmStatus>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: GroupName,
    /// Who is in its Lease, as far as known.
    pub holder: Option<NodeName>,
    /// Is that this process?
    pub held_here: bool,
    /// The term.
    pub epoch: Epoch,
    /// When the term began, in UTC.
    pub since: Option<String>,
    /// How long this node's authority lasts without another renewal.
    pub authority_left_ms: Option<Span>,
    /// Who is to take over in the planned move under way.
    pub successor: Option<NodeName>,
    /// When the next route call is due, in UTC; `None`: none is.
    pub next_route_at: Option<String>,
    /// Why this node does not hold it.
    pub why_not_here: Option<String>,
}

/// Route calls that are left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// In the window of five minutes.
    pub left_5min: Option<u32>,
    /// In the window of an hour.
    pub left_60min: Option<u32>,
    /// The first moment at which one is possible, in UTC; `None`: at once.
    pub next_possible: Option<String>,
}

/// What a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmStatus {
    /// Stable word for it.
    pub code: String,
    /// What it is and what to do.
    pub text: String,
}

impl Status {
    /// Of this process at this moment, with nothing in it yet.
    pub fn new(node: NodeName, now: Tick) -> Self {
        Self {
            version: VERSION,
            foip: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node,
            at: wall_of(now),
            tick: now,
            sentence: String::new(),
            groups: Vec::new(),
            ips: Vec::new(),
            nodes: Vec::new(),
            budget: BudgetStatus::default(),
            alarms: Vec::new(),
        }
    }

    /// For people.
    pub fn to_text(&self, now: Tick) -> String {
        let mut text = format!(
            "foip {} on {}: {}\nas of {} ({} ago)\n",
            self.foip,
            self.node,
            self.sentence,
            self.at,
            now.since(self.tick)
        );
        let dash = || "-".to_owned();
        let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();

        let mut rows = vec![row(["GROUP", "HOLDER", "EPOCH", "SINCE", "AUTHORITY", "SUCCESSOR"])];
        for group in &self.groups {
            rows.push(vec![
                group.name.to_string(),
                group.holder.as_ref().map_or_else(dash, NodeName::to_string),
                group.epoch.to_string(),
                group.since.clone().unwrap_or_else(dash),
                group.authority_left_ms.map_or_else(dash, |left| left.to_string()),
                group.successor.as_ref().map_or_else(dash, NodeName::to_string),
            ]);
        }
        table(&mut text, &rows);
        for group in &self.groups {
            if let Some(why) = group.why_not_here.as_ref().filter(|_| !group.held_here) {
                let _ = writeln!(text, "{} is not held here: {why}", group.name);
            }
            if let Some(at) = &group.next_route_at {
                let _ = writeln!(text, "{}: next route call at {at}", group.name);
            }
        }

        let mut rows = vec![row(["IP", "GROUP", "ROUTED TO", "SEEN", "ADDRESS HERE"])];
        for ip in &self.ips {
            let age = ip.observed_age_ms.map(|age| format!("{age} ago"));
            rows.push(vec![
                ip.ip.to_string(),
                ip.group.to_string(),
                ip.routed.clone().unwrap_or_else(|| "unknown".into()),
                age.unwrap_or_else(|| "never".into()),
                yes(ip.address_present),
            ]);
        }
        table(&mut text, &rows);

        let mut rows = vec![row(["NODE", "RECORD", "ELIGIBLE", "HEALTH", "REACHES NETCUP"])];
        for node in &self.nodes {
            rows.push(vec![
                node.name.to_string(),
                if node.fresh { "fresh" } else { "old" }.to_owned(),
                yes(node.eligible),
                node.health.clone(),
                node.provider.map_or_else(|| "unknown".into(), yes),
            ]);
        }
        table(&mut text, &rows);

        let left = |count: Option<u32>| count.map_or_else(|| "?".into(), |count| count.to_string());
        let next = self.budget.next_possible.as_deref().unwrap_or("now");
        let _ = writeln!(
            text,
            "\nroute calls left: {} in 5 min, {} in 60 min; the next is possible: {next}",
            left(self.budget.left_5min),
            left(self.budget.left_60min),
        );
        for alarm in &self.alarms {
            let _ = writeln!(text, "ALARM {}: {}", alarm.code, alarm.text);
        }
        text
    }
}

fn row<const N: usize>(titles: [&str; N]) -> Vec<String> {
    titles.map(str::to_owned).to_vec()
}

/// The same with every text in it cleaned: whatever field is added, it is not forgotten.
fn cleaned(status: &Status) -> serde_json::Result<Status> {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) => text::tidy(text, text::FIELD),
            Value::Array(values) => values.iter_mut().for_each(walk),
            Value::Object(values) => values.values_mut().for_each(walk),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    // By way of text, for which the reader and the writer are in the program anyway.
    let mut value = serde_json::from_slice(&serde_json::to_vec_pretty(status)?)?;
    walk(&mut value);
    serde_json::from_str(&value.to_string())
}

/// Columns as wide as their widest cell; nothing where there are only titles.
fn table(text: &mut String, rows: &[Vec<String>]) {
    let Some(titles) = rows.first().filter(|_| rows.len() > 1) else {
        return;
    };
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    text.push('\n');
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
}

/// A moment of this machine in UTC. For people: the wall clock may have been set in between.
pub fn wall_of(tick: Tick) -> String {
    let now = clock::now();
    let ago = i64::try_from(now.since(tick).as_secs()).unwrap_or(0);
    let ahead = i64::try_from(now.until(tick).0.div_ceil(1000)).unwrap_or(0);
    utc(clock::wall().saturating_sub(ago).saturating_add(ahead))
}

/// Writes the status on a thread of its own.
#[derive(Debug)]
pub struct StatusFile {
    file: Replacer,
    path: PathBuf,
}

impl StatusFile {
    /// In this runtime directory, which is made if it is missing.
    ///
    /// # Errors
    /// The directory cannot be made, or the thread not be started.
    pub fn start(runtime: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(runtime)?;
        let path = runtime.join(FILE);
        let file = Replacer::start(path.clone(), 0o644, Lasts::Boot)?;
        Ok(Self { file, path })
    }

    /// Shows this from now on. To be called on every change, and at least every few seconds.
    pub fn show(&self, status: &Status) {
        // Plain values: serializing them cannot fail.
        if let Ok(text) = cleaned(status).and_then(|status| serde_json::to_vec_pretty(&status)) {
            self.file.put(text);
        }
    }

    /// On the way out: nothing runs from now on, and `foip status` says so instead of calling the process dead.
    pub fn remove(&self, limit: Span) {
        self.file.settle(limit);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why there is no status to show, or none that is true.
#[derive(Debug, thiserror::Error)]
pub enum NoStatus {
    /// No file.
    #[error(
        "foip does not run on this host: there is no {}; start it with systemctl start foip", .0.display()
    )]
    NotRunning(PathBuf),
    /// The process that wrote the file is gone.
    #[error(
        "foip is dead: process {pid} is gone since its status was written {age} ago; look at journalctl -u foip"
    )]
    Dead {
        /// The process.
        pid: u32,
        /// How old the status is.
        age: Span,
    },
    /// The process is there and writes nothing.
    #[error(
        "foip hangs: process {pid} wrote its status {age} ago, and should every few seconds; look at \
         journalctl -u foip"
    )]
    Hangs {
        /// The process.
        pid: u32,
        /// How old the status is.
        age: Span,
    },
    /// The file is not one of this version.
    #[error("cannot understand {}: {why}; do foip and this program have the same version?", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// A status that was found.
#[derive(Debug)]
pub struct Seen {
    /// The file's text.
    pub text: String,
    /// Its content.
    pub status: Status,
    /// Why it is no longer true: `Dead` or `Hangs`.
    pub stale: Option<NoStatus>,
}

/// What a file says, cleaned again: an older foip may have written it.
pub(crate) fn parse(text: &str) -> Result<Status, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let in_words = |error: serde_json::Error| error.to_string();
    let Versioned { version } = serde_json::from_str(text).map_err(in_words)?;
    if version != VERSION {
        return Err(format!("it has version {version}"));
    }
    serde_json::from_str(text).and_then(|status| cleaned(&status)).map_err(in_words)
}

/// Reads the status of the foip that uses this runtime directory.
///
/// # Errors
/// There is none, or it cannot be understood.
pub fn read(runtime: &Path) -> Result<Seen, NoStatus> {
    let path = runtime.join(FILE);
    let unreadable = |why: String| {
        let path = path.clone();
        NoStatus::Unreadable { path, why }
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            NoStatus::NotRunning(path.clone())
        } else {
            unreadable(error.to_string())
        }
    })?;
    let status = parse(&text).map_err(unreadable)?;
    let (now, pid) = (clock::now(), status.pid);
    let gone = !Path::new("/proc").join(pid.to_string()).exists();
    let age = now.since(status.tick);
    let stale = if gone {
        Some(NoStatus::Dead { pid, age })
    } else if age > STALE || status.tick > now {
        // A tick that has not come yet is of an earlier boot.
        Some(NoStatus::Hangs { pid, age })
    } else {
        None
    };
    Ok(Seen { text, status, stale })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Folder;

    fn status() -> Status {
        let mut status = Status::new("node-a".parse().unwrap(), clock::now());
        status.sentence = "node-b holds default".into();
        status.groups.push(GroupStatus {
            name: "default".parse().unwrap(),
            holder: Some("node-b".parse().unwrap()),
            held_here: false,
            epoch: Epoch(7),
            since: Some("2026-11-22T21:39:34Z".into()),
            authority_left_ms: None,
            successor: None,
            next_route_at: None,
            why_not_here: Some("node-b is as healthy and holds already".into()),
        });
        status.ips.push(IpStatus {
            ip: "203.0.113.63".parse().unwrap(),
            group: "default".parse().unwrap(),
            routed: Some("v2202600000000003".into()),
            observed_age_ms: Some(Span(3400)),
            address_present: false,
        });
        status.nodes.push(NodeStatus {
            name: "node-b".parse().unwrap(),
            fresh: true,
            eligible: true,
            health: "healthy".into(),
            provider: None,
        });
        status.alarms.push(AlarmStatus {
            code: "two-servers".into(),
            text: "no quorum after a death".into(),
        });
        status
    }

    #[test]
    fn people_see_tables() {
        let mut status = status();
        status.at = "2026-11-22T21:40:00Z".into();
        let text = status.to_text(status.tick + Span::secs(2));
        let expected = "\
foip 0.1.0 on node-a: node-b holds default
as of 2026-11-22T21:40:00Z (2 s ago)

GROUP    HOLDER  EPOCH  SINCE                 AUTHORITY  SUCCESSOR
default  node-b  7      2026-11-22T21:39:34Z  -          -
default is not held here: node-b is as healthy and holds already

IP            GROUP    ROUTED TO          SEEN       ADDRESS HERE
203.0.113.63  default  v2202600000000003  3.4 s ago  no

NODE    RECORD  ELIGIBLE  HEALTH   REACHES NETCUP
node-b  fresh   yes       healthy  unknown

route calls left: ? in 5 min, ? in 60 min; the next is possible: now
ALARM two-servers: no quorum after a death
";
        assert_eq!(text, expected.replace("0.1.0", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn what_was_shown_is_read() {
        let folder = Folder::new();
        let file = StatusFile::start(&folder.0.join("run")).unwrap();
        let status = status();
        file.show(&status);
        assert!(file.file.settle(Span::secs(5)));
        let seen = super::read(&folder.0.join("run")).unwrap();
        assert_eq!(seen.status, status);
        assert!(seen.stale.is_none());
        assert!(seen.text.contains("\"version\": 1"), "{}", seen.text);
        file.remove(Span::secs(5));
        let error = super::read(&folder.0.join("run")).unwrap_err();
        assert!(matches!(error, NoStatus::NotRunning(_)));
    }

    #[test]
    fn text_from_outside_writes_no_lines_and_no_escapes() {
        let folder = Folder::new();
        let file = StatusFile::start(&folder.0).unwrap();
        let mut status = status();
        let dirty = "Nuremberg\nALARM forged: run rm\u{1b}[2J\u{9b}1m\u{202e}";
        let clean = "Nuremberg ALARM forged: run rm\u{fffd}[2J\u{fffd}1m\u{fffd}";
        status.sentence = dirty.into();
        status.groups[0].why_not_here = Some(dirty.into());
        status.ips[0].routed = Some(dirty.into());
        status.nodes[0].health = dirty.into();
        status.alarms[0].text = format!("netcup answered: {dirty}{}", "!".repeat(1 << 20));
        let check = |seen: &Seen| {
            assert_eq!(seen.status.sentence, clean);
            let shown = seen.status.to_text(seen.status.tick);
            let odd = shown.lines().find(|line| line.contains(char::is_control));
            assert_eq!(odd, None);
            assert!(!shown.contains('\u{202e}'), "{shown}");
            let alarms: Vec<_> = shown.lines().filter(|line| line.starts_with("ALARM")).collect();
            assert_eq!(alarms.len(), 1, "{shown}");
            assert!(
                alarms[0].starts_with(&format!("ALARM two-servers: netcup answered: {clean}!!"))
            );
            assert!(alarms[0].len() < 1100, "{}", alarms[0].len());
        };
        file.show(&status);
        assert!(file.file.settle(Span::secs(5)));
        let seen = super::read(&folder.0).unwrap();
        assert!(!seen.text.contains("\\u001b") && !seen.text.contains('\u{9b}'), "{}", seen.text);
        check(&seen);
        // As an older program wrote it.
        std::fs::write(folder.0.join(FILE), serde_json::to_vec(&status).unwrap()).unwrap();
        check(&super::read(&folder.0).unwrap());
    }

    #[test]
    fn the_dead_and_the_hanging_are_told_apart() {
        let folder = Folder::new();
        let path = folder.0.join(FILE);
        let write = |status: &Status| {
            std::fs::write(&path, serde_json::to_vec(status).unwrap()).unwrap();
            super::read(&folder.0).map(|seen| seen.stale.unwrap())
        };
        let mut old = status();
        old.tick = old.tick - Span::secs(11);
        let hangs = write(&old).unwrap().to_string();
        assert!(hangs.starts_with("foip hangs: process "), "{hangs}");
        // A tick of another boot.
        old.tick = clock::now() + Span::secs(3600);
        assert!(matches!(write(&old), Ok(NoStatus::Hangs { .. })));
        // Above the highest number that the kernel gives.
        old.pid = u32::MAX;
        assert!(matches!(write(&old), Ok(NoStatus::Dead { .. })));
        old.version = 2;
        let error = write(&old).unwrap_err().to_string();
        assert!(error.contains("it has version 2"), "{error}");
    }
}
