//! foip on one host: its folders, its configuration, its process, and what it tells its service manager.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use foip::clock;
use foip::core::action::Action;
use foip::core::facts::Key;
use foip::core::ledger::Ledger;
use foip::history::trace::Line;
use foip::types::Tick;
use nix::sys::signal::Signal;

use crate::plan::{ACCOUNT, FAILOVER_V6, FAILOVER_V6_HOST, HOSTS};
use crate::process::{Launch, Process};
use crate::signals::wait_until;
use crate::trouble;
use crate::trouble::{Outcome, Tried};
use crate::world::World;

/// What all hosts' configurations have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// The program.
    pub foip: PathBuf,
    /// The failover IPs.
    pub ips: Vec<String>,
    /// The provider's `url`.
    pub url: String,
    /// The provider's `auth_url`.
    pub auth_url: String,
    /// The provider's authority, PEM.
    pub ca_file: PathBuf,
    /// What a scenario changes: tables of the configuration, merged over the rest.
    pub changes: toml::Table,
    /// Write traces?
    pub trace: bool,
}

/// Why foip did not run for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// SIGKILL, and perhaps a new start at the end.
    Killed,
    /// SIGTERM, and a new start at the end.
    Terminated,
    /// SIGSTOP, and SIGCONT at the end.
    Stopped,
}

/// A time without foip; it may last.
pub type Absence = (Why, u64, Option<u64>);

/// foip on one host.
pub struct Agent {
    host: usize,
    folder: PathBuf,
    foip: PathBuf,
    trace: bool,
    notices: Arc<Mutex<Vec<(u64, String)>>>,
    read: usize,
    process: Option<Process>,
    starts: u32,
    /// When it said READY=1, in milliseconds; `None` until then.
    pub ready_at: Option<u64>,
    /// The last STATUS= it sent.
    pub status: String,
    /// When it did not run, or was stopped: closed stretches, and perhaps one that lasts.
    pub absent: Vec<Absence>,
    /// When the first of its processes was started, in milliseconds.
    pub began: Option<u64>,
    /// When its processes ended.
    deaths: Vec<u64>,
}

impl Agent {
    /// Makes folders and files; starts nothing.
    pub fn prepare(world: &World, host: usize, common: &Common, kubeconfig: &str) -> Outcome<Self> {
        let folder = world.host_folder(host);
        for name in ["state", "run", "trace"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::write(folder.join("kubeconfig"), kubeconfig)?;
        fs::write(folder.join("foip.toml"), configuration(host, common, &folder)?)?;
        let notices = Arc::default();
        let socket = UnixDatagram::bind(folder.join("notify"))?;
        let kept = Arc::downgrade(&notices);
        std::thread::spawn(move || attend(&socket, &kept));
        Ok(Self {
            host,
            folder,
            foip: common.foip.clone(),
            trace: common.trace,
            notices,
            read: 0,
            process: None,
            starts: 0,
            ready_at: None,
            status: String::new(),
            absent: Vec::new(),
            began: None,
            deaths: Vec::new(),
        })
    }

    fn launch<'a>(&'a self, world: &World, namespace: &'a str, log: &str) -> Launch<'a> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut launch = Launch::new(namespace, &self.foip, self.folder.join(log))
            .args(["--config".to_owned(), path("foip.toml")])
            .env("STATE_DIRECTORY", path("state"))
            .env("RUNTIME_DIRECTORY", path("run"));
        launch.boot_id = Some(world.boot_id(self.host));
        launch.started = Some(self.folder.join("started"));
        launch
    }

    /// `foip login`, once; the stand-in's person approves.
    pub fn login(&self, world: &World) -> Outcome<()> {
        let namespace = world.host(self.host);
        let mut login = self.launch(world, &namespace, "login.log").args(["login"]).start()?;
        let mut ended = None;
        wait_until(Duration::from_secs(20), || {
            ended = login.ended();
            Ok(ended.is_some())
        })?;
        match ended {
            Some(status) if status == "exit status: 0" => Ok(()),
            other => Err(trouble!(
                "foip login on {}: {}\n    {}",
                HOSTS[self.host].name,
                other.unwrap_or_else(|| "did not end within 20 s".into()),
                login.last_words()
            )),
        }
    }

