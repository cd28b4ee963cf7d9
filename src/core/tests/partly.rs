//! What holds in part, and what a state leaves when it ends: each with what begins it, and with what does not.

use std::collections::BTreeMap;

use super::desk::{Desk, group, ip, key, of_another};
use super::given::{config, node, server};
use super::remembered::{here, host, word};
use crate::core::ability::{Kind, Lack, Lacks};
use crate::core::action::Action;
use crate::core::budget::Need;
use crate::core::event::Event;
use crate::core::facts::{
    AddressFailure, ApiFailure, Key, Listing, ProviderFailure, ProviderTime, RouteOutcome, Routed,
    SeenAddress, TaskId,
};
use crate::core::ledger::{Call, End, Ending, Ledger};
use crate::core::peer::PeerRecord;
use crate::core::planned::Move;
use crate::core::provider::Provider;
use crate::core::record::{Record, Succession};
use crate::types::{Epoch, Span, Tick};

pub fn elsewhere() -> Result<Routed, ProviderFailure> {
    Ok(Routed::To(server(1).name))
}

pub fn looks(action: &Action) -> bool {
    matches!(action, Action::ReadRoutes { .. })
}

pub fn calls(action: &Action) -> bool {
    matches!(action, Action::Route { .. })
}

pub fn writes_lease(action: &Action) -> bool {
    matches!(action, Action::Write { key: Key::Group(_), .. })
}

/// netcup's clock as the desk has it.
pub fn time(at: Tick) -> ProviderTime {
    ProviderTime(1_700_000_000_000 + at.0)
}

pub fn call(id: &str, at: ProviderTime, end: Option<Ending>) -> Call {
    Call {
        id: id.to_owned(),
        epoch: Epoch(1),
        group: group(),
        ip: ip(),
        node: node(1),
        to: server(1).name,
        at,
        arrives: at,
        end: end.map(|result| End { at, result, after: None }),
    }
}

impl Desk {
    /// Every write that lies open is done.
    pub fn writes(&mut self) {
        for key in [key(), Key::Ledger] {
            let open =
                |action: &Action| matches!(action, Action::Write { key: it, .. } if *it == key);
            while self.lies_open(open) {
                self.written(&key, Ok(()));
            }
        }
    }

    /// The holder goes on until such a request lies open, with every write done and this answered to each look.
    pub fn goes_on_until(
        &mut self,
        is: impl Fn(&Action) -> bool,
        routed: impl Fn() -> Result<Routed, ProviderFailure>,
    ) {
        let end = self.now + Span::secs(90);
        while !self.lies_open(&is) {
            assert!(self.now < end, "it does not come");
            self.pass(Span::millis(20));
            self.writes();
            if self.lies_open(looks) && !self.lies_open(&is) {
                self.listed(routed());
            }
        }
    }

    pub fn term(&self) -> crate::core::lock::Term {
        self.core.locks[&group()].term.clone().unwrap()
    }

    fn serves(&self) -> bool {
        self.core.is_served(ip(), self.term().began)
    }

    fn ill(&mut self) -> Option<(Tick, Tick)> {
        self.core.plan_ills();
        self.core.routes[&ip()].ill
    }

    pub fn ledger_shows(&mut self, calls: impl IntoIterator<Item = Call>) {
        let stored = Some(self.stored(Ledger::of(calls).doc()));
        self.hear(Event::Watched { key: Key::Ledger, stored });
    }
}

#[test]
fn an_ip_on_its_way_to_a_successor_is_not_ill_before_that_ends() {
    let mut desk = Desk::holding();
    desk.listed(elsewhere());
    assert!(desk.ill().is_some());
    let begun = desk.now;
    let to = Move { to: node(1), server: server(1), id: 1, begun, need: Need::Planned };
    desk.core.routes.get_mut(&ip()).unwrap().ill = None;
    desk.core.locks.get_mut(&group()).unwrap().moving = Some(to);
    assert_eq!(desk.ill(), None);
    desk.core.locks.get_mut(&group()).unwrap().moving = None;
    assert!(desk.ill().is_some());
}

#[test]
fn the_time_in_which_the_window_is_spent_is_none_of_the_illness() {
    let mut desk = Desk::holding();
    desk.listed(elsewhere());
    let (since, _) = desk.ill().unwrap();
    for (spent, counted) in [(true, 2), (false, 2), (true, 4)] {
        desk.core.now += Span::secs(2);
        desk.core.routes.get_mut(&ip()).unwrap().spent = spent;
        assert_eq!(desk.ill().unwrap().0, since + Span::secs(counted), "{spent}");
    }
}

