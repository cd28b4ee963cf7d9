//! The table is whole, and the manual is what it says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::table::{PARAGRAPHS, ROWS};
use super::*;

const PAGE: &str = "packaging/man/foip-alarms.7";

const HEAD: &str = r#".\" Generated from src/alarms/table.rs: edit it there.
.TH FOIP-ALARMS 7 "2026-11-22" "foip VERSION" "System administration"
.SH NAME
foip\-alarms \- what foip's alarms mean and what to do about them
.SH DESCRIPTION
An alarm is something that a person should know:
it is raised once when it begins, and ends by itself when its cause has ended.
No alarm on any node means that a failover would work now.
.PP
.B foip status
shows the alarms of this node in lines that begin with ALARM, and
.B foip status \-\-json
in the list
.BR alarms ,
each with its
.B code
and its text.
The journal has a line when an alarm begins, with
.BR FOIP_STATE=alarm ,
the code in
.B FOIP_ALARM
and the
.B MESSAGE_ID
that is given below; and one when it ends, with
.BR FOIP_STATE=alarm\-over .
.PP
To see every alarm since the last boot:
.PP
.RS
.nf
journalctl \-b \-u foip FOIP_STATE=alarm
.fi
.RE
.PP
An
.B error
means that an IP is not served, or that this node could take none over (priority 3 in the journal).
A
.B warning
means that all is served, but that a further fault would cost more than it must (priority 4).
.SH ALARMS
"#;

const FOOT: &str = r".SH SEE ALSO
.BR foip (8),
.BR foip.toml (5),
.BR journalctl (1)
";

/// Prose as roff: a sentence to a line, backticks in bold.
fn roff(prose: &str) -> String {
    let mut out = String::new();
    for (i, part) in prose.replace('\\', "\\e").replace('-', "\\-").split('`').enumerate() {
        match i % 2 {
            0 => out.push_str(&part.replace(". ", ".\n")),
            _ => write!(out, "\\fB{part}\\fR").unwrap(),
        }
    }
    assert!(!out.lines().any(|line| line.starts_with(['.', '\''])), "{out}");
    out
}

fn page() -> String {
    let mut page = HEAD.replace("VERSION", env!("CARGO_PKG_VERSION"));
    for (row, prose) in ROWS.iter().zip(PARAGRAPHS) {
        let severity = match row.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (code, title) = (roff(row.code), roff(prose.title));
        writeln!(page, ".SS \"{code}: {title}\"").unwrap();
        writeln!(page, "{}", roff(prose.meaning)).unwrap();
        writeln!(page, ".PP\n.I Danger:\n{}", roff(prose.danger)).unwrap();
        writeln!(page, ".PP\n.I What to do:\n{}", roff(prose.action)).unwrap();
        writeln!(page, ".PP\nSeverity {severity}, MESSAGE_ID={}", row.message_id).unwrap();
    }
    page + FOOT
}

#[test]
fn the_manual_is_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("FOIP_BLESS").is_some() {
        fs::write(&file, page()).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == page(),
        "{PAGE} is not what the table gives: FOIP_BLESS=1 cargo test --lib alarms:: writes it anew"
    );
}

#[test]
fn rows_are_complete_sorted_and_unlike() {
    let codes: Vec<_> = ROWS.iter().map(|row| row.code).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    let ids: BTreeSet<_> = ROWS.iter().map(|row| row.message_id).collect();
    assert_eq!(ids.len(), ROWS.len());
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(ids.iter().all(|id| id.len() == 32 && id.chars().all(hex)), "{ids:?}");
    for (row, prose) in ROWS.iter().zip(PARAGRAPHS) {
        assert_eq!(message_id(row.code), Some(row.message_id));
        for text in [prose.meaning, prose.danger, prose.action] {
            assert!(text.ends_with('.') && !text.contains("  "), "{}: {text:?}", row.code);
        }
        assert!(!prose.title.ends_with('.') && !prose.title.contains('"'), "{}", row.code);
    }
    assert_eq!(message_id("no-such-alarm"), None);
    assert_eq!((severity("link"), severity("alone")), (Severity::Error, Severity::Warning));
    // What keeps a node from serving an IP is an error, whatever keeps it.
    let lacks = "link no-default-route address list not-listed call-failed refused budget api-write \
                 provider-auth provider-config provider-lost ledger-lost no-node no-successor";
    for code in lacks.split_whitespace() {
        assert!(row(code).is_some() && severity(code) == Severity::Error, "{code}");
    }
    assert!(Severity::Error < Severity::Warning, "the worst comes first");
    assert_eq!(severity("no-such-alarm"), Severity::Error);
}

/// The sources that raise alarms, without what is only for tests.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !["tests", "sim", "history", "alarms"].iter().any(|out| path.ends_with(out)) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
            found.push((path, code));
        }
    }
}

/// The text between quotes at the start, if that is what comes next.
fn quoted(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

/// The texts of the last lines that stand where a code does: in a block, an arm or a tuple.
fn values(text: &str) -> Vec<String> {
    // What is between quotes has odd numbers.
    let text = text.replace("\\\"", "").replace("'\"'", "");
    let parts: Vec<&str> = text.split('"').collect();
    let lines: usize = parts.iter().map(|part| part.matches('\n').count()).sum();
    let mut line = 0;
    let mut found = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        line += part.matches('\n').count();
        let (Some(before), Some(after)) = (number.checked_sub(1), parts.get(number + 1)) else {
            continue;
        };
        let code = part.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'));
        if number % 2 == 1
            && code
            && lines - line <= 32
            && parts[before].trim_end().ends_with(['{', '(', '>'])
            && after.trim_start().starts_with(['}', ','])
        {
            found.push((*part).to_owned());
        }
    }
    found
}

/// Codes are raised as `alarm("code", …)`, or as `alarm(code, …)` with the codes in the lines before, or put into
/// the status with `code: "code"`.
fn raised() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut codes = BTreeSet::new();
    let mut calls = 0;
    for (path, text) in &files {
        for (at, call) in text.match_indices(".alarm(") {
            calls += 1;
            if let Some(code) = quoted(&text[at + call.len()..]) {
                codes.insert(code.to_owned());
                continue;
            }
            let found = values(&text[..at]);
            assert!(!found.is_empty(), "{}: an alarm of an unknown code", path.display());
            codes.extend(found);
        }
        for (at, field) in text.match_indices("code: ") {
            codes.extend(quoted(&text[at + field.len()..]).map(str::to_owned));
        }
    }
    assert!(calls > 20, "only {calls} alarms are raised anywhere");
    codes
}

#[test]
fn the_table_has_every_alarm_that_is_raised_and_no_other() {
    let raised = raised();
    let table: BTreeSet<_> = ROWS.iter().map(|row| row.code.to_owned()).collect();
    let missing: Vec<_> = raised.difference(&table).collect();
    assert!(missing.is_empty(), "raised, and not in the table: {missing:?}");
    let idle: Vec<_> = table.difference(&raised).collect();
    assert!(idle.is_empty(), "in the table, and never raised: {idle:?}");
}
