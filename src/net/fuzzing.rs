//! What reads netlink messages, as a function of bytes (see [`crate::fuzzing`]).

use super::exchange::Answer;
use super::message;
use super::row::{AddressRow, LinkRow, RouteRow};

/// A datagram: as the answer to a question, as a notification, and each message as each kind of row.
pub(crate) fn netlink(datagram: &[u8]) -> bool {
    let mut rows = 0;
    let mut answer = Answer::default();
    let _ = answer.take(datagram, &mut |_, payload| {
        rows += usize::from(AddressRow::parse(payload)?.is_some());
        Ok(())
    });
    for item in message::messages(datagram) {
        let Ok(item) = item else {
            break;
        };
        let _ = message::status(item.payload);
        let address = AddressRow::parse(item.payload).is_ok_and(|row| row.is_some());
        let link = LinkRow::parse(item.payload).is_ok_and(|row| row.is_some());
        let route = RouteRow::parse(item.payload).is_ok_and(|row| row.is_some());
        rows += [address, link, route].map(usize::from).iter().sum::<usize>();
    }
    rows > 0
}
