//! One of several: what is said of one IP, server, group or moment holds for no other.

use super::desk::{Desk, group, ip, key, of_another};
use super::given::{config, node, server};
use super::partly::{call, calls, elsewhere, looks, time, writes_lease};
use super::remembered::{here, host, word};
use crate::core::action::Action;
use crate::core::bid::Claim;
use crate::core::budget::Need;
use crate::core::event::Event;
use crate::core::facts::{
    ApiFailure, Key, Listing, ProviderFailure, ProviderTime, RouteOutcome, Routed, SeenAddress,
};
use crate::core::ledger::Ending;
use crate::core::peer::PeerRecord;
use crate::core::planned::Move;
use crate::core::provider::Provider;
use crate::core::record::{Membership, Record};
use crate::core::way::{Route, Stage};
use crate::types::{FailoverIp, GroupName, Span, Tick};

fn exits(action: &Action) -> bool {
    matches!(action, Action::Exit)
}

fn asks_past(action: &Action) -> bool {
    matches!(action, Action::ReadPastCalls { .. })
}

/// The IPs are at these servers.
fn listing(at: &[(FailoverIp, usize)]) -> Listing {
    let routes = at.iter().map(|(ip, number)| (*ip, Routed::To(server(*number).name)));
    Listing { routes: routes.collect(), ..Listing::default() }
}

impl Desk {
    /// The holder of one group with so many IPs.
    fn of_ips(count: usize) -> (Self, Vec<FailoverIp>) {
        let mut desk = Self::holding();
        desk.hear(Event::Reload(Box::new(config(1, count))));
        let ips = desk.core.routes.keys().copied().collect();
        (desk, ips)
    }

    /// It lives on while `go` says so: every write is done, and each look shows the IPs at these servers.
    fn lives(&mut self, at: &[(FailoverIp, usize)], mut go: impl FnMut(&Self) -> bool) {
        let end = self.now + Span::secs(60);
        while go(self) {
            assert!(self.now < end, "it does not come");
            self.pass(Span::millis(20));
            if !go(self) {
                return;
            }
            self.writes();
            if self.lies_open(looks) {
                self.answered(Ok(listing(at)));
            }
        }
    }

    fn lives_for(&mut self, long: Span, at: &[(FailoverIp, usize)]) {
        let end = self.now + long;
        self.lives(at, |desk| desk.now < end);
    }
}

#[test]
fn a_refusal_holds_back_calls_for_its_ip_to_its_server_and_no_others() {
    let (mut desk, ips) = Desk::of_ips(2);
    desk.lives_for(Span::secs(3), &[(ips[0], 0), (ips[1], 0)]);
    let failure = ProviderFailure::Config("another site".into());
    desk.core.refused(ips[0], &server(1), failure);
    for (ip, to, may) in [(0, 1, false), (0, 0, true), (0, 2, true), (1, 1, true), (1, 0, true)] {
        let may_call = desk.core.may_call(ips[ip], &group(), &server(to), Need::Urgent);
        assert_eq!(may_call, may, "IP {ip} to server {to}");
    }
}

/// Somebody who is refused as a successor for ten minutes is none for ten minutes.
#[test]
fn a_refusal_stands_for_its_server_until_it_ends() {
    let mut route = Route::new(&group(), Tick(0));
    assert!(!route.refused_for(&server(1), Tick(0)));
    (route.hold, route.refusal) = (Tick(600), Some((server(1).name, "another site".into())));
    for (to, now, refused) in [(1, 599, true), (1, 600, false), (0, 599, false)] {
        assert_eq!(route.refused_for(&server(to), Tick(now)), refused, "{to} at {now}");
    }
}

/// One of the two is at the successor already, and the other can never follow.
#[test]
fn a_move_ends_when_one_ip_of_the_group_is_refused() {
    for refused in [0, 1] {
        let (mut desk, ips) = Desk::of_ips(2);
        let home = [(ips[0], 0), (ips[1], 0)];
        desk.lives_for(Span::secs(3), &home);
        desk.core.need_observation(desk.now);
        desk.lives(&home, |desk| !desk.lies_open(looks));
        let begun = desk.now;
        let to = Move { to: node(1), server: server(1), id: 1, begun, need: Need::Planned };
        desk.core.locks.get_mut(&group()).unwrap().moving = Some(to);
        let at = [(ips[refused], 0), (ips[1 - refused], 1)];
        desk.answered(Ok(listing(&at)));
        assert!(desk.core.locks[&group()].moving.is_some());
        desk.core.refused(ips[refused], &server(1), ProviderFailure::Config("another site".into()));
        desk.hear(Event::Wake);
        assert!(desk.core.locks[&group()].moving.is_none(), "{refused}");
        assert!(desk.core.is_shunned(&group(), &node(1)));
    }
}

