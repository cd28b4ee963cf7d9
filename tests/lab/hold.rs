//! The lab for a script: a world whose first host belongs to somebody else, who asks in lines and is answered in lines.
//!
//! | question | answer |
//! | --- | --- |
//! | `start` | starts foip on the other two hosts, and waits until they are ready |
//! | `route NODE` | a person routes the failover IP there |
//! | `now` | the time, in milliseconds |
//! | `calls` | how many route calls were accepted |
//! | `holder`, `routed` | a node's name, or `-` |
//! | `lost FROM` | how many pings since then found no answer, and how many were sent |
//! | `judge` | `good`, or what the history checker found |
//!
//! The first host's processes write their traces into `home`'s folder `trace`, in files that sort by time.
//!
//! It ends with its input: when the script dies, everything is cleaned up.

use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use foip::clock;
use foip::core::action::Action;
use foip::history::trace::{Line as TraceLine, read};

use crate::agent::{Absence, Agent, Why};
use crate::api::Flavour;
use crate::cluster::{Cluster, Programs};
use crate::pinger::Line;
use crate::plan::{FAILOVER_V4, HOSTS};
use crate::scenario::Scenario;
use crate::signals::{check, sleep, wait_until};
use crate::trouble;
use crate::trouble::{Outcome, Tried};

/// Builds the world, says where everything is, and answers until the input ends.
pub fn hold(programs: &Programs, flavour: Flavour) -> Outcome<()> {
    let begin = clock::now().0;
    let mut cluster = Cluster::build(programs, flavour, &Scenario::default(), true)?;
    say(&[
        format!("namespace={}", cluster.world.host(0)),
        format!("home={}", cluster.agents[0].folder().display()),
        format!("ca_file={}", cluster.provider.ca_file.display()),
        format!("url={}", cluster.provider.url()),
        format!("auth_url={}", cluster.provider.auth_url()),
        format!("failover={FAILOVER_V4}"),
        "ready".to_owned(),
    ])?;
    let lines = input();
    loop {
        check()?;
        match lines.recv_timeout(Duration::from_millis(20)) {
            Ok(line) => {
                let line = line?;
                let words: Vec<&str> = line.split_whitespace().collect();
                say(&[answer(&mut cluster, begin, &words)?])?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// The lines of the input, read on a thread of its own: no signal interrupts it.
fn input() -> Receiver<std::io::Result<String>> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn say(lines: &[String]) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", lines.join("\n"))?;
    Ok(out.flush()?)
}

fn answer(cluster: &mut Cluster, begin: u64, words: &[&str]) -> Outcome<String> {
    let name = |host: Option<usize>| host.map_or("-", |host| HOSTS[host].name).to_owned();
    Ok(match words {
        ["start"] => start(cluster)?,
        ["route", node] => {
            let host = crate::plan::host_index(node);
            let host = host.ok_or_else(|| trouble!("there is no host {node}"))?;
            cluster.provider.route_by_hand(FAILOVER_V4, host)?;
            "done".to_owned()
        }
        ["now"] => clock::now().0.to_string(),
        ["calls"] => {
            let calls = cluster.provider.calls(0, u64::MAX);
            calls.iter().filter(|call| call.accepted && call.host.is_some()).count().to_string()
        }
        ["holder"] => name(cluster.place().holder),
        ["routed"] => name(cluster.place().routes.get(FAILOVER_V4).copied()),
        ["lost", from] => {
            let from = from.parse().map_err(|_| trouble!("{from} is no time"))?;
            lost(cluster, from)?
        }
        ["judge"] => {
            let absent = absences(&cluster.agents[0])?;

            cluster.agents[0].recall(absent);
            match &crate::history::judge(cluster, begin)[..] {
                [] => "good".to_owned(),
                found => found.join("; "),
            }
        }
        _ => return Err(trouble!("what is {words:?}?")),
    })
}

fn start(cluster: &mut Cluster) -> Outcome<String> {
    for host in 1..HOSTS.len() {
        cluster.agents[host].start(&cluster.world)?;
    }
    let ready = wait_until(Duration::from_secs(20), || {
        for agent in &mut cluster.agents[1..] {
            agent.listen();
            agent.check()?;
        }
        Ok(cluster.agents[1..].iter().all(|agent| agent.ready_at.is_some()))
    })?;
    if ready { Ok("done".to_owned()) } else { Err(trouble!("{}", cluster.describe())) }
}

/// When somebody else's processes ended, and the next began: by their traces.
fn absences(agent: &Agent) -> Outcome<Vec<Absence>> {
    let mut absent: Vec<Absence> = Vec::new();
    for file in agent.traces() {
        let lines = read(&std::fs::read_to_string(&file)?).tried(|| file.display().to_string())?;
        let Some(TraceLine::Header(header)) = lines.first() else {
            return Err(trouble!("{} has no header", file.display()));
        };
        if let Some((_, _, end)) = absent.last_mut() {
            *end = Some(header.at.0);
        }
        let at = match lines.last() {
            Some(TraceLine::Actions { t, .. } | TraceLine::Event { t, .. }) => t.0,
            Some(TraceLine::Header(_)) | None => header.at.0,
        };
        let leaves = |line: &TraceLine| matches!(line, TraceLine::Actions { actions, .. } if actions.contains(&Action::Exit));
        let why = if lines.iter().any(leaves) { Why::Terminated } else { Why::Killed };
        absent.push((why, at, None));
    }
    // The checker would find nothing wrong with a host that never said a word.
    if absent.is_empty() { Err(trouble!("the first host has no trace")) } else { Ok(absent) }
}

fn lost(cluster: &Cluster, from: u64) -> Outcome<String> {
    let to = clock::now().0;
    // A ping counts as lost half a second after it was sent, and is written down within a second of that.
    sleep(Duration::from_millis(1700))?;
    let pinger = &cluster.pingers[0];
    let (mut lost, mut sent) = (0, Vec::new());
    for line in pinger.lines() {
        match line {
            Line::Lost { at, .. } => lost += u64::from((from..=to).contains(&at)),
            Line::Sent { sent: count, at, .. } if at >= from && at <= to + 1000 => sent.push(count),
            Line::Sent { .. } => {}
        }
    }
    let sent = sent.last().unwrap_or(&0) - sent.first().unwrap_or(&0);
    Ok(format!("{lost} {sent}"))
}
