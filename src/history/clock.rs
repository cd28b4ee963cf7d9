//! Real time, and what each machine's clock shows of it.

use std::fmt;

use crate::types::{Span, Tick};

/// A moment in real time, in microseconds since the recording began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Real(pub u64);

impl Real {
    /// Later than any recording.
    pub const NEVER: Self = Self(u64::MAX);

    /// `n` seconds after the beginning.
    pub const fn secs(n: u64) -> Self {
        Self(n * 1_000_000)
    }

    /// This moment and `span` more.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0.saturating_mul(1000)))
    }

    /// This moment less `span`.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0.saturating_mul(1000)))
    }

    /// Whole milliseconds since `earlier`; zero if it is later.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0) / 1000)
    }
}

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000, self.0 / 1000 % 1000)
    }
}

/// One stretch of a clock's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// Real microseconds at its beginning.
    real: u64,
    /// The clock's microseconds at its beginning.
    shown: u64,
    /// Clock microseconds per real second: a million is exact, zero stands still.
    rate: u64,
}

/// What a machine's CLOCK_BOOTTIME shows as real time goes on: stretches of constant rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    stretches: Vec<Stretch>,
}

impl Clock {
    /// A clock that shows `tick` at `real` and gains `ppm` parts per million (negative: loses).
    pub fn new(real: Real, tick: Tick, ppm: i32) -> Self {
        let mut clock = Self { stretches: Vec::new() };
        clock.push(real, tick.0.saturating_mul(1000), rate(ppm));
        clock
    }

    /// A clock that is real time in milliseconds.
    pub fn exact() -> Self {
        Self::new(Real(0), Tick(0), 0)
    }

    fn push(&mut self, real: Real, shown: u64, rate: u64) {
        self.stretches.push(Stretch { real: real.0, shown, rate });
    }

    /// The machine is paused as a whole: its clock stands still from `real` on.
    pub fn freeze(&mut self, real: Real) {
        let shown = self.micros(real);
        self.push(real, shown, 0);
    }

    /// It goes on where it stood.
    pub fn thaw(&mut self, real: Real, ppm: i32) {
        let shown = self.micros(real);
        self.push(real, shown, rate(ppm));
    }

    fn micros(&self, real: Real) -> u64 {
        let at = self.stretches.iter().rev().find(|s| s.real <= real.0);
        at.or(self.stretches.first()).map_or(0, |s| {
            let passed = real.0.saturating_sub(s.real);
            s.shown + (u128::from(passed) * u128::from(s.rate) / 1_000_000) as u64
        })
    }

    /// What the clock shows at `real`.
    pub fn tick(&self, real: Real) -> Tick {
        Tick(self.micros(real) / 1000)
    }

    /// The first moment from which the clock shows `tick`; where it stood still there, the end of that.
    pub fn real(&self, tick: Tick) -> Real {
        let Some(wanted) = tick.0.checked_mul(1000) else {
            return Real::NEVER;
        };
        let moving = self.stretches.iter().filter(|s| s.rate > 0);
        let Some(s) = moving.clone().rev().find(|s| s.shown <= wanted).or(moving.clone().next())
        else {
            return Real::NEVER;
        };
        let ahead = u128::from(wanted.saturating_sub(s.shown));
        let passed = (ahead * 1_000_000).div_ceil(u128::from(s.rate));
        Real(s.real.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// Did the clock stand still at any time between the two moments?
    pub fn stood(&self, from: Real, to: Real) -> bool {
        let ends = self.stretches.iter().skip(1).map(|s| s.real).chain([u64::MAX]);
        let mut all = self.stretches.iter().zip(ends);
        all.any(|(s, end)| s.rate == 0 && s.real < to.0 && end > from.0)
    }
}

fn rate(ppm: i32) -> u64 {
    1_000_000_u64.saturating_add_signed(i64::from(ppm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_maps_there_and_back() {
        let clock = Clock::new(Real::secs(5), Tick(90_000), 10_000);
        assert_eq!(clock.tick(Real::secs(105)), Tick(90_000 + 101_000));
        for tick in [90_000, 90_001, 123_457] {
            assert_eq!(clock.tick(clock.real(Tick(tick))), Tick(tick));
        }
    }

    #[test]
    fn a_frozen_clock_reaches_later_ticks_later() {
        let mut clock = Clock::exact();
        clock.freeze(Real::secs(10));
        clock.thaw(Real::secs(30), 0);
        assert_eq!(clock.tick(Real::secs(20)), Tick(10_000));
        assert_eq!(clock.tick(Real::secs(31)), Tick(11_000));
        assert_eq!(clock.real(Tick(11_000)), Real::secs(31));
        assert!(clock.stood(Real::secs(1), Real::secs(11)));
        assert!(!clock.stood(Real::secs(31), Real::secs(40)));
    }
}
