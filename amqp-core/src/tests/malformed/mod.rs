//! Input that no correct peer sends: each ends in a close with the right code, and one final event.

mod content;
mod frames;
mod methods;

use alloc::vec::Vec;

use crate::{
    Fault, MethodId,
    client::{self, Checks},
    protocol::{Method, ReplyCode, basic, channel},
    server,
    tests::{
        harmless::harmless,
        pair::Pair,
        side::{Role, Side, header_frame, method_frame},
    },
};

/// Where the harm is done: a channel that is open, and has a consumer.
const OPEN: u16 = 1;

fn open_side(role: Role) -> Side {
    let client = client::Config {
        checks: Checks::Standard,
        ..client::Config::default()
    };
    let mut pair = Pair::open_with(client, server::Config::default());
    let id = pair.open_channel();
    let consume = harmless::<basic::Consume>().no_wait(true);
    pair.client_channel(id).consume(consume).unwrap();
    pair.exchange();
    Side::of(pair, role)
}

/// A method that begins a message to that role.
fn content_method(role: Role) -> Method {
    match role {
        Role::Client => harmless::<basic::Deliver>().into(),
        Role::Server => harmless::<basic::Publish>().into(),
    }
}

/// The method and the header of a message.
fn content(role: Role, body_size: u64) -> Vec<u8> {
    let method = method_frame(OPEN, &content_method(role));
    [method, header_frame(OPEN, 60, 0, body_size, &[])].concat()
}

/// Feeds good bytes and then bad ones, whole and in pieces, and checks that the connection is
/// closed for that fault, with that code, because of that method.
fn refused(
    role: Role,
    good: &[u8],
    bad: &[u8],
    (fault, code): (Fault, u16),
    method: Option<MethodId>,
) {
    let stream = [good, bad].concat();
    let mut whole = open_side(role);
    let events = whole.feed(&stream);
    whole.assert_failed(&events, &fault, code, method);
    for size in [1, 3, 1000] {
        let mut side = open_side(role);
        assert_eq!(side.feed_pieces(stream.chunks(size)), events);
        side.assert_failed(&events, &fault, code, method);
    }
    // Later input makes no difference.
    let mut side = open_side(role);
    let more = method_frame(OPEN, &channel::Close::default().into());
    assert_eq!(side.feed(&[&stream[..], &more].concat()), events);
    side.assert_failed(&events, &fault, code, method);
    // Neither does it that this side wanted to close anyway.
    let mut side = open_side(role);
    side.close(ReplyCode::SUCCESS, "bye");
    let closing = side.feed(&stream);
    side.assert_failed(&closing, &fault, code, method);
}
