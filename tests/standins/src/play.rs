//! Carrying a request out, or not, under a fault.

use std::io;
use std::time::Duration;

use crate::fault::Fault;
use crate::wire::{Reply, Wire};

/// How a request went, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Went {
    /// The status that was decided on, 0 for none.
    pub status: u16,
    /// The fault that met it.
    pub fault: Option<String>,
}

/// Carries a request out under a fault and answers it. `usual` makes the body of a bare status.
pub(crate) fn play(
    fault: Option<&Fault>,
    wire: &mut Wire,
    usual: &dyn Fn(u16) -> Reply,
    act: &mut dyn FnMut() -> Reply,
) -> (Went, io::Result<()>) {
    let Some(fault) = fault else {
        let reply = act();
        return (Went { status: reply.status, fault: None }, wire.send(&reply));
    };
    let (status, sent) = match fault {
        Fault::Status { status, body, content_type, headers } => {
            let mut reply = usual(*status);
            if let Some(body) = body {
                let html = body.trim_start().starts_with('<');
                let guess = if html { "text/html" } else { "application/json" };
                reply.headers.retain(|(name, _)| name != "Content-Type");
                reply = reply.with("Content-Type", content_type.as_deref().unwrap_or(guess));
                reply.body = body.clone().into_bytes();
            }
            for (name, value) in headers {
                reply = reply.with(name, value);
            }
            (*status, wire.send(&reply))
        }
        Fault::Hang { after } | Fault::Cut { after } => {
            let status = if *after { act().status } else { 0 };
            let hang = matches!(fault, Fault::Hang { .. });
            (status, Err(if hang { wire.hold() } else { wire.cut() }))
        }
        Fault::Delay { ms } => {
            if wire.wait(Duration::from_millis(*ms)) {
                (0, Err(wire.cut()))
            } else {
                let reply = act();
                (reply.status, wire.send(&reply))
            }
        }
        Fault::Late { ms } => {
            let reply = act();
            wire.wait(Duration::from_millis(*ms));
            (reply.status, wire.send(&reply))
        }
        Fault::Half => {
            let reply = act();
            let head = reply.head(Some(reply.body.len())).len();
            let bytes = reply.bytes();
            // Half of the body, or of the head where there is no body to halve.
            let half = if reply.body.len() > 1 { head + reply.body.len() / 2 } else { head / 2 };
            let _ = wire.write(&bytes[..half]);
            (reply.status, Err(wire.cut()))
        }
        Fault::Drip { ms } => {
            let reply = act();
            let mut sent = Ok(());
            for byte in reply.bytes() {
                sent = wire.write(&[byte]);
                if sent.is_err() || wire.wait(Duration::from_millis(*ms)) {
                    break;
                }
            }
            (reply.status, sent)
        }
        Fault::Garbage => {
            let status = act().status;
            let _ = wire.write(b"\x15\x03\x01\xff\xfe{not http}\r\n\r\n\0\0\0");
            (status, Err(wire.cut()))
        }
        Fault::Huge { bytes } => {
            let status = act().status;
            let reply = Reply::empty(status).with("Content-Type", "application/json");
            let mut sent = wire.write(&reply.head(Some(*bytes)));
            let block = [b'['; 16 * 1024];
            let mut left = *bytes;
            while sent.is_ok() && left > 0 {
                let part = left.min(block.len());
                sent = wire.write(&block[..part]);
                left -= part;
            }
            (status, sent)
        }
        Fault::Task { .. } | Fault::Lie { .. } => {
            let reply = act();
            (reply.status, wire.send(&reply))
        }
    };
    (Went { status, fault: Some(fault.name()) }, sent)
}
