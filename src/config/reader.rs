//! Reads typed values out of a parsed file and gathers every problem with its place.
//!
//! The tree is walked by hand instead of by serde's derive because serde stops at the first problem
//! and forgets where a value stood once it is parsed; a person wants all problems of a file at once.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use crate::types::Span;

/// Names that people give to secrets, which are never in the file.
pub(super) const SECRETS: [&str; 5] = ["password", "passwd", "secret", "token", "refresh_token"];

/// The text of the file and what was found wrong with it so far.
pub(super) struct Report<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

/// A value and where it starts (a byte of the file).
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<T> {
    /// The value.
    pub value: T,
    /// Byte of the file at which it starts.
    pub at: usize,
}

/// One table of the file with the keys that are accepted in it.
pub(super) struct Section<'a> {
    title: &'static str,
    table: Option<&'a DeTable<'a>>,
    /// Byte of the file at which the table starts.
    pub at: usize,
    report: &'a Report<'a>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, problems: RefCell::default() }
    }

    /// A problem at a byte of the file.
    pub(super) fn at(&self, at: usize, text: impl Into<String>) {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = before.split(|byte| *byte == b'\n').count();
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        // Columns are characters, as editors count them.
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        self.push(Some((line, column)), text.into());
    }

    /// A problem of the file as a whole, or of its surroundings.
    pub(super) fn whole(&self, text: impl Into<String>) {
        self.push(None, text.into());
    }

    fn push(&self, place: Option<(usize, usize)>, text: String) {
        self.problems.borrow_mut().push(Problem { place, text });
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }
}

impl<'a> Section<'a> {
    /// The file's top level.
    pub(super) fn root(
        table: &'a Spanned<DeTable<'a>>,
        accepted: &[&str],
        report: &'a Report<'a>,
    ) -> Self {
        let section = Self { title: "the file", table: Some(table.get_ref()), at: 0, report };
        section.refuse_unknown(accepted);
        section
    }

