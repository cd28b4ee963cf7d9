//! The NIC thread: every exchange with the kernel happens here, in the order in which it was asked for.
//!
//! A netlink exchange takes microseconds, but it waits for whoever holds the kernel's network lock; the decision
//! loop must not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use tokio::sync::mpsc::UnboundedSender;

use super::Message;
use crate::clock;
use crate::core::event::Event;
use crate::core::facts::AddressFailure;
use crate::logging::Level;
use crate::net::{Monitor, NetError, Nic};
use crate::types::{Span, Tick};

enum Command {
    Use(Nic),
    Values(BTreeSet<IpAddr>),
    Look,
    WatchAgain,
    Put(IpAddr, Span),
    Remove(IpAddr),
    Announce(IpAddr),
}

/// The way to the NIC thread; it ends when this is dropped.
pub struct NicHandle(Sender<Command>);

impl NicHandle {
    /// Starts the thread. Until it is told which NIC to use, puts are refused.
    pub fn start(
        values: BTreeSet<IpAddr>,
        messages: UnboundedSender<Message>,
    ) -> std::io::Result<Self> {
        let (commands, inbox) = channel();
        let back = commands.clone();
        let worker = Worker {
            nic: None,
            values,
            messages,
            complaint: None,
            back,
            round: Round::default(),
            lifetime: Span::ZERO,
            reseated: None,
        };
        std::thread::Builder::new().name("foip-nic".into()).spawn(move || worker.run(&inbox))?;
        Ok(Self(commands))
    }

    /// From now on this NIC carries the addresses.
    pub fn choose(&self, nic: Nic) {
        self.send(Command::Use(nic));
    }

    /// The addresses of the configuration.
    pub fn values(&self, values: BTreeSet<IpAddr>) {
        self.send(Command::Values(values));
    }

    /// Put or refresh an address.
    pub fn put(&self, host: IpAddr, lifetime: Span) {
        self.send(Command::Put(host, lifetime));
    }

    /// Take an address off.
    pub fn remove(&self, host: IpAddr) {
        self.send(Command::Remove(host));
    }

    /// Announce an address once.
    pub fn announce(&self, host: IpAddr) {
        self.send(Command::Announce(host));
    }

    /// A second way to the same thread.
    pub fn share(&self) -> Self {
        Self(self.0.clone())
    }

    fn send(&self, command: Command) {
        // The thread only ends with this handle.
        let _ = self.0.send(command);
    }
}

struct Worker {
    nic: Option<Nic>,
    values: BTreeSet<IpAddr>,
    messages: UnboundedSender<Message>,
    complaint: Option<String>,
    back: Sender<Command>,
    round: Round,
    lifetime: Span,
    reseated: Option<Tick>,
}

/// Between two reseatings: whoever re-adds the primary address all the time must not make this a loop.
const RESEAT_GAP: Span = Span::secs(5);

/// Which monitor is the present one; those before it end when they next wake.
type Round = Arc<AtomicU64>;

impl Worker {
    fn run(mut self, inbox: &Receiver<Command>) {
        while let Ok(command) = inbox.recv() {
            match command {
                Command::Use(nic) => {
                    self.nic = Some(nic);
                    self.watch();
                    self.look();
                }
                Command::Values(values) => {
                    self.values = values;
                    self.look();
                }
                Command::Look => {
                    self.reseat();
                    self.look();
                }
                Command::WatchAgain => {
                    self.watch();
                    self.look();
                }
                Command::Put(host, lifetime) => {
                    self.lifetime = lifetime;
                    let result = match &self.nic {
                        Some(nic) => nic.put(host, lifetime),
                        None => Err(AddressFailure::Refused(
                            "the network interface is not known yet: netcup has to be asked, or \
                             [node] interface set"
                                .to_owned(),
                        )),
                    };
                    self.send(Event::AddressPut { host, result });
                }
                Command::Remove(host) => {
                    if let Some(Err(AddressFailure::Refused(why))) =
                        self.nic.as_ref().map(|nic| nic.remove(host))
                    {
                        self.say(format!("cannot take {host} off the interface: {why}"));
                    }
                    self.look();
                }
                Command::Announce(host) => {
                    if let Some(Err(error)) = self.nic.as_ref().map(|nic| nic.announce(host)) {
                        self.say(format!("cannot announce {host}: {error}"));
                    }
                }
            }
        }
    }

