//! What reads an API server's answers, as a function of bytes (see [`crate::fuzzing`]).

use serde_json::Value;

use super::endpoints::Place;
use super::lease::stored_of;
use super::node::{EndpointSlice, Node};
use super::object::Object;
use super::split::{Part, Splitter};
use super::wire::{Answer, Whole};
use super::{watch, watch_node};

/// Lists, watch events, single objects.
pub(crate) fn kubernetes(bytes: &[u8]) -> bool {
    let (whole, ended) = parts(bytes, bytes.len().max(1));
    for size in [1, 7] {
        assert_eq!(parts(bytes, size), (whole.clone(), ended), "other parts in other pieces");
    }
    let items: Vec<&[u8]> = whole
        .iter()
        .filter_map(|(name, value)| name.is_none().then_some(value.as_slice()))
        .collect();
    if let Ok(value) = serde_json::from_slice::<Value>(bytes)
        && let Some(Value::Array(real)) = value.get("items")
        && bytes.windows(5).filter(|word| word == b"items").count() == 1
    {
        let read: Vec<Value> =
            items.iter().filter_map(|item| serde_json::from_slice(item).ok()).collect();
        assert!(ended && read == *real, "other objects than the list has");
    }
    let mut taken = false;
    for item in items.into_iter().chain([bytes]) {
        if let Ok(object) = serde_json::from_slice::<Object>(item) {
            let lease = object.into_lease();
            taken |= lease.spec.is_some() && stored_of(&lease).is_ok();
        }
        if let Ok(node) = serde_json::from_slice::<Node>(item) {
            let _ = (node.facts(), node.annotations());
            taken |= !node.internal().is_empty();
        }
        if let Ok(slice) = serde_json::from_slice::<EndpointSlice>(item) {
            taken |= !slice.servers(6443).is_empty();
        }
    }
    if let Ok(event) = serde_json::from_slice::<watch::Event>(bytes) {
        taken |= !event.r#type.is_empty() && stored_of(&event.object.into_lease()).is_ok();
    }
    if let Ok(event) = serde_json::from_slice::<watch_node::Event>(bytes) {
        taken |= !event.object.internal().is_empty();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Place::parse(text);
    }
    taken | refusal(bytes)
}

/// A refusal, by every status that is told apart.
fn refusal(bytes: &[u8]) -> bool {
    [400, 401, 403, 404, 409, 429, 500, 503].into_iter().any(|code| {
        let at = "https://127.0.0.1:6443".to_owned();
        let taken = Whole::default();
        let error = Answer { at, code, taken, after: Some(1), refusal: bytes.to_vec() }.status();
        let shown = error.to_string();
        assert!(!shown.contains(char::is_control), "a control character: {shown:?}");
        error.is_absent("foip-default")
    })
}

/// A part: the name of its field (none for an object), and its text.
type Taken = (Option<String>, Vec<u8>);

/// What the splitter hands on, fed in pieces of this size; and whether that was a whole list.
fn parts(bytes: &[u8], size: usize) -> (Vec<Taken>, bool) {
    let mut parts = Vec::new();
    let mut splitter = Splitter::default();
    let mut good = true;
    for piece in bytes.chunks(size) {
        good = good
            && splitter
                .feed(piece, |part| {
                    parts.push(match part {
                        Part::Field(name, value) => (Some(name.to_owned()), value.to_vec()),
                        Part::Item(value) => (None, value.to_vec()),
                        Part::TooLarge(value) => (Some(String::new()), value.to_vec()),
                    });
                    Ok(())
                })
                .is_ok();
    }
    (parts, good && splitter.ended())
}
