//! Requests, their answers, and those that are abandoned or not answered.

use alloc::vec::Vec;
use core::time::Duration;

use super::script::*;
use crate::{
    ApiMisuse, ChannelId, CloseCause, Fault, RequestError, RequestId, Tags, TimeoutReason,
    client::{Config, Connection, Event},
    protocol::{Method, ReplyCode, basic, channel, queue},
};

type Client = Script<Connection>;

fn open() -> (Client, ChannelId) {
    let mut client = Client::open();
    let id = client.channel();
    (client, id)
}

fn declare(client: &mut Client, id: ChannelId) -> RequestId {
    client.on(id).call(&queue::Declare::default()).unwrap()
}

fn declare_ok(queue: &str) -> queue::DeclareOk {
    queue::DeclareOk::default().queue(queue)
}

fn consume_ok(tag: &str) -> basic::ConsumeOk {
    basic::ConsumeOk::default().consumer_tag(tag)
}

fn cancel(tag: &str) -> basic::Cancel {
    basic::Cancel::default().consumer_tag(tag)
}

fn cancel_ok(tag: &str) -> basic::CancelOk {
    basic::CancelOk::default().consumer_tag(tag)
}

fn put_back(number: u64) -> Sent {
    let reject = basic::Nack {
        delivery_tag: number,
        multiple: false,
        requeue: true,
    };
    method(1, reject)
}

/// A message that was fetched.
fn send_got(client: &mut Client, number: u64) {
    let ok = basic::GetOk::default().delivery_tag(number);
    client.send_content(1, &ok, &basic::Properties::default(), b"body");
}

/// That request timed out, and nothing else has happened.
fn timed_out(client: &mut Client, request: RequestId) {
    let [
        Event::Failed {
            request: failed,
            cause: cause @ RequestError::TimedOut { .. },
        },
    ] = &client.events()[..]
    else {
        panic!("it has not timed out");
    };
    assert_eq!(*failed, request);
    assert!(cause.is_timed_out() && cause.reason().is_none());
}

#[test]
fn many_requests_are_under_way() {
    // Amqprs's defect 2: one slot for each kind of request.
    let (mut client, id) = open();
    let requests: Vec<_> = (0..100).map(|_| declare(&mut client, id)).collect();
    assert_eq!(client.sent().len(), 100);
    for (number, request) in requests.into_iter().enumerate() {
        let ok = declare_ok(&alloc::format!("{number}"));
        client.send(1, &ok);
        assert_eq!(client.events(), [replied(id, request, ok)]);
    }
}

#[test]
fn an_answer_goes_to_the_oldest_request_of_its_kind() {
    let (mut client, id) = open();
    let bind = queue::Bind::default().exchange("ex");
    let mut on = client.on(id);
    let declares = [(); 2].map(|()| on.call(&queue::Declare::default()).unwrap());
    let binds = [(); 2].map(|()| on.call(&bind).unwrap());
    let purge = on.call(&queue::Purge::default()).unwrap();
    client.bytes();
    client.send(1, &queue::PurgeOk::default());
    client.send(1, &queue::BindOk);
    client.send(1, &declare_ok("a"));
    client.send(1, &queue::BindOk);
    client.send(1, &declare_ok("b"));
    assert_eq!(
        client.events(),
        [
            replied(id, purge, queue::PurgeOk::default()),
            replied(id, binds[0], queue::BindOk),
            replied(id, declares[0], declare_ok("a")),
            replied(id, binds[1], queue::BindOk),
            replied(id, declares[1], declare_ok("b")),
        ]
    );
}

#[test]
fn an_answer_to_nothing_is_a_fault() {
    for asked in [false, true] {
        let (mut client, id) = open();
        if asked {
            client.on(id).call(&queue::Purge::default()).unwrap();
        }
        client.send(1, &declare_ok("q"));
        let events = client.events();
        let Some(Event::Closed(reason)) = events.last() else {
            panic!("the answer was taken");
        };
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{reason}");
        };
        assert_eq!(error.fault, Fault::UnexpectedReply);
        assert_eq!(reason.code(), Some(ReplyCode::COMMAND_INVALID));
        assert_eq!(events.len(), 1 + usize::from(asked));
    }
}

