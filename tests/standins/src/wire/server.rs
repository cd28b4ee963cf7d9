//! Listeners, connections and their threads.
//!
//! ```text
//! Listen -- open --> accepting -- refuse --> closed (connections cut) -- accept_again --> accepting
//!                        `-- connection: admit, TLS handshake, then request, answer, request, …
//! ```

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::CertificateDer;

use super::http::{Inbox, Reply, Request, Unread};
use super::listen::Listen;
use crate::stop::{Stop, lock};

/// What becomes of a connection before TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is served.
    Serve,
    /// The client's first message is read, and then the connection is cut.
    CutInHandshake,
    /// Nothing more happens until the client leaves.
    Hold,
}

/// What a stand-in does with connections and requests.
pub trait Service: Send + Sync + 'static {
    /// Decides on a new connection; may block.
    fn admit(&self, _listener: usize, _client: SocketAddr) -> Admission {
        Admission::Serve
    }

    /// Answers a request. An error ends the connection.
    fn serve(&self, request: &Request, wire: &mut Wire) -> io::Result<()>;

    /// Wakes threads that wait inside the service, because the server stops.
    fn wake(&self) {}
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buffer),
            Self::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// One connection, for the service to answer on.
pub struct Wire {
    stream: Stream,
    raw: TcpStream,
    stop: Arc<Stop>,
    peer: Vec<CertificateDer<'static>>,
}

impl Wire {
    /// The certificates that the client showed, leaf first; empty where it showed none.
    pub fn peer(&self) -> &[CertificateDer<'static>] {
        &self.peer
    }

    /// Sends a whole answer.
    pub fn send(&mut self, reply: &Reply) -> io::Result<()> {
        self.write(&reply.bytes())
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Begins an answer whose body comes in chunks.
    pub fn begin(&mut self, reply: &Reply) -> io::Result<()> {
        let head = reply.head(None);
        self.write(&head)
    }

    /// Sends one chunk; an empty one ends the answer.
    pub fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.write(&framed)
    }

    /// Ends the connection without a word, as a power loss on the way does.
    pub fn cut(&mut self) -> io::Error {
        let _ = self.raw.shutdown(Shutdown::Both);
        io::ErrorKind::ConnectionAborted.into()
    }

