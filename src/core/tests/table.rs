//! The transition table as a test: every situation of the lock and of a route with every event.
//!
//! A cell says what the core does at once and within the next 260 ms, while nothing else is answered:
//!
//! | word | means |
//! | --- | --- |
//! | take N, renew N | writes the Lease as the first, a further one of term N |
//! | hold, cease | notes that it has authority (until another moment), or none any more |
//! | read, look | reads the Lease; asks the provider where the IP is routed |
//! | intend, write X | enters an intent into the ledger; enters that a call ended with X |
//!
//! A pair of situation and event that is not in a table, or is there twice, fails.

use std::collections::BTreeMap;

use super::desk::{Desk, key, of_another};
use super::given::{config, node, server};
use crate::core::action::Action;
use crate::core::event::Event;
use crate::core::facts::{
    ApiFailure, Key, ProviderFailure, RouteOutcome, Routed, TaskId, TaskState,
};
use crate::core::record::Record;
use crate::types::Span;

type Situations = &'static [(&'static str, fn() -> Desk)];
type Events = &'static [(&'static str, fn(&mut Desk))];

const LOCK: Situations = &[
    ("nothing read", Desk::new),
    ("missing", || Desk::with(None)),
    ("of another, live", live),
    ("of another, expired", || {
        let mut desk = live();
        desk.pass_until(writes_lease);
        desk
    }),
    ("handed to us", || {
        let given = Record { holder: Some(node(0)), handed: true, ..of_another(4, 7) };
        Desk::with(Some(given.doc()))
    }),
    ("of our identity", || {
        let mut ours = Record { holder: Some(node(0)), ..of_another(4, 7) };
        ours.by.host = "host-0".into();
        Desk::with(Some(ours.doc()))
    }),
    ("edited", || {
        let mut desk = live();
        edit(&mut desk);
        desk
    }),
    ("of an older epoch", || {
        let mut desk = live();
        let older = desk.stored(of_another(3, 9).doc());
        desk.lease = Some(older.clone());
        desk.read(Some(older));
        desk
    }),
    ("in authority", Desk::holding),
    ("renewing", renewing),
    ("in authority, a newer epoch of another", || {
        let mut desk = Desk::holding();
        let newer = desk.stored(of_another(8, 1).doc());
        desk.lease = Some(newer.clone());
        desk.hear(Event::Watched { key: key(), stored: Some(newer) });
        desk
    }),
    ("authority lapsed", || {
        let mut desk = renewing();
        desk.pass(Span::secs(9));
        desk
    }),
    ("stopping", || {
        let mut desk = Desk::holding();
        desk.pass(Span::millis(300));
        desk.hear(Event::Stop);
        desk
    }),
];

const LOCK_EVENTS: Events = &[
    ("read same", |desk| {
        let lease = desk.lease.clone();
        desk.read(lease);
    }),
    ("read missing", |desk| desk.read(None)),
    ("read newer", |desk| {
        let newer = desk.stored(of_another(9, 1).doc());
        desk.read(Some(newer));
    }),
    ("read older", |desk| {
        let older = desk.stored(of_another(2, 1).doc());
        desk.read(Some(older));
    }),
    ("read handed", |desk| {
        let given = Record { holder: Some(node(0)), handed: true, ..of_another(9, 1) };
        let given = desk.stored(given.doc());
        desk.read(Some(given));
    }),
    ("read edited", edit),
    ("watch newer", |desk| {
        let newer = desk.stored(of_another(9, 1).doc());
        desk.hear(Event::Watched { key: key(), stored: Some(newer) });
    }),
    ("watch older", |desk| {
        let older = desk.stored(of_another(2, 1).doc());
        desk.hear(Event::Watched { key: key(), stored: Some(older) });
    }),
    ("watch missing", |desk| desk.hear(Event::Watched { key: key(), stored: None })),
    ("written", |desk| _ = desk.written(&key(), Ok(()))),
    ("conflict", |desk| _ = desk.written(&key(), Err(ApiFailure::Conflict))),
    ("write unknown", |desk| _ = desk.written(&key(), Err(unknown()))),
    ("write denied", |desk| _ = desk.written(&key(), Err(ApiFailure::Denied("no".into())))),
    ("wake", wake),
    ("here", |desk| desk.listed(Ok(Routed::To(server(0).name)))),
    ("elsewhere", |desk| desk.listed(Ok(Routed::To(server(1).name)))),
    ("nowhere", |desk| desk.listed(Ok(Routed::Nowhere))),
    ("provider fails", |desk| desk.listed(Err(retry()))),
    ("stop", |desk| desk.hear(Event::Stop)),
    ("reload", |desk| desk.hear(Event::Reload(Box::new(config(1, 2))))),
];

