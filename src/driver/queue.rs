//! What the NIC thread has to do next. It stays small however fast others ask, and what keeps an address alive never
//! waits behind what merely looks.
//!
//! ```text
//!  put, remove, announce ─▶ one of each per address, in order ─▶ first
//!  look ─▶ one, however often it is asked for                  ─▶ last, and GAP after the look before it
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::types::{IfName, Mac, Span, Tick};

/// From one look to the next. A neighbour's router advertisements alone may change routes 30,000 times a second; an
/// address that was taken away is to be back within a second.
pub const GAP: Span = Span::millis(100);

/// What is known without asking anybody is looked at again this often: not everything that changes is told.
const REVIEW: Span = Span::secs(10);

/// The same while no interface can be used.
const REVIEW_UNFIT: Span = Span::secs(2);

/// Which interface is meant: by the configured name, by the provider's MAC, or both; neither is "not known yet".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `[node] interface`.
    pub name: Option<IfName>,
    /// What the provider lists.
    pub mac: Option<Mac>,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Job {
    /// This interface carries the addresses from now on.
    Use(Wanted),
    /// These are the addresses of the configuration.
    Values(BTreeSet<IpAddr>),
    /// Put or refresh.
    Put(IpAddr, Span),
    /// Take off.
    Remove(IpAddr),
    /// Announce once.
    Announce(IpAddr),
    /// Open the monitor again, and look.
    WatchAgain,
    /// Something changed.
    Look,
    /// Nothing is known to have changed.
    Review,
}

/// The jobs. Shared by everybody who asks and the one thread that works.
#[derive(Debug, Default)]
pub struct Queue {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    wanted: Option<Wanted>,
    values: Option<BTreeSet<IpAddr>>,
    work: VecDeque<Job>,
    watch_again: bool,
    look: bool,
    closed: bool,
}

/// When the thread last did what is not to be done all the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// The end of the last look.
    pub looked: Tick,
    /// The end of the last look or review.
    pub reviewed: Tick,
    /// An interface can be used.
    pub fit: bool,
}

impl Queue {
    /// From now on this is wanted.
    pub fn choose(&self, wanted: Wanted) {
        self.change(|pending| pending.wanted = Some(wanted));
    }

    /// From now on these are the configured addresses.
    pub fn values(&self, values: BTreeSet<IpAddr>) {
        self.change(|pending| pending.values = Some(values));
    }

    /// Asks for a put, a removal or an announcement: of those about one address that wait the newest counts.
    pub fn work(&self, job: Job) {
        self.change(|pending| pending.work(job));
    }

    /// Asks for a look.
    pub fn look(&self) {
        self.change(|pending| pending.look = true);
    }

    /// Asks for a new monitor.
    pub fn watch_again(&self) {
        self.change(|pending| pending.watch_again = true);
    }

    /// Nobody asks any more.
    pub fn close(&self) {
        self.change(|pending| pending.closed = true);
    }

