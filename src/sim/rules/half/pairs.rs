//! Two faults at once, each harmless by itself.

use super::*;
use crate::core::action::Action;
use crate::core::config::Drift;
use crate::core::event::Event;
use crate::core::facts::Key;
use crate::core::note::Note;

const LONG: Span = Span::secs(1500);

fn refuses(nodes: u8, ip: usize, known: bool) -> Fault {
    Fault::Refuses { nodes, ip, long: LONG, known }
}

const fn part(nodes: u8, part: Part, how: Refusal) -> Fault {
    Fault::ApiPart { nodes, part, how, long: LONG }
}

#[test]
fn two_nodes_that_each_lack_another_address_do_not_swap() {
    for known in [true, false] {
        holds(3, |setup| {
            let mut run = Run::of(Setup { groups: vec![2], ..setup })
                .at(40_000, refuses(1, 0, known))
                .at(40_000, refuses(6, 1, known));
            run.until(900).held_by(0).calls(0, 0);
            so_far(&mut run)
        });
    }
}

#[test]
fn two_heirs_that_each_lack_another_address_cost_one_call_for_each_ip() {
    holds(3, |setup| {
        let mut run = Run::of(Setup { groups: vec![2], ..setup })
            .at(40_000, refuses(2, 0, true))
            .at(40_000, refuses(4, 1, true))
            .at(60_000, dead(0, 1500));
        run.until(900).calls(1, 2);
        so_far(&mut run)
    });
}

#[test]
fn what_nobody_can_put_costs_no_dwell_time_of_a_move() {
    holds(3, |setup| {
        let sick = Fault::Sick {
            node: 0,
            condition: "MemoryPressure",
            status: Condition::True,
            long: Span::secs(20),
        };
        let mut run =
            Run::of(Setup { groups: vec![3], ..setup }).at(0, refuses(7, 2, true)).at(90_000, sick);
        run.until(400).held_by(0).calls(0, 0);
        so_far(&mut run)
    });
}

#[test]
fn a_successor_that_lacks_what_the_holder_serves_is_not_ready() {
    holds(3, |setup| {
        let cordon = Fault::Cordon { node: 0, long: LONG };
        let mut run = Run::of(Setup { groups: vec![3], ..setup })
            .at(40_000, SICK)
            .at(50_000, refuses(2, 2, false))
            .at(60_000, cordon);
        run.until(200).served_by(&[2]).calls(3, 3);
        run.until(700).served_by(&[2]).calls(3, 3);
        so_far(&mut run)
    });
}

#[test]
fn a_cordon_moves_a_group_of_which_one_address_can_be_put_nowhere() {
    for known in [true, false] {
        holds(3, |setup| {
            let cordon = Fault::Cordon { node: 0, long: LONG };
            let mut run = Run::of(Setup { groups: vec![3], ..setup })
                .at(0, refuses(7, 2, known))
                .at(90_000, cordon);
            run.until(140);
            let holder = run.holder();
            run.expect(holder != 0, "a node that is not cordoned holds").routed_to(holder);
            run.until(700).held_by(holder);
            so_far(&mut run)
        });
    }
}

#[test]
fn an_ip_that_is_only_reported_is_no_reason_to_give_the_others_away() {
    holds(3, |setup| {
        let hand = Fault::ByHand { ip: 1, to: Target::Foreign };
        let blind = Fault::Provider { nodes: 1, how: Trouble::Silent, long: LONG };
        let mut run = Run::of(Setup { groups: vec![2], drift: Drift::Report, ..setup })
            .at(60_000, hand)
            .at(110_000, blind);
        run.until(105).said("drift");
        run.until(500).held_by(0).routed_to(0).calls(0, 0).loses(50, Span::ZERO);
        so_far(&mut run)
    });
}

#[test]
fn a_list_that_empties_while_the_window_is_spent_ends_the_waiting() {
    holds(3, |setup| {
        // Node 1 is turned away and gives the Lease to node 2, which is turned away, too.
        let empty = Fault::Provider { nodes: 4, how: Trouble::Empty, long: LONG };
        let mut run = Run::of(setup)
            .at(50_000, SICK)
            .at(55_000, Fault::Spend { calls: 10 })
            .at(60_000, dead(0, 1500))
            .at(140_000, empty);
        run.world.provider.retry_after = false;
        run.until(139).held_by(2);
        run.until(460).served_by(&[1]);
        so_far(&mut run)
    });
}

#[test]
fn a_node_that_was_removed_while_the_list_fails_is_not_missed_for_ever() {
    holds(2, |setup| {
        let mut run = Run::of(setup)
            .at(50_000, part(7, Part::List, Refusal::Refused))
            .at(60_000, dead(2, 1500))
            .at(120_000, Fault::Delete { key: super::super::record(2) });
        run.until(119);
        let before = run.shows(0, "node-silent");
        run.expect(before, "it is missed");
        run.until(150);
        let after = run.shows(0, "node-silent");
        run.expect(!after, "it is not missed any more");
        so_far(&mut run)
    });
}

#[test]
fn nobody_is_alone_by_a_list_that_fails() {
    holds(2, |setup| {
        let mut run = Run::of(setup)
            .at(50_000, part(2, Part::Everything, Refusal::Refused))
            .at(50_000, Fault::WatchSilent { nodes: 2, long: LONG })
            .at(60_000, Fault::Crash { node: 1, after: 0, down: Span::secs(2) });
        run.until(200);
        let alone = run.shows(1, "alone");
        run.expect(!alone, "the list fails: who else there is, is not known");
        so_far(&mut run)
    });
}

