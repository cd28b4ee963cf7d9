//! What the tests share: a stand-in with a provider in front of it, and what the stand-in saw.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use foip::clock;
use foip::core::config::Api;
use foip::core::facts::{ProviderFailure, RouteOutcome, Routed, TaskId, TaskState};
use foip::provider::{Guard, HostFacts, Options, Provider, Timeouts, open};
use foip::types::{FailoverIp, Server, Span};
use foip_standins::fault::{Fault, Match, Rule};
use foip_standins::log::What;
use foip_standins::scp::{Scp, Setup};

/// The refresh token that the stand-in takes from the start.
pub const REFRESH: &str = "example-refresh-token";

/// A folder of its own, gone when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("foip-provider-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A stand-in and a provider that talks to it.
pub struct Bench {
    pub provider: Box<dyn Provider>,
    pub options: Options,
    pub scp: Scp,
    pub folder: Folder,
}

/// Three servers, tasks of 30 ms, logged in, REST.
pub fn bench() -> Bench {
    with(|_| {})
}

/// The same, after changes to the account.
pub fn with(change: impl FnOnce(&mut Setup)) -> Bench {
    let mut setup = Setup::example();
    setup.knobs.task_ms = 30;
    setup.knobs.soap_ms = 10;
    change(&mut setup);
    let scp = Scp::start(setup).unwrap();
    let folder = Folder::new();
    let url = scp.url();
    let ca_file = folder.0.join("ca.pem");
    std::fs::write(&ca_file, scp.ca_pem()).unwrap();
    let token_file = folder.0.join("token");
    write_token(&token_file, REFRESH);
    let options = Options {
        api: Api::Rest,
        url: Some(format!("{url}/scp-core")),
        auth_url: Some(format!("{url}/realms/scp")),
        ca_file: Some(ca_file),
        token_file,
        addresses: None,
        login_name: "100000".parse().ok(),
        password: Some("webservice-password".into()),
        timeouts: Timeouts { connect: Span::secs(2), total: Span::secs(3) },
    };
    let provider = open(options.clone()).unwrap();
    Bench { provider, options, scp, folder }
}

/// As `foip login` writes it.
pub fn write_token(path: &Path, token: &str) {
    let text = format!(r#"{{"account":"100000","user_id":555001,"refresh_token":"{token}"}}"#);
    std::fs::write(path, text).unwrap();
}

pub fn v4() -> FailoverIp {
    "203.0.113.63".parse().unwrap()
}

pub fn v6() -> FailoverIp {
    "2001:db8:a:20::/64".parse().unwrap()
}

/// The stand-in's n-th server.
pub fn server(n: u64) -> Server {
    Server {
        name: format!("v220260000000000{n}").parse().unwrap(),
        number: Some(111_000 + n),
        mac: format!("02:00:00:ea:83:{:02x}", 0x60 + 2 * n).parse().ok(),
    }
}

/// The n-th host, with its NIC and a bridge.
pub fn host(n: u64) -> HostFacts {
    let nic = |name: &str, mac: String, addresses: &[String]| {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        (name.parse().unwrap(), mac.parse().unwrap(), addresses)
    };
    HostFacts {
        nics: vec![
            nic("cni0", "0a:58:0a:2a:00:01".into(), &["10.42.0.1".into()]),
            nic(
                "eth0",
                format!("02:00:00:ea:83:{:02x}", 0x60 + 2 * n),
                &[format!("198.51.100.8{n}"), format!("2001:db8:c1:{n}::1")],
            ),
        ],
        ..HostFacts::default()
    }
}

/// A guard with time to spare.
pub fn soon() -> Guard {
    Guard { not_after: clock::now() + Span::secs(5), timeout: Span::secs(3) }
}

impl Bench {
    /// A fresh provider, as after a restart.
    pub fn again(&self) -> Box<dyn Provider> {
        open(self.options.clone()).unwrap()
    }

    /// Where the provider says that an IP is; `None` for unknown.
    pub fn routed(&self, ip: FailoverIp) -> Option<Routed> {
        let listing = self.provider.routes(&[ip].into()).value.unwrap();
        listing.routes.get(&ip).cloned()
    }

    /// Why the list of routes cannot be had.
    pub fn trouble(&self) -> ProviderFailure {
        self.provider.routes(&both()).value.unwrap_err()
    }

    /// Follows a task to its end.
    pub fn follow(&self, task: &TaskId) -> TaskState {
        for _ in 0..200 {
            match self.provider.task(task).unwrap() {
                TaskState::Running => std::thread::sleep(Duration::from_millis(10)),
                end => return end,
            }
        }
        TaskState::Running
    }

    /// What a route call becomes whose one request of this method meets the fault: unknown, in time, carried out or not.
    pub fn leaves_unknown(&self, to: &Server, method: &str, fault: Fault, carried_out: bool) {
        let what = format!("{fault:?}");
        let before = self.asked(method, 0);
        self.scp.fault(Rule::new(Match::method(method, ""), fault));
        let guard = Guard { timeout: Span::millis(700), ..soon() };
        let began = clock::now();
        let routing = self.provider.route(v4(), to, guard);
        assert!(clock::now().since(began) < Span::millis(2500), "{what}");
        assert!(
            matches!(routing.outcome, RouteOutcome::Unknown(_)),
            "{what}: {:?}",
            routing.outcome
        );
        assert!(routing.started.is_some(), "{what}");
        assert_eq!(self.asked(method, before + 1), before + 1, "{what}");
        assert_eq!(self.route_calls() == 1, carried_out, "{what}");
    }

    /// How many requests so far have this in "METHOD /path?query", once there are `expected`: the
    /// stand-in logs a request when it is done with it, which may be after the client is.
    pub fn asked(&self, part: &str, expected: usize) -> usize {
        let count = || {
            let log = self.scp.log();
            let seen = log.iter().filter(|entry| match &entry.what {
                What::Request { method, path, .. } => format!("{method} {path}").contains(part),
                _ => false,
            });
            seen.count()
        };
        for _ in 0..300 {
            if count() >= expected {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        count()
    }

    /// How many route requests reached the account.
    pub fn route_calls(&self) -> usize {
        let log = self.scp.log();
        let calls = log.iter().filter(|entry| matches!(entry.what, What::Route { .. }));
        calls.count()
    }

    /// Learns everything that a route call needs, so that the call is one request.
    pub fn warm(&self) {
        for n in 1..=3 {
            self.provider.home(&host(n)).unwrap();
        }
        self.provider.routes(&both()).value.unwrap();
    }
}

pub fn both() -> BTreeSet<FailoverIp> {
    [v4(), v6()].into()
}
