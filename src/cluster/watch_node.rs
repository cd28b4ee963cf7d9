//! The watch of the own Node: a cordon is known in milliseconds, without a read per second.
//!
//! Without a resource version an API server begins with the object as it is; each round therefore tells the
//! Node once, however the last one ended. It is a hint like every watch: reads decide.

use serde::Deserialize;
use tokio::sync::mpsc;

use super::Cluster;
use super::endpoints::Place;
use super::node::Node;
use super::watch::{SILENCE, jittered};
use super::wire::{Ask, Line, quoted};
use crate::core::facts::NodeFacts;
use crate::types::Span;

/// The server ends each watch after about this long.
const LENGTH: Span = Span::secs(290);

/// Between two rounds.
const PAUSE: Span = Span::secs(2);

/// After each change that is told.
const PACE: Span = Span::millis(50);

#[derive(Deserialize)]
pub(super) struct Event {
    r#type: String,
    /// A Status where the type is ERROR, which is not read as a Node.
    pub(super) object: Node,
}

/// Runs until the receiver is dropped.
pub async fn run(cluster: &Cluster, seen: &mpsc::Sender<NodeFacts>) {
    let mut avoid = Vec::new();
    while !seen.is_closed() {
        round(cluster, seen, &mut avoid).await;
        tokio::time::sleep(jittered(PAUSE).as_std()).await;
    }
}

/// One watch, until it ends, is cut, falls silent, or another endpoint is used.
async fn round(cluster: &Cluster, seen: &mpsc::Sender<NodeFacts>, avoid: &mut Vec<Place>) {
    let link = &cluster.link;
    let mut moved = link.moved.subscribe();
    let node = link.state().options.node.clone();
    let name = node.as_str();
    let ask = Ask::get(format!(
        "/api/v1/nodes?watch=true&allowWatchBookmarks=true&fieldSelector={}&timeoutSeconds={}",
        quoted(&format!("metadata.name={name}")),
        jittered(LENGTH).as_secs(),
    ));
    let Ok(mut stream) = link.open(&ask, avoid).await else { return };
    let mut told: Option<NodeFacts> = None;
    // Opening it may itself have moved to another endpoint; that is where the watch is.
    moved.mark_unchanged();
    loop {
        let line = tokio::select! {
            line = tokio::time::timeout(SILENCE.as_std(), stream.line()) => line,
            _ = moved.changed() => return,
        };
        let line = match line {
            Ok(Ok(Line::Whole(line))) => line,
            // A Node of that size is none that can be read.
            Ok(Ok(Line::TooLong)) => continue,
            Ok(Ok(Line::End) | Err(_)) | Err(_) => return,
        };
        let Ok(Event { r#type, object: node }) = serde_json::from_slice(&line) else { return };
        avoid.clear();
        match r#type.as_str() {
            "ADDED" | "MODIFIED" => {}
            // Says only that the watch lives: a Node may be quiet for longer than a dead connection may.
            "BOOKMARK" => continue,
            // A deleted Node is the read's business; an error ends the round.
            _ => return,
        }
        let facts = node.facts();
        if node.metadata.name != name || told.as_ref() == Some(&facts) {
            continue;
        }
        told = Some(facts.clone());
        if seen.send(facts).await.is_err() {
            return;
        }
        // Whoever changes the Node without end is heard at this pace.
        tokio::time::sleep(PACE.as_std()).await;
    }
}