#[test]
fn the_answer_to_an_abandoned_request_is_not_that_of_the_next() {
    let (mut client, id) = open();
    let first = declare(&mut client, id);
    client.conn.abandon(id, first);
    let second = declare(&mut client, id);
    client.bytes();
    client.send(1, &declare_ok("first"));
    assert_eq!(client.events(), []);
    client.send(1, &declare_ok("second"));
    let ok = declare_ok("second");
    assert_eq!(client.events(), [replied(id, second, ok)]);
    // It may be abandoned at any time, again and again.
    client.conn.abandon(id, first);
    client.conn.abandon(id, second);
    assert_eq!(client.sent(), []);
    assert_eq!(client.events(), []);
    assert_eq!(client.conn.poll_timeout(), None);
}

/// RabbitMQ 3.10 would close the connection for a cancel before that.
#[test]
fn an_abandoned_consumer_is_cancelled_when_it_is_confirmed() {
    let (mut client, id) = open();
    let (_, request) = client.consume(id, consume("q", "t"));
    client.bytes();
    client.deliver(id, "t", 1);
    assert!(matches!(client.only_event(), Event::Delivered(_)));
    client.conn.abandon(id, request);
    assert_eq!(client.sent(), []);
    // Later messages are requeued, but the one that was handed over is the caller's.
    client.deliver(id, "t", 2);
    assert_eq!(client.sent(), [put_back(2)]);
    // The tag is not free yet.
    let taken = client.on(id).consume(consume("q", "t"));
    assert_eq!(taken, Err(ApiMisuse::DuplicateConsumerTag(name("t"))));
    client.send(1, &consume_ok("t"));
    assert_eq!(client.sent(), [method(1, cancel("t"))]);
    client.deliver(id, "t", 3);
    assert_eq!(client.sent(), [put_back(3)]);
    // The tag is free behind the cancel.
    let (consumer, request) = client.consume(id, consume("q", "t"));
    assert_eq!(client.sent(), [method(1, consume("q", "t"))]);
    client.deliver(id, "t", 4);
    assert_eq!(client.sent(), [put_back(4)]);
    client.send(1, &cancel_ok("t"));
    assert_eq!(client.events(), []);
    client.send(1, &consume_ok("t"));
    assert_eq!(client.events(), [replied(id, request, consume_ok("t"))]);
    client.deliver(id, "t", 5);
    assert!(matches!(
        client.only_event(),
        Event::Delivered(delivery) if delivery.consumer == consumer
    ));
    assert_eq!(client.sent(), []);
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    assert!(client.on(id).ack(Tags::One(tag(2))).is_err());
}

#[test]
fn an_abandoned_consumer_that_the_server_cancels_is_gone() {
    let (mut client, id) = open();
    let (_, request) = client.consume(id, consume("q", "t"));
    client.conn.abandon(id, request);
    let waiting = declare(&mut client, id);
    client.bytes();
    client.send(1, &cancel("t").no_wait(true));
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
    client.consumer(id, "t", false);
    // The other request still has its deadline.
    let calls = client.advance(Duration::from_secs(30));
    assert_eq!(calls.len(), 1, "{calls:?}");
    timed_out(&mut client, waiting);
}

#[test]
fn an_abandoned_consumer_that_the_server_refuses_leaves_nothing_behind() {
    let (mut client, id) = open();
    let (consumer, _) = client.consume(id, consume("q", "t"));
    client.bytes();
    client.on(id).abandon_consumer(&name("t"), consumer);
    client.send(1, &channel::Close::default());
    assert!(matches!(client.events()[..], [Event::ChannelClosed { .. }]));
    assert_eq!(client.sent(), [method(1, channel::CloseOk)]);
    assert_eq!(client.conn.poll_timeout(), None);
    let id = client.conn.open_channel_at(1).unwrap().0;
    client.bytes();
    client.send(1, &channel::OpenOk);
    client.events();
    client.consumer(id, "t", false);
    assert_eq!(client.sent(), []);
}

