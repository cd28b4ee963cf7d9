//! The corpus, and what a seeded generator makes of it, on every run.
//!
//! `FOIP_FUZZ=N` is the number of inputs for each reader. With `FOIP_FUZZ_CORPUS=FOLDER` the corpus is written
//! there, a folder for each target: that is where `tests/fuzz/run` takes it from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{TARGETS, feed};
use crate::core::action::Action;
use crate::core::facts::Key;
use crate::history::trace::{self, Line};
use crate::history::{History, Said};
use crate::sim::scenario::Scenario;

/// Inputs for each reader, unless `FOIP_FUZZ` says otherwise.
const INPUTS: u64 = 2000;

/// No input grows beyond this.
const LONGEST: usize = 64 * 1024;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Where the golden files of a target are, and how they end.
fn golden(target: &str) -> Option<(&'static str, &'static [&'static str])> {
    Some(match target {
        "config" => ("config", &["toml"]),
        "netlink" => ("net", &["hex"]),
        "oidc" => ("provider/oidc", &["json"]),
        "rest" => ("provider/rest", &["json", "html"]),
        "soap" => ("provider/soap", &["xml", "html"]),
        _ => return None,
    })
}

/// What foip itself writes, out of a simulated hour of trouble.
fn written(target: &str) -> Vec<Vec<u8>> {
    /// Of each kind; more would be much alike.
    const MOST: usize = 40;
    let mut inputs = BTreeSet::new();
    let history = Scenario::of(9).run(None);
    let actions = history.entries.iter().filter_map(|entry| match &entry.said {
        Said::Action(action) => Some(action),
        Said::Event(_) => None,
    });
    for action in actions {
        let text = match (target, action) {
            ("lease", Action::Write { key: Key::Group(_), doc, .. }) => {
                serde_json::to_string(&doc).ok()
            }
            ("ledger", Action::Write { key: Key::Ledger, doc, .. }) => {
                doc.notes.get("calls").cloned()
            }
            ("node_record", Action::Write { key: Key::Node(_), doc, .. }) => {
                doc.notes.get("record").cloned()
            }
            ("state", Action::Save(saved)) => serde_json::to_string(&saved).ok(),
            _ => None,
        };
        inputs.extend(text.filter(|_| inputs.len() < MOST).map(String::into_bytes));
    }
    if target == "trace" {
        inputs.extend((0..history.processes.len()).map(|process| traced(&history, process)));
    }
    inputs.into_iter().collect()
}

/// The beginning of the trace of one process.
fn traced(history: &History, number: usize) -> Vec<u8> {
    let process = &history.processes[number];
    let begun = history.clocks[process.clock].tick(process.began);
    let mut text = trace::write(&trace::header(&process.start, begun)).unwrap() + "\n";
    for entry in history.entries.iter().filter(|entry| entry.process == number).take(60) {
        let t = entry.tick;
        let line = match &entry.said {
            Said::Event(event) => Line::Event { t, event: event.clone() },
            Said::Action(action) => Line::Actions { t, actions: vec![action.clone()] },
        };
        text += &(trace::write(&line).unwrap() + "\n");
    }
    text.into_bytes()
}

/// Golden files, what foip writes, and the files of `tests/fuzz/corpus` for what has neither.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut inputs = written(target);
    if let Some((folder, ends)) = golden(target) {
        for file in files(&root().join("tests/golden").join(folder)) {
            let end = file.extension().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = fs::read(&file).unwrap();
            match end.as_str() {
                "hex" => {
                    inputs.extend(crate::net::golden::datagrams(&String::from_utf8(bytes).unwrap()))
                }
                end if ends.contains(&end) => inputs.push(bytes),
                _ => {}
            }
        }
    }
    let own = root().join("tests/fuzz/corpus").join(target);
    if own.is_dir() {
        inputs.extend(files(&own).iter().map(|file| fs::read(file).unwrap()));
    }
    inputs
}

