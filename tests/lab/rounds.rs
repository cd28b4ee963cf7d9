//! Runs scenarios on as few clusters as the provider's windows allow: each cluster is a process of its own,
//! `lab round`, and says what came of it as JSON lines.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::Flavour;
use crate::cluster::{Cluster, Programs};
use crate::director::{self, Verdict};
use crate::scenario::Scenario;
use crate::signals::{check, sleep};
use crate::trouble;
use crate::trouble::{Outcome, Tried};

/// Route calls that scenarios of one cluster may cost together: ten in five minutes, less the reserve
/// that planned moves and corrections leave untouched.
const CALLS: u64 = 6;

/// What one line of a round says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A scenario is done.
    Verdict(Verdict),
    /// A figure of the idle holder and the like.
    Figure {
        /// What was measured.
        name: String,
        /// How much; the unit is in the name.
        value: f64,
    },
    /// What the history checker found in the whole round; empty: nothing.
    History(Vec<String>),
    /// The lab itself failed.
    Trouble(String),
}

/// Which scenarios share a cluster: those without wishes of their own, in order, as long as the calls suffice.
pub fn share(scenarios: &[Scenario]) -> Vec<Vec<Scenario>> {
    let mut clusters: Vec<Vec<Scenario>> = Vec::new();
    let mut open: Option<(usize, u64)> = None;
    for scenario in scenarios {
        if scenario.alone() {
            let twin = clusters.iter().position(|cluster| {
                !scenario.fresh
                    && cluster[0].config == scenario.config
                    && cluster[0].provider == scenario.provider
                    && cluster[0].ips == scenario.ips
                    && cluster.iter().map(Scenario::most_calls).sum::<u64>() + scenario.most_calls()
                        <= CALLS
            });
            match twin {
                Some(at) => clusters[at].push(scenario.clone()),
                None => clusters.push(vec![scenario.clone()]),
            }
            continue;
        }
        match &mut open {
            Some((at, calls)) if *calls + scenario.most_calls() <= CALLS => {
                *calls += scenario.most_calls();
                clusters[*at].push(scenario.clone());
            }
            _ => {
                open = Some((clusters.len(), scenario.most_calls()));
                clusters.push(vec![scenario.clone()]);
            }
        }
    }
    // A fresh start goes on as the cluster of others.
    if let Some(first) = clusters.iter().position(|c| c[0].opens() && bare(&c[0]))
        && let Some(other) = clusters.iter().position(|c| !c[0].fresh && bare(&c[0]))
    {
        let rest = clusters[other].clone();
        clusters[first].extend(rest);
        clusters.remove(other);
    }
    clusters
}

/// Has it no wishes but fresh hosts?
fn bare(scenario: &Scenario) -> bool {
    scenario.config.is_empty() && scenario.provider.is_empty() && scenario.ips.is_empty()
}

/// A round in this process: builds a cluster, runs the scenarios on it, prints JSON lines.
pub fn round(
    programs: &Programs,
    flavour: Flavour,
    scenarios: &[Scenario],
    figures: bool,
    keep: Option<&Path>,
) -> Outcome<()> {
    let first = scenarios.first().ok_or_else(|| trouble!("a round without scenarios"))?;
    let from = foip::clock::now().0;
    let mut cluster = Cluster::build(programs, flavour, first, !figures)?;
    let mut verdicts = Vec::new();
    for scenario in scenarios {
        check()?;
        match director::run(&mut cluster, scenario) {
            Ok(verdict) => {
                say(&Line::Verdict(verdict.clone()));
                verdicts.push(verdict);
            }
            Err(error) => {
                say(&Line::Trouble(format!("{}: {error}", scenario.name)));
                break;
            }
        }
    }
    if figures {
        crate::bench::figures(&mut cluster, &mut |name, value| {
            say(&Line::Figure { name: name.to_owned(), value });
        })?;
    }
    // Figures are those of a foip that writes no trace: there is nothing to judge.
    let found = if figures { Vec::new() } else { crate::history::judge(&mut cluster, from) };
    let bad = !found.is_empty()
        || verdicts.iter().any(|verdict| !verdict.met())
        || verdicts.len() < scenarios.len();
    say(&Line::History(found));
    if let Some(keep) = keep {
        crate::evidence::save(&cluster, from, &verdicts, keep, bad)?;
    }
    Ok(())
}

