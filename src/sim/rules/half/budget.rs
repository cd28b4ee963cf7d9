//! Calls that are refused, throttled by somebody else's spending, or answered with an error.

use super::*;

/// The node that is to take over cannot: the other one does, in time, and at the cost of one accepted call.
fn heir_cannot(setup: Setup, groups: Vec<usize>, how: Trouble) -> Found {
    let cannot = Fault::Provider { nodes: 2, how, long: Span::secs(700) };
    let mut run = Run::of(Setup { groups, ..setup })
        .at(50_000, SICK)
        .at(55_000, cannot)
        .at(60_000, dead(0, 800));
    // Being told to wait is told to all.
    run.world.provider.retry_after = false;
    run.until(102).served_by(&[2]);
    run.until(600).served_by(&[2]);
    let accepted = run.world.history.facts.calls.iter().filter(|call| call.by == Some(2)).count();
    let ips = run.world.ips.len();
    run.expect(accepted == ips, &format!("one call for each of {ips} IPs by node 2; {accepted}"));
    so_far(&mut run)
}

#[test]
fn an_heir_whose_calls_come_to_nothing_gives_the_lease_on() {
    for how in [Trouble::NoRight, Trouble::CallsFail, Trouble::TasksFail, Trouble::Config] {
        holds(3, |setup| heir_cannot(setup, vec![1], how));
    }
}

#[test]
fn an_heir_that_netcup_does_not_list_the_ip_for_gives_the_lease_on() {
    let half = [
        Trouble::Empty,
        Trouble::Half(Family::V4),
        Trouble::HalfUnread(Family::V4),
        Trouble::Fixed,
    ];
    for how in half {
        holds(3, |setup| heir_cannot(setup, vec![1], how));
        holds(2, |setup| heir_cannot(setup, vec![3], how));
    }
}

#[test]
fn somebody_elses_429_is_probed() {
    for nodes in [2, 7] {
        holds(3, |setup| {
            let how = Trouble::CallsThrottled;
            let mut run = Run::of(setup)
                .at(50_000, SICK)
                .at(60_000, dead(0, 800))
                .at(65_000, Fault::Provider { nodes, how, long: Span::secs(30) });
            run.until(135).served_by(&[1, 2]);
            run.until(700).served_by(&[1, 2]);
            so_far(&mut run)
        });
    }
}

#[test]
fn a_node_whose_calls_alone_are_turned_away_says_so() {
    holds(3, |setup| {
        let how = Trouble::CallsThrottled;
        let mut run = Run::of(setup)
            .at(50_000, SICK)
            .at(60_000, dead(0, 800))
            .at(65_000, Fault::Provider { nodes: 2, how, long: Span::secs(800) });
        run.until(130).served_by(&[2]).said("call-failed");
        run.until(700).served_by(&[1, 2]);
        so_far(&mut run)
    });
}

/// The calls of one group go out one after the other, each with a renewal before it: the first is told to wait while
/// the others have their intents written already.
#[test]
fn a_moment_that_is_named_for_one_ip_is_waited_for_by_the_others_under_way() {
    holds(20, |setup| {
        let how = Trouble::CallsThrottled;
        let mut run = Run::of(Setup { groups: vec![4], ..setup })
            .at(60_000, dead(0, 800))
            .at(60_000, Fault::Provider { nodes: 7, how, long: Span::secs(20) });
        run.until(400).served_by(&[1, 2]);
        so_far(&mut run)
    });
}

#[test]
fn an_answered_error_is_repeated_within_ten_seconds() {
    holds(4, |setup| {
        let how = Trouble::CallsFail;
        let mut run = Run::of(setup)
            .at(50_000, SICK)
            .at(60_000, dead(0, 800))
            .at(60_000, Fault::Provider { nodes: 7, how, long: Span::secs(14) });
        // No server that says when to come back.
        run.world.provider.retry_after = false;
        run.until(88).served_by(&[1]);
        let calls: Vec<u64> = run.world.history.facts.calls.iter().map(|c| c.arrived.0).collect();
        let gap = calls.windows(2).map(|pair| pair[1] - pair[0]).next().unwrap_or(0) / 1_000_000;
        run.expect(
            calls.len() == 2 && gap <= 10,
            &format!("a second call {gap} s after the first"),
        );
        so_far(&mut run)
    });
}

#[test]
fn a_standby_that_lost_the_provider_unnoticed_does_not_bid_first() {
    // Where nothing is refused its record still says that it could, and the others leave it a step.
    for (how, most) in [(Trouble::Refused, 13), (Trouble::Silent, 15)] {
        holds(4, |setup| {
            let gone = Fault::Provider { nodes: 2, how, long: Span::secs(900) };
            let mut run = Run::of(setup).at(100_000, gone).at(400_000, dead(0, 800));
            run.until(500).served_by(&[2]).calls(1, 1).loses(400, Span::secs(most));
            so_far(&mut run)
        });
    }
}