const ROUTE: Situations = &[
    ("settled, here", || {
        let mut desk = Desk::holding();
        desk.listed(Ok(Routed::To(server(0).name)));
        desk.hold_until(looks);
        desk
    }),
    ("settled, not known", Desk::holding),
    ("intending", intending),
    ("renewing", renewing_for_call),
    ("calling", calling),
    ("following", following),
    ("verifying", || {
        let mut desk = following();
        desk.task(Ok(TaskState::Done));
        desk.pass_until(looks);
        desk
    }),
];

const ROUTE_EVENTS: Events = &[
    ("wake", wake),
    ("here", |desk| desk.listed(Ok(Routed::To(server(0).name)))),
    ("elsewhere", |desk| desk.listed(Ok(Routed::To(server(1).name)))),
    ("nowhere", |desk| desk.listed(Ok(Routed::Nowhere))),
    ("provider fails", |desk| desk.listed(Err(retry()))),
    ("login refused", |desk| desk.listed(Err(ProviderFailure::Auth("no".into())))),
    ("intent written", |desk| _ = desk.written(&Key::Ledger, Ok(()))),
    ("intent conflicts", |desk| _ = desk.written(&Key::Ledger, Err(ApiFailure::Conflict))),
    ("intent unknown", |desk| _ = desk.written(&Key::Ledger, Err(unknown()))),
    ("renewed", |desk| _ = desk.written(&key(), Ok(()))),
    ("renewal conflicts", |desk| _ = desk.written(&key(), Err(ApiFailure::Conflict))),
    ("renewal unknown", |desk| _ = desk.written(&key(), Err(unknown()))),
    ("lease taken", |desk| {
        let newer = desk.stored(of_another(9, 1).doc());
        desk.hear(Event::Watched { key: key(), stored: Some(newer) });
    }),
    ("accepted", |desk| desk.called(RouteOutcome::Accepted(TaskId("1".into())))),
    ("done", |desk| desk.called(RouteOutcome::Done)),
    ("not sent", |desk| desk.called(RouteOutcome::NotSent("late".into()))),
    ("refused", |desk| desk.called(RouteOutcome::Refused(retry()))),
    ("throttled", |desk| {
        let failure = ProviderFailure::Budget { why: "429".into(), after: None };
        desk.called(RouteOutcome::Refused(failure));
    }),
    ("call: login refused", |desk| {
        desk.called(RouteOutcome::Refused(ProviderFailure::Auth("no".into())));
    }),
    ("call: other site", |desk| {
        desk.called(RouteOutcome::Refused(ProviderFailure::Config("no".into())));
    }),
    ("call unknown", |desk| desk.called(RouteOutcome::Unknown("no answer".into()))),
    ("task runs", |desk| desk.task(Ok(TaskState::Running))),
    ("task done", |desk| desk.task(Ok(TaskState::Done))),
    ("task failed", |desk| desk.task(Ok(TaskState::Failed("no".into())))),
    ("task gone", |desk| desk.task(Ok(TaskState::NotFound))),
    ("task unknown", |desk| desk.task(Err(retry()))),
    ("stopped for 6 s", |desk| {
        desk.now += Span::secs(6);
        desk.hear(Event::Wake);
    }),
    ("stop", |desk| desk.hear(Event::Stop)),
    ("reload", |desk| desk.hear(Event::Reload(Box::new(config(1, 2))))),
];

