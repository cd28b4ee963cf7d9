//! A listener inside another network namespace. Needs root and iproute2, as the lab does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program stops at the first surprise"
)]

use std::process::Command as Process;

use foip_standins::kube::{Command, Kube, Setup};
use foip_standins::wire::Listen;

fn ip(words: &[&str]) -> String {
    let done = Process::new("ip").args(words).output().unwrap();
    assert!(done.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A namespace, gone at the end.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("foip{}{name}", std::process::id());
        ip(&["netns", "add", &name]);
        let made = Self(name);
        ip(&["-n", &made.0, "link", "set", "lo", "up"]);
        made
    }

    /// The ports that somebody listens on.
    fn listens(&self) -> String {
        ip(&["netns", "exec", &self.0, "cat", "/proc/net/tcp"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Process::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn one_program_serves_the_loopback_of_several_hosts() {
    let hosts = [Namespace::new("a"), Namespace::new("b")];
    // A port that is free here, so that it can be seen that nobody takes it here.
    let found = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = found.local_addr().unwrap().port();
    drop(found);
    let place =
        |host: &Namespace| -> Listen { format!("{}@127.0.0.1:{free}", host.0).parse().unwrap() };
    let setup = Setup { listen: hosts.iter().map(place).collect(), ..Setup::example(&["node-a"]) };
    let kube = Kube::start(setup).unwrap();
    // The address as the kernel writes it, listening.
    let port = &format!("0100007F:{free:04X} 00000000:0000 0A");
    assert!(hosts.iter().all(|host| host.listens().contains(port)));
    kube.command(Command::Refuse { listener: Some(1) }).unwrap();
    assert!(hosts[0].listens().contains(port) && !hosts[1].listens().contains(port));
    kube.command(Command::Accept { listener: Some(1) }).unwrap();
    assert!(hosts[1].listens().contains(port), "it opens in its namespace again");
    let own = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    assert!(!own.contains(port), "and nowhere else");
}
