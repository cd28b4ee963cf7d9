//! Three hosts with foip on them, the provider, the API and the client: everything a scenario acts upon.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use foip::clock;

use crate::agent::{Agent, Common};
use crate::api::{Api, Flavour};
use crate::lacks::{Lacking, Lacks};
use crate::monitor::Monitor;
use crate::pinger::Pinger;
use crate::plan::{FAILOVER_V4, HOSTS, host_index, nic_address};
use crate::provider::Provider;
use crate::scenario::Scenario;
use crate::signals::wait_until;
use crate::trouble;
use crate::trouble::{Outcome, Tried};
use crate::world::World;

/// The programs that a lab runs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// foip.
    pub foip: PathBuf,
    /// netcup's stand-in.
    pub scp: PathBuf,
    /// The built-in Kubernetes API.
    pub kube: PathBuf,
}

impl Programs {
    /// Those built beside this one: `target/PROFILE/examples/lab` has them one folder up.
    pub fn beside(foip: Option<PathBuf>) -> Outcome<Self> {
        let own = std::env::current_exe()?;
        let folder =
            own.ancestors().find(|folder| folder.join("scp-standin").is_file()).ok_or_else(
                || trouble!("scp-standin is not beside {}: build it first", own.display()),
            )?;
        let programs = Self {
            foip: foip.unwrap_or_else(|| folder.join("foip")),
            scp: folder.join("scp-standin"),
            kube: folder.join("kube-standin"),
        };
        for program in [&programs.foip, &programs.scp, &programs.kube] {
            if !program.is_file() {
                return Err(trouble!("{} does not exist: build it first", program.display()));
            }
        }
        Ok(programs)
    }
}

/// The whole lab. Fields are dropped in this order: processes first, namespaces last.
pub struct Cluster {
    /// foip, one per host.
    pub agents: Vec<Agent>,
    /// One per failover IP.
    pub pingers: Vec<Pinger>,
    monitors: Vec<Monitor>,
    /// The Kubernetes API.
    pub api: Api,
    /// netcup's stand-in.
    pub provider: Provider,
    /// The failover IPs.
    pub ips: Vec<String>,
    /// When hosts had no power: closed stretches, and perhaps one that lasts.
    pub off: [Vec<(u64, Option<u64>)>; 3],
    /// When something else was done that may be noticed; who did it says until when.
    pub meddled: Vec<(u64, u64)>,
    /// When it cannot be said what the hosts were able to do.
    pub doubtful: Vec<(u64, u64)>,
    /// What was taken away from the hosts.
    pub lacks: Lacks,
    unreachable: [bool; 3],
    /// Namespaces and links.
    pub world: World,
}

/// Where things are right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Who the Lease names.
    pub holder: Option<usize>,
    /// Where the router sends each failover IP.
    pub routes: BTreeMap<String, usize>,
    /// Which hosts have each failover IP's address.
    pub addresses: BTreeMap<String, Vec<usize>>,
}

impl Cluster {
    /// Builds everything; starts no foip.
    pub fn build(
        programs: &Programs,
        flavour: Flavour,
        scenario: &Scenario,
        trace: bool,
    ) -> Outcome<Self> {
        let ips = match &scenario.ips[..] {
            [] => vec![FAILOVER_V4.to_owned()],
            some => some.to_vec(),
        };
        let world = World::build()?;
        enter(&world)?;
        let provider = Provider::start(&world, &programs.scp, &ips, &scenario.provider)?;
        let api = Api::start(&world, flavour, &programs.kube, scenario.late_answers())?;
        let soap =
            scenario.config.get("provider").is_some_and(|p| p.get("api") == Some(&"soap".into()));
        let common = Common {
            foip: programs.foip.clone(),
            ips: ips.clone(),
            url: if soap { provider.soap_url() } else { provider.url() },
            auth_url: provider.auth_url(),
            ca_file: provider.ca_file.clone(),
            changes: scenario.config.clone(),
            trace,
        };
        let mut agents = Vec::new();
        for host in 0..HOSTS.len() {
            let agent = Agent::prepare(&world, host, &common, &api.kubeconfig)?;
            if !soap {
                agent.login(&world)?;
            }
            agents.push(agent);
        }
        let monitors = (0..HOSTS.len())
            .map(|host| Monitor::start(&world.host(host)))
            .collect::<Outcome<Vec<_>>>()?;
        let client = world.namespace("client");
        let pingers = ips
            .iter()
            .map(|ip| Pinger::start(&client, world.folder(), nic_address(ip)))
            .collect::<Outcome<Vec<_>>>()?;
        Ok(Self {
            agents,
            pingers,
            monitors,
            api,
            provider,
            ips,
            off: Default::default(),
            meddled: Vec::new(),
            doubtful: Vec::new(),
            lacks: Lacks::default(),
            unreachable: [false; 3],
            world,
        })
    }

