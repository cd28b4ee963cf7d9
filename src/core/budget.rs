//! How many route calls the provider still allows, and when the next one may be made.
//!
//! netcup allows 10 route calls in 5 minutes and 20 in 60 minutes per account (REST), and one per IP in
//! 5 minutes (SOAP). A call is spent from its intent until it surely left the window (I3).

use super::config::Api;
use super::facts::ProviderTime;
use super::ledger::{Call, End, Ending, Ledger};
use crate::types::{FailoverIp, NodeName, ServerName, Span};

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

/// The first back-off where the call was answered with a refusal: nothing of it is under way.
const ANSWERED: Span = Span::secs(5);

/// First and longest pause between two tries where somebody else spends the window.
const PROBE: (Span, Span) = (Span::secs(20), Span::secs(80));

/// A window that is spent is rarely free again within this time.
const CONTRADICTED: Span = Span::secs(60);

/// So many tries are made in any five minutes while somebody else spends: even if the provider counts what it refuses,
/// they cannot fill a window of ten.
const PROBES: usize = 4;

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
            match (self.spent(*window).count() + calls).checked_sub(room) {
                _ if calls > room => ProviderTime(u64::MAX),
                None | Some(0) => ProviderTime(0),
                Some(over) => {
                    let mut ends: Vec<ProviderTime> = self.spent(*window).collect();
                    ends.sort_unstable();
                    ends.get(over - 1).copied().unwrap_or(ProviderTime(u64::MAX))
                }
            }
        });
        let gap = match self.api {
            Api::Rest => ProviderTime(0),
            Api::Soap => {
                let same = self.ledger.calls().filter(|call| call.ip == ip);
                same.filter_map(|call| spent_until(call, GAP)).max().unwrap_or_default()
            }
        };
        windows.chain([gap, self.blocked(ip, need, calls)]).max().unwrap_or_default()
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
        let answered = vain.len() == 1 && vain.iter().all(|call| is(call, Ending::Refused));
        let pause = if answered { ANSWERED } else { BACKOFF.0.times(1 << doublings) };
        last + pause.min(BACKOFF.1)
    }

    /// The calls whose answers speak for the IP: SOAP's fault is about one, everything else about the account.
    fn concerning(&self, ip: FailoverIp) -> impl Iterator<Item = &Call> {
        self.ledger.calls().filter(move |call| match self.api {
            Api::Rest => true,
            Api::Soap => call.ip == ip,
        })
    }

    /// Those of them that were made and have ended.
    fn ended(&self, ip: FailoverIp) -> impl Iterator<Item = (&Call, End)> {
        let ended = self.concerning(ip).filter_map(|call| Some((call, call.end?)));
        ended.filter(|(_, end)| end.result != Ending::NotSent)
    }

    /// The latest moment that the provider named; nothing is sent before it, whatever was begun.
    pub fn told(&self, ip: FailoverIp) -> ProviderTime {
        let ends = self.concerning(ip).filter_map(|call| call.end);
        // No window is longer than the longest.
        let told = ends.filter_map(|end| Some(end.at + end.after?.min(WINDOWS[1].0) + SLACK_KNOWN));
        told.max().unwrap_or_default()
    }

    /// Before when no further call for the IP makes sense: the provider named a moment, or somebody else has spent the
    /// window.
    fn blocked(&self, ip: FailoverIp, need: Need, calls: usize) -> ProviderTime {
        let turned_away = |end: End| end.after.is_some() || end.result == Ending::Throttled;
        if !self.concerning(ip).any(|call| call.end.is_some_and(turned_away)) {
            return ProviderTime(0);
        }
        let mut known: Vec<&Call> = self.concerning(ip).collect();
        known.sort_unstable_by_key(|call| call.at);
        let told = self.told(ip);
        let ended = known.iter().rev().filter_map(|call| Some((call.at, call.end?)));
        let throttled: Vec<(ProviderTime, End)> = ended
            .filter(|(_, end)| end.result != Ending::NotSent)
            .take_while(|(_, end)| end.result == Ending::Throttled)
            .collect();
        let Some((first, last)) = throttled.first().copied().filter(|(_, end)| end.after.is_none())
        else {
            return told;
        };
        // The IPs of a group are called for together: what was begun before an answer came is no further try.
        let pairs = throttled.windows(2).filter(|pair| pair[0].0 > pair[1].1.at);
        let tries: Vec<ProviderTime> =
            [first].into_iter().chain(pairs.map(|pair| pair[1].0)).collect();
        let doublings = u32::try_from(tries.len() - 1).unwrap_or(u32::MAX).min(4);
        let next = match (self.api, need) {
            // Its limit is certain, and asking again might begin it anew; and what is not urgent waits.
            (Api::Soap, _) | (Api::Rest, Need::Planned) => {
                last.at + WINDOWS[0].0.times(1 << doublings).min(WINDOWS[1].0) + SLACK_KNOWN
            }
            // Whose spending it is, and when it ends, is not known: it is probed with one call at a time.
            (Api::Rest, Need::Urgent) => {
                let pause = PROBE.0.times(1 << doublings).min(PROBE.1);
                let room = tries.get(PROBES - 1).map(|at| *at + WINDOWS[0].0 + SLACK_KNOWN);
                let open = known.iter().filter(|call| call.end.is_none() && call.at >= first);
                let alone = open.map(|call| call.arrives).max();
                let over = (calls > 1).then(|| last.at + WINDOWS[0].0 + SLACK_KNOWN);
                let moments = [Some(last.at + pause), room, alone, over];
                moments.into_iter().flatten().max().unwrap_or_default()
            }
        };
        told.max(next)
    }

    /// Until when a 429 that named no moment says that somebody else spends, as far as that was seen last.
    pub fn turned_away(&self) -> Option<ProviderTime> {
        let ended = self.ledger.calls().filter_map(|call| Some((call.at, call.end?)));
        let ended = ended.filter(|(_, end)| end.result != Ending::NotSent);
        let last = ended.max_by_key(|(at, _)| *at).map(|(_, end)| end)?;
        last.is_without_a_moment().then(|| last.at + WINDOWS[0].0 + SLACK_KNOWN)
    }

    /// Until when it counts that the provider turned this node's last call away, naming no moment, and took another
    /// node's shortly after: then it is not the account that it limits.
    pub fn limits(&self, ip: FailoverIp, node: &NodeName) -> Option<ProviderTime> {
        let own = self.ended(ip).filter(|(call, _)| call.node == *node);
        let (_, last) = own.max_by_key(|(call, _)| call.at)?;
        let taken = |(call, end): (&Call, End)| {
            call.node != *node
                && end.at > last.at
                && end.at <= last.at + CONTRADICTED
                && matches!(end.result, Ending::Accepted | Ending::Done)
        };
        let contradicted = last.is_without_a_moment() && self.ended(ip).any(taken);
        contradicted.then(|| last.at + WINDOWS[0].0 + SLACK_KNOWN)
    }

    /// Is what is waited out no more than this node's own 429, with room by the ledger? Another node may find the window
    /// open: only when it was turned away, too, is the account's window spent.
    pub fn is_this_nodes_word(&self, ip: FailoverIp, node: &NodeName, now: ProviderTime) -> bool {
        let others = self.ended(ip).filter(|(_, end)| !end.is_without_a_moment());
        let before = others.map(|(call, _)| call.at).max();
        let mut last = self.ended(ip).filter(|(call, _)| Some(call.at) > before);
        let room = self.left(now).into_iter().all(|left| left > 0);
        let own = |(call, _): (&Call, End)| call.node == *node;
        self.api == Api::Rest && room && last.next().is_some_and(own) && last.all(own)
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
    is(call, Ending::Done)
}

