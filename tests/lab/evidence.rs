//! What is left of a run: the traces of all nodes, the provider's log, the client's losses; as a picture, and
//! as input of the history checker.

use std::fs;
use std::path::Path;

use foip::clock;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::director::Verdict;
use crate::pinger::Gap;
use crate::plan::HOSTS;
use crate::timeline::{Act, Lane, Picture, Stretch, draw};
use crate::trouble::{Outcome, Tried};

/// Draws everything since `from`.
pub fn picture(cluster: &Cluster, from: u64, verdicts: &[Verdict]) -> Picture {
    let to = clock::now().0;
    let ip = &cluster.ips[0];
    let hosts = HOSTS.iter().enumerate().map(|(host, plan)| Lane {
        name: plan.name.to_owned(),
        authority: authority(cluster, host, to),
        address: presence(cluster, host, ip, to),
        route: routed(cluster, host, ip, from, to),
        off: closed(&cluster.off[host], to),
        stopped: stopped(cluster, host, to),
        calls: cluster
            .provider
            .calls(from, to)
            .into_iter()
            .filter(|call| call.host == Some(host))
            .map(|call| call.at)
            .collect(),
    });
    let mut gaps: Vec<Gap> = Vec::new();
    for pinger in &cluster.pingers {
        gaps.extend(pinger.gaps(from.max(cluster.first_address()), to));
    }
    Picture {
        title: "foip keeps a failover IP on one of three hosts".to_owned(),
        subtitle: format!(
            "{ip}, three hosts in network namespaces, {}; one ping every 10 ms",
            cluster.api.flavour()
        ),
        span: (from, to),
        hosts: hosts.collect(),
        api_down: closed(&cluster.api.down, to),
        gaps,
        acts: verdicts.iter().map(act).collect(),
    }
}

fn act(verdict: &Verdict) -> Act {
    Act {
        at: verdict.span.0,
        title: verdict.title.clone(),
        result: crate::table::summary(verdict),
        met: verdict.met(),
    }
}

fn closed(open: &[(u64, Option<u64>)], now: u64) -> Vec<Stretch> {
    open.iter().map(|(from, to)| (*from, to.unwrap_or(now))).collect()
}

/// When foip did not run although there was power.
fn stopped(cluster: &Cluster, host: usize, now: u64) -> Vec<Stretch> {
    let off = closed(&cluster.off[host], now);
    let within =
        |stretch: &Stretch| off.iter().any(|o| o.0 <= stretch.0 + 50 && stretch.1 <= o.1 + 500);
    let absent = cluster.agents[host].absent.iter().map(|(_, from, to)| (*from, *to));
    let mut absent = closed(&absent.collect::<Vec<_>>(), now);
    absent.retain(|stretch| !within(stretch));
    absent
}

fn presence(cluster: &Cluster, host: usize, ip: &str, now: u64) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut since = None;
    for change in cluster.address_changes(host, ip) {
        match (since, change.there) {
            (None, true) => since = Some(change.at),
            (Some(from), false) => {
                stretches.push((from, change.at));
                since = None;
            }
            _ => {}
        }
    }
    stretches.extend(since.map(|from| (from, now)));
    stretches
}

fn routed(cluster: &Cluster, host: usize, ip: &str, from: u64, now: u64) -> Vec<Stretch> {
    // At the beginning everything is routed to the first host.
    let mut switches = vec![(from, Some(0))];
    switches.extend(cluster.provider.switches(ip));
    let ends = switches.iter().skip(1).map(|(at, _)| *at).chain([now]);
    let pairs = switches.iter().zip(ends);
    pairs.filter(|((_, to), _)| *to == Some(host)).map(|((at, _), end)| (*at, end)).collect()
}

/// When a host's foip claimed authority: from the notes in its traces.
fn authority(cluster: &Cluster, host: usize, now: u64) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for file in cluster.agents[host].traces() {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        claims(lines, &mut stretches);
    }
    // A claim ends with its process.
    let ends = cluster.agents[host].deaths();
    for stretch in &mut stretches {
        let death = ends.iter().copied().find(|end| (stretch.0..stretch.1).contains(end));
        stretch.1 = stretch.1.min(death.unwrap_or(now)).min(now);
    }
    stretches
}

/// Claims of one process: each lasts to its end, or to the next that takes its place.
fn claims(lines: impl Iterator<Item = Value>, stretches: &mut Vec<Stretch>) {
    let first = stretches.len();
    for line in lines {
        let Some(at) = line["t"].as_u64().or(line["at"].as_u64()) else { continue };
        for claim in find(&line["actions"], "authority") {
            match claim["until"].as_u64() {
                Some(until) => match stretches[first..].last_mut() {
                    Some(last) if at <= last.1 => last.1 = until,
                    _ => stretches.push((at, until)),
                },
                None => {
                    if let Some(last) = stretches[first..].last_mut() {
                        last.1 = last.1.min(at);
                    }
                }
            }
        }
    }
}

/// Everything under a key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(name, inner)| if name == key { vec![inner] } else { find(inner, key) })
            .collect(),
        Value::Array(list) => list.iter().flat_map(|inner| find(inner, key)).collect(),
        _ => Vec::new(),
    }
}

/// Writes the picture, and with `all` the traces and logs, into a folder.
pub fn save(
    cluster: &Cluster,
    from: u64,
    verdicts: &[Verdict],
    folder: &Path,
    all: bool,
) -> Outcome<()> {
    fs::create_dir_all(folder).tried(|| format!("cannot make {}", folder.display()))?;
    fs::write(folder.join("timeline.svg"), draw(&picture(cluster, from, verdicts)))?;
    fs::write(folder.join("verdicts.json"), serde_json::to_string_pretty(verdicts)?)?;
    if !all {
        return Ok(());
    }
    let copy = |file: &Path, name: &str| -> Outcome<()> {
        if file.is_file() {
            fs::copy(file, folder.join(name))?;
        }
        Ok(())
    };
    copy(cluster.provider.log_file(), "provider.jsonl")?;
    for (host, agent) in cluster.agents.iter().enumerate() {
        let name = HOSTS[host].name;
        copy(&agent.folder().join("foip.log"), &format!("{name}.log"))?;
        for trace in agent.traces() {
            let number = trace.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            copy(&trace, &format!("{name}-{number}.trace.jsonl"))?;
        }
    }
    for pinger in ["client-v4", "client-v6"] {
        let name = format!("{pinger}.jsonl");
        copy(&cluster.world.folder().join(&name), &name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_follow_one_another() {
        let note = |at: u64, until: Value| json!({"t": at, "actions": [{"note": {"authority": {"group": "default", "epoch": 1, "until": until}}}]});
        let lines = [
            note(10, json!(20)),
            note(15, json!(25)),
            json!({"t": 16, "actions": []}),
            note(30, json!(40)),
            note(33, Value::Null),
        ];
        let mut stretches = Vec::new();
        claims(lines.into_iter(), &mut stretches);
        assert_eq!(stretches, [(10, 25), (30, 33)]);
    }
}
