//! Hands a lab run to the history checker: the traces of all nodes, the provider's log, the kernels' address
//! tables, what the client lost, and what the lab did to them.
//!
//! | promise | judged |
//! | --- | --- |
//! | I1 to I14, L1 to L5 | in every run |
//! | L6: served by whoever can, no second move | by the packets lost, wherever it is sure what each host can do |
//! | L7: an alarm at each node that knows of a lack, at a holder without a successor | by `lacks` of a scenario's faults, and by hosts without power or process |
//! | L7: which alarm it is, and no other | by `alarms` in the scenario's `expect` |
//! | L7: alarms end | by `quiet` steps; the checker's own rule needs 105 s without trouble, which few runs have |
//!
//! What was done in another way than by a fault with `lacks` makes everything doubtful for as long as it may be
//! noticed: then only what is certain in spite of it is judged.

use std::collections::BTreeMap;
use std::fs;

use foip::clock;
use foip::core::facts::{Doc, Key};
use foip::history::facts::{Ability, AddressChange, Lack, Loss, Rerouted};
use foip::history::trace::{Line, history, read};
use foip::history::{Disturbance, Facts, FinalState, ProviderCall, Real, What, judge as check};
use foip::types::{Span, Tick};

use crate::agent::Why;
use crate::cluster::Cluster;
use crate::lacks::{Lacking, doubtful, parsed, sure};
use crate::plan::{HOSTS, nic_address};

/// The stand-in's task of 450 ms, and the questions before and after it.
const PROVIDER_TIME: Span = Span::millis(2000);

/// What is wrong, in words; empty when nothing is.
pub fn judge(cluster: &mut Cluster, from: u64) -> Vec<String> {
    let mut found = Vec::new();
    let mut traces: Vec<(usize, Vec<Line>, Option<Tick>)> = Vec::new();
    for (host, agent) in cluster.agents.iter().enumerate() {
        let deaths = agent.deaths();
        for (number, file) in agent.traces().iter().enumerate() {
            let text = fs::read_to_string(file).unwrap_or_default();
            match read(&text) {
                // Killed before its first line was on disk.
                Ok(lines) if lines.is_empty() => {}
                Ok(lines) => traces.push((host, lines, deaths.get(number).map(|at| Tick(*at)))),
                Err(error) => {
                    found.push(format!("{}, run {}: {error}", HOSTS[host].name, number + 1));
                }
            }
        }
    }
    // The checker reads processes in order of their start.
    traces.sort_by_key(|(_, lines, _)| match lines.first() {
        Some(Line::Header(header)) => header.at,
        _ => Tick(0),
    });
    if traces.is_empty() {
        found.push("there is no trace at all".to_owned());
    }
    let facts = facts(cluster, from);
    match history(&traces, facts) {
        Ok(mut history) => {
            history.end = real(clock::now().0);
            found.extend(check(&history).iter().map(ToString::to_string));
        }
        Err(error) => found.push(error.to_string()),
    }
    found
}

fn real(ms: u64) -> Real {
    Real(ms * 1000)
}

fn server(host: Option<usize>) -> Option<foip::types::ServerName> {
    host.map(|host| HOSTS[host].server.parse().expect("the plan's server names are well formed"))
}

