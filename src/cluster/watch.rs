//! The watch: one for all of foip's Leases, kept up for ever.
//!
//! ```text
//!   list (quorum) -> tell what differs -> watch from there -> end, cut, 410, silence, other endpoint
//!        ^                                                                  |
//!        +------------- a delay, doubled while it goes badly ---------------+
//! ```
//!
//! It only makes things known sooner: it may be late or silent, and reads decide.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::mpsc;

use super::Cluster;
use super::endpoints::Place;
use super::failure::Error;
use super::lease;
use super::link::Link;
use super::listing::Listed;
use super::object::Object;
use super::wire::{Ask, Line, garbage, quoted};
use crate::clock;
use crate::core::facts::{Key, Stored};
use crate::types::{ResourceVersion, Span, Tick};

/// The server ends each watch after about this long.
const LENGTH: Span = Span::secs(290);

/// Bookmarks come about every minute; a watch silent for longer is taken for dead.
pub const SILENCE: Span = Span::secs(90);

const FIRST_DELAY: Span = Span::millis(200);
const LAST_DELAY: Span = Span::secs(3);

/// Between two changes of one object that are told: foip's own are twice as far apart, and whoever changes one faster
/// shall keep nobody busy.
const PACE: Span = Span::millis(100);

/// A watch that lived this long went well.
const WELL: Span = Span::secs(2);

/// The receiver is gone: nobody wants to know any more.
struct Unwanted;

#[derive(Deserialize)]
pub(super) struct Event {
    pub(super) r#type: String,
    pub(super) object: Object,
}

/// What was told last about each object.
#[derive(Default)]
struct Told(BTreeMap<Key, ResourceVersion>);

/// Changes that came too soon after the last one of their object: the newest of each is told in time.
#[derive(Default)]
struct Paced {
    last: BTreeMap<Key, Tick>,
    held: BTreeMap<Key, Option<Stored>>,
}

/// Runs until the receiver is dropped.
pub async fn run(cluster: &Cluster, seen: &mpsc::Sender<(Key, Option<Stored>)>) {
    let (mut told, mut avoid) = (Told::default(), Vec::new());
    let (mut delay, mut generation) = (FIRST_DELAY, cluster.link.state().generation);
    loop {
        let began = clock::now();
        let now = cluster.link.state().generation;
        if std::mem::replace(&mut generation, now) != now {
            told.doubt();
        }
        let round = Box::pin(round(cluster, seen, &mut told, &mut avoid));
        tokio::select! {
            ended = round => if ended.is_err() { return },
            () = seen.closed() => return,
        }
        delay = next_delay(delay, began, clock::now());
        tokio::time::sleep(jittered(delay).as_std()).await;
    }
}

/// One list and one watch. However it ends, the next round begins with a list: that covers 410,
/// a datastore put back from a snapshot, and whatever was missed in between.
async fn round(
    cluster: &Cluster,
    seen: &mpsc::Sender<(Key, Option<Stored>)>,
    told: &mut Told,
    avoid: &mut Vec<Place>,
) -> Result<(), Unwanted> {
    let link = &cluster.link;
    // From here on any change of the endpoint in use ends the round.
    let mut moved = link.moved.subscribe();
    let Ok(listed) = cluster.list_from().await else {
        return Ok(());
    };
    let ask = Ask::get(format!(
        "{}?watch=true&allowWatchBookmarks=true&labelSelector={}&resourceVersion={}&timeoutSeconds={}",
        cluster.leases(),
        quoted(&format!("{}={}", lease::MANAGED_BY.0, lease::MANAGED_BY.1)),
        quoted(&listed.version),
        jittered(LENGTH).as_secs(),
    ));
    for change in told.differences(listed) {
        seen.send(change).await.map_err(|_| Unwanted)?;
    }
    // The list itself may have moved to another endpoint; that is where the watch goes.
    moved.mark_unchanged();
    let Ok(mut stream) = link.open(&ask, avoid).await else {
        return Ok(());
    };
    let mut paced = Paced::default();
    loop {
        while let Some(change) = paced.due(clock::now()).filter(|change| told.is_new(change)) {
            seen.send(change).await.map_err(|_| Unwanted)?;
        }
        let line = tokio::select! {
            line = tokio::time::timeout(SILENCE.as_std(), stream.line()) => line,
            _ = moved.changed() => return Ok(()),
            () = paced.wait() => continue,
        };
        let line = match line {
            Ok(Ok(Line::Whole(line))) => line,
            // The list tells what is left out.
            Ok(Ok(Line::TooLong)) => continue,
            Ok(Ok(Line::End) | Err(_)) | Err(_) => return Ok(()),
        };
        match change_of(link, told, &line) {
            Ok(change) => {
                avoid.clear();
                if let Some(change) = change {
                    paced.hold(change);
                }
            }
            Err(_) => return Ok(()),
        }
    }
}

