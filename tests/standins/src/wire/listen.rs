//! Where a stand-in listens: an address, perhaps inside another network namespace.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;

use nix::sched::{CloneFlags, setns};

/// `[NAME=][NETNS@]IP:PORT`, such as `node-a=foip-a@127.0.0.1:6443`.
///
/// `NETNS` is a name as of `ip netns` or a path to a namespace; port 0 takes a free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What people call it; empty: unnamed.
    pub name: String,
    /// The namespace it is in; none: that of the process.
    pub netns: Option<PathBuf>,
    /// Address and port.
    pub addr: SocketAddr,
}

impl From<SocketAddr> for Listen {
    fn from(addr: SocketAddr) -> Self {
        Self { name: String::new(), netns: None, addr }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').unwrap_or(("", text));
        let (netns, addr) = rest.split_once('@').map_or((None, rest), |(ns, a)| (Some(ns), a));
        let addr = addr.parse().map_err(|_| format!("{text}: {addr} is not IP:PORT"))?;
        let netns = netns.map(|ns| {
            if ns.contains('/') { PathBuf::from(ns) } else { PathBuf::from("/run/netns").join(ns) }
        });
        Ok(Self { name: name.to_owned(), netns, addr })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.netns {
            Some(netns) => write!(f, "{}@{}", netns.display(), self.addr),
            None => write!(f, "{}", self.addr),
        }
    }
}

impl Listen {
    /// Opens the socket; where any port will do, with the first listener's if that is free here:
    /// API servers are found by address and share a port.
    pub(crate) fn open_beside(&self, first: Option<&Self>) -> io::Result<TcpListener> {
        if self.addr.port() == 0
            && let Some(first) = first
        {
            let addr = SocketAddr::new(self.addr.ip(), first.addr.port());
            if let Ok(socket) = (Self { addr, ..self.clone() }).open() {
                return Ok(socket);
            }
        }
        self.open()
    }

    /// Opens the socket. It stays in its namespace, whichever thread uses it.
    pub(crate) fn open(&self) -> io::Result<TcpListener> {
        let Some(path) = &self.netns else {
            return TcpListener::bind(self.addr);
        };
        let (file, addr) = (File::open(path)?, self.addr);
        // A namespace belongs to a thread, so a thread of its own enters it and ends there.
        let entered = std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            TcpListener::bind(addr)
        });
        entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace died")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_understood() {
        let full: Listen = "a=ns1@10.0.0.1:6443".parse().unwrap();
        assert_eq!(full.name, "a");
        assert_eq!(full.netns, Some(PathBuf::from("/run/netns/ns1")));
        assert_eq!(full.addr, "10.0.0.1:6443".parse().unwrap());
        let bare: Listen = "[::1]:0".parse().unwrap();
        assert_eq!((bare.name.as_str(), bare.netns), ("", None));
        assert_eq!(
            "/proc/1/ns/net@1.2.3.4:5".parse::<Listen>().unwrap().netns,
            Some("/proc/1/ns/net".into())
        );
        assert!("10.0.0.1".parse::<Listen>().is_err());
    }
}
