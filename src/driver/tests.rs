//! The driver at its own seam: whole, with a netcup that is a stand-in and a cluster that nobody can reach.

use std::sync::{Mutex, PoisonError};

use super::hands::Opening;
use super::*;
use crate::config::{Host, Places};
use crate::core::facts::{ApiFailure, Listing, PastCall, TaskId, TaskState};
use crate::files::tests::Folder;
use crate::provider::{Dated, Guard, HostFacts, Provider, Routing};
use crate::types::{FailoverIp, Server};

/// Longer than anything takes that comes at all.
const LONG: Duration = Duration::from_secs(30);

/// A provider that nobody asks anything but what these tests are about.
#[derive(Default)]
struct Netcup {
    unsaved: Mutex<Option<String>>,
    kept_alive: Mutex<Option<UnboundedSender<()>>>,
}

fn silent() -> ProviderFailure {
    ProviderFailure::Retry { why: "it says nothing".into(), after: None }
}

impl Provider for Netcup {
    fn home(&self, _: &HostFacts) -> Result<Home, ProviderFailure> {
        Err(silent())
    }

    fn routes(
        &self,
        _: &std::collections::BTreeSet<FailoverIp>,
    ) -> Dated<Result<Listing, ProviderFailure>> {
        Dated { value: Err(silent()), date: None }
    }

    fn route(&self, ip: FailoverIp, _: &Server, _: Guard) -> Routing {
        panic!("a route call for {ip}")
    }

    fn task(&self, _: &TaskId) -> Result<TaskState, ProviderFailure> {
        Err(silent())
    }

    fn past_calls(&self) -> Result<Option<Vec<PastCall>>, ProviderFailure> {
        Err(silent())
    }

    fn account(&self) -> Option<Account> {
        None
    }

    fn keep_alive(&self) -> Result<(), ProviderFailure> {
        let told = self.kept_alive.lock().unwrap_or_else(PoisonError::into_inner);
        told.as_ref().unwrap().send(()).unwrap();
        Ok(())
    }

    fn token_age(&self) -> Option<Span> {
        None
    }

    fn unsaved(&self) -> Option<String> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A driver in a dry run, and what it is given.
struct Bench {
    folder: Folder,
    driver: Driver,
    inbox: UnboundedReceiver<Message>,
    reloads: u64,
}

const CHECK: &str = "[[check]]\nname = \"shop\"\ntcp = \"127.0.0.1:1\"\ninterval = \"1s\"\ntimeout = \"1s\"\n\
                     rise = 1\nfall = 1\n";

/// What the file says, with this at its end.
fn settings(folder: &Folder, more: &str) -> Settings {
    let kubeconfig = folder.0.join("kubeconfig");
    let text = format!(
        "[provider]\napi = \"rest\"\nurl = \"http://127.0.0.1:1/\"\nauth_url = \"http://127.0.0.1:1/\"\n\
         [[failover_ip]]\naddress = \"203.0.113.63\"\n[node]\nname = \"node-a\"\n\
         [kubernetes]\nkubeconfig = {kubeconfig:?}\n{more}"
    );
    let places =
        Places { state: folder.0.clone(), runtime: folder.0.join("run"), credentials: None };
    let host = Host {
        places,
        kubeconfig: None,
        kubelet_certificate: folder.0.join("kubelet.crt"),
        hostname: "node-a".into(),
    };
    Settings::parse(&folder.0.join("foip.toml"), &text, &host).unwrap()
}

impl Bench {
    fn new(more: &str) -> Self {
        let folder = Folder::new();
        let token = r#"{"account":"100000","user_id":555001,"refresh_token":"secret"}"#;
        std::fs::write(folder.0.join("token"), token).unwrap();
        let (messages, inbox) = unbounded_channel();
        let config = folder.0.join("foip.toml");
        let options = Options { config, trace: None, dry_run: true };
        let log = Log::of_process().unwrap();
        let driver = Driver::start(settings(&folder, more), &options, log, &messages).unwrap();
        Self { folder, driver, inbox, reloads: 0 }
    }

    fn reload(&mut self, more: &str) {
        let settings = settings(&self.folder, more);
        let opening = Opening::of(&settings.provider);
        self.reloads += 1;
        self.driver.reloaded(self.reloads, Ok(Box::new((settings, opening))));
    }

    fn alarm(&mut self, code: &str) -> Option<String> {
        self.driver.step(Event::Wake);
        let status = self.driver.summary.status(&self.driver.core, clock::now());
        status.alarms.into_iter().find(|alarm| alarm.code == code).map(|alarm| alarm.text)
    }

    fn search(&self) -> u64 {
        self.driver.search.as_ref().unwrap().number()
    }

    /// The next message of this kind, which the driver has not heard; what comes before it is passed over.
    async fn hears<T>(&mut self, fits: impl Fn(Message) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(heard) = fits(self.inbox.recv().await.unwrap()) {
                    return heard;
                }
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap()
    }

    /// The addresses that the NIC is next said to refuse.
    async fn refused(&mut self) -> Vec<String> {
        let refused = self.hears(|message| {
            let Message::Event(Event::Carry(refused)) = message else { return None };
            Some(refused)
        });
        refused.await.keys().map(ToString::to_string).collect()
    }
}

/// Runs this where a driver may be.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = tokio::task::LocalSet::new().block_on(&runtime, test);
    runtime.shutdown_background();
    result
}

