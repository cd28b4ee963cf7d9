//! The two programs, as the lab runs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test program stops at the first surprise"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use foip_standins::client::{Client, control};
use foip_standins::log::{Entry, What};
use foip_standins::scp::Setup;
use serde_json::json;

/// A folder and a program, both gone at the end.
struct Run {
    dir: PathBuf,
    child: Child,
    /// The lines it printed at its start.
    said: Vec<String>,
}

impl Run {
    fn start(program: &str, name: &str, lines: usize, args: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("foip-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let setup = serde_json::to_string(&Setup::example()).unwrap();
        std::fs::write(dir.join("setup.json"), setup).unwrap();
        let place = dir.to_str().unwrap();
        let args = args.iter().map(|arg| arg.replace("DIR", place));
        let mut child = Command::new(program)
            .args(args)
            .args(["--dir", place, "--log", dir.join("log").to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let said = out.lines().take(lines).map(Result::unwrap).collect();
        Self { dir, child, said }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    fn until(&self, name: &str, text: &str) {
        let begun = Instant::now();
        while !self.read(name).contains(text) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {}", self.read(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.read("log").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Ends it as an init system does; it must obey at once.
    fn end(&mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn steer(socket: &Path, command: serde_json::Value) -> serde_json::Value {
    control(socket, &command).unwrap()
}

#[test]
fn the_provider_switches_by_a_command() {
    let args = [
        "--setup",
        "DIR/setup.json",
        "--listen",
        "127.0.0.1:0",
        "--on-route",
        "printf '%s>%s\\n' >>DIR/switched",
    ];
    let mut run = Run::start(env!("CARGO_BIN_EXE_scp-standin"), "scp", 1, &args);
    let socket = run.dir.join("scp.sock");
    assert_eq!(run.said, [run.read("url")]);
    let route = json!({"do": "route", "ip": "203.0.113.63", "server": "v2202600000000001"});
    steer(&socket, route);
    run.until("switched", "203.0.113.63>v2202600000000001\n");
    steer(&socket, json!({"do": "route", "ip": "203.0.113.63", "server": null}));
    run.until("switched", "203.0.113.63>-\n");
    run.until("log", r#""kind":"switched","ip":"203.0.113.63","server":null"#);
    let unknown = control(&socket, &json!({"do": "dance"})).unwrap_err();
    assert!(unknown.contains("dance"), "{unknown}");
    let mut client = Client::connect(&run.said[0], &run.read("ca.pem"), None).unwrap();
    assert_eq!(client.ask("GET", "/scp-core/api/ping", &[], b"").unwrap().status, 200);
    run.until("log", "/scp-core/api/ping");
    let switched = |entry: &&Entry| matches!(entry.what, What::Switched { .. });
    assert_eq!(run.entries().iter().filter(switched).count(), 2);
    run.end();
    assert!(!socket.exists());
}

#[test]
fn the_cluster_writes_kubeconfigs() {
    let args = [
        "--listen",
        "127.0.0.1:0,other=127.0.0.2:0",
        "--nodes",
        "node-a=127.0.0.1,node-b=192.0.2.12",
    ];
    let mut run = Run::start(env!("CARGO_BIN_EXE_kube-standin"), "kube", 2, &args);
    assert!(run.said[0].starts_with("node-a https://127.0.0.1:"), "{:?}", run.said);
    assert!(run.said[1].starts_with("other https://127.0.0.2:"), "{:?}", run.said);
    let url = run.said[0].split(' ').nth(1).unwrap().to_owned();
    assert!(run.read("node-a.kubeconfig").contains(&format!("server: {url}\n")));
    assert!(!run.read("other.kubeconfig").is_empty());
    let socket = run.dir.join("kube.sock");
    steer(&socket, json!({"do": "cordon", "node": "node-b", "on": true}));
    let node = steer(&socket, json!({"do": "get", "resource": "nodes", "name": "node-b"}));
    assert_eq!(node["spec"]["unschedulable"], true);
    let config =
        steer(&socket, json!({"do": "kubeconfig", "listener": 0, "server": "https://127.0.0.1:1"}));
    assert!(config.as_str().unwrap().contains("server: https://127.0.0.1:1\n"));
    run.end();
}

#[test]
fn wrong_words_are_refused() {
    let scp =
        Command::new(env!("CARGO_BIN_EXE_scp-standin")).args(["--lisen", "x"]).output().unwrap();
    assert!(!scp.status.success());
    assert!(String::from_utf8_lossy(&scp.stderr).contains("usage: scp-standin"));
}
