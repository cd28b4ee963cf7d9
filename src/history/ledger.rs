//! The route calls in the ledger's Doc, as far as they can be read.

use serde::Deserialize;

use crate::core::facts::Doc;
use crate::types::{Epoch, FailoverIp};

/// The annotation that holds the calls.
pub const CALLS: &str = "calls";

/// One route call in the ledger. Times are the provider's own, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LedgerCall {
    /// `<node>/<nonce>/<n>`.
    pub id: String,
    /// The term it was made in.
    pub epoch: Epoch,
    /// The group.
    pub group: String,
    /// What was to be routed.
    pub ip: FailoverIp,
    /// Who called.
    pub node: String,
    /// Where to.
    pub to: String,
    /// When the intent was written.
    pub at: u64,
    /// The latest moment at which the call can have arrived.
    pub arrives: u64,
    /// How it ended, if that is known.
    #[serde(default)]
    pub end: Option<LedgerEnd>,
}

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LedgerEnd {
    /// When.
    pub at: u64,
    /// `done`, `accepted`, `failed`, `refused`, `throttled`, `not-sent` or `unknown`.
    pub result: String,
}

/// The calls in a ledger; what cannot be read is left out.
pub fn calls(doc: &Doc) -> Vec<LedgerCall> {
    let Some(text) = doc.notes.get(CALLS) else {
        return Vec::new();
    };
    let Ok(all) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Vec::new();
    };
    all.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let mut doc = Doc::default();
        assert!(calls(&doc).is_empty());
        doc.notes.insert(CALLS.into(), "nonsense".into());
        assert!(calls(&doc).is_empty());
        let good = r#"[7, {"id":"a/n/1","epoch":3,"group":"default","ip":"203.0.113.63",
            "node":"a","to":"v22","at":5,"arrives":9,"end":null}]"#;
        doc.notes.insert(CALLS.into(), good.into());
        assert_eq!(calls(&doc).len(), 1);
    }
}