/// Late answers on a channel that is being closed are ignored.
#[test]
fn an_abandoned_consumer_is_confirmed_while_its_channel_closes() {
    let (mut client, id) = open();
    let (consumer, _) = client.consume(id, consume("q", "t"));
    client.on(id).abandon_consumer(&name("t"), consumer);
    let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    client.bytes();
    client.send(1, &consume_ok("t"));
    client.deliver(id, "t", 1);
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
    client.send(1, &channel::CloseOk);
    assert_eq!(client.events(), [replied(id, request, channel::CloseOk)]);
    assert_eq!(client.conn.channel_count(), 0);
}

#[test]
fn an_abandoned_message_is_put_back() {
    let (mut client, id) = open();
    let get = |client: &mut Client, no_ack| {
        let get = basic::Get::default().no_ack(no_ack);
        client.on(id).get(&get).unwrap()
    };
    let requests = [false, true, false].map(|no_ack| get(&mut client, no_ack));
    let last = get(&mut client, false);
    client.bytes();
    for request in requests {
        client.conn.abandon(id, request);
    }
    send_got(&mut client, 1);
    assert_eq!(client.sent(), [put_back(1)]);
    // A message without acknowledgement cannot be requeued.
    send_got(&mut client, 2);
    client.send(1, &basic::GetEmpty);
    assert_eq!(client.sent(), []);
    assert_eq!(client.events(), []);
    send_got(&mut client, 3);
    assert!(matches!(client.only_event(), Event::Got { request, .. } if request == last));
    assert!(client.on(id).ack(Tags::One(tag(1))).is_err());
    client.on(id).ack(Tags::One(tag(3))).unwrap();
}

#[test]
fn a_get_that_is_abandoned_in_the_middle_of_its_body() {
    let (mut client, id) = open();
    let request = client.on(id).get(&basic::Get::default()).unwrap();
    client.bytes();
    client.send(1, &basic::GetOk::default().delivery_tag(1));
    client.feed(&header_frame(1, &basic::Properties::default(), 4));
    client.conn.abandon(id, request);
    client.feed(&frame(crate::frame::FrameKind::Body, 1, b"body"));
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), [put_back(1)]);
}

#[test]
fn an_abandoned_channel_is_closed_when_it_is_open() {
    let mut client = Client::open();
    let (id, request) = client.conn.open_channel().unwrap();
    client.bytes();
    client.conn.abandon(id, request);
    client.conn.abandon(id, request);
    assert_eq!(client.conn.channel_count(), 1);
    assert_eq!(client.sent(), []);
    client.send(1, &channel::OpenOk);
    let Method::ChannelClose(close) = client.only_method() else {
        panic!("it is left open");
    };
    assert_eq!(close.reply_code, ReplyCode::SUCCESS);
    assert!(!client.on(id).is_open());
    client.send(1, &channel::CloseOk);
    assert_eq!(client.events(), []);
    assert_eq!(client.conn.channel_count(), 0);
    assert_eq!(client.conn.poll_timeout(), None);
}

#[test]
fn an_abandoned_close_still_frees_the_number() {
    let (mut client, id) = open();
    let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    client.bytes();
    client.conn.abandon(id, request);
    client.send(1, &channel::CloseOk);
    assert_eq!(client.events(), []);
    assert_eq!(client.conn.channel_count(), 0);
}

