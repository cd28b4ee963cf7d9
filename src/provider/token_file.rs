//! The token file: what `foip login` leaves for the service.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fchown, fsync, geteuid, unlinkat};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::oidc::Who;
use crate::core::facts::ProviderFailure;
use crate::types::Account;

/// Largest token file that is read.
const LARGEST: u64 = 64 * 1024;

/// What the token file holds.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub who: Who,
    pub refresh: SecretString,
}

/// The token file: JSON with `account`, `user_id` and `refresh_token`, mode 0600, always replaced whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// The file at this path; it need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The customer number in it, if the file can be read and has one.
    pub fn account(&self) -> Option<Account> {
        self.load().ok()?.who.account
    }

    pub(super) fn load(&self) -> Result<Login, ProviderFailure> {
        let shown = self.path.display();
        let file = File::open(&self.path).map_err(|error| {
            ProviderFailure::Auth(if error.kind() == io::ErrorKind::NotFound {
                format!("there is no token file {shown}: log in with `foip login`")
            } else {
                format!(
                    "cannot read the token file {shown} ({error}): give it to foip's user, or log in again with `foip login`"
                )
            })
        })?;
        let mut text = Vec::new();
        let read = file.take(LARGEST).read_to_end(&mut text);
        let parsed = read.ok().and_then(|_| parse(&text));
        parsed.ok_or_else(|| {
            ProviderFailure::Auth(format!(
                "the token file {shown} is not what `foip login` wrote: log in again with `foip login`"
            ))
        })
    }

    /// Replaces the file: a crash leaves the old one or the new one, never a part.
    ///
    /// The new file belongs to the owner of the folder, so that root can log in for the service's user.
    pub(super) fn store(&self, login: &Login) -> io::Result<()> {
        let text = json!({
            "account": login.who.account,
            "user_id": login.who.user_id,
            "refresh_token": login.refresh.expose_secret(),
        });
        let text = format!("{text}\n");
        let (folder, name) = self.place()?;
        let fresh = format!("{name}.new");
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(&folder, fresh.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let fd = match create() {
            // Left behind by a crash.
            Err(Errno::EEXIST) => {
                unlinkat(&folder, fresh.as_str(), UnlinkatFlags::NoRemoveDir)?;
                create()?
            }
            other => other?,
        };
        let written = Self::fill(&folder, fd, text.as_bytes())
            .and_then(|()| Ok(renameat(&folder, fresh.as_str(), &folder, name.as_str())?));
        if written.is_err() {
            let _ = unlinkat(&folder, fresh.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written?;
        Ok(fsync(&folder)?)
    }

    fn fill(folder: &OwnedFd, fd: OwnedFd, text: &[u8]) -> io::Result<()> {
        if geteuid().is_root() {
            let owner = fstat(folder)?;
            let (user, group) = (owner.st_uid.into(), owner.st_gid.into());
            fchown(fd.as_fd(), Some(user), Some(group))?;
        }
        let mut file = File::from(fd);
        file.write_all(text)?;
        file.sync_all()
    }

    /// Removes the file; it is no error if there is none.
    pub(super) fn remove(&self) -> io::Result<()> {
        let (folder, name) = self.place()?;
        match unlinkat(&folder, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }

    /// The folder, opened without following a link in its own name, and the file's name in it.
    fn place(&self) -> io::Result<(OwnedFd, String)> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        let name =
            name.ok_or_else(|| io::Error::other("the token file's path has no file name"))?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let folder = open(folder, flags, Mode::empty())?;
        // A token behind a link would be replaced by a file beside it.
        match fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFLNK => {
                Err(io::Error::other("the token file is a symbolic link, which is not followed"))
            }
            Ok(_) | Err(Errno::ENOENT) => Ok((folder, name.to_owned())),
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) fn parse(text: &[u8]) -> Option<Login> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let refresh = value.get("refresh_token")?.as_str()?;
    if refresh.is_empty() || !refresh.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let account = value.get("account").and_then(Value::as_str);
    Some(Login {
        who: Who {
            user_id: value.get("user_id").and_then(Value::as_u64),
            account: account.and_then(|account| account.parse().ok()),
        },
        refresh: SecretString::from(refresh),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("foip-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn login(token: &str) -> Login {
        Login {
            who: Who { user_id: Some(555_001), account: "100000".parse().ok() },
            refresh: SecretString::from(token),
        }
    }

    #[test]
    fn the_file_is_replaced_whole_and_private() {
        let folder = Folder::new("token-replace");
        let file = TokenFile::new(folder.0.join("token"));
        file.store(&login("one")).unwrap();
        // As after a crash in the middle of writing.
        std::fs::write(folder.0.join("token.new"), "half").unwrap();
        file.store(&login("two")).unwrap();
        let read = file.load().unwrap();
        assert_eq!(read.refresh.expose_secret(), "two");
        assert_eq!(read.who, login("two").who);
        let meta = std::fs::metadata(file.path()).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
        assert_eq!(meta.uid(), std::fs::metadata(&folder.0).unwrap().uid());
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(
            matches!(file.load(), Err(ProviderFailure::Auth(why)) if why.contains("foip login"))
        );
    }

    #[test]
    fn root_writes_for_the_folders_owner() {
        if !geteuid().is_root() {
            return;
        }
        let folder = Folder::new("token-owner");
        std::os::unix::fs::chown(&folder.0, Some(12_345), Some(12_345)).unwrap();
        let file = TokenFile::new(folder.0.join("token"));
        file.store(&login("one")).unwrap();
        let meta = std::fs::metadata(file.path()).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (12_345, 12_345));
    }

    #[test]
    fn links_are_not_followed() {
        let folder = Folder::new("token-link");
        std::os::unix::fs::symlink("elsewhere", folder.0.join("token")).unwrap();
        let file = TokenFile::new(folder.0.join("token"));
        assert!(file.store(&login("one")).is_err());
        let inner = folder.0.join("real");
        std::fs::create_dir(&inner).unwrap();
        std::os::unix::fs::symlink(&inner, folder.0.join("link")).unwrap();
        let file = TokenFile::new(folder.0.join("link/token"));
        assert!(file.store(&login("one")).is_err());
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 0);
    }

    #[test]
    fn nonsense_in_the_file_names_the_command() {
        let folder = Folder::new("token-bad");
        let file = TokenFile::new(folder.0.join("token"));
        for bad in
            ["", "{}", "[]", r#"{"refresh_token":""}"#, r#"{"refresh_token":"a b"}"#, "\u{0}"]
        {
            std::fs::write(file.path(), bad).unwrap();
            assert!(
                matches!(file.load(), Err(ProviderFailure::Auth(why)) if why.contains("`foip login`"))
            );
        }
    }
}
