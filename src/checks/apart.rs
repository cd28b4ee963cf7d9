//! What keeps a check's program apart from foip: it may use the host as its user may, but neither read nor write where
//! foip's secrets and state are, nor send foip a signal.
//!
//! | foip runs as | the program | files | signals |
//! | --- | --- | --- | --- |
//! | any other user than root (as a service does) | the same user, under Landlock | Linux 5.13 | Linux 6.12 |
//! | root | `nobody`, and under Landlock where there is one | any | any |
//!
//! Landlock grants and never takes away. So everything is granted that does not lie on the way to a hidden place, and on
//! that way what lies beside it.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

/// The newest version that is made use of; an older kernel does what it can.
const VERSION: ABI = ABI::V6;

/// More grants than any host needs, and less than hurts.
const GRANTS: usize = 4096;

/// Where a host has secrets that foip's own rights may reach, whatever the configuration says.
const ALWAYS: [&str; 6] = [
    "/etc/foip",
    "/etc/kubernetes",
    "/etc/rancher",
    "/run/credentials",
    "/run/foip-kubeconfig",
    "/var/lib/rancher",
];

/// Places that a check's program is kept from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Neither read nor written.
    pub secret: Vec<PathBuf>,
    /// Read, not written.
    pub fixed: Vec<PathBuf>,
}

/// What a thread may do from now on, and what it starts.
pub(super) fn confine(hidden: &Hidden) -> Result<(), String> {
    let failed = |error: landlock::RulesetError| {
        format!("cannot keep it from foip's secrets with Landlock: {error}")
    };
    let secret: Vec<_> = hidden
        .secret
        .iter()
        .cloned()
        .chain(ALWAYS.map(PathBuf::from))
        .flat_map(|path| [fs::canonicalize(&path).ok(), Some(path)])
        .flatten()
        .collect();
    let fixed: Vec<_> =
        hidden.fixed.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let mut grants = Vec::new();
    grant(Path::new("/"), &[&secret[..], &fixed[..]].concat(), &mut grants)?;
    let all = AccessFs::from_all(VERSION);
    let grants = grants.into_iter().map(|path| (path, all));
    let read = AccessFs::from_read(VERSION);
    let fixed = fixed.iter().filter(|path| !secret.iter().any(|secret| path.starts_with(secret)));
    let grants = grants.chain(fixed.map(|path| (path.clone(), read)));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|ruleset| ruleset.scope(Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(grants.filter_map(rule)))
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(failed)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced if is_root() => Ok(()),
        RulesetStatus::NotEnforced => Err(
            "it is not started: this kernel cannot keep a program from foip's secrets (Landlock: Linux 5.13, and \
             landlock among lsm= on the kernel's command line); use tcp or http for this check"
                .to_owned(),
        ),
    }
}

/// Does foip run as root? Then the program is another user's.
pub(super) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

type Rule = Result<PathBeneath<PathFd>, landlock::RulesetError>;

/// What cannot be opened needs no grant: nobody of this user can use it.
fn rule((path, access): (PathBuf, BitFlags<AccessFs>)) -> Option<Rule> {
    let place = PathFd::new(&path).ok()?;
    let is_folder = fs::metadata(&path).is_ok_and(|facts| facts.is_dir());
    let access = if is_folder { access } else { access & AccessFs::from_file(VERSION) };
    Some(Ok(PathBeneath::new(place, access)))
}

/// Everything in a folder but what leads to a hidden place; of that, what lies beside it.
fn grant(folder: &Path, hidden: &[PathBuf], grants: &mut Vec<PathBuf>) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        // A link is judged by where it leads.
        if hidden.contains(&path) || entry.file_type().map_or(true, |kind| kind.is_symlink()) {
            continue;
        }
        if hidden.iter().any(|hidden| hidden.starts_with(&path)) {
            grant(&path, hidden, grants)?;
        } else {
            grants.push(path);
        }
        if grants.len() > GRANTS {
            return Err(format!(
                "{} has too many files beside one of foip's; move foip's into a folder of its own",
                folder.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Folder;

    /// Runs this on a thread that may do no more than a check's program.
    fn confined<T: Send>(hidden: &Hidden, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                confine(hidden).unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn what_is_hidden_is_neither_read_nor_written_by_any_way() {
        let folder = Folder::new();
        let state = folder.0.join("deep/state");
        fs::create_dir_all(&state).unwrap();
        fs::create_dir(folder.0.join("run")).unwrap();
        fs::create_dir(folder.0.join("deep/beside")).unwrap();
        fs::write(state.join("token"), "secret").unwrap();
        fs::write(folder.0.join("kubeconfig"), "secret").unwrap();
        fs::write(folder.0.join("plain"), "plain").unwrap();
        fs::write(folder.0.join("run/status.json"), "status").unwrap();
        std::os::unix::fs::symlink(&state, folder.0.join("link")).unwrap();
        let hidden = Hidden {
            // By a link: what counts is the place.
            secret: vec![folder.0.join("link"), folder.0.join("kubeconfig")],
            fixed: vec![folder.0.join("run")],
        };
        let at = |path: &str| folder.0.join(path);
        confined(&hidden, || {
            for path in ["deep/state/token", "link/token", "kubeconfig"] {
                let error = fs::read(at(path)).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{path}");
                assert!(fs::write(at(path), "changed").is_err(), "{path}");
            }
            assert!(fs::read_dir(at("deep/state")).is_err());
            assert!(fs::remove_file(at("deep/state/token")).is_err());
            // Neither may what is hidden be taken out of its folder.
            assert!(fs::rename(at("deep/state"), at("deep/beside/state")).is_err());
            assert!(fs::hard_link(at("kubeconfig"), at("deep/beside/kubeconfig")).is_err());
            assert_eq!(fs::read(at("plain")).unwrap(), b"plain");
            fs::write(at("deep/beside/new"), "new").unwrap();
            assert_eq!(fs::read(at("run/status.json")).unwrap(), b"status");
            assert!(fs::write(at("run/status.json"), "changed").is_err());
            // foip's own memory and files by way of /proc.
            let parent = nix::unistd::getppid();
            for file in ["root/etc/passwd", "mem"] {
                assert!(fs::read(format!("/proc/{parent}/{file}")).is_err(), "{file}");
            }
            // Signal 0 asks whether another would be let through.
            assert!(nix::sys::signal::kill(parent, None).is_err(), "needs Linux 6.12");
        });
        assert_eq!(fs::read(state.join("token")).unwrap(), b"secret");
    }

    #[test]
    fn a_folder_with_a_crowd_in_it_is_no_endless_list() {
        let folder = Folder::new();
        for n in 0..=GRANTS {
            fs::write(folder.0.join(n.to_string()), "").unwrap();
        }
        let error = grant(&folder.0, &[folder.0.join("hidden/file")], &mut Vec::new()).unwrap_err();
        assert!(error.contains("too many files"), "{error}");
    }
}
