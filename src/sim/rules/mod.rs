//! The rules of the lock, the route and the address, each with the world in which its absence shows.
//!
//! A test is named after its rule. Where a planted mistake takes the rule out, `bites` shows in the same test
//! that the scenario then fails; the others were each seen failing with the rule taken out of the core by hand.

mod address;
mod bids;
mod encounters;
mod expiry;
mod giving;
mod half;
mod ledger;
mod moving;
mod objects;
mod refusal;
mod reload;
mod residual;
mod route;
mod secrets;
mod validity;

use super::fault::Fault;
use super::setup::{Setup, node_name};
use super::world::World;
use crate::core::action::Action;
use crate::core::bug::Bug;
use crate::core::facts::{Doc, Key};
use crate::core::note::Note;
use crate::history::{Entry, Said};
use crate::types::Span;

/// What a scenario found wrong: nothing, where all is well.
type Found = Vec<String>;

/// The scenario finds nothing wrong, whatever the small delays are.
fn holds(seeds: u64, scenario: impl Fn(Setup) -> Found) {
    for seed in 1..=seeds {
        let found = scenario(Setup { seed, ..Setup::new(3) });
        assert!(found.is_empty(), "seed {seed}:\n{}", found.join("\n"));
    }
}

/// The scenario holds, and with the mistake planted it does not: on one of the seeds something goes wrong.
fn bites(bug: Bug, seeds: u64, scenario: impl Fn(Setup) -> Found) {
    holds(seeds, &scenario);
    let planted = |seed| Setup { seed, bug: Some(bug), ..Setup::new(3) };
    let caught = (1..=seeds).any(|seed| !scenario(planted(seed)).is_empty());
    assert!(caught, "{bug:?} changes nothing in this world");
}

/// One world and what was found wrong in it so far.
struct Run {
    world: World,
    found: Found,
}

impl Run {
    fn of(setup: Setup) -> Self {
        Self { world: World::of(setup), found: Vec::new() }
    }

    /// Adds to the script: this happens so many milliseconds after the beginning.
    fn at(mut self, millis: u64, fault: Fault) -> Self {
        self.world.script.push((Span(millis), fault));
        self
    }

    fn until(&mut self, secs: u64) -> &mut Self {
        self.world.run(secs);
        self
    }

    /// Runs, a fifth of a millisecond at a time, until this is so; `false` if it never is.
    fn when(&mut self, before: u64, what: impl Fn(&World) -> bool) -> bool {
        while self.world.now < before * 1_000_000 {
            let next = self.world.now + 200;
            self.world.run_to(next);
            if what(&self.world) {
                return true;
            }
        }
        false
    }

    /// Runs until this process' machine has asked for such an action after this line; `false` if it never does.
    fn when_asked(
        &mut self,
        before: u64,
        from: usize,
        what: impl Fn(usize, &Action) -> bool,
    ) -> bool {
        self.when(before, |world| asked(world).any(|(line, m, a)| line >= from && what(m, a)))
    }

    /// Lines in the history so far.
    fn lines(&self) -> usize {
        self.world.history.entries.len()
    }

    fn expect(&mut self, right: bool, what: &str) -> &mut Self {
        if !right {
            self.found.push(format!("at {}: not so: {what}", self.world.real()));
        }
        self
    }

    fn held_by(&mut self, node: usize) -> &mut Self {
        let holder = self.world.holder("default");
        let right = holder.as_deref() == Some(node_name(node).as_str());
        self.expect(right, &format!("node {node} holds; {holder:?} does"))
    }

    fn routed_to(&mut self, node: usize) -> &mut Self {
        let routed = self.world.routed();
        self.expect(routed == Some(node), &format!("routed to node {node}; it is to {routed:?}"))
    }

    fn calls(&mut self, least: usize, most: usize) -> &mut Self {
        let calls = self.world.routes_called();
        let right = (least..=most).contains(&calls);
        self.expect(right, &format!("{least} to {most} route calls; {calls} were made"))
    }

    /// Packets to the first IP are lost for at most so long since then.
    fn loses(&mut self, since: u64, most: Span) -> &mut Self {
        let lost = self.world.lost(since);
        self.expect(lost <= most, &format!("at most {most} lost since {since}; it was {lost}"))
    }

    /// Some node raised this alarm.
    fn said(&mut self, alarm: &str) -> &mut Self {
        let said = asked(&self.world)
            .any(|(.., action)| matches!(action, Action::Note(Note::Alarm { code, .. }) if code == alarm));
        self.expect(said, &format!("the alarm {alarm:?} was raised"))
    }

    /// The machine that holds the first group, by the Lease.
    fn holder(&self) -> usize {
        let holder = self.world.holder("default").unwrap_or_default();
        let mut all = 0..self.world.machines.len();
        all.find(|n| node_name(*n) == holder).unwrap_or(0)
    }

    /// The script, the claims of authority and the route calls, for whoever has to find out why.
    fn outline(&self) -> Found {
        let script = self.world.script.iter().map(|(at, fault)| format!("  {at} {fault:?}"));
        let claims = asked(&self.world).filter_map(|(line, machine, action)| {
            let at = self.world.history.entries.get(line)?.at;
            match action {
                Action::Note(note @ (Note::Ready { .. } | Note::Changed { .. })) => {
                    Some(format!("  {at} node {machine}: {note:?}"))
                }
                Action::Route { ip, to, .. } => {
                    Some(format!("  {at} node {machine} routes {ip} to {}", to.name))
                }
                _ => None,
            }
        });
        script.chain(claims).collect()
    }

    /// The same where a call lands so late that a second move has to put it right: that is what such a world is about.
    fn end_after_a_late_landing(&mut self) -> Found {
        self.world.history.facts.lacks = None;
        self.end()
    }

    /// Ends the world and adds what the history checker has to say.
    fn end(&mut self) -> Found {
        let ends = self.world.script.iter().map(|(at, fault)| at.0 + fault.long().0);
        self.world.quiet = ends.max().unwrap_or(0) * 1000;
        let led_there = self.outline();
        let judged = crate::history::judge(&self.world.finish());
        self.found.extend(judged.iter().map(ToString::to_string));
        if !self.found.is_empty() {
            self.found.extend(led_there);
        }
        std::mem::take(&mut self.found)
    }
}

/// What the processes asked for so far: line, machine, action.
fn asked(world: &World) -> impl Iterator<Item = (usize, usize, &Action)> {
    let history = &world.history;
    let lines = history.entries.iter().enumerate();
    lines.filter_map(|(line, Entry { process, said, .. })| match said {
        Said::Action(action) => Some((line, history.processes[*process].machine, action)),
        Said::Event(_) => None,
    })
}

/// The first group's Lease.
fn lease() -> Key {
    Key::Group("default".parse().unwrap())
}

/// The record of a node.
fn record(node: usize) -> Key {
    Key::Node(node_name(node).parse().unwrap())
}

/// What the action writes into the first group's Lease, if it does.
fn lease_write(action: &Action) -> Option<&Doc> {
    match action {
        Action::Write { key, doc, .. } if *key == lease() => Some(doc),
        _ => None,
    }
}
