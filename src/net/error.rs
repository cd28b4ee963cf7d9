//! Why something about the NIC could not be done or learned: one error for the whole adapter.

use nix::errno::Errno;

use super::message::Broken;
use crate::types::{IfName, Mac, Span};

/// What went wrong between foip and the kernel's network configuration.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel said no.
    #[error("cannot {doing}: {}{}", errno.desc(), hint(*errno))]
    Kernel {
        /// What was tried, as an infinitive with its object.
        doing: String,
        /// The kernel's reason.
        errno: Errno,
    },
    /// No complete answer before the deadline of the exchange.
    #[error("cannot {doing}: the kernel gave no complete answer within {within}")]
    Late {
        /// What was tried.
        doing: String,
        /// The deadline.
        within: Span,
    },
    /// The tables changed under every one of several dumps: none of them is a consistent picture.
    #[error("cannot {doing}: the kernel's table changed during each of {tries} dumps")]
    Unsteady {
        /// What was tried.
        doing: String,
        /// How often.
        tries: u32,
    },
    /// The kernel's bytes do not follow the netlink format.
    #[error("cannot {doing}: the kernel's answer is malformed: {broken}")]
    Malformed {
        /// What was tried.
        doing: String,
        /// What is wrong with the bytes.
        broken: Broken,
    },
    /// No interface has this name.
    #[error(
        "no interface is named {name} (there are: {known}); set `interface` in [node] to one of these"
    )]
    NoSuchName {
        /// The name asked for.
        name: IfName,
        /// The names that exist.
        known: String,
    },
    /// No interface has this MAC.
    #[error(
        "no interface has the MAC {mac} that the provider lists (there are: {known}); set `interface` in [node]"
    )]
    NoSuchMac {
        /// The MAC asked for.
        mac: Mac,
        /// The interfaces and MACs that exist.
        known: String,
    },
    /// Several interfaces have this MAC, and nothing says which of them carries the host's addresses.
    #[error("the MAC {mac} belongs to several interfaces ({names}); set `interface` in [node]")]
    Ambiguous {
        /// The MAC asked for.
        mac: Mac,
        /// The candidates.
        names: String,
    },
    /// The interface is a port of another one, which carries the addresses instead.
    #[error(
        "{name} is a port of {master} ({kind}), so addresses belong on {master}; set `interface = \"{master}\"` in [node]"
    )]
    Enslaved {
        /// The interface asked for.
        name: IfName,
        /// What it is a port of.
        master: IfName,
        /// That one's kind, such as `bridge`.
        kind: String,
    },
    /// The interface of the configured name is not the one that the provider knows.
    #[error(
        "{name} has the MAC {has} now, and netcup knows this server by {mac}, which {place}; set `interface` in [node] to the public NIC, or leave it out"
    )]
    OtherMac {
        /// The interface asked for.
        name: IfName,
        /// The MAC that the provider lists.
        mac: Mac,
        /// What the interface has, its ports' included.
        has: String,
        /// Who has the provider's MAC now, in words.
        place: String,
    },
    /// The interface does not speak Ethernet: no ARP, no neighbour discovery, no MAC.
    #[error(
        "{name} ({kind}) is not an Ethernet interface; set `interface` in [node] to the public NIC"
    )]
    NotEthernet {
        /// The interface asked for.
        name: IfName,
        /// Its kind, such as `loopback`.
        kind: String,
    },
}

impl NetError {
    /// Is there, for now, no interface for addresses? Else the kernel could not be asked, and nothing is known.
    pub fn is_unfit(&self) -> bool {
        match self {
            Self::NoSuchName { .. }
            | Self::NoSuchMac { .. }
            | Self::Ambiguous { .. }
            | Self::Enslaved { .. }
            | Self::NotEthernet { .. }
            | Self::OtherMac { .. } => true,
            Self::Kernel { .. }
            | Self::Late { .. }
            | Self::Unsteady { .. }
            | Self::Malformed { .. } => false,
        }
    }

    /// Does it contradict what the provider said of this host? Then the provider is worth another question.
    pub fn is_misfit(&self) -> bool {
        matches!(self, Self::NoSuchMac { .. } | Self::OtherMac { .. })
    }

    pub(super) fn kernel(doing: impl Into<String>, errno: Errno) -> Self {
        Self::Kernel { doing: doing.into(), errno }
    }

    /// The kernel's errno, if that is what this is.
    pub(super) fn errno(&self) -> Option<Errno> {
        if let Self::Kernel { errno, .. } = self { Some(*errno) } else { None }
    }
}

/// What a person can do about the errors that have one usual cause.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "errno is open: all others speak for themselves"
)]
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => " (foip needs CAP_NET_ADMIN and, to announce, CAP_NET_RAW)",
        Errno::EACCES => " (is IPv6 switched off there? sysctl net.ipv6.conf.*.disable_ipv6)",
        Errno::EAFNOSUPPORT => {
            " (the unit's RestrictAddressFamilies= must allow AF_NETLINK and AF_PACKET)"
        }
        _ => "",
    }
}