/// SplitMix64: the same inputs on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        let most = u64::try_from(most.max(1)).unwrap();
        usize::try_from(self.next() % most).unwrap()
    }

    fn place(&mut self, bytes: &[u8]) -> (usize, usize) {
        let at = self.below(bytes.len() + 1);
        let longest = [1, 4, 40, 400][self.below(4)];
        (at, (at + self.below(longest)).min(bytes.len()))
    }

    /// One of the inputs, changed a few times.
    fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const TOKENS: [&str; 24] = [
            "null",
            "true",
            "-1",
            "0",
            "1e999",
            "18446744073709551615",
            "9223372036854775808",
            "\"",
            "\\",
            "\\u0000",
            "\\ud800",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "<",
            "</",
            "&#0;",
            "\n",
            "\u{1b}[2J",
            "“",
            "\u{feff}",
        ];
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let (from, to) = self.place(&bytes);
            match self.below(8) {
                0 => bytes.truncate(from),
                1 => {
                    if let Some(byte) = bytes.get_mut(from) {
                        *byte ^= 1 << self.below(8);
                    }
                }
                2 => drop(bytes.drain(from..to)),
                3 => {
                    let part = bytes[from..to].repeat(1 + self.below(30));
                    bytes.splice(from..to, part);
                }
                4 => {
                    let more: Vec<u8> =
                        (0..self.below(9)).map(|_| self.next().to_le_bytes()[0]).collect();
                    bytes.splice(from..to, more);
                }
                5 => {
                    let number = [0, 1, 0xff, 0x7f, 0x80][self.below(5)];
                    bytes[from..to].fill(number);
                }
                6 => {
                    let other = &corpus[self.below(corpus.len())];
                    let (from_other, to_other) = self.place(other);
                    bytes.splice(from..to, other[from_other..to_other].to_vec());
                }
                _ => {
                    let token = TOKENS[self.below(TOKENS.len())];
                    bytes.splice(from..to, token.bytes());
                }
            }
            bytes.truncate(LONGEST);
        }
        bytes
    }
}

#[test]
fn each_reader_takes_some_of_its_corpus_and_refuses_some_of_the_rest() {
    let folder = std::env::var_os("FOIP_FUZZ_CORPUS").map(PathBuf::from);
    for (name, run) in TARGETS {
        let inputs = corpus(name);
        let taken = inputs.iter().filter(|input| run(input)).count();
        assert!(
            taken > 0,
            "{name}: none of {} inputs is taken for what it should be",
            inputs.len()
        );
        assert!(!run(b"\0\xff\x1b nothing of the kind"), "{name} takes anything");
        let Some(folder) = folder.as_ref().map(|folder| folder.join(name)) else {
            continue;
        };
        fs::create_dir_all(&folder).unwrap();
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:03}")), input).unwrap();
        }
    }
}

#[test]
fn damaged_inputs_are_refused_and_nothing_worse() {
    let inputs = std::env::var("FOIP_FUZZ").ok().and_then(|count| count.parse().ok());
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, run) in TARGETS {
        let corpus = corpus(name);
        let mut random = Random(0x0f01_u64);
        for number in 0..inputs.unwrap_or(INPUTS) {
            let input = random.input(&corpus);
            let shown = || String::from_utf8_lossy(&input).into_owned();
            let result = std::panic::catch_unwind(|| run(&input));
            assert!(result.is_ok(), "{name} fails on input {number}: {:?}", shown());
            *found.entry(name).or_default() += usize::from(result.unwrap());
        }
    }
    // Were every input refused at its first byte, this would look at nothing.
    assert!(found.values().all(|taken| *taken > 5), "{found:?}");
}

#[test]
fn each_reader_has_its_program() {
    let folder = root().join("tests/fuzz/fuzz_targets");
    let manifest = fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let text = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
        assert!(
            text.contains(&format!("foip::fuzzing::feed(\"{name}\", bytes)")),
            "{name}: {text}"
        );
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
    assert_eq!(files(&folder).len(), TARGETS.len());
}

#[test]
#[should_panic(expected = "there is no target")]
fn a_target_that_is_none_is_told() {
    feed("no_such_target", b"");
}
