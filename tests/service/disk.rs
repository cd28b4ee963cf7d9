//! A state directory that is full or read-only: foip starts, says so, serves, and saves again when it can.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use foip::types::Tick;

use crate::{Host, Service, in_mounts};

/// A foip whose state directory is a file system of its own, in a mount namespace, made by these commands.
struct Mounted {
    host: Host,
    service: Service,
}

impl Mounted {
    fn start(host: Host, mounts: &str) -> Self {
        let log = fs::File::create(host.folder.join("log")).unwrap();
        let mut command = in_mounts(&host, mounts);
        command.arg("--trace").arg(host.folder.join("trace")).stderr(log);
        let service = Service(command.spawn().unwrap());
        let mounted = Self { host, service };
        mounted.waits("the status", || mounted.host.folder.join("run/status.json").exists());
        mounted
    }

    /// Runs this where the process sees its file systems.
    fn inside(&self, script: &str) {
        let status = Command::new("nsenter")
            .arg(format!("--mount=/proc/{}/ns/mnt", self.service.0.id()))
            .args(["sh", "-ec", script])
            .arg(&self.host.folder)
            .status()
            .unwrap();
        assert!(status.success(), "{script}");
    }

    /// What the core was told last of what cannot be saved.
    fn unsaved(&self) -> Option<String> {
        let trace = fs::read_to_string(self.host.folder.join("trace")).unwrap_or_default();
        let kind = "\"event\":{\"trouble\":[\"unsaved\"";
        trace.lines().rev().find(|line| line.contains(kind)).map(str::to_owned)
    }

    fn waits(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !holds() {
            let said = fs::read_to_string(self.host.folder.join("log")).unwrap();
            assert!(Instant::now() < end, "{what} does not come: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// It says that nothing is saved, and lives.
    fn says_so(&self) {
        self.waits("the complaint", || {
            self.unsaved().is_some_and(|line| line.contains("saved.json"))
        });
        let tick = self.host.status_after(Tick(0)).tick;
        self.host.status_after(tick);
    }

    fn saves_again(&self) {
        self.waits("the end of it", || {
            self.unsaved().is_some_and(|line| !line.contains("saved.json"))
        });
        self.inside("test -s \"$0/state/saved.json\"");
    }
}

fn needs_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: file systems of one's own need root");
    }
    root
}

#[test]
fn a_full_disk_is_said_until_there_is_room() {
    if !needs_root() {
        return;
    }
    // Every block and then every file's name is taken.
    let full = "mount -t tmpfs -o size=64k,nr_inodes=40 none \"$0/state\"; \
                for n in $(seq 60); do head -c 4096 /dev/zero > \"$0/state/fill$n\" || true; done 2>/dev/null";
    let mounted = Mounted::start(Host::new(), full);
    mounted.says_so();
    mounted.inside("rm \"$0\"/state/fill*");
    mounted.saves_again();
}

#[test]
fn a_read_only_state_directory_keeps_nobody_from_starting_and_a_second_foip_out() {
    if !needs_root() {
        return;
    }
    // Empty, as at a first start; and with all that a start before has left.
    for before in [
        "true",
        "printf '1\\n' > \"$0/state/lock\"; echo 7c1ba8c6-7c4e-4a06-9c3d-0d3b7a3a9d11 > \"$0/state/host-id\"",
    ] {
        let mounts = format!(
            "mount -t tmpfs none \"$0/state\"; {before}; mount -o remount,ro none \"$0/state\""
        );
        let mounted = Mounted::start(Host::new(), &mounts);
        mounted.says_so();
        let plain = mounted.host.command();
        let second = Command::new("nsenter")
            .arg(format!("--mount=/proc/{}/ns/mnt", mounted.service.0.id()))
            .arg(plain.get_program())
            .args(plain.get_args())
            .env("STATE_DIRECTORY", mounted.host.folder.join("state"))
            .env("RUNTIME_DIRECTORY", mounted.host.folder.join("run"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{said}");
        assert!(said.contains("another foip"), "{said}");
        mounted.inside("mount -o remount,rw none \"$0/state\"");
        mounted.saves_again();
    }
}

#[test]
fn a_dry_run_needs_no_disk() {
    if !needs_root() {
        return;
    }
    let host = Host::new();
    let mounts = "mount -t tmpfs none \"$0/state\"; mount -o remount,ro none \"$0/state\"";
    let mut command = in_mounts(&host, mounts);
    command.arg("--dry-run").arg("--trace").arg(host.folder.join("trace"));
    let mut service = Service(command.spawn().unwrap());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(service.0.try_wait().unwrap(), None);
    let trace = fs::read_to_string(host.folder.join("trace")).unwrap();
    assert!(!trace.is_empty() && !trace.contains("\"unsaved\""), "{trace}");
}
