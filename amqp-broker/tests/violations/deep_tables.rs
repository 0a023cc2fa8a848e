//! Tables that are nested deeper than the core reads them. RabbitMQ accepts 4000 levels.

use amqp_core::{
    MethodDef as _,
    protocol::{Method, basic, channel, queue},
    server::Event,
    wire::MAX_TABLE_DEPTH,
};

use crate::side::{At, Side, body_frame, header_frame, method_bytes, method_frame};

/// The encoding of a table with so many levels.
fn nested(levels: usize) -> Vec<u8> {
    let mut table = vec![0, 0, 0, 0];
    for _ in 1..levels {
        let len = u32::try_from(table.len() + 3).unwrap();
        table = [&len.to_be_bytes()[..], b"\x01aF", &table].concat();
    }
    table
}

fn publish(table: &[u8]) -> Vec<u8> {
    let flags = [&[0x20, 0][..], table].concat();
    [
        method_frame(1, &basic::Publish::default().into()),
        header_frame(1, 60, 0, 4, &flags),
        body_frame(1, b"body"),
    ]
    .concat()
}

fn declare(table: &[u8]) -> Vec<u8> {
    let arguments = [&[0, 0, 1, b'q', 0][..], table].concat();
    method_bytes(1, queue::Declare::ID, &arguments)
}

/// Checks that channel 1 is closed, and that another channel can be opened.
fn closes_its_channel(mut side: Side, bytes: &[u8], of: (u16, u16)) {
    side.feed(bytes);
    let [Method::ChannelClose(close)] = &side
        .sent_frames()
        .iter()
        .map(|it| it.method())
        .collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", side.server);
    };
    assert_eq!(close.reply_code.0, 406);
    let text = "PRECONDITION_FAILED - tables are nested more than 32 deep";
    assert_eq!(close.reply_text, *text);
    assert_eq!((close.class_id, close.method_id), of);
    let events = side.feed(&method_frame(2, &channel::Open.into()));
    assert!(
        matches!(events[..], [Event::ChannelOpened { .. }]),
        "{events:?}"
    );
}

#[test]
fn headers_nested_too_deep_close_their_channel() {
    for levels in [MAX_TABLE_DEPTH + 1, 4000] {
        closes_its_channel(At::Open.side(), &publish(&nested(levels)), (60, 40));
    }
}

#[test]
fn arguments_nested_too_deep_close_their_channel() {
    for levels in [MAX_TABLE_DEPTH + 1, 4000] {
        closes_its_channel(At::Open.side(), &declare(&nested(levels)), (50, 10));
    }
}

#[test]
fn tables_of_the_maximum_depth_are_accepted() {
    let table = nested(MAX_TABLE_DEPTH);
    let events = At::Open.side().feed(&publish(&table));
    assert!(matches!(events[..], [Event::Published(_)]), "{events:?}");
    let events = At::Open.side().feed(&declare(&table));
    assert!(matches!(events[..], [Event::Request { .. }]), "{events:?}");
}