/// What one line tells; `None` for bookmarks, for objects that are not ours, and for those that are left out.
fn change_of(
    link: &Arc<Link>,
    told: &Told,
    line: &[u8],
) -> Result<Option<(Key, Option<Stored>)>, Error> {
    let bad = |why: &str| garbage("the watch", why);
    // An ERROR carries a Status, most often 410, and is no event of a Lease.
    let Event { r#type, object } =
        serde_json::from_slice(line).map_err(|_| bad("not an event of a Lease"))?;
    let deleted = match r#type.as_str() {
        "ADDED" | "MODIFIED" => false,
        "DELETED" => true,
        "BOOKMARK" => return Ok(None),
        _ => return Err(bad("an unknown kind of event")),
    };
    let admission = link.admission();
    let name = object.name().to_owned();
    let Some(key) = admission.key(&name) else {
        return Ok(None);
    };
    let known = admission.is_known(&key) || told.0.contains_key(&key);
    let strangers = || told.0.keys().filter(|key| !admission.is_known(key)).count();
    if deleted {
        link.state().strangers.forget(&name);
        return Ok(known.then_some((key, None)));
    }
    if !known && !admission.has_room_beside(strangers()) {
        return Ok(None);
    }
    let lease = object.into_lease();
    let Ok(stored) = lease::stored_of(&lease) else {
        return Ok(None);
    };
    let mut state = link.state();
    if admission.is_ours(&key) || state.strangers.knows(&name) {
        state.strangers.note(&lease);
    }
    Ok(Some((key, Some(stored))))
}

impl Paced {
    fn hold(&mut self, (key, stored): (Key, Option<Stored>)) {
        self.held.insert(key, stored);
    }

    /// When this object may be told of again.
    fn free(&self, key: &Key) -> Tick {
        self.last.get(key).map_or(Tick(0), |last| *last + PACE)
    }

    /// The next change that may be told.
    fn due(&mut self, now: Tick) -> Option<(Key, Option<Stored>)> {
        let key = self.held.keys().find(|key| self.free(key) <= now)?.clone();
        let stored = self.held.remove(&key)?;
        self.last.retain(|_, last| *last + PACE > now);
        self.last.insert(key.clone(), now);
        Some((key, stored))
    }

    /// Waits until one may be told; for ever while none is held.
    async fn wait(&self) {
        match self.held.keys().map(|key| self.free(key)).min() {
            Some(at) => tokio::time::sleep(clock::now().until(at).as_std()).await,
            None => std::future::pending().await,
        }
    }
}

impl Told {
    /// What a list says that was not told yet; deletions, too, if it is whole.
    fn differences(&mut self, listed: Listed) -> Vec<(Key, Option<Stored>)> {
        let Listed { objects, whole, .. } = listed;
        let gone: Vec<Key> = self
            .0
            .keys()
            .filter(|key| whole && objects.iter().all(|(other, _)| other != *key))
            .cloned()
            .collect();
        let gone = gone.into_iter().map(|key| (key, None));
        let there = objects.into_iter().map(|(key, stored)| (key, Some(stored)));
        gone.chain(there).filter(|change| self.is_new(change)).collect()
    }

