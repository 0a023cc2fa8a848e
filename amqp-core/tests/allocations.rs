//! Publishing allocates nothing, once the connection has its buffers.

use amqp_core::{
    ChannelId, Instant, Transmit,
    bytes::{Buf as _, Bytes, BytesMut},
    client,
    protocol::basic,
    server,
};
use amqp_test_support::meter;

#[global_allocator]
static COUNTING: meter::Counting = meter::Counting;

const NOW: Instant = Instant::ORIGIN;

/// A client with a channel.
fn open() -> (client::Connection, ChannelId) {
    open_with(client::Config::default())
}

fn open_with(config: client::Config) -> (client::Connection, ChannelId) {
    let mut client = client::Connection::new(config, NOW).unwrap();
    let mut server = server::Connection::new(server::Config::default(), NOW).unwrap();
    let (mut out, mut bytes) = (Transmit::new(), BytesMut::new());
    let mut id = None;
    while id.is_none_or(|id| !client.channel(id).unwrap().is_open()) {
        if client.is_open() && id.is_none() {
            id = Some(client.open_channel().unwrap().0);
        }
        client.poll_transmit(NOW, &mut out);
        out.take_segments()
            .for_each(|it| bytes.extend_from_slice(&it));
        server.handle_input(NOW, &mut bytes);
        while let Some(event) = server.poll_event() {
            match event {
                server::Event::Authenticate(_) => server.accept().unwrap(),
                server::Event::Open { .. } => server.open().unwrap(),
                _ => {}
            }
        }
        server.poll_transmit(NOW, &mut out);
        out.take_segments()
            .for_each(|it| bytes.extend_from_slice(&it));
        client.handle_input(NOW, &mut bytes);
        while client.poll_event().is_some() {}
    }
    (client, id.unwrap())
}

/// Publishes until the output is full, `turns` times. A transport writes each part of the output
/// while the next one is published, as that of a driver does. Returns the number of messages.
fn publish(
    client: &mut client::Connection,
    id: ChannelId,
    out: &mut Transmit,
    body: &Bytes,
    turns: usize,
) -> u64 {
    let publish = basic::Publish::default()
        .exchange("amq.topic")
        .routing_key("stock.nyse.ibm");
    let properties = basic::Properties::default().content_type("text/plain");
    let mut messages = 0;
    for _ in 0..turns {
        while client.channel(id).unwrap().hold(body.len()).is_none() {
            let mut channel = client.channel(id).unwrap();
            channel
                .publish(&publish, &properties, body.clone())
                .unwrap();
            messages += 1;
        }
        out.advance(out.remaining());
        client.poll_transmit(NOW, out);
        while client.poll_event().is_some() {}
    }
    messages
}

/// Hands out and drops all output, and asks for more once, as a driver does before it waits.
fn drain(client: &mut client::Connection, out: &mut Transmit) {
    while client.poll_transmit(NOW, out) {
        out.advance(out.remaining());
    }
    while client.poll_event().is_some() {}
}

/// The buffers for output are no larger than its bound is worth, also if it never runs empty.
#[test]
fn buffers_are_of_the_size_of_their_output() {
    let mut config = client::Config::default();
    config.limits.output_high = 4096;
    config.limits.output_low = 2048;
    let (mut client, id) = open_with(config);
    let (mut out, body) = (Transmit::new(), Bytes::from(vec![b'x'; 100]));
    let before = meter::held();
    publish(&mut client, id, &mut out, &body, 2000);
    let held = meter::held() - before;
    assert!(held < 32 << 10, "{held} bytes");
}

/// An idle connection keeps no buffer that was made for a large frame, or that was full.
#[test]
fn an_idle_connection_keeps_no_large_buffer() {
    let publish = basic::Publish::default().routing_key("q");
    for (bodies, headers) in [(0, 100_000), (60, 0), (63, 0), (64, 0), (200, 0), (1000, 0)] {
        let (mut client, id) = open();
        let mut out = Transmit::new();
        let before = meter::held();
        let mut channel = client.channel(id).unwrap();
        for _ in 0..bodies {
            let body = Bytes::from_static(&[0; 1000]);
            if channel.hold(body.len()).is_none() {
                channel
                    .publish(&publish, &basic::Properties::default(), body)
                    .unwrap();
            }
        }
        if headers > 0 {
            let properties = basic::Properties::default().header("large", "x".repeat(headers));
            channel.publish(&publish, &properties, "").unwrap();
        }
        drain(&mut client, &mut out);
        drain(&mut client, &mut out);
        drop(out);
        let held = meter::held().saturating_sub(before);
        assert!(held < 16 << 10, "{bodies}, {headers}: {held} bytes");
    }
}

#[test]
fn a_busy_publisher_allocates_nothing() {
    let (mut client, id) = open();
    let mut out = Transmit::new();
    for size in [
        0,
        16,
        1000,
        1024,
        4095,
        4096,
        16 << 10,
        64 << 10,
        256 << 10,
        3 << 20,
    ] {
        let body = Bytes::from(vec![b'x'; size]);
        publish(&mut client, id, &mut out, &body, 8);
        let before = meter::blocks();
        let messages = publish(&mut client, id, &mut out, &body, 100);
        assert_eq!(
            meter::blocks() - before,
            0,
            "{messages} messages of {size} bytes"
        );
    }
}

/// Each message is written, and the driver asks for more before it waits, as between confirms that are
/// awaited one by one.
#[test]
fn messages_one_at_a_time_allocate_nothing() {
    let (mut client, id) = open();
    let mut out = Transmit::new();
    let publish = basic::Publish::default().routing_key("a.routing.key");
    let properties = basic::Properties::default();
    for size in [0, 16, 1000, 1024, 1500, 2000, 3000, 4096, 64 << 10] {
        let body = Bytes::from(vec![b'x'; size]);
        let mut before = 0;
        for number in 0..200 {
            if number == 100 {
                before = meter::blocks();
            }
            let mut channel = client.channel(id).unwrap();
            channel
                .publish(&publish, &properties, body.clone())
                .unwrap();
            drain(&mut client, &mut out);
        }
        assert_eq!(meter::blocks() - before, 0, "{size} bytes");
    }
}