/// Intents that wait for their writing count each: of three IPs two fit into the window.
#[test]
fn intents_that_wait_share_the_window() {
    let (mut desk, ips) = Desk::of_ips(3);
    let at = time(desk.now);
    desk.ledger_shows((0..8).map(|n| call(&format!("node-01/1-1/{n}"), at, Some(Ending::Done))));
    // No IP is known before the others.
    desk.answered(Ok(Listing::default()));
    let away: Vec<_> = ips.iter().map(|ip| (*ip, 2)).collect();
    let mut most = 0;
    let end = desk.now + Span::secs(5);
    desk.lives(&away, |desk| {
        most = most.max(desk.core.book.wanted.len());
        desk.now < end
    });
    assert_eq!(most, 2);
    assert_eq!(desk.how_often(calls), 2);
}

/// The other IP's intent is written when the answer comes: it goes no further.
#[test]
fn no_call_goes_before_the_moment_that_was_named_to_the_call_for_another_ip() {
    let (mut desk, ips) = Desk::of_ips(2);
    desk.lives(&[(ips[0], 2), (ips[1], 0)], |desk| !desk.lies_open(calls));
    desk.core.need_observation(desk.now);
    let renews = |desk: &Desk| matches!(desk.core.routes[&ips[1]].stage, Stage::Renewing { .. });
    desk.lives(&[(ips[0], 2), (ips[1], 2)], |desk| !renews(desk));
    let after = Some(Span::secs(90));
    desk.called(RouteOutcome::Refused(ProviderFailure::Budget { why: "429".into(), after }));
    let from = desk.now;
    desk.lives_for(Span::secs(50), &[(ips[0], 2), (ips[1], 2)]);
    assert_eq!(desk.how_often(calls), 1);
    desk.lives(&[(ips[0], 2), (ips[1], 2)], |desk| desk.how_often(calls) == 1);
    assert!(desk.now.since(from) >= Span::secs(90));
}

#[test]
fn of_two_moments_that_were_named_the_later_one_counts() {
    for waits in [[90, 5], [5, 90]] {
        let mut provider = Provider::new(None);
        for wait in waits {
            provider.told_to_wait(Some(Span::secs(wait)), Tick(1000));
            provider.told_to_wait(None, Tick(1000));
        }
        assert_eq!(provider.wait_until(), Tick(91_000));
    }
}

/// Of the calls of the time before the first `Date` each counts from when it was made, on netcup's clock.
#[test]
fn calls_of_the_assumed_time_are_spent_when_the_first_date_comes() {
    let mut desk = Desk::with(None);
    let assumed = ProviderTime(1_000_000_000_000);
    let now = desk.now;
    desk.core.provider.clock_mut().assume(assumed, now);
    desk.ledger_shows([call("node-01/1-1/1", assumed + Span::secs(1), Some(Ending::Done))]);
    desk.pass(Span::secs(2));
    desk.listed(here());
    let at = desk.core.spending().call("node-01/1-1/1").unwrap().at;
    assert!(at.0 + 10_000 > time(desk.now).0, "{at:?}");
    assert_eq!(desk.core.picture(desk.now).budget.left, Some([9, 19]));
}

#[test]
fn each_loss_of_the_ledger_is_made_good_by_an_answer_of_its_own() {
    let (mut desk, _) = Desk::of_ips(1);
    for loss in 1..=2 {
        desk.lives_for(Span::secs(20), &[(ip(), 0)]);
        desk.lose_ledger();
        assert!(!desk.core.book.known());
        desk.lives(&[(ip(), 0)], |desk| !desk.lies_open(asks_past));
        assert!(!desk.core.book.known(), "it is begun anew before netcup was asked");
        desk.remembers(Ok(Some(vec![])));
        desk.lives(&[(ip(), 0)], |desk| !desk.core.book.known());
        assert_eq!(desk.how_often(asks_past), loss);
    }
}

#[test]
fn who_is_asked_for_past_calls_names_a_moment_too() {
    let (mut desk, _) = Desk::of_ips(1);
    desk.lose_ledger();
    desk.lives(&[(ip(), 0)], |desk| !desk.lies_open(asks_past));
    let wait = Span::secs(45);
    desk.remembers(Err(ProviderFailure::Retry { why: "503".into(), after: Some(wait) }));
    let (from, looked) = (desk.now, desk.how_often(looks));
    desk.lives(&[(ip(), 0)], |desk| !desk.lies_open(asks_past));
    assert!(desk.now.since(from) >= wait, "{}", desk.now.since(from));
    assert!(desk.how_often(looks) <= looked + 1);
}

/// The last word leaves the Lease with time for a restart.
#[test]
fn nobody_leaves_before_each_of_its_leases_says_so() {
    for groups in [1, 2] {
        let mut desk = Desk::holding();
        desk.listed(here());
        desk.hear(Event::Reload(Box::new(config(groups, 1))));
        desk.lives_for(Span::secs(1), &[(ip(), 0)]);
        desk.hear(Event::Stop);
        desk.pass(Span::millis(250));
        assert!(desk.written(&key(), Err(ApiFailure::Refused("503".into()))));
        assert!(!desk.lies_open(exits), "{groups}");
        desk.pass_until(writes_lease);
        assert!(!desk.lies_open(exits), "{groups}");
        assert!(desk.written(&key(), Ok(())));
        desk.pass(Span::millis(10));
        assert!(desk.lies_open(exits), "{groups}");
        let left = Record::parse(&desk.lease.as_ref().unwrap().doc).duration;
        assert_eq!(left, Span::secs(33));
    }
}

