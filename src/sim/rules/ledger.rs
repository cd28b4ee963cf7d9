//! The ledger and the budget: what was spent stays spent, whoever spent it and whatever crashes.

use super::super::fault::{Edit, Fault, TaskTrouble};
use super::super::setup::Setup;
use super::{Found, Run, asked, bites, holds};
use crate::core::action::Action;
use crate::core::bug::Bug;
use crate::core::config::Api;
use crate::core::facts::Key;
use crate::core::saved::Saved;
use crate::types::Span;

const LEDGER: Key = Key::Ledger;

/// Five IPs; one holder after the other dies, 30 s apart: the third failover finds no budget for five minutes.
fn three_deaths(setup: Setup, between: &[(u64, Fault)], wipe: bool) -> Found {
    let mut run = Run::of(Setup { groups: vec![5], ..setup });
    // The clock of the first node is half an hour before that of the others.
    for (node, wall) in [(0, 1_800_000), (1, 0), (2, 0)] {
        run.world.machines[node].wall = 1_790_000_000_000 + wall;
    }
    run.until(60).calls(0, 0);
    run.world.inject(Fault::Snapshot);
    for n in 0..2 {
        let node = run.holder();
        run.world.inject(Fault::Power { node, down: Span::secs(20) });
        run.until(60 + 30 * (n + 1));
    }
    run.calls(10, 10);
    for (_, fault) in between {
        run.world.inject(fault.clone());
    }
    if wipe {
        for machine in &mut run.world.machines {
            machine.disk = Saved { calls: Default::default(), ..machine.disk.clone() };
        }
    }
    run.until(150);
    let node = run.holder();
    run.world.inject(Fault::Power { node, down: Span::secs(500) });
    run.until(330).calls(10, 10).said("budget");
    run.until(430).calls(15, 15);
    let holder = run.holder();
    run.expect(holder != node, "another node has it").routed_to(holder);
    run.end()
}

#[test]
fn what_others_called_is_spent_and_the_first_possible_moment_is_used() {
    bites(Bug::BudgetInMemory, 2, |setup| three_deaths(setup, &[], false));
}

#[test]
fn the_ledger_is_in_the_providers_time() {
    bites(Bug::LedgerInNodeTime, 2, |setup| three_deaths(setup, &[], false));
}

#[test]
fn a_deleted_ledger_is_put_back_from_the_nodes_copies() {
    holds(2, |setup| three_deaths(setup, &[(0, Fault::Delete { key: LEDGER })], false));
}

#[test]
fn an_unreadable_ledger_is_put_back_from_the_nodes_copies() {
    for how in [Edit::Nonsense, Edit::NoNotes] {
        holds(2, |setup| three_deaths(setup, &[(0, Fault::Edit { key: LEDGER, how })], false));
    }
}

#[test]
fn a_ledger_restored_from_before_the_calls_is_put_back() {
    holds(2, |setup| three_deaths(setup, &[(0, Fault::Restore)], false));
}

#[test]
fn a_ledger_that_nobody_remembers_is_rebuilt_from_the_providers_list() {
    let crash = |node| (0, Fault::Crash { node, after: 0, down: Span::secs(1) });
    holds(2, |setup| {
        let delete = (0, Fault::Delete { key: LEDGER });
        three_deaths(setup, &[delete, crash(0), crash(1), crash(2)], true)
    });
}

#[test]
fn a_call_without_result_stays_spent() {
    // The second holder is killed with its calls under way, and the third dies, too: ten may have arrived.
    holds(3, |setup| {
        let mut run = Run::of(Setup { groups: vec![5], ..setup });
        run.until(60);
        run.world.inject(Fault::Power { node: 0, down: Span::secs(20) });
        run.until(62);
        let from = run.lines();
        run.when(90, |world| {
            let calls = asked(world).filter(|(line, _, action)| {
                *line >= from && matches!(action, Action::Route { .. })
            });
            calls.count() >= 5
        });
        let sent = run.world.now + 40_000;
        run.world.run_to(sent);
        let node = run.holder();
        run.world.inject(Fault::Power { node, down: Span::secs(20) });
        run.until(110);
        let node = run.holder();
        run.world.inject(Fault::Power { node, down: Span::secs(20) });
        run.until(460);
        let holder = run.holder();
        run.routed_to(holder);
        run.end()
    });
}

#[test]
fn a_crash_loop_with_a_failing_provider_does_not_burn_the_hour() {
    bites(Bug::BudgetInMemory, 2, |setup| {
        let failing = Fault::Tasks { how: TaskTrouble::Failed, long: Span::secs(420) };
        let mut run = Run::of(Setup { at: None, ..setup }).at(0, failing);
        for n in 0..24 {
            let crash = Fault::Crash { node: 0, after: 0, down: Span::secs(1) };
            run = run.at(30_000 + 16_000 * n, crash);
        }
        // 15 s doubling to ten minutes: 0, 15, 45, 105, 225 s.
        run.until(420).calls(1, 6);
        std::mem::take(&mut run.found)
    });
}

#[test]
fn a_window_that_somebody_else_spent_is_probed_until_it_is_free() {
    for counts_rejected in [false, true] {
        holds(4, |setup| {
            let mut run = Run::of(Setup { counts_rejected, ..setup })
                .at(59_000, Fault::Spend { calls: 10 })
                .at(60_000, Fault::Power { node: 0, down: Span::secs(500) });
            run.until(350).calls(1, 4);
            run.until(400).calls(2, 5);
            let holder = run.holder();
            run.expect(holder != 0, "another node has it").routed_to(holder);
            run.until(640);
            run.end()
        });
    }
}

#[test]
fn soap_allows_one_call_per_ip_in_five_minutes() {
    holds(3, |setup| {
        let mut run = Run::of(Setup { api: Api::Soap, ..setup });
        run.until(60);
        run.world.inject(Fault::Power { node: 0, down: Span::secs(20) });
        run.until(120).calls(1, 1);
        let node = run.holder();
        run.world.inject(Fault::Power { node, down: Span::secs(400) });
        run.until(365).calls(1, 1);
        run.until(400).calls(2, 2);
        let holder = run.holder();
        run.expect(holder != node, "another node has it").routed_to(holder);
        run.until(600);
        run.end()
    });
}

#[test]
fn the_hour_is_kept_when_the_five_minutes_are_free() {
    // A death every 150 s: the twentieth call is the last of the hour.
    holds(1, |setup| {
        let mut run = Run::of(Setup { lifetime: Span::secs(45), ..setup });
        run.until(60);
        for n in 0..22 {
            let node = run.holder();
            run.world.inject(Fault::Power { node, down: Span::secs(20) });
            run.until(60 + 150 * (n + 1));
        }
        run.calls(20, 20).said("budget");
        run.until(3_760).calls(20, 23);
        let holder = run.holder();
        run.routed_to(holder);
        // Sends that are seconds late make some of these failovers late: only the windows are judged.
        run.end()
            .into_iter()
            .filter(|text| text.starts_with("I3") || text.starts_with("at"))
            .collect()
    });
}
