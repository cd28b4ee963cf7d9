//! The state directory: what outlives the process, and the lock that keeps a second one out.
//!
//! | file | content |
//! | --- | --- |
//! | `lock` | locked while foip runs; the process's number, for the message |
//! | `host-id` | random, made once: tells this installation from a clone of its disk only together with the boot id |
//! | `saved.json` | [`Saved`] |
//! | `token` | written by the provider |
//!
//! A full disk, or one that became read-only, keeps nobody from starting: what cannot be saved is told and tried again,
//! and nothing is held back for it. The lock is on the directory itself and on its file, so that it needs no disk space
//! and also keeps out a foip that knows only the file; without a directory it is on the runtime directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::core::event::Identity;
use crate::core::saved::Saved;
use crate::files::{Lasts, Replacer, replace};
use crate::types::Span;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// The state directory of this process.
#[derive(Debug)]
pub struct Store {
    /// None: a dry run, which writes nothing. The host's id is among them only where it could not be saved at once.
    writers: Vec<Replacer>,
    /// Held until the process ends.
    _locks: Vec<Flock<File>>,
}

/// What was found in the state directory.
#[derive(Debug)]
pub struct Opened {
    /// For what is to be saved from now on.
    pub store: Store,
    /// Who this process is.
    pub identity: Identity,
    /// What was saved last; the default at the first start, or where it is unreadable.
    pub saved: Saved,
    /// What a person should know about it.
    pub warnings: Vec<String>,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another foip has it.
    #[error(
        "another foip{} runs with the state directory {}; a host has one: stop it, or set STATE_DIRECTORY",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        .folder.display()
    )]
    Taken {
        /// The directory.
        folder: PathBuf,
        /// The other process, where its number could be read.
        pid: Option<u32>,
    },
    /// Not even a lock, an id of the kernel or a thread can be had.
    #[error("cannot {what} {}: {source}; foip needs its state directory (STATE_DIRECTORY) or its runtime directory (RUNTIME_DIRECTORY)", .path.display())]
    Failed {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Store {
    /// Takes the directory for this process, and creates what is missing as far as the disk allows. `runtime` stands in
    /// for it, and lasts until the next boot.
    ///
    /// # Errors
    /// Another process has it, or nothing can be locked.
    pub fn open(folder: &Path, runtime: &Path) -> Result<Opened, StateError> {
        let mut warnings = Vec::new();
        let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        if let Err(error) = created {
            warnings.push(format!(
                "cannot create the state directory {}: {error}; foip goes on without",
                folder.display()
            ));
        }
        let locks = lock(folder, runtime)?;
        let mut writers = Vec::new();
        let host_path = folder.join("host-id");
        let host = match read_id(&host_path) {
            Some(host) => host,
            None => {
                let spare = runtime.join("host-id");
                let host = read_id(&spare).map_or_else(random_id, Ok)?;
                let line = format!("{host}\n");
                if let Err(error) = replace(&host_path, line.as_bytes(), 0o600) {
                    warnings.push(format!(
                        "cannot write {}: {error}; this host's id is kept in {} until the next boot",
                        host_path.display(),
                        spare.display()
                    ));
                    let _ = fs::create_dir_all(runtime);
                    let _ = replace(&spare, line.as_bytes(), 0o600);
                    let writer = write(&host_path)?;
                    writer.put(line.into_bytes());
                    writers.push(writer);
                }
                host
            }
        };
        let path = folder.join("saved.json");
        let (saved, warning) = load(&path);
        if warning.is_some() {
            // Kept for a person to look at; the next save would replace it.
            let _ = fs::rename(&path, folder.join("saved.json.unreadable"));
        }
        warnings.extend(warning);
        writers.insert(0, write(&path)?);
        let store = Self { writers, _locks: locks };
        // Whether it can be saved shows at once, and not when it must be.
        store.save(&saved);
        Ok(Opened { store, identity: identity(host)?, saved, warnings })
    }

    /// Reads what is there, and neither locks nor writes: for `run --dry-run` beside a running foip.
    ///
    /// # Errors
    /// The kernel gives no random number or no boot id.
    pub fn look(folder: &Path) -> Result<Opened, StateError> {
        let (saved, warning) = load(&folder.join("saved.json"));
        let host = match read_id(&folder.join("host-id")) {
            Some(host) => host,
            None => random_id()?,
        };
        Ok(Opened {
            store: Self { writers: Vec::new(), _locks: Vec::new() },
            identity: identity(host)?,
            saved,
            warnings: warning.into_iter().collect(),
        })
    }

    /// Saves as soon as the disk allows; never waits for it. Of several the newest wins.
    pub fn save(&self, saved: &Saved) {
        // Maps with text keys and plain values: serializing them cannot fail.
        if let (Some(writer), Ok(text)) = (self.writers.first(), serde_json::to_vec_pretty(saved)) {
            writer.put(text);
        }
    }

    /// Why something is not saved, where that is so. It is tried again all the while.
    pub fn failure(&self) -> Option<String> {
        self.writers.iter().find_map(Replacer::failure)
    }

    /// Waits until everything is on disk, at most for `limit`. For the way out only.
    pub fn settle(&self, limit: Span) -> bool {
        self.writers.iter().all(|writer| writer.settle(limit))
    }
}

fn write(path: &Path) -> Result<Replacer, StateError> {
    Replacer::start(path.to_owned(), 0o600, Lasts::Disk).map_err(|source| StateError::Failed {
        what: "start a thread that writes",
        path: path.to_owned(),
        source,
    })
}

/// Locks whatever can be locked of the directory and the file in it, else the runtime directory.
fn lock(folder: &Path, runtime: &Path) -> Result<Vec<Flock<File>>, StateError> {
    let path = folder.join("lock");
    let mut locks = Vec::new();
    if let Ok(file) = File::open(folder) {
        locks.extend(try_lock(file, folder)?);
    }
    let mut options = OpenOptions::new();
    let writable = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    if let Ok(file) = writable.open(&path).or_else(|_| File::open(&path))
        && let Some(mut lock) = try_lock(file, folder)?
    {
        let number = format!("{}\n", std::process::id());
        // For the message to a second process only.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(number.as_bytes()));
        locks.push(lock);
    }
    if locks.is_empty() {
        let failed = |source| StateError::Failed { what: "lock", path: runtime.to_owned(), source };
        fs::create_dir_all(runtime).map_err(failed)?;
        locks.extend(try_lock(File::open(runtime).map_err(failed)?, runtime)?);
    }
    match locks.is_empty() {
        false => Ok(locks),
        true => Err(StateError::Failed {
            what: "lock anything in",
            path: folder.to_owned(),
            source: io::Error::from(io::ErrorKind::Unsupported),
        }),
    }
}

/// `None` where this kind of file cannot be locked.
fn try_lock(file: File, folder: &Path) -> Result<Option<Flock<File>>, StateError> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => {
            let text = fs::read_to_string(folder.join("lock")).unwrap_or_default();
            Err(StateError::Taken { folder: folder.to_owned(), pid: text.trim().parse().ok() })
        }
        Err(_) => Ok(None),
    }
}

