//! What a person should know though no call failed: an object that was left out, a kubeconfig that is no good now.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::core::event::Trouble;

/// The remarks in force.
pub type Said = BTreeMap<Trouble, String>;

/// Keeps the remarks, and tells their changes.
#[derive(Debug, Default)]
pub struct Remarks(watch::Sender<Said>);

impl Remarks {
    /// Puts a remark in force, or ends it.
    pub fn set(&self, about: Trouble, remark: Option<String>) {
        self.0.send_if_modified(|said| {
            let before = match &remark {
                Some(remark) => said.insert(about, remark.clone()),
                None => said.remove(&about),
            };
            before != remark
        });
    }

    /// The remarks as they are, and their changes.
    pub fn subscribe(&self) -> watch::Receiver<Said> {
        self.0.subscribe()
    }
}
