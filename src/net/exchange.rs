//! One request to the kernel and its whole answer, on a socket of its own.
//!
//! ```text
//!  request ──▶ row, row, … DONE          a dump; again from the start if the table changed meanwhile
//!          ──▶ ERROR 0 | ERROR errno     a change
//!          ──▶ row [ERROR 0]             a question about one row
//! ```
//!
//! A fresh socket per exchange costs some microseconds and leaves nothing behind that could be taken for the answer to the
//! next one. The kernel carries a request out inside `send(2)`, under its configuration lock: while somebody else
//! holds that lock, no timeout of a socket helps. So call from a thread that may wait.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::error::NetError;
use super::message::{self, Broken, Request};
use crate::clock;
use crate::types::{Span, Tick};

/// A whole exchange ends within this.
const WITHIN: Span = Span::secs(2);
/// How often a dump is begun before its table counts as never at rest.
const TRIES: u32 = 8;
/// The kernel's dumps come in datagrams of at most 32 KiB; single messages are far smaller.
const DATAGRAM: usize = 65_536;
const SEQ: u32 = 1;

/// Asks for one change, and returns when the kernel has made or refused it.
pub fn change(request: &Request, doing: &str) -> Result<(), NetError> {
    Exchange::open(doing)?.run(request, &mut |_, _| Ok(()))?;
    Ok(())
}

