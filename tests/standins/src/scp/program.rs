//! The stand-in for netcup as a program. It is a function too, for programs that play several parts.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};

use crate::args::{Args, block_signals, wait_for_end};
use crate::log::Log;
use crate::scp::{OnRoute, Scp, Setup};
use crate::wire::Listen;

const USAGE: &str = "\
usage: scp-standin --setup FILE.json --listen [NETNS@]IP:PORT[,…] --dir DIR
                   [--control SOCKET] [--log FILE] [--on-route CMD]

Writes the authority's certificate to DIR/ca.pem and its URL to DIR/url, then prints the URL.
The control socket is DIR/scp.sock unless said otherwise. At each switch of the data
plane CMD is run by sh with two arguments: the failover IP, and the server's name or -.
Ends on SIGTERM or SIGINT; with --stdin when its standard input closes.";

/// Runs until it is told to end. The words are those after the program's name. Signals are taken by this function,
/// so no other thread may run before it.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    match run(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("scp-standin: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: impl Iterator<Item = String>) -> Result<(), String> {
    block_signals();
    let args = Args::parse(
        USAGE,
        &["setup", "listen", "dir", "control", "log", "on-route"],
        &["stdin"],
        words,
    )?;
    let setup = args.need("setup")?;
    let text = std::fs::read_to_string(setup).map_err(|error| format!("{setup}: {error}"))?;
    let setup: Setup = serde_json::from_str(&text).map_err(|error| format!("{setup}: {error}"))?;
    let listen: Vec<Listen> = args.list("listen")?;
    let dir = PathBuf::from(args.need("dir")?);
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let log = match args.get("log") {
        Some(path) => Log::to_file(Path::new(path)).map_err(|error| format!("{path}: {error}"))?,
        None => Log::default(),
    };
    let on_route = args.get("on-route").map(hook);
    let mut scp =
        Scp::start_at(setup, &listen, log, on_route).map_err(|error| error.to_string())?;
    let control = args.get("control").map_or_else(|| dir.join("scp.sock"), PathBuf::from);
    scp.open_control(&control).map_err(|error| format!("{}: {error}", control.display()))?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write("ca.pem", scp.ca_pem())?;
    write("url", &scp.url())?;
    println!("{}", scp.url());
    wait_for_end(args.has("stdin"));
    Ok(())
}

/// Runs a command at each switch and waits for it: the data plane has switched when it is done.
fn hook(command: &str) -> OnRoute {
    let script = format!("{command} \"$@\"");
    Box::new(move |ip, server| {
        let mut shell = Process::new("sh");
        shell.args(["-c", &script, "on-route", ip, server.unwrap_or("-")]);
        match shell.status() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("scp-standin: {script}: {status}"),
            Err(error) => eprintln!("scp-standin: sh: {error}"),
        }
    })
}