    /// Another cluster or namespace may be asked now, whose versions mean other contents: all of it is told again.
    fn doubt(&mut self) {
        self.0.values_mut().for_each(|version| version.0.clear());
    }

    /// Notes the change; false if it was told before.
    fn is_new(&mut self, (key, stored): &(Key, Option<Stored>)) -> bool {
        match stored {
            Some(stored) => {
                let before = self.0.insert(key.clone(), stored.version.clone());
                before.as_ref() != Some(&stored.version)
            }
            None => self.0.remove(key).is_some(),
        }
    }
}

fn next_delay(last: Span, began: Tick, ended: Tick) -> Span {
    if ended.since(began) >= WELL { FIRST_DELAY } else { last.times(2).min(LAST_DELAY) }
}

/// Between this long and half as long again, so that nodes do not come in step.
pub fn jittered(span: Span) -> Span {
    let random = RandomState::new().hash_one(span);
    span + Span::millis(random % (span.0 / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(objects: Vec<(Key, Stored)>, whole: bool) -> Listed {
        Listed { version: "9".into(), objects, whole }
    }
    use crate::core::facts::Doc;

    fn stored(version: &str) -> Stored {
        Stored { version: ResourceVersion(version.into()), doc: Doc::default().into() }
    }

    fn key(name: &str) -> Key {
        Key::Group(name.parse().unwrap())
    }

    #[test]
    fn only_what_differs_is_told() {
        let mut told = Told::default();
        let first =
            told.differences(listed(vec![(key("a"), stored("1")), (key("b"), stored("2"))], true));
        assert_eq!(first.len(), 2);
        assert!(told.is_new(&(key("a"), Some(stored("3")))));
        assert!(!told.is_new(&(key("a"), Some(stored("3")))));
        let half = told.differences(listed(vec![(key("a"), stored("3"))], false));
        assert_eq!(half, [], "what is missing in half a list is not gone");
        let second = vec![(key("a"), stored("3")), (key("c"), stored("4"))];
        let second = told.differences(listed(second, true));
        assert_eq!(second, [(key("b"), None), (key("c"), Some(stored("4")))]);
        assert!(told.is_new(&(key("c"), None)));
        assert!(!told.is_new(&(key("c"), None)));
    }

    #[test]
    fn of_many_changes_of_one_object_the_newest_is_told_in_time() {
        let mut paced = Paced::default();
        for n in 0..1000 {
            paced.hold((key("a"), Some(stored(&n.to_string()))));
        }
        paced.hold((key("b"), None));
        assert_eq!(paced.due(Tick(0)), Some((key("a"), Some(stored("999")))));
        assert_eq!(paced.due(Tick(0)), Some((key("b"), None)));
        paced.hold((key("a"), Some(stored("1000"))));
        paced.hold((key("a"), None));
        paced.hold((key("c"), Some(stored("7"))));
        assert_eq!(paced.due(Tick(50)), Some((key("c"), Some(stored("7")))));
        assert_eq!(paced.due(Tick(99)), None);
        assert_eq!(paced.due(Tick(100)), Some((key("a"), None)));
        assert_eq!(paced.due(Tick(9_000)), None);
        assert!(paced.held.is_empty() && paced.last.len() <= 3);
    }

    #[test]
    fn delays_double_to_a_bound_and_start_anew_after_a_good_watch() {
        let mut delay = FIRST_DELAY;
        for _ in 0..20 {
            delay = next_delay(delay, Tick(0), Tick(50));
        }
        assert_eq!(delay, LAST_DELAY);
        assert_eq!(next_delay(delay, Tick(0), Tick(5_000)), FIRST_DELAY);
        for _ in 0..100 {
            let jittered = jittered(FIRST_DELAY);
            assert!(jittered >= FIRST_DELAY && jittered <= Span::millis(300));
        }
    }
}
