//! A check's program: started apart from foip (see `apart`), without environment, input and capabilities, and killed
//! with everything it started when its time is up. The first line of what it writes is its answer.

use std::io::{self, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::Stop;
use super::apart::{self, Hidden};
use crate::clock;
use crate::text;
use crate::types::{Span, Tick};

/// The user and the group that have no files.
const NOBODY: u32 = 65534;

/// How long a killed process may take to be gone before the try ends without it.
const DYING: Span = Span::millis(500);

/// So much of what a program writes is looked at.
const SAID: usize = 4096;

/// The longest answer, in bytes: an alarm has room for the check's name, it and the fix.
const ANSWER: usize = 200;

/// A program that was started.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// It leads a process group of its own, with this number until it is reaped.
    group: Pid,
    status: Option<ExitStatus>,
    output: PipeReader,
    said: Vec<u8>,
}

impl Running {
    /// Starts a program; the first word is its path.
    pub(super) fn start(words: &[String], hidden: &Hidden) -> Result<Self, String> {
        let Some((program, arguments)) = words.split_first() else {
            return Err("no program".into());
        };
        let failed = |what: &'static str| move |error| format!("cannot {what}: {error}");
        let (output, writer) = io::pipe().map_err(failed("make a pipe"))?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|errno| format!("cannot make a pipe: {}", io::Error::from(errno)))?;
        let both = writer.try_clone().map_err(failed("make a pipe"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(both)
            .process_group(0);
        if apart::is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        // What a thread gives up it never gets back, and its children do not have it either: so one thread for each start.
        let started = std::thread::scope(|scope| {
            let start = || -> Result<Child, String> {
                // foip's right to change addresses is inherited by children through the ambient set, which is the thread's.
                rustix::thread::clear_ambient_capability_set()
                    .map_err(|error| format!("cannot give up capabilities: {error}"))?;
                apart::confine(hidden)?;
                command.spawn().map_err(|error| format!("cannot start {program}: {error}"))
            };
            let thread = std::thread::Builder::new().name("foip-check-start".into());
            let thread = thread.spawn_scoped(scope, start).map_err(failed("start a thread"))?;
            thread.join().unwrap_or_else(|_| Err("the thread that starts it died".to_owned()))
        });
        // The writing ends: else the program's end would not be seen in the pipe.
        drop(command);
        let child = started?;
        let number = i32::try_from(child.id()).map_err(|_| "no process number".to_owned())?;
        let group = Pid::from_raw(number);
        Ok(Self { child, group, status: None, output, said: Vec::new() })
    }

    /// Waits for the program's end, at most until `deadline`; what it leaves behind is killed. The first line that it
    /// wrote is the answer, or how it ended.
    pub(super) fn finish(&mut self, deadline: Tick, stop: &Stop) -> Result<String, String> {
        let mut pause = Span::millis(2);
        let in_time = loop {
            if self.has_ended()? {
                break true;
            }
            let now = clock::now();
            let more = self.hear();
            // One that writes without end is not waited for, and gets no time for it beyond its own.
            let until = if more { now } else { now + pause };
            if now >= deadline || !stop.wait_until(until.min(deadline)) {
                break false;
            }
            pause = if more { Span::millis(2) } else { pause.times(2).min(Span::millis(50)) };
        };
        self.hear();
        self.kill();
        // Not to be cut short by `stop`: a killed child is to be reaped.
        let end = clock::now() + DYING;
        while !self.is_over() && clock::now() < end {
            std::thread::park_timeout(Span::millis(2).as_std());
        }
        let said = first_line(&self.said);
        let with = |ended: String| match &said {
            Some(said) => format!("{said} ({ended})"),
            None => ended,
        };
        match self.status {
            _ if !in_time => Err(with("did not end in time and was killed".into())),
            Some(status) if status.success() => Ok(with("ended with status 0".into())),
            Some(status) => Err(with(match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with status {code}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended without status".into(),
            })),
            None => Err(with("ended without status".into())),
        }
    }

