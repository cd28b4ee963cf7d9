//! What nodes believe of one another: records, names, groups, forgeries.

use super::super::super::fault::Forgery;
use super::*;

#[test]
fn a_record_that_was_there_already_is_no_sign_of_life() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(60_000, dead(1, 2000))
            .at(199_000, Fault::Cordon { node: 0, long: Span::secs(400) })
            .at(199_100, Fault::Crash { node: 0, after: 0, down: Span::secs(2) });
        run.until(215).held_by(2).routed_to(2).calls(1, 1);
        so_far(&mut run)
    });
}

#[test]
fn nodes_that_lose_power_together_and_come_back_move_nothing() {
    for at in [0, 1, 2] {
        holds(6, |setup| {
            let mut run = Run::of(Setup { at: Some(at), ..setup })
                .at(60_000, dead(0, 60))
                .at(60_000, dead(1, 60))
                .at(60_000, dead(2, 60));
            run.until(200).held_by(at).calls(0, 0);
            so_far(&mut run)
        });
    }
}

#[test]
fn an_ip_that_one_node_has_in_another_group_is_not_fought_for() {
    holds(4, |setup| {
        let mut run = Run::of(Setup { groups: vec![2, 1], at: None, ..setup });
        run.until(100);
        let (first, second) = (run.world.holder("default"), run.world.holder("g1"));
        let node = (0..3).find(|n| Some(node_name(*n)) == second).unwrap_or(0);
        let ip = run.world.ips[1].1;
        let before = run.world.routes_called();
        if first != second {
            let groups = &mut run.world.machines[node].config.groups;
            let (from, to) = ("default".parse().unwrap(), "g1".parse().unwrap());
            let hosts = groups.get_mut(&from).and_then(|group| group.ips.remove(&ip));
            groups.get_mut(&to).unwrap().ips.insert(ip, hosts.unwrap());
            run.world.hang_up(node);
        }
        run.until(900);
        let calls = run.world.routes_called() - before;
        run.expect(calls <= 2, &format!("at most two calls in 800 s; {calls}"));
        if first != second {
            run.said("split");
        }
        so_far(&mut run)
    });
}

#[test]
fn a_forged_record_of_no_node_is_given_nothing() {
    holds(3, |setup| {
        let mut run = Run::of(setup)
            .at(90_000, Fault::Forge { what: Forgery::Ghost })
            .at(100_000, Fault::Cordon { node: 0, long: Span::secs(400) });
        run.until(130).served_by(&[1, 2]).calls(1, 1);
        so_far(&mut run)
    });
}

#[test]
fn a_forged_epoch_costs_a_message() {
    holds(3, |setup| {
        let mut run = Run::of(setup).at(60_000, Fault::Forge { what: Forgery::LeaseEpoch });
        run.until(130).served_by(&[0]).calls(0, 0).loses(50, Span::ZERO).said("epoch-forged");
        let epoch = run.world.server.doc(&lease()).and_then(|doc| doc.transitions).unwrap_or(0);
        run.expect(epoch < 1000, &format!("the epoch is bounded; it is {epoch}"));
        run.world.inject(dead(0, 500));
        run.until(170).served_by(&[1, 2]).calls(1, 1);
        so_far(&mut run)
    });
}

/// The command that foip-alarms(7) names, `kubectl delete lease`: with a holder that is faster or not, and without one.
#[test]
fn a_forged_epoch_is_mended_by_deleting_the_lease() {
    for (holder_lives, after) in [(true, 1), (true, 300), (false, 3000), (false, 9000)] {
        holds(3, |setup| {
            let mut run = Run::of(setup);
            if !holder_lives {
                run = run.at(59_000, dead(0, 500));
            }
            let forged = Fault::Forge { what: Forgery::LeaseEpoch };
            run = run.at(60_000, forged).at(60_000 + after, Fault::Delete { key: lease() });
            run.until(100);
            match holder_lives {
                true => run.served_by(&[0]).calls(0, 0).loses(50, Span::ZERO),
                false => run.served_by(&[1, 2]).calls(1, 1).said("epoch-forged"),
            };
            let epoch = run.world.server.doc(&lease()).and_then(|doc| doc.transitions);
            let bounded = epoch.is_some_and(|epoch| (1..1000).contains(&epoch));
            run.expect(bounded, &format!("the epoch is bounded; it is {epoch:?}"));
            let lasts = run.world.machines.iter().enumerate().any(|(node, machine)| {
                let now = run.world.tick(node);
                let alarms = machine.running.as_ref().map(|it| it.core.picture(now).alarms);
                alarms.is_some_and(|alarms| alarms.contains_key("epoch-forged"))
            });
            run.expect(!lasts, "the alarm has ended");
            so_far(&mut run)
        });
    }
}

#[test]
fn a_new_name_and_a_full_disk_are_said_and_end() {
    holds(1, |setup| {
        let long = Span::secs(30);
        let mut run = Run::of(setup)
            .at(60_000, Fault::Renamed { node: 0, long })
            .at(60_000, Fault::Unsaved { node: 1, long });
        run.until(80).said("renamed").said("unsaved");
        let during = run.shows(0, "renamed") && run.shows(1, "unsaved");
        run.expect(during, "the status shows both");
        run.until(110);
        let after = run.shows(0, "renamed") || run.shows(1, "unsaved");
        run.expect(!after, "both are over");
        run.end()
    });
}

#[test]
fn a_server_that_was_taken_out_of_the_cluster_is_not_missed() {
    // Its record stays; so does that of a node that k3s has given another name.
    for others in [vec![], vec!["node-c-new"]] {
        holds(2, |setup| {
            let mut run = Run::of(setup).at(60_000, dead(2, 2000));
            run.until(95);
            let before = run.shows(0, "node-silent") && run.shows(1, "node-silent");
            run.expect(before, "node 2 is missed");
            let left = [node_name(0), node_name(1)].into_iter();
            let names = left.chain(others.iter().map(|it| (*it).to_owned()));
            let names: std::collections::BTreeSet<_> =
                names.map(|name| name.parse().unwrap()).collect();
            for node in 0..2 {
                run.world.tell(node, crate::core::event::Event::Members(names.clone()));
            }
            run.until(96);
            let after = run.shows(0, "node-silent") || run.shows(1, "node-silent");
            run.expect(!after, "nobody is missed any more");
            so_far(&mut run)
        });
    }
}

#[test]
fn an_access_that_comes_and_goes_ends_no_alarm_about_the_others() {
    holds(3, |setup| {
        let run = Run::of(setup).at(60_000, dead(1, 300)).at(60_000, dead(2, 300));
        let losses = (0..12).map(|n| 110_000 + n * 12_000);
        let short = Fault::Api { nodes: 1, how: Cut::Silent, long: Span::secs(4) };
        let mut run = losses.fold(run, |run, at| run.at(at, short.clone()));
        run.until(105).said("no-successor");
        run.until(500);
        run.end()
    });
}
