//! `foip replay FILE`: what a trace tells, step by step, and whether the core of today decides the same.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{Failure, print};
use crate::core::action::Action;
use crate::core::note::Note;
use crate::history::trace::{self, Line, Mismatch};
use crate::types::{Span, Tick};

/// Prints every event with its decisions; fails where this core decides otherwise, or the trace has a gap.
pub(super) fn replay(path: &Path) -> Result<(), Failure> {
    let failed = |why: String| Failure::Failed(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path)
        .map_err(|error| failed(format!("cannot read the trace: {error}")))?;
    let whole = whole_part(&text);
    let lines = trace::read(whole.text).map_err(|error| failed(error.to_string()))?;
    let mismatches = trace::replay(&lines).map_err(|error| failed(error.to_string()))?;
    print(&told(&lines, &mismatches));
    match (mismatches.len(), whole.end) {
        (0, End::Gap { dropped, line }) => Err(failed(format!(
            "{dropped} lines are missing from line {line} on, where the disk did not keep up; up to there the core \
             decides the same, and nothing can be said about what follows"
        ))),
        (0, End::Full) => {
            print("the trace ends here, at its size limit; up to here the core decides the same\n");
            Ok(())
        }
        (0, End::Complete) => {
            print("the core decides the same\n");
            Ok(())
        }
        (count, _) => {
            let (plural, verb) = if count == 1 { ("", "differs") } else { ("s", "differ") };
            Err(failed(format!("{count} decision{plural} {verb} from the trace")))
        }
    }
}

/// Why the part that can be replayed ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    Full,
    Gap { dropped: u64, line: usize },
}

struct Whole<'a> {
    text: &'a str,
    end: End,
}

/// The trace up to the first gap.
fn whole_part(text: &str) -> Whole<'_> {
    let mut length = 0;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        // Both markers have one number in them and nothing else.
        let number = |key: &str| {
            let marker: Value = serde_json::from_str(line).ok()?;
            marker.get(key)?.as_u64()
        };
        let marked = |key: &str| line.starts_with(&format!("{{\"{key}\":"));
        let end = if marked("dropped") {
            number("dropped").map(|dropped| End::Gap { dropped, line: n + 1 })
        } else if marked("full") {
            number("full").map(|_| End::Full)
        } else {
            None
        };
        if let Some(end) = end {
            return Whole { text: &text[..length], end };
        }
        length += line.len();
    }
    Whole { text, end: End::Complete }
}

fn told(lines: &[Line], mismatches: &[Mismatch]) -> String {
    let mut text = String::new();
    let mut begin = Tick(0);
    let mut at = Tick(0);
    for (n, line) in lines.iter().enumerate() {
        match line {
            Line::Header(header) => {
                begin = header.at;
                at = begin;
                let config = &header.start.config;
                let _ = writeln!(
                    text,
                    "start of foip {} on {} with {} group(s), seed {}",
                    header.foip,
                    config.node,
                    config.groups.len(),
                    header.start.seed
                );
            }
            Line::Event { t, event } => {
                let passed = t.since(at);
                at = *t;
                let _ = writeln!(text, "{} (+{passed}) {}", seconds(t.since(begin)), short(event));
            }
            Line::Actions { actions, .. } => {
                for action in actions {
                    let _ = writeln!(text, "    -> {}", decision(action));
                }
            }
        }
        for mismatch in mismatches.iter().filter(|mismatch| mismatch.line == n + 1) {
            text.push_str("    DIFFERS: the core decides now\n");
            for action in &mismatch.replayed {
                let _ = writeln!(text, "    => {}", decision(action));
            }
            text.push_str("    instead of\n");
        }
    }
    text
}

/// Seconds since the start, to the millisecond.
fn seconds(since: Span) -> String {
    format!("{}.{:03}", since.0 / 1000, since.0 % 1000)
}

/// Why a decision was made is in the notes, in words; the others say what it was.
fn decision(action: &Action) -> String {
    match action {
        Action::Note(Note::Changed { text, .. }) => format!("says: {text}"),
        Action::Note(Note::Alarm { code, text }) => format!("alarm {code}: {text}"),
        Action::Note(
            note @ (Note::Authority { .. }
            | Note::Ready { .. }
            | Note::Observed { .. }
            | Note::AlarmOver { .. }),
        ) => format!("notes {}", short(note)),
        Action::Read { .. }
        | Action::List { .. }
        | Action::Write { .. }
        | Action::ReadNode { .. }
        | Action::ReadRoutes { .. }
        | Action::Route { .. }
        | Action::ReadTask { .. }
        | Action::ReadPastCalls { .. }
        | Action::PutAddress { .. }
        | Action::RemoveAddress { .. }
        | Action::Announce { .. }
        | Action::Save(_)
        | Action::Exit => short(action),
    }
}

/// An enum's value as `name {fields}`.
fn short(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        Ok(Value::Object(map)) if map.len() == 1 => {
            map.iter().map(|(name, fields)| format!("{name} {fields}")).collect()
        }
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_whole_up_to_its_first_gap() {
        let gap = whole_part("{\"t\":1}\n{\"dropped\":3}\n{\"t\":2}\n");
        assert_eq!((gap.text, gap.end), ("{\"t\":1}\n", End::Gap { dropped: 3, line: 2 }));
        let full = whole_part("{\"t\":1}\n{\"full\":9}\n");
        assert_eq!((full.text, full.end), ("{\"t\":1}\n", End::Full));
        // A process that was killed while it wrote.
        let cut = whole_part("{\"t\":1}\n{\"dro");
        assert_eq!((cut.text, cut.end), ("{\"t\":1}\n{\"dro", End::Complete));
    }

    #[test]
    fn the_reason_is_shown_in_words() {
        let group = "default".parse().unwrap();
        let text = "takes over".to_owned();
        let epoch = crate::types::Epoch(3);
        let note = Note::Changed { group, holder: None, epoch, text };
        assert_eq!(decision(&Action::Note(note)), "says: takes over");
        let read = Action::ReadNode { ticket: crate::core::event::Ticket(4) };
        assert_eq!(decision(&read), "read_node {\"ticket\":4}");
        assert_eq!(decision(&Action::Exit), "exit");
        assert_eq!(seconds(Span(12_005)), "12.005");
    }
}
