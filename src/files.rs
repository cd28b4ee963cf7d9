//! Small files that readers must never see half: replaced by rename, on a thread of their own where a hanging
//! disk must not hold up the decision loop.
//!
//! ```text
//! put(new) ──► slot (the newest wins) ──► thread: write aside, fsync, rename, fsync the directory
//!                ▲                                 (Lasts::Boot: without fsync)
//!                └── failed: the same again in AGAIN, or something newer
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::types::Span;

/// Until what could not be written is tried again.
const AGAIN: Span = Span::secs(5);

/// What a file's content has to outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// Power loss.
    Disk,
    /// The process only: after a boot nobody reads it.
    Boot,
}

/// Replaces the file at `path`: a reader, and a machine after power loss, finds the old content or the new.
///
/// # Errors
/// The directory cannot be written to, or the disk is full. The old file is then unchanged.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_for(Lasts::Disk, path, content, mode)
}

/// Reads a file of at most so many bytes.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read_capped(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        let text = format!("it has more than the {most} bytes that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(content)
}

fn replace_for(lasts: Lasts, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    let aside = folder.join(format!(".{}.new", name.to_string_lossy()));
    // A leftover of a crash, or something put there to be written through.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
        file.write_all(content)?;
        if lasts == Lasts::Boot {
            return fs::rename(&aside, path);
        }
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(folder)?.sync_all()
    };
    written().inspect_err(|_| {
        let _ = fs::remove_file(&aside);
    })
}

/// Writes one file on a thread of its own. What was not yet begun when something newer comes is never written; what
/// could not be written is tried again until it can, or until something newer comes.
#[derive(Debug)]
pub struct Replacer {
    slot: Arc<Slot>,
}

#[derive(Debug)]
struct Slot {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: Option<Vec<u8>>,
    /// What could not be written.
    failed: Option<Vec<u8>>,
    writing: bool,
    closed: bool,
    failure: Option<String>,
}

impl Replacer {
    /// For the file at `path`, created with `mode`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(path: PathBuf, mode: u32, lasts: Lasts) -> io::Result<Self> {
        let slot = Arc::new(Slot { path, state: Mutex::default(), changed: Condvar::new() });
        let worker = Arc::clone(&slot);
        std::thread::Builder::new()
            .name("foip-file".into())
            .spawn(move || worker.work(|path, content| replace_for(lasts, path, content, mode)))?;
        Ok(Self { slot })
    }

    /// Content to be written as soon as the disk allows. Never waits for the disk.
    pub fn put(&self, content: Vec<u8>) {
        self.slot.lock().next = Some(content);
        self.slot.changed.notify_all();
    }

    /// Why the last write failed; `None` once one has succeeded.
    pub fn failure(&self) -> Option<String> {
        self.slot.lock().failure.clone()
    }

    /// Waits until everything is written, at most for `limit`. For the way out only.
    pub fn settle(&self, limit: Span) -> bool {
        let end = clock::now() + limit;
        let mut state = self.slot.lock();
        while state.writing || state.next.is_some() {
            let left = clock::now().until(end);
            if left == Span::ZERO {
                return false;
            }
            let waited = self.slot.changed.wait_timeout(state, left.as_std());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Replacer {
    /// Lets the thread write what is left and end; does not wait for it.
    fn drop(&mut self) {
        self.slot.lock().closed = true;
        self.slot.changed.notify_all();
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, write: impl Fn(&Path, &[u8]) -> io::Result<()>) {
        let mut state = self.lock();
        let mut again = clock::now();
        loop {
            let now = clock::now();
            let due = state.failed.is_some() && now >= again;
            if state.next.is_none() && due {
                state.next = state.failed.take();
            }
            if let Some(content) = state.next.take() {
                state.failed = None;
                state.writing = true;
                drop(state);
                let result = write(&self.path, &content);
                again = clock::now() + AGAIN;
                state = self.lock();
                state.writing = false;
                state.failure = result
                    .err()
                    .map(|error| format!("cannot write {}: {error}", self.path.display()));
                state.failed = state.failure.is_some().then_some(content);
                self.changed.notify_all();
            } else if state.closed {
                return;
            } else if state.failed.is_some() {
                let woken = self.changed.wait_timeout(state, now.until(again).as_std());
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// A folder of this test's own, removed at its end.
    pub(crate) struct Folder(pub PathBuf);

    impl Folder {
        pub(crate) fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("foip-unit-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_leaves_nothing_aside() {
        let folder = Folder::new();
        let path = folder.0.join("file");
        fs::write(&path, "old").unwrap();
        fs::write(folder.0.join(".file.new"), "left by a crash").unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        assert!(replace(&folder.0.join("no/file"), b"new", 0o600).is_err());
    }

    #[test]
    fn a_hanging_disk_holds_nobody_up_and_the_newest_wins() {
        let slot = Arc::new(Slot {
            path: "unused".into(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (begun, has_begun) = mpsc::channel();
        let (thaw, frozen) = mpsc::channel::<()>();
        let worker = Arc::clone(&slot);
        std::thread::spawn(move || {
            worker.work(|_, content| {
                begun.send(content.to_vec()).unwrap();
                frozen.recv().map_err(io::Error::other)
            });
        });
        let replacer = Replacer { slot };
        replacer.put(vec![0]);
        assert_eq!(has_begun.recv().unwrap(), [0]);
        let start = clock::now();
        for n in 1..=100 {
            replacer.put(vec![n]);
        }
        assert!(!replacer.settle(Span::millis(20)));
        assert!(clock::now().since(start) < Span::millis(500));
        thaw.send(()).unwrap();
        assert_eq!(has_begun.recv().unwrap(), [100]);
        thaw.send(()).unwrap();
        assert!(replacer.settle(Span::secs(5)));
        assert_eq!(replacer.failure(), None);
    }

    #[test]
    fn a_failed_write_is_told_until_one_succeeds() {
        let folder = Folder::new();
        let path = folder.0.join("sub/file");
        let replacer = Replacer::start(path.clone(), 0o600, Lasts::Boot).unwrap();
        replacer.put(b"one".to_vec());
        assert!(replacer.settle(Span::secs(5)));
        let failure = replacer.failure().unwrap();
        assert!(failure.starts_with("cannot write "), "{failure}");
        fs::create_dir(folder.0.join("sub")).unwrap();
        replacer.put(b"two".to_vec());
        assert!(replacer.settle(Span::secs(5)));
        assert_eq!(replacer.failure(), None);
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_by_itself() {
        let folder = Folder::new();
        let path = folder.0.join("sub/file");
        let replacer = Replacer::start(path.clone(), 0o600, Lasts::Boot).unwrap();
        replacer.put(b"one".to_vec());
        replacer.settle(Span::secs(5));
        assert!(replacer.failure().is_some());
        fs::create_dir(folder.0.join("sub")).unwrap();
        let end = clock::now() + AGAIN.times(4);
        while replacer.failure().is_some() {
            assert!(clock::now() < end, "nobody tries again");
            std::thread::park_timeout(Span::millis(20).as_std());
        }
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }
}