/// It was asked about another server, or at another provider.
#[test]
fn an_answer_of_an_earlier_search_is_not_heard() {
    run(async {
        let mut bench = Bench::new("");
        let mac = Mac([2, 0, 0, 0xea, 0x83, 0x62]);
        let name = "v2202600000000001".to_owned().try_into().unwrap();
        let home = Home { server: Server { name, number: Some(1), mac: Some(mac) }, mac };
        let before = bench.search();
        bench.reload("");
        let now = bench.search();
        assert!(now > before, "a reload searches anew");
        bench.driver.hear(Message::Home { search: before, result: Ok(home.clone()) });
        assert_eq!(bench.driver.mac, None);
        bench.driver.hear(Message::Home { search: now, result: Ok(home) });
        assert_eq!(bench.driver.mac, Some(mac));
    });
}

#[test]
fn a_check_that_was_removed_is_heard_no_more_by_whatever_way() {
    run(async {
        let mut bench = Bench::new(CHECK);
        let verdict = bench.hears(|message| {
            let Message::Verdict(verdict) = message else { return None };
            Some(verdict)
        });
        let verdict = verdict.await;
        assert!(!verdict.passing, "{verdict:?}");
        bench.driver.hear(Message::Verdict(verdict.clone()));
        assert!(bench.alarm("check").unwrap().contains("shop"));
        // What goes on as it was is told again.
        bench.reload(CHECK);
        assert!(bench.alarm("check").unwrap().contains("shop"));
        bench.reload("");
        assert_eq!(bench.alarm("check"), None, "its last verdict was told again");
        // Or was on its way when the reload came.
        bench.driver.hear(Message::Verdict(verdict));
        assert_eq!(bench.alarm("check"), None, "its verdict came late");
        bench.reload("");
        assert_eq!(bench.alarm("check"), None);
    });
}

#[test]
fn a_token_that_cannot_be_read_at_a_reload_makes_nobody_forget_the_account() {
    run(async {
        let mut bench = Bench::new("");
        let account = bench.driver.hands.settings.core.account.clone();
        assert_eq!(account.as_ref().map(ToString::to_string).as_deref(), Some("100000"));
        std::fs::write(bench.folder.0.join("token"), "half").unwrap();
        assert_eq!(settings(&bench.folder, "").core.account, None);
        bench.reload("");
        assert_eq!(bench.driver.hands.settings.core.account, account);
    });
}

#[test]
fn what_netcups_client_cannot_save_is_an_alarm_until_it_can() {
    run(async {
        let mut bench = Bench::new("");
        let netcup = std::sync::Arc::new(Netcup::default());
        bench.driver.hands.provider = netcup.clone();
        *netcup.unsaved.lock().unwrap() = Some("the new token is on no disk".into());
        bench.driver.tell();
        assert!(bench.alarm("unsaved").unwrap().contains("on no disk"));
        *netcup.unsaved.lock().unwrap() = None;
        bench.driver.tell();
        assert_eq!(bench.alarm("unsaved"), None);
    });
}

#[test]
fn the_token_is_kept_alive_whenever_that_is_due() {
    run(async {
        let mut bench = Bench::new("");
        let netcup = std::sync::Arc::new(Netcup::default());
        let (told, mut kept_alive) = unbounded_channel();
        *netcup.kept_alive.lock().unwrap() = Some(told);
        bench.driver.hands.provider = netcup;
        let begun = bench.driver.kept;
        // Each is asked on a thread; none runs while two moments are looked at.
        for now in [begun, begun + KEEP_ALIVE, begun + KEEP_ALIVE, begun + KEEP_ALIVE.times(2)] {
            bench.driver.keep_alive(now);
        }
        for _ in 0..2 {
            tokio::time::timeout(LONG, kept_alive.recv()).await.unwrap().unwrap();
        }
        drop(bench);
        assert_eq!(kept_alive.recv().await, None, "more often than it is due");
    });
}

/// They are told before they are needed, of each address that is configured now.
#[test]
fn a_reload_tells_the_nic_which_addresses_there_are() {
    run(async {
        let mut bench = Bench::new("");
        let name = Some("none0".to_owned().try_into().unwrap());
        bench.driver.hands.nic.choose(Wanted { name, mac: None });
        assert_eq!(bench.refused().await, ["203.0.113.63"]);
        let more = "[[failover_ip]]\naddress = \"203.0.113.64\"\n";
        let settings = settings(&bench.folder, more);
        bench.driver.hands.reconfigure(settings, None).unwrap();
        assert_eq!(bench.refused().await, ["203.0.113.63", "203.0.113.64"]);
    });
}

/// The core could take them for the new one's: a Lease of the same name may be in either.
#[test]
fn an_answer_of_the_cluster_before_is_told_as_unknown() {
    run(async {
        let mut bench = Bench::new("");
        // The first list was asked for at the start; nothing of it has been sent yet.
        let settings = settings(&bench.folder, "namespace = \"foip\"\n");
        bench.driver.hands.reconfigure(settings, None).unwrap();
        let listed = bench.hears(|message| {
            let Message::Event(Event::Listed { result, .. }) = message else { return None };
            Some(result)
        });
        let words = "asked before the configuration named another cluster";
        let result = listed.await;
        assert!(
            matches!(&result, Err(ApiFailure::Unknown(why)) if why.contains(words)),
            "{result:?}"
        );
    });
}
