//! How often a route may be asked for: sliding windows over the account, and a pause per IP.

use std::collections::HashMap;

use super::setup::Window;

/// The calls that count, as moments in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    calls: Vec<u64>,
    per_ip: HashMap<String, u64>,
}

impl Budget {
    /// Milliseconds until one more call is allowed by all windows; 0: now.
    pub(crate) fn wait(&self, windows: &[Window], now: u64) -> u64 {
        windows
            .iter()
            .map(|window| {
                let length = window.seconds * 1000;
                let inside: Vec<u64> =
                    self.calls.iter().copied().filter(|call| call + length > now).collect();
                if inside.len() < window.calls {
                    return 0;
                }
                // So many of the oldest must leave before there is room for one.
                match inside.get(inside.len() - window.calls) {
                    Some(call) => call + length - now,
                    None => length,
                }
            })
            .max()
            .unwrap_or(0)
    }

    /// Milliseconds until this IP may be routed again; 0: now.
    pub(crate) fn wait_for(&self, ip: &str, cooldown_s: u64, now: u64) -> u64 {
        self.per_ip.get(ip).map_or(0, |last| (last + cooldown_s * 1000).saturating_sub(now))
    }

    /// A call, by whomever, counts.
    pub(crate) fn spend(&mut self, now: u64) {
        self.calls.push(now);
        self.calls.sort_unstable();
    }

    /// This IP was routed.
    pub(crate) fn routed(&mut self, ip: &str, now: u64) {
        self.per_ip.insert(ip.to_owned(), now);
    }

    /// Calls within the last so many seconds.
    pub(crate) fn spent(&self, seconds: u64, now: u64) -> usize {
        self.calls.iter().filter(|call| **call + seconds * 1000 > now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETCUP: [Window; 2] =
        [Window { calls: 10, seconds: 300 }, Window { calls: 20, seconds: 3600 }];

    #[test]
    fn the_eleventh_call_in_five_minutes_waits_for_the_first_to_leave() {
        let mut budget = Budget::default();
        for second in 0..10 {
            assert_eq!(budget.wait(&NETCUP, second * 1000), 0);
            budget.spend(second * 1000);
        }
        assert_eq!(budget.wait(&NETCUP, 10_000), 290_000);
        assert_eq!(budget.wait(&NETCUP, 299_999), 1);
        assert_eq!(budget.wait(&NETCUP, 300_000), 0);
    }

    #[test]
    fn the_hour_holds_when_the_five_minutes_do_not() {
        let mut budget = Budget::default();
        for call in 0..20 {
            budget.spend(call * 100_000);
        }
        assert_eq!(budget.wait(&NETCUP, 2_000_000), 1_600_000);
        assert_eq!(budget.spent(300, 2_000_000), 2);
    }

    #[test]
    fn too_many_calls_need_as_many_to_leave() {
        let mut budget = Budget::default();
        (0..12).for_each(|call| budget.spend(call));
        // Ten may be inside: three of twelve must leave before one more fits.
        assert_eq!(budget.wait(&NETCUP[..1], 100), 300_002 - 100);
        assert_eq!(budget.wait(&[Window { calls: 0, seconds: 5 }], 100_000), 5000);
    }

    #[test]
    fn an_ip_rests_after_a_route() {
        let mut budget = Budget::default();
        budget.routed("203.0.113.63", 1000);
        assert_eq!(budget.wait_for("203.0.113.63", 300, 2000), 299_000);
        assert_eq!(budget.wait_for("203.0.113.64", 300, 2000), 0);
        assert_eq!(budget.wait_for("203.0.113.63", 300, 301_000), 0);
    }
}
