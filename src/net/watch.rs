//! The monitor on a thread of its own, which may wait where the loop must not.
//!
//! ```text
//!  poll ──▶ drain ──▶ tell        the kernel's lock may hold a dump up: only this thread waits
//!   ▲  │       └─ error ──▶ a new socket after a second, then tell(Overrun)
//!   │  └─ stop pipe closed ──▶ end
//!   └──────────────────────┘
//! ```

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::NetError;
use super::monitor::{Change, Monitor};
use super::nic::Nic;

/// Between two tries to open a new socket.
const AGAIN_AFTER_MS: u16 = 1000;

/// A running watch. It ends soon after this is dropped; nobody waits for that.
#[derive(Debug)]
pub struct Watch {
    _stop: PipeWriter,
}

impl Watch {
    /// Begins to watch the NIC. `tell` gets every batch of changes, on the watch's thread, and should hand them on and
    /// return; after any of them [`Nic::addresses`] and [`Nic::link`] are to be asked again.
    ///
    /// The thread lives in the network namespace of the caller.
    pub fn start(
        nic: &Nic,
        tell: impl FnMut(Vec<Change>) + Send + 'static,
    ) -> Result<Self, NetError> {
        let failed = |error: io::Error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            NetError::kernel("start to watch the network", errno)
        };
        let monitor = Monitor::new(nic)?;
        let nic = nic.clone();
        let (stopped, stop) = io::pipe().map_err(failed)?;
        std::thread::Builder::new()
            .name("foip-net".into())
            .spawn(move || watch(&nic, Some(monitor), &stopped, tell))
            .map_err(failed)?;
        Ok(Self { _stop: stop })
    }
}

fn watch(
    nic: &Nic,
    mut monitor: Option<Monitor>,
    stopped: &PipeReader,
    mut tell: impl FnMut(Vec<Change>),
) {
    while let Ok(awake) = wait(monitor.as_ref(), stopped) {
        match (&mut monitor, awake) {
            (_, Awake::Stopped) => return,
            (None, Awake::Ready | Awake::TimedOut) => {
                monitor = Monitor::new(nic).ok();
                if monitor.is_some() {
                    tell(vec![Change::Overrun]);
                }
            }
            (Some(socket), Awake::Ready | Awake::TimedOut) => match socket.drain() {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => tell(changes),
                Err(error) => {
                    tracing::warn!("{error}; changes of the network are read anew");
                    monitor = None;
                }
            },
        }
    }
}

enum Awake {
    Stopped,
    Ready,
    TimedOut,
}

/// Waits for news, for the end, or, without a socket, for the time to open one.
fn wait(monitor: Option<&Monitor>, stopped: &PipeReader) -> Result<Awake, Errno> {
    let until = monitor.map_or(PollTimeout::from(AGAIN_AFTER_MS), |_| PollTimeout::NONE);
    let mut fds = vec![PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
    fds.extend(monitor.map(|monitor| PollFd::new(monitor.as_fd(), PollFlags::POLLIN)));
    match poll(&mut fds, until) {
        Ok(0) | Err(Errno::EINTR) => Ok(Awake::TimedOut),
        // Nothing is ever written: readable means that the other end is closed.
        Ok(_) if fds[0].any() != Some(false) => Ok(Awake::Stopped),
        Ok(_) => Ok(Awake::Ready),
        Err(errno) => Err(errno),
    }
}
