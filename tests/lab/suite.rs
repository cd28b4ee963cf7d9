//! `lab test`: every scenario on the built-in API, and the bars' scenarios on the real one where there is one.

use std::path::{Path, PathBuf};

use crate::api::Flavour;
use crate::real;
use crate::rounds::{Line, Order, run_all, share};
use crate::scenario::Scenario;
use crate::trouble;
use crate::trouble::Outcome;

/// What to run.
pub struct Wish {
    /// These scenarios only; all when empty.
    pub names: Vec<String>,
    /// Fail when there is no real API.
    pub need_real: bool,
    /// This many clusters at once.
    pub at_once: usize,
    /// Where to keep what was written by rounds that failed.
    pub keep: PathBuf,
}

/// Runs them and says how many passed.
pub fn test(foip: &Path, folder: &Path, all: &[Scenario], wish: &Wish) -> Outcome<()> {
    let wanted =
        |scenario: &&Scenario| wish.names.is_empty() || wish.names.contains(&scenario.name);
    let built_in: Vec<Scenario> =
        all.iter().filter(wanted).filter(|s| !s.real_only).cloned().collect();
    let on_real: Vec<Scenario> = all.iter().filter(wanted).filter(|s| s.real).cloned().collect();
    let mut orders: Vec<Order> = Vec::new();
    let mut order = |scenarios: &[Scenario], flavour: Flavour| {
        for scenarios in share(scenarios) {
            let name = format!("{:02}-{}", orders.len(), scenarios[0].name);
            let keep = Some(wish.keep.join(name));
            orders.push(Order { scenarios, flavour, figures: false, keep });
        }
    };
    order(&built_in, Flavour::BuiltIn);
    if real::assets().is_some() {
        order(&on_real, Flavour::Real);
    } else if wish.need_real {
        return Err(trouble!(
            "KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver in it"
        ));
    } else {
        println!("KUBEBUILDER_ASSETS is not set: nothing is run on the real API");
    }
    let done = run_all(&orders, wish.at_once, foip, folder)?;
    let (mut passed, mut failed) = (0, 0);
    for (_, lines) in &done {
        for line in lines {
            match line {
                Line::Verdict(verdict) if verdict.met() => passed += 1,
                Line::Verdict(_) | Line::Trouble(_) => failed += 1,
                Line::History(found) if !found.is_empty() => failed += 1,
                Line::History(_) => passed += 1,
                Line::Figure { .. } => {}
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        Err(trouble!("what failed rounds wrote is in {}", wish.keep.display()))
    } else {
        Ok(())
    }
}
