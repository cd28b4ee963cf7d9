//! The provider's clock as this node knows it: an earliest and a latest time that it may be there.
//!
//! ```text
//! agreed ──a Date that does not fit──▶ in doubt ──fits the old line again, or another node says which──▶ agreed
//! ```
//!
//! A `Date` does not fit where this machine stood still (its own clock stood, too), or where one of the provider's
//! servers is wrong. Which of the two it was shows only later, or by what the other nodes heard. Until then what may
//! be done is decided by the earlier time, and what is written down carries the later one: both make a call count for
//! longer, never for less (I3).

use std::collections::BTreeMap;

use super::facts::ProviderTime;
use crate::types::{NodeName, Span, Tick};

/// Two answers about one moment differ by no more: the header counts whole seconds, and the way takes a while.
const CLOSE: Span = Span::millis(3000);

/// A node's word about the time is as old as its record may be when it is seen.
const TOLD: Span = Span::secs(15);

/// A line that every answer has followed for so long is the only one that is left.
const SETTLED: Span = Span::secs(3600);

/// A course of time: it was so late at that moment of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line(ProviderTime, Tick);

impl Line {
    fn at(self, now: Tick) -> ProviderTime {
        self.0 + now.since(self.1)
    }

    fn is_close(self, time: ProviderTime, now: Tick) -> bool {
        self.at(now).0.abs_diff(time.0) <= CLOSE.0
    }

    /// May a node have said this that is on the same line? Its word is never from the future, and may be old.
    fn fits(self, told: ProviderTime, now: Tick) -> bool {
        let time = self.at(now);
        told <= time + CLOSE && told + TOLD >= time
    }
}

/// A line that answers follow and that does not fit the one before.
#[derive(Clone, Debug)]
struct Doubt {
    line: Line,
    since: Tick,
    /// The nodes whose last word fits one of the two lines only; does it fit this one?
    votes: BTreeMap<NodeName, bool>,
}

impl Doubt {
    /// As many nodes as speak for it speak for the old line: this one is wrong.
    fn is_refuted(&self) -> bool {
        let speaks_for = self.votes.values().filter(|speaks_for| **speaks_for).count();
        !self.votes.is_empty() && speaks_for * 2 <= self.votes.len()
    }
}

/// The time that was assumed while no answer carried a `Date`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// What it was taken to be at first.
    pub from: ProviderTime,
    /// What it would be now.
    pub to: ProviderTime,
}

/// The provider's clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    line: Option<Line>,
    /// No answer said so: the first `Date` replaces it.
    assumed: bool,
    doubt: Option<Doubt>,
}

impl Clock {
    /// The earliest that it may be now: what may be done is decided by this.
    pub fn earliest(&self, now: Tick) -> Option<ProviderTime> {
        self.times(now).min()
    }

    /// The latest that it may be now: what is written down carries this.
    pub fn latest(&self, now: Tick) -> Option<ProviderTime> {
        self.times(now).max()
    }

    /// The time by the line that this node has followed so far: what other nodes are told.
    pub fn followed(&self, now: Tick) -> Option<ProviderTime> {
        self.line.filter(|_| !self.assumed).map(|line| line.at(now))
    }

    /// Has no answer carried a `Date` yet?
    pub fn is_assumed(&self) -> bool {
        self.assumed
    }

    fn times(&self, now: Tick) -> impl Iterator<Item = ProviderTime> {
        let doubt = self.doubt.as_ref().filter(|doubt| !doubt.is_refuted()).map(|it| it.line);
        [self.line, doubt].into_iter().flatten().map(move |line| line.at(now))
    }

    /// An answer carried this `Date`. Returns what was only assumed until then, if that was so.
    pub fn hear(&mut self, date: ProviderTime, now: Tick) -> Option<Assumed> {
        let Some(line) = self.line.filter(|_| !self.assumed) else {
            let was = self.line.replace(Line(date, now));
            self.assumed = false;
            return was.map(|line| Assumed { from: line.0, to: line.at(now) });
        };
        self.follow(line, date, now);
        None
    }

    fn follow(&mut self, line: Line, date: ProviderTime, now: Tick) {
        if line.is_close(date, now) {
            self.doubt = None;
            // The header counts whole seconds: an answer in the same second must not set the clock back.
            let expected = line.at(now);
            let same = expected.0 >= date.0 && expected.0 - date.0 < 1500;
            self.line = Some(if same { line } else { Line(date, now) });
            return;
        }
        match &mut self.doubt {
            Some(doubt) if doubt.line.is_close(date, now) => {
                if now.since(doubt.since) >= SETTLED {
                    (self.line, self.doubt) = (Some(doubt.line), None);
                }
            }
            Some(_) | None => {
                let votes = BTreeMap::new();
                self.doubt = Some(Doubt { line: Line(date, now), since: now, votes });
            }
        }
    }