fn live() -> Desk {
    Desk::with(Some(of_another(4, 7).doc()))
}

fn edit(desk: &mut Desk) {
    let mut doc = of_another(4, 7).doc();
    doc.holder = None;
    let edited = desk.stored(doc);
    desk.lease = Some(edited.clone());
    desk.read(Some(edited));
}

fn writes_lease(action: &Action) -> bool {
    matches!(action, Action::Write { key: Key::Group(_), .. })
}

fn writes_ledger(action: &Action) -> bool {
    matches!(action, Action::Write { key: Key::Ledger, .. })
}

fn looks(action: &Action) -> bool {
    matches!(action, Action::ReadRoutes { .. })
}

fn renewing() -> Desk {
    let mut desk = Desk::holding();
    desk.pass_until(writes_lease);
    desk
}

fn intending() -> Desk {
    let mut desk = Desk::holding();
    desk.listed(Ok(Routed::To(server(1).name)));
    desk.pass_until(writes_ledger);
    desk
}

fn renewing_for_call() -> Desk {
    let mut desk = intending();
    assert!(desk.written(&Key::Ledger, Ok(())));
    desk.pass_until(writes_lease);
    desk
}

fn calling() -> Desk {
    let mut desk = renewing_for_call();
    assert!(desk.written(&key(), Ok(())));
    desk.pass_until(|action| matches!(action, Action::Route { .. }));
    desk
}

fn following() -> Desk {
    let mut desk = calling();
    desk.called(RouteOutcome::Accepted(TaskId("1".into())));
    desk.pass_until(writes_ledger);
    assert!(desk.written(&Key::Ledger, Ok(())));
    desk.pass_until(|action| matches!(action, Action::ReadTask { .. }));
    desk
}

fn wake(desk: &mut Desk) {
    desk.wake_to_act();
}

fn unknown() -> ApiFailure {
    ApiFailure::Unknown("no answer".into())
}

fn retry() -> ProviderFailure {
    ProviderFailure::Retry { why: "no answer".into(), after: None }
}

/// Compares the table (`situation`, then lines of `reaction: event; event`) with what the core does.
fn judge(table: &str, situations: Situations, events: Events) {
    let mut expected: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut situation = "";
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let Some(cells) = line.strip_prefix("  ") else {
            situation = line.trim();
            continue;
        };
        let (reaction, heard) = cells.split_once(" <- ").unwrap();
        for event in heard.split(';') {
            let twice = expected.insert((situation, event.trim()), reaction.trim());
            assert!(twice.is_none(), "{situation} / {event} is listed twice");
        }
    }
    let (mut actual, mut wrong) = (String::new(), Vec::new());
    for (situation, make) in situations {
        let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
        for (event, happens) in events {
            let reaction = make().reaction(happens);
            let listed = expected.remove(&(*situation, *event));
            if listed != Some(reaction.as_str()) {
                wrong.push(format!("{situation} / {event}: {listed:?}, but does {reaction:?}"));
            }
            match lines.iter_mut().find(|(known, _)| *known == reaction) {
                Some((_, heard)) => heard.push(event),
                None => lines.push((reaction, vec![event])),
            }
        }
        actual += &format!("{situation}\n");
        for (reaction, heard) in lines {
            actual += &format!("  {reaction} <- {}\n", heard.join("; "));
        }
    }
    assert!(wrong.is_empty(), "{}\nthe whole table:\n{actual}", wrong.join("\n"));
    assert!(expected.is_empty(), "no such pairs: {expected:?}");
}

#[test]
fn the_locks_transitions_are_those_of_the_table() {
    judge(LOCK_TABLE, LOCK, LOCK_EVENTS);
}

#[test]
fn the_routes_transitions_are_those_of_the_table() {
    judge(ROUTE_TABLE, ROUTE, ROUTE_EVENTS);
}

