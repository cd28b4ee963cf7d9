//! Every reader of what comes from outside, as a function of bytes that must not panic.
//!
//! `tests/fuzz` has a program for each that libFuzzer drives; the tests below feed the same functions with the
//! corpus and with what a seeded generator makes of it, on every run and by any compiler. Nothing of this is in the
//! program that ships.

#[cfg(test)]
mod tests;

use std::path::Path;

use crate::cluster::kubeconfig;
use crate::config::{Host, Places, Settings, node_of_pem};
use crate::core::facts::Doc;
use crate::core::ledger::Ledger;
use crate::core::peer::PeerRecord;
use crate::core::record::Record;
use crate::core::saved::Saved;
use crate::history::trace;
use crate::types::{NodeName, Span};
use crate::{cluster, net, provider, status, text};

/// A name, and what it feeds: true where the bytes were taken for what they should be.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All of them, by name; each has a program of this name in `tests/fuzz/fuzz_targets`.
pub const TARGETS: &[Target] = &[
    ("certificate", certificate),
    ("config", config),
    ("date", |bytes| in_text(bytes, provider::fuzzing::date)),
    ("kubeconfig", |bytes| in_text(bytes, kubeconfig)),
    ("kubernetes", cluster::fuzzing::kubernetes),
    ("ledger", |bytes| in_text(bytes, ledger)),
    ("lease", |bytes| in_text(bytes, lease)),
    ("netlink", net::fuzzing::netlink),
    ("node_record", |bytes| in_text(bytes, node_record)),
    ("oidc", provider::fuzzing::oidc),
    ("rest", provider::fuzzing::rest),
    ("soap", provider::fuzzing::soap),
    ("state", state),
    ("status", |bytes| in_text(bytes, shown)),
    ("text", |bytes| in_text(bytes, words)),
    ("token_file", provider::fuzzing::token_file),
    ("trace", |bytes| in_text(bytes, trace)),
];

/// Feeds one of [`TARGETS`].
///
/// # Panics
/// Where the reader does, which is a bug of it; and for a name that is none.
pub fn feed(name: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let taken = found.map(|(_, run)| run(bytes));
    assert!(taken.is_some(), "there is no target {name}");
}

fn in_text(bytes: &[u8], run: fn(&str) -> bool) -> bool {
    std::str::from_utf8(bytes).is_ok_and(run)
}

/// `/etc/foip.toml`.
fn config(bytes: &[u8]) -> bool {
    in_text(bytes, |text| {
        let host = Host {
            places: Places {
                state: "/nowhere/state".into(),
                runtime: "/nowhere/run".into(),
                credentials: None,
            },
            kubeconfig: None,
            kubelet_certificate: "/nowhere/client-kubelet.crt".into(),
            hostname: "node-a".into(),
        };
        let lines = text.split('\n').count();
        let Err(error) = Settings::parse(Path::new("/nowhere/foip.toml"), text, &host) else {
            return true;
        };
        assert!(!error.problems().is_empty(), "refused without a reason");
        for problem in error.problems() {
            let (line, column) = problem.place.unwrap_or((1, 1));
            assert!((1..=lines).contains(&line) && column > 0, "a place that is not in the file");
        }
        false
    })
}

/// The kubelet's certificate, which has the node's name.
fn certificate(bytes: &[u8]) -> bool {
    node_of_pem(bytes).is_some_and(|name| NodeName::try_from(name).is_ok())
}

/// A kubeconfig. The files that it names are not there.
fn kubeconfig(text: &str) -> bool {
    let read = kubeconfig::parse(text, Path::new("/nowhere"), Span::secs(2));
    if let Err(why) = &read {
        assert!(!why.is_empty(), "refused without a reason");
    }
    read.is_ok()
}

/// A group's Lease, as `kubectl edit` may leave it: JSON of a [`Doc`].
fn lease(text: &str) -> bool {
    let Ok(doc) = serde_json::from_str::<Doc>(text) else {
        return false;
    };
    let record = Record::parse(&doc);
    // What foip would write of it says the same again.
    let again = Record::parse(&record.doc());
    assert_eq!(again.order(), record.order(), "another term after it was written");
    assert_eq!(again.holder, record.holder, "another holder after it was written");
    record.intact
}

/// The ledger's annotation.
fn ledger(text: &str) -> bool {
    let read = Ledger::parse(&noted("calls", text));
    if let Some(ledger) = &read {
        let again = Ledger::parse(&ledger.doc());
        assert_eq!(again.as_ref(), Some(ledger), "another ledger after it was written");
    }
    read.is_some()
}

/// A node record's annotation.
fn node_record(text: &str) -> bool {
    PeerRecord::parse(&noted("record", text)).is_some()
}

/// An object with this annotation.
fn noted(name: &str, text: &str) -> Doc {
    Doc { notes: [(name.to_owned(), text.to_owned())].into(), ..Doc::default() }
}

/// `saved.json` in the state directory.
fn state(bytes: &[u8]) -> bool {
    let read = serde_json::from_slice::<Saved>(bytes).ok();
    if let Some(saved) = &read {
        let text = serde_json::to_vec(saved).unwrap_or_default();
        let again = serde_json::from_slice::<Saved>(&text).ok();
        assert_eq!(again.as_ref(), Some(saved), "another state after it was saved");
    }
    read.is_some()
}

/// What `foip status` reads, and shows at a terminal.
fn shown(text: &str) -> bool {
    let Ok(status) = status::parse(text) else {
        return false;
    };
    let table = status.to_text(status.tick);
    let odd = |line: &str| line.contains(char::is_control);
    assert!(!table.lines().any(odd), "a control character: {table:?}");
    true
}

/// `foip replay`'s file.
fn trace(text: &str) -> bool {
    trace::read(text).is_ok_and(|lines| lines.len() > 1)
}

/// Text that is to be shown.
fn words(text: &str) -> bool {
    let shown = text::clean(text);
    assert!(shown.len() <= text::FIELD, "longer than allowed");
    assert!(!shown.contains(char::is_control), "a control character");
    shown == text
}
