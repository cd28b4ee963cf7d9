//! SIGHUP: the configuration, and what it names, is read again on a thread, since a hanging disk must not stop
//! renewals. Everything that was made of the old one is made anew; what cannot be is refused by name.
//!
//! | what was captured | how a reload reaches it |
//! | --- | --- |
//! | groups, timings, priority, names of the checks | `Event::Reload` |
//! | the provider's client, with its password and certificates | opened anew |
//! | the kubeconfig, the namespace, the deadline of requests | `Cluster::reconfigure`; its watches begin anew |
//! | own server, interface | the search begins anew, and the NIC is chosen again |
//! | checks | those that differ begin anew |
//! | the node's name | refused: it is in every Lease that this process has written |

use super::hands::Opening;
use super::home::Search;
use super::{Driver, Message};
use crate::checks::{Hidden, Verdict};
use crate::clock;
use crate::config::{Host, PasswordSource, Settings};
use crate::core::event::Event;
use crate::logging::{Kind, Level};
use crate::types::{Account, Span};

/// What came of reading the configuration again.
pub type Fresh = Result<Box<(Settings, Opening)>, String>;

/// So many may read at a time: each keeps a thread for as long as the disk hangs.
const READERS: usize = 3;

/// Between two searches for the own server that nobody asked for.
const SEARCH_GAP: Span = Span::secs(30);

/// The reloads that were begun and have not ended.
#[derive(Debug, Default)]
pub struct Reloads {
    begun: u64,
    heard: u64,
    reading: usize,
    /// One that was asked for while too many were reading.
    again: bool,
}

impl Reloads {
    /// The number of the next one; `None` where it has to wait for another to end.
    fn begin(&mut self) -> Option<u64> {
        self.again = self.reading >= READERS;
        if self.again {
            return None;
        }
        self.reading += 1;
        self.begun += 1;
        Some(self.begun)
    }

    /// One has ended. Is it the newest so far?
    const fn end(&mut self, number: u64) -> bool {
        self.reading = self.reading.saturating_sub(1);
        let newest = number > self.heard;
        if newest {
            self.heard = number;
        }
        newest
    }
}

impl Driver {
    /// Begins to read the configuration again.
    pub(super) fn reload(&mut self) {
        let Some(number) = self.reloads.begin() else {
            let text = "the configuration is still being read for earlier SIGHUPs, perhaps from a disk that hangs; \
                        it is read again after that";
            return self.log.say(Level::Warning, Kind::Reloaded, text);
        };
        let (path, messages) = (self.config.clone(), self.messages.clone());
        tokio::task::spawn_blocking(move || {
            let host = Host::of_process();
            let fresh =
                Settings::load(&path, &host).map_err(|error| error.to_string()).map(|settings| {
                    let opening = Opening::of(&settings.provider);
                    Box::new((settings, opening))
                });
            let _ = messages.send(Message::Reloaded { number, fresh });
        });
    }

    /// A reading has ended. Of several the one that began last counts, in whatever order they end.
    pub(super) fn reloaded(&mut self, number: u64, fresh: Fresh) {
        let newest = self.reloads.end(number);
        let again = self.reloads.again;
        match fresh {
            _ if !newest => {
                let text = "an earlier reading of the configuration ended late; a later one has superseded it";
                self.log.say(Level::Notice, Kind::Reloaded, text);
            }
            Ok(fresh) => {
                let (settings, opening) = *fresh;
                self.reconfigure(settings, Some(opening));
            }
            Err(why) => self.stays(&why),
        }
        if again {
            self.reload();
        }
    }

    fn stays(&self, why: &str) {
        let text = format!("the configuration stays as it was: {why}");
        self.log.say(Level::Error, Kind::Reloaded, text);
    }

    /// A login tells whose budget it is: the first one, from which on this node takes part in the ledger, and one as
    /// somebody else, with another ledger.
    pub(super) fn learn_account(&mut self, account: Account) {
        let mut settings = self.hands.settings.clone();
        let old = settings.core.account.replace(account.clone());
        if old.as_ref() == Some(&account) {
            return;
        }
        if let Some(old) = old {
            let text = format!("netcup's login is account {account}'s now, not {old}'s");
            self.log.say(Level::Notice, Kind::Reloaded, text);
        }
        self.reconfigure(settings, None);
    }

