//! A unix socket that takes commands: one JSON object per line in, one line out.
//!
//! The answer is `{"ok":…}` with what the command gives back, or `{"error":"…"}`.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::stop::lock;

/// Understands a line and does it.
pub(crate) type Obey = dyn Fn(&str) -> Result<Value, String> + Send + Sync;

/// The socket, open until dropped.
pub(crate) struct Control {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    wake: Option<UnixStream>,
}

impl Control {
    pub(crate) fn open(path: &Path, obey: Arc<Obey>) -> io::Result<Self> {
        // The socket of a predecessor that was killed is in the way.
        let _ = std::fs::remove_file(path);
        let socket = UnixListener::bind(path)?;
        let (ours, theirs) = UnixStream::pair()?;
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || attend(&socket, &theirs, &obey))?;
        Ok(Self { path: path.to_owned(), thread: Some(thread), wake: Some(ours) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn attend(socket: &UnixListener, wake: &UnixStream, obey: &Arc<Obey>) {
    let live: Arc<Mutex<HashMap<u64, UnixStream>>> = Arc::default();
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for number in 0_u64.. {
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(wake.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        if fds[1].any().unwrap_or(true) {
            break;
        }
        if let Ok((stream, _)) = socket.accept()
            && let Ok(copy) = stream.try_clone()
        {
            lock(&live).insert(number, copy);
            threads.retain(|thread| !thread.is_finished());
            let (obey, live) = (obey.clone(), live.clone());
            threads.push(std::thread::spawn(move || {
                let _ = converse(&stream, &*obey);
                let _ = stream.shutdown(Shutdown::Both);
                lock(&live).remove(&number);
            }));
        }
    }
    for stream in lock(&live).values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn converse(stream: &UnixStream, obey: &Obey) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let answer = match obey(&line?) {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error }),
        };
        let mut stream = stream;
        stream.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}
