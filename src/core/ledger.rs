//! The cluster-wide list of recent route calls: what every budget, back-off and settling time is read from.
//!
//! It lives in a Lease of its own and is changed by compare-and-swap only. Its times are the provider's.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::facts::{Doc, ProviderTime};
use crate::types::{Epoch, FailoverIp, GroupName, NodeName, ServerName, Span};

/// This many calls are kept: by count, never by age, so that no clock can empty it.
pub const KEPT: usize = 40;

/// The note that the list is written to.
const NOTE: &str = "calls";

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Sent, no answer: it may have arrived, or may still.
    Unknown,
    /// The provider took it; its task is not known to have ended.
    Accepted,
    /// Seen routed.
    Done,
    /// The provider took it, and it failed.
    Failed,
    /// The provider answered no.
    Refused,
    /// 429.
    Throttled,
    /// No byte of it left the host.
    NotSent,
}

/// The end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct End {
    /// When its result was known.
    pub at: ProviderTime,
    /// How it ended.
    pub result: Ending,
    /// What `Retry-After` said, where the provider answered no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Span>,
}

impl End {
    /// Was it a 429 that did not say when to come back?
    pub fn is_without_a_moment(self) -> bool {
        self.result == Ending::Throttled && self.after.is_none()
    }
}

/// One route call, from its intent on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Call {
    /// `<node>/<nonce>/<n>`, or `provider/<task>`.
    pub id: String,
    /// The term on whose authority it is made.
    pub epoch: Epoch,
    /// Whose IP it is.
    pub group: GroupName,
    /// What is routed.
    pub ip: FailoverIp,
    /// Who calls.
    pub node: NodeName,
    /// Where to.
    pub to: ServerName,
    /// When the intent was written.
    pub at: ProviderTime,
    /// The latest moment at which it may reach the provider.
    pub arrives: ProviderTime,
    /// Its end, once known.
    pub end: Option<End>,
}

impl Call {
    /// The last moment at which the provider may have counted it; `None` if it never did.
    pub fn counted(&self) -> Option<ProviderTime> {
        match self.end {
            None => Some(self.arrives),
            Some(End { result: Ending::Unknown, .. }) => Some(self.arrives),
            Some(End { result: Ending::NotSent, .. }) => None,
            Some(End {
                at,
                result:
                    Ending::Accepted
                    | Ending::Done
                    | Ending::Failed
                    | Ending::Refused
                    | Ending::Throttled,
                ..
            }) => Some(at),
        }
    }

    /// Is it certain when it was counted?
    pub fn certain(&self) -> bool {
        !matches!(self.end, None | Some(End { result: Ending::Unknown, .. }))
    }

    /// Was it sent, and never seen done? Then it may be what routed the IP.
    pub fn may_have_landed(&self) -> bool {
        match self.end {
            None => true,
            Some(End { result, .. }) => match result {
                Ending::Unknown | Ending::Accepted | Ending::Failed => true,
                Ending::Done | Ending::Refused | Ending::Throttled | Ending::NotSent => false,
            },
        }
    }

    /// Until when its effect may still show: its arrival and the provider's time to carry it out.
    pub fn settles(&self, settle: Span) -> Option<ProviderTime> {
        match self.end {
            None => Some(self.arrives + settle),
            Some(End { result: Ending::Unknown, .. }) => Some(self.arrives + settle),
            Some(End { at, result: Ending::Accepted, .. }) => Some(at + settle),
            Some(End {
                result:
                    Ending::Done
                    | Ending::Failed
                    | Ending::Refused
                    | Ending::Throttled
                    | Ending::NotSent,
                ..
            }) => None,
        }
    }
}

/// What a node knows better of a call's time than the call says. It is never written down: what is written back is
/// what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It lies in the future by a `Date` that was asked for after the call was seen.
    NotAfter(ProviderTime),
    /// The ledger was seen without it then.
    NotBefore(ProviderTime),
}

impl Call {
    /// The latest time that it names.
    pub fn latest(&self) -> ProviderTime {
        self.at.max(self.end.map_or(ProviderTime(0), |end| end.at))
    }
}

/// The calls by id. Merging two ledgers loses nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger {
    /// Shared by all copies until one of them changes: comparing equal copies costs nothing.
    calls: Arc<BTreeMap<String, Call>>,
}

impl Ledger {
    /// Reads the object; `None` if there is no list in it that can be read.
    pub fn parse(doc: &Doc) -> Option<Self> {
        let calls: Vec<Call> = serde_json::from_str(doc.notes.get(NOTE)?).ok()?;
        Some(Self::of(calls))
    }

    /// A ledger of these calls.
    pub fn of(calls: impl IntoIterator<Item = Call>) -> Self {
        let calls = calls.into_iter().map(|call| (call.id.clone(), call));
        Self { calls: Arc::new(calls.collect()) }
    }

    /// The object to write.
    pub fn doc(&self) -> Doc {
        let calls: Vec<&Call> = self.calls.values().collect();
        // Invariant: these types have no map keys but strings, so JSON can hold them.
        let text = serde_json::to_string(&calls).unwrap_or_default();
        Doc { notes: BTreeMap::from([(NOTE.to_owned(), text)]), ..Doc::default() }
    }

