//! `lab test`: every scenario on the built-in API, and the bars' scenarios on the real one where there is one.
//!
//! Several clusters run at once, beside whatever else the machine does: a round that misses a bar is run once more,
//! alone, and counts by that. A broken invariant is never given a second chance.

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
    let mut done = run_all(&orders, wish.at_once, foip, folder)?;
    let again: Vec<Order> = done
        .extract_if(.., |(_, lines)| misses_a_bar_only(lines))
        .map(|(order, _)| order)
        .collect();
    for order in &again {
        let names: Vec<&str> = order.scenarios.iter().map(|it| it.name.as_str()).collect();
        println!("once more, alone: {} ({})", names.join(", "), order.flavour);
    }
    done.extend(run_all(&again, 1, foip, folder)?);
    let lines = || done.iter().flat_map(|(_, lines)| lines);
    let failed = lines().filter(|line| failed(line)).count();
    let passed = lines().filter(|line| !matches!(line, Line::Figure { .. })).count() - failed;
    println!("{passed} passed, {failed} failed, {} clusters needed a second run", again.len());
    if failed > 0 {
        Err(trouble!("what failed rounds wrote is in {}", wish.keep.display()))
    } else {
        Ok(())
    }
}

fn failed(line: &Line) -> bool {
    match line {
        Line::Verdict(verdict) => !verdict.met(),
        Line::Trouble(_) => true,
        Line::History(found) => !found.is_empty(),
        Line::Figure { .. } => false,
    }
}

/// Did something fail that a busy machine may have caused, and no invariant?
fn misses_a_bar_only(lines: &[Line]) -> bool {
    let broken = |line: &Line| matches!(line, Line::History(_)) && failed(line);
    lines.iter().any(failed) && !lines.iter().any(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_invariant_gets_no_second_run() {
        let late = || Line::Trouble("late".into());
        let kept = || Line::History(Vec::new());
        let broken = || Line::History(vec!["I1".into()]);
        assert!(misses_a_bar_only(&[kept(), late()]));
        assert!(!misses_a_bar_only(&[kept()]));
        assert!(!misses_a_bar_only(&[late(), broken()]));
    }
}
