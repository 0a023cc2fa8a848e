//! A byte stream of a board.

use amqp_core::{
    Transmit,
    bytes::{Buf as _, BytesMut},
};

/// A port: a UART, a modem, the socket of a small network stack. No call waits.
pub trait Port {
    /// Reads bytes that have come; returns their number, which may be 0.
    fn read(&mut self, into: &mut [u8]) -> usize;
    /// Writes as many bytes as there is room for; returns their number, which may be 0.
    fn write(&mut self, from: &[u8]) -> usize;
}

/// Writes as much of the output as the port takes. Returns whether that was any.
pub(crate) fn write(port: &mut impl Port, output: &mut Transmit) -> bool {
    let mut some = false;
    while output.has_remaining() {
        let count = port.write(output.chunk());
        if count == 0 {
            break;
        }
        output.advance(count);
        some = true;
    }
    some
}

/// Appends the bytes that have come to the input. Returns whether there were any.
pub(crate) fn read(port: &mut impl Port, input: &mut BytesMut) -> bool {
    let mut buffer = [0; 128];
    let mut some = false;
    loop {
        let count = port.read(&mut buffer);
        if count == 0 {
            return some;
        }
        input.extend_from_slice(&buffer[..count]);
        some = true;
    }
}