#[test]
fn a_consumer_without_a_listener_is_cancelled() {
    let (mut client, id) = open();
    let consumer = client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    client.events();
    client.on(id).abandon_consumer(&name("t"), consumer);
    assert_eq!(client.sent(), [method(1, cancel("t"))]);
    client.on(id).abandon_consumer(&name("t"), consumer);
    client.on(id).abandon_consumer(&name("u"), consumer);
    assert_eq!(client.sent(), []);
    client.deliver(id, "t", 2);
    assert_eq!(client.sent(), [put_back(2)]);
    // A cancel of the server's that crosses it has no event either.
    client.send(1, &cancel("t").no_wait(true));
    client.send(1, &cancel_ok("t"));
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    client.bytes();
    client.consumer(id, "t", false);

    // One that is not confirmed, when it is.
    let (consumer, request) = client.consume(id, consume("q", "u"));
    client.bytes();
    client.on(id).abandon_consumer(&name("u"), consumer);
    client.on(id).abandon_consumer(&name("u"), consumer);
    assert_eq!(client.sent(), []);
    client.send(1, &consume_ok("u"));
    assert_eq!(client.sent(), [method(1, cancel("u"))]);
    client.on(id).abandon_consumer(&name("u"), consumer);
    assert_eq!(client.sent(), []);
    client.send(1, &cancel_ok("u"));
    assert_eq!(client.events(), [], "{request:?}");
}

#[test]
fn a_request_times_out_and_its_late_answer_is_not_that_of_the_next() {
    let (mut client, id) = open();
    let first = declare(&mut client, id);
    client.bytes();
    let start = client.now;
    let (at, reason) = client.conn.poll_timeout().unwrap();
    assert_eq!(at, start + Duration::from_secs(30));
    assert_eq!(reason, TimeoutReason::Request);
    client.advance(Duration::from_millis(29_999));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(1));
    timed_out(&mut client, first);
    assert_eq!(client.conn.poll_timeout(), None);
    let second = declare(&mut client, id);
    client.bytes();
    client.send(1, &declare_ok("first"));
    assert_eq!(client.events(), []);
    client.send(1, &declare_ok("second"));
    let ok = declare_ok("second");
    assert_eq!(client.events(), [replied(id, second, ok)]);
    assert_eq!(client.conn.poll_timeout(), None);
}

#[test]
fn the_effect_of_a_late_answer_is_undone() {
    let wait = |client: &mut Client, request| {
        client.bytes();
        client.advance(Duration::from_secs(30));
        timed_out(client, request);
    };
    let (mut client, id) = open();
    let (_, request) = client.consume(id, consume("q", "t"));
    wait(&mut client, request);
    assert_eq!(client.sent(), []);
    client.deliver(id, "t", 1);
    assert_eq!(client.sent(), [put_back(1)]);
    client.send(1, &consume_ok("t"));
    assert_eq!(client.sent(), [method(1, cancel("t"))]);
    client.send(1, &cancel_ok("t"));

    let request = client.on(id).get(&basic::Get::default()).unwrap();
    wait(&mut client, request);
    send_got(&mut client, 2);
    assert_eq!(client.sent(), [put_back(2)]);

    let (opening, request) = client.conn.open_channel().unwrap();
    wait(&mut client, request);
    client.send(opening.number(), &channel::OpenOk);
    assert!(matches!(client.only_method(), Method::ChannelClose(_)));
    client.send(opening.number(), &channel::CloseOk);

    let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    wait(&mut client, request);
    client.send(1, &channel::CloseOk);
    assert_eq!(client.conn.channel_count(), 0);
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
}

