//! Runs the system's own tools (`ip`, `nft`, `mount`) and says in full what failed.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::trouble;
use crate::trouble::{Outcome, Tried};

/// Runs a program to its end; its standard output, or an error with its standard error.
pub fn run(program: &str, args: &[&str]) -> Outcome<String> {
    feed(program, args, "")
}

/// The same with text on its standard input.
pub fn feed(program: &str, args: &[&str], input: &str) -> Outcome<String> {
    let line = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .tried(|| format!("cannot start {program}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input closes the pipe: its exit code says whether that was right.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().tried(line)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(trouble!("{}: {}: {}", line(), output.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a batch of `ip` commands in a namespace, one per line.
pub fn ip_batch(namespace: &str, commands: &str) -> Outcome<()> {
    feed("ip", &["-n", namespace, "-batch", "-"], commands)
        .map(drop)
        .tried(|| format!("in namespace {namespace}: {commands}"))
}

/// Runs one `ip` command in a namespace.
pub fn ip(namespace: &str, args: &[&str]) -> Outcome<String> {
    let mut all = vec!["-n", namespace];
    all.extend_from_slice(args);
    run("ip", &all)
}