fn load(path: &Path) -> (Saved, Option<String>) {
    let unreadable = |why: String| {
        let text = format!(
            "the saved state in {} is unreadable ({why}): going on without it; the cluster's Leases still hold \
             the epochs",
            path.display()
        );
        (Saved::default(), Some(text))
    };
    match fs::read(path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(saved) => (saved, None),
            Err(why) => unreadable(why.to_string()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Saved::default(), None),
        Err(error) => unreadable(error.to_string()),
    }
}

fn identity(host: String) -> Result<Identity, StateError> {
    Ok(Identity { host, boot: kernel_id(BOOT_ID)?, nonce: random_id()? })
}

/// A random number for what needs one at start, such as the seed of the jitter.
///
/// # Errors
/// The kernel gives none.
pub fn seed() -> Result<u64, StateError> {
    let hex: String = random_id()?.chars().filter(|c| *c != '-').take(16).collect();
    Ok(u64::from_str_radix(&hex, 16).unwrap_or_default())
}

fn random_id() -> Result<String, StateError> {
    kernel_id(UUID)
}

fn kernel_id(path: &str) -> Result<String, StateError> {
    read_id(Path::new(path)).ok_or_else(|| StateError::Failed {
        what: "read",
        path: path.into(),
        source: io::Error::new(io::ErrorKind::InvalidData, "no UUID in it"),
    })
}