#[test]
fn deadlines_come_in_the_order_of_requests() {
    let (mut client, id) = open();
    let mut requests = Vec::new();
    for _ in 0..5 {
        requests.push(declare(&mut client, id));
        client.bytes();
        client.advance(Duration::from_secs(5));
    }
    // The second is answered, the fourth abandoned.
    client.send(1, &declare_ok("0"));
    let ok = declare_ok("0");
    assert_eq!(client.events(), [replied(id, requests[0], ok)]);
    client.conn.abandon(id, requests[3]);
    let mut failed = Vec::new();
    for _ in 0..30 {
        client.advance(Duration::from_secs(1));
        failed.extend(client.events().into_iter().map(|event| match event {
            Event::Failed {
                request,
                cause: RequestError::TimedOut { .. },
            } => (client.now.as_nanos() / 1_000_000_000 - 1000, request),
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(
        failed,
        [(35, requests[1]), (40, requests[2]), (50, requests[4])]
    );
    assert_eq!(client.conn.poll_timeout(), None);
}

#[test]
fn a_request_may_wait_for_ever() {
    let mut config = Config::default();
    config.timeouts.request = None;
    let mut client = Client::open_with(config);
    let id = client.channel();
    let request = declare(&mut client, id);
    client.bytes();
    assert_eq!(client.conn.poll_timeout(), None);
    client.advance(Duration::from_secs(86_400 * 365));
    assert_eq!(client.events(), []);
    client.send(1, &declare_ok("q"));
    let ok = declare_ok("q");
    assert_eq!(client.events(), [replied(id, request, ok)]);
}

#[test]
fn requests_that_were_answered_have_no_deadline() {
    let (mut client, id) = open();
    let ok = declare_ok("q");
    for _ in 0..1000 {
        let request = declare(&mut client, id);
        client.bytes();
        client.send(1, &ok);
        assert_eq!(client.events(), [replied(id, request, ok.clone())]);
        assert_eq!(client.conn.poll_timeout(), None);
    }
    // Nor has a channel that was closed, or that took its requests with it.
    for by_server in [false, true] {
        let id = client.channel();
        let number = id.number();
        declare(&mut client, id);
        client.consume(id, consume("q", "t"));
        if by_server {
            client.send(number, &channel::Close::default());
        } else {
            client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
            client.bytes();
            client.send(number, &channel::CloseOk);
        }
        client.events();
        client.bytes();
        assert_eq!(client.conn.poll_timeout(), None);
    }
}

#[test]
fn a_deadline_is_set_when_the_time_is_known() {
    let (mut client, id) = open();
    // A command does not know the time. The machine asks for it.
    declare(&mut client, id);
    let (at, reason) = client.conn.poll_timeout().unwrap();
    assert!(at <= client.now);
    assert_eq!(reason, TimeoutReason::SetDeadline);
    client.now = client.now + Duration::from_secs(100);
    client.conn.handle_timeout(client.now);
    let (at, reason) = client.conn.poll_timeout().unwrap();
    assert_eq!(at, client.now + Duration::from_secs(30));
    assert_eq!(reason, TimeoutReason::Request);
    assert_eq!(client.events(), []);
    // Also behind one that has its time.
    declare(&mut client, id);
    assert_eq!(
        client.conn.poll_timeout().unwrap().1,
        TimeoutReason::SetDeadline
    );
    client.bytes();
    assert_eq!(
        client.conn.poll_timeout().unwrap().1,
        TimeoutReason::Request
    );
}

#[test]
fn a_cancel_of_the_server_s_that_crosses_one_without_an_answer() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.on(id).send(&cancel("t")).unwrap();
    let (next, request) = client.consume(id, consume("q", "t"));
    client.bytes();
    // The queue was deleted before the server had read any of it.
    client.send(1, &cancel("t").no_wait(true));
    assert_eq!(client.events(), []);
    client.send(1, &consume_ok("t"));
    assert_eq!(client.events(), [replied(id, request, consume_ok("t"))]);
    client.deliver(id, "t", 1);
    assert!(matches!(client.only_event(), Event::Delivered(delivery) if delivery.consumer == next));
    // The next cancel means the consumer that there is.
    client.send(1, &cancel("t").no_wait(true));
    let consumer = next;
    assert_eq!(
        client.events(),
        [Event::ConsumerCancelled {
            channel: id,
            consumer,
            tag: name("t")
        }]
    );
}
