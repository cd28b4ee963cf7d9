//! Whom the Lease goes to, and when: each condition alone, with all others met.

use std::collections::BTreeMap;

use super::desk::{Desk, group, ip, key, of_another};
use super::given::{config, node, server};
use super::partly::{call, calls, elsewhere, looks, time, writes_lease};
use super::remembered::{here, word};
use crate::core::ability::{Kind, Lack};
use crate::core::action::Action;
use crate::core::budget::Need;
use crate::core::config::Drift;
use crate::core::event::Event;
use crate::core::facts::{
    ApiFailure, Key, Listing, NodeFacts, ProviderFailure, RouteOutcome, Routed, TaskId, TaskState,
};
use crate::core::ledger::Ending;
use crate::core::peer::{PeerRecord, Readiness, Testimony};
use crate::core::planned::Move;
use crate::core::record::Record;
use crate::core::target::Target;
use crate::types::{Epoch, FailoverIp, NodeName, Span};

impl Desk {
    /// The Lease as it was last written.
    fn record(&self) -> Record {
        Record::parse(&self.lease.as_ref().unwrap().doc)
    }

    /// Time passes, with every write done and this answered to each look.
    fn goes_on(&mut self, long: Span, answer: impl Fn() -> Result<Routed, ProviderFailure>) {
        let end = self.now + long;
        while self.now < end {
            self.pass(Span::millis(50));
            self.writes();
            if self.lies_open(looks) {
                self.listed(answer());
            }
        }
    }

    fn given_to(&self) -> Option<NodeName> {
        let record = self.record();
        record.holder.filter(|_| record.handed)
    }
}

fn second() -> FailoverIp {
    "2001:db8:0:1::/64".parse().unwrap()
}

/// A holder whose token is refused asks for a witness, and this one answers. One of its two IPs is left alone.
fn witness(change: impl FnOnce(&mut Desk, &mut PeerRecord)) -> Option<NodeName> {
    let refused = || Err(ProviderFailure::Auth("401".into()));
    let mut desk = Desk::holding();
    desk.reload(|fresh| (fresh.groups, fresh.drift) = (config(1, 2).groups, Drift::Report));
    desk.core.saved.reported.insert(second());
    desk.listed(here());
    while desk.record().ask.is_none() {
        desk.goes_on(Span::millis(50), refused);
    }
    let (epoch, ask) = (desk.record().epoch, desk.record().ask.unwrap());
    let routes = BTreeMap::from([(ip(), Routed::To(server(1).name))]);
    let groups = desk.core.groups.clone();
    let mut record = PeerRecord {
        groups,
        witness: BTreeMap::from([(group(), Testimony { epoch, ask, routes })]),
        ..word(1, "1-1")
    };
    change(&mut desk, &mut record);
    desk.hear_twice_of(1, &record);
    desk.goes_on(Span::secs(2), refused);
    desk.given_to()
}

#[test]
fn a_witness_is_given_the_lease_for_what_it_says_now_and_could_serve() {
    assert_eq!(witness(|_, _| ()), Some(node(1)));
    type Change = fn(&mut Desk, &mut PeerRecord);
    let changes: [(&str, Change); 9] = [
        ("of an earlier question", |_, record| {
            record.witness.values_mut().for_each(|said| said.ask -= 1);
        }),
        ("of an earlier term", |_, record| {
            record.witness.values_mut().for_each(|said| said.epoch = Epoch(said.epoch.0 - 1));
        }),
        ("the IP is here", |_, record| {
            let routes = BTreeMap::from([(ip(), Routed::To(server(0).name))]);
            record.witness.values_mut().for_each(|said| said.routes = routes.clone());
        }),
        ("of another IP", |_, record| {
            let routes = BTreeMap::from([(second(), Routed::To(server(1).name))]);
            record.witness.values_mut().for_each(|said| said.routes = routes.clone());
        }),
        ("it lacks that IP", |_, record| {
            record.lacks.ips.insert(ip(), Lack { kind: Kind::List, why: "it".into() });
        }),
        ("it lacks what is well here", |_, record| {
            record.lacks.ips.insert(second(), Lack { kind: Kind::Address, why: "it".into() });
        }),
        ("it did not take it before", |desk, _| {
            let until = desk.now + Span::secs(60);
            desk.core.locks.get_mut(&group()).unwrap().shunned.insert(node(1), until);
        }),
        ("its server is not known", |_, record| record.server = None),
        ("it is stopping", |_, record| record.stopping = true),
    ];
    for (what, change) in changes {
        assert_eq!(witness(change), None, "{what}");
    }
}