const LOCK_TABLE: &str = "
nothing read
  nothing <- read same; read missing; read newer; read older; watch newer; watch older; watch missing; written; conflict; write unknown; write denied; elsewhere; nowhere; provider fails; reload
  take 10 <- read handed
  alarm lease-edited <- read edited
  look <- wake
  put <- here
  exit <- stop
missing
  nothing <- read same; read missing; read newer; read older; watch newer; watch older; watch missing; written; conflict; write unknown; write denied; elsewhere; nowhere; provider fails; stop; reload
  take 10 <- read handed
  alarm lease-edited <- read edited
  read <- wake
  put <- here
of another, live
  nothing <- read same; read missing; read newer; read older; watch newer; watch older; written; conflict; write unknown; write denied; elsewhere; nowhere; provider fails; stop
  take 10 <- read handed
  alarm lease-edited <- read edited
  read <- watch missing; wake
  put <- here
  alarm differs <- reload
of another, expired
  read <- read same; read missing; read older; read edited; watch older; watch missing; conflict; write unknown; wake; elsewhere; nowhere; provider fails; stop
  nothing <- read newer; read handed; watch newer
  put, hold <- written
  alarm api-denied, read <- write denied
  put, read <- here
  alarm differs, read <- reload
handed to us
  nothing <- read same; read newer; read older; read handed; watch newer; watch older; elsewhere; nowhere; provider fails; stop
  read <- read missing; read edited; watch missing; conflict; write unknown; wake
  put, hold <- written
  alarm api-denied <- write denied
  put <- here
  alarm differs <- reload
of our identity
  nothing <- read same; read missing; read newer; read older; watch newer; watch older; written; conflict; write unknown; write denied; elsewhere; nowhere; provider fails; stop; reload
  take 10 <- read handed
  alarm lease-edited <- read edited
  read <- watch missing
  take 5 <- wake
  put <- here
edited
  nothing <- read same; read missing; read newer; read older; read edited; watch newer; watch older; written; conflict; write unknown; write denied; elsewhere; nowhere; provider fails; stop; reload
  take 10 <- read handed
  read <- watch missing; wake
  put <- here
of an older epoch
  nothing <- read same; read missing; read newer; read older; watch newer; watch older; written; conflict; write unknown; write denied; elsewhere; nowhere; provider fails; stop; reload
  take 10 <- read handed
  alarm lease-edited <- read edited
  read <- watch missing; wake
  put <- here
in authority
  nothing <- read same; watch older; written; conflict; write unknown; write denied; provider fails
  renew 5 <- read missing; read older; wake
  cease <- read newer; watch newer
  take 10, cease <- read handed
  renew 5, alarm lease-edited <- read edited
  read <- watch missing
  announce <- here
  intend <- elsewhere; nowhere
  linger <- stop
  put, renew 5 <- reload
renewing
  nothing <- read same; read older; watch older; provider fails; stop
  read <- read missing; read edited; watch missing; conflict; write unknown; wake
  cease <- read newer; read handed; watch newer
  hold <- written
  alarm api-denied <- write denied
  announce <- here
  intend <- elsewhere; nowhere
  put <- reload
in authority, a newer epoch of another
  nothing <- read same; read missing; read newer; read older; watch newer; watch older; written; conflict; write unknown; write denied; here; elsewhere; nowhere; provider fails; stop
  take 10 <- read handed
  alarm lease-edited <- read edited
  read <- watch missing; wake
  alarm differs <- reload
authority lapsed
  nothing <- read same; read newer; read older; read handed; watch newer; watch older; here; elsewhere; nowhere; provider fails; stop; reload
  read <- read missing; read edited; watch missing; conflict; write unknown; wake
  take 6 <- written
  alarm api-denied <- write denied
stopping
  nothing <- read same; read older; watch older; here; elsewhere; nowhere; provider fails; stop
  read <- read missing; read edited; watch missing; conflict; write unknown
  cease <- read newer; read handed; watch newer
  hold <- written
  alarm api-denied <- write denied
  read, exit <- wake
  put <- reload
