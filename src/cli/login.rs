//! `foip login` and `foip logout`: the part at the terminal.

use super::Failure;
use crate::config::Settings;

/// Logs in with the device flow.
pub(super) fn login(_settings: &Settings) -> Result<(), Failure> {
    Err(Failure::Failed("login is not connected to the provider yet".into()))
}

/// Takes the token back.
pub(super) fn logout(_settings: &Settings) -> Result<(), Failure> {
    Err(Failure::Failed("logout is not connected to the provider yet".into()))
}
