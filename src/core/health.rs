//! How fit a node is to hold: a vector, worst first, and the order of candidates made from it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::Trouble;
use super::facts::{Condition, NodeFacts};
use crate::types::{NodeName, Span, Tick};

/// The places of the vector before the user's own checks.
pub const SIGNS: [&str; 7] = [
    "NetworkUnavailable",
    "NotReady",
    "ReadyUnknown",
    "Cordoned",
    "PIDPressure",
    "MemoryPressure",
    "DiskPressure",
];

/// Where a cordon stands in the vector.
pub const CORDONED: usize = 3;

/// What is wrong with a node, worst first; compared lexicographically, so the smaller is the healthier.
/// A place that is missing is not bad: nodes may have different numbers of checks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vector(pub Vec<bool>);

impl PartialEq for Vector {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Vector {}

impl PartialOrd for Vector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Vector {
    fn cmp(&self, other: &Self) -> Ordering {
        let places = 0..self.0.len().max(other.0.len());
        places
            .map(|place| self.is_bad(place).cmp(&other.is_bad(place)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl Vector {
    fn is_bad(&self, place: usize) -> bool {
        self.0.get(place).copied().unwrap_or(false)
    }

    /// Is nothing wrong, as far as is known? No vector is smaller.
    pub fn is_well(&self) -> bool {
        !self.0.contains(&true)
    }

    /// The names of what is wrong, for people.
    pub fn words(&self) -> Vec<String> {
        let wrong = self.0.iter().enumerate().filter(|(_, bad)| **bad);
        wrong
            .map(|(place, _)| match SIGNS.get(place) {
                Some(sign) => (*sign).to_owned(),
                None => format!("check {}", place - SIGNS.len() + 1),
            })
            .collect()
    }

    /// Does the cordon alone make it worse than `other`, whatever becomes of the places before, so that the short
    /// dwell time applies?
    pub fn worse_by_cordon(&self, other: &Self) -> bool {
        self.is_bad(CORDONED) && !(0..=CORDONED).any(|place| other.is_bad(place))
    }
}

/// What this node knows of its own health.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// The own Node object; `None` before the first answer.
    pub node: Option<NodeFacts>,
    /// There is no Node object for this server: it serves no workload (k3s `--disable-agent`).
    pub absent: bool,
    /// Since when the local API server has been dead.
    pub api_dead: Option<Tick>,
    /// The NIC is up with carrier.
    pub link: Option<bool>,
    /// There is a default route.
    pub default_route: Option<bool>,
    /// The name that k3s calls this node by now, where it is another one.
    pub renamed: Option<NodeName>,
    /// What adapters notice by themselves, in words.
    pub troubles: BTreeMap<Trouble, String>,
    /// The user's checks that fail, by name, with what they were answered.
    pub failing: BTreeMap<String, String>,
}

impl Health {
    /// The vector as of `now`. What is not known is not bad (I11).
    pub fn vector(&self, now: Tick, api_grace: Span, checks: &[String]) -> Vector {
        let facts = self.node.as_ref();
        let is = |kind: &str, status: Condition| {
            facts.is_some_and(|facts| facts.conditions.get(kind) == Some(&status))
        };
        let api_dead = self.api_dead.is_some_and(|since| now.since(since) >= api_grace);
        let mut vector = vec![
            is("NetworkUnavailable", Condition::True),
            is("Ready", Condition::False) || api_dead,
            is("Ready", Condition::Unknown),
            facts.is_some_and(|facts| facts.cordoned),
            is("PIDPressure", Condition::True),
            is("MemoryPressure", Condition::True),
            is("DiskPressure", Condition::True),
        ];
        vector.extend(checks.iter().map(|name| self.failing.contains_key(name)));
        Vector(vector)
    }

    /// What the host itself lacks to serve anything.
    pub fn host_lack(&self) -> Option<&'static str> {
        match (self.link, self.default_route) {
            (Some(false), _) => Some("the network interface has no link"),
            (_, Some(false)) => Some("there is no default route over the network interface"),
            (None | Some(true), None | Some(true)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(conditions: &[(&str, Condition)], cordoned: bool) -> Vector {
        let conditions = conditions.iter().map(|(kind, status)| ((*kind).to_owned(), *status));
        let facts =
            NodeFacts { conditions: conditions.collect(), cordoned, ..NodeFacts::default() };
        let health = Health { node: Some(facts), ..Health::default() };
        health.vector(Tick(0), Span::secs(30), &["ok".to_owned()])
    }

    #[test]
    fn the_order_is_that_of_the_original_operator() {
        let ladder = [
            with(&[("NetworkUnavailable", Condition::True)], false),
            with(&[("Ready", Condition::False)], false),
            with(&[("Ready", Condition::Unknown)], false),
            with(&[], true),
            with(&[("PIDPressure", Condition::True)], false),
            with(&[("MemoryPressure", Condition::True)], false),
            with(&[("DiskPressure", Condition::True)], false),
            with(&[("Ready", Condition::True)], false),
        ];
        assert!(ladder.is_sorted_by(|worse, better| worse > better));
        assert!(ladder[3].worse_by_cordon(&ladder[7]) && !ladder[4].worse_by_cordon(&ladder[7]));
        // A node that is not ready for a moment longer than the others is drained as quickly.
        let unready = with(&[("Ready", Condition::False)], true);
        assert!(unready.worse_by_cordon(&ladder[7]) && !unready.worse_by_cordon(&ladder[2]));
        // Where both are cordoned it is something else.
        let worse = with(&[("MemoryPressure", Condition::True)], true);
        assert!(worse > ladder[3] && !worse.worse_by_cordon(&ladder[3]));
    }

    #[test]
    fn a_missing_condition_is_not_bad() {
        assert_eq!(with(&[], false), with(&[("Ready", Condition::True)], false));
    }

    #[test]
    fn a_dead_api_server_counts_only_after_its_grace() {
        let health = Health { api_dead: Some(Tick(1000)), ..Health::default() };
        let words = |now| health.vector(Tick(now), Span::secs(30), &[]).words();
        assert!(words(30_999).is_empty());
        assert_eq!(words(31_000), ["NotReady"]);
    }
}
