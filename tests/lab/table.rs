//! Results as people read them: a table in plain text, one in Markdown, a line for the picture.

use crate::director::Verdict;

/// Milliseconds as seconds.
pub fn seconds(ms: u64) -> String {
    if ms < 10_000 {
        format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
    } else {
        format!("{}.{} s", ms / 1000, ms % 1000 / 100)
    }
}

/// A few words.
pub fn summary(verdict: &Verdict) -> String {
    let calls = match verdict.calls {
        0 => "no route call".to_owned(),
        1 => "1 route call".to_owned(),
        many => format!("{many} route calls"),
    };
    let after = verdict.to_call.map_or(String::new(), |ms| format!(" after {}", seconds(ms)));
    format!("{calls}{after}, {} lost", verdict.lost)
}

/// The demo's table.
pub fn plain(verdicts: &[Verdict]) -> String {
    let mut rows = vec![
        ["what happened", "route calls", "time to call", "lost", "bar", ""].map(str::to_owned),
    ];
    for verdict in verdicts {
        rows.push([
            verdict.title.clone(),
            verdict.calls.to_string(),
            verdict.to_call.map_or("-".to_owned(), seconds),
            verdict.lost.to_string(),
            verdict.bar.clone(),
            if verdict.met() { "met" } else { "MISSED" }.to_owned(),
        ]);
    }
    let mut text = aligned(&rows, &[false, true, true, true, false, false]);
    for verdict in verdicts {
        for problem in &verdict.problems {
            text += &format!("\n  {}: {problem}", verdict.title);
        }
    }
    text
}

/// Columns of equal width; numbers to the right.
pub fn aligned(rows: &[[String; 6]], right: &[bool; 6]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).zip(right).map(|((cell, width), right)| {
            if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, "-".repeat(lines[0].chars().count().max(60)));
    lines.join("\n")
}

/// The middle value, and the largest.
pub fn median_and_max(values: &[u64]) -> Option<(u64, u64)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let max = *sorted.last()?;
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        sorted[middle - 1].midpoint(sorted[middle])
    };
    Some((median, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median_and_max(&[]), None);
        assert_eq!(median_and_max(&[5]), Some((5, 5)));
        assert_eq!(median_and_max(&[9, 1, 4, 2]), Some((3, 9)));
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(450), "0.45 s");
        assert_eq!(seconds(10_449), "10.4 s");
    }
}
