//! The NIC thread: every exchange with the kernel happens here, in the order in which it was asked for.
//!
//! A netlink exchange takes microseconds, but it waits for whoever holds the kernel's network lock; the decision
//! loop must not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use tokio::sync::mpsc::UnboundedSender;

use super::Message;
use super::queue::{Done, Job, Queue, Wanted};
use crate::clock;
use crate::core::event::{Event, Trouble};
use crate::core::facts::{AddressFailure, SeenAddress};
use crate::logging::Level;
use crate::net::{Monitor, NetError, NextHop, Nic};
use crate::types::{Span, Tick};

/// Why there is no NIC before anybody has said which.
const UNKNOWN_YET: &str =
    "the network interface is not known yet: netcup has to be asked, or [node] interface set";

/// The way to the NIC thread; it ends when this is dropped.
pub struct NicHandle(Arc<Queue>);

impl NicHandle {
    /// Starts the thread. Until it is told which NIC to use, puts are refused.
    pub fn start(
        values: BTreeSet<IpAddr>,
        messages: UnboundedSender<Message>,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut worker = Worker {
            wanted: Wanted::default(),
            nic: None,
            before: None,
            values,
            messages,
            complaint: None,
            carry: None,
            next_hop: None,
            queue: Arc::clone(&queue),
            round: Round::default(),
            lifetime: Span::ZERO,
            reseated: None,
            done: Done::default(),
            started: clock::now(),
        };
        std::thread::Builder::new().name("foip-nic".into()).spawn(move || worker.run())?;
        Ok(Self(queue))
    }

    /// From now on this NIC carries the addresses.
    pub fn choose(&self, wanted: Wanted) {
        self.0.choose(wanted);
    }

    /// The addresses of the configuration.
    pub fn values(&self, values: BTreeSet<IpAddr>) {
        self.0.values(values);
    }

    /// Put or refresh an address.
    pub fn put(&self, host: IpAddr, lifetime: Span) {
        self.0.work(Job::Put(host, lifetime));
    }

    /// Take an address off.
    pub fn remove(&self, host: IpAddr) {
        self.0.work(Job::Remove(host));
    }

    /// Announce an address once.
    pub fn announce(&self, host: IpAddr) {
        self.0.work(Job::Announce(host));
    }
}

