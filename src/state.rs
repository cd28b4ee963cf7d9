//! The state directory: what outlives the process, and the lock that keeps a second one out.
//!
//! | file | content |
//! | --- | --- |
//! | `lock` | locked while foip runs; the process's number, for the message |
//! | `host-id` | random, made once: tells this installation from a clone of its disk only together with the boot id |
//! | `saved.json` | [`Saved`] |
//! | `token` | written by the provider |

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
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
    /// `None`: a dry run, which writes nothing.
    writer: Option<Replacer>,
    /// Held until the process ends.
    _lock: Option<Flock<File>>,
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
    pub warning: Option<String>,
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
    /// A file or the directory cannot be read or written.
    #[error("cannot {what} {}: {source}; foip needs its state directory (STATE_DIRECTORY)", .path.display())]
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
    /// Takes the directory for this process, and creates what is missing.
    ///
    /// # Errors
    /// Another process has it, or it cannot be written to.
    pub fn open(folder: &Path) -> Result<Opened, StateError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Failed { what, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("create", folder))?;
        let lock = lock(folder)?;
        let host_path = folder.join("host-id");
        let host = match read_id(&host_path) {
            Some(host) => host,
            None => {
                let host = random_id()?;
                let line = format!("{host}\n");
                replace(&host_path, line.as_bytes(), 0o600).map_err(failed("write", &host_path))?;
                host
            }
        };
        let path = folder.join("saved.json");
        let (saved, warning) = load(&path);
        if warning.is_some() {
            // Kept for a person to look at; the next save would replace it.
            let _ = fs::rename(&path, folder.join("saved.json.unreadable"));
        }
        let writer =
            Replacer::start(path.clone(), 0o600, Lasts::Disk).map_err(failed("write", &path))?;
        Ok(Opened {
            store: Self { writer: Some(writer), _lock: Some(lock) },
            identity: identity(host)?,
            saved,
            warning,
        })
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
            store: Self { writer: None, _lock: None },
            identity: identity(host)?,
            saved,
            warning,
        })
    }

    /// Saves as soon as the disk allows; never waits for it. Of several the newest wins.
    pub fn save(&self, saved: &Saved) {
        // Maps with text keys and plain values: serializing them cannot fail.
        if let (Some(writer), Ok(text)) = (&self.writer, serde_json::to_vec_pretty(saved)) {
            writer.put(text);
        }
    }

    /// Why the last save failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.writer.as_ref().and_then(Replacer::failure)
    }

    /// Waits until everything is on disk, at most for `limit`. For the way out only.
    pub fn settle(&self, limit: Span) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.settle(limit))
    }
}

fn lock(folder: &Path) -> Result<Flock<File>, StateError> {
    let path = folder.join("lock");
    let failed = |what| {
        let path = path.clone();
        move |source| StateError::Failed { what, path, source }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open"))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let number = format!("{}\n", std::process::id());
            lock.set_len(0)
                .and_then(|()| lock.rewind())
                .and_then(|()| lock.write_all(number.as_bytes()))
                .map_err(failed("write"))?;
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Err(StateError::Taken { folder: folder.to_owned(), pid: text.trim().parse().ok() })
        }
        Err((_, errno)) => Err(failed("lock")(errno.into())),
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

    #[test]
    fn what_was_saved_is_there_at_the_next_start() {
        let folder = Folder::new();
        let state = folder.0.join("state");
        let first = Store::open(&state).unwrap();
        assert_eq!(first.saved, Saved::default());
        assert_eq!(first.warning, None);
        for epoch in 1..=50 {
            first.store.save(&saved(epoch));
        }
        assert!(first.store.settle(Span::secs(5)));
        let identity = first.identity.clone();
        drop(first);

        let second = Store::open(&state).unwrap();
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
        let first = Store::open(&folder.0).unwrap();
        let error = Store::open(&folder.0).unwrap_err().to_string();
        let expected = format!("another foip (process {}) runs with ", std::process::id());
        assert!(error.starts_with(&expected), "{error}");
        assert!(Store::look(&folder.0).is_ok());
        drop(first);
        assert!(Store::open(&folder.0).is_ok());
    }

    #[test]
    fn an_unreadable_state_is_said_and_kept_aside() {
        let folder = Folder::new();
        for text in ["", "{\"epochs\":", "\u{0}\u{0}", "{\"epochs\":{\"Bad Name\":1}}"] {
            fs::write(folder.0.join("saved.json"), text).unwrap();
            let opened = Store::open(&folder.0).unwrap();
            assert_eq!(opened.saved, Saved::default());
            let warning = opened.warning.unwrap();
            assert!(warning.contains("is unreadable ("), "{warning}");
            let kept = fs::read_to_string(folder.0.join("saved.json.unreadable")).unwrap();
            assert_eq!(kept, text);
        }
    }

    #[test]
    fn a_broken_host_id_is_made_anew() {
        let folder = Folder::new();
        fs::write(folder.0.join("host-id"), "").unwrap();
        let made = Store::open(&folder.0).unwrap().identity.host;
        assert_eq!(made.len(), 36);
        assert_eq!(Store::open(&folder.0).unwrap().identity.host, made);
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let folder = Folder::new();
        let opened = Store::look(&folder.0).unwrap();
        opened.store.save(&saved(1));
        assert!(opened.store.settle(Span::ZERO));
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }
}
