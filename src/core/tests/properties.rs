//! One property for each invariant: random disturbances of a small cluster, read off the record of the run.
//!
//! The search in depth is the simulation's; these runs are short, so that a failing one shrinks to a few lines.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::cluster::{Cluster, Entry, What};
use super::given::{Fault, Mood, config, node, server};
use crate::core::action::Action;
use crate::core::event::{Event, Ticket};
use crate::core::facts::{Doc, Key, Listing, Routed};
use crate::core::ledger::Ledger;
use crate::core::note::Note;
use crate::core::record::Record;
use crate::types::{Epoch, FailoverIp, Span, Tick};

const NODES: usize = 3;

/// What happens, and for how long the cluster then runs.
type Plan = Vec<(Fault, Span)>;

fn fault() -> impl Strategy<Value = Fault> {
    let mood = prop_oneof![
        Just(Mood::Well),
        Just(Mood::TasksFail),
        Just(Mood::AnswersLost),
        Just(Mood::Refuses),
        Just(Mood::Throttles)
    ];
    prop_oneof![
        (0..NODES).prop_map(Fault::Kill),
        (0..NODES).prop_map(Fault::Boot),
        (0..NODES).prop_map(Fault::Stop),
        (0..NODES).prop_map(Fault::Cordon),
        (0..NODES).prop_map(Fault::Uncordon),
        (0..NODES, 1..25_u64).prop_map(|(node, long)| Fault::Pause(node, Span::secs(long))),
        (0..NODES, any::<bool>()).prop_map(|(node, on)| Fault::Api(node, on)),
        (0..NODES, any::<bool>()).prop_map(|(node, on)| Fault::Watch(node, on)),
        (0..NODES, any::<bool>()).prop_map(|(node, on)| Fault::Provider(node, on)),
        any::<bool>().prop_map(Fault::LateWrites),
        mood.prop_map(Fault::Mood),
        prop::option::of(0..=NODES).prop_map(Fault::Reroute),
        Just(Fault::EmptyHolder),
        Just(Fault::DeleteLease),
        Just(Fault::DeleteLedger),
        Just(Fault::Snapshot),
        Just(Fault::Restore),
        (0..NODES).prop_map(Fault::Stranger),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec((fault(), (0..20_000_u64).prop_map(Span)), 0..7)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A cluster with one group of `ips`, after the plan.
fn played(ips: usize, plan: &Plan) -> Cluster {
    let mut cluster = Cluster::started(NODES, config(1, ips), Span::secs(20));
    for (fault, long) in plan {
        cluster.suffer(*fault);
        cluster.run(*long);
    }
    cluster
}

/// Runs on until `done`, at most so long.
fn runs_until(cluster: &mut Cluster, most: Span, done: fn(&Cluster) -> bool) -> bool {
    let end = cluster.now + most;
    while !done(cluster) && cluster.now < end {
        cluster.run(Span::secs(5));
    }
    done(cluster)
}

fn key() -> Key {
    Key::Group("g0".parse().unwrap())
}

fn lease(doc: &Doc) -> Record {
    Record::parse(doc)
}

/// The end of a process's authority, as last noted.
fn authority_before(log: &[Entry], node: usize, process: u32) -> Option<(Epoch, Tick)> {
    log.iter().rev().filter(|entry| (entry.node, entry.process) == (node, process)).find_map(
        |entry| match &entry.what {
            What::Did(Action::Note(Note::Authority { epoch, until, .. })) => {
                Some(until.map(|until| (*epoch, until)))
            }
            What::Did(_) | What::Heard(_) | What::Died => None,
        },
    )?
}

/// The route calls of a run: where in the record, and what.
fn route_calls(log: &[Entry]) -> impl Iterator<Item = (usize, &Entry, Epoch, FailoverIp, &Action)> {
    log.iter().enumerate().filter_map(|(index, entry)| match &entry.what {
        What::Did(action @ Action::Route { epoch, ip, .. }) => {
            Some((index, entry, *epoch, *ip, action))
        }
        What::Did(_) | What::Heard(_) | What::Died => None,
    })
}

/// The Lease writes of a run: where in the record, ticket and content.
fn lease_writes(log: &[Entry]) -> impl Iterator<Item = (usize, &Entry, Ticket, Record)> {
    log.iter().enumerate().filter_map(|(index, entry)| match &entry.what {
        What::Did(Action::Write { ticket, key: Key::Group(_), doc, .. }) => {
            Some((index, entry, *ticket, lease(doc)))
        }
        What::Did(_) | What::Heard(_) | What::Died => None,
    })
}

/// When the answer with this ticket came to the process, if it was a success.
fn answered(log: &[Entry], by: &Entry, wanted: Ticket) -> Option<Tick> {
    let theirs = log.iter().filter(|entry| (entry.node, entry.process) == (by.node, by.process));
    theirs.into_iter().find_map(|entry| match &entry.what {
        What::Heard(
            Event::Written { ticket, result: Ok(_), .. }
            | Event::Routes { ticket, result: Ok(_), .. },
        ) if *ticket == wanted => Some(entry.at),
        What::Did(_) | What::Heard(_) | What::Died => None,
    })
}

/// The freshest answer of the provider that the process had heard: when asked, and what it said.
fn observed<'a>(log: &'a [Entry], by: &Entry) -> Option<(Tick, &'a Listing)> {
    let mut asked = BTreeMap::new();
    let mut freshest: Option<(Tick, &Listing)> = None;
    for entry in log.iter().filter(|entry| (entry.node, entry.process) == (by.node, by.process)) {
        match &entry.what {
            What::Did(Action::ReadRoutes { ticket }) => _ = asked.insert(*ticket, entry.at),
            What::Heard(Event::Routes { ticket, result: Ok(listing), .. }) => {
                let at = asked.get(ticket).copied().unwrap_or_default();
                freshest = freshest.filter(|(before, _)| *before > at).or(Some((at, listing)));
            }
            What::Did(_) | What::Heard(_) | What::Died => {}
        }
    }
    freshest
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn i1_at_most_one_node_has_authority(plan in plan()) {
        let cluster = played(1, &plan);
        let mut ends: BTreeMap<usize, Tick> = BTreeMap::new();
        for entry in &cluster.log {
            match &entry.what {
                What::Died => _ = ends.remove(&entry.node),
                What::Did(Action::Note(Note::Authority { until, .. })) => {
                    ends.insert(entry.node, until.unwrap_or_default());
                    let holders = ends.values().filter(|until| entry.at < **until).count();
                    prop_assert!(holders <= 1, "{} at {:?}: {:?}", entry.node, entry.at, ends);
                }
                What::Did(_) | What::Heard(_) => {}
            }
        }
    }

    #[test]
    fn i2_a_call_follows_its_intent_and_a_renewal_after_that(plan in plan()) {
        let cluster = played(2, &plan);
        for (index, call, epoch, ip, action) in route_calls(&cluster.log) {
            let before = &cluster.log[..index];
            let authority = authority_before(before, call.node, call.process);
            prop_assert!(authority.is_some_and(|(term, until)| term == epoch && call.at < until));
            let intent = before.iter().rev().find_map(|entry| match &entry.what {
                What::Did(Action::Write { ticket, key: Key::Ledger, doc, .. })
                    if (entry.node, entry.process) == (call.node, call.process) =>
                {
                    let calls = Ledger::parse(doc)?;
                    let named = calls.calls().any(|call| {
                        (call.epoch, call.ip, call.end) == (epoch, ip, None)
                    });
                    let at = answered(before, entry, *ticket).filter(|_| named)?;
                    Some((entry.at, at))
                }
                What::Did(_) | What::Heard(_) | What::Died => None,
            });
            prop_assert!(intent.is_some(), "no intent for {action:?} at {:?}", call.at);
            let (sent, known) = intent.unwrap_or_default();
            prop_assert!(call.at.since(sent) < Span::secs(5));
            let renewed = lease_writes(before).any(|(_, entry, ticket, _)| {
                (entry.node, entry.process) == (call.node, call.process)
                    && entry.at >= known
                    && answered(before, entry, ticket).is_some()
            });
            prop_assert!(renewed, "no renewal between the intent and the call at {:?}", call.at);
        }
    }

    #[test]
    fn i4_a_call_rests_on_a_fresh_answer_that_it_is_elsewhere(plan in plan()) {
        let cluster = played(2, &plan);
        for (index, call, _, ip, action) in route_calls(&cluster.log) {
            let seen = observed(&cluster.log[..index], call);
            prop_assert!(seen.is_some(), "a call on no answer: {action:?}");
            let Some((asked, listing)) = seen else { continue };
            prop_assert!(call.at.since(asked) <= Span::secs(5));
            let Action::Route { to, .. } = action else { continue };
            prop_assert_ne!(listing.routes.get(&ip), Some(&Routed::To(to.name.clone())));
            let term = lease_writes(&cluster.log[..index]).filter(|(_, entry, ..)| {
                (entry.node, entry.process) == (call.node, call.process)
            });
            let first = term.filter(|(.., record)| record.renewal == 0).last();
            let began = first.and_then(|(_, entry, ticket, _)| {
                answered(&cluster.log[..index], entry, ticket)
            });
            prop_assert!(began.is_none_or(|began| asked >= began), "asked before the term began");
        }
    }

    #[test]
    fn i6_nothing_is_announced_without_authority_and_here(plan in plan()) {
        let cluster = played(1, &plan);
        for (index, entry) in cluster.log.iter().enumerate() {
            let What::Did(Action::Announce { host }) = &entry.what else { continue };
            let before = &cluster.log[..index];
            let here = Routed::To(server(entry.node).name);
            let seen = observed(before, entry);
            let said = seen.is_some_and(|(_, listing)| {
                listing.routes.iter().any(|(ip, to)| ip.covers(*host) && *to == here)
            });
            prop_assert!(said, "announced at {:?} what is not here", entry.at);
            let until = authority_before(&cluster.log[..=index], entry.node, entry.process);
            let until = until.or_else(|| {
                authority_before(&cluster.log[..(index + 20).min(cluster.log.len())], entry.node, entry.process)
            });
            prop_assert!(until.is_some_and(|(_, until)| entry.at < until), "at {:?}", entry.at);
        }
    }

    #[test]
    fn i8_a_strangers_address_is_not_touched(plan in plan(), who in 0..NODES) {
        let mut cluster = Cluster::new(NODES, config(1, 2));
        (0..NODES).for_each(|node| cluster.suffer(Fault::Stranger((who + node) % NODES)));
        (0..NODES).for_each(|node| cluster.boot(node));
        for (fault, long) in &plan {
            cluster.run(*long);
            cluster.suffer(*fault);
        }
        for entry in &cluster.log {
            let touched = match &entry.what {
                What::Did(Action::PutAddress { .. } | Action::RemoveAddress { .. }) => true,
                What::Did(_) | What::Heard(_) | What::Died => false,
            };
            prop_assert!(!touched, "{entry:?}");
        }
    }

    #[test]
    fn i10_a_lease_is_given_to_somebody_or_expires(plan in plan()) {
        let cluster = played(1, &plan);
        for (index, entry, _, record) in lease_writes(&cluster.log) {
            let me = node(entry.node);
            prop_assert!(record.intact && record.holder.is_some(), "{record:?}");
            prop_assert!(record.duration >= Span::secs(10), "shortened: {record:?}");
            if record.holder.as_ref() == Some(&me) {
                continue;
            }
            prop_assert!(record.handed, "{record:?}");
            let had = lease_writes(&cluster.log[..index]).any(|(_, before, ..)| {
                (before.node, before.process) == (entry.node, entry.process)
            });
            prop_assert!(had, "given away by one who never had it: {record:?}");
        }
    }

    #[test]
    fn i12_requests_are_bounded_and_writes_of_one_object_apart(plan in plan()) {
        let mut cluster = played(1, &plan);
        cluster.run(Span::secs(30));
        let mut written: BTreeMap<(usize, u32, Key), Tick> = BTreeMap::new();
        let mut asked: BTreeMap<(usize, u32, u64), (u32, u32)> = BTreeMap::new();
        for entry in &cluster.log {
            let minute = asked.entry((entry.node, entry.process, entry.at.0 / 60_000)).or_default();
            match &entry.what {
                What::Did(Action::Write { key, .. }) => {
                    minute.0 += 1;
                    let last = written.insert((entry.node, entry.process, key.clone()), entry.at);
                    prop_assert!(last.is_none_or(|at| entry.at.since(at) >= Span::millis(200)));
                }
                What::Did(Action::Read { .. } | Action::List { .. } | Action::ReadNode { .. }) => {
                    minute.0 += 1;
                }
                What::Did(Action::ReadRoutes { .. } | Action::ReadTask { .. }) => minute.1 += 1,
                What::Did(_) | What::Heard(_) | What::Died => {}
            }
        }
        let most = asked.values().fold((0, 0), |most, it| (most.0.max(it.0), most.1.max(it.1)));
        prop_assert!(most.0 <= 600 && most.1 <= 150, "{most:?} requests in a minute");
    }

    #[test]
    fn i13_epochs_never_go_back(plan in plan()) {
        let cluster = played(1, &plan);
        let mut known: BTreeMap<usize, Epoch> = BTreeMap::new();
        let mut saved_last: BTreeMap<usize, Epoch> = BTreeMap::new();
        for entry in &cluster.log {
            let highest = known.entry(entry.node).or_default();
            match &entry.what {
                What::Did(Action::Write { key: Key::Group(_), doc, .. }) => {
                    let record = lease(doc);
                    prop_assert!(record.epoch >= *highest, "{record:?} after {highest}");
                    *highest = record.epoch;
                }
                What::Did(Action::Route { epoch, .. }) => prop_assert!(epoch >= highest),
                What::Did(Action::Save(saved)) => {
                    let epoch = saved.epochs.values().max().copied().unwrap_or_default();
                    // A write on its way has not been seen: what is saved is what the Lease showed.
                    let before = saved_last.entry(entry.node).or_default();
                    prop_assert!(epoch >= *before, "saved {epoch} after {before}");
                    *before = epoch;
                }
                What::Did(_) | What::Heard(_) | What::Died => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn i3_the_providers_windows_are_kept(plan in plan(), mood in 0..4_usize, down in 0..NODES) {
        let moods = [Mood::TasksFail, Mood::AnswersLost, Mood::Refuses, Mood::Throttles];
        let mut cluster = Cluster::new(NODES, config(1, 6));
        cluster.suffer(Fault::Mood(moods[mood]));
        (0..NODES).for_each(|node| cluster.boot(node));
        for (fault, long) in &plan {
            cluster.run(*long);
            cluster.suffer(*fault);
        }
        for fault in [Fault::Kill(down), Fault::Boot(down)] {
            cluster.suffer(fault);
            cluster.run(Span::secs(240));
        }
        let calls = cluster.calls();
        for (window, most) in [(Span::secs(300), 10), (Span::secs(3600), 20)] {
            let close = calls.windows(most + 1).find(|calls| calls[most].since(calls[0]) < window);
            prop_assert!(close.is_none(), "{} calls: {close:?}", most + 1);
        }
    }

    #[test]
    fn i5_only_the_one_that_it_is_routed_to_has_the_address(plan in plan()) {
        let mut cluster = played(1, &plan);
        cluster.heal();
        cluster.run(Span::secs(20));
        for _ in 0..8 {
            let routes = cluster.routes.clone();
            cluster.run(Span::secs(75));
            let hosts = config(1, 1).groups.into_values().flat_map(|group| group.ips);
            for (ip, hosts) in hosts.filter(|(ip, _)| cluster.routes.get(ip) == routes.get(ip)) {
                for number in (0..NODES).filter(|number| cluster.has(*number, *hosts.first().unwrap())) {
                    let here = routes.get(&ip) == Some(&Routed::To(server(number).name));
                    let last = cluster.log.iter().rev().find(|entry| entry.node == number);
                    let process = last.map_or(0, |entry| entry.process);
                    let term = authority_before(&cluster.log, number, process);
                    prop_assert!(here || term.is_some(), "node {number} has {ip}: {routes:?}");
                }
            }
        }
    }

    #[test]
    fn i7_lock_route_and_address_meet(plan in plan()) {
        let mut cluster = played(2, &plan);
        cluster.heal();
        // The budget and the back-off after failures may have to be waited for.
        let met = runs_until(&mut cluster, Span::secs(4500), Cluster::converged);
        prop_assert!(met, "{:?}, {:?}", cluster.routes, cluster.object(&key()));
    }

    #[test]
    fn i9_a_crash_anywhere_ends_where_no_crash_ends(at in 0..12_000_u64, down in 0..5000_u64) {
        let mut cluster = Cluster::new(1, config(1, 2));
        cluster.boot(0);
        cluster.run(Span(at));
        cluster.suffer(Fault::Kill(0));
        cluster.run(Span(down));
        cluster.boot(0);
        cluster.run(Span::secs(90));
        let here = Routed::To(server(0).name);
        prop_assert!(cluster.routes.values().all(|to| *to == here), "{:?}", cluster.routes);
        let holder = cluster.object(&key()).and_then(|stored| stored.doc.holder.clone());
        prop_assert_eq!(holder, Some(node(0).to_string()));
        // One for each IP, and one more for a call whose end the crash hid.
        prop_assert!(cluster.calls().len() <= 4, "{:?}", cluster.calls());
    }

    #[test]
    fn i11_silence_changes_nothing(api in any::<bool>(), provider in any::<bool>(), long in 1..900_u64) {
        let mut cluster = Cluster::started(NODES, config(1, 2), Span::secs(60));
        let begun = cluster.log.len();
        for on in [false, true] {
            for node in 0..NODES {
                cluster.suffer(Fault::Api(node, on || !api));
                cluster.suffer(Fault::Provider(node, on || !provider));
            }
            cluster.run(Span::secs(long));
        }
        cluster.run(Span::secs(60));
        for entry in &cluster.log[begun..] {
            let gone = match &entry.what {
                What::Did(Action::RemoveAddress { .. } | Action::Route { .. }) => true,
                What::Did(Action::Write { key: Key::Group(_), doc, .. }) => {
                    lease(doc).holder != cluster.object(&key()).map(|it| lease(&it.doc)).and_then(|it| it.holder)
                }
                What::Did(_) | What::Heard(_) | What::Died => false,
            };
            prop_assert!(!gone, "{entry:?}");
        }
        prop_assert!(cluster.converged());
    }
}
