//! A server that wants no publishes: on the connection, or on one channel.

use alloc::vec;
use core::time::Duration;

use super::{pair::Pair, script::*};
use crate::{
    Body, ChannelId, CloseCause, Hold, PublishError, RequestId, Tags, TimeoutReason,
    client::{Checks, Config, Connection, Event, Outcome},
    frame::FrameKind,
    protocol::{ClientMethod, Method, ReplyCode, basic, channel, connection, queue},
    server,
    wire::FieldTable,
};

type Client = Script<Connection>;

fn block(client: &mut Client) {
    let reason = name("low on memory");
    client.send(
        0,
        &connection::Blocked {
            reason: reason.clone(),
        },
    );
    assert_eq!(client.events(), [Event::Blocked { reason }]);
    assert!(client.conn.is_blocked());
}

fn unblock(client: &mut Client) {
    client.send(0, &connection::Unblocked);
    assert_eq!(client.events(), [Event::Unblocked]);
    assert!(!client.conn.is_blocked());
}

/// The server pauses a channel, or lets it go on.
fn flow(client: &mut Client, channel: ChannelId, active: bool) {
    client.send(channel.number(), &channel::Flow { active });
    assert_eq!(client.events(), [Event::Flow { channel, active }]);
    let ok = channel::FlowOk { active };
    assert_eq!(client.sent(), [method(channel.number(), ok)]);
}

/// A publish is held back for that reason, and nothing is sent.
fn assert_held(client: &mut Client, id: ChannelId, hold: Hold) {
    assert_eq!(client.on(id).hold(4), Some(hold));
    let properties = basic::Properties::default();
    let refused = client.on(id).publish(&publish("q"), &properties, "body");
    let body = Body::from("body");
    assert_eq!(refused, Err(PublishError::HeldBack { hold, body }));
    assert_eq!(client.sent(), []);
}

/// A publish leaves.
fn assert_free(client: &mut Client, id: ChannelId) {
    assert_eq!(client.on(id).hold(4), None);
    client.publish(id, b"body");
    assert_eq!(
        client.sent(),
        content(id.number(), publish("queue"), b"body")
    );
}

fn heartbeats(seconds: u16) -> connection::Tune {
    connection::Tune {
        channel_max: 10,
        frame_max: 131_072,
        heartbeat: seconds,
    }
}

/// Everything but publishing leaves; how many frames it was.
fn do_all_but_publish(client: &mut Client, id: ChannelId) -> RequestId {
    client.deliver(id, "t", 1);
    assert!(matches!(client.only_event(), Event::Delivered(_)));
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    client.on(id).get(&basic::Get::default()).unwrap();
    client.consume(id, consume("q", "another"));
    client.conn.open_channel().unwrap();
    client.conn.update_secret("x".into(), name("")).unwrap();
    let request = client.on(id).call(&queue::Declare::default()).unwrap();
    assert_eq!(client.sent().len(), 6);
    request
}

#[test]
fn blocked_holds_nothing_but_publishes() {
    let mut client = Client::tuned(Config::default(), &heartbeats(10));
    let id = client.channel();
    client.consumer(id, "t", false);
    block(&mut client);
    assert_held(&mut client, id, Hold::ConnectionBlocked);
    let request = do_all_but_publish(&mut client, id);
    client.send(id.number(), &queue::DeclareOk::default());
    let ok = queue::DeclareOk::default();
    assert_eq!(client.events(), [replied(id, request, ok)]);
    // A sign of life is still given (lapin's defect 6).
    client.advance(Duration::from_secs(5));
    let heartbeat = Sent {
        channel: 0,
        what: What::Heartbeat,
    };
    assert_eq!(client.sent(), [heartbeat]);
    unblock(&mut client);
    assert_free(&mut client, id);
    let close = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    client.events();
    client.send(id.number(), &channel::CloseOk);
    assert_eq!(client.events(), [replied(id, close, channel::CloseOk)]);
}

#[test]
fn output_accepted_before_the_block_still_leaves() {
    let mut client = Client::roomy();
    let id = client.confirm_channel();
    client.publish(id, b"ready");
    let properties = basic::Properties::default();
    let mut on = client.on(id);
    on.publish(&publish("q"), &properties, vec![0; 1 << 20])
        .unwrap();
    block(&mut client);
    let sent = client.sent();
    assert_eq!(sent.len(), 3 + 2 + 9);
    assert_eq!(client.conn.buffered(), 0);
    // Its confirm may come before the end of the alarm, or after.
    client.send(1, &ack(2, true));
    assert_eq!(client.events(), [settled(id, 1, 2, Outcome::Acked)]);
}

#[test]
fn a_block_may_come_twice_and_its_end_once() {
    let mut client = Client::open();
    let id = client.channel();
    client.send(0, &connection::Unblocked);
    assert_eq!(client.events(), [Event::Unblocked]);
    block(&mut client);
    block(&mut client);
    assert_held(&mut client, id, Hold::ConnectionBlocked);
    unblock(&mut client);
    assert_free(&mut client, id);
    // A channel that is opened meanwhile is held, too.
    block(&mut client);
    let later = client.channel();
    assert_held(&mut client, later, Hold::ConnectionBlocked);
    unblock(&mut client);
    assert_free(&mut client, later);
}