/// Asks a question that is answered by one or no row of the given kind.
pub fn ask<T>(
    request: &Request,
    kind: u16,
    parse: fn(&[u8]) -> Result<Option<T>, Broken>,
    doing: &str,
) -> Result<Option<T>, NetError> {
    let mut found = None;
    Exchange::open(doing)?.run(request, &mut |row_kind, payload| {
        if row_kind == kind {
            found = parse(payload)?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Looks for a row of a table: one that was seen is there even if the table changed meanwhile; that there is none is
/// believed of a whole dump only.
pub fn find<T>(
    request: &Request,
    kind: u16,
    mut pick: impl FnMut(&[u8]) -> Result<Option<T>, Broken>,
    doing: &str,
) -> Result<Option<T>, NetError> {
    for _ in 0..TRIES {
        let mut found = None;
        let interrupted = Exchange::open(doing)?.run(request, &mut |row_kind, payload| {
            if row_kind == kind
                && let Some(row) = pick(payload)?
            {
                found.get_or_insert(row);
            }
            Ok(())
        })?;
        if found.is_some() || !interrupted {
            return Ok(found);
        }
    }
    Err(NetError::Unsteady { doing: doing.to_owned(), tries: TRIES })
}

/// Reads a whole table: every row of the given kind that `pick` wants. A dump during which the table changed is thrown away.
pub fn dump<T>(
    request: &Request,
    kind: u16,
    mut pick: impl FnMut(&[u8]) -> Result<Option<T>, Broken>,
    doing: &str,
) -> Result<Vec<T>, NetError> {
    for _ in 0..TRIES {
        let mut rows = Vec::new();
        let interrupted = Exchange::open(doing)?.run(request, &mut |row_kind, payload| {
            if row_kind == kind {
                rows.extend(pick(payload)?);
            }
            Ok(())
        })?;
        if !interrupted {
            return Ok(rows);
        }
    }
    Err(NetError::Unsteady { doing: doing.to_owned(), tries: TRIES })
}

/// What is made of one row.
type Row<'a> = &'a mut dyn FnMut(u16, &[u8]) -> Result<(), Broken>;

struct Exchange<'a> {
    fd: OwnedFd,
    doing: &'a str,
    end: Tick,
}

impl<'a> Exchange<'a> {
    fn open(doing: &'a str) -> Result<Self, NetError> {
        let fd = route_socket(SockFlag::empty(), 0)
            .map_err(|errno| NetError::kernel(format!("open netlink to {doing}"), errno))?;
        Ok(Self { fd, doing, end: clock::now() + WITHIN })
    }

    /// Returns whether the answer was interrupted by a change of the table.
    fn run(&self, request: &Request, row: Row<'_>) -> Result<bool, NetError> {
        let refused = |errno| {
            if errno == Errno::EAGAIN { self.late() } else { NetError::kernel(self.doing, errno) }
        };
        self.wait_at_most(self.end).map_err(refused)?;
        let bytes = request.clone().finish(SEQ);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.fd.as_raw_fd(), &bytes, &kernel, MsgFlags::empty()).map_err(refused)?;

        let mut answer = Answer::default();
        // On the stack: the allocator would ask the kernel for this much and give it back each time, and to give memory
        // back costs an idle holder, which has to interrupt the other processors for it, more than all else it does.
        let mut buffer = [0; DATAGRAM];
        loop {
            self.wait_at_most(self.end).map_err(refused)?;
            let datagram = match receive(&self.fd, &mut buffer) {
                Ok(Some(datagram)) => datagram,
                Ok(None) | Err(Errno::EINTR) => continue,
                Err(errno) => return Err(refused(errno)),
            };
            match answer.take(datagram, row) {
                Ok(None) => {}
                Ok(Some(0)) => return Ok(answer.interrupted),
                Ok(Some(errno)) => {
                    return Err(NetError::kernel(self.doing, Errno::from_raw(errno)));
                }
                Err(broken) => {
                    return Err(NetError::Malformed { doing: self.doing.to_owned(), broken });
                }
            }
        }
    }

    /// Bounds the next call by what is left; `EAGAIN` when nothing is.
    fn wait_at_most(&self, end: Tick) -> Result<(), Errno> {
        let left = clock::now().until(end);
        if left == Span::ZERO {
            return Err(Errno::EAGAIN);
        }
        let left = TimeVal::milliseconds(i64::try_from(left.0).unwrap_or(i64::MAX));
        setsockopt(&self.fd, SendTimeout, &left)?;
        setsockopt(&self.fd, ReceiveTimeout, &left)
    }

    fn late(&self) -> NetError {
        NetError::Late { doing: self.doing.to_owned(), within: WITHIN }
    }
}

/// A bound routing socket; `groups` are the notifications it wants.
pub fn route_socket(flags: SockFlag, groups: u32) -> Result<OwnedFd, Errno> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags | SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// One datagram; `None` if it is not from the kernel. One that did not fit is an error, since its end is lost.
pub fn receive<'a>(fd: &OwnedFd, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Errno> {
    let (length, from_kernel, whole) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let got = recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut parts, None, MsgFlags::empty())?;
        (
            got.bytes,
            got.address.is_some_and(|address| address.pid() == 0),
            !got.flags.contains(MsgFlags::MSG_TRUNC),
        )
    };
    if !whole {
        return Err(Errno::EMSGSIZE);
    }
    Ok(buffer.get(..length).filter(|_| from_kernel))
}

/// An answer while it comes in.
#[derive(Debug, Default)]
pub(super) struct Answer {
    interrupted: bool,
    single: bool,
}