#[test]
fn a_reload_that_mends_the_credentials_leaves_no_alarm() {
    for at in [331, 344, 357, 370, 383] {
        holds(2, |setup| {
            let long = Span::secs(at - 60);
            let wrong = Fault::Provider { nodes: 2, how: Trouble::Auth, long };
            let mut run = Run::of(setup).at(60_000, wrong);
            run.until(at);
            let from = run.lines();
            let config = run.world.machines[1].config.clone();
            run.world.tell(1, Event::Reload(Box::new(config)));
            run.until(at + 3);
            for code in ["provider-auth", "provider-lost"] {
                let shows = run.shows(1, code);
                run.expect(!shows, &format!("{code} is over"));
            }
            let blames = asked(&run.world).any(|(line, _, action)| {
                line >= from
                    && matches!(action, Action::Note(Note::Alarm { code, .. }) if code == "provider-lost")
            });
            run.expect(!blames, "nobody says that the provider is silent");
            so_far(&mut run)
        });
    }
}

#[test]
fn an_heir_that_cannot_write_the_ledger_while_the_list_fails_gives_the_lease_on() {
    for how in [Refusal::Denied, Refusal::Refused, Refusal::Silent] {
        holds(3, |setup| {
            let mut run = Run::of(setup)
                .at(40_000, SICK)
                .at(50_000, part(7, Part::List, how))
                .at(50_000, part(2, Part::Write(Key::Ledger), how))
                .at(60_000, dead(0, 1500));
            // Of the writes that are answered with an error half are done: then the heir itself may have called.
            let who: &[usize] = if how == Refusal::Refused { &[1, 2] } else { &[2] };
            run.until(108).served_by(who);
            run.until(600).served_by(who).calls(1, 1);
            so_far(&mut run)
        });
    }
}

#[test]
fn an_heir_that_cannot_read_the_ledger_while_the_list_fails_gives_the_lease_on() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(40_000, SICK)
            .at(50_000, part(7, Part::List, Refusal::Denied))
            .at(50_000, part(2, Part::Object(Key::Ledger), Refusal::Denied))
            .at(51_000, Fault::Crash { node: 1, after: 0, down: Span::secs(2) })
            .at(90_000, dead(0, 1500));
        run.until(138).served_by(&[2]);
        run.until(600).served_by(&[2]).calls(1, 1);
        so_far(&mut run)
    });
}

#[test]
fn an_heir_that_stood_still_and_whose_calls_are_refused_gives_the_lease_on() {
    for how in [Trouble::NoRight, Trouble::CallsFail] {
        holds(3, |setup| {
            let mut run = Run::of(setup)
                .at(50_000, SICK)
                .at(55_000, Fault::Provider { nodes: 2, how, long: LONG })
                .at(60_000, Fault::Freeze { node: 1, long: Span::secs(170) })
                .at(260_000, dead(0, 1500));
            run.world.provider.retry_after = false;
            run.until(305).served_by(&[2]);
            run.until(900).served_by(&[2]);
            so_far(&mut run)
        });
    }
}

#[test]
fn a_family_that_is_refused_here_and_a_reload_move_nothing_twice() {
    holds(3, |setup| {
        let mut run = Run::of(Setup { groups: vec![3], ..setup }).at(60_000, refuses(1, 2, false));
        run.until(150).served_by(&[1, 2]).calls(3, 3);
        for node in 0..3 {
            let config = run.world.machines[node].config.clone();
            run.world.tell(node, Event::Reload(Box::new(config)));
        }
        run.until(600).served_by(&[1, 2]).calls(3, 3);
        so_far(&mut run)
    });
}

#[test]
fn two_groups_share_one_spent_window() {
    holds(3, |setup| {
        let mut run = Run::of(Setup { groups: vec![1, 1], ..setup })
            .at(55_000, Fault::Spend { calls: 9 })
            .at(60_000, dead(0, 1500));
        run.until(600);
        let routed = run.world.ips.iter().all(|(_, ip, _)| {
            let at = run.world.provider.routes.get(ip).cloned().flatten();
            at.is_some() && at.as_ref() != Some(&run.world.machines[0].server.name)
        });
        run.expect(routed, "both are routed to a living node");
        so_far(&mut run)
    });
}

#[test]
fn a_lost_ledger_an_old_copy_and_a_date_that_lies_exceed_no_window() {
    for how in [Trouble::OldDate(Span::secs(600)), Trouble::NewDate(Span::secs(600))] {
        holds(3, |setup| {
            let mut run = Run::of(Setup { groups: vec![4], ..setup })
                .at(40_000, Fault::ByHand { ip: 0, to: Target::Foreign })
                .at(100_000, Fault::Api { nodes: 2, how: Cut::Refused, long: Span::secs(130) })
                .at(120_000, dead(0, 15))
                .at(160_000, dead(2, 2000))
                .at(205_000, Fault::Provider { nodes: 7, how, long: Span::secs(200) })
                .at(215_000, dead(0, 2000))
                .at(220_000, Fault::Delete { key: Key::Ledger });
            run.until(800);
            let calls = calls(&run);
            let mut found = run.end();
            if !found.is_empty() {
                found.insert(0, format!("calls: {calls}"));
            }
            found
        });
    }
}

#[test]
fn a_holder_with_a_new_name_says_so_before_the_ip_leaves_it() {
    // The Node of the old name stays, and nobody reports for it any more.
    let (condition, status) = ("Ready", Condition::Unknown);
    holds(2, |setup| {
        let mut run = Run::of(setup)
            .at(60_000, Fault::Renamed { node: 0, long: LONG })
            .at(100_000, Fault::Sick { node: 0, condition, status, long: LONG });
        run.until(65);
        let said = run.shows(0, "renamed");
        run.expect(said, "the new name is said");
        run.until(160).served_by(&[1, 2]).calls(1, 1);
        run.until(600).served_by(&[1, 2]).calls(1, 1);
        so_far(&mut run)
    });
}