/// While nothing answers, one request at a time tells when it does again: of the Lease that is to be renewed.
#[test]
fn the_lease_that_is_held_is_probed_before_the_others() {
    for held in ["g0", "g1"] {
        let held: GroupName = held.parse().unwrap();
        let mut desk = Desk::holding();
        desk.listed(here());
        desk.hear(Event::Reload(Box::new(config(2, 1))));
        desk.pass(Span::secs(1));
        let term = desk.core.locks.get_mut(&group()).unwrap().term.take();
        desk.core.locks.get_mut(&held).unwrap().term = term;
        desk.reads(key(), Err(ApiFailure::Unknown("no answer".into())));
        let reads = |held: bool, group: &GroupName| {
            let group = group.clone();
            move |action: &Action| matches!(action, Action::Read { key: Key::Group(it), .. } if (*it == group) == held)
        };
        let before = [true, false].map(|of| desk.how_often(reads(of, &held)));
        for _ in 0..6 {
            desk.now += Span::millis(500);
            desk.hear(Event::Wake);
        }
        let after = [true, false].map(|of| desk.how_often(reads(of, &held)));
        assert!(after[0] >= before[0] + 5 && after[1] == before[1], "{before:?} {after:?}");
    }
}

#[test]
fn whoever_has_another_configuration_than_the_lease_bids_twenty_seconds_later() {
    let bids = |change: fn(&mut Membership)| {
        let mut record = of_another(4, 7);
        change(&mut record.membership);
        let mut desk = Desk::with(Some(record.doc()));
        let end = desk.now + Span::secs(60);
        while !desk.lies_open(writes_lease) && desk.now < end {
            desk.pass(Span::millis(20));
            if desk.lies_open(looks) {
                desk.listed(elsewhere());
            }
        }
        desk.now
    };
    let same = bids(|_| {});
    for change in [
        (|it| it.account = "200000".into()) as fn(&mut Membership),
        |it| it.ips = "203.0.113.9".into(),
        |it| it.protocol = 2,
    ] {
        let later = bids(change).since(same);
        assert!((19..=21).contains(&later.as_secs()), "{later}");
    }
}

#[test]
fn free_groups_are_shared_out_between_those_who_are_as_fit() {
    let mut desk = Desk::with(None);
    desk.hear(Event::Reload(Box::new(config(4, 1))));
    let groups = desk.core.groups.clone();
    desk.hear_twice_of(1, &PeerRecord { groups, ..word(1, "1-1") });
    let at: Vec<_> = desk.core.routes.keys().map(|ip| (*ip, 2)).collect();
    desk.answered(Ok(listing(&at)));
    desk.pass(Span::secs(14));
    let bids = desk.core.group_names().into_iter().map(|name| match desk.core.claim(&name) {
        Some(Claim::At(at)) => at,
        other => panic!("{name}: {other:?}"),
    });
    let bids: Vec<Tick> = bids.collect();
    let first = bids.iter().min().copied().unwrap();
    let later = bids.iter().filter(|bid| bid.since(first) > Span::secs(2)).count();
    assert_eq!(later, 2, "{bids:?}");
}

/// Each is said three times, half a second apart, since any of them may be lost.
#[test]
fn an_address_is_announced_in_bursts() {
    let announces = |action: &Action| matches!(action, Action::Announce { .. });
    let mut desk = Desk::holding();
    desk.hear(Event::Addresses(vec![SeenAddress { host: host(), ours: true }]));
    desk.listed(here());
    desk.lives_for(Span::secs(3), &[(ip(), 0)]);
    assert_eq!(desk.how_often(announces), 3);
    for up in [false, true] {
        desk.hear(Event::Link { up, default_route: true });
    }
    desk.lives_for(Span::secs(3), &[(ip(), 0)]);
    assert_eq!(desk.how_often(announces), 6);
}

#[test]
fn an_address_that_a_reload_takes_out_of_its_ip_goes_from_the_nic() {
    let mut desk = Desk::holding();
    desk.listed(here());
    let second = "203.0.113.2".parse().unwrap();
    let removes =
        |action: &Action| matches!(action, Action::RemoveAddress { host } if *host == second);
    let seen = [host(), second].map(|host| SeenAddress { host, ours: true });
    for hosts in [vec![host(), second], vec![host()]] {
        let mut fresh = config(1, 1);
        let group = fresh.groups.values_mut().next().unwrap();
        group.ips.values_mut().for_each(|it| *it = hosts.iter().copied().collect());
        desk.hear(Event::Reload(Box::new(fresh)));
        desk.hear(Event::Addresses(seen.to_vec()));
        desk.lives_for(Span::secs(2), &[(ip(), 0)]);
        assert_eq!(desk.lies_open(removes), hosts.len() == 1);
    }
}