    /// Whether the client has closed, or sent something where it should wait.
    pub fn is_left(&self) -> bool {
        let mut fds = [PollFd::new(self.raw.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Says nothing until the client leaves or the stand-in ends.
    pub fn hold(&mut self) -> io::Error {
        while !self.is_left() && !self.stop.wait(Duration::from_millis(100)) {}
        self.cut()
    }

    /// Waits; true when the stand-in ends.
    pub fn wait(&self, time: Duration) -> bool {
        self.stop.wait(time)
    }
}

struct Door {
    listen: Listen,
    /// The socket while it is open, and a way to wake its thread.
    open: Option<(JoinHandle<()>, UnixStream)>,
}

struct Inside {
    service: Arc<dyn Service>,
    stop: Arc<Stop>,
    tls: Mutex<Option<Arc<ServerConfig>>>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    live: HashMap<u64, (usize, TcpStream)>,
    threads: HashMap<u64, JoinHandle<()>>,
    ended: Vec<u64>,
}

/// Serves until it is dropped; then every thread has ended.
pub struct Server {
    inside: Arc<Inside>,
    doors: Mutex<Vec<Door>>,
}

impl Server {
    /// Opens the listeners. `tls` none: plain HTTP.
    pub fn start(
        service: Arc<dyn Service>,
        stop: Arc<Stop>,
        tls: Option<Arc<ServerConfig>>,
        listen: &[Listen],
    ) -> io::Result<Self> {
        let inside =
            Arc::new(Inside { service, stop, tls: Mutex::new(tls), connections: Mutex::default() });
        let server = Self { inside, doors: Mutex::default() };
        for (number, listen) in listen.iter().enumerate() {
            let mut listen = listen.clone();
            let first = lock(&server.doors).first().map(|door| door.listen.clone());
            let socket = listen
                .open_beside(first.as_ref())
                .map_err(|error| io::Error::new(error.kind(), format!("{listen}: {error}")))?;
            // A free port that the kernel chose stays the same when the door opens again.
            listen.addr = socket.local_addr()?;
            let open = Some(server.attend(number, socket)?);
            lock(&server.doors).push(Door { listen, open });
        }
        Ok(server)
    }

    fn attend(
        &self,
        number: usize,
        socket: TcpListener,
    ) -> io::Result<(JoinHandle<()>, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let inside = self.inside.clone();
        let thread = std::thread::Builder::new()
            .name(format!("accept-{number}"))
            .spawn(move || inside.accept(number, &socket, &theirs))?;
        Ok((thread, ours))
    }

    /// Where it listens, with the real ports.
    pub fn listens(&self) -> Vec<Listen> {
        lock(&self.doors).iter().map(|door| door.listen.clone()).collect()
    }

    /// Uses other certificates for connections to come.
    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        *lock(&self.inside.tls) = Some(tls);
    }

    /// Closes a listener, so that connecting to it is refused, and cuts its connections.
    pub fn refuse(&self, number: usize) {
        let open = lock(&self.doors).get_mut(number).and_then(|door| door.open.take());
        if let Some((thread, wake)) = open {
            drop(wake);
            let _ = thread.join();
        }
        self.cut(Some(number));
    }

    /// Opens a listener that was closed.
    pub fn accept_again(&self, number: usize) -> io::Result<()> {
        let mut doors = lock(&self.doors);
        if let Some(door) = doors.get_mut(number)
            && door.open.is_none()
        {
            let socket = door.listen.open()?;
            door.open = Some(self.attend(number, socket)?);
        }
        Ok(())
    }

    /// Cuts the connections that exist, of one listener or of all.
    pub fn cut(&self, listener: Option<usize>) {
        for (number, stream) in lock(&self.inside.connections).live.values() {
            if listener.is_none_or(|only| only == *number) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inside.stop.raise();
        self.inside.service.wake();
        for door in lock(&self.doors).drain(..) {
            if let Some((thread, wake)) = door.open {
                drop(wake);
                let _ = thread.join();
            }
        }
        self.cut(None);
        let threads = std::mem::take(&mut lock(&self.inside.connections).threads);
        for thread in threads.into_values() {
            let _ = thread.join();
        }
    }
}

impl Inside {
    /// Accepts until the other end of `wake` is gone.
    fn accept(self: &Arc<Self>, number: usize, socket: &TcpListener, wake: &UnixStream) {
        if socket.set_nonblocking(true).is_err() {
            return;
        }
        loop {
            let mut fds = [
                PollFd::new(socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(wake.as_fd(), PollFlags::POLLIN),
            ];
            if poll(&mut fds, PollTimeout::NONE).is_err() {
                continue;
            }
            if fds[1].any().unwrap_or(true) {
                return;
            }
            if let Ok((stream, client)) = socket.accept() {
                self.connect(number, stream, client);
            }
        }
    }

    fn connect(self: &Arc<Self>, number: usize, stream: TcpStream, client: SocketAddr) {
        let Ok(raw) = stream.set_nonblocking(false).and_then(|()| stream.try_clone()) else {
            return;
        };
        let mut connections = lock(&self.connections);
        for ended in std::mem::take(&mut connections.ended) {
            if let Some(thread) = connections.threads.remove(&ended) {
                let _ = thread.join();
            }
        }
        let id = connections.next;
        connections.next += 1;
        connections.live.insert(id, (number, raw));
        let inside = self.clone();
        let spawned =
            std::thread::Builder::new().name(format!("connection-{id}")).spawn(move || {
                let _ = inside.converse(number, stream, client);
                let mut connections = lock(&inside.connections);
                connections.live.remove(&id);
                connections.ended.push(id);
            });
        match spawned {
            Ok(thread) => drop(connections.threads.insert(id, thread)),
            Err(_) => drop(connections.live.remove(&id)),
        }
    }

    fn converse(&self, number: usize, stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let raw = stream.try_clone()?;
        match self.service.admit(number, client) {
            Admission::Serve => {}
            Admission::CutInHandshake => {
                let _ = (&raw).read(&mut [0_u8; 4096]);
                return raw.shutdown(Shutdown::Both);
            }
            Admission::Hold => {
                // What the client sends is read and dropped, so that its leaving is seen.
                let _ = io::copy(&mut &raw, &mut io::sink());
                return raw.shutdown(Shutdown::Both);
            }
        }
        let tls = lock(&self.tls).clone();
        let mut peer = Vec::new();
        let stream = match tls {
            None => Stream::Plain(stream),
            Some(config) => {
                let connection = ServerConnection::new(config).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, stream);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                let shown = stream.conn.peer_certificates().unwrap_or_default();
                peer = shown.iter().map(|cert| cert.clone().into_owned()).collect();
                Stream::Tls(Box::new(stream))
            }
        };
        let mut wire = Wire { stream, raw, stop: self.stop.clone(), peer };
        let mut inbox = Inbox::default();
        while !self.stop.is_raised() {
            match inbox.request(&mut wire.stream, client, number) {
                Ok(request) => {
                    self.service.serve(&request, &mut wire)?;
                    if request.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
                    {
                        break;
                    }
                }
                Err(Unread::Closed) => break,
                Err(Unread::Bad(why)) => {
                    wire.send(&Reply::new(400, "text/plain", why).with("Connection", "close"))?;
                    break;
                }
            }
        }
        if let Stream::Tls(stream) = &mut wire.stream {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        let _ = wire.raw.shutdown(Shutdown::Both);
        Ok(())
    }
}
