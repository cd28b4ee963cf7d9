//! The address follows the route: it outlives its process by one lifetime, and goes only on the provider's word.

use super::super::fault::{Cut, Fault, Target, TaskTrouble, Trouble};
use super::super::setup::Setup;
use super::{Run, asked, bites, holds};
use crate::core::action::Action;
use crate::core::bug::Bug;
use crate::types::Span;

const BLIND: [Fault; 2] = [
    Fault::Api { nodes: 7, how: Cut::Silent, long: Span::secs(90) },
    Fault::Provider { nodes: 7, how: Trouble::Silent, long: Span::secs(90) },
];

#[test]
fn a_living_process_refreshes_its_address() {
    bites(Bug::NoRefresh, 2, |setup| {
        let mut run = Run::of(setup);
        run.until(140).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn the_address_outlives_an_upgrade() {
    holds(3, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Stop { node: 0, down: Span::secs(30) });
        run.until(180).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn the_address_does_not_outlive_a_dead_process() {
    holds(3, |setup| {
        let dead = Fault::Crash { node: 0, after: 0, down: Span::secs(200) };
        let mut run = Run::of(setup).at(60_000, dead);
        run.until(99);
        let early = !run.world.has_address(0);
        run.until(108);
        let late = run.world.has_address(0);
        run.expect(!early && !late, "it goes one lifetime after the last refresh");
        run.until(380);
        run.end()
    });
}

#[test]
fn nothing_is_removed_before_the_first_answer() {
    bites(Bug::RemovesBeforeFirstAnswer, 3, |setup| {
        let crash = Fault::Crash { node: 0, after: 0, down: Span::secs(3) };
        let mut run = Run::of(setup).at(60_000, crash);
        run.until(140).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn nothing_is_removed_on_an_answer_from_before_the_last_change_of_role() {
    bites(Bug::RemovesOnOldAnswer, 4, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Cordon { node: 0, long: Span::secs(60) });
        run.until(200).calls(1, 1).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn nothing_is_removed_while_neither_api_nor_provider_answers() {
    holds(3, |setup| {
        let [api, provider] = BLIND;
        let mut run = Run::of(setup).at(60_000, api).at(60_000, provider);
        run.until(240).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        run.end()
    });
}

#[test]
fn a_node_that_the_route_has_left_takes_the_address_off() {
    holds(3, |setup| {
        let cut = Fault::Api { nodes: 1, how: Cut::Silent, long: Span::secs(100) };
        let mut run = Run::of(setup).at(60_000, cut);
        run.until(110);
        let left = run.world.has_address(0);
        run.expect(!left, "the old holder has no address, though it has no API").calls(1, 1);
        run.until(280);
        run.end()
    });
}

#[test]
fn the_route_back_to_a_node_without_api_finds_the_address_there() {
    // Nothing but the provider says so to the old holder.
    holds(3, |setup| {
        let cut = Fault::Api { nodes: 1, how: Cut::Silent, long: Span::secs(100) };
        let back = Fault::ByHand { ip: 0, to: Target::Node(0) };
        let mut run = Run::of(setup).at(60_000, cut).at(76_000, back);
        run.until(79);
        let there = run.world.has_address(0);
        run.expect(there, "it has not been removed within 15 s of the last role");
        run.until(300);
        run.end()
    });
}

/// The holder's own call, which takes back what somebody routed by hand, has such a task; then it loses the API, and
/// another node routes.
fn cut_off_with_a_task(setup: Setup, how: TaskTrouble) -> Run {
    let tasks = Fault::Tasks { how, long: Span::secs(40) };
    let by_hand = Fault::ByHand { ip: 0, to: Target::Node(1) };
    let cut = Fault::Api { nodes: 1, how: Cut::Silent, long: Span::secs(150) };
    Run::of(setup).at(60_000, tasks).at(60_000, by_hand).at(95_000, cut)
}

#[test]
fn a_task_that_never_ends_keeps_the_address_for_no_more_than_a_minute() {
    bites(Bug::WaitsForTheStuck, 3, |setup| {
        let mut run = cut_off_with_a_task(setup, TaskTrouble::Stuck);
        run.until(95).calls(1, 1).held_by(0);
        run.until(172);
        let left = run.world.has_address(0);
        run.expect(!left, "the old holder has no address");
        run.until(400);
        run.end()
    });
}

#[test]
fn a_task_that_ends_late_finds_the_address_there_within_seconds() {
    holds(3, |setup| {
        let mut run = cut_off_with_a_task(setup, TaskTrouble::Slow(Span::secs(80)));
        run.until(140);
        let left = run.world.has_address(0);
        run.expect(!left, "the old holder has no address, though its task runs");
        run.until(400).loses(140, Span::secs(3));
        run.end_after_a_late_landing()
    });
}

#[test]
fn a_start_without_api_and_provider_puts_what_the_state_file_remembers() {
    holds(3, |setup| {
        let [api, provider] = BLIND;
        let mut run = Run::of(setup).at(60_000, api).at(60_000, provider);
        run.until(65);
        run.world.inject(Fault::Crash { node: 0, after: 0, down: Span::secs(2) });
        run.until(66);
        run.world.inject(Fault::Vanish { node: 0 });
        run.until(70);
        let there = run.world.has_address(0);
        run.expect(there, "the address is back").calls(0, 0);
        run.until(260).held_by(0).calls(0, 0);
        run.end()
    });
}

#[test]
fn what_something_else_removed_is_back_within_a_second() {
    holds(3, |setup| {
        let mut run = Run::of(setup);
        for n in 0..4 {
            run = run.at(60_000 + 20_000 * n, Fault::Vanish { node: 0 });
        }
        for n in 0..4 {
            run.until(70 + 20 * n).calls(0, 0).loses(50 + 20 * n, Span::secs(1));
        }
        run.until(200);
        run.end()
    });
}

#[test]
fn an_address_without_our_tag_is_left_alone() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(30_000, Fault::Stranger { node: 1, ip: 0, long: Span::secs(300) })
            .at(60_000, Fault::Power { node: 0, down: Span::secs(60) });
        run.world.machines[2].config.eligible = false;
        run.until(90).held_by(1).routed_to(1).said("stranger");
        run.until(150);
        run.world.inject(Fault::Cordon { node: 1, long: Span::secs(60) });
        run.until(300);
        let there = run.world.has_address(1);
        run.expect(there, "the stranger's address is still there");
        let judged = crate::history::judge(&run.world.finish());
        let touched = judged.iter().filter(|v| v.invariant == crate::history::Invariant::I8);
        run.found.extend(touched.map(ToString::to_string));
        std::mem::take(&mut run.found)
    });
}

#[test]
fn nothing_is_announced_without_authority() {
    holds(3, |setup| {
        let cut = Fault::Api { nodes: 7, how: Cut::Silent, long: Span::secs(150) };
        let mut run = Run::of(setup).at(60_000, cut);
        run.until(280).held_by(0);
        run.end()
    });
}

#[test]
fn an_adoption_announces_nothing() {
    holds(4, |setup| {
        let crash = Fault::Crash { node: 0, after: 0, down: Span::secs(1) };
        let mut run = Run::of(setup).at(60_000, crash);
        run.until(60);
        let from = run.lines();
        run.until(100).held_by(0).calls(0, 0).loses(50, Span::ZERO);
        let later = asked(&run.world).filter(|(line, ..)| *line > from);
        let announced = later.filter(|(.., a)| matches!(a, Action::Announce { .. })).count();
        run.expect(announced == 0, "nothing is announced");
        run.end()
    });
}

#[test]
fn a_fight_about_an_address_is_over_a_minute_after_it_was_last_removed() {
    holds(3, |setup| {
        let removals = (0..5).map(|n| 60_000 + n * 12_000);
        let run = Run::of(setup);
        let mut run = removals.fold(run, |run, at| run.at(at, Fault::Vanish { node: 0 }));
        run.until(112).said("address-fight");
        run.until(340);
        run.end()
    });
}
