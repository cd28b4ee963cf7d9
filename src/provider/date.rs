//! Times as HTTP and netcup write them, in milliseconds since 1970.

use crate::clock;
use crate::core::facts::ProviderTime;
use crate::types::Span;

/// Longest `Retry-After` that is believed.
const LONGEST: Span = Span::secs(24 * 3600);

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Days from 1970-01-01 to a date of the Gregorian calendar, from 1970 on.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if !(1970..=9999).contains(&year) || day == 0 || day > *lengths.get(index)? {
        return None;
    }
    let before = |y: u64| y * 365 + y / 4 - y / 100 + y / 400;
    let year_days = before(year - 1) - before(1969);
    Some(year_days + lengths[..index].iter().sum::<u64>() + day - 1)
}

fn moment(days: u64, hour: u64, minute: u64, second: u64, milli: u64) -> Option<ProviderTime> {
    // 60 is a leap second; it is taken for the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some(ProviderTime(seconds * 1000 + milli))
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn clock_time(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.split(':').map(number);
    let time = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(time)
}

fn month(text: &str) -> Option<u64> {
    let index = MONTHS.iter().position(|name| *name == text)?;
    u64::try_from(index + 1).ok()
}

/// The three forms of HTTP's date (RFC 9110, 5.6.7).
pub(super) fn http(text: &str) -> Option<ProviderTime> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (year, month, day, time) = match words.as_slice() {
        [_, day, name, year, time, "GMT"] => (number(year)?, month(name)?, number(day)?, *time),
        [_, name, day, time, year] => (number(year)?, month(name)?, number(day)?, *time),
        [_, date, time, "GMT"] => {
            let mut parts = date.split('-');
            let (day, name, short) = (parts.next()?, parts.next()?, parts.next()?);
            // Two digits: years that would lie far ahead are of the last century, where there was no foip.
            let year = number(short).filter(|short| *short < 100)? + 2000;
            (year, month(name)?, number(day)?, *time)
        }
        _ => return None,
    };
    let (hour, minute, second) = clock_time(time)?;
    moment(days(year, month, day)?, hour, minute, second, 0)
}

/// RFC 3339 with any number of fractional digits, as in netcup's tasks.
pub(super) fn rfc3339(text: &str) -> Option<ProviderTime> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at_checked(zone)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || fraction.len() > 12 {
        return None;
    }
    let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
    let (hour, minute, second) = clock_time(time)?;
    let local = moment(days(year, month, day)?, hour, minute, second, number(&padded)?)?;
    if zone.eq_ignore_ascii_case("z") {
        return Some(local);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = (hours * 60 + minutes) * 60_000;
    let utc = match zone.as_bytes().first()? {
        b'+' => local.0.checked_sub(offset)?,
        _ => local.0 + offset,
    };
    Some(ProviderTime(utc))
}

/// `Retry-After` in either form (RFC 9110, 10.2.3); a date is compared with the same answer's own.
pub(super) fn retry_after(text: &str, date: Option<ProviderTime>) -> Option<Span> {
    let text = text.trim();
    let wait = if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        number(text).map_or(LONGEST, Span::secs)
    } else {
        let until = http(text)?;
        let now = date.map_or_else(|| clock::wall().unsigned_abs() * 1000, |date| date.0);
        Span(until.0.saturating_sub(now))
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_http_forms_are_one_moment() {
        for text in [
            "Sun, 22 Nov 2026 21:30:05 GMT",
            "Sunday, 22-Nov-26 21:30:05 GMT",
            "Sun Nov 22 21:30:05 2026",
        ] {
            assert_eq!(http(text), Some(ProviderTime(1_795_383_005_000)), "{text}");
        }
        for bad in [
            "",
            "now",
            "Sun, 31 Feb 2026 21:30:05 GMT",
            "Sun, 22 Nov 2026 25:30:05 GMT",
            "Sun, 22 Nov 2026 21:30:05 CET",
            "Sun, 22 Nov 99999999999 21:30:05 GMT",
            "Sun, 22 Nov 1969 21:30:05 GMT",
        ] {
            assert_eq!(http(bad), None, "{bad}");
        }
    }

    #[test]
    fn leap_days_count() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 3, 1), Some(11_017));
        assert_eq!(days(2024, 2, 29), Some(19_782));
        assert_eq!(days(2100, 2, 29), None);
    }

    #[test]
    fn task_times_have_three_to_nine_digits() {
        for (text, millis) in [
            ("2026-08-27T11:03:33.793012345Z", 1_787_828_613_793),
            ("2026-08-27T11:03:33.792Z", 1_787_828_613_792),
            ("2026-08-27T11:03:33Z", 1_787_828_613_000),
            ("2026-08-27T13:03:33.5+02:00", 1_787_828_613_500),
        ] {
            assert_eq!(rfc3339(text), Some(ProviderTime(millis)), "{text}");
        }
        for bad in ["", "2026-08-27", "2026-08-27T11:03:33", "2026-08-27T11:03:33.é9Z"] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = http("Sun, 22 Nov 2026 21:30:05 GMT");
        assert_eq!(retry_after("120", date), Some(Span::secs(120)));
        assert_eq!(retry_after("Sun, 22 Nov 2026 21:31:05 GMT", date), Some(Span::secs(60)));
        assert_eq!(retry_after("Sun, 22 Nov 2026 21:00:05 GMT", date), Some(Span::ZERO));
        assert_eq!(retry_after("99999999999999999999", date), Some(LONGEST));
        assert_eq!(retry_after("soon", date), None);
    }
}
