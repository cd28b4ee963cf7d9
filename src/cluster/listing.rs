//! The list of foip's Leases: page by page, object by object, whatever others have put into it.
//!
//! Anybody who may write Leases can give foip's label to thousands of large ones. None of them is held longer than it
//! takes to see that it is not wanted, and none keeps the others from being read.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use serde::Deserialize;

use super::failure::{Error, words};
use super::lease::{self, stored_of};
use super::link::Link;
use super::object::{Admission, Object};
use super::split::{Part, Splitter};
use super::wire::{Ask, Sink, garbage, quoted};
use crate::clock;
use crate::core::event::Trouble;
use crate::core::facts::{Key, Stored};

/// Objects of the first page: all there are in most clusters, and no more than a server has ready in time where
/// each is as large as it may be.
pub const FIRST_PAGE: usize = 50;

/// After a page that was not had in time the next list begins with one that is that much smaller.
const SMALLER: usize = 6;

/// Objects of a page after small ones.
const LARGEST_PAGE: usize = 400;

/// A page of this size was large: the next one is smaller.
const LARGE: usize = 4 << 20;

/// A page of this size was small: the next one is larger.
const SMALL: usize = 1 << 20;

/// Pages of one list.
const PAGES: usize = 80;

/// Objects that are looked at, in all pages together.
const LOOKED_AT: usize = 20_000;

/// What a list brought.
pub struct Listed {
    /// What a watch goes on from.
    pub version: String,
    /// The objects that are foip's.
    pub objects: Vec<(Key, Stored)>,
    /// There was no more: what is not in it has not got foip's label, or is not there.
    pub whole: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

/// One page while it comes in.
struct Page {
    splitter: Splitter,
    is_list: bool,
    metadata: ListMetadata,
    admission: Admission,
    looked_at: usize,
    bytes: usize,
    objects: Vec<(Key, Stored, Option<Lease>)>,
    left_out: LeftOut,
}

/// Objects that were not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LeftOut {
    count: usize,
    first: String,
}

/// Reads the list.
pub async fn list(link: &Arc<Link>, leases: &str, admission: Admission) -> Result<Listed, Error> {
    let ours = quoted(&format!("{}={}", lease::MANAGED_BY.0, lease::MANAGED_BY.1));
    let all = format!("{leases}?labelSelector={ours}");
    let (mut limit, began) = (link.state().page, clock::now());
    let mut from = String::new();
    // Whoever waits for the list has other things to do.
    let late = || clock::now().since(began) >= link.timeout().times(2);
    let mut listed = Listed { version: String::new(), objects: Vec::new(), whole: false };
    let (mut admission, mut looked_at, mut left_out) = (admission, 0, LeftOut::default());
    for _ in 0..PAGES {
        let page = || Page::new(admission.clone(), looked_at, left_out.clone());
        let path = format!("{all}&limit={limit}{from}");
        let answer = match link.call_into(&Ask::aside(path), page).await {
            // Perhaps that was too much for the time: the next list begins with less.
            Err(error) => {
                if error.is_silence() {
                    link.state().page = (limit / SMALLER).max(1);
                }
                return Err(error);
            }
            Ok(answer) => answer,
        };
        if !answer.is_success() {
            return Err(answer.status());
        }
        let page = answer.taken.end().map_err(|why| garbage(&answer.at, why))?;
        if listed.version.is_empty() {
            listed.version = page
                .metadata
                .resource_version
                .filter(|version| !matches!(version.as_str(), "" | "0"))
                .ok_or_else(|| garbage(&answer.at, "the list has no resourceVersion"))?;
        }
        (admission, looked_at, left_out) = (page.admission, page.looked_at, page.left_out);
        let mut state = link.state();
        for (key, stored, lease) in page.objects {
            if let Some(lease) = lease {
                state.strangers.note(&lease);
            }
            listed.objects.push((key, stored));
        }
        drop(state);
        let more = page.metadata.r#continue.filter(|more| !more.is_empty());
        let Some(more) = more else {
            listed.whole = looked_at <= LOOKED_AT;
            break;
        };
        limit = match page.bytes {
            ..SMALL => (limit * 2).min(LARGEST_PAGE),
            SMALL..LARGE => limit,
            LARGE.. => (limit / 2).max(1),
        };
        from = format!("&continue={}", quoted(&more));
        if looked_at > LOOKED_AT || late() {
            break;
        }
    }
    link.state().page = limit.min(FIRST_PAGE);
    link.remarks.set(Trouble::LeftOut, left_out.remark(&listed, looked_at));
    Ok(listed)
}

impl LeftOut {
    fn add(&mut self, name: &str, why: &str) {
        self.count += 1;
        if self.first.is_empty() {
            self.first = format!("{} {why}", words(name));
        }
    }