impl Drop for NicHandle {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Worker {
    wanted: Wanted,
    /// `None` while there is nothing that fits what is wanted.
    nic: Option<Nic>,
    /// The one that carried the addresses before: each goes from there once it is on the present one.
    before: Option<(Nic, Tick)>,
    values: BTreeSet<IpAddr>,
    messages: UnboundedSender<Message>,
    complaint: Option<String>,
    /// What was last told of addresses that the kernel would refuse.
    carry: Option<BTreeMap<IpAddr, String>>,
    /// What was last told of the next hop.
    next_hop: Option<Option<String>>,
    queue: Arc<Queue>,
    round: Round,
    lifetime: Span,
    reseated: Option<Tick>,
    done: Done,
    started: Tick,
}

/// Between two reseatings: whoever re-adds the primary address all the time must not make this a loop.
const RESEAT_GAP: Span = Span::secs(5);

/// A first start knows the NIC with the provider's first answer; until that is late it is no news that it is not known.
const FIRST_ANSWER: Span = Span::secs(10);

/// Which monitor is the present one; those before it end when they next wake.
type Round = Arc<AtomicU64>;

impl Worker {
    fn run(&mut self) {
        while let Some(job) = self.queue.next(self.done) {
            match job {
                Job::Use(wanted) => self.choose(wanted),
                Job::Values(values) => {
                    self.values = values;
                    self.look();
                }
                Job::Put(host, lifetime) => self.put(host, lifetime),
                Job::Remove(host) => {
                    if let Some(Err(AddressFailure::Refused(why))) =
                        self.nic.as_ref().map(|nic| nic.remove(host))
                    {
                        self.say(format!("cannot take {host} off the interface: {why}"));
                    }
                    self.queue.look();
                }
                Job::Announce(host) => {
                    if let Some(Err(error)) = self.nic.as_ref().map(|nic| nic.announce(host)) {
                        self.say(format!("cannot announce {host}: {error}"));
                    }
                }
                Job::WatchAgain => {
                    self.watch();
                    self.look();
                }
                Job::Look => {
                    self.reseat();
                    self.look();
                }
                Job::Review => self.review(),
            }
        }
        self.round.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what is wanted now; the same again is no news.
    fn choose(&mut self, wanted: Wanted) {
        if wanted == self.wanted && self.nic.is_some() {
            return;
        }
        self.wanted = wanted;
        if let Some(nic) = self.nic.take() {
            self.before = Some((nic, clock::now()));
        }
        self.resolve();
        self.look();
    }

    /// Finds what is wanted among the interfaces there are.
    fn resolve(&mut self) {
        let found = match (&self.wanted.name, self.wanted.mac) {
            (Some(name), mac) => Nic::by_name_and_mac(name, mac),
            (None, Some(mac)) => Nic::by_mac(mac),
            (None, None) => return,
        };
        match found {
            Ok(nic) => {
                self.nic = Some(nic);
                self.watch();
            }
            Err(error) => self.unfit(&error),
        }
    }

    fn put(&mut self, host: IpAddr, lifetime: Span) {
        self.lifetime = lifetime;
        if self.nic.is_none() {
            self.resolve();
        }
        let result = match &self.nic {
            Some(nic) => nic.put(host, lifetime),
            None => {
                let known = self.carry.as_ref().and_then(|carry| carry.get(&host));
                Err(AddressFailure::Refused(known.map_or(UNKNOWN_YET, String::as_str).to_owned()))
            }
        };
        if result.is_ok() {
            self.leave_the_old(host);
        } else {
            // It may say more of the others, too.
            self.queue.look();
        }
        self.send(Event::AddressPut { host, result });
    }

    /// Takes an address off the NIC that carried it before, now that the present one has it. Where that cannot be
    /// done its lifetime does it.
    fn leave_the_old(&mut self, host: IpAddr) {
        let (Some(nic), Some((before, since))) = (&self.nic, &self.before) else { return };
        if !nic.is_same_as(before) {
            let _ = before.remove(host);
        }
        if clock::now().since(*since) > self.lifetime {
            self.before = None;
        }
    }

    /// Listens to the NIC's changes on a thread of its own; each is a reason to look.
    fn watch(&mut self) {
        let monitor = match self.nic.as_ref().map(Monitor::new) {
            Some(Ok(monitor)) => monitor,
            Some(Err(error)) => {
                return self.say(format!("cannot listen to the interface: {error}"));
            }
            None => return,
        };
        let (queue, round) = (Arc::clone(&self.queue), Arc::clone(&self.round));
        let mine = round.fetch_add(1, Ordering::Relaxed) + 1;
        let thread = std::thread::Builder::new().name("foip-monitor".into());
        let started = thread
            .spawn(move || listen(monitor, &queue, &|| round.load(Ordering::Relaxed) == mine));
        if let Err(error) = started {
            self.say(format!("cannot listen to the interface: {error}"));
        }
    }

    /// Tells what is on the NIC, and its state.
    fn look(&mut self) {
        self.review();
        if let Some(nic) = self.nic.clone() {
            match seen(&nic, &self.values) {
                Ok((addresses, link)) => {
                    self.complaint = None;
                    self.send(Event::Addresses(addresses));
                    self.send(Event::Link { up: link.up, default_route: link.default_route });
                }
                // An interface that is gone is down; one that could not be read may be anything (I11).
                Err(error) if error.is_unfit() => {
                    self.unfit(&error);
                    // A port has a link, and the host a way out through what it is a port of.
                    if !matches!(error, NetError::Enslaved { .. }) {
                        self.send(Event::Link { up: false, default_route: false });
                    }
                }
                Err(error) => {
                    self.say(format!("cannot read the interface {}: {error}", nic.name()));
                }
            }
        }
        self.done.looked = clock::now();
    }

    /// Tells what of the NIC would keep an address away before it is needed.
    fn review(&mut self) {
        self.done.reviewed = clock::now();
        if self.nic.is_none() && self.wanted != Wanted::default() {
            self.resolve();
            if self.nic.is_some() {
                // The new monitor knows what is there now; nobody has told it yet.
                self.queue.look();
            }
        }
        self.done.fit = self.nic.is_some();
        let Some(nic) = self.nic.clone() else {
            if self.wanted == Wanted::default() && clock::now().since(self.started) >= FIRST_ANSWER
            {
                self.refuse_all(UNKNOWN_YET);
            }
            return;
        };
        if let Err(error) = nic.is_there() {
            match error.is_unfit() {
                true => self.unfit(&error),
                false => self.say(format!("cannot read the interface: {error}")),
            }
            return;
        }
        if let Ok(carry) = nic.refused(&self.values) {
            self.tell_carry(carry);
        }
        if let Some(next_hop) = self.missing_next_hop(&nic) {
            self.tell_next_hop(next_hop);
        }
    }

    /// There is no interface for the addresses now: told with the cure, and looked for again.
    fn unfit(&mut self, error: &NetError) {
        self.done.fit = false;
        self.say(error.to_string());
        self.refuse_all(&error.to_string());
        // Where the host is no longer as the provider described it, the provider is worth another question.
        if error.is_misfit() {
            let _ = self.messages.send(Message::Misfit);
        }
    }

    fn refuse_all(&mut self, why: &str) {
        let refused = self.values.iter().map(|host| (*host, why.to_owned()));
        self.tell_carry(refused.collect());
    }

    fn tell_carry(&mut self, carry: BTreeMap<IpAddr, String>) {
        if self.carry.as_ref() != Some(&carry) {
            self.send(Event::Carry(carry.clone()));
            self.carry = Some(carry);
        }
    }

    /// `None`: not to be known now.
    fn missing_next_hop(&self, nic: &Nic) -> Option<Option<String>> {
        let Some(mac) = self.wanted.mac.filter(|_| self.values.iter().any(IpAddr::is_ipv6)) else {
            return Some(None);
        };
        let missing = nic.missing_next_hop(mac, &self.values).ok()?;
        let name = nic.name();
        Some(missing.map(|missing| match missing {
            NextHop::Missing(host) => format!(
                "{host} is not on {name}: netcup's router sends packets for a failover /64 to the address that is \
                 made of the MAC (EUI-64) in the server's own /64; add it, for good in the host's network \
                 configuration, for now with: ip addr add {host}/64 dev {name}"
            ),
            NextHop::NoNative => format!(
                "{name} has no address out of the server's own /64: netcup's router sends packets for a failover /64 \
                 to the one that is made of the MAC (EUI-64); set up IPv6 as the SCP shows it, with that address"
            ),
        }))
    }

    fn tell_next_hop(&mut self, next_hop: Option<String>) {
        if self.next_hop.as_ref() != Some(&next_hop) {
            if self.next_hop.is_some() || next_hop.is_some() {
                self.send(Event::Trouble(Trouble::NextHop, next_hop.clone()));
            }
            self.next_hop = Some(next_hop);
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
fn listen(mut monitor: Monitor, queue: &Queue, present: &dyn Fn() -> bool) {
    /// Only to notice that another monitor has taken over; changes are told at once.
    const LOOK_UP: u16 = 60_000;
    /// What comes in one storm is taken in by few drains: the socket has room for more than this brings.
    const PAUSE: Duration = Duration::from_millis(20);
    while present() {
        let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
        if matches!(poll(&mut fds, LOOK_UP), Ok(0) | Err(Errno::EINTR)) {
            continue;
        }
        match monitor.drain() {
            Ok(changes) if changes.is_empty() => continue,
            Ok(_) => queue.look(),
            Err(error) => {
                tracing::warn!("lost sight of the network interface: {error}; opening it again");
                queue.watch_again();
                return;
            }
        }
        if queue.is_closed() {
            return;
        }
        std::thread::park_timeout(PAUSE);
    }
}

type Seen = (Vec<SeenAddress>, crate::net::Link);

fn seen(nic: &Nic, values: &BTreeSet<IpAddr>) -> Result<Seen, NetError> {
    let mut addresses = nic.addresses(values)?;
    // Tagged ones that are no longer configured: the core takes them off.
    for host in nic.tagged()? {
        if addresses.iter().all(|seen| seen.host != host) {
            addresses.push(SeenAddress { host, ours: true });
        }
    }
    Ok((addresses, nic.link()?))
}

#[cfg(test)]
#[path = "nic_tests.rs"]
mod tests;
