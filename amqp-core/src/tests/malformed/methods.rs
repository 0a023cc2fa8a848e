//! Malformed methods, and arguments that make no sense.

use alloc::vec::Vec;

use super::{OPEN, content_method, open_side, refused};
use crate::{
    CloseCause, DeliveryTag, Fault, MethodDef as _, MethodId, Tags,
    client::{self, Event as ClientEvent},
    frame::PROTOCOL_HEADER,
    protocol::{Method, RULES, ReplyCode, basic, channel, connection, queue},
    server,
    tests::{
        harmless::{self, every_method, harmless},
        side::{Event, Role, Side, header_frame, method_bytes, method_frame},
    },
    wire::{DecodeError, Encode as _},
};

#[test]
fn unknown_classes_and_methods() {
    for role in Role::BOTH {
        for channel in [0, OPEN, 77, u16::MAX] {
            for class in [0, 31, 61, 120, u16::MAX] {
                let id = MethodId::new(class, 10);
                let bad = method_bytes(channel, id, &[1, 2, 3]);
                let fault = Fault::Decode(DecodeError::UnknownClass(class));
                refused(role, &[], &bad, (fault, 503), Some(id));
            }
            for rule in RULES {
                let id = MethodId::new(rule.id.class, 999);
                let bad = method_bytes(channel, id, &[]);
                let fault = Fault::Decode(DecodeError::UnknownMethod(id));
                let mut side = open_side(role);
                let events = side.feed(&bad);
                side.assert_failed(&events, &fault, 503, Some(id));
            }
        }
    }
}

/// The methods with arguments that are read on an open connection with an open channel: not those
/// that are a fault with any arguments.
fn read_methods(role: Role) -> impl Iterator<Item = (u16, Method, Vec<u8>)> {
    let methods = every_method();
    methods.into_iter().filter_map(move |method| {
        let rule = method.rule();
        let unread = [channel::Open::ID, channel::CloseOk::ID].contains(&rule.id);
        if !role.hears(rule) || unread {
            return None;
        }
        let mut arguments = bytes::BytesMut::new();
        method.encode(&mut arguments);
        let number = if rule.connection { 0 } else { OPEN };
        Some((number, method, arguments.to_vec()))
    })
}

#[test]
fn arguments_that_are_cut_short() {
    for role in Role::BOTH {
        for (number, method, arguments) in read_methods(role) {
            let id = method.id();
            for len in 0..arguments.len() {
                let bad = method_bytes(number, id, &arguments[..len]);
                let fault = Fault::Decode(DecodeError::Truncated);
                let mut side = open_side(role);
                let events = side.feed(&bad);
                side.assert_failed(&events, &fault, 502, Some(id));
            }
        }
    }
}

#[test]
fn bytes_behind_the_arguments() {
    for role in Role::BOTH {
        for (number, method, mut arguments) in read_methods(role) {
            let id = method.id();
            for left in 1..3 {
                arguments.push(0);
                let bad = method_bytes(number, id, &arguments);
                let fault = Fault::Decode(DecodeError::TrailingBytes { left });
                let mut side = open_side(role);
                let events = side.feed(&bad);
                side.assert_failed(&events, &fault, 502, Some(id));
            }
        }
    }
}

/// A table with so many tables in each other, on the wire.
fn nested_tables(depth: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 1..depth {
        let len = u32::try_from(table.len()).unwrap();
        table.splice(..0, [&[0, b'F'][..], &len.to_be_bytes()].concat());
    }
    let len = u32::try_from(table.len()).unwrap();
    table.splice(..0, len.to_be_bytes());
    table
}

#[test]
fn tables_nested_ten_thousand_deep() {
    for depth in [33, 10_000] {
        let table = nested_tables(depth);
        let fault = || (Fault::Decode(DecodeError::TableTooDeep), 502);
        let method = content_method(Role::Server);
        let good = method_frame(OPEN, &method);
        let properties = [&[0x20, 0][..], &table].concat();
        let bad = header_frame(OPEN, 60, 0, 1, &properties);
        refused(Role::Server, &good, &bad, fault(), Some(method.id()));
        let arguments = [&[0, 0, 0, 0][..], &table].concat();
        let id = queue::Declare::ID;
        let bad = method_bytes(OPEN, id, &arguments);
        refused(Role::Server, &[], &bad, fault(), Some(id));
    }
    let good = [&[0x20, 0][..], &nested_tables(32)].concat();
    for role in Role::BOTH {
        let mut side = open_side(role);
        side.feed(&method_frame(OPEN, &content_method(role)));
        let events = side.feed(&header_frame(OPEN, 60, 0, 0, &good));
        assert!(events.len() == 1 && side.close_reason().is_none());
    }
}

