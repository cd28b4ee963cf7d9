//! The access in use: when the kubeconfig is looked at, and what comes of it.

use std::sync::Arc;

use super::endpoints::{self, Place};
use super::failure::Error;
use super::kubeconfig::{self, Access, Stamp};
use super::link::Link;
use crate::clock;
use crate::core::event::Trouble;
use crate::types::{Span, Tick};

/// How often the kubeconfig is looked at while calls succeed; one that is refused has it looked at at once.
const LOOK: Span = Span::secs(5);

/// The same while there is none that can be used.
const LOOK_FOR_FIRST: Span = Span::millis(100);

/// What the disk says: the file's stamp, its content where that may be new, and the other servers where those were
/// not read yet.
type Seen = Result<(Stamp, Option<Result<Access, String>>, Option<Vec<Place>>), String>;

impl Link {
    /// The access in use. Waits for the disk only while there is none.
    pub(super) async fn access(self: &Arc<Self>) -> Result<Arc<Access>, Error> {
        let (access, looked) = {
            let state = self.state();
            (state.access.clone(), state.looked)
        };
        let due = |every| looked.is_none_or(|looked| clock::now().since(looked) >= every);
        if let Some(access) = access {
            if due(LOOK) && self.reading.try_lock().is_ok() {
                let link = Arc::clone(self);
                tokio::spawn(async move { link.look(false).await });
            }
            return Ok(access);
        }
        if due(LOOK_FOR_FIRST) {
            self.look(false).await;
        }
        let state = self.state();
        state.access.clone().ok_or_else(|| Error::Kubeconfig {
            path: state.options.kubeconfig.display().to_string(),
            why: state.trouble.clone(),
        })
    }

    /// Reads the kubeconfig unless that was done after `since`. Says whether the access is
    /// another than that of `generation`.
    pub(super) async fn reload(self: &Arc<Self>, generation: u64, since: Tick) -> bool {
        let done = {
            let state = self.state();
            state.generation != generation || state.looked.is_some_and(|looked| looked > since)
        };
        if !done {
            self.look(true).await;
        }
        self.state().generation != generation
    }

    /// Looks at the kubeconfig, and reads it if it changed or if `anyway`. One at a time; off this thread.
    async fn look(self: &Arc<Self>, anyway: bool) {
        let asked = clock::now();
        let _reading = self.reading.lock().await;
        let (seen, path, timeout, cache) = {
            let state = self.state();
            if state.looked.is_some_and(|looked| looked > asked) {
                return;
            }
            let options = &state.options;
            (
                state.stamp.filter(|_| !anyway),
                options.kubeconfig.clone(),
                options.timeout,
                options.cache.clone().filter(|_| !state.remembered),
            )
        };
        let began = clock::now();
        let read = path.clone();
        let task = tokio::task::spawn_blocking(move || {
            let path = read;
            let others = cache.map(|cache| endpoints::remembered(&cache));
            let stamp = kubeconfig::stamp(&path)?;
            if Some(stamp) == seen {
                return Ok((stamp, None, others));
            }
            let access = kubeconfig::load(&path, timeout);
            Ok((stamp, Some(access), others))
        });
        let result = match task.await {
            Ok(result) => result,
            Err(_) => Err("could not be read: the reading thread ended".to_owned()),
        };
        // A new configuration may have named another file or deadline meanwhile.
        let same = {
            let options = &self.state().options;
            options.kubeconfig == path && options.timeout == timeout
        };
        if same {
            self.take(began, result);
        }
    }

    fn take(&self, began: Tick, result: Seen) {
        let mut state = self.state();
        // k3s writes the file in place at each start: half of it is worth no word before the next look.
        let twice = !state.trouble.is_empty();
        state.looked = Some(began);
        let (stamp, loaded, others) = match result {
            Ok(parts) => parts,
            Err(why) => {
                // Missing: k3s makes it anew. What is in use stays in use.
                state.trouble = why;
                state.stamp = None;
                drop(state);
                self.remark_on_kubeconfig(twice);
                return;
            }
        };
        let changed = match loaded {
            None => false,
            Some(Err(why)) => {
                // Half written, perhaps within one tick of the file system's clock: read it again next time.
                state.trouble = why;
                state.stamp = None;
                false
            }
            Some(Ok(access)) => {
                state.stamp = Some(stamp);
                state.trouble = String::new();
                let same = state.access.as_ref().map(|old| old.fingerprint);
                let changed = same != Some(access.fingerprint);
                if changed {
                    state.generation += 1;
                    state.clients.clear();
                    state.causes.clear();
                    state.endpoints.set_local(access.local.clone());
                    state.access = Some(Arc::new(access));
                }
                changed
            }
        };
        if let Some(others) = others {
            state.remembered = true;
            state.endpoints.set_others(others);
        }
        drop(state);
        self.remark_on_kubeconfig(twice);
        if changed {
            self.moved.send_modify(|count| *count += 1);
        }
    }

    /// While an old access is used because the file is no good now, that is remarked.
    fn remark_on_kubeconfig(&self, twice: bool) {
        let stale = self.state().stale().filter(|_| twice);
        let remark = stale.map(|why| {
            format!("{why}. What was read before is in use; a restart of foip would have nothing")
        });
        self.remarks.set(Trouble::Kubeconfig, remark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Options;
    use crate::cluster::link::tests::options;
    use crate::files::tests::Folder;

    /// The rest may be written within one tick of the file system's clock, and change no stamp.
    #[tokio::test]
    async fn a_kubeconfig_that_was_cut_off_is_read_again_whatever_its_stamp() {
        let folder = Folder::new();
        let kubeconfig = folder.0.join("kubeconfig");
        std::fs::write(&kubeconfig, "clusters: [").unwrap();
        let link = Arc::new(Link::new(Options { kubeconfig, ..options() }));
        link.look(false).await;
        let state = link.state();
        assert!(state.trouble.contains("not a whole YAML document"), "{}", state.trouble);
        assert!(state.looked.is_some());
        assert_eq!(state.stamp, None);
    }
}