#[test]
fn a_window_that_is_spent_is_said_until_it_has_room() {
    let mut desk = Desk::with(None);
    desk.listed(elsewhere());
    assert!(!desk.said("budget"));
    let at = time(desk.now);
    desk.ledger_shows((0..10).map(|n| call(&format!("node-01/1-1/{n}"), at, Some(Ending::Done))));
    assert!(desk.said("budget"));
    desk.pass(Span::secs(330));
    assert!(!desk.said("budget"));
}

#[test]
fn what_the_kernel_no_longer_refreshes_is_not_served() {
    let mut desk = Desk::holding();
    desk.listed(here());
    desk.hear(Event::Addresses(vec![SeenAddress { host: host(), ours: true }]));
    assert!(desk.serves());
    let result = Err(AddressFailure::Refused("no IPv6".into()));
    desk.hear(Event::AddressPut { host: host(), result });
    assert!(desk.core.has_addresses(ip()) && !desk.serves());
    desk.hear(Event::AddressPut { host: host(), result: Ok(()) });
    assert!(desk.serves());
}

#[test]
fn only_living_nodes_have_a_word_about_the_group_of_an_ip() {
    let mut desk = Desk::with(None);
    let other: crate::types::GroupName = "a0".parse().unwrap();
    for number in [1, 2] {
        let groups = BTreeMap::from([(other.clone(), ip().to_string())]).into();
        desk.hear_of(number, PeerRecord { groups, ..word(number, "1-1") }.doc(&node(number)));
    }
    assert_eq!(desk.core.is_split(ip()), Some(other));
    desk.core.now += Span::secs(26);
    assert_eq!(desk.core.is_split(ip()), None);
}

#[test]
fn a_server_that_is_not_known_is_lacking_whatever_else_netcup_answers() {
    let mut desk = Desk::with(None);
    desk.listed(here());
    assert!(desk.core.find_lacks().provider.is_none());
    let known = std::mem::replace(&mut desk.core.provider, Provider::new(None));
    let lacks = desk.core.find_lacks().provider.unwrap();
    assert!(lacks.contains("server at netcup is not known"), "{lacks}");
    desk.core.provider = known;
    assert!(desk.core.find_lacks().provider.is_none());
}

#[test]
fn an_ip_that_netcup_does_not_let_this_account_route_is_lacking_until_it_does() {
    let mut desk = Desk::with(None);
    for (fixed, lacks) in [(true, true), (false, false)] {
        desk.core.need_observation(desk.now + Span::millis(1));
        desk.pass_until(looks);
        let fixed = fixed.then(|| (ip(), "not editable".to_owned())).into_iter().collect();
        let routes = [(ip(), here().unwrap())].into();
        desk.answered(Ok(Listing { routes, fixed, ..Listing::default() }));
        assert_eq!(desk.core.lacks.ips.contains_key(&ip()), lacks);
        assert_eq!(desk.said("not-listed") || desk.said("list"), lacks);
    }
}

#[test]
fn an_own_move_goes_on_in_the_next_term_and_another_nodes_does_not() {
    let mut desk = Desk::with(None);
    desk.hear_of(2, word(2, "2-1").doc(&node(2)));
    let successor = Some(Succession { to: node(2), id: 1 });
    let by = desk.core.me.clone();
    let theirs = Record { successor, ..of_another(4, 7) };
    let ours = Record { by, holder: Some(node(0)), epoch: Epoch(5), ..theirs.clone() };
    for (record, goes_on) in [(theirs, false), (ours, true)] {
        let lease = Some(desk.stored(record.doc()));
        desk.read(lease);
        desk.core.inherit_move(&group());
        assert_eq!(desk.core.locks[&group()].moving.is_some(), goes_on);
    }
}

/// The IP is routed to the successor when that has been silent for too long.
#[test]
fn a_move_that_failed_leaves_no_drift_and_its_successor_has_to_wait() {
    let mut desk = Desk::holding();
    desk.listed(here());
    for _ in 0..250 {
        desk.pass(Span::millis(100));
        desk.writes();
        if desk.lies_open(looks) {
            desk.listed(here());
        }
    }
    assert!(desk.core.routes[&ip()].here_in.is_some());
    desk.goes_on_until(looks, here);
    let begun = Tick(desk.now.0 - 21_000);
    let to = Move { to: node(1), server: server(1), id: 1, begun, need: Need::Planned };
    desk.core.locks.get_mut(&group()).unwrap().moving = Some(to);
    desk.listed(elsewhere());
    assert!(desk.core.locks[&group()].moving.is_none());
    assert!(desk.core.routes[&ip()].here_in.is_none() && !desk.said("drift"));
    assert!(desk.core.is_shunned(&group(), &node(1)));
}

