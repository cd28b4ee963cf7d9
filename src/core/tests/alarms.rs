//! Each alarm of the core: said within 30 s of its cause, with its words, for as long as the cause lasts, and over 30 s
//! after it (L7).

use std::collections::{BTreeMap, BTreeSet};

use super::desk::{Desk, group, ip, key, of_another};
use super::given::node;
use super::partly::{call, elsewhere, looks, time};
use super::remembered::{here, host, word};
use crate::core::action::Action;
use crate::core::event::{Event, Ticket, Trouble};
use crate::core::facts::{
    AddressFailure, ApiFailure, Doc, Key, Listing, NodeFacts, ProviderFailure, SeenAddress,
};
use crate::core::ledger::{Ending, Ledger};
use crate::core::peer::PeerRecord;
use crate::core::record::{Membership, Record};
use crate::types::{Span, Tick};

/// An alarm is said this soon after its cause, and over this soon after its end.
const SOON: Span = Span::secs(30);

type Turn = fn(&mut Desk);

/// A cause, and what happens each tenth of a second while it lasts, and afterwards.
struct Case {
    code: &'static str,
    words: &'static str,
    from: fn() -> Desk,
    cause: Turn,
    well: Turn,
}

fn standby() -> Desk {
    let mut desk = Desk::with(Some(of_another(4, 7).doc()));
    desk.listed(elsewhere());
    desk
}

fn holder() -> Desk {
    let mut desk = Desk::holding();
    desk.listed(here());
    desk
}

/// Two other nodes are heard, the other holder renews, every write is done and every look shows the IP here.
fn well(desk: &mut Desk) {
    company(desk, |_| ());
    all_but_company(desk);
}

fn all_but_company(desk: &mut Desk) {
    renewed(desk, |_| ());
    desk.writes();
    if desk.lies_open(looks) {
        desk.listed(here());
    }
}

/// The other nodes say this of themselves.
fn company(desk: &mut Desk, change: fn(&mut PeerRecord)) {
    for number in [1, 2] {
        let mut record = PeerRecord { counter: desk.now.0, ..word(number, "n") };
        change(&mut record);
        desk.hear_of(number, record.doc(&node(number)));
    }
}

/// The node that holds the Lease, if this is not the one, renews it like this.
fn renewed(desk: &mut Desk, change: fn(&mut Record)) {
    if desk.core.authority(&group()).is_none() {
        let mut record = of_another(4, desk.now.0);
        change(&mut record);
        let lease = Some(desk.stored(record.doc()));
        desk.lease.clone_from(&lease);
        desk.read(lease);
    }
}

/// The Lease as somebody typed it.
fn typed(desk: &mut Desk, change: fn(&mut Doc)) {
    let mut doc = of_another(4, 7).doc();
    change(&mut doc);
    let lease = Some(desk.stored(doc));
    desk.lease.clone_from(&lease);
    desk.read(lease);
}

fn answered(desk: &mut Desk, answer: fn() -> Result<Listing, ProviderFailure>) {
    company(desk, |_| ());
    desk.core.need_observation(desk.now + Span::millis(1));
    desk.writes();
    if desk.lies_open(looks) {
        desk.answered(answer());
    }
}

/// netcup's list has the IP.
fn listed(desk: &mut Desk) {
    answered(desk, || Ok(listing(|_| ())));
}

fn with(desk: &mut Desk, event: Event) {
    desk.hear(event);
    well(desk);
}