    /// Starts foip wherever there is power and none runs.
    pub fn start_all(&mut self) -> Outcome<()> {
        for host in 0..HOSTS.len() {
            if self.world.powered(host) {
                self.agents[host].start(&self.world)?;
            }
        }
        Ok(())
    }

    /// Looks at the Lease, the router and the NICs.
    pub fn place(&self) -> Place {
        let holder = self.api.kubectl.lease().ok().flatten().and_then(|lease| lease.holder);
        let mut routes = self.world.routes().unwrap_or_default();
        routes.retain(|ip, _| self.ips.contains(ip));
        let addresses = self.ips.iter().map(|ip| {
            let there = |host: &usize| {
                self.world.powered(*host)
                    && self.world.has_address(*host, nic_address(ip)).unwrap_or(false)
            };
            (ip.clone(), (0..HOSTS.len()).filter(there).collect())
        });
        Place {
            holder: holder.and_then(|name| host_index(&name)),
            addresses: addresses.collect(),
            routes,
        }
    }

    /// Who holds, if Lease, routes and addresses agree, and its foip runs.
    pub fn settled(&mut self) -> Option<usize> {
        let place = self.place();
        let holder = place.holder?;
        let all = self.ips.iter().all(|ip| {
            place.routes.get(ip) == Some(&holder)
                && place.addresses.get(ip).is_some_and(|hosts| hosts.contains(&holder))
        });
        let there = self.world.powered(holder) && !self.unreachable[holder];
        (all && there && self.agents[holder].running()).then_some(holder)
    }

    /// Waits until it is settled.
    pub fn settle(&mut self, within: Duration) -> Outcome<usize> {
        self.settle_where(within, |_| true)
    }

    /// The same, for a holder that is wanted.
    pub fn settle_where(
        &mut self,
        within: Duration,
        wanted: impl Fn(usize) -> bool,
    ) -> Outcome<usize> {
        let mut holder = None;
        let done = wait_until(within, || {
            for agent in &mut self.agents {
                agent.listen();
                agent.check()?;
            }
            holder = self.settled().filter(|holder| wanted(*holder));
            Ok(holder.is_some())
        })?;
        match holder {
            Some(holder) if done => Ok(holder),
            _ => Err(trouble!("not settled within {within:?}: {}", self.describe())),
        }
    }

    /// Waits until nobody but the holder has an address.
    pub fn clean(&mut self, within: Duration) -> Outcome<()> {
        let done = wait_until(within, || {
            let place = self.place();
            let only = |hosts: &Vec<usize>| {
                hosts.iter().all(|host| Some(*host) == place.holder || self.unreachable[*host])
            };
            Ok(place.addresses.values().all(only) && self.settled().is_some())
        })?;
        if done {
            Ok(())
        } else {
            Err(trouble!("leftover addresses after {within:?}: {}", self.describe()))
        }
    }

