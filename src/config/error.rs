//! What is wrong with a configuration file: every problem with its place, none with a secret.

use std::fmt;
use std::path::{Path, PathBuf};

/// One problem: where it is and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line and column in the file, from 1; `None` where the problem is in no place of the file.
    pub place: Option<(usize, usize)>,
    /// The value, what is wrong with it, and the fix.
    pub text: String,
}

/// All problems of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Puts the problems in the order of the file.
    pub(super) fn new(path: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { path: path.to_owned(), problems }
    }

    /// The problems in the order of the file, those without a place first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for ConfigError {}

/// One line per problem: `PATH:LINE:COLUMN: TEXT`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.path.display())?;
            if let Some((line, column)) = problem.place {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " {}", problem.text)?;
        }
        Ok(())
    }
}