#[test]
fn nodes_that_have_no_record_yet_are_read_while_the_list_fails_and_not_all_at_once() {
    let mut desk = Desk::with(None);
    desk.hear(Event::Members((0..90).map(node).collect()));
    let read = |number: usize| move |action: &Action| matches!(action, Action::Read { key: Key::Node(it), .. } if *it == node(number));
    assert!(!desk.lies_open(read(1)));
    let now = desk.now;
    desk.core.reads.list.failed(now, now, "500");
    desk.hear(Event::Wake);
    assert!(desk.lies_open(read(1)));
    let asked = (0..90).filter(|number| desk.lies_open(read(*number))).count();
    assert!((40..=60).contains(&asked), "{asked} requests at once");
}

#[test]
fn netcup_is_asked_again_soon_after_the_first_failure_and_after_each_recovery() {
    let mut desk = Desk::holding();
    let failure = || Err(ProviderFailure::Retry { why: "503".into(), after: None });
    let mut gap = |routed: Result<Routed, ProviderFailure>| {
        desk.listed(routed);
        let from = desk.now;
        desk.goes_on_until(looks, here);
        desk.now.since(from)
    };
    gap(here());
    let first = gap(failure());
    let gaps: Vec<Span> = (0..6).map(|_| gap(failure())).collect();
    let last = gaps[5];
    assert!(last > first.times(2), "{first} {last}");
    gap(here());
    let again = gap(failure());
    assert!(last > again.times(2), "{again} {last}");
}

#[test]
fn a_call_that_turns_up_late_counts_from_when_the_ledger_was_last_seen_without_it() {
    let mut desk = Desk::with(None);
    desk.listed(here());
    desk.ledger_shows([call("node-01/1-1/1", time(desk.now), Some(Ending::Done))]);
    let seen = time(desk.now);
    let old = ProviderTime(seen.0 - 250_000);
    let both = [call("node-01/1-1/1", seen, Some(Ending::Done)), call("node-01/1-1/2", old, None)];
    desk.ledger_shows(both.clone());
    let spent = desk.core.spending();
    assert!(spent.call("node-01/1-1/2").unwrap().at.0 + 5000 > seen.0);
    assert_eq!(desk.core.book.ledger().call("node-01/1-1/2").unwrap().at, old, "as it was read");
}

/// What may have got in is ended there: it is no call that was made.
#[test]
fn the_intent_of_an_ip_that_a_reload_removes_is_withdrawn() {
    let mut desk = Desk::holding();
    desk.listed(elsewhere());
    let write = |action: &Action| matches!(action, Action::Write { key: Key::Ledger, .. });
    desk.goes_on_until(write, elsewhere);
    assert_eq!(desk.core.book.wanted.len(), 1);
    let mut fresh = config(2, 1);
    fresh.groups.remove(&group());
    desk.hear(Event::Reload(Box::new(fresh)));
    assert!(desk.core.book.wanted.is_empty());
    let ends = desk.core.book.ledger().calls().map(|call| call.end.map(|end| end.result));
    assert_eq!(ends.collect::<Vec<_>>(), [Some(Ending::NotSent)]);
}

#[test]
fn a_renewal_that_landed_after_all_is_counted_on_from_and_gives_no_authority() {
    let mut desk = Desk::holding();
    desk.pass_until(writes_lease);
    let before = desk.term();
    desk.written(&key(), Err(ApiFailure::Unknown("no answer".into())));
    let lease = desk.lease.clone().unwrap();
    let record = Record::parse(&lease.doc);
    let renewal = before.renewal + 1;
    let landed = Some(desk.stored(Record { renewal, ..record }.doc()));
    desk.lease.clone_from(&landed);
    desk.read(landed);
    assert_eq!((desk.term().renewal, desk.term().until), (renewal, before.until));
    desk.pass_until(writes_lease);
    assert!(desk.written(&key(), Ok(())));
    assert_eq!(desk.term().renewal, renewal + 1);
}

#[test]
fn a_call_of_ones_own_that_lands_late_is_no_drift_and_somebody_elses_is() {
    let other = "203.0.113.9".parse().unwrap();
    for (end, of, late) in [
        (Some(Ending::Accepted), ip(), true),
        (Some(Ending::Failed), ip(), true),
        (Some(Ending::Unknown), ip(), true),
        (Some(Ending::Done), ip(), false),
        (Some(Ending::Accepted), other, false),
    ] {
        let mut desk = Desk::holding();
        desk.listed(here());
        assert!(desk.core.routes[&ip()].here_in.is_some());
        desk.ledger_shows([Call { ip: of, ..call("node-01/1-1/1", time(desk.now), end) }]);
        desk.goes_on_until(looks, here);
        desk.listed(elsewhere());
        assert_eq!(desk.said("drift"), !late);
    }
}

