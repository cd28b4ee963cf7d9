//! Rates, and what must not be said.

use std::collections::{BTreeMap, VecDeque};

use super::address::held_up;
use super::life::Place;
use super::{Entry, Index, Invariant, Report, Said};
use crate::core::action::Action;
use crate::core::event::Event;
use crate::core::facts::Key;
use crate::core::note::Note;
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
        let ips = life.configs.iter().map(|(_, c)| c.groups.values().map(|g| g.ips.len()).sum());
        let ips: usize = ips.max().unwrap_or_default();
        let api = life.requests.iter().filter(|(_, api)| *api).map(|(place, _)| place);
        let most = API.0 + API.1 * life.groups.len();
        too_many(api, Span::secs(60), most, "requests to the API in a minute", &machine, report);
        let provider = life.requests.iter().filter(|(_, api)| !*api).map(|(place, _)| place);
        let most = PROVIDER.0 + PROVIDER.1 * ips;
        let text = "requests to the provider in a minute";
        too_many(provider, Span::secs(60), most, text, &machine, report);
        // What was held back while the machine stood still comes all at once.
        let steps = life
            .steps
            .iter()
            .filter(|step| !held_up(index, life, step.at.minus(Span::secs(2)), step.at));
        too_many(steps, Span::secs(1), STEPS, "steps in a second", &machine, report);
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

/// I14: secrets appear in nothing that a process says or is told: all of it goes into its trace, and most of it
/// into logs, objects or the status. What others wrote is judged where they write it.
pub(crate) fn secrets(index: &Index<'_>, report: &mut Report) {
    let secrets = &index.history.facts.secrets;
    if secrets.is_empty() {
        return;
    }
    let in_text = |text: &str| secrets.iter().any(|secret| text.contains(secret.as_str()));
    for life in &index.lives {
        if json(&life.process.start).is_some_and(|text| in_text(&text)) {
            let (at, machine) = (life.process.began, [life.process.machine]);
            report.add(Invariant::I14, at, &machine, "is started with a secret".to_owned());
        }
    }
    for Entry { at, process, said, .. } in &index.history.entries {
        let found = match said {
            Said::Action(Action::Write { doc, .. }) => {
                let texts = doc.notes.values().chain(&doc.holder);
                texts.into_iter().any(|text| in_text(text))
            }
            Said::Action(Action::Note(note)) => match note {
                Note::Changed { text, .. } | Note::Alarm { text, .. } => in_text(text),
                Note::Authority { .. }
                | Note::Ready { .. }
                | Note::Observed { .. }
                | Note::AlarmOver { .. } => false,
            },
            Said::Action(action @ Action::Save(_)) => json(action).is_some_and(|t| in_text(&t)),
            Said::Event(event) if free_text(event) => json(event).is_some_and(|t| in_text(&t)),
            Said::Event(_) | Said::Action(_) => false,
        };
        if found {
            let machine = index.lives.get(*process).map_or(usize::MAX, |l| l.process.machine);
            let what = match said {
                Said::Event(_) => "is told a secret, which its trace repeats",
                Said::Action(_) => "says a secret",
            };
            report.add(Invariant::I14, *at, &[machine], what.to_owned());
        }
    }
}

fn json<T: serde::Serialize>(it: &T) -> Option<String> {
    serde_json::to_string(it).ok()
}

/// Does the event carry text that an adapter made?
fn free_text(event: &Event) -> bool {
    match event {
        Event::Read { result, .. } => result.is_err(),
        Event::Listed { result, .. } => result.is_err(),
        Event::Written { result, .. } => result.is_err(),
        Event::Node { result, .. } => result.is_err(),
        Event::Routes { result, .. } => result.is_err(),
        Event::PastCalls { .. }
        | Event::Route { .. }
        | Event::Task { .. }
        | Event::Home(_)
        | Event::AddressPut { result: Err(_), .. }
        | Event::Carry(_)
        | Event::Trouble(..)
        | Event::Check { .. }
        | Event::Reload(_) => true,
        Event::AddressPut { result: Ok(()), .. }
        | Event::Wake
        | Event::Watched { .. }
        | Event::NodeWatched(_)
        | Event::LocalApi(_)
        | Event::Addresses(_)
        | Event::Link { .. }
        | Event::Members(_)
        | Event::Renamed(_)
        | Event::Stop => false,
    }
}
