//! What `foip run --trace` writes: every event and every answer of the core, line by line as JSON, so that a run
//! can be judged, and repeated bit for bit.
//!
//! ```text
//! {"foip":"0.1.0","start":{…},"at":12345}
//! {"t":12345,"actions":[…]}
//! {"t":12360,"event":{…}}
//! {"t":12360,"actions":[…]}
//! ```

use serde::{Deserialize, Serialize};

use super::{Clock, Entry, Facts, History, Process, Real, Said};
use crate::core::Core;
use crate::core::action::Action;
use crate::core::event::{Event, Start};
use crate::types::Tick;

/// The first line of a process's trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of foip that wrote it.
    pub foip: String,
    /// What the core was started with.
    pub start: Start,
    /// When, on the machine's clock.
    pub at: Tick,
}

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A process began.
    Header(Box<Header>),
    /// The core was told something.
    Event {
        /// When.
        t: Tick,
        /// What.
        event: Event,
    },
    /// The core's answer to the line before; left out where it is empty.
    Actions {
        /// When.
        t: Tick,
        /// What.
        actions: Vec<Action>,
    },
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A line is not one of the three kinds. The last line of a killed process may be cut; that is forgiven.
    #[error("trace line {line} cannot be read: {why}")]
    Unreadable {
        /// Counted from one.
        line: usize,
        /// What the parser says.
        why: serde_json::Error,
    },
    /// Something comes before the header.
    #[error("trace line {0} comes before any header")]
    NoHeader(usize),
}

/// The first line of a trace.
pub fn header(start: &Start, at: Tick) -> Line {
    let foip = env!("CARGO_PKG_VERSION").to_owned();
    Line::Header(Box::new(Header { foip, start: start.clone(), at }))
}

/// One line as text, without its newline.
///
/// # Errors
/// Only where serde cannot express a value, which no type of the core does.
pub fn write(line: &Line) -> Result<String, serde_json::Error> {
    serde_json::to_string(line)
}

/// Reads a trace.
///
/// # Errors
/// Where a line that is not the last cannot be read.
pub fn read(text: &str) -> Result<Vec<Line>, TraceError> {
    let mut lines = Vec::new();
    let last = text.lines().count();
    for (n, one) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match serde_json::from_str(one) {
            Ok(line) => lines.push(line),
            Err(_) if n + 1 == last && !text.ends_with('\n') => {}
            Err(why) => return Err(TraceError::Unreadable { line: n + 1, why }),
        }
    }
    Ok(lines)
}

/// A step at which the core does not say again what the trace says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The trace's line of the event or header, counted from one.
    pub line: usize,
    /// What the trace says.
    pub recorded: Vec<Action>,
    /// What the core says now.
    pub replayed: Vec<Action>,
}

/// Feeds a trace's events to a new core and compares its answers with those recorded.
///
/// # Errors
/// Where the trace does not begin with a header.
pub fn replay(lines: &[Line]) -> Result<Vec<Mismatch>, TraceError> {
    let mut core: Option<Core> = None;
    let mut mismatches = Vec::new();
    let mut rest = lines.iter().enumerate().peekable();
    while let Some((n, line)) = rest.next() {
        let replayed = match (line, &mut core) {
            (Line::Header(header), _) => {
                let (new, actions) = Core::start(header.start.clone(), header.at);
                core = Some(new);
                actions
            }
            (Line::Event { t, event }, Some(core)) => core.step(*t, event.clone()),
            (Line::Event { .. } | Line::Actions { .. }, _) => {
                return Err(TraceError::NoHeader(n + 1));
            }
        };
        let mut recorded = Vec::new();
        while let Some((_, Line::Actions { actions, .. })) = rest.peek() {
            recorded.extend(actions.iter().cloned());
            rest.next();
        }
        // The process may have died before it had carried out or written all of its answer: then the trace
        // ends here.
        let cut = rest.peek().is_none() && replayed.starts_with(&recorded);
        if recorded != replayed && !cut {
            mismatches.push(Mismatch { line: n + 1, recorded, replayed });
        }
    }
    Ok(mismatches)
}

/// Makes a history of the traces of several nodes on one machine, whose CLOCK_BOOTTIME is the real time of all.
/// Each trace comes with the number of its node, and when its process ended, where that is known.
///
/// # Errors
/// Where a trace does not begin with a header.
pub fn history(
    traces: &[(usize, Vec<Line>, Option<Tick>)],
    facts: Facts,
) -> Result<History, TraceError> {
    let mut history = History { clocks: vec![Clock::exact()], facts, ..History::default() };
    let real = |tick: Tick| Real(tick.0.saturating_mul(1000));
    for (machine, lines, ended) in traces {
        let mut process = None;
        for (n, line) in lines.iter().enumerate() {
            let (tick, said) = match line {
                Line::Header(header) => {
                    process = Some(history.processes.len());
                    history.processes.push(Process {
                        machine: *machine,
                        clock: 0,
                        start: header.start.clone(),
                        began: real(header.at),
                        ended: ended.map(real),
                    });
                    continue;
                }
                Line::Event { t, event } => (*t, vec![Said::Event(event.clone())]),
                Line::Actions { t, actions } => {
                    (*t, actions.iter().cloned().map(Said::Action).collect())
                }
            };
            let Some(process) = process else {
                return Err(TraceError::NoHeader(n + 1));
            };
            for said in said {
                history.entries.push(Entry { at: real(tick), tick, process, said });
            }
        }
    }
    // Stable: lines of one process keep their order.
    history.entries.sort_by_key(|e| e.at);
    history.end = history.entries.last().map_or(Real(0), |e| e.at);
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Identity;
    use crate::core::saved::Saved;
    use crate::history::tests::builder::config;

    fn start() -> Start {
        let identity = Identity { host: "h".into(), boot: "b".into(), nonce: "n".into() };
        Start { config: config("node-a"), identity, saved: Saved::default(), seed: 7 }
    }

    #[test]
    fn a_trace_reads_back_as_it_was_written() {
        let lines = vec![
            header(&start(), Tick(5)),
            Line::Event { t: Tick(6), event: Event::Wake },
            Line::Actions { t: Tick(6), actions: vec![Action::Exit] },
        ];
        let text: String = lines.iter().map(|l| write(l).unwrap() + "\n").collect();
        assert_eq!(read(&text).unwrap(), lines);
        assert_eq!(read(&text[..text.len() - 4]).unwrap().len(), 2);
        assert!(matches!(read("nonsense\n"), Err(TraceError::Unreadable { line: 1, .. })));
    }

    #[test]
    fn a_replay_finds_what_differs() {
        let (mut core, first) = Core::start(start(), Tick(5));
        let then = core.step(Tick(6), Event::Wake);
        let mut lines = vec![
            header(&start(), Tick(5)),
            Line::Actions { t: Tick(5), actions: first },
            Line::Event { t: Tick(6), event: Event::Wake },
            Line::Actions { t: Tick(6), actions: then },
        ];
        assert_eq!(replay(&lines).unwrap(), []);
        lines[3] = Line::Actions { t: Tick(6), actions: vec![Action::Exit] };
        assert_eq!(replay(&lines).unwrap().len(), 1);
        assert!(replay(&lines[1..]).is_err());
    }
}
