//! Sends the frames: a packet socket for one round, which receives nothing.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::error::NetError;
use super::frame;
use super::row::LinkRow;

/// One round for `host` on the interface.
pub fn send(host: IpAddr, link: &LinkRow) -> Result<(), NetError> {
    let doing = format!("announce {host} on {}", link.name);
    let error = |errno| NetError::kernel(doing.clone(), errno);
    let mac = link.mac.ok_or_else(|| error(Errno::EADDRNOTAVAIL))?;
    let to = link_address(link.index).map_err(error)?;
    // Protocol 0: the socket is never handed a packet. Non-blocking: a full queue is an error, not a wait.
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .map_err(error)?;
    for frame in frame::round(host, mac) {
        let sent = sendto(fd.as_raw_fd(), &frame, &to, MsgFlags::empty()).map_err(error)?;
        if sent != frame.len() {
            return Err(error(Errno::EMSGSIZE));
        }
    }
    Ok(())
}

/// The link-layer address of an interface. Only the C library makes one without `unsafe` here: `getifaddrs(3)` lists one
/// per interface, and for sending a whole frame nothing but its interface number matters.
fn link_address(index: u32) -> Result<LinkAddr, Errno> {
    getifaddrs()?
        .filter_map(|entry| entry.address?.as_link_addr().copied())
        .find(|address| u32::try_from(address.ifindex()) == Ok(index))
        .ok_or(Errno::ENODEV)
}
