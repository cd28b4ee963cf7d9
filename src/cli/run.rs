//! `foip run` and `foip replay`: the way from the command line to the driver and to the history.

use std::path::Path;

use super::{Failure, RunOptions};
use crate::config::Settings;

/// Hands over to the driver, which reads the configuration again from `path` on SIGHUP.
pub(super) fn run(_settings: Settings, _path: &Path, _options: RunOptions) -> Result<(), Failure> {
    Err(Failure::Failed("run is not connected to the driver yet".into()))
}

/// Hands over to the history.
pub(super) fn replay(_file: &Path) -> Result<(), Failure> {
    Err(Failure::Failed("replay is not connected to the history yet".into()))
}
