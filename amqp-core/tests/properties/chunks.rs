//! The same bytes in any pieces give the same events and the same output, on both sides, whether the
//! bytes are right or wrong.

use amqp_core::{
    Transmit,
    client::{self, Config},
    frame::PROTOCOL_HEADER,
    protocol::{ClientMethod, Method, ServerMethod, basic, confirm, connection},
    server,
    strategies::{Cuts, OwnedFrame, Values},
    wire::{Secret, ShortStr},
};
use amqp_test_support::cases;
use bytes::{Buf as _, BytesMut};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{NOW, open_client, output};

/// Names and numbers that are often right.
fn values() -> Values {
    let tag = ShortStr::from_static("a").unwrap();
    Values::default()
        .short_str(prop_oneof![4 => Just(tag), 1 => any::<ShortStr>()])
        .longlong(1_u64..5)
        .bit(prop::bool::weighted(0.2))
}

/// A few frames of a peer that sends these methods: whole messages, and frames of chance.
fn any_frames<M>(methods: M) -> impl Strategy<Value = Vec<u8>>
where
    M: Strategy<Value: Into<Method>> + 'static,
{
    let method = methods.prop_map(Into::<Method>::into).boxed();
    let channel = select(vec![1_u16, 1, 1, 2, 3]);
    let message = (
        channel,
        method,
        any_with::<basic::Properties>(values()),
        vec(any::<u8>(), 0..60),
        1_usize..40,
    );
    let frames = prop_oneof![
        8 => message.prop_map(|(channel, method, properties, body, chunk)| {
            let rule = method.rule();
            if rule.content {
                return OwnedFrame::message(channel, method, &properties, &body, chunk);
            }
            let channel = if rule.connection { 0 } else { channel };
            vec![OwnedFrame::method(channel, method)]
        }),
        1 => any_with::<OwnedFrame>(values()).prop_map(|frame| vec![frame]),
        1 => Just(vec![OwnedFrame::heartbeat()]),
    ];
    vec(frames, 0..12).prop_map(|frames| {
        let frames = frames.iter().flatten();
        frames.flat_map(OwnedFrame::to_bytes).collect()
    })
}

/// Feeds a client that has two channels, with confirms, a consumer and a publish on each.
fn client(pieces: &[&[u8]]) -> (Vec<client::Event>, Vec<u8>, bool) {
    let tune = connection::Tune::default().frame_max(8192);
    let mut client = open_client(Config::default(), tune);
    for number in [1, 2] {
        let (id, _) = client.open_channel().unwrap();
        let opened = amqp_core::protocol::channel::OpenOk;
        crate::feed(&mut client, [OwnedFrame::method(number, opened)]);
        let mut channel = client.channel(id).unwrap();
        channel.call(&confirm::Select::default()).unwrap();
        let consume = basic::Consume::default().consumer_tag("a");
        channel.consume(consume).unwrap();
        channel.get(&basic::Get::default()).unwrap();
        let publish = basic::Publish::default().mandatory(true);
        let properties = basic::Properties::default();
        channel.publish(&publish, &properties, "x").unwrap();
    }
    let _before = output(&mut client);
    while client.poll_event().is_some() {}
    let (mut input, mut events) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        client.handle_input(NOW, &mut input);
        events.extend(std::iter::from_fn(|| client.poll_event()));
    }
    let output = output(&mut client).concat();
    (events, output, client.is_finished())
}

/// Feeds a server behind a handshake that it accepts.
fn server(pieces: &[&[u8]]) -> (Vec<server::Event>, Vec<u8>, bool) {
    let mut server = server::Connection::new(server::Config::default(), NOW).unwrap();
    let mut input = BytesMut::from(&PROTOCOL_HEADER[..]);
    let mut events = Vec::new();
    let login = connection::StartOk::default()
        .mechanism("PLAIN")
        .response(Secret::from("\0guest\0guest"));
    let tune = connection::TuneOk {
        channel_max: 100,
        frame_max: 8192,
        heartbeat: 0,
    };
    let open = connection::Open::default();
    let handshake: [Method; 3] = [login.into(), tune.into(), open.into()];
    for method in handshake {
        OwnedFrame::method(0, method).as_frame().encode(&mut input);
    }
    let opens = [1, 2].map(|number| OwnedFrame::method(number, amqp_core::protocol::channel::Open));
    for open in &opens {
        open.as_frame().encode(&mut input);
    }
    // One frame at a time: each decision comes before the next method.
    while server.handle_frame(NOW, &mut input) {
        while let Some(event) = server.poll_event() {
            match event {
                server::Event::Authenticate(_) => server.accept().unwrap(),
                server::Event::Open { .. } => server.open().unwrap(),
                _ => {}
            }
        }
    }
    assert!(server.is_open() && server.channel_count() == 2);
    for piece in pieces {
        input.extend_from_slice(piece);
        server.handle_input(NOW, &mut input);
        events.extend(std::iter::from_fn(|| server.poll_event()));
    }
    let (mut out, mut output) = (Transmit::new(), Vec::new());
    while server.poll_transmit(NOW, &mut out) {
        output.extend(out.copy_to_bytes(out.remaining()));
    }
    (events, output, server.is_finished())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_client_sees_no_pieces(
        stream in any_frames(any_with::<ServerMethod>(values())),
        cuts: Cuts,
        size in 1_usize..20,
    ) {
        let whole = client(&[&stream]);
        prop_assert_eq!(&client(&cuts.pieces(&stream)), &whole);
        prop_assert_eq!(client(&stream.chunks(size).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn a_server_sees_no_pieces(
        stream in any_frames(any_with::<ClientMethod>(values())),
        cuts: Cuts,
        size in 1_usize..20,
    ) {
        let whole = server(&[&stream]);
        prop_assert_eq!(&server(&cuts.pieces(&stream)), &whole);
        prop_assert_eq!(server(&stream.chunks(size).collect::<Vec<_>>()), whole);
    }
}