";

const ROUTE_TABLE: &str = "
settled, here
  renew 5 <- wake
  nothing <- here; provider fails; intent written; intent conflicts; intent unknown; renewed; renewal conflicts; renewal unknown; accepted; done; not sent; refused; throttled; call: login refused; call: other site; call unknown; task runs; task done; task failed; task gone; task unknown
  alarm drift <- elsewhere; nowhere
  alarm provider-auth <- login refused
  cease <- lease taken
  put, read, read ledger <- stopped for 6 s
  linger <- stop
  put, renew 5 <- reload
settled, not known
  renew 5 <- wake
  announce <- here
  intend <- elsewhere; nowhere
  nothing <- provider fails; intent written; intent conflicts; intent unknown; renewed; renewal conflicts; renewal unknown; accepted; done; not sent; refused; throttled; call: login refused; call: other site; call unknown; task runs; task done; task failed; task gone; task unknown
  alarm provider-auth <- login refused
  cease <- lease taken
  put, look, read, read ledger <- stopped for 6 s
  linger <- stop
  put, renew 5 <- reload
intending
  renew 5, read <- wake
  nothing <- here; elsewhere; nowhere; provider fails; login refused; renewed; renewal conflicts; renewal unknown; accepted; done; not sent; refused; throttled; call: login refused; call: other site; call unknown; task runs; task done; task failed; task gone; task unknown
  renew 5 <- intent written
  read ledger <- intent conflicts
  read, read ledger <- intent unknown
  cease <- lease taken
  put, read, read ledger <- stopped for 6 s
  linger <- stop
  put, renew 5 <- reload
renewing
  read <- wake; renewal conflicts; renewal unknown
  nothing <- here; elsewhere; nowhere; provider fails; login refused; intent written; intent conflicts; intent unknown; accepted; done; not sent; refused; throttled; call: login refused; call: other site; call unknown; task runs; task done; task failed; task gone; task unknown; stop
  call, hold <- renewed
  cease, write NotSent <- lease taken
  put, read, read ledger <- stopped for 6 s
  put <- reload
calling
  renew 5 <- wake
  nothing <- here; elsewhere; nowhere; provider fails; login refused; intent written; intent conflicts; intent unknown; renewed; renewal conflicts; renewal unknown; task runs; task done; task failed; task gone; task unknown
  cease <- lease taken
  write Accepted, ask task <- accepted
  write Accepted <- done
  write NotSent <- not sent
  alarm call-failed, write Refused <- refused
  alarm budget, write Throttled <- throttled
  alarm call-failed, alarm provider-auth, write Refused <- call: login refused
  alarm call-failed, alarm refused, write Refused <- call: other site
  write Unknown <- call unknown
  put, read, read ledger <- stopped for 6 s
  linger <- stop
  put, renew 5 <- reload
following
  renew 5 <- wake
  nothing <- here; elsewhere; nowhere; provider fails; login refused; intent written; intent conflicts; intent unknown; renewed; renewal conflicts; renewal unknown; accepted; done; not sent; refused; throttled; call: login refused; call: other site; call unknown; task runs; task unknown
  cease <- lease taken
  look <- task done; task gone
  alarm call-failed, write Failed, look <- task failed
  put, read, read ledger <- stopped for 6 s
  linger <- stop
  put, renew 5, look <- reload
verifying
  renew 5 <- wake
  write Done, announce <- here
  nothing <- elsewhere; nowhere; provider fails; intent written; intent conflicts; intent unknown; renewed; renewal conflicts; renewal unknown; accepted; done; not sent; refused; throttled; call: login refused; call: other site; call unknown; task runs; task done; task failed; task gone; task unknown
  alarm provider-auth <- login refused
  cease <- lease taken
  put, look, read, read ledger <- stopped for 6 s
  linger <- stop
  put, renew 5 <- reload
";