    /// Another node's clock, at the moment at which its word was seen.
    pub fn compare(&mut self, who: &NodeName, told: ProviderTime, now: Tick) {
        let (Some(line), Some(doubt)) = (self.line, self.doubt.as_mut()) else {
            return;
        };
        let fits = (line.fits(told, now), doubt.line.fits(told, now));
        match fits {
            (true, false) | (false, true) => _ = doubt.votes.insert(who.clone(), fits.1),
            (true, true) | (false, false) => _ = doubt.votes.remove(who),
        }
        if !doubt.votes.is_empty() && !doubt.is_refuted() {
            (self.line, self.doubt) = (Some(doubt.line), None);
        }
    }

    /// No answer carries a `Date`: it is taken to be as late as the last thing that is known of it.
    pub fn assume(&mut self, at: ProviderTime, now: Tick) {
        if self.line.is_none() {
            (self.line, self.assumed) = (Some(Line(at, now)), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeName {
        format!("node-{number}").parse().unwrap()
    }

    fn heard(dates: &[(u64, u64)]) -> Clock {
        let mut clock = Clock::default();
        for (tick, date) in dates {
            clock.hear(ProviderTime(*date), Tick(*tick));
        }
        clock
    }

    #[test]
    fn whole_seconds_do_not_set_it_back() {
        let clock = heard(&[(0, 100_000), (1900, 101_000), (2500, 102_000)]);
        assert_eq!(clock.earliest(Tick(3000)), Some(ProviderTime(103_000)));
        assert_eq!(clock.earliest(Tick(3000)), clock.latest(Tick(3000)));
    }

    #[test]
    fn a_date_that_does_not_fit_widens_it_in_either_direction() {
        for lie in [40_000, 700_000] {
            let mut clock = heard(&[(0, 100_000), (10_000, lie)]);
            let (early, late) = (lie.min(110_000), lie.max(110_000));
            assert_eq!(clock.earliest(Tick(10_000)), Some(ProviderTime(early)));
            assert_eq!(clock.latest(Tick(10_000)), Some(ProviderTime(late)));
            assert_eq!(clock.followed(Tick(10_000)), Some(ProviderTime(110_000)));
            // The server that was wrong is right again.
            clock.hear(ProviderTime(120_000), Tick(20_000));
            assert_eq!(clock.earliest(Tick(20_000)), clock.latest(Tick(20_000)));
        }
    }

    #[test]
    fn the_others_tell_a_machine_that_stood_still_from_a_wrong_server() {
        let mut stood_still = heard(&[(0, 100_000), (10_000, 280_000)]);
        stood_still.compare(&node(1), ProviderTime(279_000), Tick(12_000));
        assert_eq!(stood_still.followed(Tick(12_000)), Some(ProviderTime(282_000)));
        let mut wrong = heard(&[(0, 100_000), (10_000, 700_000)]);
        wrong.compare(&node(1), ProviderTime(111_000), Tick(12_000));
        // One that has just begun knows nothing but the wrong server.
        wrong.compare(&node(2), ProviderTime(701_000), Tick(12_000));
        assert_eq!(wrong.latest(Tick(12_000)), Some(ProviderTime(112_000)));
        wrong.hear(ProviderTime(705_000), Tick(15_000));
        assert_eq!(wrong.latest(Tick(15_000)), Some(ProviderTime(115_000)));
    }

    #[test]
    fn what_every_answer_says_for_an_hour_is_so() {
        let mut clock = heard(&[(0, 100_000), (10_000, 280_000)]);
        for minute in 1..=60 {
            clock.hear(ProviderTime(280_000 + minute * 60_000), Tick(10_000 + minute * 60_000));
        }
        let now = Tick(10_000 + 3_600_000);
        assert_eq!(clock.followed(now), Some(ProviderTime(280_000 + 3_600_000)));
    }

    #[test]
    fn what_is_assumed_gives_way_to_nothing_but_a_date() {
        let mut clock = Clock::default();
        clock.assume(ProviderTime(5000), Tick(0));
        clock.assume(ProviderTime(9000), Tick(1000));
        assert_eq!(clock.earliest(Tick(1000)), Some(ProviderTime(6000)));
        assert_eq!(clock.followed(Tick(1000)), None);
        clock.hear(ProviderTime(500_000), Tick(2000));
        assert_eq!(clock.followed(Tick(2000)), Some(ProviderTime(500_000)));
    }
}
