//! Time as the stand-ins see it: CLOCK_BOOTTIME, which a test may move forward.

use std::sync::atomic::{AtomicI64, Ordering};

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of CLOCK_BOOTTIME, the same clock that foip's decisions use.
pub fn boottime_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        time.tv_sec().unsigned_abs() * 1000 + time.tv_nsec().unsigned_abs() / 1_000_000
    })
}

fn realtime_ms() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(0, |time| time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000)
}

/// A stand-in's own clock. It starts at the machine's wall clock and then follows
/// CLOCK_BOOTTIME, so that nobody who sets the wall clock moves a rate limit.
#[derive(Debug)]
pub struct Clock {
    started_boot: u64,
    started_wall: i64,
    ahead: AtomicI64,
}

impl Clock {
    /// A clock that shows the present.
    pub fn new() -> Self {
        Self { started_boot: boottime_ms(), started_wall: realtime_ms(), ahead: AtomicI64::new(0) }
    }

    /// Milliseconds for windows, life times and tasks. Only differences mean anything.
    pub fn now(&self) -> u64 {
        boottime_ms().saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }

    /// Moves the clock forward, as if nothing had happened for that long.
    pub fn advance(&self, ms: i64) {
        self.ahead.fetch_add(ms, Ordering::Relaxed);
    }

    /// Milliseconds since 1970.
    pub fn wall(&self) -> i64 {
        let passed = self.now().saturating_sub(self.started_boot);
        self.started_wall.saturating_add_unsigned(passed)
    }

    /// Milliseconds since 1970 of a moment that [`Clock::now`] gave.
    pub fn wall_at(&self, now: u64) -> i64 {
        self.wall() - self.now().cast_signed() + now.cast_signed()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Year, month, day of a number of days since 1970 (proleptic Gregorian calendar).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the only form RFC 9110 lets a server send.
pub fn http_date(wall_ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = wall_ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let weekday = DAYS[usize::try_from(days.rem_euclid(7)).unwrap_or(0)];
    let month = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    format!(
        "{weekday}, {day:02} {month} {year:04} {:02}:{:02}:{:02} GMT",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// RFC 3339 in UTC with `digits` fractional digits (0 to 9; beyond the third they are zeros).
pub fn rfc3339(wall_ms: i64, digits: usize) -> String {
    let seconds = wall_ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut text = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    );
    if digits > 0 {
        let nanos = format!("{:03}000000", wall_ms.rem_euclid(1000));
        text.push('.');
        text.push_str(&nanos[..digits.min(9)]);
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_standards_examples() {
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(rfc3339(784_111_777_250, 0), "1994-11-06T08:49:37Z");
        assert_eq!(rfc3339(784_111_777_250, 6), "1994-11-06T08:49:37.250000Z");
        assert_eq!(rfc3339(951_782_400_000, 0), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(-1, 3), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn moving_forward_moves_both_faces() {
        let clock = Clock::new();
        let (now, wall) = (clock.now(), clock.wall());
        clock.advance(60_000);
        assert!(clock.now() >= now + 60_000 && clock.now() < now + 65_000);
        assert!(clock.wall() >= wall + 60_000 && clock.wall() < wall + 65_000);
    }
}
