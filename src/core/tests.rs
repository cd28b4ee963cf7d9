//! A small world.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Core;
use super::action::Action;
use super::config::*;
use super::event::*;
use super::facts::*;
use super::note::Note;
use super::saved::Saved;
use crate::types::*;

struct World {
    now: u64,
    seq: u64,
    rng: u64,
    queue: BTreeMap<(u64, u64), (usize, u32, Event)>,
    nodes: Vec<Node>,
    store: BTreeMap<Key, (u64, Doc)>,
    version: u64,
    api: bool,
    frozen: bool,
    thaw: Vec<(usize, u32, Action, u64)>,
    routes: BTreeMap<FailoverIp, Routed>,
    calls: Vec<(u64, usize, ServerName)>,
    tasks: u64,
    effects: BTreeMap<(u64, u64), (FailoverIp, ServerName)>,
    verbose: bool,
    lost: u64,
    cordon: Option<usize>,
}
struct Node {
    core: Option<Core>,
    gen_: u32,
    addrs: BTreeMap<IpAddr, u64>,
    saved: Saved,
    up: bool,
    provider: bool,
    auth: BTreeMap<String, u64>,
    start: Start,
}

fn ip() -> FailoverIp {
    "203.0.113.63".parse().unwrap()
}

impl World {
    fn new(n: usize) -> Self {
        let nodes = (0..n)
            .map(|i| Node {
                core: None,
                gen_: 0,
                addrs: BTreeMap::new(),
                saved: Saved::default(),
                up: true,
                provider: true,
                auth: BTreeMap::new(),
                start: Start {
                    config: Config {
                        node: format!("node-{}", (b'a' + i as u8) as char).parse().unwrap(),
                        account: "100000".parse().ok(),
                        api: Api::Rest,
                        groups: BTreeMap::from([(
                            "default".parse().unwrap(),
                            Group {
                                ips: BTreeMap::from([(
                                    ip(),
                                    BTreeSet::from(["203.0.113.63".parse().unwrap()]),
                                )]),
                            },
                        )]),
                        eligible: true,
                        priority: 100,
                        lease: LeaseTiming {
                            duration: Span::secs(10),
                            renew: Span::secs(2),
                            timeout: Span::secs(2),
                            margin: Span::secs(1),
                        },
                        dwell: Span::secs(30),
                        dwell_cordon: Span::secs(2),
                        api_grace: Span::secs(30),
                        drift: Drift::Correct,
                        announce: true,
                        lifetime: Span::secs(45),
                        checks: 0,
                    },
                    identity: Identity {
                        host: format!("h{i}"),
                        boot: "b".into(),
                        nonce: String::new(),
                    },
                    saved: Saved::default(),
                    seed: i as u64,
                },
            })
            .collect();
        World {
            now: 0,
            seq: 0,
            rng: 1,
            queue: BTreeMap::new(),
            nodes,
            store: BTreeMap::new(),
            version: 1,
            api: true,
            frozen: false,
            thaw: vec![],
            routes: BTreeMap::from([(ip(), Routed::Nowhere)]),
            calls: vec![],
            tasks: 0,
            effects: BTreeMap::new(),
            verbose: true,
            lost: 0,
            cordon: None,
        }
    }
    fn rnd(&mut self, n: u64) -> u64 {
        self.rng = self.rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.rng >> 33) % n
    }
    fn push(&mut self, delay: u64, node: usize, event: Event) {
        self.seq += 1;
        let g = self.nodes[node].gen_;
        self.queue.insert((self.now + delay, self.seq), (node, g, event));
    }
    fn boot(&mut self, i: usize) {
        self.nodes[i].gen_ += 1;
        let mut start = self.nodes[i].start.clone();
        start.identity.nonce = format!("n{i}-{}", self.nodes[i].gen_);
        start.saved = self.nodes[i].saved.clone();
        let (core, actions) = Core::start(start, Tick(self.now));
        self.nodes[i].core = Some(core);
        let seen =
            self.nodes[i].addrs.keys().map(|h| SeenAddress { host: *h, ours: true }).collect();
        self.push(1, i, Event::Addresses(seen));
        self.push(1, i, Event::Link { up: true, default_route: true });
        self.act(i, actions);
        self.home(i);
    }
    fn home(&mut self, i: usize) {
        if self.nodes[i].provider {
            let server = Server {
                name: format!("v{}", i + 1).parse().unwrap(),
                number: Some(i as u64),
                mac: Some(Mac([0; 6])),
            };
            self.push(80, i, Event::Home(Ok(Home { server, mac: Mac([0; 6]) })));
        }
    }
    fn kill(&mut self, i: usize) {
        self.nodes[i].core = None;
        self.nodes[i].gen_ += 1;
    }
    fn act(&mut self, i: usize, actions: Vec<Action>) {
        for action in actions {
            if let Action::Note(note) = &action {
                if self.verbose && !matches!(note, Note::Authority { .. }) {
                    println!("{:>8} {} {note:?}", self.now, self.nodes[i].start.config.node);
                }
                if let Note::Authority { until, epoch, .. } = note {
                    self.nodes[i].auth.insert("default".into(), until.map_or(0, |t| t.0));
                    let _ = epoch;
                    let holders: Vec<_> = self
                        .nodes
                        .iter()
                        .enumerate()
                        .filter(|(_, n)| n.auth.get("default").is_some_and(|u| *u > self.now))
                        .map(|(i, _)| i)
                        .collect();
                    assert!(holders.len() < 2, "I1 at {}: {holders:?}", self.now);
                }
            } else if self.verbose
                && !matches!(
                    action,
                    Action::Read { .. }
                        | Action::List { .. }
                        | Action::Save(_)
                        | Action::ReadNode { .. }
                )
            {
                let text = format!("{action:?}");
                println!(
                    "{:>8} {} {}",
                    self.now,
                    self.nodes[i].start.config.node,
                    &text[..text.len().min(150)]
                );
            }
            match action {
                Action::Read { .. }
                | Action::List { .. }
                | Action::Write { .. }
                | Action::ReadNode { .. } => {
                    let g = self.nodes[i].gen_;
                    let now = self.now;
                    if self.frozen {
                        self.thaw.push((i, g, action, now));
                    } else {
                        self.api(i, action, now);
                    }
                }
                Action::ReadRoutes { ticket } => {
                    let result = if self.nodes[i].provider {
                        Ok(Listing { routes: self.routes.clone() })
                    } else {
                        Err(ProviderFailure::Retry { why: "x".into(), after: None })
                    };
                    let date = Some(ProviderTime(1_700_000_000_000 + self.now / 1000 * 1000));
                    self.push(60, i, Event::Routes { ticket, result, date });
                }
                Action::Route { ticket, ip, to, not_after, .. } => {
                    assert!(self.now < not_after.0);
                    self.calls.push((self.now, i, to.name.clone()));
                    self.tasks += 1;
                    self.seq += 1;
                    self.effects.insert((self.now + 450, self.seq), (ip, to.name));
                    let t = self.tasks;
                    let now = self.now;
                    self.push(
                        50,
                        i,
                        Event::Route {
                            ticket,
                            started: Some(Tick(now)),
                            outcome: RouteOutcome::Accepted(TaskId(t.to_string())),
                            date: None,
                        },
                    );
                }
                Action::ReadTask { ticket, .. } => {
                    let done = self.effects.is_empty();
                    self.push(
                        40,
                        i,
                        Event::Task {
                            ticket,
                            result: Ok(if done { TaskState::Done } else { TaskState::Running }),
                        },
                    );
                }
                Action::ReadPastCalls { ticket } => {
                    self.push(40, i, Event::PastCalls { ticket, result: Ok(Some(vec![])) })
                }
                Action::PutAddress { host, lifetime } => {
                    self.nodes[i].addrs.insert(host, self.now + lifetime.0);
                    self.push(1, i, Event::AddressPut { host, result: Ok(()) });
                }
                Action::RemoveAddress { host } => {
                    self.nodes[i].addrs.remove(&host);
                }
                Action::Save(saved) => self.nodes[i].saved = saved,
                Action::Exit => {
                    self.kill(i);
                    return;
                }
                Action::Announce { .. } | Action::Note(_) => {}
            }
        }
    }
    fn api(&mut self, i: usize, action: Action, sent: u64) {
        if !self.api {
            let f = ApiFailure::Unknown("down".into());
            match action {
                Action::Read { ticket, key } => {
                    self.push(5, i, Event::Read { ticket, key, result: Err(f) })
                }
                Action::List { ticket } => {
                    self.push(5, i, Event::Listed { ticket, result: Err(f) })
                }
                Action::Write { ticket, key, .. } => {
                    self.push(5, i, Event::Written { ticket, key, result: Err(f) })
                }
                Action::ReadNode { ticket } => {
                    self.push(5, i, Event::Node { ticket, result: Err(f) })
                }
                _ => {}
            }
            return;
        }
        let late = self.now - sent > 2000;
        match action {
            Action::Read { ticket, key } => {
                let result = Ok(self.store.get(&key).map(|(v, doc)| Stored {
                    version: ResourceVersion(v.to_string()),
                    doc: doc.clone(),
                }));
                if !late {
                    let d = 3 + self.rnd(10);
                    self.push(d, i, Event::Read { ticket, key, result });
                }
            }
            Action::List { ticket } => {
                let result = Ok(self
                    .store
                    .iter()
                    .map(|(k, (v, doc))| {
                        (
                            k.clone(),
                            Stored { version: ResourceVersion(v.to_string()), doc: doc.clone() },
                        )
                    })
                    .collect());
                if !late {
                    self.push(8, i, Event::Listed { ticket, result });
                }
            }
            Action::Write { ticket, key, version, doc } => {
                let current = self.store.get(&key).map(|(v, _)| v.to_string());
                let result = if current == version.map(|v| v.0) {
                    self.version += 1;
                    let v = self.version;
                    self.store.insert(key.clone(), (v, doc.clone()));
                    for j in 0..self.nodes.len() {
                        let d = 2 + self.rnd(20);
                        self.push(
                            d,
                            j,
                            Event::Watched {
                                key: key.clone(),
                                stored: Some(Stored {
                                    version: ResourceVersion(v.to_string()),
                                    doc: doc.clone(),
                                }),
                            },
                        );
                    }
                    Ok(ResourceVersion(v.to_string()))
                } else {
                    Err(ApiFailure::Conflict)
                };
                if !late {
                    let d = 3 + self.rnd(10);
                    self.push(d, i, Event::Written { ticket, key, result });
                }
            }
            Action::ReadNode { ticket } => {
                if !late {
                    self.push(
                        5,
                        i,
                        Event::Node {
                            ticket,
                            result: Ok(Some(NodeFacts {
                                cordoned: self.cordon == Some(i),
                                ..NodeFacts::default()
                            })),
                        },
                    )
                }
            }
            _ => {}
        }
    }
    fn freeze(&mut self, on: bool) {
        self.frozen = on;
        if !on {
            for (i, g, action, sent) in std::mem::take(&mut self.thaw) {
                if self.nodes[i].gen_ == g || true {
                    self.api(i, action, sent);
                }
            }
        }
    }
    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            // next instant
            let mut next = end;
            if let Some((at, _)) = self.queue.keys().next() {
                next = next.min(*at);
            }
            for n in &self.nodes {
                if let Some(c) = &n.core {
                    next = next.min(c.deadline().0.max(self.now + 1));
                }
            }
            if let Some((at, _)) = self.effects.keys().next() {
                next = next.min(*at);
            }
            if self.frozen {
                for (_, _, _, sent) in &self.thaw {
                    if sent + 2000 > self.now {
                        next = next.min(sent + 2000);
                    }
                }
            }
            // client
            let good = self.nodes.iter().enumerate().any(|(i, n)| n.up && matches!(&self.routes[&ip()], Routed::To(s) if s.as_str() == format!("v{}", i + 1)) && n.addrs.values().any(|e| *e > self.now));
            let step = next.max(self.now) - self.now;
            if !good {
                self.lost += step;
            }
            self.now = next.max(self.now);
            while let Some((&k, _)) = self.effects.iter().next() {
                if k.0 > self.now {
                    break;
                }
                let (ip, to) = self.effects.remove(&k).unwrap();
                self.routes.insert(ip, Routed::To(to));
            }
            for n in &mut self.nodes {
                let now = self.now;
                n.addrs.retain(|_, e| *e > now);
            }
            if self.frozen {
                let now = self.now;
                let due: Vec<_> = self
                    .thaw
                    .iter()
                    .filter(|(_, _, _, s)| s + 2000 == now)
                    .map(|(i, _, a, _)| (*i, a.clone()))
                    .collect();
                for (i, a) in due {
                    let f = ApiFailure::Unknown("timeout".into());
                    match a {
                        Action::Read { ticket, key } => {
                            self.push(0, i, Event::Read { ticket, key, result: Err(f) })
                        }
                        Action::List { ticket } => {
                            self.push(0, i, Event::Listed { ticket, result: Err(f) })
                        }
                        Action::Write { ticket, key, .. } => {
                            self.push(0, i, Event::Written { ticket, key, result: Err(f) })
                        }
                        Action::ReadNode { ticket } => {
                            self.push(0, i, Event::Node { ticket, result: Err(f) })
                        }
                        _ => {}
                    }
                }
            }
            while let Some((&k, _)) = self.queue.iter().next() {
                if k.0 > self.now {
                    break;
                }
                let (i, g, event) = self.queue.remove(&k).unwrap();
                if self.nodes[i].gen_ == g
                    && let Some(core) = &mut self.nodes[i].core
                {
                    let actions = core.step(Tick(self.now), event);
                    self.act(i, actions);
                }
            }
            for i in 0..self.nodes.len() {
                let due = self.nodes[i].core.as_ref().is_some_and(|c| c.deadline().0 <= self.now);
                if due {
                    let now = self.now;
                    let actions = self.nodes[i].core.as_mut().unwrap().step(Tick(now), Event::Wake);
                    self.act(i, actions);
                }
            }
        }
    }
}

