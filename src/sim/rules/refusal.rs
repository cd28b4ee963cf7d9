//! A provider that throttles, refuses, is slow, or falls silent, for one node or for all: the IP is routed all the
//! same, as soon as somebody can.

use super::super::fault::{Fault, Trouble};
use super::super::setup::Setup;
use super::{Run, asked, bites, holds};
use crate::core::action::Action;
use crate::core::bug::Bug;
use crate::core::facts::Condition;
use crate::types::Span;

const DEATH: Fault = Fault::Power { node: 0, down: Span::secs(500) };

/// Node 2 is less fit than node 1, so that node 1 takes what node 0 leaves.
const SICK: Fault = Fault::Sick {
    node: 2,
    condition: "DiskPressure",
    status: Condition::True,
    long: Span::secs(480),
};

#[test]
fn the_ips_of_a_group_that_meet_one_429_wait_for_one_window() {
    holds(4, |setup| {
        let mut run = Run::of(Setup { groups: vec![5], ..setup })
            .at(59_000, Fault::Spend { calls: 10 })
            .at(60_000, DEATH);
        run.until(380);
        let holder = run.holder();
        run.expect(holder != 0, "another node has it").routed_to(holder);
        run.until(800);
        run.end()
    });
}

#[test]
fn a_provider_that_answers_slowly_is_called_all_the_same() {
    holds(3, |setup| {
        let slow = Fault::Provider { nodes: 7, how: Trouble::Slow, long: Span::secs(120) };
        let mut run = Run::of(setup).at(50_000, slow).at(60_000, DEATH);
        run.until(85).calls(1, 1);
        let holder = run.holder();
        run.expect(holder != 0, "another node has it").routed_to(holder);
        run.until(700);
        run.end()
    });
}

#[test]
fn an_heir_that_loses_the_provider_in_its_call_gives_the_lease_on() {
    let cut_off = |setup: Setup, how: Trouble| {
        let mut run = Run::of(setup).at(50_000, SICK).at(60_000, DEATH);
        run.until(62);
        let from = run.lines();
        run.when_asked(90, from, |_, action| matches!(action, Action::Route { .. }));
        let heir = asked(&run.world)
            .filter(|(.., action)| matches!(action, Action::Route { .. }))
            .last()
            .map_or(1, |(_, machine, _)| machine);
        // Its call never arrives, or is accepted and nobody says so; then it hears nothing for a long time.
        run.world.inject(Fault::Provider { nodes: 1 << heir, how, long: Span::secs(1) });
        let soon = run.world.now + 500_000;
        run.world.run_to(soon);
        let silent =
            Fault::Provider { nodes: 1 << heir, how: Trouble::Silent, long: Span::secs(300) };
        run.world.inject(silent);
        run.until(150).calls(0, 2);
        let holder = run.holder();
        run.expect(holder != 0, "the dead node does not hold it").routed_to(holder);
        run.until(800);
        run.end()
    };
    holds(3, |setup| cut_off(setup, Trouble::CutAfter));
    bites(Bug::WaitsForTheSilent, 3, |setup| cut_off(setup, Trouble::Silent));
}

#[test]
fn an_heir_whose_calls_are_refused_gives_the_lease_to_one_whose_are_not() {
    holds(3, |setup| {
        let refused = Fault::Provider { nodes: 2, how: Trouble::Config, long: Span::secs(300) };
        let mut run = Run::of(setup).at(50_000, SICK).at(55_000, refused).at(60_000, DEATH);
        run.until(110).calls(2, 2).held_by(2).routed_to(2).said("refused");
        run.until(800);
        run.end()
    });
}

#[test]
fn a_dead_holder_is_not_waited_for_by_a_less_healthy_heir() {
    bites(Bug::FollowsTheDead, 3, |setup| {
        let cordon = |node| Fault::Cordon { node, long: Span::secs(480) };
        let mut run = Run::of(setup).at(40_000, cordon(1)).at(40_000, cordon(2)).at(60_000, DEATH);
        run.until(73).calls(1, 1);
        let holder = run.holder();
        run.expect(holder != 0, "another node has it").routed_to(holder);
        run.until(800);
        run.end()
    });
}
