//! TCP below and a gate above TLS: what has to be true at the moment when a request's bytes leave.
//!
//! ```text
//!   ureq ── request ──▶ Gated ── only whole, only in time ──▶ TLS ──▶ Wire ──▶ kernel
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, RustlsConnector,
    Transport,
};

use super::names::Names;
use crate::clock;
use crate::types::{Span, Tick};

/// Longest wait in one system call, where ureq gives no bound.
const LONGEST: Duration = Duration::from_secs(60);

/// Opens TCP connections; plain HTTP only to this very host.
#[derive(Debug)]
pub(super) struct Tcp {
    /// Is told where nobody answers.
    pub names: Arc<Names>,
    /// Where this request's connection leads.
    pub used: Arc<OnceLock<IpAddr>>,
    /// The kernel gives up unacknowledged bytes after this time.
    pub patience: Span,
}

impl Connector for Tcp {
    type Out = Wire;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Wire>, Error> {
        let whole = (*details.timeout.after).min(LONGEST);
        let start = clock::now();
        let host = details.uri.host().unwrap_or_default();
        let mut failure = Error::HostNotFound;
        for (index, address) in details.addrs.iter().enumerate() {
            if !details.needs_tls() && !address.ip().is_loopback() {
                return Err(Error::RequireHttpsOnly(address.to_string()));
            }
            let left = whole.saturating_sub(clock::now().since(start).as_std());
            if left.is_zero() {
                return Err(Error::Timeout(details.timeout.reason));
            }
            // An address that leads nowhere costs its share of the time, and only once: next time it is the last.
            let rest = u32::try_from(details.addrs.len() - index).unwrap_or(u32::MAX);
            match self.open(address, left / rest) {
                Ok(stream) => {
                    self.used.get_or_init(|| address.ip());
                    let config = details.config;
                    let buffers =
                        LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Wire { stream, buffers }));
                }
                Err(error) => {
                    self.names.failed(host, address.ip());
                    failure = Error::Io(error);
                }
            }
        }
        Err(failure)
    }
}

impl Tcp {
    fn open(&self, address: &SocketAddr, wait: Duration) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(address, wait.max(Duration::from_millis(1)))?;
        stream.set_nodelay(true)?;
        let patience = u32::try_from(self.patience.0.max(1)).unwrap_or(u32::MAX);
        setsockopt(&stream, sockopt::TcpUserTimeout, &patience)?;
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &linger)?;
        Ok(stream)
    }
}

/// A TCP connection whose unsent bytes die with it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    buffers: LazyBuffers,
}

/// The time left, never zero: a zero timeout means "for ever" to the kernel.
fn left(timeout: NextTimeout) -> Result<Duration, Error> {
    match (*timeout.after).min(LONGEST) {
        Duration::ZERO => Err(Error::Timeout(timeout.reason)),
        left => Ok(left.max(Duration::from_millis(1))),
    }
}

fn sorted(error: io::Error, timeout: NextTimeout) -> Error {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        return Error::Timeout(timeout.reason);
    }
    Error::Io(error)
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(Some(left(timeout)?))?;
        let output = &self.buffers.output()[..amount];
        (&self.stream).write_all(output).map_err(|error| sorted(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(Some(left(timeout)?))?;
        let input = self.buffers.input_append_buf();
        let amount = loop {
            match (&self.stream).read(input) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.map_err(|error| sorted(error, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Never used twice: a connection that the other side has half forgotten is one more way
        // not to know what became of a request.
        false
    }
}

/// The agents' one TLS connector: its configuration and session cache outlive the agents.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls(Arc<RustlsConnector>);

impl<In: Transport> Connector<In> for Tls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        self.0.connect(details, chained)
    }
}

/// The bound of one route call, and what became of it.
#[derive(Debug)]
pub(super) struct Gate {
    not_after: Tick,
    passed: OnceLock<Tick>,
    shut: OnceLock<Tick>,
}

impl Gate {
    pub(super) fn new(not_after: Tick) -> Self {
        Self { not_after, passed: OnceLock::new(), shut: OnceLock::new() }
    }

    /// When the first byte was about to be written, if it came to that.
    pub(super) fn passed(&self) -> Option<Tick> {
        self.passed.get().copied()
    }

    /// By how much the request came too late, if it did.
    pub(super) fn shut(&self) -> Option<Span> {
        self.shut.get().map(|now| now.since(self.not_after))
    }

    fn pass(&self) -> Result<(), Error> {
        let now = clock::now();
        if now >= self.not_after {
            self.shut.get_or_init(|| now);
            return Err(Error::Io(io::Error::other("too late to send")));
        }
        self.passed.get_or_init(|| now);
        Ok(())
    }
}

/// Puts the gate above TLS, for requests that have one.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    pub gate: Option<Arc<Gate>>,
    /// Length of the request's body.
    pub body: usize,
}

impl<In: Transport> Connector<In> for Gatekeeper {
    type Out = Either<In, Gated<In>>;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| match &self.gate {
            None => Either::A(inner),
            Some(gate) => Either::B(Gated {
                inner,
                gate: Arc::clone(gate),
                body: self.body,
                held: Vec::new(),
            }),
        }))
    }
}

/// Holds the request back until it is whole, looks at the clock, then writes it at once.
///
/// ureq hands over the header and the body one after the other; a pause of the process between
/// the two would let a request out that passed the gate long ago.
#[derive(Debug)]
pub(super) struct Gated<In> {
    inner: In,
    gate: Arc<Gate>,
    body: usize,
    held: Vec<u8>,
}

impl<In> Gated<In> {
    fn whole(&self) -> bool {
        let end = self.held.windows(4).position(|four| four == b"\r\n\r\n");
        end.is_some_and(|end| self.held.len() >= end + 4 + self.body)
    }
}

impl<In: Transport> Transport for Gated<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.held.extend_from_slice(&self.inner.buffers().output()[..amount]);
        if !self.whole() {
            return Ok(());
        }
        let request = std::mem::take(&mut self.held);
        let room = self.inner.buffers().output().len().max(1);
        self.gate.pass()?;
        for part in request.chunks(room) {
            self.inner.buffers().output()[..part.len()].copy_from_slice(part);
            self.inner.transmit_output(part.len(), timeout)?;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if self.gate.passed().is_none() {
            return Err(Error::Io(io::Error::other("the request is not complete")));
        }
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn what_is_given_up_is_thrown_away() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp =
            Tcp { names: Names::open(None), used: Arc::default(), patience: Span::millis(1234) };
        let address = listener.local_addr().unwrap();
        let stream = tcp.open(&address, Duration::from_secs(1)).unwrap();
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 1234);
        let linger = getsockopt(&stream, sockopt::Linger).unwrap();
        assert_eq!((linger.l_onoff, linger.l_linger), (1, 0));
    }

    #[test]
    fn the_gate_shuts_at_its_very_moment() {
        let gate = Gate::new(clock::now() + Span::secs(60));
        gate.pass().unwrap();
        assert!(gate.passed().is_some() && gate.shut().is_none());
        let gate = Gate::new(clock::now());
        gate.pass().unwrap_err();
        assert!(gate.passed().is_none() && gate.shut().is_some());
    }
}