impl Answer {
    /// Takes in one datagram. `Some(errno)` is the end, well (0) or not.
    pub(super) fn take(&mut self, datagram: &[u8], row: Row<'_>) -> Result<Option<i32>, Broken> {
        for item in message::messages(datagram) {
            let item = item?;
            if item.seq != SEQ {
                continue;
            }
            self.interrupted |= item.flags & message::INTERRUPTED != 0;
            match item.kind {
                message::ERROR => return message::status(item.payload).map(Some),
                // Old kernels send an empty DONE.
                message::DONE if item.payload.is_empty() => return Ok(Some(0)),
                message::DONE => return message::status(item.payload).map(Some),
                message::OVERRUN => return Err(Broken("the kernel lost a part of its answer")),
                kind => {
                    row(kind, item.payload)?;
                    self.single = item.flags & message::MULTI == 0;
                }
            }
        }
        // A question about one row has no other end than that row, unless ACK was asked for.
        Ok(self.single.then_some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::message::{DONE, ERROR, INTERRUPTED, MULTI, OVERRUN};
    use crate::net::row::{AddressRow, LinkRow, NEW_ADDRESS, RouteRow};
    use proptest::prelude::*;

    fn message(kind: u16, flags: u16, payload: &[u8], seq: u32) -> Vec<u8> {
        Request::new(kind, flags, payload).finish(seq)
    }

    fn feed(datagrams: &[Vec<u8>]) -> (Vec<Result<Option<i32>, Broken>>, usize, bool) {
        let mut answer = Answer::default();
        let mut rows = 0;
        let results = datagrams
            .iter()
            .map(|datagram| {
                answer.take(datagram, &mut |_, _| {
                    rows += 1;
                    Ok(())
                })
            })
            .collect();
        (results, rows, answer.interrupted)
    }

    #[test]
    fn a_dump_ends_with_done_and_not_before() {
        let part =
            [message(NEW_ADDRESS, MULTI, &[0; 8], SEQ), message(NEW_ADDRESS, MULTI, &[0; 8], SEQ)]
                .concat();
        let end = message(DONE, MULTI, &[0; 4], SEQ);
        let (results, rows, interrupted) = feed(&[part.clone(), part, end]);
        assert_eq!(results, [Ok(None), Ok(None), Ok(Some(0))]);
        assert_eq!((rows, interrupted), (4, false));
    }

    #[test]
    fn a_dump_that_was_interrupted_says_so_wherever_the_flag_stands() {
        for (part, end) in [(INTERRUPTED, 0), (0, INTERRUPTED)] {
            let (results, _, interrupted) = feed(&[
                message(NEW_ADDRESS, MULTI | part, &[0; 8], SEQ),
                message(DONE, MULTI | end, &[], SEQ),
            ]);
            assert_eq!(results[1], Ok(Some(0)));
            assert!(interrupted);
        }
    }

    #[test]
    fn errors_end_an_answer_with_their_number() {
        let errno = |n: i32| n.to_ne_bytes().to_vec();
        let (results, ..) = feed(&[message(ERROR, 0, &errno(-17), SEQ)]);
        assert_eq!(results, [Ok(Some(17))]);
        let (results, ..) = feed(&[message(DONE, MULTI, &errno(-90), SEQ)]);
        assert_eq!(results, [Ok(Some(90))]);
        let (results, ..) = feed(&[message(OVERRUN, 0, &[], SEQ)]);
        assert!(results[0].is_err());
        let (results, ..) = feed(&[message(ERROR, 0, &[1, 2], SEQ)]);
        assert!(results[0].is_err());
    }

    #[test]
    fn answers_to_others_are_not_taken_for_ours() {
        let (results, rows, _) = feed(&[
            message(ERROR, 0, &(-17_i32).to_ne_bytes(), SEQ + 1),
            message(NEW_ADDRESS, 0, &[0; 8], 0),
        ]);
        assert_eq!((results, rows), (vec![Ok(None), Ok(None)], 0));
    }

    proptest! {
        #[test]
        fn damaged_answers_are_errors_and_never_panics(
            flips in proptest::collection::vec((0..400_usize, any::<u8>()), 0..12),
            cut in 0..400_usize,
            fill in proptest::collection::vec(any::<u8>(), 24..120),
        ) {
            let mut bytes = [
                message(NEW_ADDRESS, MULTI, &fill, SEQ),
                message(16, MULTI, &fill, SEQ),
                message(24, MULTI, &fill, SEQ),
                message(DONE, MULTI, &[0; 4], SEQ),
            ]
            .concat();
            let length = bytes.len();
            for (at, with) in flips {
                bytes[at % length] = with;
            }
            bytes.truncate(cut);
            let _ = Answer::default().take(&bytes, &mut |_, payload| {
                AddressRow::parse(payload)?;
                LinkRow::parse(payload)?;
                RouteRow::parse(payload)?;
                Ok(())
            });
        }
    }
}