/// A holder with a ready successor: does it hand over without the call, since it cannot make it?
fn lets_the_successor_call(ledger: bool, list: bool) -> bool {
    let mut desk = Desk::holding();
    desk.listed(here());
    let mut record = word(1, "1-1");
    desk.hear_twice_of(1, &record);
    desk.goes_on(Span::secs(1), here);
    let (begun, epoch) = (desk.now, desk.record().epoch);
    let to = Move { to: node(1), server: server(1), id: 1, begun, need: Need::Planned };
    desk.core.locks.get_mut(&group()).unwrap().moving = Some(to);
    let sick = Event::NodeWatched(NodeFacts { cordoned: true, ..NodeFacts::default() });
    if !list {
        desk.core.need_observation(desk.now + Span::millis(1));
    }
    desk.hear(sick);
    record.counter += 1;
    record.ready = BTreeMap::from([(group(), Readiness { epoch, id: 1 })]);
    let end = desk.now + Span::secs(9);
    while desk.now < end && desk.given_to().is_none() {
        record.counter += 1;
        desk.hear_of(1, record.doc(&node(1)));
        desk.pass(Span::millis(100));
        while desk.lies_open(|it| matches!(it, Action::Write { key: Key::Ledger, .. })) {
            let refused = ApiFailure::Refused("500".into());
            desk.written(&Key::Ledger, if ledger { Ok(()) } else { Err(refused) });
        }
        desk.writes();
        if desk.lies_open(looks) {
            let routes = list.then(|| (ip(), here().unwrap())).into_iter().collect();
            desk.answered(Ok(Listing { routes, ..Listing::default() }));
        }
    }
    assert!(desk.given_to().is_some() || desk.lies_open(calls));
    desk.given_to() == Some(node(1))
}

#[test]
fn a_holder_that_cannot_make_the_calls_of_a_move_lets_the_successor_make_them() {
    assert!(!lets_the_successor_call(true, true), "it makes them");
    assert!(lets_the_successor_call(false, true), "it cannot write the ledger");
    assert!(lets_the_successor_call(true, false), "its list leaves the IP out");
}

#[test]
fn a_holder_without_link_or_way_out_names_another_node_after_five_seconds() {
    for (link, way_out) in [(false, true), (true, false)] {
        let mut desk = Desk::holding();
        desk.listed(here());
        let mut record = word(1, "1-1");
        desk.hear_twice_of(1, &record);
        desk.goes_on(Span::secs(1), here);
        desk.hear(Event::Link { up: link, default_route: way_out });
        let from = desk.now;
        record.counter += 1;
        while desk.record().successor.is_none() {
            assert!(desk.now.since(from) < Span::secs(8), "{link} {way_out}");
            record.counter += 1;
            desk.hear_of(1, record.doc(&node(1)));
            desk.goes_on(Span::millis(500), here);
        }
        assert!(desk.now.since(from) >= Span::secs(5), "{link} {way_out}");
    }
}

#[test]
fn each_refused_bid_is_followed_by_a_longer_pause_in_which_the_holder_may_renew() {
    let mut desk = Desk::with(Some(of_another(4, 7).doc()));
    desk.listed(here());
    let mut refused = Vec::new();
    for _ in 0..6 {
        while !desk.lies_open(writes_lease) {
            desk.pass(Span::millis(50));
            if desk.lies_open(looks) {
                desk.listed(here());
            }
        }
        desk.written(&key(), Err(ApiFailure::Refused("500".into())));
        refused.push(desk.now);
    }
    let pauses: Vec<Span> = refused.windows(2).map(|two| two[1].since(two[0])).collect();
    let least = [3, 6, 12, 24, 24].map(Span::secs);
    for (pause, least) in pauses.iter().zip(least) {
        assert!((least..=least + Span::secs(2)).contains(pause), "{pauses:?}");
    }
}

#[test]
fn an_ip_that_somebody_routed_to_a_dead_node_may_use_the_reserve() {
    let mut desk = Desk::holding();
    desk.listed(here());
    desk.hear_twice_of(1, &word(1, "1-1"));
    let epoch = desk.term().epoch;
    // With nothing left to spend it stays where it was routed to.
    let spent = time(desk.now);
    desk.ledger_shows((0..10).map(|n| call(&format!("other/{n}"), spent, Some(Ending::NotSent))));
    desk.core.routes.get_mut(&ip()).unwrap().hold = desk.now + Span::secs(300);
    desk.core.need_observation(desk.now + Span::millis(1));
    desk.goes_on(Span::secs(5), elsewhere);
    for (later, needed) in [(Span::ZERO, Need::Planned), (Span::secs(26), Need::Urgent)] {
        desk.core.now += later;
        let target = desk.core.target(ip(), &group(), &Routed::To(server(1).name), epoch);
        assert_eq!(target, Target::To(server(0), needed));
    }
}

#[test]
fn a_call_that_came_to_nothing_is_said_until_one_arrives() {
    let mut desk = Desk::holding();
    desk.listed(elsewhere());
    desk.goes_on_until(calls, elsewhere);
    let failure = ProviderFailure::Retry { why: "500".into(), after: None };
    desk.called(RouteOutcome::Refused(failure));
    assert!(desk.said("call-failed"));
    desk.goes_on_until(calls, elsewhere);
    desk.called(RouteOutcome::Accepted(TaskId("one".into())));
    desk.goes_on_until(|it| matches!(it, Action::ReadTask { .. }), elsewhere);
    assert!(desk.said("call-failed"), "nothing has arrived yet");
    desk.task(Ok(TaskState::Done));
    desk.goes_on(Span::secs(3), here);
    assert!(!desk.said("call-failed"));
}