    /// The table `[key]`; where there is none, one without values.
    pub(super) fn table(&self, key: &str, title: &'static str, accepted: &[&str]) -> Section<'a> {
        let mut section = Section { title, table: None, at: 0, report: self.report };
        if let Some(value) = self.value(key) {
            section.at = value.span().start;
            if let DeValue::Table(table) = value.get_ref() {
                section.table = Some(table);
            } else {
                let is = kind(value.get_ref());
                let text = format!("{key} is {is}; write it as a table: {title}");
                self.report.at(section.at, text);
            }
        }
        section.refuse_unknown(accepted);
        section
    }

    /// The tables `[[key]]` in the order of the file.
    pub(super) fn tables(
        &self,
        key: &str,
        title: &'static str,
        accepted: &[&str],
    ) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let wrong = |at: usize, other: &DeValue<'_>| {
            self.report.at(
                at,
                format!(
                    "{key} is {}; write each of them as {title} with two brackets",
                    kind(other)
                ),
            );
        };
        let DeValue::Array(entries) = value.get_ref() else {
            wrong(value.span().start, value.get_ref());
            return Vec::new();
        };
        let mut sections = Vec::new();
        for entry in entries.iter() {
            let DeValue::Table(table) = entry.get_ref() else {
                wrong(entry.span().start, entry.get_ref());
                continue;
            };
            let section =
                Section { title, table: Some(table), at: entry.span().start, report: self.report };
            section.refuse_unknown(accepted);
            sections.push(section);
        }
        sections
    }

    /// Is the table itself in the file?
    pub(super) fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// Is the key there, whatever its value?
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Where the value of `key` starts, else where the table starts.
    pub(super) fn place(&self, key: &str) -> usize {
        self.value(key).map_or(self.at, |value| value.span().start)
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<Item<String>> {
        let value = self.value(key)?;
        let DeValue::String(text) = value.get_ref() else {
            return self.mistyped(key, value, "a text in double quotes");
        };
        Some(item(value, text.to_string()))
    }

    /// A text that a type of ours checks; `fix` says what to write instead.
    pub(super) fn parsed<T>(&self, key: &str, fix: &str) -> Option<Item<T>>
    where
        T: FromStr<Err: Display>,
    {
        let text = self.text(key)?;
        match text.value.parse() {
            Ok(value) => Some(Item { value, at: text.at }),
            Err(why) => {
                self.wrong(key, &text, &why.to_string(), fix);
                None
            }
        }
    }

    /// Is the value a text?
    pub(super) fn text_like(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().is_str())
    }

    /// One word out of a few.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<Item<T>> {
        let text = self.text(key)?;
        match words.iter().find(|(word, _)| *word == text.value) {
            Some((_, value)) => Some(Item { value: *value, at: text.at }),
            None => {
                let all: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
                let fix = format!("write {}", all.join(" or "));
                self.wrong(key, &text, "is not known", &fix);
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<Item<String>>> {
        let value = self.value(key)?;
        let DeValue::Array(entries) = value.get_ref() else {
            return self.mistyped(key, value, "a list of texts: [\"…\"]");
        };
        let mut texts = Vec::new();
        for entry in entries.iter() {
            let DeValue::String(text) = entry.get_ref() else {
                return self.mistyped(key, entry, "a list of texts: [\"…\"]");
            };
            texts.push(item(entry, text.to_string()));
        }
        Some(texts)
    }

    /// true or false.
    pub(super) fn boolean(&self, key: &str) -> Option<Item<bool>> {
        let value = self.value(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            return self.mistyped(key, value, "true or false, without quotes");
        };
        Some(item(value, *flag))
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer(&self, key: &str, least: i64, most: i64) -> Option<Item<i64>> {
        let value = self.value(key)?;
        let DeValue::Integer(digits) = value.get_ref() else {
            return self.mistyped(key, value, "a whole number, without quotes");
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Some(item(value, number)),
            None => {
                self.report.at(
                    value.span().start,
                    format!(
                        "{key} = {} is out of range; write a whole number from {least} to {most}",
                        digits.as_str()
                    ),
                );
                None
            }
        }
    }

    /// A length of time such as "10s", from `least` to `most`.
    pub(super) fn span(&self, key: &str, least: &str, most: &str) -> Option<Item<Span>> {
        let fix = format!("write a time from \"{least}\" to \"{most}\", such as \"{least}\"");
        let value = self.value(key)?;
        let DeValue::String(text) = value.get_ref() else {
            let wanted = "a time in double quotes: a whole number and ms, s, m or h";
            return self.mistyped(key, value, wanted);
        };
        let text = item(value, text.to_string());
        let range = parse_span(least).zip(parse_span(most));
        match parse_span(&text.value) {
            None => {
                let why = "is not a time: a whole number and ms, s, m or h";
                self.wrong(key, &text, why, &fix);
                None
            }
            Some(span) => match range.filter(|(least, most)| span < *least || span > *most) {
                None => Some(Item { value: span, at: text.at }),
                Some((least, _)) => {
                    let why = if span < least { "is too short" } else { "is too long" };
                    self.wrong(key, &text, why, &fix);
                    None
                }
            },
        }
    }

    /// A file's absolute path.
    pub(super) fn path(&self, key: &str) -> Option<Item<PathBuf>> {
        let text = self.text(key)?;
        let path = PathBuf::from(&text.value);
        if !path.is_absolute() || text.value.ends_with('/') {
            let why = "is not the absolute path of a file";
            let fix = "write it from the root: a service has no working directory";
            self.wrong(key, &text, why, fix);
            return None;
        }
        Some(Item { value: path, at: text.at })
    }

    /// Says that a text is wrong, why, and what to do.
    pub(super) fn wrong(&self, key: &str, text: &Item<String>, why: &str, fix: &str) {
        self.report.at(text.at, format!("{key} = {:?} {why}; {fix}", text.value));
    }

    /// Says that a key is missing.
    pub(super) fn missing(&self, key: &str, fix: &str) {
        self.report.at(self.at, format!("{} has no {key}; {fix}", self.title));
    }

    /// Anything else that is wrong, at a byte of the file.
    pub(super) fn say(&self, at: usize, text: impl Into<String>) {
        self.report.at(at, text);
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let found = self.table?.iter().find(|(name, _)| name.get_ref() == key);
        found.map(|(_, value)| value)
    }

    fn mistyped<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Option<T> {
        let shown = match value.get_ref() {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(date) => date.to_string(),
            DeValue::Array(_) => "[…]".to_owned(),
            DeValue::Table(_) => "{…}".to_owned(),
        };
        let is = kind(value.get_ref());
        let text = format!("{key} = {shown} is {is}; write {wanted}");
        self.report.at(value.span().start, text);
        None
    }

    fn refuse_unknown(&self, accepted: &[&str]) {
        for (name, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let key = name.get_ref().as_ref();
            if accepted.contains(&key) {
                continue;
            }
            // The value is not shown: it may be what does not belong here, a secret.
            let secret = SECRETS.contains(&key);
            let note = if secret { "; secrets are never in this file" } else { "" };
            self.report.at(
                name.span().start,
                format!(
                    "unknown key {key:?} in {}; accepted here: {}{note}",
                    self.title,
                    accepted.join(", ")
                ),
            );
        }
    }
}

fn item<T>(place: &Spanned<DeValue<'_>>, value: T) -> Item<T> {
    Item { value, at: place.span().start }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// "500ms", "10s", "2m", "1h".
pub(super) fn parse_span(text: &str) -> Option<Span> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(unit).map(Span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_whole_number_and_a_unit() {
        assert_eq!(parse_span("500ms"), Some(Span(500)));
        assert_eq!(parse_span("10s"), Some(Span::secs(10)));
        assert_eq!(parse_span("2m"), Some(Span::secs(120)));
        assert_eq!(parse_span("1h"), Some(Span::secs(3600)));
        for bad in [
            "",
            "s",
            "10",
            "1.5s",
            "-1s",
            "10 s",
            "10S",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }

    #[test]
    fn columns_count_characters() {
        let report = Report::new("# ü\nname = \"ä\" x");
        report.at("# ü\nname = \"ä\" ".len(), "here");
        assert_eq!(report.into_problems()[0].place, Some((2, 12)));
    }
}
