//! The end of a connection: every pending call fails with the same reason, and the driver ends in time.
//! TRI-10, PUK-07, PUK-41.

#![expect(clippy::type_complexity, reason = "tables of a name and a function")]

mod closing;
mod draining;
mod driver;
mod opening;
mod pending;
mod timeouts;
mod waiters;

use std::time::Duration;

use amqp_driver::{CloseReason, Error};
use bytes::{BufMut as _, BytesMut};

fn reason(error: Error) -> CloseReason {
    match error {
        Error::ConnectionClosed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// A method frame on channel 0.
fn frame(class: u16, method: u16, arguments: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u8(1);
    frame.put_u16(0);
    frame.put_u32(u32::try_from(arguments.len() + 4).unwrap());
    frame.put_u16(class);
    frame.put_u16(method);
    frame.extend_from_slice(arguments);
    frame.put_u8(0xce);
    frame
}

/// The time for which the driver reads on, for the reason, after a failed write.
const LISTEN: Duration = Duration::from_millis(20);