    /// All calls, in no order that matters.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.values()
    }

    /// The call with this id.
    pub fn call(&self, id: &str) -> Option<&Call> {
        self.calls.get(id)
    }

    /// Adds a call, or replaces what was known of it.
    pub fn put(&mut self, call: Call) {
        Arc::make_mut(&mut self.calls).insert(call.id.clone(), call);
        self.prune();
    }

    /// Takes over whatever the other knows better. A known end beats none; of two ends the later one stands.
    pub fn merge(&mut self, other: &Self) {
        for (id, theirs) in &*other.calls {
            let known = self.calls.get(id);
            if known.is_none_or(|ours| (ours.end, ours.at) < (theirs.end, theirs.at)) {
                Arc::make_mut(&mut self.calls).insert(id.clone(), theirs.clone());
            }
        }
        self.prune();
    }

    /// The same as it is to be counted: the calls in `times` were not made before, or not after, what is said of them.
    #[must_use]
    pub fn counted_by(mut self, times: &BTreeMap<String, Counted>) -> Self {
        for (id, counted) in times {
            if let Some(call) = Arc::make_mut(&mut self.calls).get_mut(id) {
                let mend = |at: ProviderTime| match *counted {
                    Counted::NotAfter(latest) => at.min(latest),
                    Counted::NotBefore(earliest) => at.max(earliest),
                };
                (call.at, call.arrives) = (mend(call.at), mend(call.arrives));
                if let Some(end) = &mut call.end {
                    end.at = mend(end.at);
                }
            }
        }
        self
    }

    /// The epochs that calls of the group were made in.
    pub fn epochs(&self, group: &GroupName) -> impl Iterator<Item = Epoch> {
        self.calls.values().filter(move |call| call.group == *group).map(|call| call.epoch)
    }

    fn prune(&mut self) {
        while self.calls.len() > KEPT {
            // A call that never left the host tells the least.
            let oldest = self
                .calls
                .values()
                .min_by_key(|call| (call.counted().is_some(), call.at, &call.id));
            let Some(id) = oldest.map(|call| call.id.clone()) else {
                return;
            };
            Arc::make_mut(&mut self.calls).remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(n: u64) -> Call {
        Call {
            id: format!("node-a/nonce/{n}"),
            epoch: Epoch(n),
            group: "default".parse().unwrap(),
            ip: "203.0.113.63".parse().unwrap(),
            node: "node-a".parse().unwrap(),
            to: "v1".parse().unwrap(),
            at: ProviderTime(n * 1000),
            arrives: ProviderTime(n * 1000 + 15_000),
            end: None,
        }
    }

    #[test]
    fn a_merge_loses_nothing_and_an_end_is_not_forgotten() {
        let mut ended = call(1);
        ended.end = Some(End { at: ProviderTime(1500), result: Ending::Done, after: None });
        let mut left = Ledger::of([ended.clone(), call(2)]);
        let mut right = Ledger::of([call(1), call(3)]);
        left.merge(&right);
        right.merge(&left);
        assert_eq!(left, right);
        assert_eq!(left.call(&ended.id), Some(&ended));
        assert_eq!(left.calls().count(), 3);
    }

    #[test]
    fn it_is_pruned_by_count_and_keeps_the_youngest() {
        let ledger = Ledger::of((0..60).map(call));
        let mut merged = Ledger::default();
        merged.merge(&ledger);
        assert_eq!(merged.calls().count(), KEPT);
        assert!(
            merged.call("node-a/nonce/59").is_some() && merged.call("node-a/nonce/19").is_none()
        );
    }

    #[test]
    fn what_was_never_sent_is_forgotten_before_what_was() {
        let unsent = End { at: ProviderTime(99_000), result: Ending::NotSent, after: None };
        let calls = (0..40).map(call);
        let younger = (50..90).map(|n| Call { end: Some(unsent), ..call(n) });
        let ledger = calls.chain(younger).fold(Ledger::default(), |mut ledger, call| {
            ledger.put(call);
            ledger
        });
        assert_eq!(ledger.calls().filter(|call| call.end.is_none()).count(), KEPT);
    }

    /// What each ending means: counted when, surely, perhaps what routed the IP, and settling until when.
    #[test]
    fn every_ending_has_its_meaning() {
        let (at, arrives, settle) = (Some(7), Some(20), Span::secs(10));
        for (result, counted, certain, landed, settles) in [
            (None, arrives, false, true, Some(30)),
            (Some(Ending::Unknown), arrives, false, true, Some(30)),
            (Some(Ending::Accepted), at, true, true, Some(17)),
            (Some(Ending::Done), at, true, false, None),
            (Some(Ending::Failed), at, true, true, None),
            (Some(Ending::Refused), at, true, false, None),
            (Some(Ending::Throttled), at, true, false, None),
            (Some(Ending::NotSent), None, true, false, None),
        ] {
            let end = result.map(|result| End { at: ProviderTime(7000), result, after: None });
            let call = Call { end, ..call(5) };
            let seconds = |time: Option<ProviderTime>| time.map(|time| time.0 / 1000);
            let meant = (seconds(call.counted()), call.certain(), call.may_have_landed());
            assert_eq!(meant, (counted, certain, landed), "{result:?}");
            assert_eq!(seconds(call.settles(settle)), settles, "{result:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_an_empty_ledger() {
        let ledger = Ledger::of([call(1)]);
        assert_eq!(Ledger::parse(&ledger.doc()), Some(ledger));
        assert_eq!(Ledger::parse(&Doc::default()), None);
        let garbage = BTreeMap::from([("calls".to_owned(), "{".to_owned())]);
        assert_eq!(Ledger::parse(&Doc { notes: garbage, ..Doc::default() }), None);
    }
}