    fn remark(&self, listed: &Listed, looked_at: usize) -> Option<String> {
        let label = format!("{}={}", lease::MANAGED_BY.0, lease::MANAGED_BY.1);
        if !listed.whole {
            return Some(format!(
                "more Leases than the {looked_at} that were looked at have the label {label}: delete those that are not \
                 foip's"
            ));
        }
        (self.count > 0).then(|| {
            format!(
                "{} of the Leases with the label {label} are left out, the first: {}; delete what is not foip's",
                self.count, self.first
            )
        })
    }
}

impl Page {
    fn new(admission: Admission, looked_at: usize, left_out: LeftOut) -> Self {
        Self {
            splitter: Splitter::default(),
            is_list: false,
            metadata: ListMetadata::default(),
            admission,
            looked_at,
            bytes: 0,
            objects: Vec::new(),
            left_out,
        }
    }

    fn end(self) -> Result<Self, String> {
        // Anything else is no list, though it may look like an empty one.
        if self.splitter.ended() && self.is_list {
            Ok(self)
        } else {
            Err("not a whole list of Leases".into())
        }
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        match name {
            "kind" => self.is_list = value == b"\"LeaseList\"",
            "metadata" => self.metadata = serde_json::from_slice(value).unwrap_or_default(),
            _ => {}
        }
    }

    fn object(&mut self, text: &[u8]) {
        self.looked_at += 1;
        if self.looked_at > LOOKED_AT {
            return;
        }
        let Ok(object) = serde_json::from_slice::<Object>(text) else {
            return self.left_out.add("one", "is no Lease");
        };
        let Some(key) = self.admission.key(object.name()) else { return };
        let name = object.name().to_owned();
        if !self.admission.admit(&key) {
            return self
                .left_out
                .add(&name, "is of a node or group that is not known, as many others");
        }
        let lease = object.into_lease();
        match stored_of(&lease) {
            Ok(stored) => {
                let ours = self.admission.is_ours(&key);
                self.objects.push((key, stored, ours.then_some(lease)));
            }
            Err(why) => self.left_out.add(&name, &why),
        }
    }
}

impl Sink for Page {
    fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        self.bytes += piece.len();
        let mut splitter = std::mem::take(&mut self.splitter);
        let fed = splitter.feed(piece, |part| {
            match part {
                Part::Field(name, value) => self.field(name, value),
                Part::Item(text) => self.object(text),
                Part::TooLarge(_) => {
                    self.looked_at += 1;
                    self.left_out.add("one", "is larger than any datastore takes");
                }
            }
            Ok(())
        });
        self.splitter = splitter;
        fed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Result<Page, String> {
        let admission = Admission::new(&super::super::tests::options(), None);
        let mut page = Page::new(admission, 0, LeftOut::default());
        for piece in text.as_bytes().chunks(1000) {
            page.take(piece)?;
        }
        page.end()
    }

    fn lease(name: &str) -> serde_json::Value {
        serde_json::json!({"metadata": {"name": name, "resourceVersion": "7"}})
    }

    fn list(items: &[serde_json::Value]) -> String {
        serde_json::json!({"kind": "LeaseList", "metadata": {"resourceVersion": "9"}, "items": items})
            .to_string()
    }

    #[test]
    fn an_odd_object_is_left_out_and_the_others_count() {
        let odd = serde_json::json!({"metadata": {"name": "foip-b", "annotations": ["no"]}});
        let without_version = serde_json::json!({"metadata": {"name": "foip-c"}});
        let page = page(&list(&[lease("foip-a"), odd, without_version, lease("foip-d")])).unwrap();
        let names: Vec<String> = page.objects.iter().map(|(key, ..)| format!("{key:?}")).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(page.left_out.count, 2);
        let listed = Listed { version: String::new(), objects: Vec::new(), whole: true };
        let remark = page.left_out.remark(&listed, 4).unwrap();
        assert!(remark.contains("2 of the Leases") && remark.contains("is no Lease"), "{remark}");
    }

    #[test]
    fn our_own_come_through_a_crowd_of_strangers() {
        let mut items: Vec<_> = (0..3000).map(|n| lease(&format!("foip-a{n}"))).collect();
        items.push(lease("foip-default"));
        items.push(lease("foip-node-node-a"));
        items.push(lease("foip-ledger-100000"));
        let page = page(&list(&items)).unwrap();
        let ours = page.objects.iter().filter(|(_, _, lease)| lease.is_some()).count();
        assert_eq!((ours, page.objects.len()), (3, 3 + 32));
        assert_eq!(page.left_out.count, 3000 - 32);
    }

    #[test]
    fn what_is_no_list_of_leases_is_not_an_empty_one() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"kind":"Status","status":"Success"}"#,
            r#"{"kind":"NodeList","items":[]}"#,
            r#"{"kind":"LeaseList","items":[{}"#,
            r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#,
        ] {
            assert!(page(text).is_err(), "{text}");
        }
        assert!(page(&list(&[])).is_ok());
    }
}