const CASES: [Case; 26] = [
    Case {
        code: "link",
        words: "link",
        from: holder,
        cause: |desk| with(desk, Event::Link { up: false, default_route: true }),
        well: |desk| with(desk, Event::Link { up: true, default_route: true }),
    },
    Case {
        code: "no-default-route",
        words: "no default route",
        from: standby,
        cause: |desk| with(desk, Event::Link { up: true, default_route: false }),
        well: |desk| with(desk, Event::Link { up: true, default_route: true }),
    },
    Case {
        code: "not-listed",
        words: "does not list 203.0.113.1",
        from: holder,
        cause: |desk| answered(desk, || Ok(Listing::default())),
        well: listed,
    },
    Case {
        code: "list",
        words: "500 of the IPv4 list",
        from: holder,
        cause: |desk| {
            answered(desk, || {
                let unread = [(ip(), "500 of the IPv4 list".to_owned())].into();
                Ok(Listing { unread, ..Listing::default() })
            });
        },
        well: listed,
    },
    Case {
        code: "list",
        words: "not editable",
        from: standby,
        cause: |desk| {
            answered(desk, || {
                Ok(listing(|listing| listing.fixed = [(ip(), "not editable".into())].into()))
            });
        },
        well: listed,
    },
    Case {
        code: "provider-auth",
        words: "invalid_grant",
        from: holder,
        cause: |desk| answered(desk, || Err(ProviderFailure::Auth("invalid_grant".into()))),
        well: listed,
    },
    Case {
        code: "provider-config",
        words: "no such server",
        from: standby,
        cause: |desk| answered(desk, || Err(ProviderFailure::Config("no such server".into()))),
        well: listed,
    },
    Case {
        code: "provider-lost",
        words: "connection refused",
        from: standby,
        cause: |desk| {
            answered(desk, || {
                Err(ProviderFailure::Retry { why: "connection refused".into(), after: None })
            });
        },
        well: listed,
    },
    Case {
        code: "address",
        words: "IPv6 is off",
        from: standby,
        cause: |desk| with(desk, Event::Carry([(host(), "IPv6 is off".to_owned())].into())),
        well: |desk| with(desk, Event::Carry(BTreeMap::new())),
    },
    Case {
        code: "address",
        words: "203.0.113.1: no such device",
        from: holder,
        cause: |desk| {
            let result = Err(AddressFailure::Refused("no such device".into()));
            with(desk, Event::AddressPut { host: host(), result });
        },
        well: |desk| with(desk, Event::AddressPut { host: host(), result: Ok(()) }),
    },
    Case {
        code: "stranger",
        words: "without foip's tag",
        from: holder,
        cause: |desk| with(desk, Event::Addresses(vec![SeenAddress { host: host(), ours: false }])),
        well: |desk| with(desk, Event::Addresses(vec![SeenAddress { host: host(), ours: true }])),
    },
    Case {
        code: "api-write",
        words: "cannot be written: 500",
        from: holder,
        cause: |desk| {
            company(desk, |_| ());
            while desk.lies_open(|it| matches!(it, Action::Write { key: Key::Group(_), .. })) {
                desk.written(&key(), Err(ApiFailure::Refused("500".into())));
            }
        },
        well,
    },
    Case {
        code: "api-read",
        words: "the Lease foip-ledger",
        from: standby,
        cause: |desk| {
            desk.refuses = |it| matches!(it, Action::Read { key: Key::Ledger, .. });
            desk.core.slots.get_mut(&Key::Ledger).unwrap().wanted = true;
            well(desk);
        },
        well: |desk| {
            desk.refuses = |_| false;
            well(desk);
        },
    },
    Case {
        code: "api-list",
        words: "cannot be listed: 500 etcdserver",
        from: standby,
        cause: |desk| {
            desk.refuses = |it| matches!(it, Action::List { .. });
            desk.core.reads.list_wanted = true;
            well(desk);
        },
        well: |desk| {
            desk.refuses = |_| false;
            desk.core.reads.list_wanted = true;
            well(desk);
        },
    },
    Case {
        code: "differs",
        words: "the holder has another account",
        from: standby,
        cause: |desk| {
            company(desk, |_| ());
            renewed(desk, |record| {
                let membership = record.membership.clone();
                record.membership = Membership { account: "200000".into(), ..membership };
            });
        },
        well,
    },
    Case {
        code: "lease-edited",
        words: "somebody changed the Lease foip-g0",
        from: standby,
        cause: |desk| typed(desk, |doc| doc.holder = None),
        well,
    },
    Case {
        code: "epoch-forged",
        words: "epoch 1999999999",
        from: standby,
        cause: |desk| {
            let lease = Some(desk.stored(of_another(1_999_999_999, 1).doc()));
            desk.read(lease);
        },
        well,
    },
    Case {
        code: "ledger-unreadable",
        words: "cannot be read",
        from: standby,
        cause: |desk| {
            let mut doc = Ledger::default().doc();
            doc.notes.values_mut().for_each(|note| *note = "nonsense".into());
            desk.ledger = Some(desk.stored(doc));
            desk.core.slots.get_mut(&Key::Ledger).unwrap().wanted = true;
            company(desk, |_| ());
            renewed(desk, |_| ());
        },
        well: |desk| {
            desk.ledger = Some(desk.stored(Ledger::default().doc()));
            desk.core.slots.get_mut(&Key::Ledger).unwrap().wanted = true;
            well(desk);
        },
    },
    Case {
        code: "renamed",
        words: "k3s calls this node node-07",
        from: standby,
        cause: |desk| with(desk, Event::Renamed(Some(node(7)))),
        well: |desk| with(desk, Event::Renamed(None)),
    },
    Case {
        code: "no-node",
        words: "no Node object",
        from: standby,
        cause: |desk| {
            desk.core.access.ask(Ticket(u64::MAX), desk.now);
            with(desk, Event::Node { ticket: Ticket(u64::MAX), result: Ok(None) });
        },
        well: |desk| with(desk, Event::NodeWatched(NodeFacts::default())),
    },
    Case {
        code: "node-address",
        words: "contain the failover IP 203.0.113.1",
        from: standby,
        cause: |desk| {
            let addresses = BTreeSet::from([host()]);
            with(desk, Event::NodeWatched(NodeFacts { addresses, ..NodeFacts::default() }));
        },
        well: |desk| with(desk, Event::NodeWatched(NodeFacts::default())),
    },
    Case {
        code: "kubeconfig",
        words: "cut off",
        from: standby,
        cause: |desk| with(desk, Event::Trouble(Trouble::Kubeconfig, Some("cut off".into()))),
        well: |desk| with(desk, Event::Trouble(Trouble::Kubeconfig, None)),
    },
    Case {
        code: "alone",
        words: "no other node runs foip",
        from: standby,
        cause: all_but_company,
        well,
    },
    Case {
        code: "two-nodes",
        words: "two nodes run foip",
        from: standby,
        cause: |desk| {
            let record = PeerRecord { counter: desk.now.0, ..word(1, "n") };
            desk.hear_of(1, record.doc(&node(1)));
            all_but_company(desk);
        },
        well,
    },
    Case {
        code: "no-successor",
        words: "node-01: 401; node-02: 401",
        from: holder,
        cause: |desk| {
            company(desk, |record| record.lacks.provider = Some("401".into()));
            all_but_company(desk);
        },
        well,
    },
    Case {
        code: "split",
        words: "is in group web",
        from: standby,
        cause: |desk| {
            company(desk, |record| {
                let groups = BTreeMap::from([("web".parse().unwrap(), ip().to_string())]);
                record.groups = groups.into();
            });
            all_but_company(desk);
        },
        well,
    },
];