fn is(call: &Call, ending: Ending) -> bool {
    call.end.is_some_and(|end| end.result == ending)
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
        let end = throttled.end.as_mut().unwrap();
        end.after = Some(Span::secs(90));
        assert_eq!(allowed(&Ledger::of([throttled.clone()]), Need::Urgent), 1093);
        let mut refused = throttled;
        refused.end.as_mut().unwrap().result = Ending::Refused;
        assert_eq!(allowed(&Ledger::of([refused.clone()]), Need::Urgent), 1093);
        // Obeyed as far as the longest window goes.
        for (after, until) in [(900, 1903), (7200, 1000 + 3603)] {
            refused.end.as_mut().unwrap().after = Some(Span::secs(after));
            assert_eq!(allowed(&Ledger::of([refused.clone()]), Need::Urgent), until);
        }
    }

    #[test]
    fn somebody_elses_spending_is_probed_at_most_four_times_in_any_five_minutes() {
        let mut ledger = Ledger::default();
        let mut tries: Vec<u64> = Vec::new();
        for n in 0..40 {
            let at = allowed(&ledger, Need::Urgent).max(1000);
            tries.push(at);
            ledger.put(call(n, at, Some((at, Ending::Throttled))));
        }
        assert_eq!(tries[..4], [1000, 1020, 1060, 1140]);
        for (n, at) in tries.iter().enumerate() {
            let window = tries[n..].iter().filter(|other| **other < at + 300).count();
            assert!(window <= 4, "{window} tries in the five minutes from {at}: {tries:?}");
        }
    }

    #[test]
    fn a_429_that_another_nodes_call_contradicts_is_about_this_node() {
        let (ip, own) = (IP.parse().unwrap(), "node-a".parse().unwrap());
        let other = |n, at, result| {
            let call = call(n, at, Some((at, result)));
            Call { node: "node-b".parse().unwrap(), ..call }
        };
        let refused = call(1, 1000, Some((1000, Ending::Throttled)));
        let limits = |calls: &[Call]| {
            let ledger = Ledger::of(calls.iter().cloned());
            budget(&ledger, Api::Rest).limits(ip, &own).map(|until| until.0 / 1000)
        };
        assert_eq!(limits(std::slice::from_ref(&refused)), None);
        assert_eq!(limits(&[refused.clone(), other(2, 1020, Ending::Accepted)]), Some(1303));
        assert_eq!(limits(&[refused.clone(), other(2, 1020, Ending::Throttled)]), None);
        assert_eq!(limits(&[refused.clone(), other(2, 990, Ending::Done)]), None);
        assert_eq!(limits(&[refused.clone(), other(2, 1200, Ending::Done)]), None);
        assert_eq!(limits(&[refused, other(2, 1020, Ending::Done), done(3, 1040)]), None);
    }

    #[test]
    fn one_nodes_429_is_not_the_accounts_until_another_node_hears_it() {
        let (ip, own) = (IP.parse().unwrap(), "node-a".parse().unwrap());
        let refused = |n, node: &str| {
            let call = call(n, 1000 + n, Some((1000 + n, Ending::Throttled)));
            Call { node: node.parse().unwrap(), ..call }
        };
        let word = |calls: Vec<Call>, api| {
            let ledger = Ledger::of(calls);
            budget(&ledger, api).is_this_nodes_word(ip, &own, ProviderTime(1_100_000))
        };
        assert!(!word(vec![], Api::Rest));
        assert!(word(vec![refused(1, "node-a"), refused(2, "node-a")], Api::Rest));
        assert!(!word(vec![refused(1, "node-a")], Api::Soap));
        assert!(!word(vec![refused(1, "node-b"), refused(2, "node-a")], Api::Rest));
        let spent = (10..20).map(|n| done(n, 900 + n)).chain([refused(30, "node-a")]);
        assert!(!word(spent.collect(), Api::Rest), "the window is full by the ledger");
        let mut told = refused(1, "node-a");
        told.end.as_mut().unwrap().after = Some(Span::secs(60));
        assert!(!word(vec![told], Api::Rest), "a moment that is named is the account's");
    }

    #[test]
    fn a_probe_is_one_call() {
        let throttled = Ledger::of([call(1, 1000, Some((1000, Ending::Throttled)))]);
        let two = budget(&throttled, Api::Rest).allowed(IP.parse().unwrap(), Need::Urgent, 2);
        assert_eq!(two.0 / 1000, 1303);
        let mut open = throttled;
        open.put(call(2, 1020, None));
        assert!(allowed(&open, Need::Urgent) >= 1035);
    }

    #[test]
    fn soaps_fault_is_about_one_ip_and_ips_that_are_called_for_together_try_once() {
        let throttled = |n, at, told| call(n, at, Some((told, Ending::Throttled)));
        let one = Ledger::of([throttled(1, 1000, 1001)]);
        let other = "203.0.113.64".parse().unwrap();
        assert_eq!(budget(&one, Api::Soap).allowed(other, Need::Urgent, 1), ProviderTime(0));
        let five = Ledger::of((0..5).map(|n| throttled(n, 1000, 1001)));
        assert_eq!(allowed(&five, Need::Urgent), 1001 + 20);
        let again = Ledger::of([throttled(1, 1000, 1001), throttled(2, 1304, 1305)]);
        assert_eq!(allowed(&again, Need::Urgent), 1305 + 40);
        let soap = budget(&again, Api::Soap).allowed(IP.parse().unwrap(), Need::Urgent, 1);
        assert_eq!(soap.0 / 1000, 1305 + 603);
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
        let refused = |n| call(n, 1000 + n, Some((1000 + n, Ending::Refused)));
        assert_eq!(after(vec![refused(0)]), 1005, "an answer ends the flight");
        assert_eq!(after(vec![refused(0), refused(1)]), 1001 + 30);
        assert_eq!(after((0..3).map(failed).collect()), 1002 + 60);
        assert_eq!(after((0..9).map(failed).collect()), 1008 + 600);
        assert_eq!(after(vec![failed(0), failed(1), done(2, 1002)]), 0);
        // What failed at one server says nothing about another.
        let there = |n| Call { to: "v2".parse().unwrap(), ..failed(n) };
        assert_eq!(after(vec![there(0), there(1)]), 0);
        assert_eq!(after(vec![failed(0), there(1), there(2)]), 1015);
    }

    #[test]
    fn a_429_is_this_nodes_word_alone_until_another_node_is_turned_away_too() {
        let of = |node: &str, n: u64, result| {
            let node = node.parse().unwrap();
            Call { node, ..call(n, 1000 + n, Some((1000 + n, result))) }
        };
        let (a, b, no, yes) = ("node-a", "node-b", Ending::Throttled, Ending::Done);
        for (calls, alone) in [
            (vec![], false),
            (vec![of(a, 1, no)], true),
            (vec![of(a, 1, no), of(a, 2, no)], true),
            (vec![of(b, 1, no)], false),
            (vec![of(a, 1, no), of(b, 2, no)], false),
            (vec![of(b, 1, no), of(a, 2, no)], false),
            (vec![of(b, 1, no), of(b, 2, yes), of(a, 3, no)], true),
            (vec![of(a, 1, no), of(b, 2, yes)], false),
        ] {
            let (ledger, now) = (Ledger::of(calls.clone()), ProviderTime(1_010_000));
            let (ip, node) = (IP.parse().unwrap(), a.parse().unwrap());
            let word = |api| budget(&ledger, api).is_this_nodes_word(ip, &node, now);
            assert_eq!((word(Api::Rest), word(Api::Soap)), (alone, false), "{calls:?}");
        }
    }
}