    /// Starts `foip run` with a trace of its own.
    pub fn start(&mut self, world: &World) -> Outcome<()> {
        if self.process.is_some() {
            return Ok(());
        }
        self.listen();
        self.starts += 1;
        let trace = self.folder.join("trace").join(format!("{:04}.jsonl", self.starts));
        let notify = self.folder.join("notify").display().to_string();
        let namespace = world.host(self.host);
        let launch =
            self.launch(world, &namespace, "foip.log").args(["run"]).env("NOTIFY_SOCKET", notify);
        let launch = match self.trace {
            true => launch.args(["--trace".to_owned(), trace.display().to_string()]),
            false => launch,
        };
        let process = launch.start()?;
        self.began.get_or_insert(clock::now().0);
        (self.process, self.ready_at) = (Some(process), None);
        self.present();
        Ok(())
    }

    /// Reads what it told its service manager since the last time.
    pub fn listen(&mut self) {
        let notices = self.notices.lock().expect("nobody panics with the lock");
        for (at, line) in &notices[self.read..] {
            if line == "READY=1" && self.ready_at.is_none() {
                self.ready_at = Some(*at);
            }
            if let Some(status) = line.strip_prefix("STATUS=") {
                status.clone_into(&mut self.status);
            }
        }
        self.read = notices.len();
    }

    /// From the last start to READY, in milliseconds, once it has said so.
    pub fn start_to_ready(&mut self) -> Option<u64> {
        self.listen();
        // Written in the moment before the program proper: what the lab puts in front of it does not count.
        let text = fs::read_to_string(self.folder.join("started")).unwrap_or_default();
        let began = text.trim().replace('.', "").parse::<u64>().map_or(0, |ticks| ticks * 10);
        self.ready_at.map(|at| at.saturating_sub(began))
    }

