//! How many route calls the provider still allows, and when the next one may be made.
//!
//! netcup allows 10 route calls in 5 minutes and 20 in 60 minutes per account (REST), and one per IP in
//! 5 minutes (SOAP). A call is spent from its intent until it surely left the window (I3).

use super::config::Api;
use super::facts::ProviderTime;
use super::ledger::{Call, End, Ending, Ledger};
use crate::types::{FailoverIp, ServerName, Span};

/// REST's windows: length and number of calls.
const WINDOWS: [(Span, usize); 2] = [(Span::secs(300), 10), (Span::secs(3600), 20)];

/// SOAP: one call per IP within this time.
const GAP: Span = Span::secs(300);

/// A call whose arrival is not known stays spent this much longer.
const SLACK_UNKNOWN: Span = Span::secs(15);

/// The same for a known one: the `Date` header counts whole seconds.
const SLACK_KNOWN: Span = Span::secs(3);

/// First and longest back-off of one IP towards one server.
const BACKOFF: (Span, Span) = (Span::secs(15), Span::secs(600));

/// May this call use the reserve?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The holder is gone, or the route points to a dead node: everything may be spent.
    Urgent,
    /// A planned move or a correction: the reserve is left for the next death.
    Planned,
}

/// The budget of one account, as its ledger shows it.
#[derive(Clone, Copy, Debug)]
pub struct Budget<'a> {
    /// The calls.
    pub ledger: &'a Ledger,
    /// The rules.
    pub api: Api,
    /// How many failover IPs the configuration has.
    pub ips: usize,
}

impl Budget<'_> {
    /// The calls of either window that planned moves leave untouched.
    pub fn reserve(&self) -> usize {
        self.ips.max(4).min(10_usize.saturating_sub(self.ips))
    }

    /// The most calls of this need that fit into an empty window.
    pub fn room(&self, need: Need) -> usize {
        let reserve = match need {
            Need::Urgent => 0,
            Need::Planned => self.reserve(),
        };
        WINDOWS.map(|(_, most)| most.saturating_sub(reserve)).into_iter().min().unwrap_or(0)
    }

    /// How many calls are left in the 5 and the 60 minutes.
    pub fn left(&self, now: ProviderTime) -> [usize; 2] {
        WINDOWS.map(|(window, most)| {
            most.saturating_sub(self.spent(window).filter(|end| *end > now).count())
        })
    }

    /// The first moment at which `calls` more calls for `ip` are allowed; `now` or earlier: at once.
    pub fn allowed(&self, ip: FailoverIp, need: Need, calls: usize) -> ProviderTime {
        let reserve = match need {
            Need::Urgent => 0,
            Need::Planned => self.reserve(),
        };
        let windows = WINDOWS.iter().map(|(window, most)| {
            let room = most.saturating_sub(reserve);
            let mut ends: Vec<ProviderTime> = self.spent(*window).collect();
            ends.sort_unstable();
            match (ends.len() + calls).checked_sub(room) {
                _ if calls > room => ProviderTime(u64::MAX),
                None | Some(0) => ProviderTime(0),
                Some(over) => ends.get(over - 1).copied().unwrap_or(ProviderTime(u64::MAX)),
            }
        });
        let gap = match self.api {
            Api::Rest => ProviderTime(0),
            Api::Soap => {
                let same = self.ledger.calls().filter(|call| call.ip == ip);
                same.filter_map(|call| spent_until(call, GAP)).max().unwrap_or_default()
            }
        };
        windows.chain([gap, self.blocked(ip)]).max().unwrap_or_default()
    }

    /// When the back-off of this IP towards this server is over.
    pub fn backed_off(&self, ip: FailoverIp, to: &ServerName) -> ProviderTime {
        let mut calls: Vec<&Call> =
            self.ledger.calls().filter(|call| call.ip == ip && call.to == *to).collect();
        calls.sort_unstable_by_key(|call| call.at);
        let vain = calls.iter().rev().filter(|call| call.counted().is_some());
        let vain: Vec<&&Call> = vain.take_while(|call| !succeeded(call)).collect();
        let Some(last) = vain.first().and_then(|call| call.counted()) else {
            return ProviderTime(0);
        };
        let doublings = u32::try_from(vain.len() - 1).unwrap_or(u32::MAX).min(10);
        let told = vain.first().and_then(|call| call.end?.after).unwrap_or_default();
        last + Span(BACKOFF.0.times(1 << doublings).0.max(told.0).min(BACKOFF.1.0))
    }

    /// The end of the window that somebody else spent: a 429 closes it for all IPs of the account. SOAP's fault
    /// is about one IP.
    fn blocked(&self, ip: FailoverIp) -> ProviderTime {
        let concerned = |call: &&Call| match self.api {
            Api::Rest => true,
            Api::Soap => call.ip == ip,
        };
        let mut calls: Vec<&Call> = self.ledger.calls().filter(concerned).collect();
        calls.sort_unstable_by_key(|call| call.at);
        let ended = calls.iter().rev().filter_map(|call| Some((call.at, call.end?)));
        let throttled: Vec<(ProviderTime, End)> = ended
            .filter(|(_, end)| end.result != Ending::NotSent)
            .take_while(|(_, end)| end.result == Ending::Throttled)
            .collect();
        let Some((_, last)) = throttled.first() else {
            return ProviderTime(0);
        };
        // The IPs of a group are called for together: what was begun before an answer came is no further try.
        let tries = throttled.windows(2).filter(|pair| pair[0].0 > pair[1].1.at).count();
        let doublings = u32::try_from(tries).unwrap_or(u32::MAX).min(4);
        let guess = Span(WINDOWS[0].0.times(1 << doublings).0.min(WINDOWS[1].0.0)) + SLACK_KNOWN;
        // No window is longer than the longest.
        let told = last.after.map(|after| Span(after.0.min(WINDOWS[1].0.0)) + SLACK_KNOWN);
        last.at + told.unwrap_or(guess)
    }

    fn spent(&self, window: Span) -> impl Iterator<Item = ProviderTime> {
        self.ledger.calls().filter_map(move |call| spent_until(call, window))
    }
}

