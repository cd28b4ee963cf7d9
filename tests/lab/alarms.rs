//! Which alarms a host's foip raised, and when: from its traces.

use std::collections::BTreeMap;
use std::fs;

use foip::core::action::Action;
use foip::core::note::Note;
use foip::history::trace::Line;

use crate::agent::Agent;

/// An alarm that nobody expects may stand for so long, in milliseconds: what ends by itself is no alarm that lasts.
const PASSING: u64 = 15_000;

/// One alarm, from its beginning to its end; it may last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Its code.
    pub code: String,
    /// Its text.
    pub text: String,
    /// When it began, in milliseconds.
    pub from: u64,
    /// When it ended.
    pub to: Option<u64>,
}

/// All alarms of all runs of one foip. The end of a process ends its alarms.
pub fn raised(agent: &Agent) -> Vec<Raised> {
    let mut all = Vec::new();
    for (run, file) in agent.traces().iter().enumerate() {
        let text = fs::read_to_string(file).unwrap_or_default();
        // A line that holds no alarm is not parsed: there are thousands.
        let told = text.lines().filter(|line| line.contains("\"alarm"));
        let lines = told.filter_map(|line| serde_json::from_str(line).ok());
        let first = all.len();
        follow(lines, &mut all);
        for open in all[first..].iter_mut().filter(|alarm| alarm.to.is_none()) {
            open.to = agent.deaths().get(run).copied();
        }
    }
    all
}

fn follow(lines: impl Iterator<Item = Line>, all: &mut Vec<Raised>) {
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        let Line::Actions { t, actions } = line else { continue };
        for action in actions {
            match action {
                Action::Note(Note::Alarm { code, text }) => {
                    let at = *open.entry(code.clone()).or_insert_with(|| {
                        all.push(Raised { code, text: text.clone(), from: t.0, to: None });
                        all.len() - 1
                    });
                    all[at].text = text;
                }
                Action::Note(Note::AlarmOver { code }) => {
                    if let Some(at) = open.remove(&code) {
                        all[at].to = Some(t.0);
                    }
                }
                _ => {}
            }
        }
    }
}

/// What is wrong with the alarms of one host in a scenario's time: one that is missing, or one too many.
pub fn judge(
    all: &[Raised],
    wanted: &[String],
    allowed: &[String],
    (from, to): (u64, u64),
) -> Vec<String> {
    let mut problems = Vec::new();
    let within = |alarm: &&Raised| alarm.to.is_none_or(|end| end >= from) && alarm.from <= to;
    for code in wanted {
        if !all.iter().filter(within).any(|alarm| alarm.code == *code) {
            let others: Vec<&str> = all.iter().filter(within).map(|a| a.code.as_str()).collect();
            problems.push(format!("no alarm {code}, only [{}]", others.join(", ")));
        }
    }
    for alarm in all.iter().filter(|alarm| alarm.from >= from && alarm.from <= to) {
        let long = alarm.to.unwrap_or(to).saturating_sub(alarm.from);
        if long > PASSING && !wanted.contains(&alarm.code) && !allowed.contains(&alarm.code) {
            problems.push(format!("an alarm {} for {long} ms: {}", alarm.code, alarm.text));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use foip::types::Tick;

    fn told(at: u64, note: Note) -> Line {
        Line::Actions { t: Tick(at), actions: vec![Action::Note(note)] }
    }

    fn alarms() -> Vec<Raised> {
        let alarm = |at, code: &str, text: &str| {
            told(at, Note::Alarm { code: code.into(), text: text.into() })
        };
        let over = |at, code: &str| told(at, Note::AlarmOver { code: code.into() });
        let lines = [
            alarm(10, "link", "no link"),
            alarm(20, "link", "no link at all"),
            over(40_000, "link"),
            alarm(50_000, "link", "again"),
        ];
        let mut all = Vec::new();
        follow(lines.into_iter(), &mut all);
        all
    }

    #[test]
    fn an_alarm_lasts_until_it_is_over() {
        let times: Vec<_> = alarms().iter().map(|alarm| (alarm.from, alarm.to)).collect();
        assert_eq!(times, [(10, Some(40_000)), (50_000, None)]);
        assert_eq!(alarms()[0].text, "no link at all");
    }

    #[test]
    fn alarms_that_are_missing_or_last_unasked_are_told() {
        let wanted = |codes: &[&str]| -> Vec<String> {
            codes.iter().map(|code| (*code).to_owned()).collect()
        };
        assert!(judge(&alarms(), &wanted(&["link"]), &[], (0, 60_000)).is_empty());
        assert_eq!(judge(&alarms(), &wanted(&["link", "address"]), &[], (0, 60_000)).len(), 1);
        // The second one is too young to count as lasting.
        assert_eq!(judge(&alarms(), &[], &[], (0, 60_000)).len(), 1);
        assert!(judge(&alarms(), &[], &wanted(&["link"]), (0, 60_000)).is_empty());
        assert_eq!(judge(&alarms(), &wanted(&["link"]), &[], (41_000, 45_000)).len(), 1);
    }
}
