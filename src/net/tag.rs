//! How foip knows its own addresses again: two tags, and which of them this kernel keeps.
//!
//! | tag | value | kept by |
//! | --- | --- | --- |
//! | `IFA_PROTO` | 0x66, the letter `f` | Linux 5.18 and later |
//! | `IFA_RT_PRIORITY` | 0x666f6970, the letters `foip` | all; shown by `ip` as `metric 1718577520` |
//! | `IFA_LABEL` (IPv4) | `<interface>:foip`, where that fits | all; for people and for dhclient's flush, never judged |
//!
//! Kernels before 5.18 drop `IFA_PROTO` without an error, and vendors port it back, so no version is asked: once any
//! address of the host was seen with the attribute (the kernel puts it on ::1 and on link-local ones itself, and one
//! commit brought it to both families), only that attribute counts.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::row::AddressRow;

/// Value of `IFA_PROTO`. The kernel itself uses 1 to 3; `rt_protos`-like registries know no 0x66.
pub const PROTOCOL: u8 = 0x66;
/// Value of `IFA_RT_PRIORITY`.
pub const PRIORITY: u32 = 0x666f_6970;
/// End of an IPv4 label.
const LABEL: &str = ":foip";
/// `IFNAMSIZ` less the closing zero.
const LABEL_MOST: usize = 15;

/// Which tags are written and read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagUse {
    /// Both.
    #[default]
    Both,
    /// As on a kernel before 5.18: `IFA_PROTO` is neither written nor looked at. For tests.
    SecondOnly,
}

/// The judge of ownership. Clones share what was learned about the kernel.
#[derive(Clone, Debug, Default)]
pub struct Tag {
    tags: TagUse,
    keeps: Arc<AtomicBool>,
}

impl Tag {
    /// With these tags.
    pub fn new(tags: TagUse) -> Self {
        Self { tags, keeps: Arc::default() }
    }

    /// Is the first tag to be written?
    pub fn writes_protocol(&self) -> bool {
        self.tags == TagUse::Both
    }

    /// Learns from any address of the host whether this kernel keeps `IFA_PROTO`.
    pub fn learn(&self, row: &AddressRow) {
        if self.tags == TagUse::Both && row.protocol.is_some() {
            self.keeps.store(true, Ordering::Relaxed);
        }
    }

    /// Did foip put this address there? A single address (/32, /128) with the tag that this kernel keeps.
    pub fn owns(&self, row: &AddressRow) -> bool {
        let kept = self.keeps.load(Ordering::Relaxed);
        let tagged = match row.protocol.filter(|_| self.tags == TagUse::Both) {
            Some(protocol) => protocol == PROTOCOL,
            None if kept => false,
            None => row.priority == Some(PRIORITY),
        };
        tagged && row.is_single()
    }
}

/// The IPv4 label, where it fits; none for IPv6, which has no labels.
pub fn label(host: IpAddr, interface: &str) -> Option<String> {
    let label = format!("{interface}{LABEL}");
    (host.is_ipv4() && label.len() <= LABEL_MOST).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host: &str, protocol: Option<u8>, priority: Option<u32>) -> AddressRow {
        let host: IpAddr = host.parse().unwrap();
        AddressRow {
            index: 2,
            host,
            peer: None,
            prefix: super::super::row::full(host),
            scope: 0,
            flags: 0,
            label: None,
            protocol,
            priority,
            lifetimes: None,
        }
    }

    #[test]
    fn the_first_tag_decides_where_the_kernel_keeps_it() {
        let tag = Tag::default();
        let host = "203.0.113.63";
        assert!(tag.owns(&row(host, Some(PROTOCOL), Some(PRIORITY))));
        assert!(tag.owns(&row(host, Some(PROTOCOL), None)));
        assert!(!tag.owns(&row(host, Some(3), Some(PRIORITY))));
        assert!(!tag.owns(&row(host, None, None)));
    }

    #[test]
    fn the_second_tag_counts_until_any_address_was_seen_with_the_first() {
        let tag = Tag::default();
        let clone = tag.clone();
        let copied = row("203.0.113.63", None, Some(PRIORITY));
        assert!(tag.owns(&copied));
        assert!(!tag.owns(&row("203.0.113.63", None, Some(PRIORITY + 1))));
        clone.learn(&row("::1", Some(1), None));
        assert!(!tag.owns(&copied));
    }

    #[test]
    fn a_kernel_without_the_first_tag_is_served_by_the_second() {
        let tag = Tag::new(TagUse::SecondOnly);
        tag.learn(&row("::1", Some(1), None));
        assert!(tag.owns(&row("203.0.113.63", Some(9), Some(PRIORITY))));
        assert!(!tag.owns(&row("203.0.113.63", Some(PROTOCOL), None)));
    }

    #[test]
    fn a_wider_prefix_or_a_peer_is_never_ours() {
        let tag = Tag::default();
        let mut wide = row("2001:db8::1", Some(PROTOCOL), Some(PRIORITY));
        wide.prefix = 64;
        assert!(!tag.owns(&wide));
        let mut peer = row("203.0.113.63", Some(PROTOCOL), Some(PRIORITY));
        peer.peer = Some("10.0.0.1".parse().unwrap());
        assert!(!tag.owns(&peer));
    }

    #[test]
    fn a_label_that_does_not_fit_is_left_out() {
        let v4: IpAddr = "203.0.113.63".parse().unwrap();
        assert_eq!(label(v4, "eth0").as_deref(), Some("eth0:foip"));
        assert_eq!(label(v4, "enp1s0f0n0").as_deref(), Some("enp1s0f0n0:foip"));
        assert_eq!(label(v4, "enp1s0f0np0"), None);
        assert_eq!(label("2001:db8::1".parse().unwrap(), "eth0"), None);
    }
}
