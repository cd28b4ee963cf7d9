//! Text from outside, fit to be shown: what netcup, Kubernetes and the host call things is data, never an order to
//! a terminal, to journald or to systemd.
//!
//! Text is cleaned where it leaves (log, status file, terminal, service manager, answers in words), so that no
//! way in can be forgotten: a line break would begin a line of its own, an escape sequence would paint over what
//! stands there, and a change of the direction of writing would show another order than the one that counts.

use std::borrow::Cow;

/// The longest line of the log, in bytes: room for every problem of a configuration that was refused.
pub const LINE: usize = 4000;

/// The longest text of one field, alarm or cell, in bytes. systemd takes messages of up to 4,096 bytes.
pub const FIELD: usize = 1000;

/// What stands for a character that must not be shown.
const INSTEAD: char = '\u{fffd}';

/// What stands for the end of a text that is too long.
const MORE: &str = "…";

/// The text on one line, without characters that steer instead of being shown, and at most [`FIELD`] bytes long.
pub fn clean(text: &str) -> Cow<'_, str> {
    clean_to(text, FIELD)
}

/// As [`clean`], with a limit of its own: at most `most` bytes, the sign for what was cut off included.
pub fn clean_to(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && text.chars().all(|c| shown_as(c) == c) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(most));
    // Up to here there is room left for the sign.
    let mut room = 0;
    for c in text.chars().map(shown_as) {
        if out.len() + c.len_utf8() > most {
            out.truncate(room);
            if room + MORE.len() <= most {
                out.push_str(MORE);
            }
            break;
        }
        out.push(c);
        if out.len() + MORE.len() <= most {
            room = out.len();
        }
    }
    Cow::Owned(out)
}

/// As [`clean_to`], in place; text that is clean already is not copied.
pub fn tidy(text: &mut String, most: usize) {
    if let Cow::Owned(clean) = clean_to(text, most) {
        *text = clean;
    }
}

/// A sentence, which may be somebody else's, and the next one. The cause is the first and what follows from it the second.
pub fn then(first: &str, next: &str) -> String {
    let stop = if first.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{stop} {next}")
}

/// The character itself, if it is one that is only shown.
fn shown_as(c: char) -> char {
    match c {
        // What breaks or spaces a line.
        '\t'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        c if c.is_control() => INSTEAD,
        // Directions of writing, and what is there without being seen.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => INSTEAD,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_follows_is_a_sentence_of_its_own() {
        for first in ["refused", "refused.", "refused: does k3s run?"] {
            let end = if first == "refused" { "." } else { "" };
            assert_eq!(then(first, "Nothing is moved"), format!("{first}{end} Nothing is moved"));
        }
    }

    #[test]
    fn what_steers_a_terminal_is_not_passed_on() {
        for (dirty, cleaned) in [
            ("Nürnberg", "Nürnberg"),
            ("Nuremberg\nALARM provider-auth: run rm", "Nuremberg ALARM provider-auth: run rm"),
            ("\x1b[2J\x1b]0;title\x07", "\u{fffd}[2J\u{fffd}]0;title\u{fffd}"),
            // One character of the second control set begins a sequence, too.
            ("\u{9b}31m red", "\u{fffd}31m red"),
            ("a\r\nb\tc\u{85}d\u{2028}e\u{2029}f\u{b}g", "a  b c d e f g"),
            ("\u{7f}\0", "\u{fffd}\u{fffd}"),
            ("to \u{202e}3-edon\u{202c}", "to \u{fffd}3-edon\u{fffd}"),
            ("\u{2066}x\u{2069}\u{200f}\u{61c}", "\u{fffd}x\u{fffd}\u{fffd}\u{fffd}"),
            ("node\u{200b}-a\u{feff}\u{e0041}", "node\u{fffd}-a\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(clean(dirty), cleaned, "{dirty:?}");
        }
    }

    #[test]
    fn clean_text_is_not_copied() {
        let text = "holds default, served since 2026 – as it should";
        assert!(matches!(clean(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn long_text_is_cut_between_characters_and_says_so() {
        for (text, most, cut) in [
            ("0123456789", 10, "0123456789"),
            ("0123456789a", 10, "0123456…"),
            ("ééééé", 10, "ééééé"),
            ("éééééé", 10, "ééé…"),
            ("€€€", 8, "€…"),
            ("abc", 2, ""),
            ("abcd", 3, "…"),
            ("\n\n\n\n\n", 4, " …"),
        ] {
            assert_eq!(clean_to(text, most), cut, "{text:?} to {most}");
        }
        assert_eq!(clean(&"x".repeat(1 << 20)).len(), FIELD);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_one_line_within_the_limit(text in any::<String>(), most in 0_usize..40) {
            let cleaned = clean_to(&text, most);
            prop_assert!(cleaned.len() <= most);
            prop_assert!(!cleaned.contains(char::is_control));
            // What is clean stays as it is.
            prop_assert!(matches!(clean_to(&cleaned, most), Cow::Borrowed(_)));
        }
    }
}