    /// Takes over a new configuration: what the core knows goes through the core. Without an opening the provider's
    /// settings are those that are in force.
    fn reconfigure(&mut self, mut settings: Settings, opening: Option<Opening>) {
        let old = &self.hands.settings;
        if settings.core.node != old.core.node {
            return self.stays(&format!(
                "this node is called {} there ([node] name, or k3s' certificate where that is left out), and the name \
                 in force is {}; a name needs a restart: run systemctl restart foip",
                settings.core.node, old.core.node
            ));
        }
        // A token that cannot be read for a moment makes nobody forget whose it was.
        if settings.core.account.is_none() && settings.provider == old.provider {
            settings.core.account.clone_from(&old.core.account);
        }
        let reload = opening.is_some();
        let warnings = settings.warnings.clone();
        let core = settings.core.clone();
        if let Err(error) = self.hands.reconfigure(settings, opening) {
            return self.stays(&error.to_string());
        }
        self.step(Event::Reload(Box::new(core)));
        if !reload {
            return;
        }
        self.check();
        // What goes on as it was says again what it said: the core may have forgotten it.
        for verdict in self.verdicts.values().cloned().collect::<Vec<_>>() {
            self.tell_verdict(verdict);
        }
        self.search();
        for warning in warnings {
            self.log.say(Level::Warning, Kind::Other, warning);
        }
        self.log.say(Level::Notice, Kind::Reloaded, "the new configuration is in force");
    }

    /// Lets the configured checks run, and no others.
    pub(super) fn check(&mut self) {
        let settings = &self.hands.settings;
        if let Err(error) = self.checks.set(&settings.checks, hidden(settings)) {
            let text = format!("not all of the user's checks run: {error}");
            self.log.say(Level::Error, Kind::Other, text);
        }
        self.verdicts.retain(|run, _| self.checks.is_current(*run));
    }

    /// A check has told its verdict; it may have ended since.
    pub(super) fn judge(&mut self, verdict: Verdict) {
        if self.checks.is_current(verdict.run) {
            self.verdicts.insert(verdict.run, verdict.clone());
            self.tell_verdict(verdict);
        }
    }

    fn tell_verdict(&mut self, verdict: Verdict) {
        let Verdict { run: _, name, passing, said } = verdict;
        self.step(Event::Check { name, passing, said });
    }

    /// Begins to look for the own server, with what is in force now.
    pub(super) fn search(&mut self) {
        let number = self.search.as_ref().map_or(0, Search::number) + 1;
        self.search = Some(Search::start(number, &self.hands, &self.messages));
        self.searched = clock::now();
        self.choose();
    }

    /// The NIC is not what the provider described.
    pub(super) fn misfit(&mut self) {
        let over = self.search.as_ref().is_none_or(Search::is_over);
        if over && clock::now().since(self.searched) >= SEARCH_GAP {
            self.search();
        }
    }
}

/// What a check's program is kept from. The status is for everybody to read, and only for foip to write.
fn hidden(settings: &Settings) -> Hidden {
    let provider = &settings.provider;
    let password = match &provider.password {
        PasswordSource::File(path) | PasswordSource::Credential(path) => Some(path),
        PasswordSource::Missing => None,
    };
    let secret = [
        Some(&settings.places.state),
        settings.places.credentials.as_ref(),
        Some(&settings.kubernetes.kubeconfig),
        Some(&provider.token_file),
        password,
    ];
    Hidden {
        secret: secret.into_iter().flatten().cloned().collect(),
        fixed: vec![settings.places.runtime.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reading_that_began_last_counts_in_whatever_order_they_end() {
        let mut reloads = Reloads::default();
        let numbers: Vec<_> = (0..READERS).map(|_| reloads.begin().unwrap()).collect();
        assert_eq!(reloads.begin(), None);
        assert!(reloads.again);
        assert!(reloads.end(numbers[1]));
        assert!(!reloads.end(numbers[0]));
        assert!(reloads.end(numbers[2]));
        let next = reloads.begin().unwrap();
        assert!(!reloads.again && next > numbers[2]);
    }
}