/// Before the login, too.
#[test]
fn table_bombs_in_the_handshake() {
    let table = nested_tables(1300);
    let fault = Fault::Decode(DecodeError::TableTooDeep);
    let mut server = Side::server(server::Config::default());
    server.feed(&PROTOCOL_HEADER);
    server.sent();
    let id = connection::StartOk::ID;
    let events = server.feed(&method_bytes(0, id, &table));
    server.assert_failed(&events, &fault, 502, Some(id));

    let mut client = Side::client(client::Config::default());
    client.sent();
    let id = connection::Start::ID;
    let arguments = [&[0, 9][..], &table].concat();
    let events = client.feed(&method_bytes(0, id, &arguments));
    client.assert_failed(&events, &fault, 502, Some(id));
}

/// Consumers, deliveries and publishes that a server refers to must exist.
#[test]
fn methods_of_a_server_about_missing_things() {
    // The fault of one channel, with the code that is its channel's.
    let refused = |message: &[u8], fault: Fault, id| {
        let mut side = open_side(Role::Client);
        let events = side.feed(message);
        let Some((number, reason)) = events.last().and_then(Event::channel_closed) else {
            panic!("{fault:?} gives {events:?}");
        };
        assert_eq!((number, reason.code()), (OPEN, Some(ReplyCode(406))));
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{fault:?} gives {reason:?}");
        };
        assert_eq!((&error.fault, error.method), (&fault, Some(id)));
        assert_eq!(side.close_reason(), None);
    };
    let header = header_frame(OPEN, 60, 0, 0, &[]);
    let deliver = basic::Deliver::default().delivery_tag(1);
    let unknown = deliver.clone().consumer_tag("nobody");
    let unknown = [method_frame(OPEN, &unknown.into()), header.clone()].concat();
    let fault = Fault::UnknownConsumer("nobody".try_into().unwrap());
    refused(&unknown, fault, basic::Deliver::ID);
    let zero = deliver.delivery_tag(0).consumer_tag(harmless::NAME);
    let zero = [method_frame(OPEN, &zero.into()), header].concat();
    let mut side = open_side(Role::Client);
    let events = side.feed(&zero);
    let id = Some(basic::Deliver::ID);
    side.assert_failed(&events, &Fault::ZeroDeliveryTag, 503, id);
    for tag in [0, 1, u64::MAX] {
        for multiple in [false, true] {
            let ack = basic::Ack::default().delivery_tag(tag).multiple(multiple);
            let fault = Fault::UnknownPublish(tag);
            let id = basic::Ack::ID;
            refused(&method_frame(OPEN, &ack.into()), fault, id);
        }
    }
}

/// Numbers of deliveries come from the server, and may be any.
#[test]
fn delivery_tags_at_the_end_of_their_range() {
    let deliver = |tag| {
        let deliver = harmless::<basic::Deliver>().delivery_tag(tag);
        let header = header_frame(OPEN, 60, 0, 0, &[]);
        [method_frame(OPEN, &deliver.into()), header].concat()
    };
    let mut client = open_side(Role::Client);
    let mut last = None;
    for tag in [u64::MAX - 1, u64::MAX, u64::MAX, 1, u64::MAX] {
        let events = client.feed(&deliver(tag));
        let [Event::Client(ClientEvent::Delivered(delivery))] = &events[..] else {
            panic!("{events:?}");
        };
        last = Some((delivery.channel, delivery.tag.unwrap()));
    }
    let (id, tag) = last.unwrap();
    let mut channel = client.as_client().channel(id).unwrap();
    channel.ack(Tags::One(tag)).unwrap();
    assert!(channel.ack(Tags::One(tag)).is_err());
    channel
        .ack(Tags::UpTo(DeliveryTag::new(u64::MAX - 1).unwrap()))
        .unwrap();
    assert_eq!(client.close_reason(), None);
}

#[test]
fn limits_that_cannot_be_agreed_to() {
    for value in [1, 4095] {
        let mut client = Side::client(client::Config::default());
        client.sent();
        let start = harmless::start();
        client.feed(&method_frame(0, &start.into()));
        client.sent();
        let tune = connection::Tune::default().frame_max(value);
        let events = client.feed(&method_frame(0, &tune.into()));
        let setting = "frame_max";
        let fault = Fault::Tuning { setting, value };
        client.assert_failed(&events, &fault, 530, Some(connection::Tune::ID));
    }
    let cases = [
        ("frame_max", 0, 0),
        ("frame_max", 0, 4096),
        ("frame_max", 0, 131_073),
        ("channel_max", 0, 8192),
        ("channel_max", 2048, 8192),
    ];
    for (setting, channel_max, frame_max) in cases {
        let mut server = Side::server(server::Config::default());
        server.feed(&PROTOCOL_HEADER);
        let start_ok = harmless::<connection::StartOk>();
        server.feed(&method_frame(0, &start_ok.into()));
        server.as_server().accept().unwrap();
        server.sent();
        let of_channels = setting == "channel_max";
        let tune_ok = connection::TuneOk {
            channel_max: if of_channels { channel_max } else { 100 },
            frame_max,
            heartbeat: 0,
        };
        let events = server.feed(&method_frame(0, &tune_ok.into()));
        let value = if of_channels {
            channel_max.into()
        } else {
            frame_max
        };
        let fault = Fault::Tuning { setting, value };
        server.assert_failed(&events, &fault, 530, Some(connection::TuneOk::ID));
    }
}
