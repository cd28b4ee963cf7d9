//! `foip run` as a process: its lock, its signals, and what it does while everything around it hangs.
//!
//! Nothing here reaches further than loopback: the provider is a listener that never answers, and there is no
//! kubeconfig unless a test brings one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test program stops at the first surprise"
)]

#[path = "service/causes.rs"]
mod causes;
#[path = "service/disk.rs"]
mod disk;
#[path = "service/greedy.rs"]
mod greedy;
#[path = "service/half.rs"]
mod half;
#[path = "service/hangs.rs"]
mod hangs;
#[path = "service/held.rs"]
mod held;
#[path = "service/host_changes.rs"]
mod host_changes;
#[path = "service/journal.rs"]
mod journal;
#[path = "service/login.rs"]
mod login;
#[path = "service/place.rs"]
mod place;
#[path = "service/reload.rs"]
mod reload;
#[path = "service/storm.rs"]
mod storm;

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foip::status::Status;
use foip::types::Tick;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A host with a provider that takes connections and never says anything.
struct Host {
    folder: PathBuf,
    notify: UnixDatagram,
    provider: TcpListener,
    /// Without the paths.
    provider_url: String,
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("foip-service-{}-{count}", std::process::id()));
        fs::create_dir_all(folder.join("state")).unwrap();
        let provider = TcpListener::bind("127.0.0.1:0").unwrap();
        let notify = UnixDatagram::bind(folder.join("notify")).unwrap();
        notify.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let token = "{\"account\":\"100000\",\"user_id\":555001,\"refresh_token\":\"top-secret\"}";
        fs::write(folder.join("state/token"), token).unwrap();
        let provider_url = format!("http://{}", provider.local_addr().unwrap());
        let host = Self { folder, notify, provider, provider_url };
        host.configure("");
        host
    }

    /// Not there unless a test writes it.
    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    fn configure(&self, more: &str) {
        let (at, kubeconfig) = (&self.provider_url, self.kubeconfig());
        let text = format!(
            "[provider]\napi = \"rest\"\nurl = \"{at}/scp-core\"\nauth_url = \"{at}/realms/scp\"\n\
             [[failover_ip]]\naddress = \"203.0.113.63\"\n[node]\nname = \"node-a\"\n\
             [kubernetes]\nkubeconfig = {kubeconfig:?}\n{more}"
        );
        fs::write(self.folder.join("foip.toml"), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foip"));
        command
            .args(["run", "--config"])
            .arg(self.folder.join("foip.toml"))
            .env("STATE_DIRECTORY", self.folder.join("state"))
            .env("RUNTIME_DIRECTORY", self.folder.join("run"))
            .env("NOTIFY_SOCKET", self.folder.join("notify"))
            .env("WATCHDOG_USEC", "3000000")
            .env_remove("WATCHDOG_PID")
            .env_remove("JOURNAL_STREAM")
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("FOIP_KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self) -> Service {
        let service = Service(self.command().spawn().unwrap());
        // The first sign of life: the status, or the watchdog.
        self.hear("WATCHDOG=1");
        service
    }

    /// Waits until the service manager has been told something that begins like this.
    fn hear(&self, what: &str) -> String {
        let mut bytes = [0; 4096];
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let length = self.notify.recv(&mut bytes).expect("the service tells systemd nothing");
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if message.starts_with(what) {
                return message;
            }
        }
        panic!("nobody says {what}");
    }

    /// The status once it is newer than `tick`.
    fn status_after(&self, tick: Tick) -> Status {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            let text = fs::read_to_string(self.folder.join("run/status.json")).unwrap_or_default();
            if let Ok(status) = serde_json::from_str::<Status>(&text)
                && status.tick > tick
            {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no new status");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A running foip, killed at the end of the test if it still runs.
struct Service(Child);

impl Service {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Its loop turns, and SIGTERM ends it in time; what it writes goes nowhere.
    fn turns_and_leaves(mut self, host: &Host) {
        let mut tick = Tick(0);
        for _ in 0..2 {
            tick = host.status_after(tick).tick;
        }
        let begun = Instant::now();
        self.signal(Signal::SIGTERM);
        while self.0.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(2));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its exit code and what it wrote to stderr, once it ends; it has this long.
    fn end(mut self, limit: Duration) -> (Option<i32>, String) {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_hanging_provider_stops_neither_the_loop_nor_the_way_out() {
    let host = Host::new();
    let service = host.start();
    let before = host.status_after(Tick(0));
    for _ in 0..4 {
        host.hear("WATCHDOG=1");
    }
    host.status_after(before.tick);
    let begun = Instant::now();
    service.signal(Signal::SIGTERM);
    host.hear("STOPPING=1");
    let (code, said) = service.end(Duration::from_secs(2));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" starts on node node-a"), "{said}");
    assert!(!said.contains("top-secret"), "{said}");
}

/// A pipe that takes not one byte more, and its reader, who never reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'x'; 1]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn a_frozen_service_manager_and_a_blocked_log_stop_neither() {
    let host = Host::new();
    // The manager's queue is short, and this fills it soon: nobody reads it here.
    let mut command = host.command();
    let (_reader, log) = full_pipe();
    let service = Service(command.stderr(log).env("WATCHDOG_USEC", "3000").spawn().unwrap());
    service.turns_and_leaves(&host);
}

/// `foip run` in a mount namespace of its own, after these commands, whose `$0` is the host's folder.
fn in_mounts(host: &Host, mounts: &str) -> Command {
    let plain = host.command();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec"])
        .arg(format!("{mounts}; exec \"$@\""))
        .arg(&host.folder)
        .arg(plain.get_program())
        .args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// `foip run` attached to a journald whose socket is in the host's folder: /run is empty but for it.
fn under_journald(host: &Host) -> Command {
    let log = fs::File::create(host.folder.join("stderr")).unwrap();
    let stream = log.metadata().unwrap();
    let mut command = in_mounts(
        host,
        "mount -t tmpfs none /run; mkdir /run/systemd; ln -s \"$0\" /run/systemd/journal",
    );
    command.env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino())).stderr(log);
    command
}

#[test]
fn a_second_process_is_refused_by_name() {
    let host = Host::new();
    let first = host.start();
    let second = Service(host.command().spawn().unwrap());
    let (code, said) = second.end(Duration::from_secs(5));
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!("another foip (process {}) runs with ", first.0.id())),
        "{said}"
    );
    drop(first);
    // Killed, it leaves nothing that keeps its successor out.
    let third = host.start();
    third.signal(Signal::SIGTERM);
    assert_eq!(third.end(Duration::from_secs(2)).0, Some(0));
}

