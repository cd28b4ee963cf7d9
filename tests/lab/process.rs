//! A process of the lab in one of its namespaces: started with a clean environment, signalled, measured.
//!
//! Every process gets SIGKILL from the kernel when the lab dies (`PR_SET_PDEATHSIG`), so a lab that was killed
//! leaves at most namespaces and a folder. The signal follows the thread that started the process:
//! only the main thread starts any.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::trouble::{Outcome, Tried};

/// What to start, and how.
pub struct Launch<'a> {
    /// The network namespace.
    pub namespace: &'a str,
    /// The program's path.
    pub program: &'a Path,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment, besides PATH.
    pub env: Vec<(String, String)>,
    /// Where its output goes; appended.
    pub log: PathBuf,
    /// A file to show as the kernel's boot id, so that three hosts on one kernel differ.
    pub boot_id: Option<PathBuf>,
    /// A file that gets the machine's uptime, in seconds with two digits, in the moment before the program.
    pub started: Option<PathBuf>,
    /// Scheduling priority: −20 first, 0 ordinary.
    pub nice: i32,
}

impl<'a> Launch<'a> {
    /// A program without arguments, environment and special wishes.
    pub fn new(namespace: &'a str, program: &'a Path, log: PathBuf) -> Self {
        Self {
            namespace,
            program,
            args: Vec::new(),
            env: Vec::new(),
            log,
            boot_id: None,
            started: None,
            nice: 0,
        }
    }

    /// Adds arguments.
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it. All wrappers replace themselves, so the process number is the program's own.
    pub fn start(self) -> Outcome<Process> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nice", "-n", &self.nice.to_string()]);
        command.args(["ip", "netns", "exec", self.namespace]);
        if let Some(boot_id) = &self.boot_id {
            // `ip netns exec` has made a mount namespace for this process alone.
            let started = self.started.clone().unwrap_or_else(|| PathBuf::from("/dev/null"));
            let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id || exit\n\
                          file=$1; shift; read -r up _ < /proc/uptime; echo \"$up\" > \"$file\"; exec \"$@\"";
            command.args(["sh", "-c", script]).arg(boot_id).arg(started);
        }
        let child = command
            .arg(self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.env)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .tried(|| format!("cannot start {}", self.program.display()))?;
        Ok(Process { child, log: self.log, stopped: false })
    }
}

/// A started process. Dropping it kills it.
pub struct Process {
    child: Child,
    log: PathBuf,
    stopped: bool,
}

/// Memory and processor time of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident set in kilobytes.
    pub rss_kb: u64,
    /// Its high-water mark in kilobytes.
    pub peak_kb: u64,
    /// Processor time in milliseconds, user and system.
    pub cpu_ms: u64,
}

impl Process {
    /// The process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Is it still running (or stopped by a signal)?
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Outcome<()> {
        match signal {
            Signal::SIGSTOP => self.stopped = true,
            Signal::SIGCONT => self.stopped = false,
            _ => {}
        }
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).tried(|| format!("cannot send {signal} to {pid}"))
    }

    /// Is it stopped by [`Self::signal`]?
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        // Already dead is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of what it wrote, for an error message.
    pub fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n    ")
    }

    /// Memory and processor time, from `/proc`.
    pub fn usage(&self) -> Outcome<Usage> {
        let pid = self.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        // utime and stime summed over threads in nanoseconds would be /proc/PID/schedstat of the main thread
        // only; stat counts in ticks of 10 ms for all threads.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
        Ok(Usage {
            rss_kb: field("VmRSS:"),
            peak_kb: field("VmHWM:"),
            cpu_ms: (ticks(11) + ticks(12)) * 10,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
