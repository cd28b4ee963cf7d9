//! A run's folder and the namespaces that belong to it: made under a lock, cleaned up by whoever finds them dead.
//!
//! ```text
//! /tmp/foip-lab.<pid>/
//!   lock         held as long as the run lives; the kernel lets go of it when the process dies
//!   names        the prefix of this run's namespaces
//!   …            everything that the run writes
//! ```

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shell;
use crate::trouble;
use crate::trouble::{Outcome, Tried};

/// The parts of a lab that each have a namespace of their own.
pub const ROLES: [&str; 6] = ["router", "client", "provider", "node-a", "node-b", "node-c"];

/// A living run. Dropping it removes its namespaces, its processes and its folder.
pub struct Run {
    folder: PathBuf,
    prefix: String,
    _lock: Flock<File>,
}

impl Run {
    /// Cleans up after dead runs, then claims a folder and names of its own.
    pub fn begin() -> Outcome<Self> {
        let base = std::env::temp_dir();
        let gate = lock_file(&base.join("foip-lab.lock"))?;
        let _gate = Flock::lock(gate, FlockArg::LockExclusive).map_err(|(_, error)| {
            trouble!("cannot lock {}/foip-lab.lock: {error}", base.display())
        })?;
        for dead in clean_dead(&base)? {
            eprintln!("lab: cleaned up after a run that was killed ({dead})");
        }
        let pid = std::process::id();
        let folder = base.join(format!("foip-lab.{pid}"));
        let prefix = format!("foip{pid}");
        let known = namespaces()?;
        if let Some(taken) = known.iter().find(|name| belongs(name, &prefix)) {
            return Err(trouble!(
                "a network namespace {taken} exists that no run of the lab left behind; \
                 remove it with 'ip netns del {taken}' if nobody needs it"
            ));
        }
        fs::create_dir(&folder)
            .tried(|| format!("cannot make {} (not left by the lab?)", folder.display()))?;
        let lock = Flock::lock(lock_file(&folder.join("lock"))?, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| trouble!("cannot lock {}: {error}", folder.display()))?;
        fs::write(folder.join("names"), &prefix)?;
        Ok(Self { folder, prefix, _lock: lock })
    }

    /// Where everything of this run goes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of a part's namespace.
    pub fn namespace(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder, &self.prefix) {
            eprintln!("lab: not all was cleaned up, the next start will try again: {error}");
        }
    }
}

fn lock_file(path: &Path) -> Outcome<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .tried(|| format!("cannot open {}", path.display()))
}

/// The names of all network namespaces on this machine.
fn namespaces() -> Outcome<Vec<String>> {
    let listing = shell::run("ip", &["netns", "list"])?;
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    Ok(listing.lines().filter_map(name).collect())
}

fn belongs(namespace: &str, prefix: &str) -> bool {
    let role = namespace.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    role.is_some_and(|role| ROLES.contains(&role))
}

/// Removes what dead runs left: those whose lock nobody holds any more.
pub fn clean_dead(base: &Path) -> Outcome<Vec<String>> {
    let mut cleaned = Vec::new();
    for entry in fs::read_dir(base)? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(pid) = name.strip_prefix("foip-lab.") else {
            continue;
        };
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || !folder.is_dir() {
            continue;
        }
        let Ok(lock) = File::open(folder.join("lock")) else {
            continue;
        };
        let Ok(_held) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
            continue;
        };
        let prefix = fs::read_to_string(folder.join("names")).unwrap_or_default();
        // Only a name that the lab itself would have given is believed.
        if prefix.is_empty() || prefix == format!("foip{pid}") {
            remove(&folder, &format!("foip{pid}"))?;
            cleaned.push(prefix);
        }
    }
    Ok(cleaned)
}

/// Kills what lives in a run's namespaces, removes them and the folder.
fn remove(folder: &Path, prefix: &str) -> Outcome<()> {
    for namespace in namespaces()?.iter().filter(|name| belongs(name, prefix)) {
        kill_all(namespace, &[])?;
        shell::run("ip", &["netns", "del", namespace])?;
    }
    fs::remove_dir_all(folder).tried(|| format!("cannot remove {}", folder.display()))
}

/// Kills every process of a namespace but those `spared` and this one, until none is left.
pub fn kill_all(namespace: &str, spared: &[u32]) -> Outcome<()> {
    for _ in 0..50 {
        let listing = shell::run("ip", &["netns", "pids", namespace])?;
        let own = std::process::id();
        let pids: Vec<u32> = listing
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter(|pid| *pid != own && !spared.contains(pid) && !is_dead(*pid))
            .collect();
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            // It may have gone by itself in between.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(trouble!("processes in namespace {namespace} do not die"))
}

/// Ended, perhaps not waited for yet. The listing itself was made by a process that has ended since.
fn is_dead(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    state.is_empty() || state.starts_with('Z')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_run_belong_to_it() {
        assert!(belongs("foip12-router", "foip12"));
        for other in ["foip12", "foip123-router", "foip12-other", "foip1-router", "router"] {
            assert!(!belongs(other, "foip12"), "{other}");
        }
    }

    #[test]
    fn what_is_dead_is_cleaned_up_and_nothing_else() {
        let base = std::env::temp_dir().join(format!("lab-run-test-{}", std::process::id()));
        // Process numbers end at 4194304: nobody has these.
        let make = |name: &str, names: Option<&str>| {
            let folder = base.join(name);
            fs::create_dir_all(&folder).unwrap();
            if let Some(names) = names {
                fs::write(folder.join("lock"), "").unwrap();
                fs::write(folder.join("names"), names).unwrap();
            }
            folder
        };
        let dead = make("foip-lab.4999991", Some("foip4999991"));
        let alive = make("foip-lab.4999992", Some("foip4999992"));
        let kept = [
            make("foip-lab.4999993", None),
            make("foip-lab.4999994", Some("somebody-else")),
            make("foip-lab.notes", Some("foip4999995")),
        ];
        let lock = lock_file(&alive.join("lock")).unwrap();
        let held = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
        assert_eq!(clean_dead(&base).unwrap(), ["foip4999991"]);
        assert!(!dead.exists() && alive.exists());
        assert!(kept.iter().all(|folder| folder.exists()));
        drop(held);
        assert_eq!(clean_dead(&base).unwrap(), ["foip4999992"]);
        fs::remove_dir_all(&base).unwrap();
    }
}