fn listing(change: fn(&mut Listing)) -> Listing {
    let mut listing = Listing { routes: [(ip(), here().unwrap())].into(), ..Listing::default() };
    change(&mut listing);
    listing
}

/// Lives on like this until the alarm is said, or is over; whether that is soon.
fn until(desk: &mut Desk, turn: Turn, code: &str, said: bool) -> bool {
    let from = desk.now;
    // The first half minute says nothing about who is there.
    let limit = if from < Tick(5000) { SOON.times(2) } else { SOON };
    while desk.said(code) != said && desk.now.since(from) <= limit {
        desk.pass(Span::millis(100));
        turn(desk);
    }
    desk.said(code) == said
}

impl Case {
    fn judge(&self) -> Result<(), String> {
        let mut desk = (self.from)();
        if desk.said(self.code) {
            return Err("it is said before its cause".to_owned());
        }
        if !until(&mut desk, self.cause, self.code, true) {
            return Err(format!("it is not said: {:?}", desk.core.raised));
        }
        let said = desk.core.raised[self.code].clone();
        if !said.contains(self.words) {
            return Err(format!("other words: {said}"));
        }
        let end = desk.now + SOON.times(3);
        while desk.now < end {
            desk.pass(Span::millis(100));
            (self.cause)(&mut desk);
            if !desk.said(self.code) {
                return Err(format!("it is over before its cause, at {:?}", desk.now));
            }
        }
        match until(&mut desk, self.well, self.code, false) {
            true => Ok(()),
            false => Err(format!("it does not end: {:?}", desk.core.raised)),
        }
    }
}

#[test]
fn an_alarm_is_said_while_its_cause_lasts_and_ends_with_it() {
    let judged = CASES.iter().map(|case| (case.code, case.judge()));
    let failed: Vec<_> = judged.filter(|(_, judged)| judged.is_err()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn who_lacks_nothing_says_nothing() {
    for from in [standby, holder] {
        let mut desk = from();
        let end = desk.now + SOON.times(4);
        while desk.now < end {
            desk.pass(Span::millis(100));
            well(&mut desk);
            assert!(desk.core.raised.is_empty(), "{:?}", desk.core.raised);
        }
    }
}

/// One 429 that names no moment, with room by the ledger, and a window that is full.
#[test]
fn a_budget_that_is_spent_is_said_with_who_spends_it() {
    for (count, ending, words) in
        [(1, Ending::Throttled, "somebody else spends"), (10, Ending::Done, "limit of route calls")]
    {
        let mut desk = standby();
        let at = time(desk.now);
        desk.ledger_shows((0..count).map(|n| call(&format!("node-01/1-1/{n}"), at, Some(ending))));
        for (minutes, said) in [(4, true), (2, false)] {
            let end = desk.now + Span::secs(60 * minutes);
            while desk.now < end {
                desk.pass(Span::millis(500));
                well(&mut desk);
            }
            assert_eq!(desk.said("budget"), said, "{ending:?} {:?}", desk.core.raised);
            if said {
                assert!(desk.core.raised["budget"].contains(words), "{:?}", desk.core.raised);
            }
        }
    }
}