fn facts(cluster: &mut Cluster, from: u64) -> Facts {
    let now = clock::now().0;
    let calls = cluster.provider.calls(0, now).into_iter().map(|call| ProviderCall {
        arrived: real(call.at),
        by: call.host,
        ip: parsed(&call.ip),
        to: server(call.to),
        accepted: call.accepted,
    });
    let calls = calls.collect();
    let (mut routes, mut addresses, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for (ip, pinger) in cluster.ips.iter().zip(&cluster.pingers) {
        routes.push(Rerouted { at: real(0), ip: parsed(ip), to: server(Some(0)) });
        for (at, host) in cluster.provider.switches(ip) {
            routes.push(Rerouted { at: real(at), ip: parsed(ip), to: server(host) });
        }
        for host in 0..HOSTS.len() {
            addresses.extend(cluster.address_changes(host, ip).iter().map(|change| {
                AddressChange {
                    at: real(change.at),
                    machine: host,
                    host: nic_address(ip),
                    present: change.there,
                    ours: change.finite,
                }
            }));
        }
        for gap in pinger.gaps(from.max(cluster.first_address()), now) {
            losses.push(Loss { ip: parsed(ip), from: real(gap.from), to: real(gap.to) });
        }
    }
    routes.sort_by_key(|route| route.at);
    addresses.sort_by_key(|change| change.at);
    let disturbances = disturbances(cluster, now);
    let quiet_since = disturbances.iter().map(|d| d.to).max().unwrap_or(real(from));
    let last = FinalState {
        docs: docs(cluster),
        routes: cluster
            .world
            .routes()
            .unwrap_or_default()
            .iter()
            .filter(|(ip, _)| cluster.ips.contains(ip))
            .map(|(ip, host)| (parsed(ip), server(Some(*host))))
            .collect(),
        up: cluster.up(),
        quiet_since,
        person_needed: false,
    };
    Facts {
        lacks: Some(lacks(cluster, now)),
        bound: None,
        calls,
        routes,
        addresses,
        disturbances,
        losses: Some(losses),
        provider_time: PROVIDER_TIME,
        secrets: cluster.agents.iter().flat_map(|agent| agent.secrets()).collect(),
        last: Some(last),
    }
}

fn disturbances(cluster: &Cluster, now: u64) -> Vec<Disturbance> {
    let mut all = Vec::new();
    let mut add = |what: What, from: u64, to: Option<u64>| {
        all.push(Disturbance { from: real(from), to: real(to.unwrap_or(now)), what });
    };
    for (host, agent) in cluster.agents.iter().enumerate() {
        let off = |at: &u64| {
            let stretches = cluster.off[host].iter();
            stretches.clone().any(|(from, to)| (*from..=to.unwrap_or(now)).contains(at))
        };
        for (why, from, to) in agent.absent.iter().filter(|(_, from, _)| !off(from)) {
            let what = match why {
                Why::Killed => What::Crash(host),
                Why::Terminated => What::Restart(host),
                Why::Stopped => What::Pause(host),
            };
            add(what, *from, *to);
        }
        for (from, to) in &cluster.off[host] {
            add(What::Power(host), *from, *to);
        }
    }
    for (from, to) in &cluster.api.down {
        add(What::Api, *from, *to);
    }
    for (from, to) in &cluster.meddled {
        add(What::Other, *from, Some(*to));
    }
    all.sort_by_key(|d| d.from);
    all
}

/// What the hosts were without, by what the lab did to them. Where it only knows that something was done, it says so.
fn lacks(cluster: &Cluster, now: u64) -> Vec<Lack> {
    let mut all = cluster.lacks.all(now);
    for host in 0..HOSTS.len() {
        let agent = &cluster.agents[host];
        all.push(sure(host, Ability::Run, 0, agent.began.unwrap_or(now)));
        let absent = agent.absent.iter().map(|(_, from, to)| (*from, *to));
        for (from, to) in absent.chain(cluster.off[host].iter().copied()) {
            all.push(sure(host, Ability::Run, from, to.unwrap_or(now)));
        }
        for (from, to) in &cluster.api.down {
            for what in [Lacking::Lease, Lacking::Record] {
                let what = what.abilities(&cluster.ips).into_iter();
                all.extend(what.map(|what| sure(host, what, *from, to.unwrap_or(now))));
            }
        }
        for (from, to) in &cluster.doubtful {
            let what = Lacking::ALL.iter().flat_map(|what| what.abilities(&cluster.ips));
            all.extend(what.map(|what| doubtful(host, what, *from, *to)));
        }
    }
    all
}

/// The group's Lease, as the checker knows it.
fn docs(cluster: &Cluster) -> BTreeMap<Key, Doc> {
    let mut docs = BTreeMap::new();
    if let Ok(Some(lease)) = cluster.api.kubectl.lease() {
        let doc = Doc {
            holder: lease.holder,
            transitions: i64::try_from(lease.epoch).ok(),
            ..Doc::default()
        };
        let group = "default".parse().expect("a good name");
        docs.insert(Key::Group(group), doc);
    }
    docs
}
