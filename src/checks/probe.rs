//! One try of a check: a connection, a request, or a program.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::command::Running;
use super::{Hidden, Stop};
use crate::clock;
use crate::config::Probe;
use crate::types::{Span, Tick};

/// Tries one check, again and again.
pub(super) struct Prober {
    /// What a program is kept from.
    hidden: Hidden,
    /// A program that outlived its kill signal: the kernel waits for a disk or the like.
    stuck: Option<Running>,
}

impl Prober {
    pub(super) const fn new(hidden: Hidden) -> Self {
        Self { hidden, stuck: None }
    }

    /// What was answered, in words, as a success or as a failure. Ends at `deadline`, or soon after `stop`.
    pub(super) fn probe(
        &mut self,
        probe: &Probe,
        deadline: Tick,
        stop: &Stop,
    ) -> Result<String, String> {
        match probe {
            Probe::Tcp(at) => match connect(*at, deadline) {
                Ok(_) => Ok(format!("{at}: connected")),
                Err(error) => Err(format!("{at}: {error}")),
            },
            Probe::Http { at, host, path } => get(*at, host, path, deadline)
                .map_err(|error| format!("http://{host}{path}: {error}"))
                .and_then(|status| match status {
                    200..=399 => Ok(format!("http://{host}{path}: status {status}")),
                    _ => Err(format!("http://{host}{path}: status {status}")),
                }),
            Probe::Command(words) => {
                if let Some(mut stuck) = self.stuck.take()
                    && !stuck.is_over()
                {
                    self.stuck = Some(stuck);
                    // Not one more of them each time.
                    return Err("the program of an earlier try does not die".into());
                }
                let mut running = Running::start(words, &self.hidden)?;
                let result = running.finish(deadline, stop);
                self.stuck = Some(running).filter(|running| !running.reaped());
                result
            }
        }
    }
}

fn left(deadline: Tick) -> io::Result<std::time::Duration> {
    match clock::now().until(deadline) {
        Span::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        left => Ok(left.as_std()),
    }
}

fn in_words(error: io::Error) -> io::Error {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
    } else {
        error
    }
}

fn connect(at: SocketAddr, deadline: Tick) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&at, left(deadline)?).map_err(in_words)
}

/// The status of the answer to a GET (RFC 9112).
fn get(at: SocketAddr, host: &str, path: &str, deadline: Tick) -> io::Result<u16> {
    let mut stream = connect(at, deadline)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: foip/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes()).map_err(in_words)?;
    // "HTTP/1.1 200": nothing behind it is of interest.
    let mut line = [0; 12];
    let mut length = 0;
    while length < line.len() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut line[length..]).map_err(in_words)? {
            0 => return Err(io::Error::other("the answer ends before its status")),
            more => length += more,
        }
    }
    let status = line.strip_prefix(b"HTTP/1.").and_then(|rest| match rest {
        [_, b' ', digits @ ..] => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    });
    status.ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::sync_channel;

    use super::*;

    /// A server that gives each connection the next of these answers and closes it, then says nothing.
    fn server(answers: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                assert!(request.starts_with("GET /healthz?a=1 HTTP/1.1\r\nHost: localhost\r\n"));
                stream.write_all(answer).unwrap();
            }
            let _open = listener.accept();
            std::thread::park();
        });
        at
    }

    #[test]
    fn the_status_decides_and_every_other_end_is_a_failure() {
        let at = server(&[
            b"HTTP/1.1 200 OK\r\n\r\nfine",
            b"HTTP/1.0 302 Found\r\n\r\n",
            b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
            b"HTTP/1.1 404",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"HTTP/1.1 2x0 no",
            b"HTTP/1.1",
        ]);
        let probe = Probe::Http { at, host: "localhost".into(), path: "/healthz?a=1".into() };
        let (_go_on, stop) = sync_channel(0);
        let stop = Stop(stop);
        let mut prober = Prober::new(Hidden::default());
        let mut try_once = |limit: Span| prober.probe(&probe, clock::now() + limit, &stop);
        let soon = Span::secs(5);
        for status in [200, 302] {
            let expected = format!("http://localhost/healthz?a=1: status {status}");
            assert_eq!(try_once(soon), Ok(expected));
        }
        for why in [
            "status 500",
            "status 404",
            "the answer is not HTTP",
            "the answer is not HTTP",
            "the answer ends before its status",
        ] {
            let expected = format!("http://localhost/healthz?a=1: {why}");
            assert_eq!(try_once(soon), Err(expected));
        }
        let begun = clock::now();
        let silent = try_once(Span::millis(200));
        let expected = "http://localhost/healthz?a=1: no answer in time";
        assert_eq!(silent, Err(expected.into()));
        assert!(clock::now().since(begun) < Span::secs(2));
    }
}
