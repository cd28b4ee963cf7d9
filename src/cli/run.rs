//! `foip run`: the way from the command line to the driver.

use std::path::Path;

use super::{Failure, RunOptions};
use crate::config::Settings;
use crate::driver::{self, RunError};

/// Hands over to the driver, which reads the configuration again from `path` on SIGHUP.
pub(super) fn run(settings: Settings, path: &Path, options: RunOptions) -> Result<(), Failure> {
    let RunOptions { trace, dry_run } = options;
    let options = driver::Options { config: path.to_owned(), trace, dry_run };
    driver::run(settings, options).map_err(|error| match error {
        RunError::Provider(error) => Failure::Unusable(error.to_string()),
        error @ (RunError::State(_) | RunError::Process { .. }) => {
            Failure::Failed(error.to_string())
        }
    })
}
