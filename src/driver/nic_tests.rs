//! The NIC thread with a kernel: each test has a network namespace of its own.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

/// Longer than anything takes that comes at all.
const LONG: Span = Span::secs(30);

const LIFETIME: Span = Span::secs(600);

const IP: &str = "203.0.113.63";

/// Runs this on a thread in a new namespace, which ends with the thread and those that it starts.
fn inside(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: network namespaces need root");
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test();
        });
        thread.join().unwrap();
    });
}

fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A NIC that is up, with its other end beside it.
fn add(name: &str) {
    ip(&format!("link add {name} type veth peer name {name}-peer"));
    ip(&format!("link set {name}-peer up"));
    ip(&format!("link set {name} up"));
}

/// The IPv4 addresses of a NIC in the kernel's order.
fn addresses(nic: &str) -> Vec<String> {
    let parsed: serde_json::Value =
        serde_json::from_str(&ip(&format!("-j -4 addr show dev {nic}"))).unwrap();
    let rows = parsed[0]["addr_info"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| row["local"].as_str().map(str::to_owned)).collect()
}

fn waits(what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock::now() + LONG;
    while !holds() {
        assert!(clock::now() < end, "{what} does not come");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The thread, and what it says.
struct Bench {
    nic: NicHandle,
    inbox: UnboundedReceiver<Message>,
}

impl Bench {
    /// With one address in the configuration, and this NIC to carry it.
    fn on(name: &str) -> Self {
        let (messages, inbox) = unbounded_channel();
        let nic = NicHandle::start([IP.parse().unwrap()].into(), messages).unwrap();
        let bench = Self { nic, inbox };
        bench.choose(name);
        bench
    }

    fn choose(&self, name: &str) {
        self.nic.choose(Wanted { name: Some(name.to_owned().try_into().unwrap()), mac: None });
    }

    fn put(&mut self) {
        self.nic.put(IP.parse().unwrap(), LIFETIME);
        let result = self.hears("the put", |message| {
            let Message::Event(Event::AddressPut { result, .. }) = message else { return None };
            Some(result)
        });
        assert_eq!(result, Ok(()));
    }

    /// Waits for a message of this kind; what comes before it is passed over.
    fn hears<T>(&mut self, what: &str, fits: impl Fn(Message) -> Option<T>) -> T {
        let mut heard = None;
        waits(what, || {
            while let Ok(message) = self.inbox.try_recv() {
                heard = fits(message);
                if heard.is_some() {
                    break;
                }
            }
            heard.is_some()
        });
        heard.unwrap()
    }

    fn link(&mut self, wanted: bool) {
        self.hears("the state of the link", |message| {
            let Message::Event(Event::Link { up, .. }) = message else { return None };
            (up == wanted).then_some(())
        });
    }
}

#[test]
fn an_address_leaves_the_nic_that_carried_it_before() {
    inside(|| {
        add("eth0");
        add("eth1");
        let mut bench = Bench::on("eth0");
        bench.put();
        assert_eq!(addresses("eth0"), [IP]);
        bench.choose("eth1");
        bench.put();
        assert_eq!(addresses("eth1"), [IP]);
        assert!(addresses("eth0").is_empty(), "it would stay until its lifetime ends");
    });
}

/// A second time, too: what was said once is news again after it was well.
#[test]
fn an_interface_that_is_gone_is_said_refuses_everything_and_is_down() {
    inside(|| {
        add("eth0");
        let mut bench = Bench::on("eth0");
        for _ in 0..2 {
            bench.link(true);
            ip("link del eth0");
            let why = bench.hears("the complaint", |message| {
                let Message::Say(Level::Error, text) = message else { return None };
                Some(text)
            });
            assert!(why.contains("eth0"), "{why}");
            let refused = bench.hears("what it refuses", |message| {
                let Message::Event(Event::Carry(refused)) = message else { return None };
                (!refused.is_empty()).then_some(refused)
            });
            assert_eq!(refused, [(IP.parse().unwrap(), why)].into());
            bench.link(false);
            add("eth0");
        }
    });
}

#[test]
fn ours_goes_behind_a_primary_address_that_was_added_again() {
    inside(|| {
        add("eth0");
        ip("addr add 10.0.0.1/24 dev eth0");
        let mut bench = Bench::on("eth0");
        bench.put();
        assert_eq!(addresses("eth0"), ["10.0.0.1", IP]);
        ip("addr del 10.0.0.1/24 dev eth0");
        ip("addr add 10.0.0.1/24 dev eth0");
        waits("the order", || addresses("eth0") == ["10.0.0.1", IP]);
    });
}