fn spent_until(call: &Call, window: Span) -> Option<ProviderTime> {
    let slack = if call.certain() { SLACK_KNOWN } else { SLACK_UNKNOWN };
    call.counted().map(|end| end + window + slack)
}

fn succeeded(call: &Call) -> bool {
    // One that was accepted, and whose caller crashed before it knew more, proves nothing.
    matches!(call.end, Some(End { result: Ending::Done, .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    const IP: &str = "203.0.113.63";

    fn call(n: u64, at: u64, end: Option<(u64, Ending)>) -> Call {
        Call {
            id: n.to_string(),
            epoch: Epoch(1),
            group: "default".parse().unwrap(),
            ip: IP.parse().unwrap(),
            node: "node-a".parse().unwrap(),
            to: "v1".parse().unwrap(),
            at: ProviderTime(at * 1000),
            arrives: ProviderTime((at + 15) * 1000),
            end: end.map(|(at, result)| End { at: ProviderTime(at * 1000), result, after: None }),
        }
    }

    fn done(n: u64, at: u64) -> Call {
        call(n, at, Some((at, Ending::Done)))
    }

    fn budget(ledger: &Ledger, api: Api) -> Budget<'_> {
        Budget { ledger, api, ips: 1 }
    }

    fn allowed(ledger: &Ledger, need: Need) -> u64 {
        budget(ledger, Api::Rest).allowed(IP.parse().unwrap(), need, 1).0 / 1000
    }

    #[test]
    fn both_windows_count() {
        let nine = Ledger::of((0..9).map(|n| done(n, 1000 + n)));
        assert_eq!(allowed(&nine, Need::Urgent), 0);
        let ten = Ledger::of((0..10).map(|n| done(n, 1000 + n)));
        assert_eq!(allowed(&ten, Need::Urgent), 1000 + 300 + 3);
        let twenty = Ledger::of((0..20).map(|n| done(n, 1000 + 150 * n)));
        assert_eq!(allowed(&twenty, Need::Urgent), 1000 + 3600 + 3);
    }

    #[test]
    fn the_reserve_is_left_for_the_next_death() {
        let six = Ledger::of((0..6).map(|n| done(n, 1000 + n)));
        assert_eq!(allowed(&six, Need::Urgent), 0);
        assert_eq!(allowed(&six, Need::Planned), 1000 + 300 + 3);
        let of = |ips| Budget { ledger: &six, api: Api::Rest, ips }.reserve();
        assert_eq!([of(1), of(4), of(5), of(6), of(10), of(12)], [4, 4, 5, 4, 0, 0]);
    }

    #[test]
    fn an_unknown_outcome_is_spent_from_its_latest_arrival() {
        let mut calls: Vec<Call> = (0..9).map(|n| done(n, 2000)).collect();
        calls.push(call(9, 1000, None));
        assert_eq!(allowed(&Ledger::of(calls), Need::Urgent), 1000 + 15 + 300 + 15);
    }

    #[test]
    fn a_call_that_never_left_costs_nothing() {
        let calls = (0..12).map(|n| call(n, 1000, Some((1000, Ending::NotSent))));
        assert_eq!(allowed(&Ledger::of(calls), Need::Urgent), 0);
    }

    #[test]
    fn soap_waits_five_minutes_per_ip() {
        let one = Ledger::of([done(1, 1000)]);
        let at = budget(&one, Api::Soap).allowed(IP.parse().unwrap(), Need::Urgent, 1);
        assert_eq!(at.0 / 1000, 1303);
        let other =
            budget(&one, Api::Soap).allowed("203.0.113.64".parse().unwrap(), Need::Urgent, 1);
        assert_eq!(other, ProviderTime(0));
    }

    #[test]
    fn a_429_closes_the_window_for_everyone_and_retry_after_is_honoured() {
        let mut throttled = call(1, 1000, Some((1000, Ending::Throttled)));
        assert_eq!(allowed(&Ledger::of([throttled.clone()]), Need::Urgent), 1303);
        if let Some(end) = &mut throttled.end {
            end.after = Some(Span::secs(30));
        }
        assert_eq!(allowed(&Ledger::of([throttled]), Need::Urgent), 1033);
    }

    #[test]
    fn soaps_fault_is_about_one_ip_and_ips_that_are_called_for_together_try_once() {
        let throttled = |n, at, told| call(n, at, Some((told, Ending::Throttled)));
        let one = Ledger::of([throttled(1, 1000, 1001)]);
        let other = "203.0.113.64".parse().unwrap();
        assert_eq!(budget(&one, Api::Soap).allowed(other, Need::Urgent, 1), ProviderTime(0));
        let five = Ledger::of((0..5).map(|n| throttled(n, 1000, 1001)));
        assert_eq!(allowed(&five, Need::Urgent), 1001 + 303);
        let again = Ledger::of([throttled(1, 1000, 1001), throttled(2, 1304, 1305)]);
        assert_eq!(allowed(&again, Need::Urgent), 1305 + 603);
    }

    #[test]
    fn back_off_doubles_up_to_ten_minutes_and_success_resets_it() {
        let to = "v1".parse().unwrap();
        let after = |calls: Vec<Call>| {
            let ledger = Ledger::of(calls);
            budget(&ledger, Api::Rest).backed_off(IP.parse().unwrap(), &to).0 / 1000
        };
        let failed = |n: u64| call(n, 1000 + n, Some((1000 + n, Ending::Failed)));
        assert_eq!(after(vec![]), 0);
        assert_eq!(after(vec![failed(0)]), 1015);
        assert_eq!(after((0..3).map(failed).collect()), 1002 + 60);
        assert_eq!(after((0..9).map(failed).collect()), 1008 + 600);
        assert_eq!(after(vec![failed(0), failed(1), done(2, 1002)]), 0);
    }
}
