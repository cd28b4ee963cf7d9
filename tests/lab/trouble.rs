//! What went wrong in the lab itself, in words for the person who runs it.

use std::fmt;

/// A sentence that says what was tried and what happened.
#[derive(Debug)]
pub struct Trouble(pub String);

/// The result of anything that can fail.
pub type Outcome<T> = Result<T, Trouble>;

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<nix::Error> for Trouble {
    fn from(error: nix::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// Says what was tried when something failed.
pub trait Tried<T> {
    /// Puts `what` in front of the error.
    fn tried(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Tried<T> for Result<T, E> {
    fn tried(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Trouble(format!("{}: {error}", what())))
    }
}

/// An error out of a format string.
#[macro_export]
macro_rules! trouble {
    ($($part:tt)*) => { $crate::trouble::Trouble(format!($($part)*)) };
}
