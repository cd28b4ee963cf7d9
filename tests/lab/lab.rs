//! The lab: foip on three hosts in network namespaces, judged by its packets, its traces and the provider's log.
//!
//! It is the demo, the end-to-end test and the benchmark. `lab help` lists its commands.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test program stops at the first surprise, sleeps, and lets errors be errors"
)]

mod agent;
mod alarms;
mod api;
mod bench;
mod client;
mod cluster;
mod demo;
mod director;
mod evidence;
mod history;
mod hold;
mod lacks;
mod monitor;
mod pinger;
mod plan;
mod process;
mod provider;
mod real;
mod relay;
mod rounds;
mod run;
mod scenario;
mod shell;
mod signals;
mod suite;
mod table;
mod timeline;
mod trouble;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use api::Flavour;
use cluster::Programs;
use trouble::Outcome;

const USAGE: &str = "\
usage: lab demo  [--real] [--out FOLDER]       the story, with a table and a timeline
       lab test  [SCENARIO...] [--need-real]   every scenario; on the real API too with KUBEBUILDER_ASSETS
       lab all                                 the same, and fails without the real API
       lab bench [--runs N] [--built-in] [--idle-only]
                                               the bars, as medians and maxima
       lab hold                                keeps a world for a script that asks on standard input
       lab list                                the scenarios
       lab clean                               removes what killed runs left

options: --foip FILE        the program (default: beside this one)
         --scenarios FOLDER the scenarios (default: those of the clone)
         --out FOLDER       where results go (default: lab-out)
         --at-once N        clusters at a time in test and bench (default: 3)

Needs root, iproute2 and nftables. Everything happens in network namespaces of its own.";

/// The command line, as far as it is options.
struct Options {
    foip: Option<PathBuf>,
    scenarios: PathBuf,
    out: PathBuf,
    keep: Option<PathBuf>,
    real: bool,
    built_in: bool,
    need_real: bool,
    figures: bool,
    idle_only: bool,
    runs: usize,
    at_once: usize,
    rest: Vec<String>,
}

fn main() -> ExitCode {
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        foip: None,
        scenarios: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/scenarios")),
        out: PathBuf::from("lab-out"),
        keep: None,
        real: false,
        built_in: false,
        need_real: false,
        figures: false,
        idle_only: false,
        runs: 10,
        at_once: 3,
        rest: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| trouble!("{word} needs a value\n{USAGE}"));
        let number =
            |text: String| text.parse().map_err(|_| trouble!("{text} is no number\n{USAGE}"));
        match word.as_str() {
            "--foip" => options.foip = Some(value()?.into()),
            "--scenarios" => options.scenarios = value()?.into(),
            "--out" => options.out = value()?.into(),
            "--keep" => options.keep = Some(value()?.into()),
            "--runs" => options.runs = number(value()?)?,
            "--at-once" => options.at_once = number(value()?)?,
            "--real" => options.real = true,
            "--built-in" => options.built_in = true,
            "--need-real" => options.need_real = true,
            "--idle-only" => options.idle_only = true,
            "--figures" => options.figures = true,
            "help" | "--help" => return Err(trouble!("{USAGE}")),
            flag if flag.starts_with("--") => return Err(trouble!("what is {flag}?\n{USAGE}")),
            _ => options.rest.push(word),
        }
    }
    Ok(options)
}

fn command() -> Outcome<()> {
    let options = options()?;
    let words: Vec<&str> = options.rest.iter().map(String::as_str).collect();
    if let ["ping", target, log] = words[..] {
        let target = target.parse().map_err(|_| trouble!("{target} is no address"))?;
        return pinger::main(target, log.as_ref());
    }
    signals::listen()?;
    let scenarios = || scenario::read_folder(&options.scenarios);
    let flavour = if options.real { Flavour::Real } else { Flavour::BuiltIn };
    let programs = || Programs::beside(options.foip.clone());
    match words[..] {
        ["demo"] => {
            rounds::folder(&options.out)?;
            demo::demo(&programs()?, flavour, &scenarios()?, &options.out)
        }
        ["hold"] => hold::hold(&programs()?, flavour),
        ["round", ..] => {
            let all = scenarios()?;
            let chosen: Outcome<Vec<_>> = words[1..]
                .iter()
                .map(|name| {
                    let found = all.iter().find(|scenario| scenario.name == *name);
                    found.cloned().ok_or_else(|| trouble!("there is no scenario {name}"))
                })
                .collect();
            let keep = options.keep.as_deref();
            rounds::round(&programs()?, flavour, &chosen?, options.figures, keep)
        }
        ["test" | "all", ..] => {
            let wish = suite::Wish {
                names: words[1..].iter().map(|name| (*name).to_owned()).collect(),
                need_real: options.need_real || words[0] == "all",
                at_once: options.at_once,
                keep: options.out.clone(),
            };
            suite::test(&programs()?.foip, &options.scenarios, &scenarios()?, &wish)
        }
        ["bench"] => {
            rounds::folder(&options.out)?;
            let wish = bench::Wish {
                runs: options.runs,
                at_once: options.at_once,
                flavour: if options.built_in { Flavour::BuiltIn } else { Flavour::Real },
                idle_only: options.idle_only,
                out: options.out.clone(),
            };
            bench::bench(&programs()?.foip, &options.scenarios, &scenarios()?, &wish)
        }
        ["list"] => {
            for scenario in scenarios()? {
                println!("{:28} {} [{}]", scenario.name, scenario.title, scenario.bar);
            }
            Ok(())
        }
        ["clean"] => {
            let cleaned = run::clean_dead(&std::env::temp_dir())?;
            println!("{} runs cleaned up", cleaned.len());
            Ok(())
        }
        _ => Err(trouble!("{USAGE}")),
    }
}