    /// Has a process that was not stopped, and did not end by itself?
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.alive() && !process.stopped())
    }

    /// The process, if there is one.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// An error if it ended although nobody asked it to.
    pub fn check(&mut self) -> Outcome<()> {
        let Some(process) = self.process.as_mut() else {
            return Ok(());
        };
        match process.ended() {
            None => Ok(()),
            Some(status) => Err(trouble!(
                "foip on {} ended by itself ({status}):\n    {}",
                HOSTS[self.host].name,
                process.last_words()
            )),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
            self.deaths.push(clock::now().0);
            self.gone(Why::Killed);
        }
    }

    /// SIGTERM, and waits for its end: at most 3 s, as the bound is 2 s.
    pub fn terminate(&mut self) -> Outcome<u64> {
        let Some(mut process) = self.process.take() else {
            return Ok(0);
        };
        let start = clock::now().0;
        process.signal(Signal::SIGTERM)?;
        let ended = wait_until(Duration::from_secs(8), || Ok(!process.alive()))?;
        process.kill();
        self.deaths.push(clock::now().0);
        self.gone(Why::Terminated);
        if ended {
            Ok(clock::now().0 - start)
        } else {
            Err(trouble!("foip on {} did not end 8 s after SIGTERM", HOSTS[self.host].name))
        }
    }

    /// SIGHUP.
    pub fn reload(&mut self) -> Outcome<()> {
        self.signal(Signal::SIGHUP)
    }

    /// SIGSTOP.
    pub fn pause(&mut self) -> Outcome<()> {
        self.signal(Signal::SIGSTOP)?;
        self.gone(Why::Stopped);
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Outcome<()> {
        self.signal(Signal::SIGCONT)?;
        self.present();
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Outcome<()> {
        let name = HOSTS[self.host].name;
        let process = self.process.as_mut().ok_or_else(|| trouble!("no foip runs on {name}"))?;
        process.signal(signal)
    }

    fn gone(&mut self, why: Why) {
        match self.absent.last_mut() {
            // Killed while it was stopped: that is what counts from now on.
            Some((known, _, None)) => *known = why,
            _ => self.absent.push((why, clock::now().0, None)),
        }
    }

    fn present(&mut self) {
        if let Some((_, _, end @ None)) = self.absent.last_mut() {
            *end = Some(clock::now().0);
        }
    }

    /// The traces of all its runs, oldest first.
    pub fn traces(&self) -> Vec<PathBuf> {
        let listing = fs::read_dir(self.folder.join("trace"));
        let mut files: Vec<PathBuf> =
            listing.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    /// Does the trace of its last run say that it wrote an intent at or after this moment?
    pub fn sent_intent(&self, from: Tick) -> bool {
        let Some(file) = self.traces().pop() else { return false };
        let text = fs::read_to_string(file).unwrap_or_default();
        // From the end, and only as far as needed: this is asked every 20 ms.
        let lines = text.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
        let mut since = lines.map_while(|line| match line {
            Line::Event { t, .. } => (t >= from).then_some(Vec::new()),
            Line::Actions { t, actions } => (t >= from).then_some(actions),
            Line::Header(_) => None,
        });
        since.any(|actions| actions.iter().any(is_intent))
    }

    /// When its processes ended, in milliseconds.
    pub fn deaths(&self) -> &[u64] {
        &self.deaths
    }

    /// Takes over when somebody else's processes ended here, each with the start of the next.
    pub fn recall(&mut self, absent: Vec<Absence>) {
        self.began.get_or_insert(0);
        self.deaths = absent.iter().map(|(_, from, _)| *from).collect();
        self.absent = absent;
    }

    /// What must not appear anywhere: the token, if it has one.
    pub fn secrets(&self) -> Vec<String> {
        let token = fs::read_to_string(self.folder.join("state/token")).unwrap_or_default();
        token.split_whitespace().map(str::to_owned).collect()
    }

    /// Where its log, configuration and state are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Does it write a call without an end into the ledger?
fn is_intent(action: &Action) -> bool {
    match action {
        Action::Write { key: Key::Ledger, doc, .. } => {
            Ledger::parse(doc).is_some_and(|l| l.calls().any(|call| call.end.is_none()))
        }
        _ => false,
    }
}

/// Notes each line with its time, until its agent is gone.
fn attend(socket: &UnixDatagram, kept: &Weak<Mutex<Vec<(u64, String)>>>) {
    let mut buffer = [0; 4096];
    // Without it the thread would not notice that nobody listens any more.
    let limited = socket.set_read_timeout(Some(Duration::from_millis(500)));
    while let (Ok(()), Some(notices)) = (&limited, kept.upgrade()) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let at = clock::now().0;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let mut notices = notices.lock().expect("nobody panics with the lock");
        notices.extend(text.lines().map(|line| (at, line.to_owned())));
    }
}

/// The configuration file of a host.
fn configuration(host: usize, common: &Common, folder: &Path) -> Outcome<String> {
    let plan = &HOSTS[host];
    let mut file = toml::Table::new();
    let mut table = |name: &str, pairs: &[(&str, String)]| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into()));
        file.insert(name.to_owned(), toml::Value::Table(pairs.collect()));
    };
    table(
        "provider",
        &[
            ("api", "rest".into()),
            ("url", common.url.clone()),
            ("auth_url", common.auth_url.clone()),
            ("ca_file", common.ca_file.display().to_string()),
        ],
    );
    table("node", &[("name", plan.name.into())]);
    table("kubernetes", &[("kubeconfig", folder.join("kubeconfig").display().to_string())]);
    let ips = common.ips.iter().map(|ip| {
        let mut entry = toml::Table::new();
        entry.insert("address".into(), ip.clone().into());
        if ip == FAILOVER_V6 {
            entry.insert("hosts".into(), vec![FAILOVER_V6_HOST].into());
        }
        toml::Value::Table(entry)
    });
    file.insert("failover_ip".into(), toml::Value::Array(ips.collect()));
    if common.changes.get("provider").is_some_and(|p| p.get("api") == Some(&"soap".into())) {
        let password = folder.join("soap-password");
        fs::write(&password, "webservice-password\n")?;
        let provider = file["provider"].as_table_mut().expect("it was just made");
        provider.insert("login_name".into(), ACCOUNT.into());
        provider.insert("password_file".into(), password.display().to_string().into());
        provider.remove("auth_url");
    }
    for (name, change) in &common.changes {
        merge(&mut file, name, change);
    }
    toml::to_string(&file).tried(|| "cannot write a configuration".to_owned())
}

fn merge(into: &mut toml::Table, name: &str, change: &toml::Value) {
    match (into.get_mut(name), change) {
        (Some(toml::Value::Table(known)), toml::Value::Table(changes)) => {
            for (key, value) in changes {
                known.insert(key.clone(), value.clone());
            }
        }
        _ => {
            into.insert(name.to_owned(), change.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_changes_parts_of_the_configuration() {
        let common = Common {
            foip: "foip".into(),
            ips: vec!["203.0.113.63".into(), FAILOVER_V6.into()],
            url: "https://192.0.2.130:8443/scp-core".into(),
            auth_url: "https://192.0.2.130:8443/realms/scp".into(),
            ca_file: "ca.pem".into(),
            trace: true,
            changes: toml::from_str("lease.duration = '5s'\nnode.priority = 7\n").unwrap(),
        };
        let text = configuration(1, &common, Path::new("/tmp/x")).unwrap();
        let file: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(file["node"]["name"].as_str(), Some("node-b"));
        assert_eq!(file["node"]["priority"].as_integer(), Some(7));
        assert_eq!(file["lease"]["duration"].as_str(), Some("5s"));
        assert_eq!(file["failover_ip"][1]["hosts"][0].as_str(), Some(FAILOVER_V6_HOST));
    }
}