fn say(line: &Line) {
    let text = serde_json::to_string(line).expect("a line is plain data");
    let mut out = std::io::stdout();
    // Whoever started the round may be gone: then nobody needs the line.
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// A round that runs in a process of its own.
pub struct Running {
    child: Child,
    /// The scenarios' names.
    pub names: Vec<String>,
    /// On which API.
    pub flavour: Flavour,
    reader: Option<std::thread::JoinHandle<Vec<Line>>>,
}

/// What a round needs to know.
#[derive(Clone, Debug)]
pub struct Order {
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// On which API.
    pub flavour: Flavour,
    /// With figures of the idle holder?
    pub figures: bool,
    /// Where to keep traces and the picture.
    pub keep: Option<PathBuf>,
}

/// Starts a round.
pub fn start(order: &Order, foip: &Path, folder: &Path) -> Outcome<Running> {
    let names: Vec<String> = order.scenarios.iter().map(|s| s.name.clone()).collect();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(std::env::current_exe()?).arg("round");
    command.arg("--foip").arg(foip).arg("--scenarios").arg(folder);
    if order.flavour == Flavour::Real {
        command.arg("--real");
    }
    if order.figures {
        command.arg("--figures");
    }
    if let Some(keep) = &order.keep {
        command.arg("--keep").arg(keep);
    }
    let mut child = command
        .args(&names)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .tried(|| "cannot start a round".to_owned())?;
    let pipe = child.stdout.take().expect("the output is a pipe");
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for text in BufReader::new(pipe).lines().map_while(Result::ok) {
            match serde_json::from_str(&text) {
                Ok(line) => {
                    announce(&line);
                    lines.push(line);
                }
                Err(_) => eprintln!("{text}"),
            }
        }
        lines
    });
    Ok(Running { child, names, flavour: order.flavour, reader: Some(reader) })
}

fn announce(line: &Line) {
    match line {
        Line::Verdict(verdict) => {
            let word = if verdict.met() { "ok    " } else { "FAILED" };
            let flavour = verdict.flavour.map_or(String::new(), |f| f.to_string());
            println!("{word} {} ({flavour}): {}", verdict.title, crate::table::summary(verdict));
            for problem in &verdict.problems {
                println!("         {problem}");
            }
        }
        Line::History(found) => {
            for problem in found {
                println!("FAILED history: {problem}");
            }
        }
        Line::Trouble(text) => println!("FAILED {text}"),
        Line::Figure { name, value } => println!("       {name}: {value:.2}"),
    }
}

/// Runs all orders, some at a time; what each said.
pub fn run_all(
    orders: &[Order],
    at_once: usize,
    foip: &Path,
    folder: &Path,
) -> Outcome<Vec<(Order, Vec<Line>)>> {
    let mut waiting = orders.iter();
    let mut running: Vec<(Order, Running)> = Vec::new();
    let mut done = Vec::new();
    loop {
        if let Err(stopped) = check() {
            for (_, round) in &mut running {
                round.stop();
            }
            return Err(stopped);
        }
        while running.len() < at_once {
            let Some(order) = waiting.next() else { break };
            running.push((order.clone(), start(order, foip, folder)?));
        }
        if running.is_empty() {
            return Ok(done);
        }
        let mut at = 0;
        while at < running.len() {
            if running[at].1.ended() {
                let (order, round) = running.remove(at);
                done.push((order, round.finish()));
            } else {
                at += 1;
            }
        }
        sleep(Duration::from_millis(100))?;
    }
}

impl Running {
    fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to clean up, and waits until it has.
    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }

    fn finish(mut self) -> Vec<Line> {
        let status = self.child.wait().map(|status| status.success());
        let mut lines =
            self.reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        let verdicts = lines.iter().filter(|line| matches!(line, Line::Verdict(_))).count();
        if !matches!(status, Ok(true)) || verdicts < self.names.len() {
            let line = Line::Trouble(format!(
                "the round of {} ({}) ended early",
                self.names.join(", "),
                self.flavour
            ));
            announce(&line);
            lines.push(line);
        }
        lines
    }
}

/// Makes a folder for what is kept.
pub fn folder(path: &Path) -> Outcome<()> {
    fs::create_dir_all(path).tried(|| format!("cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(name: &str, most: u64, more: &str) -> Scenario {
        let step =
            if more.contains("fresh") { "do = 'start'\nhost = 'all'" } else { "do = 'mark'" };
        let text = format!(
            "title = 't'\nbar = 'b'\n{more}\n[[step]]\n{step}\n[expect]\nroute-calls = [0, {most}]\n"
        );
        Scenario::parse(name, &text).unwrap()
    }

    #[test]
    fn clusters_are_shared_within_the_windows() {
        let all = [
            scenario("a", 0, "fresh = true"),
            scenario("b", 3, ""),
            scenario("c", 0, "config = { lease = { renew = '1s' } }"),
            scenario("d", 3, ""),
            scenario("e", 1, ""),
            scenario("f", 1, "config = { lease = { renew = '1s' } }"),
        ];
        let shared: Vec<String> = share(&all)
            .iter()
            .map(|cluster| cluster.iter().map(|s| s.name.as_str()).collect())
            .collect();
        assert_eq!(shared, ["abd", "cf", "e"]);
    }
}
