//! netcup's stand-in as a process in the provider's namespace, and what its log says about route calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foip_standins::client::control;
use foip_standins::fault::Rule;
use foip_standins::log::{Entry, What};
use foip_standins::scp::{FailoverIp, Knobs, Person, ServerSetup, Setup};
use serde_json::{Value, json};

use crate::plan::{FAILOVER_V6, HOSTS, PROVIDER_V4};
use crate::process::{Launch, Process};
use crate::shell::run;
use crate::signals::wait_until;
use crate::trouble;
use crate::trouble::{Outcome, Tried};
use crate::world::World;

const PORT: u16 = 443;

/// The running stand-in.
pub struct Provider {
    _process: Process,
    socket: PathBuf,
    log: PathBuf,
    /// The authority that signed its certificate.
    pub ca_file: PathBuf,
}

/// A route call that reached the provider.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Call {
    /// When it was decided on, in milliseconds.
    pub at: u64,
    /// The host it came from, by its place in the plan.
    pub host: Option<usize>,
    /// The failover IP.
    pub ip: String,
    /// The host that it is to go to.
    pub to: Option<usize>,
    /// Was it accepted?
    pub accepted: bool,
}

impl Provider {
    /// Starts it with all hosts, and these IPs routed to the first.
    pub fn start(
        world: &World,
        program: &Path,
        ips: &[String],
        knobs: &serde_json::Map<String, Value>,
    ) -> Outcome<Self> {
        let folder = world.folder().join("provider");
        fs::create_dir_all(&folder)?;
        let (socket, log, ca_file, setup_file) = (
            folder.join("control"),
            folder.join("log.jsonl"),
            folder.join("ca.pem"),
            folder.join("setup.json"),
        );
        fs::write(&setup_file, serde_json::to_string_pretty(&setup(ips, knobs)?)?)?;
        let switch = world.write_switch()?;
        let namespace = world.namespace("provider");
        let mut process = Launch::new(&namespace, program, folder.join("output"))
            .args([
                "--listen".to_owned(),
                format!("{PROVIDER_V4}:{PORT}"),
                "--setup".to_owned(),
                setup_file.display().to_string(),
                "--control".to_owned(),
                socket.display().to_string(),
                "--log".to_owned(),
                log.display().to_string(),
                "--dir".to_owned(),
                folder.display().to_string(),
                "--on-route".to_owned(),
                switch.display().to_string(),
            ])
            .start()?;
        let up = wait_until(Duration::from_secs(10), || {
            if let Some(status) = process.ended() {
                let words = process.last_words();
                return Err(trouble!("the provider's stand-in ended ({status}):\n    {words}"));
            }
            Ok(socket.exists() && ca_file.exists())
        })?;
        if !up {
            return Err(trouble!("the provider's stand-in did not start within 10 s"));
        }
        // The stand-in tells of changes only.
        for ip in ips {
            run(&switch.display().to_string(), &[ip, HOSTS[0].server])?;
        }
        Ok(Self { _process: process, socket, log, ca_file })
    }

    /// The configuration's `url`.
    pub fn url(&self) -> String {
        format!("https://{PROVIDER_V4}/scp-core")
    }

    /// The configuration's `auth_url`.
    pub fn auth_url(&self) -> String {
        format!("https://{PROVIDER_V4}/realms/scp")
    }

    /// The SOAP service's `url`.
    pub fn soap_url(&self) -> String {
        format!("https://{PROVIDER_V4}/WSEndUser")
    }

    /// Gives it a command.
    pub fn command(&self, command: &Value) -> Outcome<Value> {
        control(&self.socket, command).tried(|| format!("provider: {command}"))
    }

    /// Routes an IP as a person in the panel would.
    pub fn route_by_hand(&self, ip: &str, host: usize) -> Outcome<()> {
        let server = HOSTS[host].server;
        self.command(&json!({"do": "route", "ip": ip, "server": server})).map(drop)
    }

    /// Its log.
    pub fn log(&self) -> Vec<Entry> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Where its log is.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Route calls within a time, by whomever.
    pub fn calls(&self, from: u64, to: u64) -> Vec<Call> {
        self.log()
            .into_iter()
            .filter(|entry| (from..=to).contains(&entry.at))
            .filter_map(|entry| match entry.what {
                What::Route { client, ip, server, accepted, .. } => Some(Call {
                    at: entry.at,
                    host: HOSTS
                        .iter()
                        .position(|host| host.v4 == client || host.v6.parse() == Ok(client)),
                    ip,
                    to: server.as_deref().and_then(crate::plan::host_of_server),
                    accepted,
                }),
                _ => None,
            })
            .collect()
    }

    /// Requests of a host meet this.
    pub fn fault(&self, host: usize, rule: &Rule) -> Outcome<()> {
        let mut rule = rule.clone();
        rule.on.client = Some(HOSTS[host].v4.into());
        self.command(&json!({"do": "fault", "rule": rule})).map(drop)
    }

    /// How many route calls a fault answered within a time.
    pub fn refused(&self, from: u64, to: u64) -> u64 {
        let met = |entry: &Entry| match &entry.what {
            What::Request { method, path, fault, .. } => {
                fault.is_some() && method == "PATCH" && path.contains("/failoverips/")
            }
            _ => false,
        };
        let log = self.log();
        let within = log.iter().filter(|entry| (from..=to).contains(&entry.at));
        within.filter(|entry| met(entry)).count() as u64
    }

    /// When packets for an IP were switched, and to which host, oldest first.
    pub fn switches(&self, ip: &str) -> Vec<(u64, Option<usize>)> {
        self.log()
            .into_iter()
            .filter_map(|entry| match entry.what {
                What::Switched { ip: switched, server } if switched == ip => {
                    Some((entry.at, server.as_deref().and_then(crate::plan::host_of_server)))
                }
                _ => None,
            })
            .collect()
    }

    /// Requests within a time from one host, of any kind.
    pub fn requests(&self, from: u64, to: u64, host: usize) -> usize {
        let address = HOSTS[host].v4;
        let entries = self.log();
        let mine = entries.iter().filter(|entry| (from..=to).contains(&entry.at));
        mine.filter(
            |entry| matches!(&entry.what, What::Request { client, .. } if *client == address),
        )
        .count()
    }
}

fn setup(ips: &[String], knobs: &serde_json::Map<String, Value>) -> Outcome<Setup> {
    let servers = HOSTS.iter().map(|host| ServerSetup {
        id: host.number,
        name: host.server.to_owned(),
        nickname: Some(host.name.to_owned()),
        mac: host.mac.to_owned(),
        vlan_mac: None,
        ipv4: vec![format!("{}/24", host.v4)],
        ipv6: vec![format!("{}/64", host.v6_prefix)],
        site: 1,
        live: true,
        state: "RUNNING".to_owned(),
        disabled: false,
        foreign: false,
    });
    let failover_ips = ips.iter().zip(333_001..).map(|(ip, id)| FailoverIp {
        id,
        ip: if ip == FAILOVER_V6 { FAILOVER_V6.to_owned() } else { ip.clone() },
        server: Some(HOSTS[0].server.to_owned()),
        site: 1,
        editable: true,
    });
    let mut all = serde_json::to_value(Knobs {
        person: Person::Approve,
        device_interval_s: 1,
        ..Knobs::default()
    })?;
    for (name, value) in knobs {
        all[name] = value.clone();
    }
    let knobs = serde_json::from_value(all).tried(|| "the scenario's [provider]".to_owned())?;
    Ok(Setup {
        servers: servers.collect(),
        failover_ips: failover_ips.collect(),
        knobs,
        ..Setup::default()
    })
}