#[test]
fn first_start_and_death() {
    let mut w = World::new(3);
    for i in 0..3 {
        w.boot(i);
    }
    w.run(60_000);
    println!("=== calls {:?} lost {}", w.calls, w.lost);
    let holder = w.calls[0].1;
    w.lost = 0;
    let t = w.now;
    w.kill(holder);
    w.nodes[holder].up = false;
    w.run(60_000);
    println!("=== calls {:?} lost {} after {}", w.calls, w.lost, w.calls[1].0 - t);
    w.verbose = true;
    w.lost = 0;
    println!("=== freeze");
    w.freeze(true);
    w.run(45_000);
    w.freeze(false);
    w.run(30_000);
    println!("=== calls {:?} lost {}", w.calls, w.lost);
    assert_eq!(w.calls.len(), 2);
    println!("=== restart");
    let holder = w.calls[1].1;
    w.kill(holder);
    w.run(1300);
    w.boot(holder);
    w.run(60_000);
    println!("=== calls {:?} lost {}", w.calls, w.lost);
    assert_eq!((w.calls.len(), w.lost), (2, 0));
}

#[test]
fn cordon() {
    let mut w = World::new(3);
    for i in 0..3 {
        w.boot(i);
    }
    w.run(60_000);
    let holder = w.calls[0].1;
    w.lost = 0;
    let t = w.now;
    w.run(100);
    println!("=== cordon at {t}");
    w.cordon = Some(holder);
    w.push(0, holder, Event::NodeWatched(NodeFacts { cordoned: true, ..NodeFacts::default() }));
    w.run(28_000);
    println!("=== calls {:?} lost {}", w.calls, w.lost);
    println!("=== provider gone for the holder");
    let holder = w.calls[1].1;
    w.nodes[holder].provider = false;
    w.routes.insert(ip(), Routed::To("v77".parse().unwrap()));
    w.run(60_000);
    println!("=== calls {:?} lost {}", w.calls, w.lost);
    println!("=== drift");
    for n in &mut w.nodes {
        n.provider = true;
    }
    w.run(30_000);
    w.lost = 0;
    w.routes.insert(ip(), Routed::To("v77".parse().unwrap()));
    w.run(60_000);
    println!("=== calls {:?} lost {}", w.calls, w.lost);
    println!("=== ledger deleted");
    w.store.remove(&Key::Ledger);
    w.run(20_000);
    w.store.clear();
    w.lost = 0;
    w.run(60_000);
    println!("=== calls {:?} lost {}", w.calls, w.lost);
}
