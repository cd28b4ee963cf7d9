//! The benchmark: the bars as medians and maxima over many runs, in a Markdown table and as JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foip::clock;
use serde_json::json;

use crate::api::Flavour;
use crate::cluster::Cluster;
use crate::director::Verdict;
use crate::real;
use crate::rounds::{Line, Order, run_all, share};
use crate::scenario::Scenario;
use crate::signals::sleep;
use crate::table::{median_and_max, seconds};
use crate::trouble;
use crate::trouble::Outcome;

/// How long the idle holder is watched.
const IDLE: Duration = Duration::from_secs(120);

/// What to run.
pub struct Wish {
    /// How many runs of each scenario.
    pub runs: usize,
    /// This many clusters at once.
    pub at_once: usize,
    /// On which API.
    pub flavour: Flavour,
    /// Only the figures of the idle holder?
    pub idle_only: bool,
    /// Where results go.
    pub out: PathBuf,
}

/// Figures of a cluster at rest, measured on the holder.
pub fn figures(cluster: &mut Cluster, say: &mut dyn FnMut(&str, f64)) -> Outcome<()> {
    cluster.start_all()?;
    let holder = cluster.settle(Duration::from_secs(60))?;
    for agent in &mut cluster.agents {
        if let Some(ms) = agent.start_to_ready() {
            say("start to READY, ms", ms as f64);
        }
    }
    sleep(Duration::from_secs(10))?;
    let from = clock::now().0;
    let before = cluster.agents[holder].process().ok_or_else(|| trouble!("no foip"))?.usage()?;
    let requests = cluster.api.requests(holder)?;
    sleep(IDLE)?;
    let to = clock::now().0;
    let after = cluster.agents[holder].process().ok_or_else(|| trouble!("no foip"))?.usage()?;
    let (time, minutes) = ((to - from) as f64, (to - from) as f64 / 60_000.0);
    say("idle holder RSS, MB", after.rss_kb as f64 / 1000.0);
    say("idle holder peak RSS, MB", after.peak_kb as f64 / 1000.0);
    say("idle holder CPU, % of a core", (after.cpu_ms - before.cpu_ms) as f64 / time * 100.0);
    let requests = cluster.api.requests(holder)? - requests;
    say("idle holder API requests/s", requests as f64 / time * 1000.0);
    say(
        "idle holder provider requests/min",
        cluster.provider.requests(from, to, holder) as f64 / minutes,
    );
    let all: usize = (0..3).map(|host| cluster.provider.requests(from, to, host)).sum();
    say("all nodes' provider requests/min", all as f64 / minutes);
    Ok(())
}

/// Runs everything and prints the table.
pub fn bench(foip: &Path, folder: &Path, all: &[Scenario], wish: &Wish) -> Outcome<()> {
    if wish.flavour == Flavour::Real && real::assets().is_none() {
        return Err(trouble!(
            "KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver in it"
        ));
    }
    let bars: Vec<Scenario> = all
        .iter()
        .filter(|s| s.real && (wish.flavour == Flavour::Real || !s.real_only))
        .cloned()
        .collect();
    let clusters = if wish.idle_only { Vec::new() } else { share(&bars) };
    let idle: Vec<Scenario> = bars.iter().filter(|s| s.opens()).cloned().collect();
    let mut orders = Vec::new();
    for run in 0..wish.runs {
        let mut order = |scenarios: &[Scenario], name: &str| {
            orders.push(Order {
                scenarios: scenarios.to_vec(),
                flavour: wish.flavour,
                figures: name == "idle",
                keep: Some(wish.out.join(format!("run-{run:02}-{name}"))),
            });
        };
        for (place, scenarios) in clusters.iter().enumerate() {
            order(scenarios, &place.to_string());
        }
        order(&idle, "idle");
    }
    let done = run_all(&orders, wish.at_once, foip, folder)?;

    let mut verdicts: Vec<&Verdict> = Vec::new();
    let mut measured: Vec<(&str, f64)> = Vec::new();
    let mut problems: Vec<String> = Vec::new();
    for (_, lines) in &done {
        for line in lines {
            match line {
                Line::Verdict(verdict) => verdicts.push(verdict),
                Line::Figure { name, value } => measured.push((name, *value)),
                Line::History(found) => problems.extend(found.clone()),
                Line::Trouble(text) => problems.push(text.clone()),
            }
        }
    }
    let table = markdown(&bars, &verdicts, &measured, foip);
    println!("\n{table}");
    fs::write(wish.out.join("bars.md"), &table)?;
    let figures: Vec<_> =
        measured.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let all = json!({"api": wish.flavour, "runs": wish.runs, "verdicts": verdicts, "figures": figures,
                     "problems": problems, "binary": fs::metadata(foip)?.len()});
    fs::write(wish.out.join("bars.json"), serde_json::to_string_pretty(&all)?)?;
    println!("The figures of each run: {}", wish.out.join("bars.json").display());
    for problem in &problems {
        println!("  {problem}");
    }
    let missed = verdicts.iter().filter(|verdict| !verdict.met()).count() + over(&measured, foip);
    if missed + problems.len() > 0 { Err(trouble!("{missed} bars were missed")) } else { Ok(()) }
}