    /// Listens to the NIC's changes on a thread of its own; each is a command to look.
    fn watch(&mut self) {
        let monitor = match self.nic.as_ref().map(Monitor::new) {
            Some(Ok(monitor)) => monitor,
            Some(Err(error)) => {
                return self.say(format!("cannot listen to the interface: {error}"));
            }
            None => return,
        };
        let (back, round) = (self.back.clone(), Arc::clone(&self.round));
        let mine = round.fetch_add(1, Ordering::Relaxed) + 1;
        let thread = std::thread::Builder::new().name("foip-monitor".into());
        let started =
            thread.spawn(move || listen(monitor, &back, &|| round.load(Ordering::Relaxed) == mine));
        if let Err(error) = started {
            self.say(format!("cannot listen to the interface: {error}"));
        }
    }

    /// Tells what is on the NIC, and its state.
    fn look(&mut self) {
        let Some(nic) = &self.nic else { return };
        match seen(nic, &self.values) {
            Ok((addresses, link)) => {
                self.complaint = None;
                self.send(Event::Addresses(addresses));
                self.send(Event::Link { up: link.up, default_route: link.default_route });
            }
            // An interface that is gone is down; one that could not be read may be anything (I11).
            Err(error) => {
                let gone =
                    matches!(error, NetError::NoSuchName { .. } | NetError::NoSuchMac { .. });
                self.say(format!("cannot read the interface {}: {error}", nic.name()));
                if gone {
                    self.send(Event::Link { up: false, default_route: false });
                }
            }
        }
    }

    /// Puts our IPv4 addresses behind the primary one again where that was added anew: k3s without `--node-ip`
    /// takes the first address in the kernel's list at its next start.
    fn reseat(&mut self) {
        let (Some(nic), now) = (&self.nic, clock::now()) else { return };
        if self.reseated.is_some_and(|at| now.since(at) < RESEAT_GAP) {
            return;
        }
        let before = nic.before_primary(&self.values).unwrap_or_default();
        for host in before {
            self.reseated = Some(now);
            let result = nic.reseat(host, self.lifetime);
            self.send(Event::AddressPut { host, result });
        }
    }

    fn send(&self, event: Event) {
        let _ = self.messages.send(Message::Event(event));
    }

    /// Each complaint once, until something goes well again.
    fn say(&mut self, text: String) {
        if self.complaint.as_ref() != Some(&text) {
            let _ = self.messages.send(Message::Say(Level::Error, text.clone()));
            self.complaint = Some(text);
        }
    }
}

/// Waits for changes as long as it is the present monitor.
fn listen(mut monitor: Monitor, back: &Sender<Command>, present: &dyn Fn() -> bool) {
    /// Only to notice that another monitor has taken over; changes are told at once.
    const LOOK_UP: u16 = 60_000;
    while present() {
        let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
        if matches!(poll(&mut fds, LOOK_UP), Ok(0) | Err(Errno::EINTR)) {
            continue;
        }
        let sent = match monitor.drain() {
            Ok(changes) if changes.is_empty() => continue,
            Ok(_) => back.send(Command::Look),
            Err(error) => {
                tracing::warn!("lost sight of the network interface: {error}; opening it again");
                let _ = back.send(Command::WatchAgain);
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

type Seen = (Vec<crate::core::facts::SeenAddress>, crate::net::Link);

fn seen(nic: &Nic, values: &BTreeSet<IpAddr>) -> Result<Seen, NetError> {
    let mut addresses = nic.addresses(values)?;
    // Tagged ones that are no longer configured: the core takes them off.
    for host in nic.tagged()? {
        if addresses.iter().all(|seen| seen.host != host) {
            addresses.push(crate::core::facts::SeenAddress { host, ours: true });
        }
    }
    Ok((addresses, nic.link()?))
}
