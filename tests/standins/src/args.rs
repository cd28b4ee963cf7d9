//! Arguments of the programs, and their end.

use std::collections::HashMap;
use std::io::Read;
use std::str::FromStr;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// `--name VALUE` and `--flag`, each at most once.
#[derive(Debug)]
pub struct Args {
    usage: &'static str,
    values: HashMap<String, String>,
}

impl Args {
    /// Reads the words after a program's name. `names` take a value, `flags` none.
    pub fn parse(
        usage: &'static str,
        names: &[&str],
        flags: &[&str],
        mut words: impl Iterator<Item = String>,
    ) -> Result<Self, String> {
        let mut values = HashMap::new();
        while let Some(word) = words.next() {
            let bad = || format!("unexpected {word}\n{usage}");
            let name = word.strip_prefix("--").ok_or_else(bad)?.to_owned();
            let value = if flags.contains(&name.as_str()) {
                String::new()
            } else if names.contains(&name.as_str()) {
                words.next().ok_or_else(|| format!("--{name} needs a value\n{usage}"))?
            } else {
                return Err(bad());
            };
            if values.insert(name, value).is_some() {
                return Err(bad());
            }
        }
        Ok(Self { usage, values })
    }

    /// A value that may be missing.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A value that may not.
    pub fn need(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("--{name} is missing\n{}", self.usage))
    }

    /// Values with commas between.
    pub fn list<T: FromStr<Err: ToString>>(&self, name: &str) -> Result<Vec<T>, String> {
        let parse = |text: &str| text.parse::<T>().map_err(|error| error.to_string());
        self.need(name)?.split(',').map(parse).collect()
    }

    /// Whether a flag is there.
    pub fn has(&self, flag: &str) -> bool {
        self.values.contains_key(flag)
    }
}

/// The signals that end a program. Blocked before any thread starts, so that one place takes them.
pub fn block_signals() {
    let _ = ending().thread_block();
}

fn ending() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// Returns on SIGTERM or SIGINT or, if asked to, when standard input closes.
pub fn wait_for_end(stdin: bool) {
    if stdin {
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = kill(Pid::this(), Signal::SIGTERM);
        });
    }
    let _ = ending().wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        let parse =
            |text: &str| Args::parse("usage", &["a"], &["f"], text.split(' ').map(str::to_owned));
        let good = parse("--a 1,2 --f").unwrap();
        assert_eq!((good.list::<u8>("a"), good.has("f")), (Ok(vec![1, 2]), true));
        for bad in ["--b 1", "--a", "a", "--a 1 --a 2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
