//! Who could serve what, and when: the world's truth as stretches of time.

use super::facts::{Ability, Lack};
use super::{Index, Real};
use crate::core::config::Group;
use crate::types::{GroupName, Span};

/// From one moment to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stretch {
    pub(super) from: Real,
    pub(super) to: Real,
}

impl Stretch {
    pub(super) fn long(self) -> Span {
        self.to.since(self.from)
    }

    /// What both have; `None` where that is nothing.
    pub(super) fn and(self, other: Self) -> Option<Self> {
        let both = Self { from: self.from.max(other.from), to: self.to.min(other.to) };
        (both.from < both.to).then_some(both)
    }
}

/// Stretches of which any two that touch are one, in order.
pub(super) fn joined(mut all: Vec<Stretch>, gap: Span) -> Vec<Stretch> {
    all.sort();
    let mut joined: Vec<Stretch> = Vec::new();
    for one in all {
        match joined.last_mut().filter(|last| one.from <= last.to.plus(gap)) {
            Some(last) => last.to = last.to.max(one.to),
            None => joined.push(one),
        }
    }
    joined
}

/// What is left of the whole without these.
pub(super) fn without(whole: Stretch, taken: Vec<Stretch>) -> Vec<Stretch> {
    let mut left = Vec::new();
    let mut from = whole.from;
    for one in joined(taken, Span::ZERO) {
        left.extend(whole.and(Stretch { from, to: one.from }));
        from = from.max(one.to);
    }
    left.extend(whole.and(Stretch { from, to: whole.to }));
    left
}

/// What all of these have in common.
pub(super) fn common(all: impl Iterator<Item = Vec<Stretch>>) -> Vec<Stretch> {
    let both = |one: Vec<Stretch>, other: Vec<Stretch>| {
        let pairs = one.iter().flat_map(|a| other.iter().filter_map(|b| a.and(*b)));
        pairs.collect::<Vec<_>>()
    };
    all.reduce(both).unwrap_or_default()
}

/// Does serving the group need this ability?
pub(super) fn serves(name: &GroupName, group: &Group, what: &Ability) -> bool {
    match what {
        Ability::Run | Ability::Network | Ability::Ask => true,
        Ability::Lease(of) => of == name,
        Ability::Address(host) => group.ips.values().any(|hosts| hosts.contains(host)),
        Ability::Listed(ip) | Ability::Route(ip) => group.ips.contains_key(ip),
        // Others need its record to hand something over; to take what is free it needs none.
        Ability::Record | Ability::Save | Ability::Name => false,
    }
}

/// The world's truth of one history.
pub(super) struct Truth<'a> {
    lacks: &'a [Lack],
    /// The moments at which something began to go wrong, or a machine or its process came or went, in order.
    pub(super) breaks: Vec<Real>,
}

impl<'a> Truth<'a> {
    /// `None` where nobody recorded it.
    pub(super) fn of(index: &Index<'a>) -> Option<Self> {
        let facts = &index.history.facts;
        let lacks = facts.lacks.as_deref()?;
        let began = lacks.iter().map(|l| l.from).chain(facts.disturbances.iter().map(|d| d.from));
        let runs = lacks.iter().filter(|l| l.what == Ability::Run).map(|l| l.to);
        let health = facts.disturbances.iter().filter(|d| d.what == super::What::Health);
        let mut breaks: Vec<Real> = began.chain(runs).chain(health.map(|d| d.to)).collect();
        breaks.sort();
        breaks.dedup();
        Some(Self { lacks, breaks })
    }

    /// A machine's lacks, the doubtful too.
    pub(super) fn lacks(&self, machine: usize) -> impl Iterator<Item = &'a Lack> {
        self.lacks.iter().filter(move |l| l.machine == machine)
    }

    /// When, in that time, the machine surely lacked none of these.
    pub(super) fn able(
        &self,
        machine: usize,
        within: Stretch,
        needs: impl Fn(&Ability) -> bool,
    ) -> Vec<Stretch> {
        let taken = self.lacks(machine).filter(|l| needs(&l.what));
        without(within, taken.map(|l| Stretch { from: l.from, to: l.to }).collect())
    }

    /// Did the machine surely have all of these, all the time?
    pub(super) fn had(
        &self,
        machine: usize,
        within: Stretch,
        needs: impl Fn(&Ability) -> bool,
    ) -> bool {
        self.able(machine, within, needs) == [within]
    }
}

impl Truth<'_> {
    /// Is any machine's ability in doubt, or gone, at some moment of that time and not all of it?
    pub(super) fn lacks_touching(&self, within: Stretch) -> bool {
        self.lacks.iter().any(|l| {
            let ends = l.to > within.from && l.to < within.to;
            let doubt = !l.sure && l.from < within.to && l.to > within.from;
            ends || doubt
        })
    }
}