fn read_id(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let id = text.trim();
    let good = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    good.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::files::tests::Folder;
    use crate::types::Epoch;

    fn saved(epoch: u64) -> Saved {
        let group = "default".parse().unwrap();
        Saved { epochs: BTreeMap::from([(group, Epoch(epoch))]), ..Saved::default() }
    }

    fn open(folder: &Path) -> Result<Opened, StateError> {
        Store::open(folder, &folder.join("run"))
    }

    #[test]
    fn what_was_saved_is_there_at_the_next_start() {
        let folder = Folder::new();
        let state = folder.0.join("state");
        let first = open(&state).unwrap();
        assert_eq!(first.saved, Saved::default());
        assert_eq!(first.warnings, Vec::<String>::new());
        for epoch in 1..=50 {
            first.store.save(&saved(epoch));
        }
        assert!(first.store.settle(Span::secs(5)));
        let identity = first.identity.clone();
        drop(first);

        let second = open(&state).unwrap();
        assert_eq!(second.saved, saved(50));
        assert_eq!(second.identity.host, identity.host);
        assert_eq!(second.identity.boot, identity.boot);
        assert_ne!(second.identity.nonce, identity.nonce);
        for (path, mode) in [("", 0o700), ("saved.json", 0o600), ("host-id", 0o600)] {
            let metadata = fs::metadata(state.join(path)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
        }
    }

    #[test]
    fn one_process_at_a_time_and_the_other_is_named() {
        let folder = Folder::new();
        let first = open(&folder.0).unwrap();
        let error = open(&folder.0).unwrap_err().to_string();
        let expected = format!("another foip (process {}) runs with ", std::process::id());
        assert!(error.starts_with(&expected), "{error}");
        assert!(Store::look(&folder.0).is_ok());
        drop(first);
        assert!(open(&folder.0).is_ok());
    }

    #[test]
    fn an_unreadable_state_is_said_and_kept_aside() {
        let folder = Folder::new();
        for text in ["", "{\"epochs\":", "\u{0}\u{0}", "{\"epochs\":{\"Bad Name\":1}}"] {
            fs::write(folder.0.join("saved.json"), text).unwrap();
            let opened = open(&folder.0).unwrap();
            assert_eq!(opened.saved, Saved::default());
            let warnings = opened.warnings;
            assert!(warnings[0].contains("is unreadable ("), "{warnings:?}");
            // Else it is written while the next round has begun.
            assert!(opened.store.settle(Span::secs(5)));
            let kept = fs::read_to_string(folder.0.join("saved.json.unreadable")).unwrap();
            assert_eq!(kept, text);
        }
    }

    #[test]
    fn a_broken_host_id_is_made_anew() {
        let folder = Folder::new();
        fs::write(folder.0.join("host-id"), "").unwrap();
        let made = open(&folder.0).unwrap().identity.host;
        assert_eq!(made.len(), 36);
        assert_eq!(open(&folder.0).unwrap().identity.host, made);
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let folder = Folder::new();
        let opened = Store::look(&folder.0).unwrap();
        opened.store.save(&saved(1));
        assert!(opened.store.settle(Span::ZERO));
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    /// A folder that takes nothing, whoever asks: what would be a file in it is a folder, or its parent is a file.
    #[test]
    fn without_a_state_directory_it_starts_and_says_so_and_saves_when_it_can() {
        let folder = Folder::new();
        let (state, run) = (folder.0.join("disk/state"), folder.0.join("run"));
        fs::write(folder.0.join("disk"), "no directory").unwrap();
        let first = Store::open(&state, &run).unwrap();
        assert!(first.warnings[0].contains("cannot create the state directory"));
        assert!(first.warnings[1].contains("host-id"), "{:?}", first.warnings);
        first.store.settle(Span::secs(5));
        assert!(first.store.failure().is_some());
        // One at a time all the same.
        let second = Store::open(&state, &run).unwrap_err().to_string();
        assert!(second.starts_with("another foip runs with"), "{second}");
        let host = first.identity.host.clone();
        drop(first);
        // The next process is the same host.
        let third = Store::open(&state, &run).unwrap();
        assert_eq!(third.identity.host, host);
        third.store.settle(Span::secs(5));
        // The disk is there again.
        fs::remove_file(folder.0.join("disk")).unwrap();
        fs::create_dir_all(&state).unwrap();
        let end = crate::clock::now() + Span::secs(30);
        while third.store.failure().is_some() {
            assert!(crate::clock::now() < end, "{:?}", third.store.failure());
            std::thread::park_timeout(Span::millis(50).as_std());
        }
        assert_eq!(read_id(&state.join("host-id")), Some(host));
        assert!(state.join("saved.json").exists());
    }

    #[test]
    fn a_lock_of_an_older_foip_on_the_file_alone_is_respected() {
        let folder = Folder::new();
        let path = folder.0.join("lock");
        fs::write(&path, "4711\n").unwrap();
        let held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive);
        let error = open(&folder.0).unwrap_err().to_string();
        assert!(error.starts_with("another foip (process 4711) runs with"), "{error}");
        drop(held);
        assert!(open(&folder.0).is_ok());
    }
}
