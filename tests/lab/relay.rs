//! A relay before a host's API server that can hold back its answers: what a slow server does, real or built in.
//!
//! Bytes pass unread, so TLS stays between foip and the API server. Requests pass at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::plan::{API_PORT, RELAY_PORT};
use crate::trouble;
use crate::trouble::{Outcome, Tried};

/// The relay of one host. Its threads end with the lab.
pub struct Relay {
    late: Arc<AtomicU64>,
}

impl Relay {
    /// Listens in a host's namespace, on [`RELAY_PORT`].
    pub fn start(namespace: &str) -> Outcome<Self> {
        let late = Arc::<AtomicU64>::default();
        let path = Path::new("/run/netns").join(namespace);
        let file = File::open(&path).tried(|| path.display().to_string())?;
        let (told, begun) = channel();
        let delay = Arc::clone(&late);
        std::thread::spawn(move || {
            // A thread is in a namespace by itself, and so are those that it starts.
            let listener = setns(file, CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| TcpListener::bind((Ipv4Addr::UNSPECIFIED, RELAY_PORT)));
            match listener {
                Ok(listener) => {
                    let _ = told.send(Ok(()));
                    listener.incoming().flatten().for_each(|client| serve(client, &delay));
                }
                Err(error) => drop(told.send(Err(error))),
            }
        });
        begun
            .recv()
            .map_err(|_| trouble!("a relay ended at once"))?
            .tried(|| format!("no relay on port {RELAY_PORT} in {namespace}"))?;
        Ok(Self { late })
    }

    /// Answers take this much longer from now on.
    pub fn hold_back(&self, time: Duration) {
        self.late.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

/// One connection: a thread for what the client says, one that reads the answers and one that passes them on.
fn serve(client: TcpStream, late: &Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, API_PORT)) else { return };
    // A piece of TLS that waits for the next would be late by itself.
    let prompt = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let (Ok(()), Ok(to_server), Ok(to_client)) = (prompt, server.try_clone(), client.try_clone())
    else {
        return;
    };
    let late = Arc::clone(late);
    let (queue, answers) = channel();
    std::thread::spawn(move || {
        let (mut from, mut to) = (&client, &to_server);
        // Whichever way it ends, the other side learns it.
        let _ = io::copy(&mut from, &mut to);
        let _ = to_server.shutdown(std::net::Shutdown::Both);
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = (&server).read(&mut buffer) {
            let due = Instant::now() + Duration::from_millis(late.load(Ordering::SeqCst));
            if queue.send((due, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        pass_on(&answers, &to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
}

fn pass_on(answers: &Receiver<(Instant, Vec<u8>)>, mut client: &TcpStream) {
    while let Ok((due, piece)) = answers.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if client.write_all(&piece).is_err() {
            return;
        }
    }
}
