//! The command line: verbs and options in, an exit code out.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed |
//! | 2 | wrong usage |
//! | 78 | wrong configuration: nothing but an edit mends it, so the unit does not restart |

mod kubeconfig;
mod login;
mod replay;
mod run;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, setrlimit};

use crate::clock;
use crate::config::{ConfigError, DEFAULT_PATH, Host, Places, Settings};
use crate::{logging, status, text};

/// Keeps netcup failover IPs on one healthy k3s server node.
#[derive(Debug, Parser)]
#[command(name = "foip", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage, 78 configuration.")]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the service.
    Run(RunOptions),
    /// Log in to netcup and keep the token (api = "rest").
    Login,
    /// Remove the token (api = "rest").
    Logout {
        /// Take it back at netcup, too: this may end the login of every other node.
        #[arg(long)]
        revoke: bool,
    },
    /// Show who holds what, and why.
    Status {
        /// The status file as it is (documented in foip(8)).
        #[arg(long)]
        json: bool,
    },
    /// Feed a trace of run --trace through the core again; exit 1 if it decides otherwise.
    Replay {
        /// The trace.
        file: PathBuf,
    },
    /// Copy systemd's credential "kubeconfig" to where foip reads it.
    #[command(hide = true)]
    ImportKubeconfig,
}

/// How `run` runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct RunOptions {
    /// Record everything that is decided, for foip replay.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Decide everything and do nothing: no Lease, no route, no address.
    #[arg(long)]
    pub dry_run: bool,
}

/// Why a verb ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit 78.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Exit 78, for what turns out to be wrong configuration only later.
    #[error("{0}")]
    Unusable(String),
    /// Exit 1.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Unusable(_) => 78,
            Self::Failed(_) => 1,
        }
    }
}

/// The program: reads the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    // Secrets get into no core dump, whoever starts this (I14). A failure would need a kernel that forbids asking
    // for less.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // Whoever makes a TLS connection later finds its cryptography here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // `parse` ends the process with 2 on wrong usage, with 0 after --help and --version.
    let arguments = Arguments::parse();
    let settings = || Settings::load(&arguments.config, &Host::of_process());
    let done = match arguments.verb {
        Verb::Run(options) => settings()
            .map_err(Failure::from)
            .and_then(|settings| run::run(settings, &arguments.config, options)),
        Verb::Login => settings().map_err(Failure::from).and_then(|s| login::login(&s)),
        Verb::Logout { revoke } => {
            settings().map_err(Failure::from).and_then(|s| login::logout(&s, revoke))
        }
        Verb::Status { json } => show_status(json),
        Verb::Replay { file } => replay::replay(&file),
        Verb::ImportKubeconfig => kubeconfig::import(&Places::of_process()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

/// `foip status` needs no configuration: the running foip has said everything in its file.
fn show_status(json: bool) -> Result<(), Failure> {
    let failed = |error: status::NoStatus| Failure::Failed(error.to_string());
    let seen = status::read(&Places::of_process().runtime).map_err(failed)?;
    let text = match json {
        true => seen.text,
        false => seen.status.to_text(clock::now()),
    };
    print(&text);
    seen.stale.map_or(Ok(()), |stale| Err(failed(stale)))
}

/// To standard output, clean line for line. A reader that has gone away, as in `foip status | head -1`, is no failure.
fn print(text: &str) {
    let mut clean = String::with_capacity(text.len());
    for line in text.lines() {
        clean.push_str(&text::clean_to(line, usize::MAX));
        clean.push('\n');
    }
    let _ = std::io::stdout().write_all(clean.as_bytes());
    let _ = std::io::stdout().flush();
}

/// To standard error: one line each, with the program's name as in other programs. journald takes the number in
/// front for the priority, an error (`sd-daemon(3)`).
fn complain(text: &str) {
    let mut error = std::io::stderr();
    let priority = if logging::is_journal_attached() { "<3>" } else { "" };
    for line in text.lines().map(|line| text::clean_to(line, text::LINE)) {
        let _ = error.write_all(format!("{priority}foip: {line}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_be_named_before_and_behind_the_verb() {
        for line in [["foip", "--config", "/tmp/x", "run"], ["foip", "run", "--config", "/tmp/x"]] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert_eq!(arguments.config, PathBuf::from("/tmp/x"));
        }
        let arguments = Arguments::try_parse_from(["foip", "run"]).unwrap();
        assert_eq!(arguments.config, PathBuf::from(DEFAULT_PATH));
    }
}