#[test]
fn blocked_then_closed() {
    let mut client = Client::open();
    let id = client.channel();
    client.publish(id, b"before");
    client.bytes();
    block(&mut client);
    client.conn.close(ReplyCode::SUCCESS, "enough");
    let Method::ConnectionClose(close) = client.only_method() else {
        panic!("no close was sent");
    };
    assert_eq!(close.reply_text, "enough");
    // The alarm clears, and the server answers.
    client.send(0, &connection::Unblocked);
    client.send(0, &connection::CloseOk);
    assert!(matches!(client.only_event(), Event::Closed(reason) if reason.is_clean()));
    assert!(client.conn.is_finished());
}

#[test]
fn a_server_that_reads_nothing_does_not_keep_a_close_waiting() {
    // Note 28: it sends heartbeats, but reads neither the publishes nor the close.
    let mut config = Config::default();
    config.timeouts.confirm = None;
    let mut client = Client::tuned(config, &heartbeats(2));
    let id = client.confirm_channel();
    client.publish(id, b"in doubt");
    client.bytes();
    block(&mut client);
    for _ in 0..3600 {
        client.advance(Duration::from_secs(1));
        client.feed(&frame(FrameKind::Heartbeat, 0, b""));
        client.bytes();
    }
    assert_eq!(client.events(), []);
    client.conn.close(ReplyCode::SUCCESS, "");
    client.bytes();
    for _ in 0..9 {
        client.advance(Duration::from_secs(1));
        client.feed(&frame(FrameKind::Heartbeat, 0, b""));
        client.bytes();
        assert_eq!(client.events(), []);
    }
    client.advance(Duration::from_secs(1));
    let [settlement, Event::Closed(reason)] = &client.events()[..] else {
        panic!("still waiting");
    };
    let cause = CloseCause::TimedOut(TimeoutReason::Close);
    assert_eq!(*reason.cause(), cause);
    let in_doubt = Outcome::Unknown(CloseCause::Connection(reason.clone()).into());
    assert_eq!(*settlement, settled(id, 1, 1, in_doubt));
    assert!(client.conn.is_finished());
}

#[test]
fn a_blocked_server_that_falls_silent_is_dead() {
    let mut client = Client::tuned(Config::default(), &heartbeats(2));
    block(&mut client);
    client.advance(Duration::from_secs(4));
    let cause = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert!(matches!(client.only_event(), Event::Closed(reason) if *reason.cause() == cause));
}

#[test]
fn blocked_with_a_full_output() {
    // The transport takes nothing any more, and the output stays where it is.
    let mut config = Config::default();
    config.limits.output_high = 4096;
    config.limits.output_low = 100;
    let mut client = Client::open_with(config);
    let id = client.confirm_channel();
    while client.conn.buffered() < 4096 {
        client.publish(id, b"filler");
    }
    let properties = basic::Properties::default();
    let mut on = client.on(id);
    let refused = on.publish(&publish("q"), &properties, "x").unwrap_err();
    assert!(matches!(
        refused,
        PublishError::HeldBack {
            hold: Hold::OutputFull,
            ..
        }
    ));
    block(&mut client);
    // Each hold has its own event; both must have gone.
    client.bytes();
    assert_eq!(client.events(), [Event::Writable]);
    assert_held(&mut client, id, Hold::ConnectionBlocked);
    unblock(&mut client);
    assert_free(&mut client, id);
}

#[test]
fn flow_holds_the_publishes_of_its_channel_only() {
    let mut client = Client::open();
    let (paused, other) = (client.channel(), client.channel());
    client.consumer(paused, "t", false);
    flow(&mut client, paused, false);
    assert_held(&mut client, paused, Hold::ChannelFlow);
    // Lapin's defect 5.
    assert_free(&mut client, other);
    do_all_but_publish(&mut client, paused);
    assert_held(&mut client, paused, Hold::ChannelFlow);
    flow(&mut client, paused, false);
    flow(&mut client, other, false);
    flow(&mut client, paused, true);
    assert_free(&mut client, paused);
    assert_held(&mut client, other, Hold::ChannelFlow);
    flow(&mut client, other, true);
    assert_free(&mut client, other);
}

#[test]
fn a_channel_of_the_same_number_begins_unpaused() {
    let mut client = Client::open();
    let id = client.channel();
    flow(&mut client, id, false);
    client.send(1, &channel::Close::default());
    client.bytes();
    client.events();
    let (again, _) = client.conn.open_channel_at(1).unwrap();
    client.send(1, &channel::OpenOk);
    client.events();
    client.bytes();
    assert_free(&mut client, again);
}

#[test]
fn flow_ok_comes_behind_accepted_output() {
    let mut client = Client::roomy();
    let id = client.channel();
    let properties = basic::Properties::default();
    let mut on = client.on(id);
    on.publish(&publish("q"), &properties, vec![0; 1 << 20])
        .unwrap();
    client.publish(id, b"small");
    client.send(1, &channel::Flow { active: false });
    let sent = client.sent();
    assert_eq!(sent.len(), 2 + 9 + 3 + 1);
    let ok = channel::FlowOk { active: false };
    assert_eq!(sent.last(), Some(&method(1, ok)));
}