#[test]
fn who_says_when_to_come_back_is_left_alone_until_then() {
    let wait = Span::secs(45);
    let retry = || ProviderFailure::Retry { why: "503".into(), after: Some(wait) };
    type Answer = fn(&mut Desk, ProviderFailure);
    let answers: [(&str, Answer); 3] = [
        ("a look", |desk, failure| desk.listed(Err(failure))),
        ("a call", |desk, failure| desk.called(RouteOutcome::Refused(failure))),
        ("a task", |desk, failure| {
            desk.called(RouteOutcome::Accepted(TaskId("one".into())));
            desk.goes_on_until(|it| matches!(it, Action::ReadTask { .. }), elsewhere);
            desk.task(Err(failure));
        }),
    ];
    for (what, answer) in answers {
        let mut desk = Desk::holding();
        desk.listed(elsewhere());
        desk.goes_on_until(calls, elsewhere);
        if what == "a look" {
            desk = Desk::holding();
        } else if desk.lies_open(looks) {
            desk.listed(elsewhere());
        }
        answer(&mut desk, retry());
        let from = desk.now;
        let asks = |action: &Action| {
            looks(action) || calls(action) || matches!(action, Action::ReadTask { .. })
        };
        assert!(!desk.lies_open(asks), "{what}");
        desk.goes_on_until(asks, elsewhere);
        assert!(desk.now.since(from) >= wait, "{what}: {}", desk.now.since(from));
    }
}

#[test]
fn what_netcup_says_with_a_429_is_written_into_the_ledger() {
    let mut desk = Desk::holding();
    desk.listed(elsewhere());
    desk.goes_on_until(calls, elsewhere);
    let after = Some(Span::secs(400));
    desk.called(RouteOutcome::Refused(ProviderFailure::Budget { why: "429".into(), after }));
    let ledger = desk.core.book.ledger().clone();
    let end = ledger.calls().next().unwrap().end.unwrap();
    assert_eq!((end.result, end.after), (Ending::Throttled, after));
}

#[test]
fn after_a_stop_of_the_process_a_lease_is_missing_from_then_on() {
    let mut desk = Desk::with(None);
    desk.read(None);
    let before = desk.core.locks[&group()].sight.clone();
    desk.pass(Span::secs(3));
    desk.core.now = desk.now;
    desk.core.forget_what_was_read();
    let since = |sight: &crate::core::view::Sight| match &sight.view {
        crate::core::view::View::Missing { since } => Some(*since),
        _ => None,
    };
    let after = &desk.core.locks[&group()].sight;
    assert!(since(&before).is_some() && since(after) > since(&before));
    assert_eq!(since(after), Some(desk.now));
}

#[test]
fn a_witness_says_nothing_any_more_once_it_is_not_asked() {
    let mut desk = Desk::with(Some(Record { ask: Some(1), ..of_another(4, 7) }.doc()));
    let mut renewal = 7;
    for ask in [Some(1), None] {
        let end = desk.now + Span::secs(15);
        while desk.now < end {
            renewal += 1;
            let lease = Some(desk.stored(Record { ask, ..of_another(4, renewal) }.doc()));
            desk.lease.clone_from(&lease);
            desk.read(lease);
            desk.pass(Span::millis(500));
            if desk.lies_open(looks) {
                desk.listed(elsewhere());
            }
        }
        assert_eq!(desk.last_word().witness.contains_key(&group()), ask.is_some());
    }
}

#[test]
fn a_fight_about_an_address_is_over_with_the_first_calm() {
    let mut desk = Desk::holding();
    desk.listed(here());
    let mut vanishes = |times: u32| {
        for _ in 0..times {
            for seen in [vec![SeenAddress { host: host(), ours: true }], vec![]] {
                desk.hear(Event::Addresses(seen));
                desk.pass(Span::millis(5));
            }
        }
        let fights = desk.said("address-fight");
        let end = desk.now + Span::secs(70);
        while desk.now < end {
            desk.pass(Span::millis(100));
            desk.writes();
            if desk.lies_open(looks) {
                desk.listed(here());
            }
        }
        assert!(!desk.said("address-fight"));
        fights
    };
    assert!(vanishes(4));
    assert!(!vanishes(1));
}

#[test]
fn a_node_is_less_fit_by_whatever_it_says_that_it_lacks() {
    let desk = Desk::with(None);
    let word = |change: &dyn Fn(&mut Lacks)| {
        let mut record = word(1, "n1");
        change(&mut record.lacks);
        record
    };
    let why = || "403".to_owned();
    let records = [
        word(&|_| {}),
        word(&|lacks| _ = lacks.ips.insert(ip(), Lack { kind: Kind::Call, why: why() })),
        word(&|lacks| lacks.provider = Some(why())),
        word(&|lacks| lacks.host = Some(why())),
    ];
    let (name, held, group) = (node(1), BTreeMap::new(), group());
    let yardstick = desk.core.yardstick(&group);
    let fitness = records.iter().map(|record| yardstick.fitness(&name, record, &held));
    assert!(fitness.collect::<Vec<_>>().is_sorted_by(|fitter, other| fitter < other));
}
