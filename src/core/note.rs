//! What the core tells people.

use serde::{Deserialize, Serialize};

/// One line for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {}