    /// Is there nobody who asks?
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for the next job; `None` at the end.
    pub fn next(&self, done: Done) -> Option<Job> {
        let mut pending = self.lock();
        loop {
            let now = clock::now();
            match pending.due(done, now) {
                Due::Now(job) => return Some(job),
                Due::Never => return None,
                Due::At(moment) => {
                    let wait = self.changed.wait_timeout(pending, now.until(moment).as_std());
                    pending = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn change(&self, act: impl FnOnce(&mut Pending)) {
        act(&mut self.lock());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Whole after every statement.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    Now(Job),
    At(Tick),
    Never,
}

impl Pending {
    fn work(&mut self, job: Job) {
        let about = |other: &Job| same_address(other, &job);
        match job {
            Job::Put(..) => {
                match self.work.iter_mut().find(|other| about(other) && !other.says()) {
                    Some(other) => *other = job,
                    None => self.work.push_back(job),
                }
            }
            Job::Remove(_) => {
                self.work.retain(|other| !about(other));
                self.work.push_back(job);
            }
            Job::Announce(_) => {
                if !self.work.contains(&job) {
                    self.work.push_back(job);
                }
            }
            Job::Use(_) | Job::Values(_) | Job::WatchAgain | Job::Look | Job::Review => {}
        }
    }

    fn due(&mut self, done: Done, now: Tick) -> Due {
        if self.closed {
            return Due::Never;
        }
        if let Some(wanted) = self.wanted.take() {
            return Due::Now(Job::Use(wanted));
        }
        if let Some(values) = self.values.take() {
            return Due::Now(Job::Values(values));
        }
        if let Some(job) = self.work.pop_front() {
            return Due::Now(job);
        }
        let look = done.looked + GAP;
        if (self.look || self.watch_again) && now >= look {
            self.look = false;
            let job = if self.watch_again { Job::WatchAgain } else { Job::Look };
            self.watch_again = false;
            return Due::Now(job);
        }
        let review = done.reviewed + if done.fit { REVIEW } else { REVIEW_UNFIT };
        if now >= review {
            return Due::Now(Job::Review);
        }
        Due::At(if self.look || self.watch_again { look.min(review) } else { review })
    }
}

impl Job {
    /// Does it only tell others?
    const fn says(&self) -> bool {
        matches!(self, Self::Announce(_))
    }

    const fn host(&self) -> Option<IpAddr> {
        match self {
            Self::Put(host, _) | Self::Remove(host) | Self::Announce(host) => Some(*host),
            Self::Use(_) | Self::Values(_) | Self::WatchAgain | Self::Look | Self::Review => None,
        }
    }
}

fn same_address(one: &Job, other: &Job) -> bool {
    one.host().is_some() && one.host() == other.host()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Span = Span::secs(45);

    fn host(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    fn all(pending: &mut Pending, done: Done, now: Tick) -> Vec<Job> {
        let mut jobs = Vec::new();
        while let Due::Now(job) = pending.due(done, now) {
            assert!(jobs.len() < 100, "it never ends: {jobs:?}");
            jobs.push(job);
        }
        jobs
    }

    #[test]
    fn a_flood_of_looks_is_one_look_and_nothing_waits_behind_it() {
        let mut pending = Pending::default();
        for n in 0..100_000_u32 {
            pending.look = true;
            if n % 10_000 == 0 {
                pending.work(Job::Put(host(63), LIFETIME));
                pending.work(Job::Put(host(64), LIFETIME));
            }
        }
        let done = Done { looked: Tick(0), reviewed: Tick(0), fit: true };
        let jobs = all(&mut pending, done, Tick(5_000));
        assert_eq!(jobs, [Job::Put(host(63), LIFETIME), Job::Put(host(64), LIFETIME), Job::Look]);
    }

    #[test]
    fn looks_keep_their_distance_and_the_last_one_is_not_lost() {
        let mut pending = Pending { look: true, ..Pending::default() };
        let done = Done { looked: Tick(1_000), reviewed: Tick(1_000), fit: true };
        assert_eq!(pending.due(done, Tick(1_000)), Due::At(Tick(1_000) + GAP));
        assert_eq!(pending.due(done, Tick(1_000) + GAP), Due::Now(Job::Look));
        assert_eq!(pending.due(done, Tick(1_000) + GAP), Due::At(Tick(1_000) + REVIEW));
        assert_eq!(pending.due(done, Tick(1_000) + REVIEW), Due::Now(Job::Review));
        // What is not there may come at any moment.
        let unfit = Done { fit: false, ..done };
        assert_eq!(pending.due(unfit, Tick(1_000) + REVIEW_UNFIT), Due::Now(Job::Review));
    }

    #[test]
    fn of_what_waits_for_one_address_the_newest_counts() {
        let done = Done { looked: Tick(0), reviewed: Tick(0), fit: true };
        let mut pending = Pending::default();
        for _ in 0..1_000 {
            pending.work(Job::Put(host(63), Span::secs(1)));
            pending.work(Job::Announce(host(63)));
            pending.work(Job::Put(host(64), LIFETIME));
            pending.work(Job::Put(host(63), LIFETIME));
        }
        assert_eq!(
            all(&mut pending, done, Tick(1)),
            [Job::Put(host(63), LIFETIME), Job::Announce(host(63)), Job::Put(host(64), LIFETIME)]
        );
        pending.work(Job::Put(host(63), LIFETIME));
        pending.work(Job::Announce(host(63)));
        pending.work(Job::Remove(host(63)));
        assert_eq!(all(&mut pending, done, Tick(1)), [Job::Remove(host(63))]);
        pending.work(Job::Remove(host(63)));
        pending.work(Job::Put(host(63), LIFETIME));
        assert_eq!(all(&mut pending, done, Tick(1)), [Job::Put(host(63), LIFETIME)]);
    }

    #[test]
    fn the_end_comes_before_everything_else() {
        let queue = Queue::default();
        queue.look();
        queue.work(Job::Put(host(63), LIFETIME));
        queue.close();
        assert_eq!(queue.next(Done::default()), None);
    }
}
