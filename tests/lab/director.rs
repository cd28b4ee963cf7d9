//! Carries out a scenario's steps and judges what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use foip::clock;
use foip::types::Tick;
use serde::Serialize;

use crate::api::Flavour;
use crate::cluster::Cluster;
use crate::pinger::Gap;
use crate::plan::HOSTS;
use crate::scenario::{Ends, Expect, Listener, Scenario, Step, Who};
use crate::signals::{sleep, wait_until};
use crate::trouble;
use crate::trouble::Outcome;
use crate::world::Cut;

/// What came of a scenario.
#[derive(Clone, Debug, Default, Serialize, serde::Deserialize)]
pub struct Verdict {
    /// The scenario's file name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its bar.
    pub bar: String,
    /// On which API.
    pub flavour: Option<Flavour>,
    /// When the measurement began, and when it ended, in milliseconds.
    pub span: (u64, u64),
    /// Route calls that reached the provider, whatever it answered.
    pub calls: u64,
    /// From the beginning to the first accepted route call, in milliseconds.
    pub to_call: Option<u64>,
    /// From the beginning to packets going where they are in the end, if that changed.
    pub to_routed: Option<u64>,
    /// Lost packets, of all failover IPs.
    pub lost: u64,
    /// The longest time without an answer, in milliseconds.
    pub outage: u64,
    /// How long the address was gone at the longest, where somebody deleted it.
    pub address_gone: Option<u64>,
    /// How late the client's worst ping left: what the machine did to the measurement.
    pub client_delay: u64,
    /// Why it failed; empty when every bar was met.
    pub problems: Vec<String>,
}

impl Verdict {
    /// Was every bar met?
    pub fn met(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Runs one scenario on a cluster. An error is one of the lab; foip's are in the verdict.
pub fn run(cluster: &mut Cluster, scenario: &Scenario) -> Outcome<Verdict> {
    let starts = matches!(scenario.steps.first(), Some(Step::Start { .. }));
    let before = if starts {
        None
    } else {
        cluster.start_all()?;
        Some(cluster.settle(Duration::from_secs(60))?)
    };
    let begun = clock::now().0;
    let mut play = Play { cluster, before, begun, mark: begun, gone: None, paused: None };
    let mut problems = Vec::new();
    for step in &scenario.steps {
        match play.carry_out(step) {
            Ok(()) => {}
            Err(error) => {
                crate::signals::check()?;
                problems.push(error.0);
                break;
            }
        }
    }
    let (from, to) = (play.mark, clock::now().0);
    let (gone, paused) = (play.gone, play.paused);
    // The last pings need 500 ms to be known as lost.
    sleep(Duration::from_millis(700))?;
    let mut verdict = measure(cluster, scenario, (from, to));
    verdict.address_gone = gone;
    verdict.problems = problems;
    judge(cluster, &scenario.expect, (before, paused), &mut verdict);
    verdict.problems.extend(alarming(cluster, &scenario.expect, before, (begun, to)));
    Ok(verdict)
}

/// Until then something that was done may still be noticed: the next reading of the routes, and settling.
const MEDDLED: u64 = 45_000;

struct Play<'a> {
    cluster: &'a mut Cluster,
    before: Option<usize>,
    begun: u64,
    mark: u64,
    gone: Option<u64>,
    paused: Option<usize>,
}

impl Play<'_> {
    /// The hosts that are meant.
    fn who(&self, who: Who) -> Outcome<Vec<usize>> {
        let before = || self.before.ok_or_else(|| trouble!("nobody held at the beginning"));
        let others = |at: usize| -> Outcome<Vec<usize>> {
            let holder = before()?;
            Ok(vec![(0..HOSTS.len()).filter(|host| *host != holder).nth(at).unwrap_or(0)])
        };
        match who {
            Who::Holder => Ok(vec![before()?]),
            Who::Second => others(0),
            Who::Third => others(1),
            Who::NewHolder => {
                let holder = self.cluster.place().holder;
                Ok(vec![holder.ok_or_else(|| trouble!("nobody holds now"))?])
            }
            Who::Each | Who::All => Ok((0..HOSTS.len()).collect()),
            Who::Paused => {
                Ok(vec![self.paused.ok_or_else(|| trouble!("nobody was paused at an intent"))?])
            }
            Who::NodeA => Ok(vec![0]),
            Who::NodeB => Ok(vec![1]),
            Who::NodeC => Ok(vec![2]),
        }
    }