    /// Takes in a part of what the program has written; only the beginning is kept. Was there any?
    fn hear(&mut self) -> bool {
        let mut buffer = [0; 16_384];
        match self.output.read(&mut buffer) {
            Ok(length) => {
                let room = SAID.saturating_sub(self.said.len()).min(length);
                self.said.extend_from_slice(&buffer[..room]);
                length > 0
            }
            Err(_) => false,
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

/// The first line with something on it, fit to be shown.
fn first_line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(text::clean_to(line, ANSWER).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
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

    fn run(words: &[String], limit: Span) -> Result<String, String> {
        let (_go_on, stop) = stop();
        Running::start(words, &Hidden::default())?.finish(clock::now() + limit, &stop)
    }

    /// A folder that the program's user may write to.
    fn open_folder() -> Folder {
        let folder = Folder::new();
        std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o777)).unwrap();
        folder
    }

    #[test]
    fn the_exit_status_decides() {
        let soon = Span::secs(10);
        assert_eq!(run(&shell("exit 0"), soon), Ok("ended with status 0".into()));
        assert_eq!(run(&shell("exit 3"), soon), Err("ended with status 3".into()));
        assert_eq!(run(&shell("kill -TERM $$"), soon), Err("was ended by signal 15".into()));
        let missing = run(&["/nowhere/program".to_owned()], soon).unwrap_err();
        assert!(missing.starts_with("cannot start /nowhere/program: "), "{missing}");
    }

    #[test]
    fn the_first_line_is_the_answer_and_no_more_of_it_is_kept() {
        let soon = Span::secs(10);
        let said = run(&shell("echo; echo ' all is well '; echo more"), soon);
        assert_eq!(said, Ok("all is well (ended with status 0)".into()));
        let said = run(&shell("echo no route >&2; exit 2"), soon);
        assert_eq!(said, Err("no route (ended with status 2)".into()));
        // The last is a change of the direction of writing.
        let odd = "printf '\\033[31mALARM\\a \\342\\200\\256\\n'; exit 1";
        let said = run(&shell(odd), soon).unwrap_err();
        assert_eq!(said, "\u{fffd}[31mALARM\u{fffd} \u{fffd} (ended with status 1)");
        // Much more than a pipe holds, and one line without end.
        let said = run(&shell("head -c 3000000 /dev/zero | tr '\\0' x"), soon).unwrap();
        assert!(said.len() < 300 && said.starts_with("xxx"), "{}", said.len());
    }

    #[test]
    fn a_program_can_neither_read_foips_secrets_nor_send_foip_a_signal() {
        let folder = open_folder();
        let secret = folder.0.join("token");
        std::fs::write(&secret, "secret").unwrap();
        let hidden = Hidden { secret: vec![secret.clone()], fixed: Vec::new() };
        let (_go_on, stop) = stop();
        // Signal 0 asks whether another would be let through.
        let script = format!(
            "kill -0 {foip} && exit 7; cat {} && exit 8; kill -0 $$ || exit 9; cat /proc/{foip}/environ && exit 6; \
             test -r /etc/passwd",
            secret.display(),
            foip = std::process::id(),
        );
        let mut running = Running::start(&shell(&script), &hidden).unwrap();
        let ended = running.finish(clock::now() + Span::secs(10), &stop);
        assert!(ended.as_ref().is_ok_and(|said| said.contains("status 0")), "{ended:?}");
        // This thread has lost nothing.
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
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
        let folder = open_folder();
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
        let folder = open_folder();
        let file = folder.0.join("child");
        let script = format!("sleep 1000 & echo $! > {}", file.display());
        assert!(run(&shell(&script), Span::secs(10)).is_ok());
        wait_for_death(&file);
    }

    #[test]
    fn the_end_of_the_checks_ends_the_program() {
        let (go_on, stop) = stop();
        let mut running = Running::start(&shell("sleep 1000"), &Hidden::default()).unwrap();
        drop(go_on);
        let begun = clock::now();
        assert!(running.finish(clock::now() + Span::secs(60), &stop).is_err());
        assert!(clock::now().since(begun) < Span::secs(5));
        assert!(running.reaped());
    }

    #[test]
    fn a_program_gets_neither_environment_nor_capabilities() {
        let folder = open_folder();
        let file = folder.0.join("seen");
        // On a thread of its own, with every capability that can be passed on put into the ambient set.
        let script = format!("(env; pwd; grep CapAmb /proc/self/status) > {}", file.display());
        let before = std::thread::spawn(move || {
            let raised = raise_ambient();
            assert!(run(&shell(&script), Span::secs(10)).is_ok());
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
