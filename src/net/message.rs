//! Netlink's wire format, both ways: messages in a datagram, attributes in a message. Pure bytes.
//!
//! ```text
//!  datagram:   | nlmsghdr 16 | payload … pad to 4 | nlmsghdr 16 | payload …
//!  nlmsghdr:   len u32 (header included) | type u16 | flags u16 | seq u32 | port u32
//!  payload:    fixed part of the type    | attribute | attribute …
//!  attribute:  len u16 (header included) | type u16 | value … pad to 4
//! ```
//!
//! All in the machine's byte order, except addresses (`netlink(7)`, `linux/netlink.h`).

/// `NLMSG_ERROR`: an errno, or 0 as acknowledgement.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;
/// `NLMSG_OVERRUN`: data was lost.
pub const OVERRUN: u16 = 4;

/// `NLM_F_REQUEST`
pub const REQUEST: u16 = 0x1;
/// `NLM_F_MULTI`: one of several messages, ended by `DONE`.
pub const MULTI: u16 = 0x2;
/// `NLM_F_ACK`: answer with `ERROR` also when there is none.
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: the table changed while it was dumped.
pub const INTERRUPTED: u16 = 0x10;
/// `NLM_F_REPLACE`: overwrite what exists.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail where it exists.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_DUMP`: everything.
pub const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`: create what does not exist.
pub const CREATE: u16 = 0x400;

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// Upper bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;

/// Bytes that are not what netlink allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its type.
    pub kind: u16,
    /// `MULTI`, `INTERRUPTED`, …
    pub flags: u16,
    /// The request's number; 0 in notifications.
    pub seq: u32,
    /// What follows the header, without padding.
    pub payload: &'a [u8],
}

/// Messages of one datagram, up to its end or the first that is broken.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Broken>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = message(rest);
        rest = match item {
            Ok((_, length)) => rest.get(align(length)..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(item.map(|(message, _)| message))
    })
}

fn message(bytes: &[u8]) -> Result<(Message<'_>, usize), Broken> {
    if bytes.len() < HEADER {
        return Err(Broken("a message header is cut short"));
    }
    let length = u32_at(bytes, 0)? as usize;
    if length < HEADER {
        return Err(Broken("a message is shorter than its own header"));
    }
    let payload =
        bytes.get(HEADER..length).ok_or(Broken("a message is longer than its datagram"))?;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        seq: u32_at(bytes, 8)?,
        payload,
    };
    Ok((message, length))
}

/// Attributes of a payload behind its fixed part, as (type, value), up to the end or the first that is broken.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Broken>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = attribute(rest);
        rest = match item {
            Ok((_, _, length)) => rest.get(align(length)..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(item.map(|(kind, value, _)| (kind, value)))
    })
}

fn attribute(bytes: &[u8]) -> Result<(u16, &[u8], usize), Broken> {
    if bytes.len() < ATTRIBUTE {
        return Err(Broken("an attribute header is cut short"));
    }
    let length = usize::from(u16_at(bytes, 0)?);
    if length < ATTRIBUTE {
        return Err(Broken("an attribute is shorter than its own header"));
    }
    let value =
        bytes.get(ATTRIBUTE..length).ok_or(Broken("an attribute is longer than its message"))?;
    Ok((u16_at(bytes, 2)? & TYPE_MASK, value, length))
}

/// The result in an `ERROR` message, and in a `DONE` that has one: 0, or a positive errno.
pub fn status(payload: &[u8]) -> Result<i32, Broken> {
    let code = i32::from_ne_bytes(array(payload, 0)?);
    match code.checked_neg() {
        Some(errno) if errno >= 0 => Ok(errno),
        Some(_) | None => Err(Broken("an error code is positive")),
    }
}

/// `N` bytes at an offset.
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Broken> {
    bytes
        .get(at..)
        .and_then(|tail| tail.first_chunk())
        .copied()
        .ok_or(Broken("a value is cut short"))
}

/// A number of two bytes.
pub fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Broken> {
    array(bytes, at).map(u16::from_ne_bytes)
}

/// A number of four bytes.
pub fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Broken> {
    array(bytes, at).map(u32::from_ne_bytes)
}

const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// One request, built front to back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Begins with the header and the type's fixed part.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        bytes.resize(align(bytes.len()), 0);
        Self { bytes }
    }

    /// Appends an attribute. Values are addresses, numbers and interface names: far below the 64 KiB that the format allows.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
        debug_assert!(length != u16::MAX, "an attribute of {} bytes", value.len());
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// The finished bytes, numbered `seq`.
    pub fn finish(mut self, seq: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(datagram: &[u8]) -> Vec<Result<Message<'_>, Broken>> {
        messages(datagram).collect()
    }

    #[test]
    fn a_request_reads_back_as_built() {
        let bytes = Request::new(20, ACK, &[1, 2, 3, 4, 5])
            .with(7, b"abc")
            .with(9 | 0x8000, &[])
            .finish(77);
        let all = one(&bytes);
        assert_eq!(all.len(), 1);
        let message = all[0].unwrap();
        assert_eq!((message.kind, message.flags, message.seq), (20, ACK | REQUEST, 77));
        let found: Vec<_> = attributes(&message.payload[8..]).map(Result::unwrap).collect();
        assert_eq!(found, [(7, &b"abc"[..]), (9, &[][..])]);
    }

    #[test]
    fn several_messages_in_a_datagram_are_split_at_their_padding() {
        let mut bytes = Request::new(1, 0, b"x").finish(1);
        let short = u32::from(17_u8).to_ne_bytes();
        bytes[..4].copy_from_slice(&short);
        bytes.extend(Request::new(2, 0, b"").finish(2));
        let kinds: Vec<_> = one(&bytes).into_iter().map(|m| m.unwrap().kind).collect();
        assert_eq!(kinds, [1, 2]);
    }

    #[test]
    fn lengths_that_lie_are_errors_and_end_the_walk() {
        let whole = Request::new(20, 0, &[0; 8]).with(1, &[0; 4]).finish(1);
        for length in [0_u32, 15, 33, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let all = one(&bytes);
            assert_eq!(all.len(), 1, "{length}");
            assert!(all[0].is_err(), "{length}");
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut bytes = whole[24..].to_vec();
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            let all: Vec<_> = attributes(&bytes).collect();
            assert_eq!(all.len(), 1, "{length}");
            assert!(all[0].is_err(), "{length}");
        }
    }

    #[test]
    fn a_status_is_an_errno_or_broken() {
        assert_eq!(status(&0_i32.to_ne_bytes()), Ok(0));
        assert_eq!(status(&(-17_i32).to_ne_bytes()), Ok(17));
        assert!(status(&5_i32.to_ne_bytes()).is_err());
        assert!(status(&i32::MIN.to_ne_bytes()).is_err());
        assert!(status(&[0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_ends_the_walk_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let broken = messages(&bytes).filter(Result::is_err).count();
            prop_assert!(broken <= 1);
            let broken = attributes(&bytes).filter(Result::is_err).count();
            prop_assert!(broken <= 1);
            let _ = status(&bytes);
        }

        #[test]
        fn what_is_built_reads_back(
            kind: u16,
            fixed in proptest::collection::vec(any::<u8>(), 0..20),
            values in proptest::collection::vec((0..TYPE_MASK, proptest::collection::vec(any::<u8>(), 0..40)), 0..10),
        ) {
            let mut request = Request::new(kind, 0, &fixed);
            for (kind, value) in &values {
                request = request.with(*kind, value);
            }
            let bytes = request.finish(3);
            let message = messages(&bytes).next().unwrap().unwrap();
            prop_assert_eq!(message.kind, kind);
            let back: Vec<_> = attributes(&message.payload[align(fixed.len())..])
                .map(|item| item.map(|(kind, value)| (kind, value.to_vec())))
                .collect::<Result<_, _>>()
                .unwrap();
            prop_assert_eq!(back, values);
        }
    }
}