    /// The present in words, for an error message.
    pub fn describe(&mut self) -> String {
        let place = self.place();
        let name = |host: usize| HOSTS[host].name;
        let mut text = format!("Lease names {}", place.holder.map_or("nobody", name));
        for ip in &self.ips {
            let routed = place.routes.get(ip).map_or("nowhere", |host| name(*host));
            let on: Vec<&str> = place.addresses[ip].iter().map(|host| name(*host)).collect();
            text += &format!("; {ip} is routed to {routed}, and on [{}]", on.join(", "));
        }
        for agent in &mut self.agents {
            agent.listen();
        }
        for (host, agent) in self.agents.iter_mut().enumerate() {
            let state = if agent.running() { agent.status.as_str() } else { "foip does not run" };
            text += &format!("\n    {}: {state}", name(host));
        }
        text
    }

    /// Takes a host's power away.
    pub fn power_off(&mut self, host: usize) -> Outcome<()> {
        let now = clock::now().0;
        if let Some(process) = self.agents[host].process() {
            // It must not see its link go.
            process.signal(nix::sys::signal::Signal::SIGSTOP)?;
        }
        let mut spared: Vec<u32> = self.monitors.iter().map(Monitor::pid).collect();
        spared.extend(self.api.spared());
        self.world.power_off(host, &spared)?;
        self.agents[host].kill();
        self.api.host_off(host)?;
        self.off[host].push((now, None));
        self.unreachable[host] = true;
        Ok(())
    }

    /// Boots a host, with foip.
    pub fn power_on(&mut self, host: usize) -> Outcome<()> {
        self.world.power_on(host)?;
        self.unreachable[host] = false;
        if let Some((_, end @ None)) = self.off[host].last_mut() {
            *end = Some(clock::now().0);
        }
        self.api.host_on(&self.world, host)?;
        self.agents[host].start(&self.world)
    }

    /// The hosts that have power, a network and a running foip.
    pub fn up(&mut self) -> Vec<usize> {
        let mut up = Vec::new();
        for host in 0..HOSTS.len() {
            if !self.unreachable[host] && self.agents[host].running() {
                up.push(host);
            }
        }
        up
    }

    /// From now on a host is without these.
    pub fn lacks(&mut self, host: usize, lacks: &[Lacking]) {
        let now = clock::now().0;
        for what in lacks.iter().flat_map(|what| what.abilities(&self.ips)) {
            self.lacks.begin(host, what, now);
        }
    }

    /// Ends all faults of API and provider, and all lacks.
    pub fn mend(&mut self) -> Outcome<()> {
        self.provider.command(&serde_json::json!({"do": "clear"}))?;
        if self.api.flavour() == Flavour::BuiltIn {
            self.api.command(&serde_json::json!({"do": "clear"}))?;
        }
        self.lacks.end(clock::now().0);
        Ok(())
    }

    /// Notes that a host can no longer be reached by the others, or can again.
    pub fn isolate(&mut self, host: usize, isolated: bool) -> Outcome<()> {
        self.unreachable[host] = isolated;
        self.api.isolate(host, isolated)
    }

    /// When the first address was put on any NIC: before that there is nothing to lose.
    pub fn first_address(&self) -> u64 {
        let hosts = (0..HOSTS.len()).flat_map(|host| self.address_changes(host, &self.ips[0]));
        hosts.filter(|change| change.there).map(|change| change.at).min().unwrap_or(u64::MAX)
    }

    /// When a failover IP's address came to a host and went.
    pub fn address_changes(&self, host: usize, ip: &str) -> Vec<crate::monitor::Change> {
        self.monitors[host].changes(&nic_address(ip).to_string())
    }
}

/// Makes the provider's namespace that of the lab, so that its own requests reach the hosts.
fn enter(world: &World) -> Outcome<()> {
    let path = PathBuf::from("/run/netns").join(world.namespace("provider"));
    let file = std::fs::File::open(&path).tried(|| path.display().to_string())?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
        .tried(|| format!("cannot enter {}", path.display()))
}
