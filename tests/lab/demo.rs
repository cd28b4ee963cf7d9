//! The demo: one cluster, one story, a few plain lines, a table and a picture.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::api::Flavour;
use crate::cluster::{Cluster, Programs};
use crate::director;
use crate::evidence;
use crate::plan::FAILOVER_V4;
use crate::scenario::Scenario;
use crate::table;
use crate::trouble;
use crate::trouble::Outcome;

/// Tells the story; an error when a bar is missed.
pub fn demo(programs: &Programs, flavour: Flavour, all: &[Scenario], out: &Path) -> Outcome<()> {
    let start = Instant::now();
    let mut story: Vec<&Scenario> = all.iter().filter(|s| s.demo.is_some()).collect();
    story.sort_by_key(|scenario| scenario.demo);
    let first = story.first().ok_or_else(|| trouble!("no scenario is part of the demo"))?;
    println!(
        "Three hosts, a router, a client and the provider, each in a network namespace of its own ({flavour}).\n\
         The client pings the failover IP {FAILOVER_V4} every 10 ms, through the router,\n\
         whose routes follow the provider. The Lease lasts 10 s.\n"
    );
    let mut cluster = Cluster::build(programs, flavour, first, true)?;
    let from = foip::clock::now().0;
    let mut verdicts = Vec::new();
    for (place, scenario) in story.iter().enumerate() {
        println!("{}. {}", place + 1, scenario.tell.trim());
        let verdict = director::run(&mut cluster, scenario)?;
        println!(
            "   {}: {}.",
            if verdict.met() { "ok" } else { "MISSED" },
            end(&mut cluster, &verdict)
        );
        for problem in &verdict.problems {
            println!("   {problem}");
        }
        let failed = !verdict.met();
        verdicts.push(verdict);
        if failed && cluster.settled().is_none() {
            println!("   The story cannot go on from here.");
            break;
        }
    }
    let found = crate::history::judge(&mut cluster, from);
    evidence::save(&cluster, from, &verdicts, out, true)?;
    drop(cluster);
    println!("\n{}\n", table::plain(&verdicts));
    if found.is_empty() {
        println!(
            "The history checker found nothing in the traces of the three nodes and the provider's log."
        );
    }
    for problem in &found {
        println!("The history checker: {problem}");
    }
    let picture: PathBuf = out.join("timeline.svg");
    println!("Timeline: {}", picture.display());
    println!("It took {} s.", start.elapsed().as_secs());
    let missed = verdicts.iter().filter(|verdict| !verdict.met()).count();
    if missed > 0 || verdicts.len() < story.len() || !found.is_empty() {
        return Err(trouble!("a bar was missed"));
    }
    Ok(())
}

fn end(cluster: &mut Cluster, verdict: &director::Verdict) -> String {
    let holder = cluster.settled().map_or("nobody holds it", |host| crate::plan::HOSTS[host].name);
    format!("{}; it is at {holder} now", table::summary(verdict))
}