/// The bars of figures: the largest value that meets them.
const FIGURES: [(&str, f64, &str); 5] = [
    ("start to READY, ms", 500.0, "≤ 500"),
    ("idle holder RSS, MB", 10.0, "≤ 10"),
    ("idle holder CPU, % of a core", 0.1, "≤ 0.1"),
    ("idle holder API requests/s", 1.0, "≤ 1"),
    ("idle holder provider requests/min", 5.0, "≤ 5"),
];
const BINARY: u64 = 6_000_000;

fn over(measured: &[(&str, f64)], foip: &Path) -> usize {
    let worst = |name: &str| {
        measured.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v).fold(0.0, f64::max)
    };
    let big = fs::metadata(foip).map_or(true, |file| file.len() > BINARY);
    FIGURES.iter().filter(|(name, most, _)| worst(name) > *most).count() + usize::from(big)
}

fn markdown(
    bars: &[Scenario],
    verdicts: &[&Verdict],
    measured: &[(&str, f64)],
    foip: &Path,
) -> String {
    let mut text = String::from(
        "| what | bar | runs | met | route calls (max) | to the route call | to the right route | longest outage | packets lost |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for scenario in bars {
        let own: Vec<&&Verdict> = verdicts.iter().filter(|v| v.name == scenario.name).collect();
        let both = |values: Vec<u64>, show: fn(u64) -> String| {
            median_and_max(&values).map_or("-".to_owned(), |(median, max)| {
                format!("{}, max {}", show(median), show(max))
            })
        };
        let mut to_right: Vec<u64> = own.iter().filter_map(|v| v.to_routed).collect();
        if to_right.is_empty() {
            // Where the address was deleted, its return is what counts.
            to_right = own.iter().filter_map(|v| v.address_gone).collect();
        }
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            scenario.title,
            scenario.bar,
            own.len(),
            own.iter().filter(|v| v.met()).count(),
            own.iter().map(|v| v.calls).max().unwrap_or(0),
            both(own.iter().filter_map(|v| v.to_call).collect(), seconds),
            both(to_right, seconds),
            both(own.iter().map(|v| v.outage).collect(), seconds),
            both(own.iter().map(|v| v.lost).collect(), |n| n.to_string()),
        );
    }
    text += "\n| figure | bar | runs | median | max |\n| --- | --- | --- | --- | --- |\n";
    for (name, _, bar) in FIGURES {
        let mut values: Vec<f64> =
            measured.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v).collect();
        values.sort_by(f64::total_cmp);
        let (median, max) = (values.get(values.len() / 2), values.last());
        let show = |value: Option<&f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
        text +=
            &format!("| {name} | {bar} | {} | {} | {} |\n", values.len(), show(median), show(max));
    }
    let size = fs::metadata(foip).map_or(0, |file| file.len());
    text += &format!("| binary, bytes | ≤ {BINARY} | 1 | {size} | {size} |\n");
    text
}