#[test]
fn a_bad_configuration_on_sighup_is_told_and_the_last_good_one_stays() {
    let host = Host::new();
    let service = host.start();
    host.configure("[lease]\nduration = \"1s\"\n");
    service.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    host.configure("[health]\ndwell = \"1m\"\n");
    service.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    host.hear("WATCHDOG=1");
    service.signal(Signal::SIGTERM);
    let (code, said) = service.end(Duration::from_secs(2));
    assert_eq!(code, Some(0));
    let bad = said.find("foip.toml:12:12: duration = \"1s\" is too short").expect(&said);
    let good = said.find("the new configuration is in force").expect(&said);
    assert!(said.contains("the configuration stays as it was"), "{said}");
    assert!(bad < good, "{said}");
}

#[test]
fn secrets_get_into_no_core_dump() {
    let host = Host::new();
    let service = host.start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.0.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
}

#[test]
fn a_real_trace_replays_the_same_and_holds_no_secret() {
    let host = Host::new();
    let trace = host.folder.join("trace");
    for dry in [false, true] {
        let mut command = host.command();
        command.arg("--trace").arg(&trace);
        if dry {
            command.arg("--dry-run");
        }
        let service = Service(command.spawn().unwrap());
        if dry {
            // A dry run leaves the status file to the foip that it may run beside.
            std::thread::sleep(Duration::from_secs(3));
        } else {
            let tick = host.status_after(foip::clock::now()).tick;
            host.status_after(tick);
        }
        service.signal(Signal::SIGTERM);
        let (code, said) = service.end(Duration::from_secs(2));
        assert_eq!(code, Some(0), "{said}");
        let text = fs::read_to_string(&trace).unwrap();
        assert!(text.contains("\"event\":\"stop\""), "{text}");
        assert!(!text.contains("top-secret"), "{text}");
        let replay =
            Command::new(env!("CARGO_BIN_EXE_foip")).arg("replay").arg(&trace).output().unwrap();
        assert_eq!(replay.status.code(), Some(0), "{}", String::from_utf8_lossy(&replay.stderr));
    }
}
