//! Every alarm there is: how bad it is, its `MESSAGE_ID`, and its paragraph in foip-alarms(7).
//!
//! ```text
//! table ─┬─► severity and MESSAGE_ID, for the status and the log
//!        └─► packaging/man/foip-alarms.7 (by a test; the prose is not in the program)
//! ```

/// One row of what the program itself needs of the table.
struct Row {
    code: &'static str,
    severity: Severity,
    message_id: &'static str,
}

/// How bad an alarm is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// An IP is not served, or this node could take none over.
    Error,
    /// It works, but a further fault would cost more than it must.
    Warning,
}

/// What the manual says about one alarm.
#[cfg(test)]
struct Paragraph {
    title: &'static str,
    meaning: &'static str,
    danger: &'static str,
    action: &'static str,
}

macro_rules! alarms {
    ($($code:literal $severity:ident $id:literal {
        $title:literal; meaning: $meaning:literal; danger: $danger:literal; action: $action:literal;
    })*) => {
        pub(super) const ROWS: &[super::Row] = &[$(super::Row {
            code: $code,
            severity: super::Severity::$severity,
            message_id: $id,
        }),*];

        #[cfg(test)]
        pub(super) const PARAGRAPHS: &[super::Paragraph] = &[$(super::Paragraph {
            title: $title,
            meaning: $meaning,
            danger: $danger,
            action: $action,
        }),*];
    };
}

mod table;

fn row(code: &str) -> Option<&'static Row> {
    table::ROWS.iter().find(|row| row.code == code)
}

/// The alarm's `MESSAGE_ID` (`systemd.journal-fields(7)`); `None` for a code that is not in the table.
pub fn message_id(code: &str) -> Option<&'static str> {
    row(code).map(|row| row.message_id)
}

/// How bad it is; an alarm that is not in the table is taken for the worst.
pub fn severity(code: &str) -> Severity {
    row(code).map_or(Severity::Error, |row| row.severity)
}

#[cfg(test)]
mod tests;
