//! Rates, and what must not be said.

use std::collections::{BTreeMap, VecDeque};

use super::index::Place;
use super::{Entry, Index, Invariant, Report, Said};
use crate::core::facts::Key;
use crate::types::{Span, Tick};

/// The least time between two writes of one object by one process.
const APART: Span = Span::millis(200);
/// Requests to the Kubernetes API in a minute, and how many more for each group.
const API: (usize, usize) = (300, 200);
/// Requests to the provider in a minute, and how many more for each IP.
const PROVIDER: (usize, usize) = (120, 60);
/// Steps of one process within a second, beyond which it only turns in circles.
const STEPS: usize = 500;

/// I12: requests per minute are bounded in every failure mode; at least 200 ms between writes of one object,
/// and never two of them in flight.
pub(crate) fn bounded(index: &Index<'_>, report: &mut Report) {
    for life in &index.lives {
        let machine = [life.process.machine];
        let mut last: BTreeMap<&Key, usize> = BTreeMap::new();
        for (n, write) in life.writes.iter().enumerate() {
            let Some(before) = last.insert(write.key, n).and_then(|n| life.writes.get(n)) else {
                continue;
            };
            let apart = write.sent.tick.since(before.sent.tick);
            if apart < APART {
                let text = format!("two writes of {:?} only {} ms apart", write.key, apart.0);
                report.add(Invariant::I12, write.sent.at, &machine, text);
            }
            let answered = before.answer.as_ref().is_some_and(|(a, _)| a.line < write.sent.line);
            if !answered {
                let text = format!("two writes of {:?} in flight", write.key);
                report.add(Invariant::I12, write.sent.at, &machine, text);
            }
        }
        let config = &life.process.start.config;
        let ips: usize = config.groups.values().map(|g| g.ips.len()).sum();
        let api = life.requests.iter().filter(|(_, api)| *api).map(|(place, _)| place);
        let most = API.0 + API.1 * config.groups.len();
        too_many(api, Span::secs(60), most, "requests to the API in a minute", &machine, report);
        let provider = life.requests.iter().filter(|(_, api)| !*api).map(|(place, _)| place);
        let most = PROVIDER.0 + PROVIDER.1 * ips;
        let text = "requests to the provider in a minute";
        too_many(provider, Span::secs(60), most, text, &machine, report);
        too_many(life.steps.iter(), Span::secs(1), STEPS, "steps in a second", &machine, report);
    }
}

fn too_many<'p>(
    places: impl Iterator<Item = &'p Place>,
    window: Span,
    most: usize,
    what: &str,
    machine: &[usize],
    report: &mut Report,
) {
    let mut recent: VecDeque<Tick> = VecDeque::new();
    let mut said = false;
    for place in places {
        recent.push_back(place.tick);
        while recent.front().is_some_and(|first| place.tick.since(*first) >= window) {
            recent.pop_front();
        }
        if recent.len() > most && !said {
            said = true;
            let text = format!("more than {most} {what}");
            report.add(Invariant::I12, place.at, machine, text);
        }
    }
}

/// I14: secrets appear in nothing that a process says.
pub(crate) fn secrets(index: &Index<'_>, report: &mut Report) {
    let secrets = &index.history.facts.secrets;
    if secrets.is_empty() {
        return;
    }
    for Entry { at, process, said, .. } in &index.history.entries {
        let Said::Action(action) = said else { continue };
        let text = serde_json::to_string(action).unwrap_or_default();
        if secrets.iter().any(|secret| text.contains(secret)) {
            let machine = index.lives.get(*process).map_or(usize::MAX, |l| l.process.machine);
            report.add(Invariant::I14, *at, &[machine], "says a secret".to_owned());
        }
    }
}