    /// One after the other for `each`, with time to settle in between.
    fn on(
        &mut self,
        who: Who,
        mut act: impl FnMut(&mut Cluster, usize) -> Outcome<()>,
    ) -> Outcome<()> {
        for host in self.who(who)? {
            act(self.cluster, host)?;
            if who == Who::Each {
                sleep(Duration::from_millis(1500))?;
                self.cluster.settle(Duration::from_secs(20))?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, step: &Step) -> Outcome<()> {
        if step.meddles() {
            let now = clock::now().0;
            self.cluster.meddled.push((now, now + MEDDLED));
            if !step.declares() {
                self.cluster.doubtful.push((now, now + MEDDLED));
            }
        }
        match step {
            Step::Mark => {
                self.mark = clock::now().0;
                Ok(())
            }
            Step::Wait { time } => self.wait(*time),
            Step::Settle { within, holder } => {
                let before = self.before;
                self.cluster.settle_where(*within, |now| ends(*holder, before, Some(now)))?;
                Ok(())
            }
            Step::Clean { within } => self.cluster.clean(*within),
            Step::Start { host } => self.on(*host, |c, h| c.agents[h].start(&c.world)),
            Step::Kill { host } => self.on(*host, |c, h| {
                c.agents[h].kill();
                Ok(())
            }),
            Step::Crash { host, after } => self.on(*host, |c, h| {
                c.agents[h].kill();
                sleep(*after)?;
                c.agents[h].start(&c.world)
            }),
            Step::Restart { host } => self.on(*host, |c, h| {
                let took = c.agents[h].terminate()?;
                c.agents[h].start(&c.world)?;
                match took {
                    // 2 s, and what the lab's own looking every 20 ms adds.
                    0..=2100 => Ok(()),
                    late => Err(trouble!("foip took {late} ms to end after SIGTERM, not 2 s")),
                }
            }),
            Step::Reload { host } => self.on(*host, |c, h| c.agents[h].reload()),
            Step::Pause { host } => self.on(*host, |c, h| c.agents[h].pause()),
            Step::Resume { host } => self.on(*host, |c, h| c.agents[h].resume()),
            Step::PauseAtIntent { within } => self.pause_at_intent(*within),
            Step::PowerOff { host } => self.on(*host, Cluster::power_off),
            Step::PowerOn { host } => self.on(*host, Cluster::power_on),
            Step::Cut { host, from } => self.on(*host, |c, h| {
                c.world.cut(h, *from)?;
                match from {
                    Cut::Provider => Ok(()),
                    Cut::Network | Cut::Hosts => c.isolate(h, true),
                }
            }),
            Step::Uncut { host } => self.on(*host, |c, h| {
                c.world.uncut(h)?;
                c.isolate(h, false)
            }),
            Step::Unplug { host } => self.on(*host, |c, h| {
                c.world.carrier(h, false)?;
                c.isolate(h, true)
            }),
            Step::Plug { host } => self.on(*host, |c, h| {
                c.world.carrier(h, true)?;
                c.isolate(h, false)
            }),
            Step::FreezeApi { host } => {
                let hosts = self.who(*host)?;
                self.cluster.api.freeze(&hosts, true)
            }
            Step::ThawApi { host } => {
                let hosts = self.who(*host)?;
                self.cluster.api.freeze(&hosts, false)
            }
            Step::KillApi { host } => {
                let hosts = self.who(*host)?;
                self.cluster.api.kill(&hosts)
            }
            Step::StartApi { host } => {
                let hosts = self.who(*host)?;
                self.cluster.api.revive(&self.cluster.world, &hosts)
            }
            Step::LateAnswers { time } => self.cluster.api.hold_back(*time),
            Step::KillEtcd { host } => {
                let hosts = self.who(*host)?;
                self.cluster.api.kill_etcd(&hosts)
            }
            Step::StartEtcd { host } => {
                let hosts = self.who(*host)?;
                self.cluster.api.revive_etcd(&self.cluster.world, &hosts)
            }
            Step::Cordon { host } => {
                self.on(*host, |c, h| c.api.kubectl.cordon(HOSTS[h].name, true))
            }
            Step::Uncordon { host } => {
                self.on(*host, |c, h| c.api.kubectl.cordon(HOSTS[h].name, false))
            }
            Step::Condition { host, condition, status } => {
                self.on(*host, |c, h| c.api.kubectl.condition(HOSTS[h].name, condition, status))
            }
            Step::DeleteLease => self.cluster.api.kubectl.delete_lease(),
            Step::PatchLease { patch } => self.cluster.api.kubectl.patch_lease(patch),
            Step::DeleteAddress { host } => self.delete_address(*host),
            Step::RouteByHand { host } => {
                let to = self.who(*host)?[0];
                let ip = self.cluster.ips[0].clone();
                self.cluster.provider.route_by_hand(&ip, to)
            }
            Step::ApiFault { host, rules, lacks } => self.on(*host, |c, h| {
                rules.iter().try_for_each(|rule| c.api.fault(h, rule))?;
                c.lacks(h, lacks);
                Ok(())
            }),
            Step::ProviderFault { host, rules, lacks } => self.on(*host, |c, h| {
                rules.iter().try_for_each(|rule| c.provider.fault(h, rule))?;
                c.lacks(h, lacks);
                Ok(())
            }),
            Step::Shell { host, line, lacks } => self.on(*host, |c, h| {
                c.world.shell(h, line)?;
                c.lacks(h, lacks);
                Ok(())
            }),
            Step::Mend => {
                if let Some((_, end)) = self.cluster.meddled.last_mut() {
                    *end = (*end).max(clock::now().0);
                }
                self.cluster.mend()
            }
            Step::Quiet { within, but } => self.quiet(*within, but),
            Step::Provider { command } => self.cluster.provider.command(command).map(drop),
        }
    }

    fn wait(&mut self, time: Duration) -> Outcome<()> {
        let end = clock::now().0 + u64::try_from(time.as_millis()).unwrap_or(0);
        while clock::now().0 < end {
            let left = Duration::from_millis(end.saturating_sub(clock::now().0));
            sleep(left.min(Duration::from_millis(250)))?;
            for agent in &mut self.cluster.agents {
                agent.listen();
                agent.check()?;
            }
        }
        Ok(())
    }

    /// Waits until no alarm stands that began with this scenario.
    fn quiet(&mut self, within: Duration, but: &[String]) -> Outcome<()> {
        let end = clock::now().0 + u64::try_from(within.as_millis()).unwrap_or(0);
        loop {
            let mut left = Vec::new();
            for (host, agent) in self.cluster.agents.iter_mut().enumerate() {
                agent.listen();
                agent.check()?;
                let open = crate::alarms::raised(agent).into_iter();
                let open = open.filter(|alarm| alarm.to.is_none() && alarm.from >= self.begun);
                let open = open.filter(|alarm| !but.contains(&alarm.code));
                if agent.running() {
                    left.extend(open.map(|alarm| {
                        format!("{} has {}: {}", HOSTS[host].name, alarm.code, alarm.text)
                    }));
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            if clock::now().0 >= end {
                return Err(trouble!("alarms after {within:?}: {}", left.join("; ")));
            }
            sleep(Duration::from_millis(500))?;
        }
    }

    /// Stops the process that has just sent an intent: between intent and call.
    fn pause_at_intent(&mut self, within: Duration) -> Outcome<()> {
        let mut writer = None;
        wait_until(within, || {
            let agents = self.cluster.agents.iter();
            writer = agents.map(|agent| agent.sent_intent(Tick(self.mark))).position(|sent| sent);
            Ok(writer.is_some())
        })?;
        let host = writer.ok_or_else(|| trouble!("no intent was written within {within:?}"))?;
        self.cluster.agents[host].pause()?;
        self.paused = Some(host);
        Ok(())
    }

    /// Deletes the address, and waits up to 10 s for its return.
    fn delete_address(&mut self, who: Who) -> Outcome<()> {
        let (host, ip) = (self.who(who)?[0], self.cluster.ips[0].clone());
        let already = self.cluster.address_changes(host, &ip).len();
        self.cluster.world.delete_address(host, &ip)?;
        let mut stretch = None;
        wait_until(Duration::from_secs(10), || {
            let changes = self.cluster.address_changes(host, &ip);
            if let [gone, back, ..] = &changes[already.min(changes.len())..] {
                stretch = Some(back.at.saturating_sub(gone.at));
            }
            Ok(stretch.is_some())
        })?;
        self.gone = stretch;
        stretch.map(drop).ok_or_else(|| trouble!("the address was not back after 10 s"))
    }
}

fn measure(cluster: &Cluster, scenario: &Scenario, span: (u64, u64)) -> Verdict {
    let (from, to) = span;
    let calls = cluster.provider.calls(from, to);
    let first = calls.iter().find(|call| call.accepted).map(|call| call.at - from);
    let mut gaps: Vec<Gap> = Vec::new();
    for pinger in &cluster.pingers {
        gaps.extend(pinger.gaps(from.max(cluster.first_address()), to));
    }
    let switched = cluster
        .ips
        .iter()
        .filter_map(|ip| {
            cluster.provider.switches(ip).into_iter().rfind(|(at, _)| (from..=to).contains(at))
        })
        .map(|(at, _)| at - from)
        .max();
    Verdict {
        name: scenario.name.clone(),
        title: scenario.title.clone(),
        bar: scenario.bar.clone(),
        flavour: Some(cluster.api.flavour()),
        span,
        calls: calls.len() as u64,
        to_call: first,
        to_routed: switched,
        lost: gaps.iter().map(|gap| gap.packets).sum(),
        outage: gaps.iter().map(|gap| gap.to - gap.from).max().unwrap_or(0),
        client_delay: cluster.pingers.iter().map(|p| p.worst_delay(from, to)).max().unwrap_or(0),
        ..Verdict::default()
    }
}

fn judge(
    cluster: &mut Cluster,
    expect: &Expect,
    (before, paused): (Option<usize>, Option<usize>),
    verdict: &mut Verdict,
) {
    let mut problems = Vec::new();
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if let Some([least, most]) = expect.route_calls
        && !(least..=most).contains(&verdict.calls)
    {
        problems.push(format!("{} route calls, not {least} to {most}", verdict.calls));
    }
    let mut within = |what: &str, bar: Option<Duration>, took: Option<u64>| match (bar, took) {
        (Some(bar), Some(took)) if took > ms(bar) => {
            problems.push(format!("{what} took {took} ms, not {} ms", ms(bar)));
        }
        (Some(bar), None) => {
            problems.push(format!("{what}: not at all, not within {} ms", ms(bar)))
        }
        _ => {}
    };
    within("the route call", expect.call_within, verdict.to_call);
    within("the right route", expect.routed_within, verdict.to_routed);
    within("the address's return", expect.address_back, verdict.address_gone);
    within("the longest outage", expect.outage, Some(verdict.outage));
    if let Some(most) = expect.lost
        && verdict.lost > most
    {
        problems.push(format!("{} packets lost, not {most}", verdict.lost));
    }
    let after = cluster.place().holder;
    if !ends(expect.holder, before, after) {
        let name = |host: Option<usize>| host.map_or("nobody", |host| HOSTS[host].name);
        problems.push(format!("{} held before, {} after", name(before), name(after)));
    }
    if let Some([least, most]) = expect.refused_calls {
        let refused = cluster.provider.refused(verdict.span.0, verdict.span.1);
        if !(least..=most).contains(&refused) {
            problems.push(format!("{refused} route calls were refused, not {least} to {most}"));
        }
    }
    let silent = match expect.no_call_by {
        Some(Who::Holder) => before,
        Some(Who::Paused) => paused,
        _ => None,
    };
    let calls = cluster.provider.calls(verdict.span.0, verdict.span.1);
    if silent.is_some() && calls.iter().any(|call| call.host == silent) {
        problems.push("the one that was paused made a route call".to_owned());
    }
    verdict.problems.extend(problems);
}

/// Is this how it should end?
fn ends(wanted: Option<Ends>, before: Option<usize>, after: Option<usize>) -> bool {
    let other = |place: usize| {
        let mut others = (0..HOSTS.len()).filter(|host| Some(*host) != before);
        after.is_some() && others.nth(place) == after
    };
    match wanted {
        Some(Ends::Same) => after == before,
        Some(Ends::Other) => after.is_some() && after != before,
        Some(Ends::Second) => other(0),
        Some(Ends::Third) => other(1),
        None => true,
    }
}

/// What is wrong with the alarms of all hosts.
fn alarming(
    cluster: &Cluster,
    expect: &Expect,
    before: Option<usize>,
    span: (u64, u64),
) -> Vec<String> {
    let Some(alarms) = &expect.alarms else { return Vec::new() };
    let mut problems = Vec::new();
    for (host, agent) in cluster.agents.iter().enumerate() {
        let wanted = wanted_alarms(alarms, before, host);
        let all = crate::alarms::raised(agent);
        let found = crate::alarms::judge(&all, &wanted, &expect.alarms_allowed, span);
        problems
            .extend(found.into_iter().map(|problem| format!("{}: {problem}", HOSTS[host].name)));
    }
    problems
}

/// The alarms that a host must raise.
fn wanted_alarms(
    alarms: &BTreeMap<Listener, Vec<String>>,
    holder: Option<usize>,
    host: usize,
) -> Vec<String> {
    let others: Vec<usize> = (0..HOSTS.len()).filter(|other| Some(*other) != holder).collect();
    let meant = |listener: &Listener| match listener {
        Listener::Holder => Some(host) == holder,
        Listener::Second => others.first() == Some(&host),
        Listener::Third => others.get(1) == Some(&host),
        Listener::Others => others.contains(&host),
        Listener::All => true,
    };
    let named = alarms.iter().filter(|(listener, _)| meant(listener));
    named.flat_map(|(_, codes)| codes.clone()).collect()
}