#[test]
fn own_flow_is_answered_and_does_not_pause_publishing() {
    let mut client = Client::open_with(Config {
        checks: Checks::Standard,
        ..Config::default()
    });
    let id = client.channel();
    for active in [true, false, true] {
        client.call(id, &channel::Flow { active }, &channel::FlowOk { active });
        assert_free(&mut client, id);
    }
}

#[test]
fn both_holds_are_reported_one_at_a_time() {
    let mut client = Client::open();
    let id = client.channel();
    flow(&mut client, id, false);
    block(&mut client);
    assert_held(&mut client, id, Hold::ConnectionBlocked);
    unblock(&mut client);
    assert_held(&mut client, id, Hold::ChannelFlow);
    flow(&mut client, id, true);
    assert_free(&mut client, id);
}

#[test]
fn a_server_blocks_only_clients_that_understand_it() {
    for understands in [true, false] {
        let mut config = Config::default();
        if !understands {
            let capabilities = FieldTable::new().with("connection.blocked", false);
            let own = FieldTable::new().with("capabilities", capabilities);
            config.properties = own;
        }
        let mut pair = Pair::open_with(config, server::Config::default());
        let reason = name("disk");
        for _ in 0..2 {
            pair.server.block(reason.clone()).unwrap();
            pair.exchange();
            assert_eq!(pair.client.is_blocked(), understands);
            pair.server.unblock().unwrap();
            pair.exchange();
            assert!(!pair.client.is_blocked());
        }
        let events = pair.take_client_events();
        assert_eq!(events.len(), if understands { 4 } else { 0 });
        pair.server.unblock().unwrap();
        pair.exchange();
        assert_eq!(pair.take_client_events(), []);
    }
}

#[test]
fn a_client_may_pause_a_server() {
    let mut pair = Pair::open_with(
        Config {
            checks: Checks::Standard,
            ..Config::default()
        },
        server::Config::default(),
    );
    let id = pair.open_channel();
    for active in [false, true] {
        let request = pair
            .client_channel(id)
            .call(&channel::Flow { active })
            .unwrap();
        pair.exchange();
        let channel = id;
        assert_eq!(
            pair.take_server_events(),
            [server::Event::Flow { channel, active }]
        );
        let flow_ok = channel::FlowOk { active };
        pair.server_channel(id).send(&flow_ok).unwrap();
        assert!(pair.server_channel(id).send(&flow_ok).is_err());
        pair.exchange();
        assert_eq!(pair.only_reply(request), flow_ok.into());
        let hold = (!active).then_some(Hold::ChannelFlow);
        assert_eq!(pair.server_channel(id).hold(), hold);
    }
    // And a server a client.
    for active in [false, true] {
        let flow = channel::Flow { active };
        assert!(pair.server_channel(id).send(&flow).is_err());
    }
    let request = pair.client_channel(id).call(&queue::Declare::default());
    pair.exchange();
    let events = pair.take_server_events();
    assert!(
        matches!(
            &events[..],
            [server::Event::Request {
                method: ClientMethod::QueueDeclare(_),
                ..
            }]
        ),
        "{request:?} {events:?}"
    );
}

/// A server that sends requests and never reads the answers loses the connection before they take
/// more than a few megabytes; one that reads them may send requests for ever.
#[test]
fn answers_that_are_not_read_are_bounded() {
    const MOST: usize = 5 << 20;
    for listens in [true, false] {
        let mut client = Client::open();
        let id = client.channel();
        let mut asked = 0;
        while client.conn.is_open() && asked < MOST {
            for _ in 0..1000 {
                client.send(id.number(), &channel::Flow { active: true });
                asked += 13; // the frame of an answer, in bytes
            }
            client.events();
            if listens {
                client.bytes();
            }
            assert!(client.conn.buffered() <= MOST);
        }
        assert_eq!(client.conn.is_open(), listens);
        if !listens {
            let reason = client.conn.close_reason().expect("it has ended");
            assert_eq!(reason.code(), Some(ReplyCode::RESOURCE_ERROR));
        }
    }
}

#[test]
fn a_server_asks_for_a_round_trip_with_flow() {
    let mut pair = Pair::open();
    let client_id = pair.open_channel();
    let id = ChannelId::new(client_id.number(), client_id.incarnation());
    pair.server.channel(id).unwrap().flow(true).unwrap();
    pair.exchange();
    let active = true;
    let flow = Event::Flow {
        channel: client_id,
        active,
    };
    assert_eq!(pair.take_client_events(), [flow]);
    let method = ClientMethod::ChannelFlowOk(channel::FlowOk { active });
    let answered = server::Event::Request {
        channel: id,
        method,
    };
    assert_eq!(pair.take_server_events(), [answered]);
    let channel = pair.client.channel(client_id).unwrap();
    assert_eq!(channel.hold(0), None);
}
