//! A check's program: started without environment, input, output and capabilities, and killed with everything
//! it started when its time is up.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::Stop;
use crate::clock;
use crate::types::{Span, Tick};

/// How long a killed process may take to be gone before the try ends without it.
const DYING: Span = Span::millis(500);

/// A program that was started.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// It leads a process group of its own, with this number until it is reaped.
    group: Pid,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts a program; the first word is its path.
    pub(super) fn start(words: &[String]) -> Result<Self, String> {
        let Some((program, arguments)) = words.split_first() else {
            return Err("no program".into());
        };
        // foip's right to change addresses is inherited by children through the ambient set, which belongs to the
        // thread: this thread, which only runs checks, gives it up. The children then have no capabilities.
        rustix::thread::clear_ambient_capability_set()
            .map_err(|error| format!("cannot give up capabilities: {error}"))?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let number = i32::try_from(child.id()).map_err(|_| "no process number".to_owned())?;
        Ok(Self { child, group: Pid::from_raw(number), status: None })
    }

    /// Waits for the program's end, at most until `deadline`; what it leaves behind is killed.
    pub(super) fn finish(&mut self, deadline: Tick, stop: &Stop) -> Result<(), String> {
        let mut pause = Span::millis(2);
        let in_time = loop {
            if self.has_ended()? {
                break true;
            }
            let now = clock::now();
            if now >= deadline || !stop.wait_until((now + pause).min(deadline)) {
                break false;
            }
            pause = pause.times(2).min(Span::millis(50));
        };
        self.kill();
        // Not to be cut short by `stop`: a killed child is to be reaped.
        let end = clock::now() + DYING;
        while !self.is_over() && clock::now() < end {
            std::thread::park_timeout(Span::millis(2).as_std());
        }
        match self.status {
            _ if !in_time => Err("did not end in time and was killed".into()),
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with status {code}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended without status".into(),
            }),
            None => Err("ended without status".into()),
        }
    }

    /// Has it ended and been reaped? Reaps it if it has ended.
    pub(super) fn is_over(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap_or(None);
        }
        self.status.is_some()
    }

    /// Has it been reaped?
    pub(super) const fn reaped(&self) -> bool {
        self.status.is_some()
    }

    /// Has it ended? Leaves it unreaped, so that the group's number is still its own when the group is killed.
    fn has_ended(&self) -> Result<bool, String> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.group), flags) {
            Ok(status) => Ok(status != WaitStatus::StillAlive),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(format!("cannot wait: {}", io::Error::from(errno))),
        }
    }

    fn kill(&self) {
        // Everything in the group, also what the program left behind. Gone already is as good.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;
    use crate::files::tests::Folder;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn stop() -> (SyncSender<()>, Stop) {
        let (go_on, stop) = sync_channel(0);
        (go_on, Stop(stop))
    }

    fn run(words: &[String], limit: Span) -> Result<(), String> {
        let (_go_on, stop) = stop();
        Running::start(words)?.finish(clock::now() + limit, &stop)
    }

    #[test]
    fn the_exit_status_decides() {
        let soon = Span::secs(10);
        assert_eq!(run(&shell("exit 0"), soon), Ok(()));
        assert_eq!(run(&shell("exit 3"), soon), Err("ended with status 3".into()));
        assert_eq!(run(&shell("kill -TERM $$"), soon), Err("was ended by signal 15".into()));
        let missing = run(&["/nowhere/program".to_owned()], soon).unwrap_err();
        assert!(missing.starts_with("cannot start /nowhere/program: "), "{missing}");
    }

    /// Is this process there and alive?
    fn lives(number: &str) -> bool {
        let stat = std::fs::read_to_string(Path::new("/proc").join(number).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn wait_for_death(file: &Path) {
        let number = std::fs::read_to_string(file).unwrap();
        let end = clock::now() + Span::secs(5);
        while lives(number.trim()) {
            assert!(clock::now() < end, "{number} lives");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_out_of_time_dies_with_all_its_children() {
        let folder = Folder::new();
        let file = folder.0.join("child");
        let script =
            format!("trap '' TERM; sleep 1000 & echo $! > {}; wait; sleep 1000", file.display());
        let begun = clock::now();
        let result = run(&shell(&script), Span::millis(700));
        assert_eq!(result, Err("did not end in time and was killed".into()));
        assert!(clock::now().since(begun) < Span::secs(3));
        wait_for_death(&file);
    }

    #[test]
    fn what_a_program_leaves_behind_dies_too() {
        let folder = Folder::new();
        let file = folder.0.join("child");
        let script = format!("sleep 1000 & echo $! > {}", file.display());
        assert_eq!(run(&shell(&script), Span::secs(10)), Ok(()));
        wait_for_death(&file);
    }

    #[test]
    fn the_end_of_the_checks_ends_the_program() {
        let (go_on, stop) = stop();
        let mut running = Running::start(&shell("sleep 1000")).unwrap();
        drop(go_on);
        let begun = clock::now();
        assert!(running.finish(clock::now() + Span::secs(60), &stop).is_err());
        assert!(clock::now().since(begun) < Span::secs(5));
        assert!(running.reaped());
    }

    #[test]
    fn a_program_gets_neither_environment_nor_capabilities() {
        let folder = Folder::new();
        let file = folder.0.join("seen");
        // On a thread of its own, with every capability that can be passed on put into the ambient set.
        let script = format!("(env; pwd; grep CapAmb /proc/self/status) > {}", file.display());
        let before = std::thread::spawn(move || {
            let raised = raise_ambient();
            assert_eq!(run(&shell(&script), Span::secs(10)), Ok(()));
            raised
        });
        let raised = before.join().unwrap();
        let seen = std::fs::read_to_string(&file).unwrap();
        assert!(!seen.contains("CARGO"), "{seen}");
        assert!(seen.contains("\n/\n"), "{seen}");
        assert!(seen.contains("CapAmb:\t0000000000000000"), "{seen}");
        // Without root there is nothing to raise, and the line above proves little; the suite runs as root.
        assert_eq!(raised, nix::unistd::geteuid().is_root());
    }

    /// Puts CAP_NET_ADMIN into the ambient set of this thread, as systemd does for the service.
    fn raise_ambient() -> bool {
        use rustix::thread::{
            CapabilitySet, capabilities, capability_is_in_ambient_set,
            configure_capability_in_ambient_set, set_capabilities,
        };
        let Ok(mut sets) = capabilities(None) else {
            return false;
        };
        sets.inheritable |= CapabilitySet::NET_ADMIN;
        if set_capabilities(None, sets).is_err()
            || configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true).is_err()
        {
            return false;
        }
        capability_is_in_ambient_set(CapabilitySet::NET_ADMIN).unwrap_or(false)
    }
}
