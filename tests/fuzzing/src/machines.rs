//! A stream of bytes for a client or a server.

use amqp_test_support::{meter::peak_of, replay};

use replay::Outcome;

/// The memory of a side beyond that for each byte of input.
const ROOM: usize = 1 << 20;

/// The memory for each byte of input: a field of a table takes some 40 bytes, and may come as one.
const PER_BYTE: usize = 200;

/// The function of a side: the size of the pieces, and the stream.
pub type Side = fn(usize, &[u8]) -> Outcome;

/// The first byte is the size of the pieces, the rest the stream of a server.
pub fn client(input: &[u8]) {
    if let Some((&pieces, stream)) = input.split_first() {
        play(pieces.into(), stream, replay::client);
    }
}

/// The first byte is the size of the pieces, the rest the stream of a client, from the protocol
/// header on.
pub fn server(input: &[u8]) {
    if let Some((&pieces, stream)) = input.split_first() {
        play(pieces.into(), stream, replay::server);
    }
}

/// Plays a stream, whole frames at a time and in pieces. Checks that the outcome is the same, and the
/// memory.
pub fn play(pieces: usize, stream: &[u8], side: Side) {
    let allowed = ROOM + PER_BYTE * stream.len();
    let (whole, peak) = peak_of(|| side(0, stream));
    assert!(peak <= allowed, "{peak} of {allowed} bytes");
    let (cut, peak) = peak_of(|| side(pieces.max(1), stream));
    assert!(peak <= allowed, "in pieces, {peak} of {allowed} bytes");
    assert_eq!(cut, whole, "in pieces of {pieces} bytes");
}
